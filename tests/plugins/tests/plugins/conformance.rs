//! Each of them keeps the contract, however it is reached, in a fresh process for every call too. What is not here, C and
//! Rust in a process of their own and Python as a program, bare and whole, is checked by the commands of the guide.

use super::support::ported;
use alpine_conformance::{Options, Report, check};
use alpine_plugin_tests::{By, Ported, build, library, python};
use serde_json::json;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

fn c(into: &Path) -> PathBuf {
    build(into, "c/provider.c", &[])
}

async fn keeps(subject: &Ported, fresh: bool) {
    let options = Options {
        fresh,
        points: 5,
        ..Options::default()
    };
    let report = check(subject, &options).await.unwrap();
    println!("{}", report.text());
    assert!(report.is_success(), "{}", report.text());
    assert_eq!(subject.processes(), [], "a process is left");
}

/// Those in Rust are whole by themselves.
async fn in_rust_keeps(by: By, package: &str, config: serde_json::Value, fresh: bool) {
    let (_directory, subject) = ported(by, |_| library(package));
    keeps(&subject.config(config), fresh).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_fake_in_process() {
    in_rust_keeps(
        By::InProcess,
        "alpine-fake-plugin",
        json!({"real": true}),
        false,
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_fake_hosted_and_fresh() {
    in_rust_keeps(
        By::Hosted,
        "alpine-fake-plugin",
        json!({"real": true}),
        true,
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_template_in_process() {
    in_rust_keeps(By::InProcess, "alpine-plugin-template", json!({}), false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_template_hosted_and_fresh() {
    in_rust_keeps(By::Hosted, "alpine-plugin-template", json!({}), true).await;
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
    // Whether it was to be checked or not.
    assert_eq!(report.checks[0].name, "boundary.opens");
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

/// A test of each way to reach it: as it is, and made whole by the adapter.
macro_rules! keeps {
    ($($name:ident: $by:expr, $file:expr, $whole:expr, $fresh:expr;)+) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                let (_directory, subject) = ported($by, $file);
                let subject = if $whole { subject.adapted() } else { subject };
                keeps(&subject, $fresh).await;
            }
        )+
    };
}

keeps! {
    c_in_process: By::InProcess, c, false, false;
    c_in_process_whole: By::InProcess, c, true, false;
    c_hosted_whole_and_fresh: By::Hosted, c, true, true;
    python_as_a_program_whole_and_fresh: By::Exec, |_| python(), true, true;
}
