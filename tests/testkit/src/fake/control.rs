//! What a test does to the fake from outside, from any process.

use super::look::state;
use super::store::{CallLine, Locked, Planned, Run, Sandbox, Store, remove, write_bytes};
use super::tree;
use super::types::{FakeObject, FakeSandbox, Fault, Outcome, RecordedCall, Violation};
use std::fs;
use std::path::PathBuf;

/// The test's hand in the fake: faults, what happened, what is there.
#[derive(Clone, Debug)]
pub struct FakeControl {
    store: Store,
}

impl FakeControl {
    /// Controls the fake whose state is in `directory`.
    #[must_use]
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self {
            store: Store::new(directory.into()),
        }
    }

    /// Lets a fault strike the next `times` calls of `method` (`*` for any), or all of them when `times` is 0.
    ///
    /// Faults of one method strike in the order they were planned; one that strikes for ever hides the later ones.
    /// `Fault::Delay { ms: 0 }` lets a call pass.
    pub fn fault(&self, method: &str, fault: Fault, times: u32) {
        let store = self.store.lock();
        let mut faults = store.faults();
        faults.push(Planned {
            method: method.to_owned(),
            fault,
            left: (times > 0).then_some(times),
        });
        store.keep_faults(&faults);
    }

    /// The same for a step of an `up`, whose first look is none: it only finds out whether the sandbox's id is free.
    pub fn fault_in_up(&self, method: &str, fault: Fault, times: u32) {
        if method == "inspect" {
            self.fault(method, Fault::Delay { ms: 0 }, 1);
        }
        self.fault(method, fault, times);
    }

    /// Nothing goes wrong any more.
    pub fn clear_faults(&self) {
        self.store.lock().keep_faults(&[]);
    }

    /// Values that may appear in secret fields only.
    pub fn plant_secrets<'a>(&self, secrets: impl IntoIterator<Item = &'a str>) {
        let secrets: Vec<String> = secrets.into_iter().map(str::to_owned).collect();
        self.store.lock().keep_secrets(&secrets);
    }

    /// Every call, in the order in which they came in.
    #[must_use]
    pub fn calls(&self) -> Vec<RecordedCall> {
        let mut calls: Vec<(u64, RecordedCall)> = Vec::new();
        for line in self.store.lock().call_lines() {
            match line {
                CallLine::Ended { number, outcome } => {
                    let begun = calls.iter_mut().rev().find(|(begun, _)| *begun == number);
                    begun.expect("a call that began").1.outcome = outcome;
                }
                CallLine::Began {
                    number,
                    method,
                    sandbox_id,
                    operation_id,
                    fence,
                    attempt,
                    pid,
                    request,
                    fault,
                } => calls.push((
                    number,
                    RecordedCall {
                        method,
                        sandbox_id,
                        operation_id,
                        fence,
                        attempt,
                        pid,
                        request,
                        fault,
                        outcome: Outcome::Unfinished,
                    },
                )),
            }
        }
        calls.into_iter().map(|(_, call)| call).collect()
    }

    /// How many calls of `method` came in.
    #[must_use]
    pub fn count(&self, method: &str) -> usize {
        self.calls()
            .iter()
            .filter(|call| call.method == method)
            .count()
    }

    /// Each promise that a caller broke.
    #[must_use]
    pub fn violations(&self) -> Vec<Violation> {
        self.store.lock().violations()
    }

    /// Fails when a caller broke a promise.
    ///
    /// # Panics
    /// When there is a violation.
    #[track_caller]
    pub fn assert_no_violations(&self) {
        let violations = self.violations();
        assert!(
            violations.is_empty(),
            "the contract was broken: {violations:#?}"
        );
    }

    /// Every sandbox that is not destroyed.
    #[must_use]
    pub fn sandboxes(&self) -> Vec<FakeSandbox> {
        let store = self.store.lock();
        let all = store.sandboxes().into_iter();
        all.map(|sandbox| shown(&store, sandbox)).collect()
    }

    /// The ids that were destroyed.
    #[must_use]
    pub fn destroyed(&self) -> Vec<String> {
        let directory = self.store.lock().path("tombstones");
        let entries = fs::read_dir(directory).expect("the tombstones");
        let mut ids: Vec<String> = entries
            .map(|entry| {
                entry
                    .expect("a tombstone")
                    .file_name()
                    .to_string_lossy()
                    .into_owned()
            })
            .collect();
        ids.sort();
        ids
    }

    /// Every durable object.
    #[must_use]
    pub fn objects(&self) -> Vec<FakeObject> {
        let store = self.store.lock();
        let shown = |object: super::store::Object| FakeObject {
            files: fs::read(store.object_snapshot(&object.id))
                .ok()
                .filter(|_| store.is_intact(&object))
                .and_then(|bytes| tree::decode(&bytes)),
            digest: object.snapshot.map(|snapshot| snapshot.digest),
            id: object.id,
            sandbox_id: object.sandbox_id,
            session_id: object.session_id,
            generation: object.generation,
            payload: object.payload,
            read_back: object.read_back,
        };
        store.objects().into_iter().map(shown).collect()
    }

    /// Writes a file of a workspace, as an agent would.
    ///
    /// # Panics
    /// When the sandbox is not there.
    pub fn workspace_write(&self, sandbox: &str, path: &str, bytes: &[u8]) {
        let store = self.store.lock();
        assert!(store.sandbox(sandbox).is_some(), "no sandbox `{sandbox}`");
        let file = (path.to_owned(), bytes.to_vec());
        tree::write(&store.workspace(sandbox), [(&file.0, &file.1)]).expect("a workspace");
    }

    /// Changes one byte of what the store holds of an object.
    ///
    /// # Panics
    /// When the object is not there.
    pub fn corrupt_object(&self, id: &str) {
        let store = self.store.lock();
        let mut object = store
            .object(id)
            .unwrap_or_else(|| panic!("no object `{id}`"));
        if object.snapshot.is_some() {
            let path = store.object_snapshot(id);
            let mut bytes = fs::read(&path).expect("the object's snapshot");
            let last = bytes.pop().unwrap_or_default();
            bytes.push(last ^ 1);
            write_bytes(&path, &bytes);
        } else {
            object.payload.push(' ');
            store.keep_object(&object);
        }
    }

    /// The workspace is gone, provably; the sandbox's record is still there.
    pub fn lose_workspace(&self, sandbox: &str) {
        self.change(sandbox, |store, sandbox| {
            sandbox.lost = true;
            remove(&store.workspace(&sandbox.id));
        });
    }

    /// The sandbox and all that it stored is gone, as if it had never been.
    pub fn lose_sandbox(&self, sandbox: &str) {
        let store = self.store.lock();
        store.forget_sandbox(sandbox);
        remove(&store.workspace(sandbox));
    }

    /// The sandbox was destroyed, and is remembered so, of which the ledger does not know: it is from a backup.
    pub fn bury_sandbox(&self, sandbox: &str) {
        self.lose_sandbox(sandbox);
        self.store.lock().keep_tombstone(sandbox, 1);
    }

    /// The sandbox has ended by itself; its storage is there.
    pub fn exit_sandbox(&self, sandbox: &str) {
        self.change(sandbox, |_, sandbox| {
            sandbox.run = Run::Exited;
            if let Some(agent) = &mut sandbox.agent {
                agent.ready = false;
            }
        });
    }

    /// Whether the agent answers.
    pub fn agent_answers(&self, sandbox: &str, answers: bool) {
        self.change(sandbox, |_, sandbox| {
            if let Some(agent) = &mut sandbox.agent {
                agent.ready = answers;
            }
        });
    }

    /// Whether the workspace refuses to be written.
    pub fn read_only(&self, sandbox: &str, is: bool) {
        self.change(sandbox, |_, sandbox| sandbox.read_only = is);
    }

    /// The user has given this workspace up: destroying it loses nothing that was promised.
    pub fn allow_loss(&self, sandbox: &str) {
        self.change(sandbox, |_, sandbox| sandbox.loss_allowed = true);
    }

    fn change(&self, id: &str, change: impl FnOnce(&Locked, &mut Sandbox)) {
        let store = self.store.lock();
        let mut sandbox = store
            .sandbox(id)
            .unwrap_or_else(|| panic!("no sandbox `{id}`"));
        change(&store, &mut sandbox);
        store.keep_sandbox(&sandbox);
    }
}

fn shown(store: &Locked, sandbox: Sandbox) -> FakeSandbox {
    FakeSandbox {
        state: state(sandbox.run, sandbox.lost),
        head: store.head(&sandbox.id),
        files: store.tree(&sandbox.id).unwrap_or_default(),
        agent: sandbox.agent.map(|agent| agent.spec.name),
        id: sandbox.id,
        ledger_id: sandbox.ledger_id,
        session_id: sandbox.session_id,
        fence: sandbox.fence,
    }
}
