//! The fake, broken on purpose: each fault breaks one sentence of the contract.

use crate::served;
use alpine_provider_api::*;
use alpine_provider_local::marked_by;
use alpine_testkit::FakeProvider;
use async_trait::async_trait;
use rustix::process::Signal;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::{Notify, mpsc};

/// Declares the faults: what is broken, and the check that has to find it.
macro_rules! faults {
    ($($fault:ident: $what:literal => $check:literal;)+) => {
        /// What is broken.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Fault { $($fault),+ }

        impl Fault {
            pub(crate) const ALL: &[Fault] = &[$(Fault::$fault),+];

            /// What is broken, in words, and the check that has to find it.
            pub(crate) const fn told(self) -> (&'static str, &'static str) {
                match self { $(Fault::$fault => ($what, $check)),+ }
            }
        }
    };
}

faults! {
    NeverOpens: "describe fails" => "boundary.opens";
    AnotherName: "describe gives another name each time" => "describe.again";
    NoVersion: "describe gives no version" => "describe.whole";
    HidesLogs: "describe does not tell of `logs`, which works" => "describe.unannounced";
    AnnouncesPage: "describe announces a page that is not served" => "start.page";
    JoinsWords: "exec hands the words to a shell as one line" => "arguments.hostile_words";
    CutsNames: "list cuts a session's name at a quote" => "arguments.hostile_names";
    NotEmpty: "provision puts a file into the workspace" => "provision.makes";
    MakesTwo: "provision again makes another sandbox" => "provision.twice";
    TakesOtherArguments: "provision again takes other arguments" => "provision.other_arguments";
    OneAtATime: "provision fails while another of the same id is under way" => "provision.at_once";
    InspectsWhole: "inspect and list leave out what was not provisioned whole" => "provision.failing_midway";
    ForgetsHalf: "list leaves out what was not provisioned whole" => "provision.failing_midway";
    WrongSession: "list tells another session" => "provision.labels";
    AllLedgers: "list gives the sandboxes of every ledger" => "provision.labels";
    ForgetsStopped: "list leaves out stopped sandboxes" => "list.all";
    MissingIsAnError: "inspect fails where no sandbox is" => "inspect.missing";
    StopOfNone: "stop of a sandbox that never was succeeds" => "never_was.refused";
    OnlyInMemory: "an instance knows the sandboxes only that it has made itself" => "provision.twice";
    OnlyInMemoryAnywhere: "the same, in a whole life" => "crash.fresh";
    TakesTheTip: "sync_repo takes the branch's tip" => "sync.pinned";
    MisreportsHead: "sync_repo answers the commit, and inspect finds none" => "sync.pinned";
    LosesModes: "sync_repo loses modes" => "sync.whole";
    Detached: "sync_repo leaves HEAD detached" => "sync.whole";
    Overwrites: "sync_repo again takes changes back" => "sync.twice";
    LeavesHalf: "sync_repo takes a partial checkout for whole" => "sync.given_up";
    AnyCommit: "sync_repo takes the tip where the commit is missing" => "sync.missing_commit";
    TokenInConfig: "sync_repo writes the token to .git/config" => "sync.token_nowhere";
    TokenInError: "sync_repo repeats a refused token in its error" => "sync.token_nowhere";
    NoInstallLog: "the install log is empty" => "install.runs";
    InstallsAgain: "install runs what had exited 0 again" => "install.twice";
    InventsInstall: "install tells of a step where none is" => "install.none";
    SwallowsFailure: "install succeeds though its step failed" => "install.fails";
    NoLastLines: "install fails without the log's last lines" => "install.fails";
    InstallOutlives: "an install step outlives its call" => "install.given_up";
    AddressOfNone: "start_agent gives an address where nothing is served" => "start.none";
    ServesUnannounced: "start_agent answers to ways of serving that are not announced" => "start.unannounced";
    ServesEverybody: "the agent's address asks for no credential" => "start.serves";
    StartsAnother: "start_agent again starts another server" => "start.twice";
    ReadyAnyway: "start_agent answers before the agent is ready" => "start.not_ready";
    NotReadySilently: "an agent that does not become ready fails without the log's last lines" => "start.not_ready";
    LinksForEver: "a link to the agent works more than once" => "open.once";
    NeverWritable: "inspect finds no workspace that can be written" => "inspect.probe";
    LeavesProbe: "inspect leaves its probe in the workspace" => "inspect.probe";
    LosesCode: "exec answers 0 always" => "exec.codes";
    SignalAsCode: "exec answers 128 + n where signal n ended the command" => "exec.codes";
    SwapsOutputs: "exec swaps output and error output" => "exec.separation";
    LateOutput: "exec sends the last output after its answer" => "exec.separation";
    DropsLastChunk: "exec drops the last chunk" => "exec.big";
    HoldsAll: "exec reads all output whether its reader does or not" => "exec.slow_reader";
    IgnoresEof: "exec does not pass the end of input on" => "exec.stdin";
    LosesInput: "exec loses a piece of the input" => "exec.stdin";
    KeepsInputOpen: "exec keeps the input open of a command that is sent nothing" => "exec.no_input";
    IgnoresSignals: "exec does not pass signals on" => "exec.signal";
    ShellsCode: "exec answers 127 for an unknown program" => "exec.unknown_program";
    ExecOutlives: "a command outlives its call" => "exec.cancel";
    LeavesSessions: "what a command has started in another session outlives its call" => "exec.cancel";
    PassesItsOwn: "exec passes the provider's own environment on" => "exec.environment";
    MixesOutputs: "commands that run at once get each other's status" => "exec.at_once";
    FollowEnds: "logs that are followed end at once" => "logs.follow";
    CapturesAnew: "capture again gives another snapshot" => "capture.twice";
    MissesIgnored: "capture leaves out what git ignores" => "restore.whole";
    MissesEmpty: "capture leaves out empty directories" => "restore.whole";
    CaptureLosesModes: "capture loses modes" => "restore.whole";
    FollowsLinks: "capture follows links" => "restore.whole";
    RestoreAdds: "restore leaves a file of its own" => "restore.whole";
    RestoresOnce: "restore again fails" => "restore.twice";
    RestoresOver: "restore again takes a partial workspace for whole" => "restore.given_up";
    PersistsAnew: "persist again makes another object" => "persist.twice";
    HalfVisible: "persist again after one that was given up gives an object that is half there" => "persist.given_up";
    OtherPayload: "read_object gives the payload with a line end more" => "persist.reads_back";
    OtherSize: "read_object gives another size" => "persist.reads_back";
    NeedsSnapshot: "persist refuses a payload alone" => "persist.without_workspace";
    NeedsSandbox: "persist refuses the payload of a sandbox that was destroyed" => "persist.destroyed";
    InventsObject: "read_object gives an empty object where none is" => "object.missing";
    ReadsMemory: "read_object answers from memory" => "object.corrupt";
    RestoresCorrupt: "restore of a corrupt object succeeds" => "object.corrupt";
    StopLeaves: "stop leaves a process" => "stop.no_process";
    StopMissesCleared: "stop leaves a process that has cleared its environment" => "stop.no_process";
    HidesForce: "stop does not tell that it had to kill" => "stop.no_process";
    KillsAtOnce: "stop kills without a graceful signal's time" => "stop.graceful";
    StopsOnce: "stop again fails" => "stop.twice";
    DestroyLeaves: "destroy leaves the workspace" => "destroy.everything";
    DestroyRenames: "destroy gives the workspace another name" => "destroy.everything";
    DestroyEndsNone: "destroy leaves the processes" => "destroy.everything";
    DestroyEndsNoneUnseen: "the same, where the host can't see the workspace" => "destroy.everything";
    DestroyListed: "a destroyed sandbox is listed on" => "destroy.everything";
    DestroysOnce: "destroy again fails" => "destroy.again";
    DestroysObjects: "destroy takes durable objects along" => "destroy.objects_stay";
    ForgetsFences: "fences are not kept" => "fence.older";
    PersistsForAll: "persist checks no fence" => "fence.older";
    RestoresForAll: "restore checks no fence" => "fence.older";
    RestoresGone: "restore into a destroyed sandbox succeeds" => "fence.destroyed";
    Resurrects: "destroyed ids are not remembered" => "fence.destroyed";
    FencesLooks: "exec refuses an older fence" => "fence.unguarded";
    NoConvergence: "a call that was dropped is refused ever after" => "crash.dropped";
    NoRecovery: "a provision whose process was killed is refused ever after" => "crash.killed";
    Panics: "list panics" => "list.all";
}

