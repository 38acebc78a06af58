//! The fake keeps the contract.

use alpine_conformance::{CompiledIn, Options, Verdict, check};
use alpine_testkit::FakeProvider;
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
    assert!(none.unwrap_err().to_string().contains("`nope`"));
    let report = check(&fake(&directory), &options("crash.dropped")).await;
    let verdict = &report.unwrap().checks[0].verdict;
    assert!(matches!(verdict, Verdict::Skipped { .. }), "{verdict:?}");
}
