//! A home in which one session stands where a scene begins, and the program in it.

use super::hosted::{Fake, Library};
use super::plan::{Blow, Operation, Place, Point, Stand};
use crate::support::{Running, program};
use alpine_ledger::{Ledger, LedgerError, Options, SessionId, SessionRecord, Snapshot};
use alpine_provider_api::{
    BranchName, Call, CommitId, ErrorKind, Meta, ProvisionRequest, RepoUrl, SandboxId,
    SandboxProvider, SandboxState, SyncRepoRequest,
};
use alpine_testkit::{FakeProvider, Fault, KillPoint, Output, TestEnv};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

/// Secrets that the program is given.
pub(super) const SECRETS: [&str; 2] = ["planted-in-the-token", "planted-for-the-agent"];

const TIP: &str = "0123456789abcdef0123456789abcdef01234567";
const REPO: &str = "https://github.com/acme/app.git";
const STRAY: &str = "sbx_stray";

const CONFIG: &str = "[agent]\ndefault = 'worker'\n[agents.worker]\nargv = ['serve', '{port}']\n\
    [ledger]\nlock_timeout = '20s'\n[limits]\nbackoff = '2ms'\n";
/// How long a step may take that hangs.
const HASTY: &str = "provision = '250ms'\nsync = '250ms'\ninstall = '250ms'\nagent = '250ms'\nprobe = '250ms'\n\
    persist = '250ms'\ngrace = '125ms'\nforce = '125ms'\n";

/// A piece of work that an agent has written.
#[derive(Clone, Debug)]
pub(super) struct Work {
    pub(super) sandbox: String,
    pub(super) path: String,
    pub(super) bytes: Vec<u8>,
}

/// The home.
#[derive(Debug)]
pub(super) struct Stage {
    pub(super) env: TestEnv,
    fake: Fake,
    /// Where a library of it is loaded.
    isolation: &'static str,
    stand: Stand,
    /// What must not be lost.
    pub(super) works: Vec<Work>,
    /// All that the program has said.
    pub(super) said: Vec<Output>,
}

impl Stage {
    /// The session stands there; an agent that runs has written something.
    pub(super) fn new(fake: &Fake, stand: Stand) -> Self {
        let mut stage = Self {
            env: TestEnv::new(),
            fake: fake.clone(),
            // On the way there it is the commands that are killed.
            isolation: "in-process",
            stand,
            works: Vec::new(),
            said: Vec::new(),
        };
        stage.configure("");
        stage.env.fake().plant_secrets(SECRETS);
        stage.go_there();
        if stand != Stand::Nothing {
            // Whoever opens a ledger first whose writer was killed repairs it, which is a commit: not always the operation.
            stage.session();
        }
        stage.env.fake().clear_faults();
        stage.said.clear();
        stage.isolation = "process";
        stage.configure("");
        stage
    }

    fn go_there(&mut self) {
        match self.stand {
            Stand::Nothing => {}
            Stand::Ready => self.ready(),
            Stand::UpDied(call) => self.die(Operation::Up, call),
            Stand::DownDied(call) => {
                self.ready();
                self.die(Operation::Down, call);
            }
            Stand::CloseFailed => self.fail_down("stop"),
            Stand::Unpersisted => self.fail_down("persist"),
            Stand::DestroyPending => self.fail_down("destroy"),
            Stand::CleanupFailed => {
                self.fault("install", Fault::Error(ErrorKind::InstallFailed));
                self.fault("destroy", Fault::Error(ErrorKind::Io));
                self.run(Operation::Up);
            }
            Stand::Gone => {
                self.ready();
                self.works.clear();
                let session = self.session().expect("it");
                self.env.fake().lose_sandbox(&session.sandbox_id);
            }
            Stand::Left => {
                self.ready();
                self.run(Operation::Down);
                let session = self.session().expect("it");
                self.haunt(&session);
            }
            Stand::Stray => self.stray(),
            Stand::SavedStray => {
                self.stray();
                self.run(Operation::Reconcile);
                self.env.clock().advance(Duration::from_secs(61 * 60));
            }
        }
    }

