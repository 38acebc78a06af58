//! The document of `ops`.

use super::VERSION;
use super::status::ErrorDocument;
use alpine_ledger::{OperationRecord, OperationState, SessionId, StepRecord};
use alpine_provider_api::Redactor;
use serde::Serialize;

/// The result of `ops`.
#[derive(Debug, Serialize)]
pub(crate) struct OpsDocument {
    schema_version: &'static str,
    session_id: String,
    operations: Vec<OperationDocument>,
}

/// One operation.
#[derive(Debug, Serialize)]
struct OperationDocument {
    operation_id: String,
    action: &'static str,
    state: &'static str,
    actor: String,
    started_at: String,
    completed_at: Option<String>,
    takeovers: u64,
    cancel_requested: bool,
    steps: Vec<StepDocument>,
    terminal_state: Option<&'static str>,
    error: Option<ErrorDocument>,
}

/// One step of it.
#[derive(Debug, Serialize)]
struct StepDocument {
    step: String,
    at: String,
    duration_ms: u64,
    attempts: u32,
    error_code: Option<String>,
}

impl OpsDocument {
    pub(crate) fn new(
        session: &SessionId,
        operations: &[OperationRecord],
        redactor: &Redactor,
    ) -> Self {
        let one = |operation| OperationDocument::new(operation, redactor);
        Self {
            schema_version: VERSION,
            session_id: session.to_string(),
            operations: operations.iter().map(one).collect(),
        }
    }
}

impl OperationDocument {
    fn new(operation: &OperationRecord, redactor: &Redactor) -> Self {
        Self {
            operation_id: operation.operation_id.to_string(),
            action: operation.action.as_str(),
            state: state_name(operation.state),
            actor: operation.actor.clone(),
            started_at: operation.started_at.to_string(),
            completed_at: operation.completed_at.map(|at| at.to_string()),
            takeovers: operation.takeovers,
            cancel_requested: operation.cancel_requested,
            steps: operation.steps.iter().map(StepDocument::new).collect(),
            terminal_state: operation.terminal_state.map(|state| state.as_str()),
            error: operation
                .error
                .as_ref()
                .map(|error| ErrorDocument::new(error, redactor)),
        }
    }
}

impl StepDocument {
    fn new(step: &StepRecord) -> Self {
        Self {
            step: step.step.clone(),
            at: step.at.to_string(),
            duration_ms: step.duration_ms,
            attempts: step.attempts,
            error_code: step.error_code.clone(),
        }
    }
}

/// The name of an operation's state, as the records have it.
pub(crate) const fn state_name(state: OperationState) -> &'static str {
    match state {
        OperationState::Running => "running",
        OperationState::Interrupted => "interrupted",
        OperationState::Succeeded => "succeeded",
        OperationState::Failed => "failed",
    }
}
