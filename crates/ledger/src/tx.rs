//! Writing: one atomic transaction. Indexes, versions and events are kept here.

use crate::session::Changed;
use crate::tables::{
    ATTEMPTS, AUDIT, EVENTS, Key, OPEN_OPERATIONS, OPERATIONS, QUARANTINE, RECEIPTS,
    SESSION_EVENTS, TRANSITIONS,
};
use crate::{
    AuditRecord, Event, LeaseToken, LedgerError, OperationId, OperationRecord, PersistAttempt,
    QuarantineRecord, Receipt, SessionId, SessionRecord, Snapshot, State, StepRecord, Timestamp,
    TransitionRecord,
};
use serde::Serialize;
use std::ops::Deref;

/// One write transaction. It reads what it has written.
#[derive(Debug)]
pub struct Tx<'a> {
    snapshot: Snapshot<'a>,
}

impl<'a> Deref for Tx<'a> {
    type Target = Snapshot<'a>;

    fn deref(&self) -> &Snapshot<'a> {
        &self.snapshot
    }
}

/// What an event says beside its number and time.
#[derive(Debug, Default)]
pub(crate) struct News<'n> {
    pub(crate) session: Option<&'n SessionId>,
    pub(crate) operation: Option<&'n OperationId>,
    pub(crate) state: Option<State>,
    pub(crate) actor: Option<&'n str>,
    pub(crate) reason: Option<&'n str>,
    pub(crate) duration_ms: Option<u64>,
}

impl<'a> Tx<'a> {
    pub(crate) fn new(snapshot: Snapshot<'a>) -> Self {
        Self { snapshot }
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.store.site.options.clock.now()
    }

    /// Moves a session along an edge of the table. `change` sets what goes with it.
    ///
    /// # Errors
    /// `IllegalTransition` for any other edge, `Fenced` when the lease was lost, `Protected` when `change`
    /// touches what only the ledger sets.
    pub fn transition(
        &mut self,
        token: &LeaseToken,
        to: State,
        reason: &str,
        change: impl FnOnce(&mut SessionRecord),
    ) -> Result<SessionRecord, LedgerError> {
        let (_, operation) = self.held(token)?;
        let before = self.known_session(&token.session_id)?;
        if !before.state.may_become(to) {
            return Err(LedgerError::IllegalTransition {
                from: before.state,
                to,
            });
        }
        let at = self.now();
        let transition = TransitionRecord {
            state: to,
            timestamp: at,
            actor: operation.actor.clone(),
            reason: reason.to_owned(),
            operation_id: operation.operation_id.clone(),
        };
        self.append(TRANSITIONS, token.session_id.as_str(), 0, &transition)?;
        let since = before.last_transition.timestamp;
        let after = self.apply(before, Changed::Transition(transition), change)?;
        self.tell(
            "transition",
            &News {
                session: Some(&after.session_id),
                operation: Some(&operation.operation_id),
                state: Some(to),
                actor: Some(&operation.actor),
                reason: Some(reason),
                duration_ms: Some(millis(at, since)),
            },
        )?;
        Ok(after)
    }

    /// Changes a session under its lease; not its state.
    ///
    /// # Errors
    /// `Fenced` when the lease was lost, `Protected` when `change` touches what only the ledger sets.
    pub fn update(
        &mut self,
        token: &LeaseToken,
        change: impl FnOnce(&mut SessionRecord),
    ) -> Result<SessionRecord, LedgerError> {
        self.held(token)?;
        let before = self.known_session(&token.session_id)?;
        self.apply(before, Changed::Fields, change)
    }

    /// Changes a session without its lease, if nobody changed it since; not its state.
    ///
    /// # Errors
    /// `NotFound`, `VersionMismatch`, or `Protected` when `change` touches what only the ledger sets.
    pub fn compare_and_swap(
        &mut self,
        id: &SessionId,
        expected_version: u64,
        change: impl FnOnce(&mut SessionRecord),
    ) -> Result<SessionRecord, LedgerError> {
        let before = self
            .session(id)?
            .ok_or_else(|| LedgerError::NotFound { id: id.to_string() })?;
        if before.version != expected_version {
            let (expected, found) = (expected_version, before.version);
            return Err(LedgerError::VersionMismatch {
                id: id.clone(),
                expected,
                found,
            });
        }
        self.apply(before, Changed::Fields, change)
    }

    /// Records a step that was done.
    ///
    /// # Errors
    /// `Fenced` when the lease was lost.
    pub fn record_step(
        &mut self,
        token: &LeaseToken,
        step: &StepRecord,
    ) -> Result<(), LedgerError> {
        let (_, mut operation) = self.held(token)?;
        operation.steps.push(step.clone());
        self.put_operation(&operation)?;
        let state = self.known_session(&token.session_id)?.state;
        self.tell(
            "step",
            &News {
                session: Some(&token.session_id),
                operation: Some(&token.operation_id),
                state: Some(state),
                actor: Some(&operation.actor),
                reason: Some(&step.step),
                duration_ms: Some(step.duration_ms),
            },
        )?;
        Ok(())
    }

