//! The contract, sentence by sentence, by the conformance kit.

use crate::world::world;
use alpine_conformance::{Options, check};
use alpine_plugin_tests::{By, Ported, library};
use std::path::Path;

async fn keeps(by: By, fresh: bool, points: u32) {
    let world = world(&[]);
    let host = Path::new(env!("CARGO_BIN_EXE_plugin-host"));
    let file = library("alpine-plugin-podman");
    let directory = tempfile::tempdir().unwrap();
    let mut subject = Ported::new(by, &file, host, directory.path());
    subject.open.place.env = world.place.env.clone();
    let subject = subject.config(world.table());
    let options = Options {
        fresh,
        points,
        ..Options::default()
    };
    let report = check(&subject, &options).await.unwrap();
    println!("{}", report.text());
    assert!(report.is_success(), "{}", report.text());
    assert_eq!(subject.processes(), [], "a process is left");
}

/// Nothing that another way keeps in memory is there to help.
#[tokio::test(flavor = "multi_thread")]
async fn the_contract_is_kept_in_a_fresh_process_before_every_call() {
    keeps(By::Hosted, true, 6).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_contract_is_kept_in_this_process() {
    keeps(By::InProcess, false, 2).await;
}
