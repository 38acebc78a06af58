//! The fake keeps the contract.

use alpine_conformance::{CompiledIn, Options, check};
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
