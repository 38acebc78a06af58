//! Every fault is found, by the check that is named for the sentence it breaks; the table of them is in the documentation.

use crate::broken::{Broken, Fault, Memory, own_env};
use alpine_conformance::{
    CompiledIn, Group, Kill, Options, Reach, Subject, Verdict, check, checks,
};
use alpine_provider_api::{ProviderError, SandboxProvider, Secret};
use alpine_testkit::{FakeProvider, end_all_of};
use async_trait::async_trait;
use expect_test::expect_file;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tempfile::TempDir;

/// The fake with a fault, and what kills it.
#[derive(Debug)]
struct Mortal {
    fake: CompiledIn,
    memory: Arc<Mutex<Memory>>,
}

#[async_trait]
impl Subject for Mortal {
    fn reach(&self) -> Reach {
        self.fake.reach()
    }

    async fn open(&self) -> Result<Arc<dyn SandboxProvider>, ProviderError> {
        self.fake.open().await
    }

    fn aim(&self) -> Option<Kill> {
        let memory = Arc::clone(&self.memory);
        Some(Box::new(move || memory.lock().unwrap().kill()))
    }

    fn objects(&self) -> Option<PathBuf> {
        self.fake.objects()
    }

    fn own_env(&self) -> BTreeMap<String, Secret<String>> {
        self.fake.own_env()
    }
}

fn broken(fault: Fault, directory: &TempDir) -> Mortal {
    let state = directory.path().join("fake");
    let objects = state.join("objects");
    let memory = Arc::new(Mutex::new(Memory::default()));
    let shared = Arc::clone(&memory);
    let fake = CompiledIn::new(move || {
        Arc::new(Broken {
            inner: FakeProvider::real(&state),
            state: state.clone(),
            fault,
            memory: Arc::clone(&shared),
            own: Mutex::default(),
        })
    });
    Mortal {
        fake: fake.with_objects(objects).with_own_env(own_env()),
        memory,
    }
}

/// What the named check says of the fake with this fault; nothing where it does not find it.
async fn found(fault: Fault) -> Result<(), String> {
    let mut missed = Ok(());
    let name = fault.told().1;
    // Where a check draws its moments, or waits for what a busy machine may not have done, one run may miss what the next finds.
    let draws = name.starts_with("crash.")
        || name.ends_with(".given_up")
        || ["provision.failing_midway", "exec.slow_reader"].contains(&name);
    for seed in 1..=if draws { 4 } else { 1 } {
        missed = found_with(fault, seed).await;
        if missed.is_ok() {
            break;
        }
    }
    missed
}

async fn found_with(fault: Fault, seed: u64) -> Result<(), String> {
    let (what, name) = fault.told();
    let directory = TempDir::new().unwrap();
    let options = Options {
        only: vec![name.to_owned()],
        call_limit: Duration::from_secs(4),
        points: 22,
        seed,
        ..Options::default()
    };
    let report = check(&broken(fault, &directory), &options).await.unwrap();
    // A fault may be that a process is not ended.
    assert!(end_all_of(directory.path()));
    let one = report.checks.iter().find(|check| check.name == name);
    match &one.unwrap().verdict {
        Verdict::Fail { .. } => Ok(()),
        Verdict::Pass => Err(format!("{fault:?} ({what}) passes `{name}`")),
        Verdict::Skipped { why } => Err(format!("{fault:?} ({what}): `{name}` is skipped: {why}")),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_fault_is_found() {
    let mut missed = Vec::new();
    // Several at once: much of a check is waiting.
    for some in Fault::ALL.chunks(8) {
        let running: Vec<_> = some
            .iter()
            .map(|&fault| tokio::spawn(found(fault)))
            .collect();
        for one in running {
            missed.extend(one.await.unwrap().err());
        }
    }
    assert!(missed.is_empty(), "{missed:#?}");
}

#[test]
fn the_documentation_has_every_check_and_every_fault() {
    let mut text = String::from(
        "# Conformance\n\nWhat `alpine-conformance` checks of a provider: each check is one sentence of the contract. What a provider\nannounces in `describe` has to work; what it does not announce has to answer `unsupported`. This page is printed by a\ntest (`UPDATE_EXPECT=1 cargo test -p alpine-conformance`).\n",
    );
    for group in Group::ALL {
        let _ = writeln!(
            text,
            "\n## {}\n\n| check | sentence |\n|---|---|",
            group.as_str()
        );
        for check in checks().iter().filter(|check| check.group == group) {
            let _ = writeln!(text, "| `{}` | {} |", check.name, check.sentence);
        }
    }
    let _ = writeln!(
        text,
        "\n## Faults\n\nThe kit is tested itself: each of these faults of the fake is found by the check beside it.\n\n| fault | found by |\n|---|---|"
    );
    for fault in Fault::ALL {
        let (what, name) = fault.told();
        let _ = writeln!(text, "| {what} | `{name}` |");
    }
    for (_, what, name) in crate::wire::FAULTS {
        let _ = writeln!(text, "| {what} | `{name}` |");
    }
    expect_file!["../../../../docs/conformance.md"].assert_eq(&text);
}

#[test]
fn names_are_stable_words_and_faults_name_checks() {
    let all = checks();
    let mut names: Vec<_> = all.iter().map(|check| check.name).collect();
    names.sort_unstable();
    let count = names.len();
    names.dedup();
    assert_eq!(names.len(), count, "a name is there twice");
    assert!(count >= 50 && Fault::ALL.len() >= 30);
    let seeded = Fault::ALL.iter().map(|fault| fault.told().1);
    let seeded: BTreeSet<_> = seeded
        .chain(crate::wire::FAULTS.map(|(_, _, name)| name))
        .collect();
    let names: BTreeSet<_> = names.into_iter().collect();
    assert_eq!(seeded, names, "each check has a fault");
}
