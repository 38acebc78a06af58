//! The trait that every provider implements.

use crate::*;
use async_trait::async_trait;
use std::fmt;
use tokio::sync::mpsc;

/// What makes, fills, keeps and ends sandboxes.
///
/// **Fences.** A provider keeps, per sandbox, the highest fence it has seen, and refuses a lower one with `Fenced`; it
/// remembers the ids it has destroyed and refuses them with `Destroyed`. So a caller that wakes up late changes
/// nothing.
/// `inspect`, `list`, `logs`, `open_agent`, `exec` and `read_object` change nothing that a lease guards: they check no fence.
///
/// **Proof.** `NotFound` and `WorkspaceLost` say that something is provably gone, since the caller gives it up then; what
/// can't be told is `Io`.
///
/// **Again.** Each call may be repeated, by this process or another, after any crash: the same request has the same effect
/// as one. **If dropped**: the future may be dropped at any await; what was begun may end or not, and a repeat converges.
#[async_trait]
pub trait SandboxProvider: Send + Sync + fmt::Debug {
    /// **Does**: says what the provider is, and what isolation a sandbox made now would get.
    /// **Again**: the same answer. **Fails**: `Io`. **If dropped**: nothing.
    async fn describe(&self) -> Result<DescribeReply, ProviderError>;

    /// **Does**: makes the sandbox of that id, empty and running, bearing the ledger's id.
    /// **Again**: the same reply while it is there; other arguments are a `Conflict`.
    /// **Fails**: `Fenced`, `Destroyed`, `Conflict`, `IsolationUnavailable`, `NoSpace`, `Io`.
    /// **If dropped**: what is there bears the id and is found by `list`.
    async fn provision(
        &self,
        call: &Call,
        request: ProvisionRequest,
    ) -> Result<ProvisionReply, ProviderError>;

    /// **Does**: brings the repository into the workspace, on the branch, at exactly the commit. `origin` is the URL without
    /// credentials; nothing of the repository is executed.
    /// **Again**: a workspace that is there at the commit is left as it is; a partial one is made anew.
    /// **Fails**: `NotFound`, `Fenced`, `Destroyed`, `AuthRejected`, `Unreachable`, `CommitNotFound`, `NoSpace`, `Io`.
    /// **If dropped**: a partial checkout may stay; a repeat replaces it.
    async fn sync_repo(
        &self,
        call: &Call,
        request: SyncRepoRequest,
    ) -> Result<SyncRepoReply, ProviderError>;

    /// **Does**: finds the repository's install command and runs it in the sandbox, its output in the install log.
    /// **Again**: a run that is under way is joined; one that exited 0 is not run again.
    /// **Fails**: `NotFound`, `Fenced`, `Destroyed`, `ConfigInvalid`, `InstallFailed` (with the log's last lines), `Io`.
    /// **If dropped**: the command is ended, and a repeat starts it anew.
    async fn install(
        &self,
        call: &Call,
        request: InstallRequest,
    ) -> Result<InstallReply, ProviderError>;

    /// **Does**: starts the agent's server in the sandbox, waits until it is ready, and publishes its address.
    /// **Again**: a server that runs is asked whether it is ready; the address is the same.
    /// **Fails**: `NotFound`, `Fenced`, `Destroyed`, `AgentNotReady` (with the log's last lines), `Io`.
    /// **If dropped**: the server may run on; a repeat finds it.
    async fn start_agent(
        &self,
        call: &Call,
        request: StartAgentRequest,
    ) -> Result<StartAgentReply, ProviderError>;

    /// **Does**: makes a fresh link to the agent that works once, and tells the credential of its address.
    /// **Again**: another link. **Fails**: `NotFound`, `AgentNotReady`, `Io`. **If dropped**: an unused link expires.
    async fn open_agent(
        &self,
        call: &Call,
        request: OpenAgentRequest,
    ) -> Result<OpenAgentReply, ProviderError>;

    /// **Does**: says how the sandbox is; with `probe`, looks inside. A sandbox that is provably not there is `missing`, no
    /// error; where that is not proven (another home, a disk that is not mounted) it is `unknown`.
    /// **Again**: looks again. **Fails**: `Io`. **If dropped**: nothing stays.
    async fn inspect(
        &self,
        call: &Call,
        request: InspectRequest,
    ) -> Result<InspectReply, ProviderError>;

