//! The contract, sentence by sentence, by the conformance kit.

use crate::world::world;
use alpine_conformance::{Options, Verdict, check};
use alpine_plugin_tests::{By, Ported, library};
use std::path::Path;

async fn keeps(by: By, fresh: bool, points: u32, skipped: &[&str]) {
    let world = world(&[]);
    let host = Path::new(env!("CARGO_BIN_EXE_plugin-host"));
    let file = library("alpine-plugin-podman");
    let directory = tempfile::tempdir().unwrap();
    let mut subject = Ported::new(by, &file, host, directory.path());
    subject.open.place.env = world.place.env.clone();
    let subject = subject.config(world.table());
    let only = subject.only();
    let options = Options {
        only: only.iter().map(|&text| text.to_owned()).collect(),
        fresh,
        points,
        ..Options::default()
    };
    let report = check(&subject, &options).await.unwrap();
    println!("{}", report.text());
    assert!(report.is_success(), "{}", report.text());
    // That it is in this process is why there is no wire to look at, and nothing to kill.
    let is_skipped = |verdict: &Verdict| match verdict {
        Verdict::Skipped { why } => !why.ends_with("it is in process"),
        Verdict::Pass | Verdict::Fail { .. } => false,
    };
    let unchecked = report.checks.iter().filter(|it| is_skipped(&it.verdict));
    let unchecked: Vec<_> = unchecked.map(|it| it.name.as_str()).collect();
    let is_made = |name: &&str| only.is_empty() || only.iter().any(|text| name.contains(text));
    let skipped: Vec<_> = skipped.iter().copied().filter(is_made).collect();
    assert_eq!(unchecked, skipped);
    assert_eq!(subject.processes(), [], "a process is left");
}

/// What is not checked of a provider that has every method, and no network unless it is told to.
const SKIPPED: [&str; 4] = [
    "describe.unannounced",
    "start.serves",
    "start.twice",
    "start.not_ready",
];

/// Nothing that another way keeps in memory is there to help.
#[tokio::test(flavor = "multi_thread")]
async fn the_contract_is_kept_in_a_fresh_process_before_every_call() {
    keeps(By::Hosted, true, 2, &SKIPPED).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_contract_is_kept_in_this_process() {
    let no_variable_of_its_own = ["exec.environment"];
    let skipped = [&SKIPPED[..], &no_variable_of_its_own].concat();
    keeps(By::InProcess, false, 2, &skipped).await;
}