/// What commands must not get.
pub(crate) fn own_env() -> BTreeMap<String, Secret<String>> {
    let token = Secret::new("the provider's own, $HOME and 'more'".to_owned());
    BTreeMap::from([("KIT_TOKEN".to_owned(), token)])
}

/// What the broken provider keeps in memory over its instances.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    calls: u32,
    last_exec: i32,
    server: Option<String>,
    highest: u64,
    ledgers: BTreeSet<String>,
    objects: BTreeMap<String, ReadObjectReply>,
    listed: BTreeMap<String, ListedSandbox>,
    busy: BTreeSet<String>,
    done: BTreeSet<String>,
    /// Told when its process is killed.
    killed: Arc<Notify>,
}

impl Memory {
    /// As if its process were killed: what is under way ends where it stands.
    pub(crate) fn kill(&self) {
        self.killed.notify_waiters();
    }
}

/// The fake with a fault.
#[derive(Debug)]
pub(crate) struct Broken {
    pub(crate) inner: FakeProvider,
    pub(crate) state: PathBuf,
    pub(crate) fault: Fault,
    pub(crate) memory: Arc<Mutex<Memory>>,
    /// What this instance has made.
    pub(crate) own: Mutex<BTreeSet<SandboxId>>,
}

type Reply<T> = Result<T, ProviderError>;