    fn ready(&mut self) {
        let up = self.run(Operation::Up);
        assert_eq!(up.code(), Some(0), "{up:#?}");
        self.work();
    }

    /// Kills an operation in its nth call. An `up` is left alone then until it counts as abandoned.
    fn die(&mut self, operation: Operation, nth: usize) {
        let passes = u32::try_from(nth).expect("few calls");
        self.let_pass("*", passes);
        self.fault("*", Fault::KillCaller(KillPoint::After));
        let killed = self.run(operation);
        assert_eq!(killed.code(), None, "{killed:#?}");
        self.work();
        self.env.clock().advance(Duration::from_secs(16 * 60));
    }

    fn fail_down(&mut self, method: &str) {
        self.ready();
        self.fault(method, Fault::Error(ErrorKind::Io));
        self.run(Operation::Down);
    }

    /// A sandbox that no session owns, beside one that is stopped.
    fn stray(&mut self) {
        self.ready();
        self.run(Operation::Down);
        self.appear(STRAY, "ses_unknown");
        self.write(STRAY);
    }

    /// Brings the sandbox of a session that has ended back, as a provider might that forgot its destroy.
    fn haunt(&self, session: &SessionRecord) {
        let tombs = self.env.fake_directory().join("tombstones");
        fs::remove_file(tombs.join(&session.sandbox_id)).expect("its tombstone");
        self.appear(&session.sandbox_id, session.session_id.as_str());
    }

    /// Makes a sandbox behind the ledger's back.
    fn appear(&self, sandbox: &str, session: &str) {
        let provider = FakeProvider::new(self.env.fake_directory());
        let call = Call::quiet(Meta {
            operation_id: "op_stray".to_owned(),
            fence: 1,
            attempt: 1,
            deadline_ms: 0,
            traceparent: None,
        });
        let sandbox_id = SandboxId::new(sandbox).expect("an id");
        let provision = ProvisionRequest {
            sandbox_id: sandbox_id.clone(),
            ledger_id: self.ledger(|_| Ok(())).0,
            session_id: session.to_owned(),
            allow_unsandboxed: true,
        };
        let sync = SyncRepoRequest {
            sandbox_id,
            repo: RepoUrl::parse(REPO, Path::new("/")).expect("a repository"),
            branch: BranchName::new("main").expect("a branch"),
            commit: CommitId::new(TIP).expect("a commit"),
            credential: None,
        };
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        runtime.expect("a runtime").block_on(async {
            provider
                .provision(&call, provision)
                .await
                .expect("a sandbox");
            provider
                .sync_repo(&call, sync)
                .await
                .expect("its workspace");
        });
    }

    /// What every agent that runs goes on to write.
    pub(super) fn work(&mut self) {
        for sandbox in self.env.fake().sandboxes() {
            if sandbox.agent.is_some() && sandbox.state == SandboxState::Running {
                self.write(&sandbox.id);
            }
        }
    }

    fn write(&mut self, sandbox: &str) {
        let number = self.works.len();
        let work = Work {
            sandbox: sandbox.to_owned(),
            path: format!("src/work-{number}.txt"),
            bytes: format!("piece {number} of {sandbox}\n").into_bytes(),
        };
        self.env
            .fake()
            .workspace_write(sandbox, &work.path, &work.bytes);
        self.works.push(work);
    }

    fn fault(&self, method: &str, fault: Fault) {
        self.env.fake().fault(method, fault, 1);
    }

    fn let_pass(&self, method: &str, calls: u32) {
        if calls > 0 {
            self.env.fake().fault(method, Fault::Delay { ms: 0 }, calls);
        }
    }

    /// Makes the next run meet the blow.
    pub(super) fn arm(&self, point: &Point) {
        if point.blow == Blow::Hang {
            self.configure(HASTY);
        }
        if let (Place::Call(method, before), Some(fault)) = (&point.place, point.blow.fault()) {
            self.let_pass(method, *before);
            self.fault(method, fault);
        }
    }

