//! The durable object's metadata payload, v1, and how it is made to fit.

use alpine_ledger::{OperationRecord, SessionRecord, Timestamp, TransitionRecord};
use alpine_provider_api::StagedSnapshot;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The most bytes a payload may have.
pub const MAX_PAYLOAD: usize = 512 * 1024;

/// The payload. Equal records and clocks give equal bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Payload {
    /// `v1`.
    pub schema_version: String,
    /// The session.
    pub session_id: String,
    /// Its owner.
    pub principal_id: String,
    /// The repository, without credentials.
    pub repo_url: String,
    /// The branch.
    pub branch: String,
    /// The commit the session began at.
    pub target_commit_sha: Option<String>,
    /// `stopped`; or `failed`, for what was saved of an `up` that failed.
    pub state: String,
    /// How the session came here.
    pub state_transitions: Vec<PayloadTransition>,
    /// When it was admitted.
    pub started_at: String,
    /// When it became ready.
    pub ready_at: Option<String>,
    /// When its sandbox had been stopped.
    pub stopped_at: Option<String>,
    /// When this attempt to persist it began.
    pub persisted_at: String,
    /// What was done to it.
    pub operation_history: Vec<PayloadOperation>,
    /// Its latest failure, without secrets.
    pub last_error: Option<PayloadError>,
    /// Whether histories were shortened.
    pub history_truncated: bool,
    /// What is known of the workspace's snapshot; none when there is none.
    pub workspace_snapshot: Option<Value>,
    /// Why there is none.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub workspace_snapshot_reason: Option<String>,
}

/// One transition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PayloadTransition {
    /// The state that was entered.
    pub state: String,
    /// When.
    pub timestamp: String,
    /// Who.
    pub actor: String,
    /// Why.
    pub reason: String,
    /// In which operation.
    pub operation_id: String,
}

/// One operation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PayloadOperation {
    /// Its id.
    pub operation_id: String,
    /// What it did.
    pub action: String,
    /// When it was admitted.
    pub started_at: String,
    /// When it ended; none for the one that persists.
    pub completed_at: Option<String>,
    /// The state it ended in.
    pub terminal_state: Option<String>,
    /// The failure it ended with.
    pub error_code: Option<String>,
}

/// The latest failure.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PayloadError {
    /// Its code.
    pub error_code: String,
    /// What happened.
    pub cause: String,
    /// What to do.
    pub next_step: String,
    /// Whether a retry may help.
    pub retryable: bool,
    /// The operation.
    pub operation_id: Option<String>,
}

impl Payload {
    /// The payload of a session at `persisted_at`.
    #[must_use]
    pub fn new(
        session: &SessionRecord,
        transitions: &[TransitionRecord],
        operations: &[OperationRecord],
        persisted_at: Timestamp,
        state: &str,
        snapshot: Result<Value, String>,
    ) -> Self {
        let time = |at: Option<Timestamp>| at.map(|at| at.to_string());
        let (workspace_snapshot, workspace_snapshot_reason) = match snapshot {
            Ok(snapshot) => (Some(snapshot), None),
            Err(reason) => (None, Some(reason)),
        };
        Self {
            schema_version: "v1".to_owned(),
            session_id: session.session_id.to_string(),
            principal_id: session.new.owner.clone(),
            repo_url: session.new.repo_url.clone(),
            branch: session.new.branch.clone(),
            target_commit_sha: session.target_commit_sha.clone(),
            state: state.to_owned(),
            state_transitions: transitions.iter().map(PayloadTransition::from).collect(),
            started_at: session.started_at.to_string(),
            ready_at: time(session.ready_at),
            stopped_at: time(session.stopped_at),
            persisted_at: persisted_at.to_string(),
            operation_history: operations.iter().map(PayloadOperation::from).collect(),
            last_error: session.last_error.as_ref().map(|error| PayloadError {
                error_code: error.error_code.clone(),
                cause: error.cause.clone(),
                next_step: error.next_step.clone(),
                retryable: error.retryable,
                operation_id: error.operation_id.as_ref().map(ToString::to_string),
            }),
            history_truncated: false,
            workspace_snapshot,
            workspace_snapshot_reason,
        }
    }

    /// The payload of a sandbox that no session owns, as of a look at it: what is known of it is what it says itself.
    #[must_use]
    pub fn orphan(session_id: &str, staged: &StagedSnapshot, at: Timestamp) -> Self {
        Self {
            schema_version: "v1".to_owned(),
            session_id: session_id.to_owned(),
            principal_id: String::new(),
            repo_url: String::new(),
            branch: String::new(),
            target_commit_sha: None,
            state: "failed".to_owned(),
            state_transitions: Vec::new(),
            started_at: at.to_string(),
            ready_at: None,
            stopped_at: None,
            persisted_at: at.to_string(),
            operation_history: Vec::new(),
            last_error: None,
            history_truncated: false,
            workspace_snapshot: Some(
                serde_json::json!({"digest": staged.digest, "size": staged.size, "entries": staged.entries}),
            ),
            workspace_snapshot_reason: None,
        }
    }

    /// The payload's bytes.
    #[must_use]
    pub fn to_text(&self) -> String {
        // Structs of text, numbers and JSON values have no way to fail here.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// The payload without its oldest `dropped` entries: operations first, then transitions.
    fn without(&self, dropped: usize) -> Self {
        let operations = dropped.min(self.operation_history.len());
        let transitions = (dropped - operations).min(self.state_transitions.len());
        Self {
            operation_history: self.operation_history[operations..].to_vec(),
            state_transitions: self.state_transitions[transitions..].to_vec(),
            history_truncated: self.history_truncated || dropped > 0,
            ..self.clone()
        }
    }
}

impl From<&TransitionRecord> for PayloadTransition {
    fn from(record: &TransitionRecord) -> Self {
        Self {
            state: record.state.to_string(),
            timestamp: record.timestamp.to_string(),
            actor: record.actor.clone(),
            reason: record.reason.clone(),
            operation_id: record.operation_id.to_string(),
        }
    }
}

impl From<&OperationRecord> for PayloadOperation {
    fn from(record: &OperationRecord) -> Self {
        Self {
            operation_id: record.operation_id.to_string(),
            action: record.action.to_string(),
            started_at: record.started_at.to_string(),
            completed_at: record.completed_at.map(|at| at.to_string()),
            terminal_state: record.terminal_state.map(|state| state.to_string()),
            error_code: record.error.as_ref().map(|error| error.error_code.clone()),
        }
    }
}

/// The payload that fits into `limit` bytes with the fewest entries dropped; none when even an empty history is too much.
#[must_use]
pub fn compact(payload: &Payload, limit: usize) -> Option<Payload> {
    let fits = |dropped: usize| payload.without(dropped).to_text().len() <= limit;
    let (mut low, mut high) = (
        0,
        payload.operation_history.len() + payload.state_transitions.len(),
    );
    if fits(0) {
        return Some(payload.clone());
    }
    if !fits(high) {
        return None;
    }
    // Each further entry dropped makes it smaller (but for the flag, which is set from the first on).
    while low + 1 < high {
        let middle = low.midpoint(high);
        if fits(middle) {
            high = middle
        } else {
            low = middle
        }
    }
    Some(payload.without(high))
}

#[cfg(test)]
mod tests;
