//! One session of the predecessor's, as the rows of a ledger.

use super::document::{Document, Object, Session};
use super::history::{imported, operations, transitions};
use crate::import::{Ask, Redact};
use crate::snapshot::{IMPORTED, RequestRow};
use crate::{
    Action, ErrorRecord, LeaseRecord, NewSession, OperationId, OperationRecord, OperationState,
    PersistAttempt, SessionId, SessionRecord, State, Timestamp, TransitionRecord,
};
use serde_json::Value;

/// The rows of one session.
#[derive(Debug)]
pub(super) struct Rows {
    pub(super) session: SessionRecord,
    pub(super) operations: Vec<OperationRecord>,
    pub(super) transitions: Vec<TransitionRecord>,
    pub(super) lease: LeaseRecord,
    /// The payload of its durable object.
    pub(super) attempt: Option<PersistAttempt>,
    /// The principals and their client request ids that made it.
    pub(super) requests: Vec<(String, String)>,
    pub(super) request: RequestRow,
}

/// Where a session from before ends. Its sandbox is not here: what was stored stays stored, all else failed.
fn ending(state: State, stored: bool) -> State {
    match state {
        State::Stopped => State::Stopped,
        State::Ready
        | State::Stopping
        | State::Persisting
        | State::StoppedUnpersisted
        | State::PersistFailed
        | State::CloseFailed
            if stored =>
        {
            State::Stopped
        }
        State::Requested
        | State::Provisioning
        | State::RepoSyncing
        | State::Installing
        | State::Ready
        | State::Failing
        | State::Stopping
        | State::Persisting
        | State::StoppedUnpersisted
        | State::PersistFailed
        | State::CloseFailed
        | State::CleanupFailed
        | State::Failed => State::Failed,
    }
}

impl Rows {
    pub(super) fn new(
        document: &Document,
        from: &Session,
        now: Timestamp,
        redact: Redact<'_>,
        ask: Ask<'_>,
    ) -> Self {
        let (repo_url, up) = ask(&from.repo_url, &from.branch);
        let session_id = SessionId::from_recorded(&from.session_id);
        let object = document
            .durable_objects
            .get(&from.session_id)
            .filter(|object| !object.durable_object_id.is_empty());
        let before = State::parse(&from.state).unwrap_or(State::Failed);
        let object_id = object
            .map(|object| object.durable_object_id.clone())
            .or_else(|| from.durable_object_id.clone().filter(|id| !id.is_empty()));
        let after = ending(before, object_id.is_some());
        let requests = requests(document, from);
        let mut operations = operations(from, &session_id, now);
        let first_up = first_up(&operations, &session_id);
        let latest = operations
            .last()
            .map_or_else(|| first_up.clone(), |last| last.operation_id.clone());
        let transitions = transitions(from, before, after, &latest, now, redact);
        let last_error = (after == State::Failed || from.last_error.is_some())
            .then(|| error(from, before, &latest, &up, redact));
        for operation in &mut operations {
            if operation.state == OperationState::Failed {
                operation.error.clone_from(&last_error);
            }
        }
        let attempt = object.map(|object| attempt(object, from, now, redact));
        let session = SessionRecord {
            state: after,
            operation_id: latest.clone(),
            last_transition: last(&transitions, after, &latest, now),
            last_error: last_error.filter(|_| after != State::Stopped),
            persistence_verified: object_id.is_some()
                && is_whole(object, from, object_id.as_deref()),
            persist_generation: attempt.as_ref().map_or(0, |attempt| attempt.generation),
            durable_object_id: object_id,
            updated_at: if before == after {
                updated(from, now)
            } else {
                now
            },
            ..record(from, &session_id, &requests, now, repo_url)
        };
        Self {
            lease: LeaseRecord {
                operation_id: latest,
                fence: 1,
                holder: None,
                expires_at: now,
                expires_boot_ms: 0,
            },
            request: RequestRow {
                session_id,
                operation_id: first_up,
                fingerprint: IMPORTED.to_owned(),
            },
            session,
            operations,
            transitions,
            attempt,
            requests,
        }
    }
}

/// The operation that brought the session up.
fn first_up(operations: &[OperationRecord], session: &SessionId) -> OperationId {
    operations
        .iter()
        .find(|operation| operation.action == Action::Up)
        .or(operations.first())
        .map_or_else(
            || OperationId::derive(session, "up", 0),
            |operation| operation.operation_id.clone(),
        )
}

pub(super) fn updated(from: &Session, now: Timestamp) -> Timestamp {
    from.updated_at.0.or(from.started_at.0).unwrap_or(now)
}

fn last(
    transitions: &[TransitionRecord],
    state: State,
    operation: &OperationId,
    at: Timestamp,
) -> TransitionRecord {
    transitions
        .last()
        .cloned()
        .unwrap_or_else(|| imported(state, operation, "", at))
}

