//! What is kept, and for how long. Nothing goes that anybody may still need: no open operation, no session whose
//! durable object is not verified, no pending destroy; a request id goes with its session, never before.

use crate::find::name_key;
use crate::list::{FINISHED, owner_key};
use crate::snapshot::{IMPORTED, RequestRow};
use crate::store::{Order, Span};
use crate::tables::{
    ATTEMPTS, BY_OWNER, EVENTS, Key, LEASES, META, NAMES, OPERATIONS, RECEIPTS, REQUESTS,
    SESSION_EVENTS, SESSION_OPERATIONS, SESSIONS, TRANSITIONS, last_number,
};
use crate::{
    Event, Ledger, LedgerError, Liveness, SessionRecord, SessionSummary, Snapshot, State, Tx,
};
use std::ops::ControlFlow;
use std::time::Duration;

/// A day.
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// What is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// How long ended sessions are; 90 days.
    pub sessions: Duration,
    /// How many events are; 100 000.
    pub events: u64,
    /// How long events are; 30 days.
    pub event_age: Duration,
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            sessions: DAY * 90,
            events: 100_000,
            event_age: DAY * 30,
        }
    }
}

/// What was let go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retained {
    /// How many sessions.
    pub sessions: u64,
    /// How many events.
    pub events: u64,
    /// Whether there is more to let go.
    pub more: bool,
}

impl Ledger {
    /// Lets go of what is kept no longer: `batch` sessions and `batch` events at most, in one transaction, and
    /// in none where there is nothing.
    ///
    /// # Errors
    /// When the ledger can't be read or written.
    pub fn retain(&self, keep: &Retention, batch: usize) -> Result<Retained, LedgerError> {
        let due = |snapshot: &Snapshot<'_>| {
            Ok((
                snapshot.sessions_due(keep, 1)?.is_empty(),
                snapshot.events_due(keep)?.is_empty(),
            ))
        };
        if self.read(due)? == (true, true) {
            return Ok(Retained::default());
        }
        self.write(|tx| {
            let sessions = tx.sessions_due(keep, batch.saturating_add(1))?;
            for session in sessions.iter().take(batch) {
                tx.forget(session)?;
            }
            let events = tx.events_due(keep)?;
            let count = events.end - events.start;
            let trimmed = count.min(batch as u64);
            tx.trim(events.start, trimmed)?;
            Ok(Retained {
                sessions: sessions.len().min(batch) as u64,
                events: trimmed,
                more: sessions.len() > batch || count > trimmed,
            })
        })
    }
}

impl Snapshot<'_> {
    /// The first sessions, oldest first of each owner, that are kept no longer.
    fn sessions_due(
        &self,
        keep: &Retention,
        limit: usize,
    ) -> Result<Vec<SessionRecord>, LedgerError> {
        let now = self.store.site.options.clock.now();
        // What an import brought along counts from then, however old it is.
        let imported = self.imported_at()?;
        let mut due = Vec::new();
        for owner in self.owners()? {
            let prefix = Key::text(&owner).and_byte(FINISHED);
            let mut old = Vec::new();
            let span = Span::of(prefix.as_bytes());
            self.store
                .scan(BY_OWNER, &span, Order::Backward, |_, json| {
                    let listed: SessionSummary = self.store.parse(BY_OWNER, json)?;
                    if now.since(listed.updated_at.max(imported)) <= keep.sessions {
                        return Ok(ControlFlow::Break(()));
                    }
                    let session = self.known_session(&listed.session_id)?;
                    if self.may_go(&session)? {
                        old.push(session);
                    }
                    Ok(if due.len() + old.len() < limit {
                        ControlFlow::Continue(())
                    } else {
                        ControlFlow::Break(())
                    })
                })?;
            due.append(&mut old);
            if due.len() >= limit {
                break;
            }
        }
        Ok(due)
    }

    /// Whether nobody may still need an ended session.
    fn may_go(&self, session: &SessionRecord) -> Result<bool, LedgerError> {
        // Without an object there was nothing to store, or, where the session has failed, it was given up.
        let needs_no_object = session.durable_object_id.is_none()
            && (session.state == State::Failed || session.persist_generation == 0);
        let is_safe = session.state.is_terminal()
            && !session.destroy_pending
            && (session.persistence_verified || needs_no_object);
        if !is_safe || !self.open_operations_of(&session.session_id)?.is_empty() {
            return Ok(false);
        }
        let lease = self.lease(&session.session_id)?;
        Ok(lease.is_none_or(|lease| self.holder_is_live(&lease) != Liveness::Live))
    }

    /// The numbers of the events that are kept no longer. The last one always is: the next number follows from it.
    fn events_due(&self, keep: &Retention) -> Result<std::ops::Range<u64>, LedgerError> {
        let now = self.store.site.options.clock.now();
        let last = self.store.last_key(EVENTS, &[])?;
        let Some(last) = last.as_deref().and_then(last_number) else {
            return Ok(0..0);
        };
        let Some(first) = self.events_after(0, 1)?.first().map(|event| event.seq) else {
            return Ok(0..0);
        };
        let is_old = |seq: u64| -> Result<bool, LedgerError> {
            let event: Option<Event> = self.store.get(EVENTS, Key::number(seq).as_bytes())?;
            Ok(event.is_some_and(|event| now.since(event.at) > keep.event_age))
        };
        // Times grow with the numbers, as far as the clock does; the first that is young enough is searched for.
        let mut end = (last + 1).saturating_sub(keep.events.max(1)).max(first);
        let mut beyond = last;
        while end < beyond {
            let middle = end + (beyond - end) / 2;
            if is_old(middle)? {
                end = middle + 1;
            } else {
                beyond = middle;
            }
        }
        Ok(first..end)
    }
}

