//! A ledger in a directory of its own, under a clock that only the test moves.

use alpine_ledger::{
    Acquired, Action, Admission, Clock, ErrorRecord, Grant, Ledger, LedgerError, NewSession,
    Options, Outcome, SessionId, SessionRecord, State, Timestamp,
};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tempfile::TempDir;

/// The time at which each test begins.
pub(crate) const BEGUN: u64 = 1_790_000_000_000;

#[derive(Debug)]
pub(crate) struct TestClock {
    now: AtomicU64,
    boot: AtomicU64,
}

impl TestClock {
    pub(crate) fn advance(&self, span: Duration) {
        self.advance_wall(span);
        self.boot
            .fetch_add(span.as_millis() as u64, Ordering::SeqCst);
    }

    pub(crate) fn set_back(&self, span: Duration) {
        self.now
            .fetch_sub(span.as_millis() as u64, Ordering::SeqCst);
    }

    pub(crate) fn advance_wall(&self, span: Duration) {
        self.now
            .fetch_add(span.as_millis() as u64, Ordering::SeqCst);
    }
}

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.now.load(Ordering::SeqCst))
    }

    fn boot_ms(&self) -> u64 {
        self.boot.load(Ordering::SeqCst)
    }
}

/// Takes the predecessor's repositories over as they are.
pub(crate) fn as_it_is(repo: &str, branch: &str) -> (String, String) {
    (repo.to_owned(), format!("bring up {branch}"))
}

pub(crate) struct World {
    pub(crate) dir: TempDir,
    pub(crate) clock: Arc<TestClock>,
    pub(crate) ledger: Ledger,
}

impl World {
    pub(crate) fn new() -> Self {
        Self::by(|_| {})
    }

    /// A world whose ledger was opened otherwise.
    pub(crate) fn by(change: impl FnOnce(&mut Options)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(TestClock {
            now: AtomicU64::new(BEGUN),
            boot: AtomicU64::new(5_000),
        });
        let mut options = options_of(&clock);
        change(&mut options);
        let ledger = Ledger::open(&dir.path().join("ledger.redb"), options).unwrap();
        Self { dir, clock, ledger }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.dir.path().join("ledger.redb")
    }

    /// The same ledger, opened by somebody else.
    pub(crate) fn other(&self, change: impl FnOnce(&mut Options)) -> Ledger {
        let mut options = options_of(&self.clock);
        change(&mut options);
        Ledger::open(&self.path(), options).unwrap()
    }

    pub(crate) fn admit(&self, new: &NewSession) -> Admission {
        self.ledger
            .write(|tx| tx.admit(new, "fingerprint", "sbx_1", &new.owner))
            .unwrap()
    }

    /// A new session, or the carried-on operation of one.
    pub(crate) fn up(&self, new: &NewSession) -> Grant {
        match self.admit(new) {
            Admission::Run(grant) | Admission::Resume(grant) => grant,
            other @ (Admission::Replay(..) | Admission::Wait(..) | Admission::Conflict(_)) => {
                panic!("{other:?}")
            }
        }
    }

    pub(crate) fn go(&self, grant: &Grant, states: &[State]) -> SessionRecord {
        let mut last = None;
        for state in states {
            last = Some(
                self.ledger
                    .write(|tx| tx.transition(&grant.token, *state, "test", |_| {}))
                    .unwrap(),
            );
        }
        last.unwrap()
    }

    pub(crate) fn finish(&self, grant: &Grant, outcome: &Outcome) {
        self.ledger
            .write(|tx| tx.finish(&grant.token, outcome))
            .unwrap();
    }

    pub(crate) fn acquire(&self, session: &SessionId, action: Action) -> Acquired {
        self.ledger
            .write(|tx| tx.acquire(session, action, "me", &error("ERR_INTERRUPTED")))
            .unwrap()
    }

    pub(crate) fn down(&self, session: &SessionId) -> Grant {
        match self.acquire(session, Action::Down) {
            Acquired::Run(grant) | Acquired::Resume(grant) => grant,
            Acquired::Wait(lease) => panic!("{lease:?}"),
        }
    }

