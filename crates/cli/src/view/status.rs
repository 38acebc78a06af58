//! The document of `status`.

use super::{VERSION, redacted};
use alpine_ledger::{
    ErrorRecord, LeaseRecord, OperationRecord, OperationState, SessionRecord, State,
    TransitionRecord,
};
use alpine_lifecycle::{Failure, snapshot_or_reason};
use alpine_provider_api::Redactor;
use serde::Serialize;
use serde_json::Value;

/// The result of `status`.
#[derive(Debug, Serialize)]
pub(crate) struct StatusDocument {
    schema_version: &'static str,
    pub(crate) session_id: String,
    pub(crate) name: Option<String>,
    pub(crate) owner_principal_id: String,
    client_request_id: String,
    pub(crate) state: &'static str,
    pub(crate) repo_url: String,
    pub(crate) branch: String,
    pub(crate) target_commit_sha: Option<String>,
    pub(crate) provider: String,
    provider_version: Option<String>,
    pub(crate) isolation: Option<Value>,
    pub(crate) agent: String,
    pub(crate) opencode_url: Option<String>,
    pub(crate) workspace_path: Option<String>,
    started_at: String,
    ready_at: Option<String>,
    stopped_at: Option<String>,
    persisted_at: Option<String>,
    updated_at: String,
    operation_id: String,
    pub(crate) lease: Option<LeaseDocument>,
    pub(crate) last_transition: TransitionDocument,
    pub(crate) last_error: Option<ErrorDocument>,
    pub(crate) observed: Option<ObservedDocument>,
    pub(crate) durable_object_id: Option<String>,
    persistence_verified: bool,
    history_truncated: bool,
    pub(crate) workspace_snapshot: Option<Value>,
    pub(crate) workspace_snapshot_reason: Option<String>,
    destroy_pending: bool,
    warnings: Vec<String>,
    pub(crate) next_step: Option<String>,
}

/// Who holds a session's lease, and until when.
#[derive(Debug, Serialize)]
pub(crate) struct LeaseDocument {
    operation_id: String,
    pub(crate) holder: HolderDocument,
    fence: u64,
    pub(crate) expires_at: String,
}

/// The process that holds a lease.
#[derive(Debug, Serialize)]
pub(crate) struct HolderDocument {
    pub(crate) host: String,
    boot_id: String,
    pub(crate) pid: u32,
    start_time: u64,
}

/// A transition.
#[derive(Debug, Serialize)]
pub(crate) struct TransitionDocument {
    state: &'static str,
    timestamp: String,
    actor: String,
    pub(crate) reason: String,
    operation_id: String,
}

/// A recorded failure.
#[derive(Debug, Serialize)]
pub(crate) struct ErrorDocument {
    pub(crate) error_code: String,
    pub(crate) cause: String,
    next_step: String,
    retryable: bool,
    operation_id: Option<String>,
    exit_code: u8,
}

/// What the provider sees.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ObservedDocument {
    pub(crate) state: &'static str,
    /// How the agent has ended, where it has and the sandbox runs on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) agent_ended: Option<String>,
    pub(crate) at: String,
}

impl StatusDocument {
    /// The same, with what an operation was interrupted by.
    pub(crate) fn interrupted(
        mut self,
        operation: Option<&OperationRecord>,
        redactor: &Redactor,
    ) -> Self {
        let interrupted =
            operation.filter(|operation| operation.state == OperationState::Interrupted);
        if let Some(error) = interrupted.and_then(|operation| operation.error.as_ref()) {
            self.last_error = Some(ErrorDocument::new(error, redactor));
        }
        // A page whose sandbox has ended can't be opened.
        let ended = self
            .observed
            .as_ref()
            .is_some_and(|observed| matches!(observed.state, "exited" | "missing"));
        if ended && self.state == State::Ready.as_str() {
            self.next_step = Some(format!("alpine down {}", self.session_id));
        }
        self
    }

