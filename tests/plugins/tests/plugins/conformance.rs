//! Each of them keeps the contract, however it is reached, in a fresh process for every call too. What is not here, C and
//! Rust in a process of their own and Python as a program, bare and whole, is checked by the commands of the guide.

use super::support::ported;
use alpine_conformance::{Options, Report, Verdict, check};
use alpine_plugin_tests::{By, Ported, build, library, python};
use expect_test::{Expect, expect};
use serde_json::json;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

fn c(into: &Path) -> PathBuf {
    build(into, "c/provider.c", &[])
}

/// It does, and nothing but these checks is skipped.
async fn keeps(subject: &Ported, fresh: bool, skipped: Expect) {
    let only = subject.only();
    let options = Options {
        only: only.iter().map(|&text| text.to_owned()).collect(),
        fresh,
        points: 5,
        ..Options::default()
    };
    let report = check(subject, &options).await.unwrap();
    println!("{}", report.text());
    assert!(report.is_success(), "{}", report.text());
    assert_eq!(subject.processes(), [], "a process is left");
    let checks = report.checks.iter();
    let names = checks.filter(|check| matches!(check.verdict, Verdict::Skipped { .. }));
    let names: Vec<_> = names.map(|check| check.name.as_str()).collect();
    if only.is_empty() {
        skipped.assert_eq(&names.join("\n"));
    } else {
        let is_made = |name: &&str| only.iter().any(|text| name.contains(text));
        let skipped: Vec<_> = skipped
            .data()
            .lines()
            .map(str::trim)
            .filter(is_made)
            .collect();
        assert_eq!(names, skipped);
    }
}