fn fail<T>(kind: ErrorKind) -> Reply<T> {
    Err(ProviderError::new(kind, "broken on purpose"))
}

impl Broken {
    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap()
    }

    fn is(&self, fault: Fault) -> bool {
        self.fault == fault
    }

    /// The address of its one server.
    fn server(&self) -> String {
        let mut memory = self.memory();
        memory
            .server
            .get_or_insert_with(served::to_everybody)
            .clone()
    }

    fn workspace(&self, id: &SandboxId) -> PathBuf {
        self.state.join("workspaces").join(id.as_str())
    }

    /// The first time that this is said.
    fn first(&self, what: String) -> bool {
        self.memory().done.insert(what)
    }

    /// What every guarded call goes through.
    fn guard(&self, call: &Call, id: &SandboxId) -> Reply<Call> {
        if self.is(Fault::OnlyInMemory) || self.is(Fault::OnlyInMemoryAnywhere) {
            let own = self.own.lock().unwrap();
            if !own.contains(id)
                && self
                    .state
                    .join("sandboxes")
                    .join(format!("{id}.json"))
                    .exists()
            {
                return fail(ErrorKind::NotFound);
            }
        }
        if self.is(Fault::Resurrects) {
            let _ = fs::remove_file(self.state.join("tombstones").join(id.as_str()));
        }
        {
            let mut memory = self.memory();
            memory.highest = memory.highest.max(call.meta.fence);
        }
        Ok(self.unfenced(call, Fault::ForgetsFences))
    }

    /// The call under the highest fence that was seen, where this is the fault.
    fn unfenced(&self, call: &Call, fault: Fault) -> Call {
        let mut call = call.clone();
        if self.is(fault) {
            call.meta.fence = self.memory().highest;
        }
        call
    }

    fn tip(&self, request: &SyncRepoRequest) -> Option<CommitId> {
        let output = Command::new("git")
            .args(["rev-parse", request.branch.as_str()])
            .current_dir(request.repo.local_path()?)
            .output()
            .ok()?;
        CommitId::new(String::from_utf8_lossy(&output.stdout).trim())
    }

    async fn exec_changed(
        &self,
        call: &Call,
        request: ExecRequest,
        input: mpsc::Receiver<ExecInput>,
    ) -> Reply<ExecReply> {
        let (events, mut said) = mpsc::channel(4);
        let tapped = Call::new(call.meta.clone(), events);
        let inner = self.inner.clone();
        let work = async move { inner.exec(&tapped, request, input).await };
        let forward = async {
            let mut held = Vec::new();
            while let Some(event) = said.recv().await {
                match (self.fault, event) {
                    (Fault::SwapsOutputs, CallEvent::Stdout(text)) => {
                        call.send(CallEvent::Stderr(text)).await?;
                    }
                    (Fault::SwapsOutputs, CallEvent::Stderr(text)) => {
                        call.send(CallEvent::Stdout(text)).await?;
                    }
                    (Fault::DropsLastChunk | Fault::LateOutput, event) => {
                        held.push(event);
                        if held.len() > 1 {
                            call.send(held.remove(0)).await?;
                        }
                    }
                    (Fault::HoldsAll, event) => held.push(event),
                    (_, event) => call.send(event).await?,
                }
            }
            match self.fault {
                Fault::DropsLastChunk => {}
                Fault::LateOutput => {
                    let call = call.clone();
                    tokio::spawn(async move {
                        tokio::time::sleep(Duration::from_millis(50)).await;
                        for event in held {
                            let _ = call.send(event).await;
                        }
                    });
                }
                _ => {
                    for event in held {
                        call.send(event).await?;
                    }
                }
            }
            Reply::Ok(())
        };
        let (reply, forwarded) = tokio::join!(work, forward);
        forwarded?;
        reply
    }

    /// The input without what the fault keeps back.
    fn input_changed(&self, mut input: mpsc::Receiver<ExecInput>) -> mpsc::Receiver<ExecInput> {
        let (to, changed) = mpsc::channel(4);
        let fault = self.fault;
        tokio::spawn(async move {
            let mut pieces = 0;
            while let Some(piece) = input.recv().await {
                pieces += 1;
                let is_kept_back = match (&piece, fault) {
                    (ExecInput::Eof, Fault::IgnoresEof) => true,
                    (ExecInput::Data(_), Fault::LosesInput) => pieces == 3,
                    (ExecInput::Signal(_), Fault::IgnoresSignals) => true,
                    _ => false,
                };
                if !is_kept_back && to.send(piece).await.is_err() {
                    return;
                }
            }
            if fault == Fault::KeepsInputOpen {
                to.closed().await;
            }
        });
        changed
    }

    fn before_capture(&self, id: &SandboxId) {
        let workspace = self.workspace(id);
        let at = |name: &str| workspace.join(name);
        match self.fault {
            Fault::MissesIgnored => drop(fs::remove_dir_all(at("ignored"))),
            Fault::MissesEmpty => drop(fs::remove_dir(at("empty/deep"))),
            Fault::CaptureLosesModes => chmod(&at("bin/run"), 0o644),
            Fault::FollowsLinks => {
                let _ = fs::remove_file(at("src/link"));
                fs::write(at("src/link"), "read me\n").unwrap();
            }
            _ => {}
        }
    }

    fn after_sync(&self, request: &SyncRepoRequest) {
        let workspace = self.workspace(&request.sandbox_id);
        let at = |name: &str| workspace.join(name);
        match self.fault {
            Fault::LosesModes => chmod(&at("bin/run"), 0o644),
            Fault::Detached => {
                fs::write(at(".git/HEAD"), format!("{}\n", request.commit)).unwrap();
            }
            Fault::Overwrites => fs::write(at("version"), "1\n").unwrap(),
            Fault::LeavesHalf => drop(fs::remove_file(at("README.md"))),
            Fault::TokenInConfig => {
                if let Some(GitCredential::Token { token, .. }) = &request.credential {
                    let mut text = fs::read_to_string(at(".git/config")).unwrap();
                    text.push_str(&format!("# {}\n", token.expose()));
                    fs::write(at(".git/config"), text).unwrap();
                }
            }
            _ => {}
        }
    }
}