    pub(crate) fn new(
        session: &SessionRecord,
        lease: Option<&LeaseRecord>,
        observed: Option<ObservedDocument>,
        next: Option<&str>,
        redactor: &Redactor,
    ) -> Self {
        let is_destroyed = session.state.is_terminal() && !session.destroy_pending;
        let missing = |observed: &ObservedDocument| observed.state == "missing";
        let is_gone = is_destroyed || observed.as_ref().is_some_and(missing);
        let (snapshot, snapshot_reason) = snapshot_or_reason(session.workspace_snapshot.as_ref());
        Self {
            schema_version: VERSION,
            session_id: session.session_id.to_string(),
            name: session.new.name.as_ref().map(|name| redactor.redact(name)),
            owner_principal_id: session.new.owner.clone(),
            client_request_id: session.new.client_request_id.clone(),
            state: session.state.as_str(),
            repo_url: redactor.redact(&session.new.repo_url),
            branch: redactor.redact(&session.new.branch),
            target_commit_sha: session.target_commit_sha.clone(),
            provider: session.new.provider.clone(),
            provider_version: session.provider_version.clone(),
            isolation: session
                .isolation
                .as_ref()
                .map(|isolation| redacted(isolation, redactor)),
            agent: session.new.agent.clone(),
            opencode_url: session.opencode_url.clone(),
            workspace_path: session.workspace_path.clone().filter(|_| !is_gone),
            started_at: session.started_at.to_string(),
            ready_at: session.ready_at.map(|at| at.to_string()),
            stopped_at: session.stopped_at.map(|at| at.to_string()),
            persisted_at: session.persisted_at.map(|at| at.to_string()),
            updated_at: session.updated_at.to_string(),
            operation_id: session.operation_id.to_string(),
            lease: lease.and_then(LeaseDocument::new),
            last_transition: TransitionDocument::new(&session.last_transition, redactor),
            last_error: session
                .last_error
                .as_ref()
                .map(|error| ErrorDocument::new(error, redactor)),
            observed,
            durable_object_id: session.durable_object_id.clone(),
            persistence_verified: session.persistence_verified,
            history_truncated: session.history_truncated,
            workspace_snapshot: snapshot.map(|snapshot| redacted(snapshot, redactor)),
            workspace_snapshot_reason: snapshot_reason.map(str::to_owned),
            destroy_pending: session.destroy_pending,
            warnings: session
                .warnings
                .iter()
                .map(|warning| redactor.redact(warning))
                .collect(),
            next_step: next.map(|next| redactor.redact(next)),
        }
    }
}

impl LeaseDocument {
    /// A lease that was released has no holder, and is none.
    fn new(lease: &LeaseRecord) -> Option<Self> {
        let holder = lease.holder.as_ref()?;
        Some(Self {
            operation_id: lease.operation_id.to_string(),
            holder: HolderDocument {
                host: holder.host.clone(),
                boot_id: holder.boot_id.clone(),
                pid: holder.pid,
                start_time: holder.start_time,
            },
            fence: lease.fence,
            expires_at: lease.expires_at.to_string(),
        })
    }
}

impl TransitionDocument {
    fn new(record: &TransitionRecord, redactor: &Redactor) -> Self {
        Self {
            state: record.state.as_str(),
            timestamp: record.timestamp.to_string(),
            actor: record.actor.clone(),
            reason: redactor.redact(&record.reason),
            operation_id: record.operation_id.to_string(),
        }
    }
}

impl ErrorDocument {
    pub(super) fn new(record: &ErrorRecord, redactor: &Redactor) -> Self {
        Self {
            error_code: record.error_code.clone(),
            cause: redactor.redact(&record.cause),
            next_step: redactor.redact(&record.next_step),
            retryable: record.retryable,
            operation_id: record.operation_id.as_ref().map(ToString::to_string),
            exit_code: Failure::from_record(record).exit_code,
        }
    }
}