impl Tx<'_> {
    /// Removes events from the first one on.
    fn trim(&mut self, first: u64, count: u64) -> Result<(), LedgerError> {
        if count == 0 {
            return Ok(());
        }
        let end = first + count;
        for seq in first..end {
            let key = Key::number(seq);
            let event: Option<Event> = self.store.get(EVENTS, key.as_bytes())?;
            if let Some(session) = event.and_then(|event| event.session_id) {
                let key = Key::text(session.as_str()).and_number(seq);
                self.store.remove(SESSION_EVENTS, key.as_bytes())?;
            }
            self.store.remove(EVENTS, key.as_bytes())?;
        }
        self.store.put(META, b"trimmed", &(end - 1))
    }

    /// Removes all rows of a session.
    fn forget(&mut self, session: &SessionRecord) -> Result<(), LedgerError> {
        let id = session.session_id.as_str();
        for operation in self.operations(&session.session_id)? {
            let key = operation.operation_id.as_str().as_bytes();
            self.store.remove(OPERATIONS, key)?;
        }
        let prefix = Key::text(id);
        for table in [
            SESSION_OPERATIONS,
            TRANSITIONS,
            SESSION_EVENTS,
            ATTEMPTS,
            RECEIPTS,
        ] {
            self.remove_all(table, &self.keys(table, prefix.as_bytes())?)?;
        }
        self.remove_all(REQUESTS, &self.requests_of(session)?)?;
        if let Some(name) = &session.new.name {
            self.store
                .remove(NAMES, name_key(session, name).as_bytes())?;
        }
        self.store.remove(BY_OWNER, owner_key(session).as_bytes())?;
        self.store.remove(LEASES, id.as_bytes())?;
        self.store.remove(SESSIONS, id.as_bytes())
    }

    fn remove_all(&self, table: &'static str, keys: &[Vec<u8>]) -> Result<(), LedgerError> {
        keys.iter()
            .try_for_each(|key| self.store.remove(table, key))
    }

    fn keys(&self, table: &'static str, prefix: &[u8]) -> Result<Vec<Vec<u8>>, LedgerError> {
        let mut keys = Vec::new();
        self.store
            .scan(table, &Span::of(prefix), Order::Forward, |key, _| {
                keys.push(key.to_vec());
                Ok(ControlFlow::Continue(()))
            })?;
        Ok(keys)
    }

    /// The keys of a session's requests. One that was imported may have had several, of several principals.
    fn requests_of(&self, session: &SessionRecord) -> Result<Vec<Vec<u8>>, LedgerError> {
        let own = Key::text(&session.new.owner).and_last(&session.new.client_request_id);
        let row = self.request_row(&session.new.owner, &session.new.client_request_id)?;
        if row.is_none_or(|row| row.fingerprint != IMPORTED) {
            return Ok(vec![own.as_bytes().to_vec()]);
        }
        let mut keys = Vec::new();
        let span = Span::of(&[]);
        self.store
            .scan(REQUESTS, &span, Order::Forward, |key, json| {
                let row: RequestRow = self.store.parse(REQUESTS, json)?;
                if row.session_id == session.session_id {
                    keys.push(key.to_vec());
                }
                Ok(ControlFlow::Continue(()))
            })?;
        Ok(keys)
    }
}