fn chmod(path: &Path, mode: u32) {
    let _ = fs::set_permissions(path, fs::Permissions::from_mode(mode));
}

#[async_trait]
impl SandboxProvider for Broken {
    async fn describe(&self) -> Reply<DescribeReply> {
        if self.is(Fault::NeverOpens) {
            return fail(ErrorKind::ConfigInvalid);
        }
        let mut reply = self.inner.describe().await?;
        match self.fault {
            Fault::AnotherName => {
                let mut memory = self.memory();
                memory.calls += 1;
                reply.name = format!("fake-{}", memory.calls);
            }
            Fault::NoVersion => reply.version.clear(),
            Fault::HidesLogs => reply.methods.retain(|name| name != "logs"),
            Fault::ServesEverybody
            | Fault::StartsAnother
            | Fault::ReadyAnyway
            | Fault::NotReadySilently => reply.features.push("serve_process".to_owned()),
            Fault::AnnouncesPage | Fault::LinksForEver => {
                reply.features.push("serve_page".to_owned())
            }
            _ => {}
        }
        Ok(reply)
    }

    async fn provision(&self, call: &Call, mut request: ProvisionRequest) -> Reply<ProvisionReply> {
        let call = &self.guard(call, &request.sandbox_id)?;
        let id = request.sandbox_id.clone();
        self.own.lock().unwrap().insert(id.clone());
        self.memory().ledgers.insert(request.ledger_id.clone());
        let first = self.first(format!("provision {id}"));
        if self.is(Fault::MakesTwo) && !first {
            request.sandbox_id = SandboxId::new(&format!("{id}-2")).unwrap();
            request.session_id.push_str("-2");
        }
        if self.is(Fault::NoConvergence) || self.is(Fault::NoRecovery) {
            if !self.memory().busy.insert(format!("provision {id}")) {
                return fail(ErrorKind::Conflict);
            }
            let killed = Arc::clone(&self.memory().killed);
            // Long enough that a blow at any moment of it strikes, on a busy machine too.
            let long = if self.is(Fault::NoRecovery) { 50 } else { 5 };
            let work = tokio::time::sleep(Duration::from_millis(long));
            tokio::select! {
                () = killed.notified() => return fail(ErrorKind::Crashed),
                () = work => {}
            }
        }
        if self.is(Fault::OneAtATime) {
            if !self.memory().busy.insert(id.to_string()) {
                return fail(ErrorKind::Io);
            }
            tokio::task::yield_now().await;
        }
        if self.is(Fault::ForgetsHalf) || self.is(Fault::InspectsWhole) {
            // What was made is there long before it is written down.
            let made = self.inner.provision(call, request).await;
            let killed = Arc::clone(&self.memory().killed);
            tokio::select! {
                () = killed.notified() => return fail(ErrorKind::Crashed),
                () = tokio::time::sleep(Duration::from_millis(20)) => {}
            }
            self.first(format!("whole {id}"));
            return made;
        }
        let reply = self.inner.provision(call, request).await;
        self.memory().busy.remove(id.as_str());
        self.memory().busy.remove(&format!("provision {id}"));
        match (self.fault, reply) {
            (Fault::NotEmpty, Ok(reply)) => {
                fs::write(self.workspace(&id).join("made"), "").unwrap();
                Ok(reply)
            }
            (Fault::TakesOtherArguments, Err(error)) if error.kind == ErrorKind::Conflict => {
                Ok(ProvisionReply {
                    workspace_path: Some(self.workspace(&id)),
                    isolation: self.inner.describe().await?.isolation,
                })
            }
            (Fault::DestroyEndsNoneUnseen, Ok(reply)) => Ok(ProvisionReply {
                workspace_path: None,
                ..reply
            }),
            (_, reply) => reply,
        }
    }