    /// A session of `owner` in `state`, reached along the table, all operations finished.
    pub(crate) fn session_in(&self, new: &NewSession, state: State) -> SessionId {
        let up = self.up(new);
        let id = up.session.session_id.clone();
        let (by_up, by_down) = way_to(state);
        self.go(&up, by_up);
        let failed = matches!(state, State::Failed | State::CleanupFailed);
        let outcome = if failed {
            Outcome::Failed(error("ERR_INSTALL_FAILED"))
        } else {
            succeeded()
        };
        self.finish(&up, &outcome);
        if !by_down.is_empty() {
            let down = self.down(&id);
            self.go(&down, by_down);
            self.finish(&down, &succeeded());
        }
        id
    }

    pub(crate) fn session(&self, id: &SessionId) -> SessionRecord {
        self.ledger
            .read(|snapshot| snapshot.session(id))
            .unwrap()
            .unwrap()
    }

    pub(crate) fn locks(&self) -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(self.dir.path().join("ops")) else {
            return Vec::new();
        };
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.retain(|name| name.ends_with(".lock"));
        names.sort();
        names
    }
}

/// The transitions of `up`, then those of `down`, that lead to a state.
fn way_to(state: State) -> (&'static [State], &'static [State]) {
    use State::{
        CleanupFailed, CloseFailed, Failed, Failing, Installing, PersistFailed, Persisting,
        Provisioning, Ready, RepoSyncing, Requested, Stopped, StoppedUnpersisted, Stopping,
    };
    const UP: &[State] = &[Provisioning, RepoSyncing, Installing, Ready];
    match state {
        Requested => panic!("a session begins there"),
        Provisioning => (&UP[..1], &[]),
        RepoSyncing => (&UP[..2], &[]),
        Installing => (&UP[..3], &[]),
        Ready => (UP, &[]),
        Failing => (&[Failing], &[]),
        Failed => (&[Failing, Failed], &[]),
        CleanupFailed => (&[Failing, CleanupFailed], &[]),
        Stopping => (UP, &[Stopping]),
        Persisting => (UP, &[Stopping, Persisting]),
        Stopped => (UP, &[Stopping, Persisting, Stopped]),
        CloseFailed => (UP, &[Stopping, CloseFailed]),
        StoppedUnpersisted => (UP, &[Stopping, StoppedUnpersisted]),
        PersistFailed => (UP, &[Stopping, Persisting, PersistFailed]),
    }
}

pub(crate) fn options_of(clock: &Arc<TestClock>) -> Options {
    let mut options = Options::new();
    options.clock = clock.clone();
    options
}

pub(crate) fn request(owner: &str, client_request_id: &str) -> NewSession {
    NewSession {
        owner: owner.to_owned(),
        client_request_id: client_request_id.to_owned(),
        repo_url: "https://example.com/repo.git".to_owned(),
        branch: "main".to_owned(),
        public: true,
        provider: "local".to_owned(),
        agent: "none".to_owned(),
        name: None,
        request: serde_json::Value::Null,
    }
}

pub(crate) fn named(owner: &str, client_request_id: &str, name: &str) -> NewSession {
    NewSession {
        name: Some(name.to_owned()),
        ..request(owner, client_request_id)
    }
}

pub(crate) fn error(code: &str) -> ErrorRecord {
    ErrorRecord {
        error_code: code.to_owned(),
        cause: "it broke".to_owned(),
        next_step: "alpine doctor".to_owned(),
        retryable: false,
        operation_id: None,
        exit_code: 2,
    }
}

pub(crate) fn succeeded() -> Outcome {
    Outcome::Succeeded(serde_json::json!({"opencode_url": "http://127.0.0.1:1"}))
}

/// The names of an error's variants, outermost first.
pub(crate) fn kind(error: &LedgerError) -> &'static str {
    match error {
        LedgerError::Unavailable { .. } => "unavailable",
        LedgerError::Busy { .. } => "busy",
        LedgerError::Corrupt { .. } => "corrupt",
        LedgerError::Incompatible { .. } => "incompatible",
        LedgerError::Newer { .. } => "newer",
        LedgerError::Predecessor { .. } => "predecessor",
        LedgerError::Fenced { .. } => "fenced",
        LedgerError::IllegalTransition { .. } => "illegal_transition",
        LedgerError::NotFound { .. } => "not_found",
        LedgerError::VersionMismatch { .. } => "version_mismatch",
        LedgerError::Protected { .. } => "protected",
        LedgerError::OutcomeUnknown { .. } => "outcome_unknown",
    }
}

/// The names of what is in a directory.
pub(crate) fn names(dir: &std::path::Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).unwrap();
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}
