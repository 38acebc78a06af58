//! Admission: the ledger's answer to a request, decided and recorded in one transaction.

use crate::session::Changed;
use crate::snapshot::{IMPORTED, RequestRow};
use crate::tables::{Key, REQUESTS, SESSION_OPERATIONS, TRANSITIONS};
use crate::{
    Action, ErrorRecord, LeaseRecord, LeaseToken, LedgerError, Liveness, NewSession, OperationId,
    OperationLock, OperationRecord, OperationState, Outcome, SessionId, SessionRecord, State,
    TransitionRecord, Tx,
};

/// The right to work on a session.
#[derive(Debug)]
pub struct Grant {
    /// The session, as recorded.
    pub session: SessionRecord,
    /// The operation, as recorded.
    pub operation: OperationRecord,
    /// What every write shows.
    pub token: LeaseToken,
    /// What tells others that this process works; keep it as long as it does.
    pub lock: OperationLock,
}

/// The answer to a request for a session.
#[derive(Debug)]
pub enum Admission {
    /// A new session: bring it up.
    Run(Grant),
    /// Its holder ended before it was done: carry the operation on from its last recorded step.
    Resume(Grant),
    /// It was answered before: the outcome is in the records.
    Replay(SessionRecord, OperationRecord),
    /// Another process works on it: wait for its outcome.
    Wait(SessionRecord, LeaseRecord),
    /// It can't be had.
    Conflict(Conflict),
}

/// Why a request can't be had.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "it lives for one match and is part of a larger enum"
)]
pub enum Conflict {
    /// The client request id was used for something else.
    OtherRequest(SessionId),
    /// Its session is being brought down, or was.
    Ended(SessionRecord),
    /// Another unfinished session of the owner has the name.
    NameTaken(SessionId),
}

/// The answer to an operation that wants a session's lease.
#[derive(Debug)]
pub enum Acquired {
    /// A new operation.
    Run(Grant),
    /// An operation of the same action whose holder ended: carry it on.
    Resume(Grant),
    /// Another process holds the lease.
    Wait(LeaseRecord),
}