    async fn sync_repo(&self, call: &Call, mut request: SyncRepoRequest) -> Reply<SyncRepoReply> {
        let call = &self.guard(call, &request.sandbox_id)?;
        let asked = request.commit.clone();
        if self.is(Fault::TakesTheTip)
            && let Some(tip) = self.tip(&request)
        {
            request.commit = tip;
        }
        let mut reply = self.inner.sync_repo(call, request.clone()).await;
        match (&mut reply, self.fault) {
            (Ok(reply), Fault::TakesTheTip) => reply.head = asked,
            (Err(error), Fault::AnyCommit) if error.kind == ErrorKind::CommitNotFound => {
                request.commit = self.tip(&request).unwrap();
                return self.inner.sync_repo(call, request).await;
            }
            (Err(error), Fault::TokenInError) => {
                if let Some(GitCredential::Token { token, .. }) = &request.credential {
                    error.message = format!("`{}` was refused", token.expose());
                }
            }
            _ => {}
        }
        if reply.is_ok() {
            self.after_sync(&request);
        }
        reply
    }

    async fn install(&self, call: &Call, request: InstallRequest) -> Reply<InstallReply> {
        let call = self.guard(call, &request.sandbox_id)?;
        let workspace = self.workspace(&request.sandbox_id);
        let (inner, id) = (self.inner.clone(), request.sandbox_id.clone());
        let reply = if self.is(Fault::InstallOutlives) {
            tokio::spawn(async move { inner.install(&call, request).await })
                .await
                .unwrap()
        } else {
            inner.install(&call, request).await
        };
        match (self.fault, reply) {
            (Fault::InstallsAgain, Ok(reply)) if !self.first(format!("install {id}")) => {
                let before = fs::read_to_string(workspace.join("installed")).unwrap();
                fs::write(workspace.join("installed"), before + "once\n").unwrap();
                Ok(reply)
            }
            (Fault::InventsInstall, Ok(reply)) if reply.command.is_none() => Ok(InstallReply {
                command: Some("true".to_owned()),
                found_by: None,
            }),
            (Fault::SwallowsFailure, Err(_)) => Ok(InstallReply {
                command: Some("exit 3".to_owned()),
                found_by: None,
            }),
            (Fault::NoLastLines, Err(error)) => Err(error.log_tail(Vec::new())),
            (_, reply) => reply,
        }
    }

