//! How a session's record changes: what only the ledger sets, and the indexes that follow.

use crate::find::name_key;
use crate::list::owner_key;
use crate::tables::{BY_OWNER, NAMES, PENDING_DESTROYS, SESSIONS};
use crate::{LedgerError, OperationId, SessionRecord, TransitionRecord, Tx};

/// What the ledger itself changes in a session.
#[derive(Debug)]
pub(crate) enum Changed {
    /// Nothing but what the caller asks for.
    Fields,
    /// Its state.
    Transition(TransitionRecord),
    /// Its latest operation.
    Operation(OperationId),
}

impl Tx<'_> {
    /// Changes a stored session, first by the ledger's own change, then by the caller's.
    pub(crate) fn apply(
        &mut self,
        before: SessionRecord,
        own: Changed,
        change: impl FnOnce(&mut SessionRecord),
    ) -> Result<SessionRecord, LedgerError> {
        let mut base = before.clone();
        base.version += 1;
        base.updated_at = self.now();
        match own {
            Changed::Fields => {}
            Changed::Transition(transition) => {
                base.state = transition.state;
                base.last_transition = transition;
            }
            Changed::Operation(id) => base.operation_id = id,
        }
        let mut after = base.clone();
        change(&mut after);
        if let Some(field) = touched(&base, &after) {
            return Err(LedgerError::Protected {
                id: before.session_id,
                field,
            });
        }
        self.put_session(Some(&before), &after)?;
        Ok(after)
    }

    /// Writes a session and moves it in the indexes.
    pub(crate) fn put_session(
        &mut self,
        before: Option<&SessionRecord>,
        after: &SessionRecord,
    ) -> Result<(), LedgerError> {
        let store = &self.store;
        let id = after.session_id.as_str().as_bytes();
        if let Some(before) = before {
            store.remove(BY_OWNER, owner_key(before).as_bytes())?;
            if let Some(name) = &before.new.name {
                store.remove(NAMES, name_key(before, name).as_bytes())?;
            }
        }
        store.put_record(SESSIONS, id, after)?;
        store.put(BY_OWNER, owner_key(after).as_bytes(), &after.summary())?;
        if let Some(name) = &after.new.name {
            store.put(NAMES, name_key(after, name).as_bytes(), &after.session_id)?;
        }
        let was_pending = before.is_some_and(is_pending);
        match (was_pending, is_pending(after)) {
            (false, true) => store.put(PENDING_DESTROYS, id, &after.session_id),
            (true, false) => store.remove(PENDING_DESTROYS, id),
            (true, true) | (false, false) => Ok(()),
        }
    }
}

/// Whether its sandbox is still to be destroyed.
pub(crate) fn is_pending(session: &SessionRecord) -> bool {
    session.destroy_pending && session.state.is_terminal()
}

/// The first field that a caller's change touched though only the ledger sets it.
fn touched(base: &SessionRecord, after: &SessionRecord) -> Option<&'static str> {
    let fields = [
        ("session_id", base.session_id != after.session_id),
        ("asked", base.new != after.new),
        ("state", base.state != after.state),
        ("version", base.version != after.version),
        ("sandbox_id", base.sandbox_id != after.sandbox_id),
        ("started_at", base.started_at != after.started_at),
        ("updated_at", base.updated_at != after.updated_at),
        ("operation_id", base.operation_id != after.operation_id),
        (
            "last_transition",
            base.last_transition != after.last_transition,
        ),
    ];
    fields
        .into_iter()
        .find_map(|(field, touched)| touched.then_some(field))
}
