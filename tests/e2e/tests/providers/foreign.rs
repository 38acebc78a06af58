//! Sessions with the providers of `plugins/`: those that work, made whole by the adapter, and the one that does not.

use super::*;
use crate::local::http::{Caller, get};
use crate::support::{World, text, wait_until, with_json};
use rustix::process::Signal;
use std::time::{Duration, Instant};

/// A home whose provider `acme` is this file, with these lines as its configuration.
fn world(make: impl FnOnce(&Path) -> PathBuf, config: &str) -> World {
    let world = World::new();
    let made = make(world.env.root());
    // Where it was built, others may write.
    let file = world.env.root().join("provider");
    fs::copy(made, &file).expect("a copy");
    protect(&file, 0o755);
    world.done(&["provider", "add", shown(&file), "--name", "acme"]);
    world.configure(&format!(
        "[provider]\ndefault = 'acme'\n[agent]\ndefault = 'page'\n[ledger]\nlock_timeout = '60s'\n\
         [limits]\nbackoff = '5ms'\n[providers.acme.config]\n{config}\n"
    ));
    world
}

/// Up, a command, down, and everything is kept.
fn a_session(world: &World) {
    let up = world.done(&world.up("one"));
    assert_eq!(
        (&up["provider"], &up["state"]),
        (&"acme".into(), &"ready".into()),
        "{up:#}"
    );
    assert_eq!(up["target_commit_sha"], world.repo.head.as_str());
    let id = text(&up, "session_id");
    let url = text(&up, "opencode_url");
    assert_eq!(get(&url, &[]).status, 401);
    let opened = world.done(&["open", &id, "--credentials"]);
    let page = Caller::of(&opened).get(&url);
    assert!(
        page.status == 200 && page.body.contains(&id),
        "the page tells of its session: {page:?}"
    );
    let said = world.run(&[
        "exec",
        &id,
        "--",
        "sh",
        "-c",
        "cat README.md; echo kept > kept; echo err >&2; exit 7",
    ]);
    assert_eq!(
        (said.code(), &*said.stdout, &*said.stderr),
        (Some(7), "a repository\n", "err\n")
    );
    assert_eq!(world.done(&world.up("one"))["reused"], true);
    let down = world.done(&["down", &id]);
    assert_eq!(
        (&down["state"], &down["persistence_verified"]),
        (&"stopped".into(), &true.into()),
        "{down:#}"
    );
    assert!(
        down["workspace_snapshot"]["size"].as_u64() > Some(0),
        "{down:#}"
    );
    assert_eq!(world.done(&["down", &id]), down);
    let sandboxes = world.env.alpine_home().join("providers/acme/sandboxes");
    let left: Vec<_> = fs::read_dir(sandboxes)
        .expect("a directory")
        .flatten()
        .map(|entry| entry.file_name())
        .filter(|name| !name.to_string_lossy().starts_with('.'))
        .collect();
    assert_eq!(left, [] as [&str; 0], "a sandbox is left");
}

#[test]
fn six_methods_in_c_make_a_session() {
    let c = |into: &Path| alpine_plugin_tests::build(into, "c/provider.c", &[]);
    a_session(&world(c, ""));
}

#[test]
fn six_methods_in_python_make_a_session() {
    a_session(&world(|_| alpine_plugin_tests::python(), ""));
}