    async fn start_agent(&self, call: &Call, request: StartAgentRequest) -> Reply<StartAgentReply> {
        let call = &self.guard(call, &request.sandbox_id)?;
        if !matches!(request.agent.serve, Serve::None) {
            match self.fault {
                Fault::ServesUnannounced
                | Fault::ServesEverybody
                | Fault::ReadyAnyway
                | Fault::LinksForEver => return Ok(served::started(self.server())),
                Fault::StartsAnother => return Ok(served::started(served::to_everybody())),
                Fault::NotReadySilently => return fail(ErrorKind::AgentNotReady),
                _ => {}
            }
        }
        let mut reply = self.inner.start_agent(call, request).await?;
        if self.is(Fault::AddressOfNone) {
            reply.url = Some("http://127.0.0.1:9".to_owned());
        }
        Ok(reply)
    }

    async fn open_agent(&self, call: &Call, request: OpenAgentRequest) -> Reply<OpenAgentReply> {
        if self.is(Fault::ServesEverybody) || self.is(Fault::LinksForEver) {
            self.memory().calls += 1;
            let number = self.memory().calls;
            return Ok(served::way_in(self.server(), number));
        }
        self.inner.open_agent(call, request).await
    }

    async fn inspect(&self, call: &Call, request: InspectRequest) -> Reply<InspectReply> {
        let workspace = self.workspace(&request.sandbox_id);
        let mut reply = self.inner.inspect(call, request.clone()).await?;
        let whole = format!("whole {}", request.sandbox_id);
        if self.is(Fault::InspectsWhole) && !self.memory().done.contains(&whole) {
            reply.state = SandboxState::Missing;
        }
        if self.is(Fault::MissingIsAnError) && reply.state == SandboxState::Missing {
            return fail(ErrorKind::NotFound);
        }
        if let Some(probe) = &mut reply.probe {
            match self.fault {
                Fault::NeverWritable => probe.writable = false,
                Fault::MisreportsHead => probe.head = None,
                Fault::LeavesProbe => fs::write(workspace.join(".probe"), "").unwrap(),
                _ => {}
            }
        }
        Ok(reply)
    }

    async fn list(&self, call: &Call, request: ListRequest) -> Reply<ListReply> {
        let mut reply = self.inner.list(call, request.clone()).await?;
        match self.fault {
            Fault::Panics => panic!("broken on purpose"),
            Fault::WrongSession => {
                for one in &mut reply.sandboxes {
                    one.session_id = "ses_other".to_owned();
                }
            }
            Fault::CutsNames => {
                for one in &mut reply.sandboxes {
                    let name = one.session_id.split('"').next().unwrap_or_default();
                    one.session_id = name.to_owned();
                }
            }
            Fault::ForgetsStopped => {
                let runs = |one: &ListedSandbox| one.state == SandboxState::Running;
                reply.sandboxes.retain(runs);
            }
            Fault::ForgetsHalf | Fault::InspectsWhole => {
                let memory = self.memory();
                let whole = |one: &ListedSandbox| {
                    memory.done.contains(&format!("whole {}", one.sandbox_id))
                };
                reply.sandboxes.retain(whole);
            }
            Fault::AllLedgers => {
                let ledgers = self.memory().ledgers.clone();
                for ledger_id in ledgers.into_iter().filter(|one| *one != request.ledger_id) {
                    let more = self.inner.list(call, ListRequest { ledger_id }).await?;
                    reply.sandboxes.extend(more.sandboxes);
                }
            }
            Fault::DestroyListed => {
                let mut memory = self.memory();
                for one in &reply.sandboxes {
                    memory
                        .listed
                        .insert(one.sandbox_id.to_string(), one.clone());
                }
                reply.sandboxes = memory.listed.values().cloned().collect();
            }
            _ => {}
        }
        Ok(reply)
    }

