//! The predecessor's file, as quick as it can be decoded and written: what a list does not need is skipped.

use serde::{Deserialize, Serialize};
use std::collections::HashMap;

/// The whole file; `P` is what payloads are decoded into.
#[derive(Debug, Deserialize, Serialize)]
pub struct File<P> {
    /// Always `v1`.
    pub schema_version: String,
    /// By their ids.
    pub sessions: HashMap<String, Session>,
    /// By key.
    #[serde(default)]
    pub idempotency: HashMap<String, Request>,
    /// By session.
    #[serde(default = "HashMap::new")]
    pub durable_objects: HashMap<String, DurableObject<P>>,
}

/// One session.
#[derive(Debug, Deserialize, Serialize)]
#[expect(missing_docs, reason = "the predecessor's own fields")]
pub struct Session {
    pub schema_version: String,
    pub session_id: String,
    pub principal_id: String,
    pub owner_principal_id: String,
    pub repo_url: String,
    pub branch: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_commit_sha: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub opencode_url: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub browser_opened: Option<bool>,
    pub state: String,
    pub state_transitions: Vec<Transition>,
    pub operation_history: Vec<Operation>,
    pub started_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ready_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stopped_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub persisted_at: Option<String>,
    pub updated_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub durable_object_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub persist_attempt: Option<u64>,
    pub history_truncated: bool,
}

/// One transition.
#[derive(Debug, Deserialize, Serialize)]
#[expect(missing_docs, reason = "the predecessor's own fields")]
pub struct Transition {
    pub state: String,
    pub timestamp: String,
    pub actor: String,
    pub reason: String,
    pub operation_id: String,
}

/// One operation.
#[derive(Debug, Deserialize, Serialize)]
#[expect(missing_docs, reason = "the predecessor's own fields")]
pub struct Operation {
    pub operation_id: String,
    pub idempotency_key: String,
    pub action: String,
    pub started_at: String,
    pub completed_at: Option<String>,
    pub terminal_state: Option<String>,
}

/// What a key was used for.
#[derive(Debug, Deserialize, Serialize)]
#[expect(missing_docs, reason = "the predecessor's own fields")]
pub struct Request {
    pub operation_id: String,
    pub session_id: String,
    pub action: String,
    pub request_fingerprint: String,
}

/// A durable object.
#[derive(Debug, Deserialize, Serialize)]
#[expect(missing_docs, reason = "the predecessor's own fields")]
pub struct DurableObject<P> {
    pub durable_object_id: String,
    pub persisted_at: String,
    pub payload: P,
}
