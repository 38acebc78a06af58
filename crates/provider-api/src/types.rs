//! The requests and replies of every method. All are plain data.

use crate::{AgentSpec, BranchName, CommitId, GitCredential, Isolation, RepoUrl, Secret, wire};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

/// A sandbox: the engine chooses the id and records it before the sandbox is made.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SandboxId(String);

impl SandboxId {
    /// Takes an id of ASCII letters, digits, `_` and `-`, which is safe as a file's name.
    #[must_use]
    pub fn new(id: &str) -> Option<Self> {
        let fits = (1..=128).contains(&id.len())
            && id
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
            && !id.starts_with('-');
        fits.then(|| Self(id.to_owned()))
    }

    /// The text of the id.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SandboxId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// Asks for a sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProvisionRequest {
    /// Its id.
    pub sandbox_id: SandboxId,
    /// The ledger that owns it; it bears this for life.
    pub ledger_id: String,
    /// The session it belongs to.
    pub session_id: String,
    /// Whether weak isolation is acceptable.
    #[serde(default)]
    pub allow_unsandboxed: bool,
}

/// A sandbox that is there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProvisionReply {
    /// The workspace as the host sees it, where it can.
    pub workspace_path: Option<PathBuf>,
    /// The isolation it got.
    pub isolation: Isolation,
}

/// Asks for a repository in the workspace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncRepoRequest {
    /// The sandbox.
    pub sandbox_id: SandboxId,
    /// The repository.
    pub repo: RepoUrl,
    /// The branch that is checked out.
    pub branch: BranchName,
    /// The commit it is to point at, even if the remote's branch has moved since.
    pub commit: CommitId,
    /// What opens the remote.
    #[serde(default)]
    pub credential: Option<GitCredential>,
}

/// The workspace holds the repository.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncRepoReply {
    /// What HEAD is now.
    pub head: CommitId,
}

/// Asks for the dependencies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstallRequest {
    /// The sandbox.
    pub sandbox_id: SandboxId,
}

/// The install step exited 0, or there was none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstallReply {
    /// The command that ran; none when nothing was found to install.
    pub command: Option<String>,
    /// What it was found by: a file's name.
    pub found_by: Option<String>,
}

/// Asks for the agent's server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartAgentRequest {
    /// The sandbox.
    pub sandbox_id: SandboxId,
    /// The agent.
    pub agent: AgentSpec,
    /// Variables for the agent alone; never recorded.
    #[serde(default, with = "wire::map")]
    pub env: BTreeMap<String, Secret<String>>,
    /// How long it may take to become ready, in milliseconds.
    pub ready_ms: u64,
    /// What the page tells of the session: no secrets.
    #[serde(default)]
    pub page: PageFacts,
}

/// What the built-in page tells of its session.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PageFacts {
    /// The session.
    pub session_id: String,
    /// The repository.
    pub repo_url: String,
    /// The branch.
    pub branch: String,
    /// The commit.
    pub commit: String,
}

/// The agent runs and has answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartAgentReply {
    /// Its address, without a secret; none where it serves nothing.
    pub url: Option<String>,
}

/// Asks for a way in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenAgentRequest {
    /// The sandbox.
    pub sandbox_id: SandboxId,
    /// How long the link is good for, in milliseconds.
    pub link_ms: u64,
}

/// A way in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenAgentReply {
    /// The address, without a secret.
    pub url: String,
    /// The same with a token that works once.
    #[serde(with = "wire")]
    pub open_url: Secret<String>,
    /// The user name that the address takes by HTTP Basic.
    pub username: String,
    /// The password that goes with it.
    #[serde(with = "wire")]
    pub password: Secret<String>,
}

/// Asks how a sandbox is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InspectRequest {
    /// The sandbox.
    pub sandbox_id: SandboxId,
    /// Whether to look inside too: HEAD, a write probe, the agent's answer. Without it the call is a matter of milliseconds.
    pub probe: bool,
}

/// How a sandbox is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InspectReply {
    /// Whether it runs.
    pub state: SandboxState,
    /// What looking inside found.
    #[serde(default)]
    pub probe: Option<ProbeReply>,
    /// How the agent's server has ended, where it has and that can be told in a matter of milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_ended: Option<ExecReply>,
}

/// Whether a sandbox runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SandboxState {
    /// It runs.
    Running,
    /// It was stopped or has ended; its storage is there.
    Exited,
    /// There is none, or its storage is gone.
    Missing,
    /// This can't be told now, or by this version.
    #[serde(other)]
    Unknown,
}

impl SandboxState {
    /// The name in output.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            SandboxState::Running => "running",
            SandboxState::Exited => "exited",
            SandboxState::Missing => "missing",
            SandboxState::Unknown => "unknown",
        }
    }
}

/// What looking inside a sandbox found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeReply {
    /// What HEAD is.
    pub head: Option<CommitId>,
    /// Whether a file could be written to the workspace and removed again.
    pub writable: bool,
    /// Whether the agent answered 200–399; none where it serves nothing.
    pub agent_ready: Option<bool>,
}

/// Asks which sandboxes bear a ledger's id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListRequest {
    /// The ledger.
    pub ledger_id: String,
}

/// The sandboxes of a ledger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListReply {
    /// One entry each.
    pub sandboxes: Vec<ListedSandbox>,
}

/// One sandbox of a ledger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListedSandbox {
    /// Its id.
    pub sandbox_id: SandboxId,
    /// The session it was made for.
    pub session_id: String,
    /// Whether it runs.
    pub state: SandboxState,
}

/// Asks for a command in the sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecRequest {
    /// The sandbox.
    pub sandbox_id: SandboxId,
    /// The program and its arguments.
    pub argv: Vec<String>,
    /// Variables beside the sandbox's own.
    #[serde(default, with = "wire::map")]
    pub env: BTreeMap<String, Secret<String>>,
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExecReply {
    /// With an exit status.
    Exited(i32),
    /// By a signal.
    Signalled(i32),
}

/// Asks for a log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogsRequest {
    /// The sandbox.
    pub sandbox_id: SandboxId,
    /// Which.
    pub log: LogName,
    /// Whether to go on as it grows, until the sandbox ends or the call is dropped.
    pub follow: bool,
}

/// Which log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogName {
    /// The install step's.
    Install,
    /// The agent's.
    Agent,
}

/// The log's end was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogsReply {}

/// Asks for the end of every process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StopRequest {
    /// The sandbox.
    pub sandbox_id: SandboxId,
    /// How long they get after the graceful signal, in milliseconds.
    pub grace_ms: u64,
}

/// No process of the sandbox is left.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StopReply {
    /// Whether some had to be killed.
    pub forced: bool,
}

/// Asks for the end of a sandbox and of everything it stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DestroyRequest {
    /// The sandbox.
    pub sandbox_id: SandboxId,
}

/// The sandbox is gone and its id will not come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DestroyReply {}
