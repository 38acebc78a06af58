//! The documents of `--json`: field by field as the contract has them.

mod audit;
mod events;
mod ledger;
mod ops;
mod provider;
mod reconcile;
mod stats;
mod status;

pub(crate) use audit::AuditDocument;
pub(crate) use events::{EventDocument, GapDocument};
pub(crate) use ledger::{
    BackupDocument, CheckDocument, CompactDocument, ExportDocument, ImportDocument, RepairDocument,
};
pub(crate) use ops::{OpsDocument, state_name};
pub(crate) use provider::{
    AddedDocument, InspectedDocument, ProviderDocument, ProvidersDocument, RemovedDocument,
};
pub(crate) use reconcile::ReconcileDocument;
pub(crate) use stats::{Outcomes, StatsDocument};
pub(crate) use status::{ErrorDocument, ObservedDocument, StatusDocument};

use alpine_ledger::SessionSummary;
use alpine_lifecycle::{DownOutcome, Failure, UpOutcome};
use alpine_provider_api::Redactor;
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;

/// The version of every document.
pub(crate) const VERSION: &str = "v1";

/// A failure.
#[derive(Debug, Serialize)]
pub(crate) struct FailureDocument {
    schema_version: &'static str,
    error_code: String,
    cause: String,
    next_step: String,
    retryable: bool,
    operation_id: Option<String>,
    exit_code: u8,
}

impl FailureDocument {
    pub(crate) fn new(failure: &Failure, redactor: &Redactor) -> Self {
        Self {
            schema_version: VERSION,
            error_code: failure.code_name().to_owned(),
            cause: redactor.redact(&failure.cause),
            next_step: redactor.redact(&failure.next_step),
            retryable: failure.retryable,
            operation_id: failure.operation_id.clone(),
            exit_code: failure.exit_code,
        }
    }
}

/// The result of `up`.
#[derive(Debug, Serialize)]
pub(crate) struct UpDocument {
    schema_version: &'static str,
    pub(crate) session_id: String,
    operation_id: String,
    pub(crate) state: String,
    pub(crate) opencode_url: Option<String>,
    pub(crate) open_url: Option<String>,
    pub(crate) agent: String,
    pub(crate) provider: String,
    pub(crate) isolation: Option<Value>,
    ready_at: Option<String>,
    pub(crate) browser_opened: bool,
    pub(crate) target_commit_sha: Option<String>,
    pub(crate) workspace_path: Option<String>,
    pub(crate) client_request_id: String,
    pub(crate) reused: bool,
    step_ms: BTreeMap<String, u64>,
    pub(crate) warnings: Vec<String>,
}

impl UpDocument {
    pub(crate) fn new(outcome: &UpOutcome, redactor: &Redactor) -> Self {
        let session = &outcome.session;
        Self {
            schema_version: VERSION,
            session_id: session.session_id.to_string(),
            operation_id: outcome.operation_id.clone(),
            state: session.state.to_string(),
            opencode_url: session.opencode_url.clone(),
            open_url: outcome.open_url.as_ref().map(|link| link.expose().clone()),
            agent: session.new.agent.clone(),
            provider: session.new.provider.clone(),
            isolation: session
                .isolation
                .as_ref()
                .map(|isolation| redacted(isolation, redactor)),
            ready_at: session.ready_at.map(|at| at.to_string()),
            browser_opened: session.browser_opened.unwrap_or(false),
            target_commit_sha: session.target_commit_sha.clone(),
            workspace_path: session.workspace_path.clone(),
            client_request_id: session.new.client_request_id.clone(),
            reused: outcome.reused,
            step_ms: outcome.step_ms.clone(),
            warnings: outcome
                .warnings
                .iter()
                .map(|warning| redactor.redact(warning))
                .collect(),
        }
    }
}

/// The result of `down`.
#[derive(Debug, Serialize)]
pub(crate) struct DownDocument {
    schema_version: &'static str,
    pub(crate) session_id: String,
    operation_id: Option<String>,
    pub(crate) state: String,
    pub(crate) durable_object_id: Option<String>,
    persisted_at: Option<String>,
    pub(crate) persistence_verified: bool,
    pub(crate) history_truncated: bool,
    pub(crate) workspace_snapshot: Option<Value>,
    pub(crate) workspace_snapshot_reason: Option<String>,
    pub(crate) last_error: Option<ErrorDocument>,
    pub(crate) next_step: Option<String>,
}

