//! The tables that follow from the others, made again.

use crate::find::name_key;
use crate::list::owner_key;
use crate::rows::DERIVED;
use crate::session::is_pending;
use crate::store::{Order, Span, Store};
use crate::tables::{
    BY_OWNER, EVENTS, Key, NAMES, OPEN_OPERATIONS, OPERATIONS, PENDING_DESTROYS, SESSION_EVENTS,
    SESSIONS,
};
use crate::{Event, LedgerError, OperationRecord, SessionRecord};
use serde::de::{DeserializeOwned, IgnoredAny};
use std::ops::ControlFlow;

/// Makes all of them again.
pub(crate) fn rebuild(store: &Store<'_>) -> Result<(), LedgerError> {
    for table in DERIVED {
        store.clear(table)?;
    }
    each(store, SESSIONS, |session| index_session(store, &session))?;
    each(store, OPERATIONS, |operation: OperationRecord| {
        if operation.completed_at.is_some() {
            return Ok(());
        }
        let key = Key::text(operation.session_id.as_str());
        let key = key.and_last(operation.operation_id.as_str());
        store.put(OPEN_OPERATIONS, key.as_bytes(), &())
    })?;
    each(store, EVENTS, |event: Event| {
        let Some(session) = event.session_id.as_ref() else {
            return Ok(());
        };
        // The events of a session that is no longer kept are found by their numbers alone.
        let known = store.get::<IgnoredAny>(SESSIONS, session.as_str().as_bytes())?;
        if known.is_none() {
            return Ok(());
        }
        let key = Key::text(session.as_str()).and_number(event.seq);
        store.put(SESSION_EVENTS, key.as_bytes(), &())
    })
}

/// Puts a session into the indexes.
fn index_session(store: &Store<'_>, session: &SessionRecord) -> Result<(), LedgerError> {
    store.put(BY_OWNER, owner_key(session).as_bytes(), &session.summary())?;
    if let Some(name) = &session.new.name {
        let key = name_key(session, name);
        store.put(NAMES, key.as_bytes(), &session.session_id)?;
    }
    if is_pending(session) {
        let key = session.session_id.as_str().as_bytes();
        store.put(PENDING_DESTROYS, key, &session.session_id)?;
    }
    Ok(())
}

/// Visits all rows of a table.
pub(crate) fn each<T: DeserializeOwned>(
    store: &Store<'_>,
    table: &'static str,
    mut visit: impl FnMut(T) -> Result<(), LedgerError>,
) -> Result<(), LedgerError> {
    store.scan(table, &Span::of(&[]), Order::Forward, |_, json| {
        visit(store.parse(table, json)?)?;
        Ok(ControlFlow::Continue(()))
    })
}