/// A session's record as far as nothing is decided.
fn record(
    from: &Session,
    id: &SessionId,
    requests: &[(String, String)],
    now: Timestamp,
    repo_url: String,
) -> SessionRecord {
    let operation = OperationId::derive(id, "up", 0);
    SessionRecord {
        session_id: id.clone(),
        new: NewSession {
            owner: from.owner().to_owned(),
            client_request_id: requests
                .iter()
                .find(|(who, _)| who == from.owner())
                .map(|(_, id)| id.clone())
                .unwrap_or_default(),
            repo_url,
            branch: from.branch.clone(),
            public: false,
            provider: "local".to_owned(),
            agent: "opencode".to_owned(),
            name: None,
            request: Value::Null,
        },
        state: State::Failed,
        version: 1,
        // Nothing was ever made under this id.
        sandbox_id: format!("imported-{}", id.as_str()),
        provider_version: None,
        provider_identity: None,
        target_commit_sha: from.target_commit_sha.clone().filter(|sha| !sha.is_empty()),
        workspace_path: None,
        isolation: None,
        opencode_url: None,
        browser_opened: from.browser_opened,
        warnings: Vec::new(),
        started_at: from.started_at.0.unwrap_or_else(|| updated(from, now)),
        ready_at: from.ready_at.0,
        stopped_at: from.stopped_at.0,
        persisted_at: from.persisted_at.0,
        updated_at: now,
        operation_id: operation.clone(),
        last_transition: imported(State::Failed, &operation, "", now),
        last_error: None,
        durable_object_id: None,
        persist_generation: 0,
        persistence_verified: false,
        history_truncated: from.history_truncated,
        workspace_snapshot: None,
        destroy_pending: false,
        agent_started: false,
        unknown: serde_json::Map::new(),
    }
}

/// The requests of a session: who asked, and their client request ids. An owner who has none gets one that nobody
/// asks for.
fn requests(document: &Document, from: &Session) -> Vec<(String, String)> {
    let known = [from.owner(), &from.principal_id];
    let parts = |key: &str| {
        let key = key.strip_prefix("up:")?;
        // A principal may have colons of its own.
        let whole = known.iter().find_map(|who| {
            let id = key.strip_prefix(who)?.strip_prefix(':')?;
            Some((*who, id))
        });
        let (who, id) = whole.or_else(|| key.split_once(':'))?;
        Some((who.to_owned(), id.to_owned()))
    };
    let mut found: Vec<(String, String)> = document
        .idempotency
        .iter()
        .filter(|(_, request)| request.session_id == from.session_id)
        .filter_map(|(key, _)| parts(key))
        .collect();
    if !found.iter().any(|(who, _)| who == from.owner()) {
        let id = format!("imported:{}", from.session_id);
        found.push((from.owner().to_owned(), id));
    }
    found
}

/// What a repeat of the request answers: what was recorded, else that it came without its sandbox.
fn error(
    from: &Session,
    before: State,
    operation: &OperationId,
    up: &str,
    redact: Redact<'_>,
) -> ErrorRecord {
    match from
        .last_error
        .as_ref()
        .filter(|known| !known.error_code.is_empty())
    {
        Some(known) => ErrorRecord {
            error_code: known.error_code.clone(),
            cause: redact(&known.cause),
            next_step: redact(&known.next_step),
            retryable: known.retryable,
            operation_id: Some(match known.operation_id.as_str() {
                "" => operation.clone(),
                recorded => OperationId::from_recorded(recorded),
            }),
            // The predecessor recorded none: it follows from the code.
            exit_code: 0,
        },
        None => ErrorRecord {
            error_code: "ERR_INTERRUPTED".to_owned(),
            cause: format!("it was imported as `{before}`, without a sandbox"),
            next_step: up.to_owned(),
            retryable: false,
            operation_id: Some(operation.clone()),
            exit_code: 1,
        },
    }
}

/// The payload of the durable object, which the predecessor kept in its file.
fn attempt(object: &Object, from: &Session, now: Timestamp, redact: Redact<'_>) -> PersistAttempt {
    let payload = match &object.payload {
        Value::String(text) => text.clone(),
        other @ (Value::Null
        | Value::Bool(_)
        | Value::Number(_)
        | Value::Array(_)
        | Value::Object(_)) => other.to_string(),
    };
    let persisted_at = object.persisted_at.0.or(from.persisted_at.0).unwrap_or(now);
    PersistAttempt {
        generation: from.persist_attempt.as_u64().unwrap_or(1).max(1),
        persisted_at,
        payload: redact(&payload),
        staged: None,
    }
}

/// Whether the file has the durable object's payload, and it is this session's.
fn is_whole(object: Option<&Object>, from: &Session, id: Option<&str>) -> bool {
    let Some(object) = object.filter(|object| Some(object.durable_object_id.as_str()) == id) else {
        return false;
    };
    let payload = match &object.payload {
        Value::String(text) => serde_json::from_str(text).unwrap_or_default(),
        other @ (Value::Null
        | Value::Bool(_)
        | Value::Number(_)
        | Value::Array(_)
        | Value::Object(_)) => other.clone(),
    };
    payload["session_id"].as_str() == Some(&from.session_id)
}
