//! The checks of the boundary pass a provider that keeps it, and find each fault of one that does not.

use alpine_conformance::{Options, Reach, Subject, Verdict, Wire, check};
use alpine_provider_api::{ProviderError, SandboxProvider};
use alpine_testkit::FakeProvider;
use async_trait::async_trait;
use expect_test::expect;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use tempfile::TempDir;

/// What the peer does wrong, and the check that has to find it.
pub(crate) const FAULTS: [(&str, &str, &str); 19] = [
    (
        "magic",
        "a provider greets with another magic",
        "boundary.hello",
    ),
    ("greets_all", "a provider takes any host", "boundary.range"),
    (
        "refuses_silently",
        "a provider refuses without an error",
        "boundary.range",
    ),
    (
        "opens_anything",
        "a provider opens with a configuration that is no JSON",
        "boundary.configuration",
    ),
    (
        "opens_twice",
        "a provider opens twice",
        "boundary.second_open",
    ),
    (
        "knows_everything",
        "a provider answers methods that do not exist",
        "boundary.unknown_method",
    ),
    (
        "dies_of_a_kind",
        "a provider dies of a frame of an unknown kind",
        "boundary.unknown_kind",
    ),
    (
        "dies_of_garbage",
        "a provider dies of a call that is no JSON",
        "boundary.garbage",
    ),
    (
        "takes_all",
        "a provider waits for a frame of any size",
        "boundary.too_large",
    ),
    (
        "answer_first",
        "a provider answers before its events",
        "boundary.events_first",
    ),
    (
        "answers_twice",
        "a provider answers twice after CANCEL",
        "boundary.cancel",
    ),
    (
        "silent_cancel",
        "a provider does not answer after CANCEL",
        "boundary.cancel",
    ),
    (
        "no_pong",
        "a provider does not answer PING while a call runs",
        "boundary.ping",
    ),
    (
        "no_credit",
        "a provider sends more than its credit",
        "boundary.credit",
    ),
    (
        "long_chunks",
        "a provider sends chunks over the limit",
        "boundary.credit",
    ),
    (
        "prints",
        "a provider prints to standard output",
        "boundary.stdout",
    ),
    (
        "stays",
        "a provider's process outlives its host",
        "boundary.end",
    ),
    (
        "lax",
        "a provider takes requests that lack a field",
        "arguments.missing_field",
    ),
    (
        "strict",
        "a provider refuses fields that it does not know",
        "arguments.unknown_field",
    ),
];

/// The fake, with a peer at its wire.
#[derive(Debug)]
struct Peer {
    state: PathBuf,
    wrong: &'static str,
}

#[async_trait]
impl Subject for Peer {
    fn reach(&self) -> Reach {
        Reach::Exec
    }

    async fn open(&self) -> Result<Arc<dyn SandboxProvider>, ProviderError> {
        Ok(Arc::new(FakeProvider::real(&self.state)))
    }

    async fn wire(&self) -> Option<Wire> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conformance/peer.py");
        let state = self.state.clone().into_os_string();
        let arguments = [script.into_os_string(), self.wrong.into(), state];
        let path = BTreeMap::from([("PATH".into(), search_path())]);
        let open = b"{\"config\":{},\"place\":{}}".to_vec();
        let wire = Wire::start(&python(), &arguments, &path, open);
        Some(wire.unwrap())
    }
}

/// The interpreter itself: what the search path holds may be a script that takes descriptor 3 for its own.
fn python() -> PathBuf {
    let ask = ["-c", "import sys; print(sys.executable)"];
    let output = Command::new("python3").args(ask).output().unwrap();
    PathBuf::from(String::from_utf8(output.stdout).unwrap().trim())
}