/// Those in Rust are whole by themselves.
fn in_rust(by: By, package: &str, config: serde_json::Value) -> (TempDir, Ported) {
    let (directory, subject) = ported(by, |_| library(package));
    (directory, subject.config(config))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_fake_in_process() {
    let (_directory, subject) = in_rust(By::InProcess, "alpine-fake-plugin", json!({"real": true}));
    keeps(
        &subject,
        false,
        expect![[r#"
        boundary.hello
        boundary.range
        boundary.configuration
        boundary.second_open
        boundary.unknown_method
        boundary.unknown_kind
        boundary.garbage
        boundary.too_large
        boundary.events_first
        boundary.cancel
        boundary.ping
        boundary.credit
        boundary.stdout
        boundary.end
        describe.unannounced
        arguments.missing_field
        arguments.unknown_field
        start.serves
        start.twice
        start.not_ready
        start.page
        open.once
        exec.environment
        object.corrupt
        crash.killed"#]],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_fake_hosted_and_fresh() {
    let (_directory, subject) = in_rust(By::Hosted, "alpine-fake-plugin", json!({"real": true}));
    keeps(
        &subject,
        true,
        expect![[r#"
        describe.unannounced
        start.serves
        start.twice
        start.not_ready
        start.page
        open.once
        object.corrupt"#]],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_template_in_process() {
    let (_directory, subject) = in_rust(By::InProcess, "alpine-plugin-template", json!({}));
    keeps(
        &subject,
        false,
        expect![[r#"
        boundary.hello
        boundary.range
        boundary.configuration
        boundary.second_open
        boundary.unknown_method
        boundary.unknown_kind
        boundary.garbage
        boundary.too_large
        boundary.events_first
        boundary.cancel
        boundary.ping
        boundary.credit
        boundary.stdout
        boundary.end
        describe.unannounced
        arguments.missing_field
        arguments.unknown_field
        start.unannounced
        exec.environment
        crash.killed"#]],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_template_hosted_and_fresh() {
    let (_directory, subject) = in_rust(By::Hosted, "alpine-plugin-template", json!({}));
    keeps(
        &subject,
        true,
        expect![[r#"
        describe.unannounced
        start.unannounced"#]],
    )
    .await;
}

/// At as many moments as the kit draws by itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_template_converges_after_fifty_kills() {
    let (_directory, subject) = ported(By::Hosted, |_| library("alpine-plugin-template"));
    let options = Options {
        only: vec!["crash.killed".to_owned()],
        ..Options::default()
    };
    assert_eq!(options.points, 50);
    let report = check(&subject, &options).await.unwrap();
    assert_eq!(report.counts(), (1, 0, 0), "{}", report.text());
}

/// What the report tells of the provider in Python, of which this is replaced.
async fn told(kept: &str, instead: &str, only: &str) -> Report {
    let (_directory, subject) = ported(By::Exec, |into| {
        let source = fs::read_to_string(python()).unwrap();
        assert_eq!(source.matches(kept).count(), 1, "{kept}");
        let file = into.join("provider.py");
        fs::write(&file, source.replace(kept, instead)).unwrap();
        fs::set_permissions(&file, Permissions::from_mode(0o755)).unwrap();
        file
    });
    let options = Options {
        only: vec![only.to_owned()],
        ..Options::default()
    };
    let report = check(&subject, &options).await.unwrap();
    assert!(!report.is_success(), "{}", report.text());
    println!("{}", report.text());
    report
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn why_a_provider_did_not_start_is_told_once() {
    let report = told(
        "import fcntl\n",
        "import nothing_of_this_name\n",
        "describe",
    )
    .await;
    let why = "| ModuleNotFoundError: No module named ";
    for text in [report.text(), report.junit()] {
        assert_eq!(text.matches(why).count(), 1, "{text}");
    }
    let skipped = report.checks.len() - 1;
    assert!(skipped > 2);
    assert_eq!(report.counts(), (0, 1, skipped));
    // Whether it was to be checked or not; and it took a time.
    assert_eq!(report.checks[0].name, "boundary.opens");
    assert!(report.checks[0].ms > 0);
    let document = report.json();
    assert_eq!(
        (document.get("provider"), document.get("version")),
        (None, None)
    );
    let text = report.text();
    let last = format!("\n0 passed, 1 failed, {skipped} skipped: it did not start\n");
    assert!(text.ends_with(&last), "{text}");
    assert!(text.lines().count() < 20, "{text}");
    assert_eq!(text.matches("did not start").count(), 2, "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_words_of_a_provider_that_died_are_told() {
    let kept = "        name = id_of(request)\n        about = {";
    let dies =
        "        print('the last words', file=sys.stderr, flush=True)\n        os._exit(3)\n";
    let report = told(kept, &format!("{dies}{kept}"), "provision.makes").await;
    let text = report.text();
    assert!(text.contains("| the last words"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c_in_process() {
    let (_directory, subject) = ported(By::InProcess, c);
    keeps(
        &subject,
        false,
        expect![[r#"
        boundary.hello
        boundary.range
        boundary.configuration
        boundary.second_open
        boundary.unknown_method
        boundary.unknown_kind
        boundary.garbage
        boundary.too_large
        boundary.events_first
        boundary.cancel
        boundary.ping
        boundary.credit
        boundary.stdout
        boundary.end
        arguments.missing_field
        arguments.unknown_field
        arguments.hostile_names
        sync.pinned
        sync.whole
        sync.twice
        sync.given_up
        sync.missing_commit
        sync.token_nowhere
        install.runs
        install.twice
        install.none
        install.fails
        install.given_up
        start.none
        start.serves
        start.twice
        start.not_ready
        start.page
        open.once
        start.unannounced
        inspect.probe
        exec.environment
        logs.follow
        capture.twice
        persist.twice
        persist.given_up
        persist.reads_back
        persist.without_workspace
        persist.destroyed
        object.missing
        object.corrupt
        restore.whole
        restore.twice
        restore.given_up
        stop.twice
        destroy.objects_stay
        crash.killed"#]],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c_in_process_whole() {
    let (_directory, subject) = ported(By::InProcess, c);
    keeps(
        &subject.adapted(),
        false,
        expect![[r#"
        boundary.hello
        boundary.range
        boundary.configuration
        boundary.second_open
        boundary.unknown_method
        boundary.unknown_kind
        boundary.garbage
        boundary.too_large
        boundary.events_first
        boundary.cancel
        boundary.ping
        boundary.credit
        boundary.stdout
        boundary.end
        describe.unannounced
        arguments.missing_field
        arguments.unknown_field
        start.unannounced
        exec.environment
        crash.killed"#]],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c_hosted_whole_and_fresh() {
    let (_directory, subject) = ported(By::Hosted, c);
    keeps(
        &subject.adapted(),
        true,
        expect![[r#"
        boundary.hello
        boundary.range
        boundary.configuration
        boundary.second_open
        boundary.unknown_method
        boundary.unknown_kind
        boundary.garbage
        boundary.too_large
        boundary.events_first
        boundary.cancel
        boundary.ping
        boundary.credit
        boundary.stdout
        boundary.end
        describe.unannounced
        arguments.missing_field
        arguments.unknown_field
        start.unannounced"#]],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn python_as_a_program_whole_and_fresh() {
    let (_directory, subject) = ported(By::Exec, |_| python());
    keeps(
        &subject.adapted(),
        true,
        expect![[r#"
        boundary.hello
        boundary.range
        boundary.configuration
        boundary.second_open
        boundary.unknown_method
        boundary.unknown_kind
        boundary.garbage
        boundary.too_large
        boundary.events_first
        boundary.cancel
        boundary.ping
        boundary.credit
        boundary.stdout
        boundary.end
        describe.unannounced
        arguments.missing_field
        arguments.unknown_field
        start.unannounced"#]],
    )
    .await;
}
