//! The six methods that are enough.

use alpine_provider_api::*;
use async_trait::async_trait;
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;
use tokio::sync::mpsc;

/// What can make sandboxes and run commands in them.
///
/// Every call may come from a new process, and may be repeated after a crash at any moment: ids are the caller's, and what
/// is there bears them. The adapter keeps fences and destroyed ids, and never makes one sandbox twice at once.
#[async_trait]
pub trait Sandboxes: Send + Sync + fmt::Debug + 'static {
    /// What it says of itself.
    fn facts(&self) -> Facts;

    /// **Does**: makes the sandbox of that id, running, with an empty workspace, bearing the ledger's id.
    /// **Again**: the same reply; one that has ended is started again with what it stored, where that can be.
    /// **Fails**: `IsolationUnavailable`, `NoSpace`, `Io`. **If dropped**: what is there is found by `list`.
    async fn provision(
        &self,
        call: &Call,
        request: &ProvisionRequest,
    ) -> Result<ProvisionReply, ProviderError>;

    /// **Does**: runs a command in the workspace; its output goes to the call's events, in order, before the reply. It must
    /// deliver standard input and its end.
    /// **Fails**: `NotFound` (no such sandbox, or it does not run), `InvalidArgument` (no such program), `Io`.
    /// **If dropped**: the command is ended.
    async fn exec(
        &self,
        call: &Call,
        request: ExecRequest,
        input: mpsc::Receiver<ExecInput>,
    ) -> Result<ExecReply, ProviderError>;

    /// **Does**: says whether the sandbox runs. `Missing` is a proof; what can't be told is `Io`.
    async fn inspect(&self, id: &SandboxId) -> Result<SandboxState, ProviderError>;

    /// **Does**: lists the sandboxes that bear the ledger's id, half-made ones included, and no other ledger's.
    async fn list(&self, ledger_id: &str) -> Result<Vec<ListedSandbox>, ProviderError>;

    /// **Does**: ends every process of the sandbox: a graceful signal, the grace period, then by force. Answers only when
    /// none is left. **Again**: a stopped sandbox stays stopped. **Fails**: `NotFound`, `Io`.
    async fn stop(
        &self,
        call: &Call,
        id: &SandboxId,
        grace: Duration,
    ) -> Result<StopReply, ProviderError>;

    /// **Does**: ends what still runs and deletes everything of the sandbox. **Again**, and of one that never was: done.
    async fn destroy(&self, call: &Call, id: &SandboxId) -> Result<(), ProviderError>;

    /// **Does**: says which port of this machine's 127.0.0.1 leads to a port of the sandbox. Asked where the [`Network`] is
    /// `Published`. **Fails**: `NotFound`, `Io`.
    async fn published(&self, id: &SandboxId, port: u16) -> Result<Option<u16>, ProviderError> {
        let _ = (id, port);
        Ok(None)
    }

    /// **Does**: asks what works in the sandbox to end, and waits for it, while the sandbox goes on taking commands: before
    /// the workspace is read out of it. A provider whose [`Storage`] can be read when stopped is not asked. Says
    /// whether some had to be killed. Nothing is done unless a provider does it.
    async fn settle(
        &self,
        call: &Call,
        id: &SandboxId,
        grace: Duration,
    ) -> Result<StopReply, ProviderError> {
        let _ = (call, id, grace);
        Ok(StopReply { forced: false })
    }

    /// **Does**: sends the whole workspace to the call's events as one tar stream, whose top is `.`. By `tar` in the
    /// sandbox, unless a provider does it better.
    async fn take_out(&self, call: &Call, id: &SandboxId) -> Result<(), ProviderError> {
        let request = ExecRequest {
            sandbox_id: id.clone(),
            argv: ["tar", "-c", "-f", "-", "."].map(str::to_owned).to_vec(),
            env: BTreeMap::new(),
        };
        let (_, no_input) = mpsc::channel(1);
        match self.exec(call, request, no_input).await? {
            ExecReply::Exited(0) => Ok(()),
            ExecReply::Exited(code) => Err(ProviderError::new(
                ErrorKind::Io,
                format!("`tar` in sandbox `{id}` exited with status {code}"),
            )),
            ExecReply::Signalled(signal) => Err(ProviderError::new(
                ErrorKind::Io,
                format!("`tar` in sandbox `{id}` was ended by signal {signal}"),
            )),
        }
    }
}

/// What a provider says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The isolation that a sandbox made now would get.
    pub isolation: Isolation,
    /// When the workspace can be read.
    pub storage: Storage,
    /// How what listens in a sandbox is reached from this machine.
    pub network: Network,
    /// Whether `exec` delivers signals.
    pub exec_signals: bool,
    /// Its limits by name.
    pub limits: BTreeMap<String, u64>,
    /// The JSON Schema of its configuration.
    pub config_schema: Option<serde_json::Value>,
}

impl Facts {
    /// Sandboxes that are read while they run, with a closed network and without limits, of a provider that takes no
    /// configuration.
    #[must_use]
    pub fn new(name: &str, version: &str, isolation: Isolation) -> Self {
        Self {
            name: name.to_owned(),
            version: version.to_owned(),
            isolation,
            storage: Storage::WhileRunning,
            network: Network::Closed,
            exec_signals: false,
            limits: BTreeMap::new(),
            config_schema: None,
        }
    }
}

/// How a server that listens in a sandbox is reached from this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// It is not: a session has the built-in page, or no address.
    Closed,
    /// The sandbox shares this machine's network: its 127.0.0.1 is ours.
    Shared,
    /// That port of all the sandbox's addresses is published on this machine.
    Published(u16),
}

/// When a sandbox's workspace can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Storage {
    /// While the sandbox runs: it is staged by `stop`, before the end of its last process.
    WhileRunning,
    /// When it is stopped too: it is read when nothing can change it any more.
    WhenStopped,
}
