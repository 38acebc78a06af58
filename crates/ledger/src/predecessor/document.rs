//! The document, read leniently: fields that are empty may be absent, or `null`.

use super::session::Rows;
use crate::import::{Ask, Redact};
use crate::store::Store;
use crate::tables::{
    ATTEMPTS, EVENTS, Key, LEASES, OPERATIONS, REQUESTS, SESSION_OPERATIONS, SESSIONS, TRANSITIONS,
};
use crate::{Event, LedgerError, State, Timestamp};
use serde::de::{Deserializer, Error};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// The whole file.
#[derive(Debug, Deserialize)]
pub(crate) struct Document {
    schema_version: String,
    #[serde(default, deserialize_with = "or_default")]
    sessions: BTreeMap<String, Session>,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) idempotency: BTreeMap<String, Request>,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) durable_objects: BTreeMap<String, Object>,
}

/// One session.
#[derive(Debug, Deserialize)]
#[serde(default)]
#[derive(Default)]
pub(super) struct Session {
    #[serde(deserialize_with = "or_default")]
    pub(super) session_id: String,
    #[serde(deserialize_with = "or_default")]
    pub(super) principal_id: String,
    #[serde(deserialize_with = "or_default")]
    pub(super) owner_principal_id: String,
    #[serde(deserialize_with = "or_default")]
    pub(super) repo_url: String,
    #[serde(deserialize_with = "or_default")]
    pub(super) branch: String,
    pub(super) target_commit_sha: Option<String>,
    pub(super) browser_opened: Option<bool>,
    #[serde(deserialize_with = "or_default")]
    pub(super) state: String,
    #[serde(deserialize_with = "or_default")]
    pub(super) state_transitions: Vec<Transition>,
    #[serde(deserialize_with = "or_default")]
    pub(super) operation_history: Vec<Operation>,
    pub(super) last_error: Option<Failure>,
    pub(super) started_at: Time,
    pub(super) ready_at: Time,
    pub(super) stopped_at: Time,
    pub(super) persisted_at: Time,
    pub(super) updated_at: Time,
    pub(super) durable_object_id: Option<String>,
    pub(super) persist_attempt: Value,
    #[serde(deserialize_with = "or_default")]
    pub(super) history_truncated: bool,
}

/// One transition.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Transition {
    #[serde(deserialize_with = "or_default")]
    pub(super) state: String,
    pub(super) timestamp: Time,
    #[serde(deserialize_with = "or_default")]
    pub(super) actor: String,
    #[serde(deserialize_with = "or_default")]
    pub(super) reason: String,
    #[serde(deserialize_with = "or_default")]
    pub(super) operation_id: String,
}

/// One operation.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Operation {
    #[serde(deserialize_with = "or_default")]
    pub(super) operation_id: String,
    #[serde(deserialize_with = "or_default")]
    pub(super) action: String,
    pub(super) started_at: Time,
    pub(super) completed_at: Time,
    #[serde(deserialize_with = "or_default")]
    pub(super) terminal_state: String,
}

/// A failure.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Failure {
    #[serde(deserialize_with = "or_default")]
    pub(super) error_code: String,
    #[serde(deserialize_with = "or_default")]
    pub(super) cause: String,
    #[serde(deserialize_with = "or_default")]
    pub(super) next_step: String,
    #[serde(deserialize_with = "or_default")]
    pub(super) retryable: bool,
    #[serde(deserialize_with = "or_default")]
    pub(super) operation_id: String,
}

/// What a key was used for.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Request {
    #[serde(deserialize_with = "or_default")]
    pub(super) operation_id: String,
    #[serde(deserialize_with = "or_default")]
    pub(super) session_id: String,
}

/// A durable object.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Object {
    #[serde(deserialize_with = "or_default")]
    pub(super) durable_object_id: String,
    pub(super) persisted_at: Time,
    pub(super) payload: Value,
}

/// A time, if there is one: RFC 3339.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Time(pub(super) Option<Timestamp>);

/// A field that is empty may say so.
fn or_default<'de, T: Default + Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?.unwrap_or_default();
        if text.is_empty() {
            return Ok(Self(None));
        }
        let time: jiff::Timestamp = text
            .parse()
            .map_err(|_| D::Error::custom(format!("`{text}` is not a time")))?;
        // A time before the epoch is how the predecessor wrote that there was none.
        Ok(Self(
            u64::try_from(time.as_millisecond()).ok().map(Timestamp),
        ))
    }
}