    async fn exec(
        &self,
        call: &Call,
        mut request: ExecRequest,
        input: mpsc::Receiver<ExecInput>,
    ) -> Reply<ExecReply> {
        if self.is(Fault::FencesLooks) && call.meta.fence < 7 {
            return fail(ErrorKind::Fenced);
        }
        if self.is(Fault::PassesItsOwn) {
            request.env.extend(own_env());
        }
        if self.is(Fault::JoinsWords) {
            request.argv = ["sh", "-c", &request.argv.join(" ")]
                .map(str::to_owned)
                .to_vec();
        }
        if self.is(Fault::LeavesSessions) {
            let unmarked = ["env", "-u", "FAKE_COMMAND"].map(str::to_owned);
            request.argv.splice(0..0, unmarked);
        }
        if self.is(Fault::ExecOutlives) {
            let (inner, call) = (self.inner.clone(), call.clone());
            let running = tokio::spawn(async move { inner.exec(&call, request, input).await });
            return running.await.unwrap();
        }
        let input = self.input_changed(input);
        let reply = self.exec_changed(call, request, input).await;
        match (self.fault, reply) {
            (Fault::LosesCode, Ok(_)) => Ok(ExecReply::Exited(0)),
            (Fault::SignalAsCode, Ok(ExecReply::Signalled(signal))) => {
                Ok(ExecReply::Exited(128 + signal))
            }
            (Fault::ShellsCode, Err(error)) if error.kind == ErrorKind::InvalidArgument => {
                Ok(ExecReply::Exited(127))
            }
            (Fault::MixesOutputs, Ok(ExecReply::Exited(code))) => {
                let last = std::mem::replace(&mut self.memory().last_exec, code);
                Ok(ExecReply::Exited(last))
            }
            (_, reply) => reply,
        }
    }

    async fn logs(&self, call: &Call, mut request: LogsRequest) -> Reply<LogsReply> {
        if self.is(Fault::NoInstallLog) {
            return self
                .inner
                .logs(&Call::quiet(call.meta.clone()), request)
                .await;
        }
        request.follow &= !self.is(Fault::FollowEnds);
        self.inner.logs(call, request).await
    }

    async fn stop(&self, call: &Call, mut request: StopRequest) -> Reply<StopReply> {
        let call = &self.guard(call, &request.sandbox_id)?;
        let id = request.sandbox_id.clone();
        if self.is(Fault::StopsOnce) && !self.first(format!("stop {id}")) {
            return fail(ErrorKind::NotFound);
        }
        if self.is(Fault::StopMissesCleared) {
            let mark = format!("FAKE_SANDBOX={}", self.workspace(&id).display());
            loop {
                let left = marked_by(mark.as_bytes());
                if left.is_empty() {
                    break;
                }
                left.iter().for_each(|it| it.signal(Signal::KILL));
            }
        }
        if self.is(Fault::StopLeaves) || self.is(Fault::StopMissesCleared) {
            let record = self.state.join("sandboxes").join(format!("{id}.json"));
            let text = fs::read_to_string(&record).unwrap();
            let mut value: Value = serde_json::from_str(&text).unwrap();
            value["run"] = "Stopped".into();
            fs::write(record, value.to_string()).unwrap();
            return Ok(StopReply { forced: true });
        }
        if self.is(Fault::KillsAtOnce) {
            request.grace_ms = 0;
        }
        match (self.fault, self.inner.stop(call, request).await) {
            (Fault::HidesForce, Ok(_)) => Ok(StopReply { forced: false }),
            (Fault::StopOfNone, Err(_)) => Ok(StopReply { forced: false }),
            (_, reply) => reply,
        }
    }

    async fn capture(&self, call: &Call, request: CaptureRequest) -> Reply<StagedSnapshot> {
        let call = &self.guard(call, &request.sandbox_id)?;
        self.before_capture(&request.sandbox_id);
        let mut reply = self.inner.capture(call, request).await?;
        if self.is(Fault::CapturesAnew) {
            let mut memory = self.memory();
            memory.calls += 1;
            reply.staging_id = format!("{}-{}", reply.staging_id, memory.calls);
        }
        Ok(reply)
    }

