//! Leases and the operations that hold them.

use crate::tables::LEASES;
use crate::tx::{News, millis};
use crate::{
    ErrorRecord, Grant, LeaseRecord, LeaseToken, LedgerError, OperationLock, OperationRecord,
    OperationState, SessionRecord, Tx, fence, holder,
};
use serde_json::Value;

/// How an operation ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Well, with what a repeat of the request answers.
    Succeeded(Value),
    /// With an error.
    Failed(ErrorRecord),
}

impl Tx<'_> {
    /// Keeps a lease for another while.
    ///
    /// # Errors
    /// `Fenced` when it was lost.
    pub fn renew(&mut self, token: &LeaseToken) -> Result<(), LedgerError> {
        let (mut lease, _) = self.held(token)?;
        self.extend(&mut lease);
        self.put_lease(token, &lease)
    }

    /// Gives a lease up; its operation stays open.
    ///
    /// # Errors
    /// `Fenced` when it was lost.
    pub fn release(&mut self, token: &LeaseToken) -> Result<(), LedgerError> {
        let (mut lease, _) = self.held(token)?;
        let clock = &self.store.site.options.clock;
        lease.holder = None;
        lease.expires_at = clock.now();
        lease.expires_boot_ms = clock.boot_ms();
        self.put_lease(token, &lease)
    }

    /// Gives a lease up in the middle of its operation, which can be carried on.
    ///
    /// # Errors
    /// `Fenced` when it was lost.
    pub fn interrupt(
        &mut self,
        token: &LeaseToken,
        error: &ErrorRecord,
    ) -> Result<(), LedgerError> {
        let (_, mut operation) = self.held(token)?;
        operation.state = OperationState::Interrupted;
        operation.error = Some(error.clone());
        self.put_operation(&operation)?;
        self.release(token)?;
        self.tell_of(&operation, "operation_interrupted", Some(&error.error_code))
    }

    /// Ends an operation and gives its lease up.
    ///
    /// # Errors
    /// `Fenced` when it was lost.
    pub fn finish(
        &mut self,
        token: &LeaseToken,
        outcome: &Outcome,
    ) -> Result<OperationRecord, LedgerError> {
        let (_, operation) = self.held(token)?;
        self.release(token)?;
        self.complete(operation, outcome)
    }

    /// The lease and the operation of a token, as long as it is good.
    pub(crate) fn held(
        &self,
        token: &LeaseToken,
    ) -> Result<(LeaseRecord, OperationRecord), LedgerError> {
        let lease = self.lease(&token.session_id)?.filter(|lease| {
            lease.fence == token.fence
                && lease.operation_id == token.operation_id
                && lease.holder.is_some()
        });
        let Some(lease) = lease else {
            return Err(LedgerError::Fenced {
                session: token.session_id.clone(),
                operation: token.operation_id.clone(),
                fence: token.fence,
            });
        };
        Ok((lease, self.known_operation(&token.operation_id)?))
    }

    /// Ends an operation, whoever holds the lease.
    pub(crate) fn complete(
        &mut self,
        mut operation: OperationRecord,
        outcome: &Outcome,
    ) -> Result<OperationRecord, LedgerError> {
        let session = self.known_session(&operation.session_id)?;
        operation.completed_at = Some(self.now());
        operation.terminal_state = Some(session.state);
        let reason = match outcome {
            Outcome::Succeeded(result) => {
                operation.state = OperationState::Succeeded;
                operation.result = Some(result.clone());
                operation.error = None;
                None
            }
            Outcome::Failed(error) => {
                operation.state = OperationState::Failed;
                operation.error = Some(error.clone());
                Some(error.error_code.as_str())
            }
        };
        self.put_operation(&operation)?;
        self.tell_of(&operation, "operation_finished", reason)?;
        Ok(operation)
    }

    /// Gives the lease of a session to an operation of this process, which takes the operation's lock first:
    /// whoever reads the lease then finds it held.
    pub(crate) fn grant(
        &mut self,
        session: SessionRecord,
        operation: OperationRecord,
        before: Option<&LeaseRecord>,
    ) -> Result<Grant, LedgerError> {
        let site = self.store.site;
        // A session that is new here may have been known before a restore, or before it was let go of.
        let fence = before.map_or_else(
            || fence::above(site, 0),
            |lease| fence::next(site, lease.fence),
        );
        let lock = OperationLock::take(site, &operation.operation_id, fence)?;
        fence::note(site, fence);
        let mut lease = LeaseRecord {
            operation_id: operation.operation_id.clone(),
            fence,
            holder: Some(site.options.holder.clone()),
            expires_at: self.now(),
            expires_boot_ms: 0,
        };
        self.extend(&mut lease);
        let token = LeaseToken {
            session_id: session.session_id.clone(),
            operation_id: operation.operation_id.clone(),
            fence,
        };
        self.put_lease(&token, &lease)?;
        if let Some(before) = before.filter(|lease| lease.holder.is_some()) {
            holder::remove_lock(site, before);
        }
        Ok(Grant {
            session,
            operation,
            token,
            lock,
        })
    }

    /// Appends an event about an operation; its duration counts from the operation's admission.
    pub(crate) fn tell_of(
        &mut self,
        operation: &OperationRecord,
        kind: &str,
        reason: Option<&str>,
    ) -> Result<(), LedgerError> {
        let state = self.known_session(&operation.session_id)?.state;
        let took = millis(self.now(), operation.started_at);
        let news = News {
            session: Some(&operation.session_id),
            operation: Some(&operation.operation_id),
            state: Some(state),
            actor: Some(&operation.actor),
            reason,
            duration_ms: (kind != "operation_started").then_some(took),
        };
        self.tell(kind, &news).map(drop)
    }

    fn extend(&self, lease: &mut LeaseRecord) {
        let options = &self.store.site.options;
        let span = u64::try_from(options.lease.as_millis()).unwrap_or(u64::MAX);
        lease.expires_at = options.clock.now().plus(options.lease);
        lease.expires_boot_ms = options.clock.boot_ms().saturating_add(span);
    }

    fn put_lease(&self, token: &LeaseToken, lease: &LeaseRecord) -> Result<(), LedgerError> {
        self.store
            .put_record(LEASES, token.session_id.as_str().as_bytes(), lease)
    }
}