impl Document {
    /// Reads the file, or says what is wrong with it.
    pub(crate) fn parse(text: &[u8]) -> Result<Self, String> {
        let document: Self = serde_json::from_slice(text).map_err(|error| {
            format!("it is no export, no backup and not the predecessor's `sessions.json`: {error}")
        })?;
        if document.schema_version != "v1" {
            let version = &document.schema_version;
            return Err(format!("its `schema_version` is `{version}`, not `v1`"));
        }
        let mut operations = BTreeMap::new();
        for (id, session) in &document.sessions {
            let wrong = |what: &str| format!("session `{id}`: {what}");
            if *id != session.session_id {
                return Err(wrong("its `session_id` is another"));
            }
            if !is_id(id, "ses_") {
                return Err(wrong("its id is malformed"));
            }
            if session.owner().is_empty() {
                return Err(wrong("it has no owner"));
            }
            let entered = session
                .state_transitions
                .iter()
                .map(|transition| &transition.state);
            for state in entered.chain([&session.state]) {
                if State::parse(state).is_none() {
                    return Err(wrong(&format!("`{state}` is not a state")));
                }
            }
            for operation in &session.operation_history {
                let known = operations.insert(&operation.operation_id, id);
                if !is_id(&operation.operation_id, "op_") || known.is_some_and(|other| other != id)
                {
                    let operation = &operation.operation_id;
                    return Err(wrong(&format!(
                        "the id of operation `{operation}` is malformed or another session's"
                    )));
                }
            }
        }
        Ok(document)
    }

    /// How many requests and durable objects are of no session in the file, or can't be told whose they are.
    pub(crate) fn left_out(&self) -> u64 {
        let has = |session: &String| self.sessions.contains_key(session);
        // A `down` is answered from its session, whatever its key was.
        let is_whole = |key: &str| {
            key.starts_with("down:") || key.strip_prefix("up:").is_some_and(|key| key.contains(':'))
        };
        let requests = self.idempotency.iter();
        let requests = requests.filter(|(key, of)| !has(&of.session_id) || !is_whole(key));
        let objects = self.durable_objects.iter();
        let objects =
            objects.filter(|(of, object)| !has(of) || object.durable_object_id.is_empty());
        (requests.count() + objects.count()) as u64
    }

    /// Writes all of it as rows. How many sessions there are.
    pub(crate) fn write(
        &self,
        store: &Store<'_>,
        redact: Redact<'_>,
        ask: Ask<'_>,
    ) -> Result<u64, LedgerError> {
        let now = store.site.options.clock.now();
        let mut names = BTreeSet::new();
        let mut seq = 0;
        for (id, session) in &self.sessions {
            let rows = Rows::new(self, session, now, redact, ask);
            put_all(store, &rows)?;
            for (who, id) in &rows.requests {
                let key = Key::text(who).and_last(id);
                if names.insert(key.as_bytes().to_vec()) {
                    store.put(REQUESTS, key.as_bytes(), &rows.request)?;
                }
            }
            seq += 1;
            let event = Event {
                seq,
                at: now,
                kind: "imported".to_owned(),
                session_id: Some(rows.session.session_id.clone()),
                operation_id: Some(rows.session.operation_id.clone()),
                state: Some(rows.session.state),
                actor: Some(rows.session.new.owner.clone()),
                reason: Some(format!("it was `{}`", session.state)),
                duration_ms: None,
            };
            debug_assert_eq!(id, rows.session.session_id.as_str());
            store.put(EVENTS, Key::number(seq).as_bytes(), &event)?;
        }
        Ok(seq)
    }
}

fn put_all(store: &Store<'_>, rows: &Rows) -> Result<(), LedgerError> {
    let id = rows.session.session_id.as_str();
    store.put(SESSIONS, id.as_bytes(), &rows.session)?;
    store.put(LEASES, id.as_bytes(), &rows.lease)?;
    let ids: Vec<_> = rows
        .operations
        .iter()
        .map(|operation| &operation.operation_id)
        .collect();
    list(store, SESSION_OPERATIONS, id, 0, &ids)?;
    list(store, TRANSITIONS, id, 0, &rows.transitions)?;
    list(
        store,
        ATTEMPTS,
        id,
        rows.session.persist_generation,
        rows.attempt.as_slice(),
    )?;
    for operation in &rows.operations {
        store.put(
            OPERATIONS,
            operation.operation_id.as_str().as_bytes(),
            operation,
        )?;
    }
    Ok(())
}

/// Writes rows of a session, numbered from `first`.
fn list<T: Serialize>(
    store: &Store<'_>,
    table: &'static str,
    session: &str,
    first: u64,
    rows: &[T],
) -> Result<(), LedgerError> {
    for (number, row) in (first..).zip(rows) {
        let key = Key::text(session).and_number(number);
        store.put(table, key.as_bytes(), row)?;
    }
    Ok(())
}

impl Session {
    pub(super) fn owner(&self) -> &str {
        if self.owner_principal_id.is_empty() {
            &self.principal_id
        } else {
            &self.owner_principal_id
        }
    }
}

fn is_id(id: &str, prefix: &str) -> bool {
    id.strip_prefix(prefix).is_some_and(|rest| {
        (1..=64).contains(&rest.len()) && rest.bytes().all(|byte| byte.is_ascii_alphanumeric())
    })
}
