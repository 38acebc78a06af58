//! The records of the ledger. All are plain data; all times are from the injected clock.

use crate::{Moment, OperationId, SessionId, State, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::fmt;

/// What an operation does to its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Bring a session up.
    Up,
    /// Bring a session down.
    Down,
    /// Recover what was interrupted.
    Reconcile,
}

impl Action {
    /// The name used in ids and records.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Action::Up => "up",
            Action::Down => "down",
            Action::Reconcile => "reconcile",
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A failure as it was recorded: what a repeat of the request answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorRecord {
    /// The code of the contract, for example `ERR_INSTALL_FAILED`.
    pub error_code: String,
    /// What happened.
    pub cause: String,
    /// What to do: a command wherever one exists.
    pub next_step: String,
    /// Whether repeating the same request may help.
    pub retryable: bool,
    /// The operation that failed.
    pub operation_id: Option<OperationId>,
    /// The exit status that goes with it.
    pub exit_code: u8,
}

/// What `up` asks for; the part that never changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewSession {
    /// The owner.
    pub owner: String,
    /// The caller's id of the request; with the owner it determines the session's id.
    pub client_request_id: String,
    /// The repository, without credentials.
    pub repo_url: String,
    /// The branch.
    pub branch: String,
    /// Whether the credential preflight was skipped.
    pub public: bool,
    /// The provider's name.
    pub provider: String,
    /// The agent's name, as chosen when the session was made.
    pub agent: String,
    /// The session's name, unique among the owner's unfinished sessions.
    pub name: Option<String>,
    /// What the engine keeps of the request beside this (flags), to resume it.
    pub request: Value,
}

/// One session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionRecord {
    /// Its id.
    pub session_id: SessionId,
    /// What was asked for.
    #[serde(rename = "asked")]
    pub new: NewSession,
    /// Where it stands.
    pub state: State,
    /// Grows by one with every write; compare-and-swap goes by it.
    pub version: u64,
    /// The sandbox's id, chosen before it is made.
    pub sandbox_id: String,
    /// The provider's version, once known.
    #[serde(default)]
    pub provider_version: Option<String>,
    /// What tells that provider, as it was configured, from another one of its name.
    #[serde(default)]
    pub provider_identity: Option<String>,
    /// The commit the branch pointed at when the session began.
    #[serde(default)]
    pub target_commit_sha: Option<String>,
    /// The workspace as the host sees it.
    #[serde(default)]
    pub workspace_path: Option<String>,
    /// What isolation the provider reported.
    #[serde(default)]
    pub isolation: Option<Value>,
    /// The agent's address, without a secret.
    #[serde(default)]
    pub opencode_url: Option<String>,
    /// Whether the browser opened; none until it was tried.
    #[serde(default)]
    pub browser_opened: Option<bool>,
    /// Warnings of `up`.
    #[serde(default)]
    pub warnings: Vec<String>,
    /// When it was admitted.
    pub started_at: Timestamp,
    /// When it became ready.
    #[serde(default)]
    pub ready_at: Option<Timestamp>,
    /// When its sandbox had been stopped.
    #[serde(default)]
    pub stopped_at: Option<Timestamp>,
    /// When the latest attempt to persist it began.
    #[serde(default)]
    pub persisted_at: Option<Timestamp>,
    /// When it was last written.
    pub updated_at: Timestamp,
    /// The latest operation.
    pub operation_id: OperationId,
    /// The latest transition.
    pub last_transition: TransitionRecord,
    /// The latest failure.
    #[serde(default)]
    pub last_error: Option<ErrorRecord>,
    /// The verified durable object.
    #[serde(default)]
    pub durable_object_id: Option<String>,
    /// The number of the latest attempt to persist; 0 before the first.
    #[serde(default)]
    pub persist_generation: u64,
    /// Whether the durable object was verified by reading it back.
    #[serde(default)]
    pub persistence_verified: bool,
    /// Whether the payload's histories were shortened.
    #[serde(default)]
    pub history_truncated: bool,
    /// What is known of the workspace's snapshot: digest, size, what was left out; or the reason for none.
    #[serde(default)]
    pub workspace_snapshot: Option<Value>,
    /// Whether the sandbox is still to be destroyed though the state is final.
    #[serde(default)]
    pub destroy_pending: bool,
    /// Whether the agent had been started, so that the workspace may hold work.
    #[serde(default)]
    pub agent_started: bool,
    /// Fields that a newer version wrote; kept as they are.
    #[serde(flatten)]
    pub unknown: serde_json::Map<String, Value>,
}

/// One step from a state to the next.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransitionRecord {
    /// The state that was entered.
    pub state: State,
    /// When.
    pub timestamp: Timestamp,
    /// Who: a principal.
    pub actor: String,
    /// Why.
    pub reason: String,
    /// In which operation.
    pub operation_id: OperationId,
}

/// How an operation stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OperationState {
    /// A holder works on it, or died while it did.
    Running,
    /// Interrupted or timed out in an orderly way: it can be carried on.
    Interrupted,
    /// Ended well.
    Succeeded,
    /// Ended with an error.
    Failed,
}

