//! Rows that were lost are made up for, so that the ones that are left agree with each other.

use crate::index::each;
use crate::snapshot::{IMPORTED, RequestRow};
use crate::store::{Order, Span, Store};
use crate::tables::{
    ATTEMPTS, AUDIT, EVENTS, Key, LEASES, META, OPERATIONS, RECEIPTS, REQUESTS, SCHEMA,
    SESSION_OPERATIONS, SESSIONS, TRANSITIONS, split_text,
};
use crate::{
    Action, ErrorRecord, Event, LeaseRecord, LedgerError, OperationId, OperationRecord,
    OperationState, SessionRecord, TransitionRecord,
};
use crate::{fence, identity};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

/// Makes the tables that are kept agree.
pub(super) fn mend(store: &Store<'_>) -> Result<(), LedgerError> {
    facts(store)?;
    let sessions = sessions(store)?;
    let known: BTreeSet<&str> = sessions
        .iter()
        .map(|session| session.session_id.as_str())
        .collect();
    drop_strays(store, &known)?;
    let mut operations: BTreeMap<String, Vec<OperationRecord>> = BTreeMap::new();
    each(store, OPERATIONS, |operation: OperationRecord| {
        let session = operation.session_id.to_string();
        operations.entry(session).or_default().push(operation);
        Ok(())
    })?;
    let mut requests = BTreeMap::new();
    scan(store, REQUESTS, |key, json| {
        let row: RequestRow = store.parse(REQUESTS, json)?;
        requests.insert(key.to_vec(), row);
        Ok(())
    })?;
    for session in &sessions {
        let own = operations
            .remove(session.session_id.as_str())
            .unwrap_or_default();
        let of_requests = requests
            .values()
            .filter(|row| row.session_id == session.session_id)
            .map(|row| row.operation_id.clone());
        mend_session(store, session, own, of_requests.collect())?;
    }
    audit(store)?;
    events(store)
}

fn scan(
    store: &Store<'_>,
    table: &'static str,
    mut visit: impl FnMut(&[u8], &[u8]) -> Result<(), LedgerError>,
) -> Result<(), LedgerError> {
    store.scan(table, &Span::of(&[]), Order::Forward, |key, json| {
        visit(key, json)?;
        Ok(ControlFlow::Continue(()))
    })
}

/// The ledger's id can't be made up, since its sandboxes bear it; but it is kept beside the file.
fn facts(store: &Store<'_>) -> Result<(), LedgerError> {
    if store.get::<String>(META, b"id")?.is_none() {
        let lost = || {
            store
                .site
                .corrupt("its id is lost, which nothing can replace")
        };
        let kept = identity::kept(store.site).ok().flatten();
        store.put(META, b"id", &kept.ok_or_else(lost)?)?;
    }
    if store.get::<u64>(META, b"schema")?.is_none() {
        store.put(META, b"schema", &SCHEMA)?;
    }
    if store.get::<IgnoredAny>(META, b"created_at")?.is_none() {
        store.put(META, b"created_at", &store.site.options.clock.now())?;
    }
    Ok(())
}

fn sessions(store: &Store<'_>) -> Result<Vec<SessionRecord>, LedgerError> {
    let mut sessions = Vec::new();
    each(store, SESSIONS, |session: SessionRecord| {
        sessions.push(session);
        Ok(())
    })?;
    Ok(sessions)
}

/// Removes what belongs to sessions that are lost.
fn drop_strays(store: &Store<'_>, known: &BTreeSet<&str>) -> Result<(), LedgerError> {
    for table in [
        OPERATIONS,
        REQUESTS,
        LEASES,
        SESSION_OPERATIONS,
        TRANSITIONS,
        ATTEMPTS,
        RECEIPTS,
    ] {
        let mut strays = Vec::new();
        scan(store, table, |key, json| {
            let session = match table {
                OPERATIONS => store
                    .parse::<OperationRecord>(table, json)?
                    .session_id
                    .to_string(),
                REQUESTS => store
                    .parse::<RequestRow>(table, json)?
                    .session_id
                    .to_string(),
                LEASES => String::from_utf8_lossy(key).into_owned(),
                _ => split_text(key)
                    .map(|(session, _)| session.to_owned())
                    .unwrap_or_default(),
            };
            if !known.contains(session.as_str()) {
                strays.push(key.to_vec());
            }
            Ok(())
        })?;
        for key in strays {
            store.remove(table, &key)?;
        }
    }
    Ok(())
}