    async fn persist(&self, call: &Call, mut request: PersistRequest) -> Reply<PersistReply> {
        let call = &self.guard(call, &request.sandbox_id)?;
        let call = &self.unfenced(call, Fault::PersistsForAll);
        let key = format!("persist {} {}", request.sandbox_id, request.generation);
        let first = self.first(key);
        if self.is(Fault::NeedsSnapshot) && request.snapshot.is_none() {
            return fail(ErrorKind::InvalidArgument);
        }
        let stone = self
            .state
            .join("tombstones")
            .join(request.sandbox_id.as_str());
        if self.is(Fault::NeedsSandbox) && stone.exists() {
            return fail(ErrorKind::Destroyed);
        }
        if self.is(Fault::PersistsAnew) && !first {
            request.snapshot = None;
        }
        let reply = self.inner.persist(call, request).await?;
        if self.is(Fault::HalfVisible) && !first {
            let snapshot = format!("{}.snapshot", reply.durable_object_id);
            fs::write(self.state.join("objects").join(snapshot), "half").unwrap();
        }
        Ok(reply)
    }

    async fn read_object(&self, call: &Call, request: ReadObjectRequest) -> Reply<ReadObjectReply> {
        let id = request.durable_object_id.clone();
        if self.is(Fault::ReadsMemory)
            && let Some(known) = self.memory().objects.get(&id)
        {
            return Ok(known.clone());
        }
        let mut reply = match (self.fault, self.inner.read_object(call, request).await) {
            (Fault::InventsObject, Err(_)) => ReadObjectReply {
                payload: "{}".to_owned(),
                snapshot: None,
            },
            (_, reply) => reply?,
        };
        match (self.fault, &mut reply.snapshot) {
            (Fault::OtherPayload, _) => reply.payload.push('\n'),
            (Fault::OtherSize, Some(snapshot)) => snapshot.size += 1,
            _ => {}
        }
        self.memory().objects.insert(id, reply.clone());
        Ok(reply)
    }

    async fn restore(&self, call: &Call, request: RestoreRequest) -> Reply<RestoreReply> {
        let call = &self.guard(call, &request.sandbox_id)?;
        let call = &self.unfenced(call, Fault::RestoresForAll);
        let id = request.sandbox_id.clone();
        let first = self.first(format!("restore {id}"));
        match self.fault {
            Fault::RestoresOnce if !first => return fail(ErrorKind::Conflict),
            Fault::RestoresOver if !first => return Ok(RestoreReply { entries: 0 }),
            // Slow enough to be given up.
            Fault::RestoresOver => tokio::time::sleep(Duration::from_millis(20)).await,
            _ => {}
        }
        match (self.fault, self.inner.restore(call, request).await) {
            (Fault::RestoresCorrupt, Err(error)) if error.kind == ErrorKind::Corrupt => {
                Ok(RestoreReply { entries: 0 })
            }
            (Fault::RestoresGone, Err(error)) if error.kind == ErrorKind::Destroyed => {
                Ok(RestoreReply { entries: 0 })
            }
            (Fault::RestoreAdds, Ok(reply)) => {
                fs::write(self.workspace(&id).join(".restored"), "").unwrap();
                Ok(reply)
            }
            (_, reply) => reply,
        }
    }

    async fn destroy(&self, call: &Call, request: DestroyRequest) -> Reply<DestroyReply> {
        let call = &self.guard(call, &request.sandbox_id)?;
        let id = request.sandbox_id.clone();
        if self.is(Fault::DestroysOnce) && !self.first(format!("destroy {id}")) {
            return fail(ErrorKind::NotFound);
        }
        let ends_none = self.is(Fault::DestroyEndsNone) || self.is(Fault::DestroyEndsNoneUnseen);
        if ends_none && self.first(format!("destroy {id}")) {
            let _ = fs::remove_dir_all(self.workspace(&id));
            let record = self.state.join("sandboxes").join(format!("{id}.json"));
            fs::remove_file(record).unwrap();
            let stone = self.state.join("tombstones").join(id.as_str());
            fs::write(stone, call.meta.fence.to_string()).unwrap();
            return Ok(DestroyReply {});
        }
        if self.is(Fault::DestroyRenames) {
            let elsewhere = self.state.join(format!("{id}.old"));
            let _ = fs::rename(self.workspace(&id), elsewhere);
        }
        let reply = self.inner.destroy(call, request).await?;
        match self.fault {
            Fault::DestroyLeaves => fs::create_dir_all(self.workspace(&id)).unwrap(),
            Fault::DestroysObjects => {
                let objects = self.state.join("objects");
                for entry in fs::read_dir(objects).unwrap() {
                    fs::remove_file(entry.unwrap().path()).unwrap();
                }
            }
            _ => {}
        }
        Ok(reply)
    }
}