#[expect(
    clippy::disallowed_methods,
    reason = "tests find their tools where the user does"
)]
fn search_path() -> OsString {
    std::env::var_os("PATH").unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wire_that_keeps_the_contract_passes() {
    let directory = TempDir::new().unwrap();
    let peer = Peer {
        state: directory.path().join("fake"),
        wrong: "",
    };
    let options = Options {
        only: ["boundary.", "_field"].map(str::to_owned).to_vec(),
        ..Options::default()
    };
    let report = check(&peer, &options).await.unwrap();
    assert!(report.is_success(), "{}", report.text());
    assert_eq!(report.counts(), (17, 0, 0));
}

/// Silence before the first byte is no end of its credit.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_that_starts_late_keeps_to_its_credit() {
    let late = ("starts_late", "", "boundary.credit");
    let told = found(late).await.unwrap_err();
    assert!(told.ends_with("Pass"), "{told}");
}

/// The processes that hold this text in their arguments.
fn processes(text: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let lines = entries.map(|entry| entry.path().join("cmdline"));
    let holds = |line: &PathBuf| {
        let line = fs::read(line).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(text)
    };
    lines.filter(holds).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_outlives_its_wire_is_not_left_behind() {
    let directory = TempDir::new().unwrap();
    let peer = Peer {
        state: directory.path().join("fake"),
        wrong: "stays",
    };
    let options = Options {
        only: ["ping", "garbage"].map(str::to_owned).to_vec(),
        ..Options::default()
    };
    let report = check(&peer, &options).await.unwrap();
    assert_eq!(report.counts(), (2, 0, 0), "{}", report.text());
    let left = processes(peer.state.to_str().unwrap());
    assert!(left.is_empty(), "{left:?}");
}

/// What the named check says of the peer that does this wrong; nothing where it finds it.
async fn found(fault: (&'static str, &'static str, &'static str)) -> Result<(), String> {
    let directory = TempDir::new().unwrap();
    let peer = Peer {
        state: directory.path().join("fake"),
        wrong: fault.0,
    };
    let options = Options {
        only: vec![fault.2.to_owned()],
        ..Options::default()
    };
    let report = check(&peer, &options).await.unwrap();
    match &report.checks[0].verdict {
        Verdict::Fail {
            expected, found, ..
        } => {
            let code = ["Ok(", "Err(", "Some(", "String(", "Frame", " { "];
            let told = format!("{expected}; {found}");
            match code.iter().any(|word| told.contains(word)) {
                true => Err(format!("{fault:?} is not told in words: {told}")),
                false => Ok(()),
            }
        }
        other => Err(format!("{fault:?}: {other:?}")),
    }
}

/// What an author reads who broke this.
#[tokio::test]
async fn what_a_wire_does_wrong_is_told_in_words() {
    let directory = TempDir::new().unwrap();
    let peer = Peer {
        state: directory.path().join("fake"),
        wrong: "knows_everything",
    };
    let options = Options {
        only: vec!["boundary.unknown_method".to_owned()],
        ..Options::default()
    };
    let report = check(&peer, &options).await.unwrap();
    let text = report.text();
    let (_, told) = text.split_once("\n\nFAIL  ").unwrap();
    let told: String = told
        .lines()
        .map(|line| {
            let (line, _) = line.split_once(": {\"").unwrap_or((line, ""));
            format!("{line}\n")
        })
        .collect();
    expect![[r#"
        boundary.unknown_method
          broken:   a method that it does not know answers `unsupported`, once, and the provider goes on
          expected: method 9999: ERR `unsupported`
          found:    OK of call 1: {}
          what led there (→ to the provider, ← from it):
            → HELLO
            ← HELLO
            → OPEN
            ← READY
            → CALL method 9999 of call 1
            ← OK of call 1: {}

        0 passed, 1 failed, 0 skipped
    "#]]
    .assert_eq(&told);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_fault_of_a_wire_is_found() {
    let running: Vec<_> = FAULTS
        .iter()
        .map(|&fault| tokio::spawn(found(fault)))
        .collect();
    let mut missed = Vec::new();
    for one in running {
        missed.extend(one.await.unwrap().err());
    }
    assert!(missed.is_empty(), "{missed:#?}");
}