    /// From now on all is well again.
    pub(super) fn disarm(&self, point: &Point) {
        self.env.fake().clear_faults();
        if point.blow == Blow::Hang {
            self.configure("");
        }
        if let Blow::Jump(ms) = point.blow {
            self.env.clock().jump(-ms);
        }
    }

    fn configure(&self, limits: &str) {
        let file = self.env.alpine_home().join("config.toml");
        let (name, table) = match &self.fake {
            Fake::CompiledIn => ("fake", String::new()),
            Fake::Hosted(library) => {
                let state = self.env.fake_directory();
                (Library::NAME, library.table(self.isolation, &state))
            }
        };
        let text = format!("[provider]\ndefault = '{name}'\n{CONFIG}{limits}{table}");
        fs::write(&file, text).expect("a configuration");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("its mode");
    }

    /// The program with these arguments, and `--json`.
    pub(super) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.env.command(program());
        command
            .arg("--json")
            .args(arguments)
            .env("ALPINE_TEST_TIP", TIP)
            .env("GITHUB_TOKEN", SECRETS[0])
            .env("AGENT_KEY", SECRETS[1]);
        if let Fake::Hosted(_) = self.fake {
            // The one that is compiled in is asked by `reconcile` as well: it is another provider, with a state of its own.
            command.env("ALPINE_TEST_FAKE_DIR", self.env.root().join("other"));
        }
        command
    }

    /// The command line of an operation.
    pub(super) fn operation(&self, operation: Operation) -> Command {
        let session = session_id().to_string();
        let mut command = match operation {
            Operation::Up | Operation::TakeOver => {
                let fixed = ["up", REPO, "--branch", "main", "--no-browser"];
                let own = ["--client-request-id", "one", "--env", "AGENT_KEY"];
                self.command(&[&fixed[..], &own[..]].concat())
            }
            Operation::Down => self.command(&["down", &session]),
            Operation::RetryPersist => self.command(&["down", &session, "--retry-persist"]),
            Operation::Reconcile => self.command(&["reconcile"]),
        };
        command.env("ALPINE_TEST_COMMITS", self.commits_file());
        command
    }

    /// Runs an operation to its end.
    pub(super) fn run(&mut self, operation: Operation) -> Output {
        let told = fs::remove_file(self.commits_file());
        drop(told);
        let output = Running::start(self.operation(operation)).wait();
        self.said.push(output.clone());
        output
    }

    /// Runs an operation undisturbed, and counts its commits.
    pub(super) fn count_commits(&mut self, operation: Operation) -> u64 {
        let output = self.run(operation);
        assert_eq!(output.code(), Some(0), "{:?}: {output:#?}", self.stand);
        self.commits().parse().expect("a number")
    }

    fn commits_file(&self) -> PathBuf {
        self.env.root().join("commits")
    }

    /// What the last operation told of its commits.
    pub(super) fn commits(&self) -> String {
        fs::read_to_string(self.commits_file()).unwrap_or_else(|_| "0".to_owned())
    }

    /// The ledger's id, and what is read of it.
    pub(super) fn ledger<T>(
        &self,
        read: impl FnOnce(&Snapshot<'_>) -> Result<T, LedgerError>,
    ) -> (String, T) {
        let options = Options {
            clock: Arc::new(self.env.clock().clone()),
            ..Options::new()
        };
        let path = self.env.alpine_home().join("ledger.redb");
        let ledger = Ledger::open_read(&path, options).expect("a ledger");
        let value = ledger.read(read).expect("a snapshot");
        (ledger.id().to_owned(), value)
    }

    /// The session, if there is one.
    pub(super) fn session(&self) -> Option<SessionRecord> {
        self.ledger(|snapshot| snapshot.session(&session_id())).1
    }

    /// The steps of all of its operations.
    pub(super) fn steps(&self) -> Vec<String> {
        let operations = self.ledger(|snapshot| snapshot.operations(&session_id())).1;
        let steps = operations.into_iter().flat_map(|operation| operation.steps);
        steps.map(|step| step.step).collect()
    }
}

/// The session of every scene.
pub(super) fn session_id() -> SessionId {
    SessionId::derive("tester", "one")
}
