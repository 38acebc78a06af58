//! An engine over the strict fake, in a directory of its own.

use alpine_ledger::{
    Ledger, OperationRecord, Options, SessionId, SessionRecord, State, SystemClock,
};
use alpine_lifecycle::*;
use alpine_provider_api::*;
use alpine_testkit::{FakeControl, FakeProvider};
use async_trait::async_trait;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

pub(crate) const COMMIT: &str = "1111111111111111111111111111111111111111";

/// What the remote answers: the queued failures first, then the commit.
#[derive(Debug, Default)]
pub(crate) struct Remote {
    pub(crate) failures: Mutex<VecDeque<Option<ProviderError>>>,
}

#[async_trait]
impl Tips for Remote {
    async fn tip(
        &self,
        _: &RepoUrl,
        _: &BranchName,
        _: Option<&GitCredential>,
    ) -> Result<CommitId, ProviderError> {
        let next = self.failures.lock().unwrap().pop_front();
        match next {
            None => Ok(CommitId::new(COMMIT).unwrap()),
            Some(Some(error)) => Err(error),
            // A remote that never answers.
            Some(None) => std::future::pending().await,
        }
    }
}

pub(crate) struct World {
    directory: tempfile::TempDir,
    pub(crate) engine: Engine,
    pub(crate) fake: FakeControl,
    pub(crate) remote: Arc<Remote>,
}

pub(crate) fn world() -> World {
    let directory = tempfile::tempdir().unwrap();
    let fakes = directory.path().join("fake");
    let limits = Limits {
        provision: Duration::from_millis(600),
        sync: Duration::from_millis(600),
        install: Duration::from_millis(600),
        agent: Duration::from_millis(100),
        probe: Duration::from_millis(600),
        persist: Duration::from_millis(600),
        grace: Duration::from_millis(300),
        force: Duration::from_millis(300),
        backoff: Duration::from_millis(2),
        up: Duration::from_secs(20),
        down: Duration::from_secs(20),
        ..Limits::default()
    };
    let options = Options {
        lease: limits.lease,
        ..Options::new()
    };
    let ledger = Ledger::open(&directory.path().join("ledger.redb"), options).unwrap();
    let remote = Arc::new(Remote::default());
    let server = Server {
        argv: vec!["server".to_owned()],
        port_env: None,
        env: BTreeMap::new(),
        auth: None,
        ready: Probe::default(),
        shutdown: Shutdown::default(),
        transcript: None,
    };
    let agents = [
        AgentSpec::none(),
        AgentSpec {
            name: "page".to_owned(),
            serve: Serve::Page,
        },
        AgentSpec {
            name: "worker".to_owned(),
            serve: Serve::Process(Box::new(server)),
        },
    ];
    let engine = Engine {
        ledger,
        providers: Providers::default()
            .with("fake", Arc::new(FakeProvider::new(&fakes)))
            .with(
                "other",
                Arc::new(FakeProvider::new(directory.path().join("other"))),
            ),
        tips: remote.clone(),
        agents: agents
            .into_iter()
            .map(|agent| (agent.name.clone(), agent))
            .collect(),
        env: Env {
            clock: Arc::new(SystemClock),
            random: Arc::new(|| 500),
        },
        limits,
        redactor: Redactor::default(),
        watch: Watch::default(),
        interrupt: Interrupt::never(),
    };
    World {
        fake: FakeControl::new(&fakes),
        directory,
        engine,
        remote,
    }
}

pub(crate) fn me() -> Caller {
    Caller {
        principal: "me".to_owned(),
        admin: false,
    }
}

/// The command that asks for the same as [`up_request`] under a new id.
pub(crate) const ANEW: &str =
    "alpine up /srv/repo --branch main --agent worker --provider fake --allow-unsandboxed";

pub(crate) fn up_request(id: &str) -> UpRequest {
    UpRequest {
        caller: me(),
        client_request_id: id.to_owned(),
        repo: RepoUrl::parse("/srv/repo", std::path::Path::new("/")).unwrap(),
        branch: BranchName::new("main").unwrap(),
        public: false,
        credential: None,
        provider: "fake".to_owned(),
        agent: "worker".to_owned(),
        name: None,
        env: BTreeMap::new(),
        spelled: BTreeSet::new(),
        no_install: false,
        allow_unsandboxed: true,
        no_browser: false,
        timeout: None,
        warnings: Vec::new(),
    }
}

pub(crate) fn down_request(session: &str) -> DownRequest {
    DownRequest {
        caller: me(),
        session: session.to_owned(),
        retry_persist: false,
        cancel: false,
        discard: None,
        reason: None,
        timeout: None,
    }
}

pub(crate) fn id(request: &str) -> SessionId {
    SessionId::derive("me", request)
}

impl World {
    pub(crate) fn fake_directory(&self) -> std::path::PathBuf {
        self.directory.path().join("fake")
    }

    pub(crate) fn ledger_path(&self) -> std::path::PathBuf {
        self.directory.path().join("ledger.redb")
    }

    pub(crate) fn session(&self, request: &str) -> SessionRecord {
        self.engine
            .ledger
            .read(|snapshot| snapshot.session(&id(request)))
            .unwrap()
            .unwrap()
    }

    pub(crate) fn operations(&self, request: &str) -> Vec<OperationRecord> {
        self.engine
            .ledger
            .read(|snapshot| snapshot.operations(&id(request)))
            .unwrap()
    }

    pub(crate) async fn ready(&self, request: &str) -> UpOutcome {
        self.engine.up(up_request(request)).await.unwrap()
    }

    pub(crate) async fn down(&self, request: &str) -> Result<DownOutcome, Failure> {
        self.engine.down(down_request(id(request).as_str())).await
    }

    /// Runs an `up` in the background until the session is in `state` and the provider has been called, then kills it the
    /// hard way: nothing is recorded.
    pub(crate) async fn crashed_up(&self, request: &str, state: State, method: &str) {
        let task = self.background_up(request, state, method).await;
        task.abort();
        let _ = task.await;
        self.fake.clear_faults();
    }

    pub(crate) async fn background_up(
        &self,
        request: &str,
        state: State,
        method: &str,
    ) -> tokio::task::JoinHandle<Result<UpOutcome, Failure>> {
        let engine = self.engine.clone();
        let before = self.fake.count(method);
        let asked = up_request(request);
        let task = tokio::spawn(async move { engine.up(asked).await });
        self.until(|| {
            self.state(request) == Some(state)
                && (method.is_empty() || self.fake.count(method) > before)
        })
        .await;
        task
    }

    pub(crate) fn state(&self, request: &str) -> Option<State> {
        self.engine
            .ledger
            .read(|snapshot| snapshot.session(&id(request)))
            .unwrap()
            .map(|session| session.state)
    }

    pub(crate) async fn until(&self, condition: impl Fn() -> bool) {
        let end = Instant::now() + Duration::from_secs(10);
        while !condition() {
            assert!(Instant::now() < end, "the condition was never met");
            tokio::task::yield_now().await;
        }
    }

    /// What must hold whenever nothing runs.
    pub(crate) fn assert_sound(&self, request: &str) {
        self.fake.assert_no_violations();
        let session = self.session(request);
        let there = self
            .fake
            .sandboxes()
            .iter()
            .any(|sandbox| sandbox.session_id == session.session_id.as_str());
        if session.state.is_terminal() && !session.destroy_pending {
            assert!(!there, "an orphan is left in {}", session.state);
        }
        if session.state == State::Stopped {
            assert!(session.persistence_verified && session.durable_object_id.is_some());
        }
    }
}