impl DownDocument {
    pub(crate) fn new(outcome: &DownOutcome, redactor: &Redactor) -> Self {
        Self {
            schema_version: VERSION,
            session_id: outcome.session_id.clone(),
            operation_id: outcome.operation_id.clone(),
            state: outcome.state.to_string(),
            durable_object_id: outcome.durable_object_id.clone(),
            persisted_at: outcome.persisted_at.map(|at| at.to_string()),
            persistence_verified: outcome.persistence_verified,
            history_truncated: outcome.history_truncated,
            workspace_snapshot: outcome
                .workspace_snapshot
                .as_ref()
                .map(|snapshot| redacted(snapshot, redactor)),
            workspace_snapshot_reason: outcome.workspace_snapshot_reason.clone(),
            last_error: outcome
                .last_error
                .as_ref()
                .map(|error| ErrorDocument::new(error, redactor)),
            next_step: outcome.next_step.clone(),
        }
    }
}

/// The result of `list`.
#[derive(Debug, Serialize)]
pub(crate) struct ListDocument {
    schema_version: &'static str,
    pub(crate) sessions: Vec<ListedDocument>,
    pub(crate) truncated: bool,
}

/// One session of a list.
#[derive(Debug, Serialize)]
pub(crate) struct ListedDocument {
    pub(crate) session_id: String,
    pub(crate) name: Option<String>,
    pub(crate) state: &'static str,
    pub(crate) repo_url: String,
    pub(crate) branch: String,
    pub(crate) provider: String,
    pub(crate) opencode_url: Option<String>,
    updated_at: String,
    pub(crate) owner_principal_id: String,
    pub(crate) next_step: Option<String>,
}

impl ListDocument {
    pub(crate) fn new(
        sessions: &[(SessionSummary, Option<String>)],
        truncated: bool,
        redactor: &Redactor,
    ) -> Self {
        let sessions = sessions
            .iter()
            .map(|(session, next)| ListedDocument::new(session, next.as_deref(), redactor));
        Self {
            schema_version: VERSION,
            sessions: sessions.collect(),
            truncated,
        }
    }
}

impl ListedDocument {
    fn new(session: &SessionSummary, next: Option<&str>, redactor: &Redactor) -> Self {
        Self {
            session_id: session.session_id.to_string(),
            name: session.name.as_ref().map(|name| redactor.redact(name)),
            state: session.state.as_str(),
            repo_url: redactor.redact(&session.repo_url),
            branch: redactor.redact(&session.branch),
            provider: session.provider.clone(),
            opencode_url: session.opencode_url.clone(),
            updated_at: session.updated_at.to_string(),
            owner_principal_id: session.owner_principal_id.clone(),
            next_step: next.map(|next| redactor.redact(next)),
        }
    }
}

/// The result of `open`.
#[derive(Debug, Serialize)]
pub(crate) struct OpenDocument {
    pub(crate) schema_version: &'static str,
    pub(crate) session_id: String,
    pub(crate) url: String,
    pub(crate) open_url: String,
    pub(crate) browser_opened: bool,
}

/// The result of `open --credentials`.
#[derive(Debug, Serialize)]
pub(crate) struct CredentialsDocument {
    pub(crate) schema_version: &'static str,
    pub(crate) session_id: String,
    pub(crate) url: String,
    pub(crate) username: String,
    pub(crate) password: String,
}

/// A text that was asked for with `--json`.
#[derive(Debug, Serialize)]
pub(crate) struct TextDocument {
    pub(crate) schema_version: &'static str,
    pub(crate) text: String,
}

/// The result of `--version`.
#[derive(Debug, Serialize)]
pub(crate) struct VersionDocument {
    pub(crate) schema_version: &'static str,
    pub(crate) version: &'static str,
}

/// The result of `config`.
#[derive(Debug, Serialize)]
pub(crate) struct ConfigDocument {
    pub(crate) schema_version: &'static str,
    pub(crate) settings: Vec<SettingDocument>,
}

/// One value that is in force.
#[derive(Debug, Serialize)]
pub(crate) struct SettingDocument {
    pub(crate) key: String,
    pub(crate) value: Value,
    pub(crate) origin: &'static str,
    pub(crate) source: Option<String>,
}

/// A value whose texts hold no secret; digests are no free text.
pub(crate) fn redacted(value: &Value, redactor: &Redactor) -> Value {
    match value {
        Value::String(text) => Value::String(redactor.redact(text)),
        Value::Array(items) => items.iter().map(|item| redacted(item, redactor)).collect(),
        Value::Object(fields) => {
            let field = |(key, value): (&String, &Value)| {
                let value = if key == "digest" {
                    value.clone()
                } else {
                    redacted(value, redactor)
                };
                (key.clone(), value)
            };
            Value::Object(fields.iter().map(field).collect())
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
    }
}
