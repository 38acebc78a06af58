//! Reading: owned values from one state of the ledger.

use crate::store::{Order, Span, Store};
use crate::tables::{
    ATTEMPTS, AUDIT, EVENTS, Key, LEASES, OPEN_OPERATIONS, OPERATIONS, PENDING_DESTROYS,
    QUARANTINE, RECEIPTS, REQUESTS, SESSION_EVENTS, SESSION_OPERATIONS, SESSIONS, TRANSITIONS,
    last_number, split_text,
};
use crate::{
    AuditRecord, Event, LeaseRecord, LedgerError, ListQuery, OperationId, OperationRecord,
    PersistAttempt, QuarantineRecord, Receipt, SessionId, SessionRecord, State, TransitionRecord,
};
use serde::{Deserialize, Serialize};
use std::ops::ControlFlow;

/// One state of the ledger.
#[derive(Debug)]
pub struct Snapshot<'a> {
    pub(crate) store: Store<'a>,
}

/// The fingerprint of a request that was imported from the predecessor, which knew other parts of it.
pub(crate) const IMPORTED: &str = "imported";

/// What was asked for under a client request id.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct RequestRow {
    /// The session that was made for it.
    pub(crate) session_id: SessionId,
    /// The operation that brings it up.
    pub(crate) operation_id: OperationId,
    /// What two equal requests have in common.
    pub(crate) fingerprint: String,
}

impl<'a> Snapshot<'a> {
    pub(crate) fn new(store: Store<'a>) -> Self {
        Self { store }
    }

    /// The session.
    ///
    /// # Errors
    /// When the ledger can't be read; so with all reads.
    pub fn session(&self, id: &SessionId) -> Result<Option<SessionRecord>, LedgerError> {
        self.store.get(SESSIONS, id.as_str().as_bytes())
    }

    /// The operation.
    ///
    /// # Errors
    /// When the ledger can't be read.
    pub fn operation(&self, id: &OperationId) -> Result<Option<OperationRecord>, LedgerError> {
        self.store.get(OPERATIONS, id.as_str().as_bytes())
    }

    /// The operations of a session, in the order in which they were admitted.
    ///
    /// # Errors
    /// When the ledger can't be read.
    pub fn operations(&self, session: &SessionId) -> Result<Vec<OperationRecord>, LedgerError> {
        let ids: Vec<OperationId> = self
            .store
            .all(SESSION_OPERATIONS, Key::text(session.as_str()).as_bytes())?;
        ids.iter().map(|id| self.known_operation(id)).collect()
    }

    /// The operations of all sessions that have not finished.
    ///
    /// # Errors
    /// When the ledger can't be read.
    pub fn open_operations(&self) -> Result<Vec<OperationRecord>, LedgerError> {
        self.operations_under(&[])
    }

    /// The operations of one session that have not finished.
    ///
    /// # Errors
    /// When the ledger can't be read.
    pub fn open_operations_of(
        &self,
        session: &SessionId,
    ) -> Result<Vec<OperationRecord>, LedgerError> {
        self.operations_under(Key::text(session.as_str()).as_bytes())
    }

    /// The sessions whose state is final but whose sandbox is still to be destroyed.
    ///
    /// # Errors
    /// When the ledger can't be read.
    pub fn pending_destroys(&self) -> Result<Vec<SessionId>, LedgerError> {
        self.store.all(PENDING_DESTROYS, &[])
    }

    /// What was found of a sandbox that no session owns.
    ///
    /// # Errors
    /// When the ledger can't be read.
    pub fn quarantined(&self, sandbox: &str) -> Result<Option<QuarantineRecord>, LedgerError> {
        self.store
            .get(QUARANTINE, Key::default().and_last(sandbox).as_bytes())
    }

    /// The sessions that are not final, of one owner or of all.
    ///
    /// # Errors
    /// When the ledger can't be read.
    pub fn unfinished(&self, owner: Option<&str>) -> Result<Vec<SessionRecord>, LedgerError> {
        let query = ListQuery {
            owner: owner.map(str::to_owned),
            states: State::ALL
                .into_iter()
                .filter(|state| !state.is_terminal())
                .collect(),
            ended_since: None,
            limit: usize::MAX - 1,
        };
        let page = self.list(&query)?;
        page.sessions
            .iter()
            .filter_map(|summary| self.session(&summary.session_id).transpose())
            .collect()
    }

    /// The transitions of a session, oldest first.
    ///
    /// # Errors
    /// When the ledger can't be read.
    pub fn transitions(&self, session: &SessionId) -> Result<Vec<TransitionRecord>, LedgerError> {
        self.store
            .all(TRANSITIONS, Key::text(session.as_str()).as_bytes())
    }

    /// The lease of a session; it stays, without a holder, once it was released.
    ///
    /// # Errors
    /// When the ledger can't be read.
    pub fn lease(&self, session: &SessionId) -> Result<Option<LeaseRecord>, LedgerError> {
        self.store.get(LEASES, session.as_str().as_bytes())
    }