#[test]
fn a_provider_that_looks_elsewhere_loses_no_work() {
    let world = world(|_| alpine_plugin_tests::python(), "");
    let id = text(&world.done(&world.up("one")), "session_id");
    let file = world.env.alpine_home().join("config.toml");
    let config = fs::read_to_string(file).expect("a configuration");
    let elsewhere = world.env.root().join("elsewhere");
    world.configure(&format!("{config}root = '{}'\n", elsewhere.display()));
    let failure = world.fails(&["down", &id], "ERR_PERSISTENCE_VERIFICATION_FAILED", 2);
    let cause = text(&failure, "cause");
    assert!(cause.contains("configure it as it was"), "{cause}");
    world.configure(&config);
    let down = world.done(&["down", &id, "--retry-persist"]);
    assert!(
        down["workspace_snapshot"]["size"].as_u64() > Some(0),
        "{down:#}"
    );

    // One that is put in its place is told what it has to find.
    let id = text(&world.done(&world.up("two")), "session_id");
    let file = python_with(&world, "if fence < seen:", "if seen > fence:");
    let replaced = world.run(&["provider", "add", shown(&file), "--name", "acme"]);
    assert_eq!(replaced.code(), Some(0), "{replaced:#?}");
    assert!(replaced.stderr.contains(&id), "{replaced:#?}");
    assert_eq!(world.done(&["down", &id])["state"], "stopped");
}

fn template(_: &Path) -> PathBuf {
    alpine_plugin_tests::library("alpine-plugin-template")
}

#[test]
fn the_template_makes_a_session() {
    a_session(&world(template, ""));
}

/// The provider in Python, of which this is replaced.
fn python_with(world: &World, kept: &str, instead: &str) -> PathBuf {
    let source = fs::read_to_string(alpine_plugin_tests::python()).expect("a source");
    assert_eq!(source.matches(kept).count(), 1, "{kept}");
    let file = world.env.root().join("provider.py");
    fs::write(&file, source.replace(kept, instead)).expect("a file");
    protect(&file, 0o755);
    file
}

/// The adapter keeps fences itself: through it alone, nobody would see that the provider does not.
#[test]
fn a_check_finds_what_the_adapter_would_make_good() {
    let world = World::new();
    let (keeps, forgets) = ("if fence < seen:", "if False:");
    for (instead, exit) in [(keeps, 0), (forgets, 1)] {
        let file = python_with(&world, keeps, instead);
        let junit = world.env.root().join("report.xml");
        let words = [
            "provider",
            "check",
            shown(&file),
            "--only",
            "fence",
            "--junit",
        ];
        let output = world.run(&with_json(&[&words[..], &[shown(&junit)]].concat()));
        assert_eq!(output.code(), Some(exit), "{output:#?}");
        let report = alpine_testkit::json(&output);
        let of = |check: &serde_json::Value| (text(check, "reach"), text(check, "verdict"));
        let found: Vec<_> = report["checks"]
            .as_array()
            .expect("checks")
            .iter()
            .map(of)
            .collect();
        let (bare, adapted) = found.split_at(found.len() / 2);
        let is_broken = bare.iter().any(|(_, verdict)| verdict == "fail");
        assert_eq!(is_broken, exit == 1, "{report:#}");
        assert!(
            bare.iter().all(|(reach, _)| reach == "executable"),
            "{report:#}"
        );
        let whole = |(reach, verdict): &(String, String)| {
            reach == "executable, with what alpine adds" && verdict == "pass"
        };
        assert!(
            !adapted.is_empty() && adapted.iter().all(whole),
            "{report:#}"
        );
        let counts = report["counts"].as_object().expect("counts").values();
        let sum: u64 = counts.filter_map(serde_json::Value::as_u64).sum();
        assert_eq!(sum, found.len() as u64, "{report:#}");
        let suites = fs::read_to_string(&junit).expect("a report");
        for title in [
            "fencing (executable)",
            "fencing (executable, with what alpine adds)",
        ] {
            assert!(
                suites.contains(&format!("<testsuite name=\"{title}\"")),
                "{suites}"
            );
        }
    }
}