    /// **Does**: lists the sandboxes that bear the ledger's id, half-made ones included.
    /// **Again**: lists again. **Fails**: `Io`. **If dropped**: nothing.
    async fn list(&self, call: &Call, request: ListRequest) -> Result<ListReply, ProviderError>;

    /// **Does**: runs a command in the workspace; its output goes to the call's events, in order, before the reply. It gets
    /// nothing of the environment of the provider's own process, which may hold secrets.
    /// **Again**: runs it again. **Fails**: `NotFound`, `InvalidArgument` (no such program), `Io`.
    /// **If dropped**: the command is ended.
    async fn exec(
        &self,
        call: &Call,
        request: ExecRequest,
        input: mpsc::Receiver<ExecInput>,
    ) -> Result<ExecReply, ProviderError>;

    /// **Does**: sends a log, oldest first, as `Stdout` events. **Again**: sends it again.
    /// **Fails**: `NotFound`, `Io`. **If dropped**: nothing.
    async fn logs(&self, call: &Call, request: LogsRequest) -> Result<LogsReply, ProviderError>;

    /// **Does**: exports the agent's transcript, then ends every process of the sandbox: a graceful signal, the grace
    /// period, then by force. The storage stays readable. Answers only when no process is left.
    /// **Again**: a stopped sandbox stays stopped; a missing one is `NotFound`.
    /// **Fails**: `NotFound`, `Fenced`, `Destroyed`, `Io` (something could not be ended).
    /// **If dropped**: stopping may go on.
    async fn stop(&self, call: &Call, request: StopRequest) -> Result<StopReply, ProviderError>;

    /// **Does**: turns the whole workspace and the transcript into a staged snapshot, and reports progress.
    /// **Again**: the same generation gives the snapshot that was staged, if it is whole.
    /// **Fails**: `Fenced`, `Destroyed`, `WorkspaceLost` or `NotFound` (provably gone), `NoSpace`, `Io`.
    /// **If dropped**: a partial file may stay; a repeat replaces it. The workspace is never changed.
    async fn capture(
        &self,
        call: &Call,
        request: CaptureRequest,
    ) -> Result<StagedSnapshot, ProviderError>;

    /// **Does**: writes payload and snapshot to the store as one immutable object, flushed to disk. A payload without a
    /// snapshot is written where the sandbox is gone, or was destroyed, too.
    /// **Again**: the same request gives the same id. **Fails**: `Fenced`, `NoSpace`, `TooLarge`, `Corrupt` (the staged
    /// snapshot is not what it was), `Unreachable`, `Io`. **If dropped**: a partial object is never visible.
    async fn persist(
        &self,
        call: &Call,
        request: PersistRequest,
    ) -> Result<PersistReply, ProviderError>;

    /// **Does**: reads the object back from the store and hashes every byte. **Again**: reads again.
    /// **Fails**: `NotFound`, `Corrupt`, `Unreachable`, `Io`. **If dropped**: nothing.
    async fn read_object(
        &self,
        call: &Call,
        request: ReadObjectRequest,
    ) -> Result<ReadObjectReply, ProviderError>;

    /// **Does**: brings a durable object's workspace into a sandbox whose workspace is empty; nothing of it is started.
    /// **Again**: a partial workspace is made anew. **Fails**: `NotFound`, `Fenced`, `Destroyed`, `Corrupt`, `NoSpace`, `Io`.
    /// **If dropped**: a partial workspace may stay; a repeat replaces it.
    async fn restore(
        &self,
        call: &Call,
        request: RestoreRequest,
    ) -> Result<RestoreReply, ProviderError>;

    /// **Does**: ends what still runs and deletes everything the sandbox stored, staged snapshots included; durable objects
    /// stay. **Again**: done already. A sandbox that never was is remembered as destroyed too.
    /// **Fails**: `Fenced`, `Io` (something is left). **If dropped**: a repeat goes on.
    async fn destroy(
        &self,
        call: &Call,
        request: DestroyRequest,
    ) -> Result<DestroyReply, ProviderError>;
}