fn mend_session(
    store: &Store<'_>,
    session: &SessionRecord,
    mut operations: Vec<OperationRecord>,
    mut needed: Vec<OperationId>,
) -> Result<(), LedgerError> {
    let id = session.session_id.as_str();
    needed.push(session.operation_id.clone());
    for needed in needed {
        if !operations.iter().any(|known| known.operation_id == needed) {
            let made = lost_operation(session, needed);
            store.put(OPERATIONS, made.operation_id.as_str().as_bytes(), &made)?;
            operations.push(made);
        }
    }
    let listed: Vec<OperationId> = store.all(SESSION_OPERATIONS, Key::text(id).as_bytes())?;
    let place = |id: &OperationId| listed.iter().position(|listed| listed == id);
    operations.sort_by_key(|operation| {
        let place = place(&operation.operation_id).unwrap_or(listed.len());
        (place, operation.started_at, operation.n)
    });
    let ids: Vec<&OperationId> = operations.iter().map(|known| &known.operation_id).collect();
    relist(store, SESSION_OPERATIONS, id, &ids)?;
    // As they are, with what only a newer version knows of them.
    let mut transitions: Vec<Value> = store.all(TRANSITIONS, Key::text(id).as_bytes())?;
    let last = transitions.last().map(TransitionRecord::deserialize);
    if !last.is_some_and(|last| last.is_ok_and(|last| last == session.last_transition)) {
        transitions.push(json!(session.last_transition));
    }
    relist(store, TRANSITIONS, id, &transitions)?;
    if store.get::<IgnoredAny>(LEASES, id.as_bytes())?.is_none() {
        let lease = LeaseRecord {
            operation_id: session.operation_id.clone(),
            fence: fence::above(store.site, 0),
            holder: None,
            expires_at: session.updated_at,
            expires_boot_ms: 0,
        };
        store.put(LEASES, id.as_bytes(), &lease)?;
    }
    let key = Key::text(&session.new.owner).and_last(&session.new.client_request_id);
    if store.get::<IgnoredAny>(REQUESTS, key.as_bytes())?.is_none() {
        let up = operations
            .iter()
            .find(|operation| operation.action == Action::Up)
            .map_or(&session.operation_id, |operation| &operation.operation_id);
        // Its fingerprint is lost: the repository and the branch have to do.
        let row = RequestRow {
            session_id: session.session_id.clone(),
            operation_id: up.clone(),
            fingerprint: IMPORTED.to_owned(),
        };
        store.put(REQUESTS, key.as_bytes(), &row)?;
    }
    Ok(())
}

/// How many operations of an action are tried to find out which one an id belongs to.
const GUESSES: u64 = 1_000;

/// An operation whose record is lost, as one that has failed.
fn lost_operation(session: &SessionRecord, id: OperationId) -> OperationRecord {
    let (action, n) = [Action::Up, Action::Down, Action::Reconcile]
        .into_iter()
        .flat_map(|action| (0..GUESSES).map(move |n| (action, n)))
        .find(|(action, n)| OperationId::derive(&session.session_id, action.as_str(), *n) == id)
        .unwrap_or((Action::Up, 0));
    let error = ErrorRecord {
        error_code: "ERR_LEDGER_CORRUPT".to_owned(),
        cause: "the record of this operation was lost when the ledger was damaged".to_owned(),
        next_step: format!("alpine status {}", session.session_id),
        retryable: false,
        operation_id: Some(id.clone()),
        exit_code: 2,
    };
    OperationRecord {
        operation_id: id,
        session_id: session.session_id.clone(),
        action,
        n,
        state: OperationState::Failed,
        actor: session.new.owner.clone(),
        started_at: session.started_at,
        completed_at: Some(session.updated_at),
        takeovers: 0,
        steps: Vec::new(),
        terminal_state: Some(session.state),
        error: Some(error),
        result: None,
        cancel_requested: false,
        unknown: serde_json::Map::new(),
    }
}

/// Writes a session's list anew, without gaps.
fn relist<T: Serialize>(
    store: &Store<'_>,
    table: &'static str,
    session: &str,
    rows: &[T],
) -> Result<(), LedgerError> {
    let prefix = Key::text(session);
    let mut old = Vec::new();
    store.scan(
        table,
        &Span::of(prefix.as_bytes()),
        Order::Forward,
        |key, _| {
            old.push(key.to_vec());
            Ok(ControlFlow::Continue(()))
        },
    )?;
    for key in old {
        store.remove(table, &key)?;
    }
    for (number, row) in (0..).zip(rows) {
        store.put(table, prefix.clone().and_number(number).as_bytes(), row)?;
    }
    Ok(())
}

/// Numbers the audit records anew, without gaps.
fn audit(store: &Store<'_>) -> Result<(), LedgerError> {
    // As they are, with what only a newer version knows of them.
    let records: Vec<Value> = store.all(AUDIT, &[])?;
    store.clear(AUDIT)?;
    for (number, record) in (1..).zip(&records) {
        store.put(AUDIT, Key::number(number).as_bytes(), record)?;
    }
    Ok(())
}

/// Puts an event in the place of each that is lost: cursors go by their numbers. Those before the first that is
/// left count as trimmed.
fn events(store: &Store<'_>) -> Result<(), LedgerError> {
    let mut known: Vec<Event> = Vec::new();
    each(store, EVENTS, |event: Event| {
        known.push(event);
        Ok(())
    })?;
    let Some(first) = known.first() else {
        return Ok(());
    };
    let (mut expected, mut at) = (first.seq, first.at);
    if expected > 1 {
        store.put(META, b"trimmed", &(expected - 1))?;
    }
    for event in &known {
        for seq in expected..event.seq {
            let lost = Event {
                seq,
                at,
                kind: "lost".to_owned(),
                session_id: None,
                operation_id: None,
                state: None,
                actor: None,
                reason: Some("the ledger was damaged".to_owned()),
                duration_ms: None,
            };
            store.put(EVENTS, Key::number(seq).as_bytes(), &lost)?;
        }
        expected = event.seq + 1;
        at = event.at;
    }
    Ok(())
}