    /// Asks the holder of a session's open operation to give it up. Whether there is one.
    ///
    /// # Errors
    /// When the ledger can't be written; so with all writes.
    pub fn request_cancel(
        &mut self,
        session: &SessionId,
        actor: &str,
    ) -> Result<bool, LedgerError> {
        let open = self.open_operations_of(session)?;
        for mut operation in open
            .iter()
            .filter(|operation| !operation.cancel_requested)
            .cloned()
        {
            operation.cancel_requested = true;
            self.put_operation(&operation)?;
            let state = self.known_session(session)?.state;
            self.tell(
                "cancel_requested",
                &News {
                    session: Some(session),
                    operation: Some(&operation.operation_id),
                    state: Some(state),
                    actor: Some(actor),
                    ..News::default()
                },
            )?;
        }
        Ok(!open.is_empty())
    }

    /// Records an attempt to persist, before its first byte is sent.
    ///
    /// # Errors
    /// `Fenced` when the lease was lost.
    pub fn put_persist_attempt(
        &mut self,
        token: &LeaseToken,
        attempt: &PersistAttempt,
    ) -> Result<(), LedgerError> {
        self.held(token)?;
        let key = Key::text(token.session_id.as_str()).and_number(attempt.generation);
        self.store.put_record(ATTEMPTS, key.as_bytes(), attempt)
    }

    /// Records the proof that a durable object was written and read back.
    ///
    /// # Errors
    /// `Fenced` when the lease was lost.
    pub fn put_receipt(
        &mut self,
        token: &LeaseToken,
        receipt: &Receipt,
    ) -> Result<(), LedgerError> {
        self.held(token)?;
        let key = Key::text(token.session_id.as_str()).and_number(receipt.generation);
        self.store.put_record(RECEIPTS, key.as_bytes(), receipt)
    }

    /// Records what was found of a sandbox that no session owns.
    ///
    /// # Errors
    /// When the ledger can't be written.
    pub fn put_quarantine(&mut self, record: &QuarantineRecord) -> Result<(), LedgerError> {
        let key = Key::default().and_last(&record.sandbox_id);
        self.store.put_record(QUARANTINE, key.as_bytes(), record)
    }

    /// Records an admin's act, in the transaction of the act.
    ///
    /// # Errors
    /// When the ledger can't be written.
    pub fn put_audit(&mut self, record: &AuditRecord) -> Result<(), LedgerError> {
        let number = self.next_number(AUDIT, &[], 1)?;
        self.store
            .put(AUDIT, Key::number(number).as_bytes(), record)
    }

    /// Appends an event; its state and actor are those of the session and the operation. Its number.
    ///
    /// # Errors
    /// `NotFound` for a session or an operation that is not there.
    pub fn append_event(
        &mut self,
        session: Option<&SessionId>,
        operation: Option<&OperationId>,
        kind: &str,
        reason: Option<&str>,
    ) -> Result<u64, LedgerError> {
        let missing = |id: &str| LedgerError::NotFound { id: id.to_owned() };
        let state = match session {
            Some(id) => Some(self.session(id)?.ok_or_else(|| missing(id.as_str()))?.state),
            None => None,
        };
        let actor = match operation {
            Some(id) => Some(
                self.operation(id)?
                    .ok_or_else(|| missing(id.as_str()))?
                    .actor,
            ),
            None => None,
        };
        self.tell(
            kind,
            &News {
                session,
                operation,
                state,
                actor: actor.as_deref(),
                reason,
                duration_ms: None,
            },
        )
    }

    /// Appends an event with the next number.
    pub(crate) fn tell(&mut self, kind: &str, news: &News<'_>) -> Result<u64, LedgerError> {
        let seq = self.next_number(EVENTS, &[], 1)?;
        let event = Event {
            seq,
            at: self.now(),
            kind: kind.to_owned(),
            session_id: news.session.cloned(),
            operation_id: news.operation.cloned(),
            state: news.state,
            actor: news.actor.map(str::to_owned),
            reason: news.reason.map(str::to_owned),
            duration_ms: news.duration_ms,
        };
        self.store
            .put(EVENTS, Key::number(seq).as_bytes(), &event)?;
        if let Some(session) = news.session {
            let key = Key::text(session.as_str()).and_number(seq);
            self.store.put(SESSION_EVENTS, key.as_bytes(), &())?;
        }
        Ok(seq)
    }

    /// Appends a row to a list of a session's.
    pub(crate) fn append<T: Serialize>(
        &mut self,
        table: &'static str,
        session: &str,
        first: u64,
        row: &T,
    ) -> Result<(), LedgerError> {
        let prefix = Key::text(session);
        let number = self.next_number(table, prefix.as_bytes(), first)?;
        self.store
            .put(table, prefix.and_number(number).as_bytes(), row)
    }

    /// Writes an operation, and whether it is open.
    pub(crate) fn put_operation(&mut self, operation: &OperationRecord) -> Result<(), LedgerError> {
        let id = operation.operation_id.as_str();
        self.store
            .put_record(OPERATIONS, id.as_bytes(), operation)?;
        let open = Key::text(operation.session_id.as_str()).and_last(id);
        if operation.completed_at.is_none() {
            self.store.put(OPEN_OPERATIONS, open.as_bytes(), &())
        } else {
            self.store.remove(OPEN_OPERATIONS, open.as_bytes())
        }
    }
}

/// The milliseconds from one time to a later one.
pub(crate) fn millis(later: Timestamp, earlier: Timestamp) -> u64 {
    u64::try_from(later.since(earlier).as_millis()).unwrap_or(u64::MAX)
}
