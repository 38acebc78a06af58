//! A home in which one session stands where a scene begins, and the program in it.

use super::hosted::{Fake, Library};
use super::plan::{Blow, Call, Operation, Point, Scene, Stand, Trouble};
use crate::support::{Running, program};
use alpine_e2e::commits::Strike;
use alpine_ledger::{Ledger, LedgerError, Options, SessionId, SessionRecord, Snapshot};
use alpine_provider_api::SandboxState;
use alpine_testkit::{Fault, Output, TestEnv};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

/// Secrets that the program is given.
pub(super) const SECRETS: [&str; 2] = ["planted-in-the-token", "planted-for-the-agent"];

pub(super) const TIP: &str = "0123456789abcdef0123456789abcdef01234567";
pub(super) const REPO: &str = "https://github.com/acme/app.git";

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
    pub(super) scene: Scene,
    /// Where a library of the fake is loaded.
    isolation: &'static str,
    /// What must not be lost.
    pub(super) works: Vec<Work>,
    /// All that the program has said.
    pub(super) said: Vec<Output>,
    /// What gives the workspace up.
    digest: String,
    /// The other side of a cancellation, which has not ended yet.
    pub(super) beside: Option<Running>,
    /// How often an `up` had committed when it hung.
    pub(super) hung: Option<u64>,
}

impl Stage {
    /// The session stands where the scene begins; an agent that runs has written something.
    pub(super) fn new(scene: &Scene) -> Self {
        let mut stage = Self {
            env: TestEnv::in_memory(),
            scene: scene.clone(),
            // On the way there it is the commands that are killed.
            isolation: "in-process",
            works: Vec::new(),
            said: Vec::new(),
            digest: String::new(),
            beside: None,
            hung: None,
        };
        stage.configure("");
        stage.env.fake().plant_secrets(SECRETS);
        stage.go_there();
        if !matches!(scene.stand, Stand::Nothing | Stand::UpWillHang(_)) {
            // Whoever opens a ledger first whose writer was killed repairs it, which is a commit: not always the operation.
            stage.session();
        }
        stage.env.fake().clear_faults();
        if scene.operation == Operation::Discard {
            stage.give_up();
        }
        stage.said.clear();
        stage.isolation = "process";
        stage.configure("");
        stage
    }

    /// The user does not want the work, and was told how to say so.
    fn give_up(&mut self) {
        if self.scene.stand != Stand::RescueFailed {
            self.run(Operation::Down);
        }
        let told = self.said.iter().rev().find_map(|output| {
            let (_, told) = output.stdout.split_once("--discard ")?;
            told.split(|c: char| !c.is_ascii_hexdigit()).next()
        });
        self.digest = told.expect("how to give it up").to_owned();
        self.works.clear();
        let sandboxes = self.env.fake().sandboxes();
        for sandbox in sandboxes {
            self.env.fake().allow_loss(&sandbox.id);
        }
    }

    /// What every agent that runs goes on to write.
    pub(super) fn work(&mut self) {
        for sandbox in self.env.fake().sandboxes() {
            if sandbox.agent.is_some() && sandbox.state == SandboxState::Running {
                self.write(&sandbox.id);
            }
        }
    }

