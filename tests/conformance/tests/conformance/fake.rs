//! The fake keeps the contract.

use alpine_conformance::{CompiledIn, Options, Verdict, check, check_until};
use alpine_testkit::FakeProvider;
use expect_test::expect;
use std::collections::BTreeSet;
use std::fs;
use std::sync::Arc;
use tempfile::TempDir;

/// The fake with real work, and where its state is.
pub(crate) fn fake(directory: &TempDir) -> CompiledIn {
    let state = directory.path().join("fake");
    let objects = state.join("objects");
    CompiledIn::new(move || Arc::new(FakeProvider::real(&state))).with_objects(objects)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_fake_keeps_the_contract() {
    let directory = TempDir::new().unwrap();
    let report = check(&fake(&directory), &Options::default()).await.unwrap();
    assert!(report.is_success(), "{}", report.text());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fresh_fake_for_every_call_keeps_the_contract() {
    let directory = TempDir::new().unwrap();
    let options = Options {
        fresh: true,
        ..Options::default()
    };
    let report = check(&fake(&directory), &options).await.unwrap();
    assert!(report.is_success(), "{}", report.text());
}

#[tokio::test]
async fn what_looks_at_nothing_is_no_success() {
    let directory = TempDir::new().unwrap();
    let options = |only: &str| Options {
        only: vec![only.to_owned()],
        points: 0,
        ..Options::default()
    };
    let none = check(&fake(&directory), &options("nope")).await;
    expect!["no check's name holds `nope`: they begin with `boundary`, `describe`, `arguments`, `provision`, `list`, `inspect`, `never_was`, `sync`, `install`, `start`, `open`, `exec`, `logs`, `capture`, `persist`, `object`, `restore`, `stop`, `destroy`, `fence`, `crash`"].assert_eq(&none.unwrap_err().to_string());
    let report = check(&fake(&directory), &options("crash.dropped")).await;
    let verdict = &report.unwrap().checks[0].verdict;
    assert!(matches!(verdict, Verdict::Skipped { .. }), "{verdict:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn few_strikes_fall_upon_other_steps_in_each_run_and_the_report_says_which() {
    let directory = TempDir::new().unwrap();
    let options = Options {
        only: vec!["crash.dropped".to_owned()],
        points: 2,
        ..Options::default()
    };
    let mut struck = BTreeSet::new();
    for _ in 0..4 {
        let report = check(&fake(&directory), &options).await.unwrap();
        let note = report.checks[0].note.clone().expect("a note");
        assert!(
            report.text().contains(&format!(" ms): {note}\n")),
            "{}",
            report.text()
        );
        let steps = note.strip_prefix("struck ").unwrap().split(", ");
        struck.extend(steps.map(|one| one.split(' ').next().unwrap().to_owned()));
    }
    // The first two of a life, were it always the same.
    assert!(struck.len() > 2, "{struck:?}");
}

#[tokio::test]
async fn what_is_stopped_leaves_nothing_and_has_told_what_had_ended() {
    let directory = TempDir::new().unwrap();
    let sandboxes = directory.path().join("fake/sandboxes");
    let made = || fs::read_dir(&sandboxes).is_ok_and(|mut entries| entries.next().is_some());
    let in_the_second = std::sync::atomic::AtomicBool::new(false);
    let stop = async {
        while !(in_the_second.load(std::sync::atomic::Ordering::Relaxed) && made()) {
            tokio::task::yield_now().await;
        }
    };
    let options = Options {
        only: ["describe.again", "crash.dropped"]
            .map(str::to_owned)
            .to_vec(),
        points: 1_000_000,
        temporary: Some(directory.path().to_owned()),
        ..Options::default()
    };
    let mut told = Vec::new();
    let subject = fake(&directory);
    let report = check_until(&subject, &options, stop, |checked| {
        told.push(checked.name.clone());
        in_the_second.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    let report = report.await.unwrap();
    assert_eq!((report.checks.len(), told.len()), (1, 1), "{told:?}");
    assert_eq!(report.left, [""; 0]);
    assert!(!made());
    // The fake's own state is all there is.
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
}