/// One run of a mutating command on a session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperationRecord {
    /// Its id.
    pub operation_id: OperationId,
    /// Its session.
    pub session_id: SessionId,
    /// What it does.
    pub action: Action,
    /// How many operations of that action on that session had finished before.
    pub n: u64,
    /// How it stands.
    pub state: OperationState,
    /// Who asked for it.
    pub actor: String,
    /// When it was admitted.
    pub started_at: Timestamp,
    /// When it ended.
    #[serde(default)]
    pub completed_at: Option<Timestamp>,
    /// How often it was taken over.
    #[serde(default)]
    pub takeovers: u64,
    /// Its steps so far.
    #[serde(default)]
    pub steps: Vec<StepRecord>,
    /// The session's state when it ended.
    #[serde(default)]
    pub terminal_state: Option<State>,
    /// The failure it ended with, or was interrupted with.
    #[serde(default)]
    pub error: Option<ErrorRecord>,
    /// What a repeat of the request answers.
    #[serde(default)]
    pub result: Option<Value>,
    /// Whether another process asked for it to be given up.
    #[serde(default)]
    pub cancel_requested: bool,
    /// Fields that a newer version wrote; kept as they are.
    #[serde(flatten)]
    pub unknown: serde_json::Map<String, Value>,
}

/// One step that was done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepRecord {
    /// The step's name.
    pub step: String,
    /// When its result was recorded.
    pub at: Timestamp,
    /// How long it took.
    pub duration_ms: u64,
    /// How often it was tried.
    pub attempts: u32,
    /// The failure, if it failed.
    #[serde(default)]
    pub error_code: Option<String>,
}

/// Who holds a lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// The machine: `/etc/machine-id`, or the host's name.
    pub host: String,
    /// The boot: `/proc/sys/kernel/random/boot_id`.
    pub boot_id: String,
    /// The process.
    pub pid: u32,
    /// When the process started, in clock ticks since boot.
    pub start_time: u64,
}

/// The exclusive right to change a session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseRecord {
    /// The operation that holds it.
    pub operation_id: OperationId,
    /// Grows with each taking; writes under an older one are refused.
    pub fence: u64,
    /// The process; none once the lease was released.
    pub holder: Option<Holder>,
    /// When it expires, or when it was released, by the wall clock.
    pub expires_at: Timestamp,
    /// The same by the holder's boot clock.
    pub expires_boot_ms: u64,
}

/// One entry of the ledger's history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Its number: from 1, without gaps.
    pub seq: u64,
    /// When.
    pub at: Timestamp,
    /// What: `transition`, `operation_started`, `operation_resumed`, `operation_finished`, `step`, `cancel_requested`, …
    pub kind: String,
    /// The session it belongs to.
    #[serde(default)]
    pub session_id: Option<SessionId>,
    /// The operation it belongs to.
    #[serde(default)]
    pub operation_id: Option<OperationId>,
    /// The session's state after it.
    #[serde(default)]
    pub state: Option<State>,
    /// Who.
    #[serde(default)]
    pub actor: Option<String>,
    /// Why, or which step.
    #[serde(default)]
    pub reason: Option<String>,
    /// How long it took.
    #[serde(default)]
    pub duration_ms: Option<u64>,
}

/// One attempt to persist a session: fixed before the first byte is sent, so that a repeat sends the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PersistAttempt {
    /// Its number.
    pub generation: u64,
    /// The one time that payload, receipt, session and output bear.
    pub persisted_at: Timestamp,
    /// The payload's bytes.
    pub payload: String,
    /// The staged snapshot, as the provider described it; none when the workspace is lost.
    pub staged: Option<Value>,
}

/// The proof that a durable object was written and read back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// The attempt it belongs to.
    pub generation: u64,
    /// The object.
    pub durable_object_id: String,
    /// The time its payload bears.
    pub persisted_at: Timestamp,
    /// The digest of the payload, as read back.
    pub payload_digest: String,
    /// The digest of the snapshot, as read back.
    pub snapshot_digest: Option<String>,
    /// When it was verified.
    pub verified_at: Timestamp,
}

/// An admin's act on another's session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditRecord {
    /// Who.
    pub actor: String,
    /// On which session.
    pub session_id: SessionId,
    /// What.
    pub action: String,
    /// Why.
    pub reason: String,
    /// When.
    pub at: Timestamp,
}

/// A sandbox that bears this ledger's id and that no session owns.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuarantineRecord {
    /// The sandbox.
    pub sandbox_id: String,
    /// Its provider.
    pub provider: String,
    /// The session it says it was made for.
    pub session_id: String,
    /// When it was found first.
    pub found_at: Timestamp,
    /// When its grace period began; `found_at` where none is recorded.
    #[serde(default)]
    pub grace_since: Option<Moment>,
    /// The verified durable object that holds its workspace.
    #[serde(default)]
    pub durable_object_id: Option<String>,
    /// When it was destroyed.
    #[serde(default)]
    pub reaped_at: Option<Timestamp>,
}