    pub(super) fn write(&mut self, sandbox: &str) {
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

    pub(super) fn fault(&self, method: &str, fault: Fault) {
        self.env.fake().fault(method, fault, 1);
    }

    pub(super) fn let_pass(&self, method: &str, calls: u32) {
        if calls > 0 {
            self.env.fake().fault(method, Fault::Delay { ms: 0 }, calls);
        }
    }

    /// Makes the next run meet what goes wrong anyway, and a blow for one call.
    pub(super) fn arm(&self, troubles: &[Trouble], blow: Option<(&Call, Fault)>) {
        if let Some((_, Fault::Hang)) = blow {
            self.configure(HASTY);
        }
        if let Stand::UpWillHang(call) = self.scene.stand {
            self.hang_in(call);
        }
        let failing = troubles.iter().map(|trouble| {
            let fault = Fault::Error(trouble.kind);
            (&trouble.call, fault)
        });
        let mut faults: Vec<(&Call, Fault)> = failing.chain(blow).collect();
        faults.sort_by_key(|(call, _)| (call.method.clone(), call.before));
        for (index, (call, fault)) in faults.iter().enumerate() {
            let last = faults[..index].last();
            let same = last.filter(|(last, _)| last.method == call.method);
            let passed = same.map_or(0, |(last, _)| last.before + 1);
            self.let_pass(&call.method, call.before - passed);
            self.fault(&call.method, fault.clone());
        }
    }

    /// From now on all is well again, but for some clocks.
    pub(super) fn disarm(&self, point: &Point) {
        self.env.fake().clear_faults();
        if point.blow == Blow::Hang {
            self.configure("");
        }
        if let Blow::Jump(ms) = point.blow
            && !point.clock_stays_wrong()
        {
            self.env.clock().jump(-ms);
        }
    }

    fn configure(&self, limits: &str) {
        let file = self.env.alpine_home().join("config.toml");
        let (name, table) = match &self.scene.fake {
            Fake::CompiledIn => ("fake", String::new()),
            Fake::Hosted(library) => {
                let state = self.env.fake_directory();
                (Library::NAME, library.table(self.isolation, &state))
            }
        };
        let text = format!("[provider]\ndefault = '{name}'\n{CONFIG}{limits}{table}");
        // Whole at once: somebody may be reading it.
        let fresh = file.with_extension("new");
        fs::write(&fresh, text).expect("a configuration");
        fs::set_permissions(&fresh, fs::Permissions::from_mode(0o600)).expect("its mode");
        fs::rename(&fresh, &file).expect("a configuration");
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
        if let Fake::Hosted(_) = self.scene.fake {
            // The one that is compiled in is asked by `reconcile` as well: it is another provider, with a state of its own.
            command.env("ALPINE_TEST_FAKE_DIR", self.env.root().join("other"));
        }
        command
    }

    /// The command line of an operation.
    pub(super) fn command_of(&self, operation: Operation) -> Command {
        let session = session_id().to_string();
        match operation {
            Operation::Up | Operation::TakeOver | Operation::CancelledUp => {
                let fixed = ["up", REPO, "--branch", "main", "--no-browser"];
                let own = ["--client-request-id", "one", "--env", "AGENT_KEY"];
                self.command(&[&fixed[..], &own[..]].concat())
            }
            Operation::Down => self.command(&["down", &session]),
            Operation::RetryPersist => self.command(&["down", &session, "--retry-persist"]),
            Operation::Discard => self.command(&["down", &session, "--discard", &self.digest]),
            Operation::Cancel => self.command(&["down", &session, "--cancel"]),
            Operation::Reconcile => self.command(&["reconcile"]),
        }
    }

    /// Starts the scene's operation. One that is cancelled hangs by then, and what cancels it has been started.
    pub(super) fn start(&mut self, strike: Option<(u64, Strike)>) -> Running {
        let told = fs::remove_file(self.commits_file());
        drop(told);
        let mut command = self.command_of(self.scene.operation);
        command.env("ALPINE_TEST_COMMITS", self.commits_file());
        if let Some((at, strike)) = strike {
            command.env("ALPINE_TEST_STRIKE", format!("{at} {}", strike.name()));
        }
        let before = self.env.fake().calls().len();
        let running = Running::start(command);
        if self.scene.operation == Operation::CancelledUp {
            self.wait_until_it_hangs(before);
            self.hung = self.commits().parse().ok();
            self.beside = Some(Running::start(self.command_of(Operation::Cancel)));
        }
        running
    }

    /// Waits for what runs beside the operation.
    pub(super) fn join(&mut self) -> Option<Output> {
        let beside = self.beside.take().map(Running::wait);
        self.said.extend(beside.clone());
        beside
    }

    /// Runs an operation to its end, undisturbed.
    pub(super) fn run(&mut self, operation: Operation) -> Output {
        let output = Running::start(self.command_of(operation)).wait();
        self.said.push(output.clone());
        output
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
        ledger(&self.env, read)
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

/// The id of the ledger in a home, and what is read of it.
pub(super) fn ledger<T>(
    env: &TestEnv,
    read: impl FnOnce(&Snapshot<'_>) -> Result<T, LedgerError>,
) -> (String, T) {
    let options = Options {
        clock: Arc::new(env.clock().clone()),
        ..Options::new()
    };
    let path = env.alpine_home().join("ledger.redb");
    let ledger = Ledger::open_read(&path, options).expect("a ledger");
    let value = ledger.read(read).expect("a snapshot");
    (ledger.id().to_owned(), value)
}