    /// The session that was made for an owner's request.
    ///
    /// # Errors
    /// When the ledger can't be read.
    pub fn request(
        &self,
        owner: &str,
        client_request_id: &str,
    ) -> Result<Option<SessionId>, LedgerError> {
        Ok(self
            .request_row(owner, client_request_id)?
            .map(|row| row.session_id))
    }

    /// The latest attempt to persist a session.
    ///
    /// # Errors
    /// When the ledger can't be read.
    pub fn persist_attempt(
        &self,
        session: &SessionId,
    ) -> Result<Option<PersistAttempt>, LedgerError> {
        self.latest(ATTEMPTS, session)
    }

    /// The latest receipt of a session.
    ///
    /// # Errors
    /// When the ledger can't be read.
    pub fn receipt(&self, session: &SessionId) -> Result<Option<Receipt>, LedgerError> {
        self.latest(RECEIPTS, session)
    }

    /// The first `limit` events after `seq`, oldest first.
    ///
    /// # Errors
    /// When the ledger can't be read.
    pub fn events_after(&self, seq: u64, limit: usize) -> Result<Vec<Event>, LedgerError> {
        let Some(first) = seq.checked_add(1) else {
            return Ok(Vec::new());
        };
        let span = Span {
            start: Key::number(first).as_bytes().to_vec(),
            end: None,
        };
        let mut events = Vec::new();
        if limit == 0 {
            return Ok(events);
        }
        self.store.scan(EVENTS, &span, Order::Forward, |_, json| {
            events.push(self.store.parse(EVENTS, json)?);
            Ok(if events.len() < limit {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            })
        })?;
        Ok(events)
    }

    /// The events of a session, oldest first.
    ///
    /// # Errors
    /// When the ledger can't be read.
    pub fn session_events(&self, session: &SessionId) -> Result<Vec<Event>, LedgerError> {
        let mut numbers = Vec::new();
        self.store.scan(
            SESSION_EVENTS,
            &Span::of(Key::text(session.as_str()).as_bytes()),
            Order::Forward,
            |key, _| {
                numbers.push(last_number(key).ok_or_else(|| self.bad_key(SESSION_EVENTS))?);
                Ok(ControlFlow::Continue(()))
            },
        )?;
        let event = |seq: &u64| {
            let found = self.store.get(EVENTS, Key::number(*seq).as_bytes())?;
            found.ok_or_else(|| self.store.site.corrupt(format!("event {seq} is missing")))
        };
        numbers.iter().map(event).collect()
    }

    /// The audit records, oldest first.
    ///
    /// # Errors
    /// When the ledger can't be read.
    pub fn audit(&self) -> Result<Vec<AuditRecord>, LedgerError> {
        self.store.all(AUDIT, &[])
    }

    pub(crate) fn request_row(
        &self,
        owner: &str,
        client_request_id: &str,
    ) -> Result<Option<RequestRow>, LedgerError> {
        self.store.get(
            REQUESTS,
            Key::text(owner).and_last(client_request_id).as_bytes(),
        )
    }

    /// A session that another row names.
    pub(crate) fn known_session(&self, id: &SessionId) -> Result<SessionRecord, LedgerError> {
        self.session(id)?.ok_or_else(|| {
            self.store
                .site
                .corrupt(format!("session `{id}` is missing"))
        })
    }

    /// An operation that another row names.
    pub(crate) fn known_operation(&self, id: &OperationId) -> Result<OperationRecord, LedgerError> {
        self.operation(id)?.ok_or_else(|| {
            self.store
                .site
                .corrupt(format!("operation `{id}` is missing"))
        })
    }

    pub(crate) fn bad_key(&self, table: &str) -> LedgerError {
        self.store
            .site
            .corrupt(format!("a key of `{table}` can't be read"))
    }

    /// The number after the last row of `prefix`, or `first` where there is none.
    pub(crate) fn next_number(
        &self,
        table: &'static str,
        prefix: &[u8],
        first: u64,
    ) -> Result<u64, LedgerError> {
        let Some(last) = self.store.last_key(table, prefix)? else {
            return Ok(first);
        };
        last_number(&last)
            .and_then(|number| number.checked_add(1))
            .ok_or_else(|| self.bad_key(table))
    }

    fn operations_under(&self, prefix: &[u8]) -> Result<Vec<OperationRecord>, LedgerError> {
        let mut ids = Vec::new();
        self.store.scan(
            OPEN_OPERATIONS,
            &Span::of(prefix),
            Order::Forward,
            |key, _| {
                let (_, id) = split_text(key).ok_or_else(|| self.bad_key(OPEN_OPERATIONS))?;
                ids.push(OperationId::from_recorded(String::from_utf8_lossy(id)));
                Ok(ControlFlow::Continue(()))
            },
        )?;
        ids.iter().map(|id| self.known_operation(id)).collect()
    }

    fn latest<T: serde::de::DeserializeOwned>(
        &self,
        table: &'static str,
        session: &SessionId,
    ) -> Result<Option<T>, LedgerError> {
        match self
            .store
            .last_key(table, Key::text(session.as_str()).as_bytes())?
        {
            Some(key) => self.store.get(table, &key),
            None => Ok(None),
        }
    }
}