impl Tx<'_> {
    /// Admits a request for a session. The same owner and client request id always mean the same session.
    ///
    /// # Errors
    /// When the ledger or the operation's lock can't be written.
    pub fn admit(
        &mut self,
        new: &NewSession,
        fingerprint: &str,
        sandbox_id: &str,
        actor: &str,
    ) -> Result<Admission, LedgerError> {
        let Some(row) = self.request_row(&new.owner, &new.client_request_id)? else {
            return self.admit_new(new, fingerprint, sandbox_id, actor);
        };
        let session = self.known_session(&row.session_id)?;
        if !is_same(&row, &session, new, fingerprint) {
            return Ok(Admission::Conflict(Conflict::OtherRequest(row.session_id)));
        }
        match session.state {
            State::Stopping
            | State::Persisting
            | State::Stopped
            | State::CloseFailed
            | State::StoppedUnpersisted
            | State::PersistFailed => Ok(Admission::Conflict(Conflict::Ended(session))),
            State::Requested
            | State::Provisioning
            | State::RepoSyncing
            | State::Installing
            | State::Ready
            | State::Failing
            | State::Failed
            | State::CleanupFailed => self.admit_again(session, &row.operation_id, actor),
        }
    }

    /// Takes a session's lease for an operation. Other open operations of the session, whose holders have
    /// ended, end as failed with `superseded`.
    ///
    /// # Errors
    /// `NotFound` for a session that is not there.
    pub fn acquire(
        &mut self,
        session: &SessionId,
        action: Action,
        actor: &str,
        superseded: &ErrorRecord,
    ) -> Result<Acquired, LedgerError> {
        let record = self
            .session(session)?
            .ok_or_else(|| LedgerError::NotFound {
                id: session.to_string(),
            })?;
        let lease = self.lease(session)?;
        if let Some(lease) = self.live(lease.as_ref()) {
            return Ok(Acquired::Wait(lease.clone()));
        }
        let mut same = None;
        for operation in self.open_operations_of(session)? {
            if operation.action == action && same.is_none() {
                same = Some(operation);
            } else {
                self.complete(operation, &Outcome::Failed(superseded.clone()))?;
            }
        }
        match same {
            Some(operation) => self
                .resume(record, operation, lease.as_ref())
                .map(Acquired::Resume),
            None => self
                .run(record, action, actor, lease.as_ref())
                .map(Acquired::Run),
        }
    }

    fn admit_new(
        &mut self,
        new: &NewSession,
        fingerprint: &str,
        sandbox_id: &str,
        actor: &str,
    ) -> Result<Admission, LedgerError> {
        if let Some(name) = &new.name
            && let Some(other) = self.unfinished_named(&new.owner, name)?
        {
            return Ok(Admission::Conflict(Conflict::NameTaken(other)));
        }
        let session_id = SessionId::derive(&new.owner, &new.client_request_id);
        let operation = self.new_operation(&session_id, Action::Up, actor)?;
        let session = self.first_record(new, &session_id, sandbox_id, &operation);
        self.append(
            TRANSITIONS,
            session_id.as_str(),
            0,
            &session.last_transition,
        )?;
        self.put_session(None, &session)?;
        let request = RequestRow {
            session_id,
            operation_id: operation.operation_id.clone(),
            fingerprint: fingerprint.to_owned(),
        };
        let key = Key::text(&new.owner).and_last(&new.client_request_id);
        self.store.put(REQUESTS, key.as_bytes(), &request)?;
        self.start(&operation)?;
        self.grant(session, operation, None).map(Admission::Run)
    }

    /// The answer to a request whose session has not been brought down.
    fn admit_again(
        &mut self,
        session: SessionRecord,
        up: &OperationId,
        actor: &str,
    ) -> Result<Admission, LedgerError> {
        let up = self.known_operation(up)?;
        let answered = up.completed_at.is_some();
        let lease = self.lease(&session.session_id)?;
        if session.state == State::Ready && answered {
            return Ok(Admission::Replay(session, up));
        }
        if let Some(lease) = self.live(lease.as_ref()) {
            return Ok(Admission::Wait(session, lease.clone()));
        }
        if matches!(session.state, State::Failed | State::CleanupFailed) {
            return Ok(Admission::Replay(session, up));
        }
        // A clean-up that a later operation took over and left is carried on as that operation.
        let left = self
            .open_operations_of(&session.session_id)?
            .into_iter()
            .next();
        let grant = match (answered, left) {
            (false, _) => self.resume(session, up, lease.as_ref())?,
            (true, Some(left)) => self.resume(session, left, lease.as_ref())?,
            (true, None) => self.run(session, Action::Up, actor, lease.as_ref())?,
        };
        Ok(Admission::Resume(grant))
    }

    /// The lease, if its holder still works.
    fn live<'l>(&self, lease: Option<&'l LeaseRecord>) -> Option<&'l LeaseRecord> {
        lease.filter(|lease| self.holder_is_live(lease) == Liveness::Live)
    }

    /// A new operation on a session that is there.
    fn run(
        &mut self,
        session: SessionRecord,
        action: Action,
        actor: &str,
        lease: Option<&LeaseRecord>,
    ) -> Result<Grant, LedgerError> {
        let operation = self.new_operation(&session.session_id, action, actor)?;
        let session = self.apply(
            session,
            Changed::Operation(operation.operation_id.clone()),
            |_| {},
        )?;
        self.start(&operation)?;
        self.grant(session, operation, lease)
    }

    /// The same operation again.
    fn resume(
        &mut self,
        session: SessionRecord,
        mut operation: OperationRecord,
        lease: Option<&LeaseRecord>,
    ) -> Result<Grant, LedgerError> {
        if operation.state == OperationState::Interrupted {
            // Its holder saw a wish to cancel, if there was one; the new holder is a new wish.
            operation.cancel_requested = false;
        }
        operation.state = OperationState::Running;
        operation.error = None;
        operation.takeovers += 1;
        self.put_operation(&operation)?;
        self.tell_of(&operation, "operation_resumed", None)?;
        self.grant(session, operation, lease)
    }

    /// The record of an operation that begins: its number is that of the finished ones of its action.
    fn new_operation(
        &self,
        session: &SessionId,
        action: Action,
        actor: &str,
    ) -> Result<OperationRecord, LedgerError> {
        let before = self.operations(session)?;
        let finished = |operation: &&OperationRecord| {
            operation.action == action && operation.completed_at.is_some()
        };
        let n = before.iter().filter(finished).count() as u64;
        Ok(OperationRecord {
            operation_id: OperationId::derive(session, action.as_str(), n),
            session_id: session.clone(),
            action,
            n,
            state: OperationState::Running,
            actor: actor.to_owned(),
            started_at: self.now(),
            completed_at: None,
            takeovers: 0,
            steps: Vec::new(),
            terminal_state: None,
            error: None,
            result: None,
            cancel_requested: false,
            unknown: serde_json::Map::new(),
        })
    }

    /// Records an operation that begins.
    fn start(&mut self, operation: &OperationRecord) -> Result<(), LedgerError> {
        self.put_operation(operation)?;
        self.append(
            SESSION_OPERATIONS,
            operation.session_id.as_str(),
            0,
            &operation.operation_id,
        )?;
        self.tell_of(
            operation,
            "operation_started",
            Some(operation.action.as_str()),
        )
    }

    /// The record of a session that begins.
    fn first_record(
        &self,
        new: &NewSession,
        id: &SessionId,
        sandbox_id: &str,
        operation: &OperationRecord,
    ) -> SessionRecord {
        let now = self.now();
        SessionRecord {
            session_id: id.clone(),
            new: new.clone(),
            state: State::Requested,
            version: 1,
            sandbox_id: sandbox_id.to_owned(),
            provider_version: None,
            provider_identity: None,
            target_commit_sha: None,
            workspace_path: None,
            isolation: None,
            opencode_url: None,
            browser_opened: None,
            warnings: Vec::new(),
            started_at: now,
            ready_at: None,
            stopped_at: None,
            persisted_at: None,
            updated_at: now,
            operation_id: operation.operation_id.clone(),
            last_transition: TransitionRecord {
                state: State::Requested,
                timestamp: now,
                actor: operation.actor.clone(),
                reason: "admitted".to_owned(),
                operation_id: operation.operation_id.clone(),
            },
            last_error: None,
            durable_object_id: None,
            persist_generation: 0,
            persistence_verified: false,
            history_truncated: false,
            workspace_snapshot: None,
            destroy_pending: false,
            agent_started: false,
            unknown: serde_json::Map::new(),
        }
    }
}

/// Whether a request is the one that was recorded. Of one that was imported only the repository and the branch
/// are known.
fn is_same(row: &RequestRow, session: &SessionRecord, new: &NewSession, fingerprint: &str) -> bool {
    if row.fingerprint == IMPORTED {
        session.new.repo_url == new.repo_url && session.new.branch == new.branch
    } else {
        row.fingerprint == fingerprint
    }
}
