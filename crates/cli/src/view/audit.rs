//! The document of `audit`.

use super::VERSION;
use alpine_ledger::AuditRecord;
use alpine_provider_api::Redactor;
use serde::Serialize;

/// The result of `audit`.
#[derive(Debug, Serialize)]
pub(crate) struct AuditDocument {
    schema_version: &'static str,
    records: Vec<AuditedDocument>,
    truncated: bool,
}

/// One act of an admin.
#[derive(Debug, Serialize)]
struct AuditedDocument {
    actor: String,
    session_id: String,
    action: String,
    reason: String,
    at: String,
}

impl AuditDocument {
    pub(crate) fn new(records: &[AuditRecord], truncated: bool, redactor: &Redactor) -> Self {
        let one = |record: &AuditRecord| AuditedDocument {
            actor: record.actor.clone(),
            session_id: record.session_id.to_string(),
            action: record.action.clone(),
            reason: redactor.redact(&record.reason),
            at: record.at.to_string(),
        };
        Self {
            schema_version: VERSION,
            records: records.iter().map(one).collect(),
            truncated,
        }
    }

    /// The same for people.
    pub(crate) fn rows(&self) -> Vec<Vec<String>> {
        let row = |record: &AuditedDocument| {
            vec![
                record.at.clone(),
                record.actor.clone(),
                record.action.clone(),
                record.session_id.clone(),
                record.reason.clone(),
            ]
        };
        self.records.iter().map(row).collect()
    }
}