/// What it was given for itself is in no sandbox; the value is in no report.
#[test]
fn a_check_finds_a_provider_that_passes_its_own_environment_on() {
    let world = World::new();
    let (own, instead) = ("env = {**self.env,", "env = {**os.environ, **self.env,");
    let file = python_with(&world, own, instead);
    world.done(&["provider", "add", shown(&file), "--name", "acme"]);
    world.configure("[providers.acme]\nenv_allow = ['ACME_TOKEN', 'PATH']\n");
    let mut check = world.command(&["provider", "check", "acme", "--only", "exec.environment"]);
    let output = world.env.run(check.env("ACME_TOKEN", "hunter2hunter2"));
    assert_eq!(output.code(), Some(1), "{output:#?}");
    let told = "expected: no command has the provider's own `ACME_TOKEN`\n";
    assert_eq!(output.stdout.matches(told).count(), 2, "{output:#?}");
    assert!(!output.stdout.contains("hunter2"), "{output:#?}");
    // The search path is a sandbox's, too.
    assert!(!output.stdout.contains("`PATH`"), "{output:#?}");
}

/// One sentence is broken, and why is told once, whoever asks.
#[test]
fn why_a_provider_does_not_start_is_told_once() {
    let world = World::new();
    let file = python_with(&world, "import fcntl\n", "import nothing_of_this_name\n");
    world.done(&["provider", "add", shown(&file), "--name", "acme"]);
    let why = "No module named 'nothing_of_this_name'";
    for only in ["", "exec"] {
        let words = ["provider", "check", "acme", "--only", only];
        let output = world.run(&words);
        assert_eq!(output.code(), Some(1), "{output:#?}");
        assert_eq!(output.stdout.matches(why).count(), 1, "{output:#?}");
        let report = alpine_testkit::json(&world.run(&with_json(&words)));
        assert_eq!(report["counts"]["failed"], 1, "{report:#}");
        assert_eq!(report["checks"][0]["name"], "boundary.opens");
        assert_eq!(report["checks"][1]["why"], "it did not start");
    }
    let up = [&world.up("one")[..], &["--provider", "acme"]].concat();
    let failed = world.fails(&up, "ERR_PROVIDER_CRASHED", 2);
    let cause = text(&failed, "cause");
    assert!(
        cause.starts_with("provider `acme` did not start: its process exited"),
        "{cause}"
    );
    assert_eq!(cause.matches(why).count(), 1, "{cause}");
}

/// How late a hang is told at most.
const LATE: Duration = Duration::from_millis(500);

/// It has not died: it said what is wrong.
#[test]
fn what_a_provider_answers_at_its_start_is_told_as_what_it_is() {
    let world = World::new();
    let describe = "    def describe(self, _call, _request):\n";
    for (kind, code, exit) in [
        ("isolation_unavailable", "ERR_SANDBOX_UNAVAILABLE", 1),
        ("no_space", "ERR_SANDBOX_PROVISION_FAILED", 2),
    ] {
        let raises = format!("{describe}        raise Failure('{kind}', 'no engine answers')\n");
        let file = python_with(&world, describe, &raises);
        world.done(&["provider", "add", shown(&file), "--name", "acme"]);
        let up = [&world.up("one")[..], &["--provider", "acme"]].concat();
        let failed = world.fails(&up, code, exit);
        assert_eq!(failed["retryable"], false, "{failed:#}");
        let cause = text(&failed, "cause");
        assert!(
            cause.contains("did not start: no engine answers"),
            "{cause}"
        );
    }
}

/// One document, its status, and the program's own time, where a provider does this wrong.
#[test]
fn what_a_provider_does_wrong_is_one_document_and_a_right_status() {
    for (fault, code, exit, limit) in [
        ("segfault", "ERR_PROVIDER_CRASHED", 2, None),
        ("abort", "ERR_PROVIDER_CRASHED", 2, None),
        ("exit", "ERR_PROVIDER_CRASHED", 2, None),
        ("print", "ERR_SANDBOX_PROVISION_FAILED", 2, None),
        ("flood", "ERR_SANDBOX_PROVISION_FAILED", 2, None),
        ("garbage", "ERR_PROVIDER_INCOMPATIBLE", 1, None),
        ("twice", "ERR_SANDBOX_PROVISION_FAILED", 2, None),
        ("never", "ERR_TIMEOUT", 2, Some("2s")),
        ("hang", "ERR_TIMEOUT", 2, Some("2s")),
    ] {
        let provider =
            |into: &Path| alpine_plugin_tests::build(into, "misbehaving/provider.c", &[]);
        let world = world(provider, &format!("fault = '{fault}'"));
        let mut words = world.up("one");
        if let Some(limit) = limit {
            words.extend(["--timeout", limit]);
        }
        let begun = Instant::now();
        let output = world.run(&with_json(&words));
        let took = begun.elapsed();
        let document = alpine_testkit::json(&output);
        assert_eq!(output.stdout.lines().count(), 1, "{fault}: {output:#?}");
        assert_eq!(document["error_code"], code, "{fault}: {output:#?}");
        assert_eq!(output.code(), Some(exit), "{fault}: {output:#?}");
        let most = match limit {
            // Half a second after its deadline, and what alpine itself takes to start and to end.
            Some(_) => Duration::from_secs(2) + LATE + Duration::from_secs(1),
            None => Duration::from_secs(20),
        };
        assert!(took < most, "{fault}: {took:?}");
        // Nothing of it is left when its host has gone: the world looks after that.
    }
}

/// A crash of one that runs in alpine itself is alpine's; but its `exit(0)` is no success.
#[test]
fn an_exit_in_process_is_no_success() {
    let provider = |into: &Path| alpine_plugin_tests::build(into, "misbehaving/provider.c", &[]);
    let world = world(provider, "");
    world.configure(
        "[provider]\ndefault = 'acme'\n[agent]\ndefault = 'page'\n[providers.acme]\nisolation = 'in-process'\n\
         [providers.acme.config]\nfault = 'exit'\n",
    );
    let failure = world.fails(&world.up("one"), "ERR_PROVIDER_CRASHED", 2);
    assert!(
        text(&failure, "cause").contains("in-process"),
        "{failure:#}"
    );
    let told = world.run(&world.up("one"));
    assert_eq!((told.code(), &*told.stdout), (Some(2), ""), "{told:#?}");
    assert!(told.stderr.contains("ERR_PROVIDER_CRASHED"), "{told:#?}");
    let sessions = &world.done(&["list"])["sessions"];
    let down = world.done(&["down", &text(&sessions[0], "session_id")]);
    assert_eq!(down["state"], "failed", "{down:#}");
}

/// Before there is a session: the start of a provider that hangs in its `open` keeps nobody longer than they will wait.
#[test]
fn a_provider_that_hangs_in_its_open_is_given_up_at_the_limit_and_at_a_signal() {
    for isolation in ["process", "in-process"] {
        let provider =
            |into: &Path| alpine_plugin_tests::build(into, "misbehaving/provider.c", &[]);
        let world = world(provider, "");
        let report = world.env.root().join("report");
        world.configure(&format!(
            "[provider]\ndefault = 'acme'\n[agent]\ndefault = 'page'\n[providers.acme]\nisolation = '{isolation}'\n\
             [providers.acme.config]\nfault = 'open'\nreport = '{}'\n",
            shown(&report)
        ));
        let mut words = world.up("one");
        words.extend(["--timeout", "1s"]);
        let begun = Instant::now();
        let failed = world.fails(&words, "ERR_TIMEOUT", 2);
        assert!(begun.elapsed() < Duration::from_secs(8), "{isolation}");
        assert!(text(&failed, "next_step").starts_with("alpine up "));
        fs::remove_file(&report).expect("what it has noted");
        let running = world.start(&with_json(&world.up("one")));
        wait_until("it to be opened", || report.exists());
        running.signal(Signal::INT);
        let begun = Instant::now();
        let output = running.wait();
        assert_eq!(output.code(), Some(130), "{isolation}: {output:#?}");
        assert!(begun.elapsed() < Duration::from_secs(8), "{isolation}");
        assert_eq!(world.done(&["list"])["sessions"], serde_json::json!([]));
    }
}
