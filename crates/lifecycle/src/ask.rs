//! What the ledger answers to a `down`: decided, and begun, in one transaction.

use crate::caller::may_touch;
use crate::engine::Engine;
use crate::held::cancelled;
use crate::{
    DownFlags, DownPlan, DownRequest, ErrorCode, Failure, UNKEPT, lookup, no_provider, plan_down,
};
use alpine_ledger::{
    Acquired, Action, AuditRecord, ErrorRecord, Grant, LeaseRecord, LedgerError, Liveness,
    OperationRecord, OperationState, SessionId, SessionRecord, State, Timestamp, Tx,
};
use alpine_provider_api::Redactor;
use tokio::time::Instant;

/// What the ledger answered to a `down`.
pub(crate) enum Answer {
    Go(Box<Grant>, DownPlan, bool),
    Wait(SessionId, LeaseRecord),
    /// Wait for another `down` and give its outcome.
    Join(SessionId, LeaseRecord),
    Done(Box<SessionRecord>, Option<OperationRecord>),
    No(Failure),
}

impl Engine {
    pub(crate) async fn ask_down(
        &self,
        request: &DownRequest,
        version: Option<u64>,
        deadline: Instant,
    ) -> Result<Answer, Failure> {
        let (request, redactor, now) = (request.clone(), self.redactor.clone(), self.now());
        let known: Vec<String> = self.providers.names().map(str::to_owned).collect();
        self.write_until(deadline, move |tx| {
            let session = match lookup(tx, &request.caller, &request.session)? {
                Ok(session) => session,
                Err(failure) => return Ok(Answer::No(failure)),
            };
            if let Err(failure) = may_act(&request, &session) {
                return Ok(Answer::No(failure));
            }
            if version.is_some_and(|version| version != session.version) {
                let cause = format!("session `{}` has changed meanwhile", session.session_id);
                return Ok(Answer::No(Failure::conflict(cause)));
            }
            if let Some(lease) = tx.lease(&session.session_id)?
                && tx.holder_is_live(&lease) == Liveness::Live
            {
                if request.cancel {
                    audit(tx, &request, &session, &redactor, now)?;
                }
                return under_lease(tx, &request, &session, lease);
            }
            let discard = request
                .discard
                .as_ref()
                .is_some_and(|given| *given == discard_digest(&session));
            let plan = plan_down(
                session.state,
                session.destroy_pending,
                DownFlags {
                    retry_persist: request.retry_persist,
                    discard,
                },
            );
            match plan {
                DownPlan::Refuse => {
                    return Ok(Answer::No(refusal(&session, request.discard.is_some())));
                }
                DownPlan::Replay => {
                    let first = first_answer(&tx.operations(&session.session_id)?);
                    return Ok(Answer::Done(Box::new(session), first));
                }
                DownPlan::Close
                | DownPlan::CarryOn
                | DownPlan::RetryPersist
                | DownPlan::CleanUp
                | DownPlan::Discard
                | DownPlan::Destroy => {}
            }
            if !known.contains(&session.new.provider) {
                return Ok(Answer::No(no_provider(&session)));
            }
            audit(tx, &request, &session, &redactor, now)?;
            begin(
                tx,
                &request,
                &session,
                plan,
                request
                    .reason
                    .as_deref()
                    .map(|reason| redactor.redact(reason)),
            )
        })
        .await
    }
}

/// Ownership, and the reason that an admin has to give.
fn may_act(request: &DownRequest, session: &SessionRecord) -> Result<(), Failure> {
    may_touch(&request.caller, session)?;
    let reason = request.reason.as_deref().unwrap_or_default().trim();
    // A command that was pasted as it was told gives none.
    let is_given = !reason.is_empty() && reason != UNKEPT;
    if session.new.owner != request.caller.principal && !is_given {
        return Err(Failure::new(
            ErrorCode::Usage,
            "acting on another's session needs a reason",
        )
        .next(format!(
            "alpine down {} --reason '{UNKEPT}'",
            session.session_id
        )));
    }
    Ok(())
}

/// An admin's act on another's session leaves a record, in the transaction of the act.
fn audit(
    tx: &mut Tx<'_>,
    request: &DownRequest,
    session: &SessionRecord,
    redactor: &Redactor,
    at: Timestamp,
) -> Result<(), LedgerError> {
    if request.caller.principal == session.new.owner {
        return Ok(());
    }
    tx.put_audit(&AuditRecord {
        actor: request.caller.principal.clone(),
        session_id: session.session_id.clone(),
        action: "down".to_owned(),
        reason: redactor.redact(request.reason.as_deref().unwrap_or_default()),
        at,
    })
}

/// Another process has the session.
fn under_lease(
    tx: &mut Tx<'_>,
    request: &DownRequest,
    session: &SessionRecord,
    lease: LeaseRecord,
) -> Result<Answer, LedgerError> {
    let id = session.session_id.clone();
    let action = tx
        .operation(&lease.operation_id)?
        .map(|operation| operation.action);
    match action {
        Some(Action::Down) => Ok(Answer::Join(id, lease)),
        Some(Action::Up) if session.state != State::Failing => {
            if request.cancel {
                tx.request_cancel(&id, &request.caller.principal)?;
                return Ok(Answer::Wait(id, lease));
            }
            Ok(Answer::No(
                Failure::new(
                    ErrorCode::OperationConflict,
                    format!(
                        "`up` is still bringing session `{id}` up ({})",
                        session.state
                    ),
                )
                .next(format!("alpine down {id} --cancel"))
                .in_operation(&lease.operation_id),
            ))
        }
        Some(Action::Up | Action::Reconcile) | None => Ok(Answer::Wait(id, lease)),
    }
}

/// What those that a `down` ends answer from then on: what they said themselves, if they were cancelled.
fn superseded(open: &[OperationRecord]) -> ErrorRecord {
    let failure = if open.iter().any(|operation| operation.cancel_requested) {
        cancelled()
    } else {
        Failure::new(ErrorCode::Interrupted, "interrupted, and then brought down").must_change()
    };
    failure.to_record(&Redactor::default())
}

/// Takes the lease and enters the plan's first state, in one transaction.
fn begin(
    tx: &mut Tx<'_>,
    request: &DownRequest,
    session: &SessionRecord,
    plan: DownPlan,
    reason: Option<String>,
) -> Result<Answer, LedgerError> {
    let superseded = superseded(&tx.open_operations_of(&session.session_id)?);
    let (mut grant, resumed) = match tx.acquire(
        &session.session_id,
        Action::Down,
        &request.caller.principal,
        &superseded,
    )? {
        Acquired::Run(grant) => (grant, false),
        Acquired::Resume(grant) => (grant, true),
        Acquired::Wait(lease) => return Ok(Answer::Wait(session.session_id.clone(), lease)),
    };
    if plan == DownPlan::Discard {
        grant.session = give_up(tx, &grant)?;
    }
    let reason = reason.unwrap_or_else(|| "down".to_owned());
    let state = match plan {
        DownPlan::Close => Some(State::Stopping),
        DownPlan::RetryPersist => Some(State::Persisting),
        DownPlan::CleanUp if session.state != State::Failing => Some(State::Failing),
        DownPlan::CleanUp
        | DownPlan::CarryOn
        | DownPlan::Discard
        | DownPlan::Destroy
        | DownPlan::Refuse
        | DownPlan::Replay => None,
    };
    if let Some(state) = state {
        grant.session = tx.transition(&grant.token, state, &reason, |session| {
            if state == State::Persisting {
                session.persist_generation += 1;
            }
        })?;
    }
    Ok(Answer::Go(Box::new(grant), plan, resumed))
}

/// That the workspace was given up is recorded before it is deleted: whoever carries this on can't save it any more.
fn give_up(tx: &mut Tx<'_>, grant: &Grant) -> Result<SessionRecord, LedgerError> {
    let reason = "the workspace was discarded";
    if grant.session.state == State::CleanupFailed {
        tx.transition(&grant.token, State::Failing, reason, |_| {})?;
    }
    tx.transition(&grant.token, State::Failed, reason, |session| {
        session.destroy_pending = true
    })
}

/// The workspace's digest, which gives it up: the staged snapshot's, or one of the session's own where none was staged.
pub(crate) fn discard_digest(session: &SessionRecord) -> String {
    let staged = session
        .workspace_snapshot
        .as_ref()
        .and_then(|snapshot| snapshot["digest"].as_str())
        .map(str::to_owned);
    staged.unwrap_or_else(|| {
        let parts = serde_json::json!(["discard", session.session_id, session.persist_generation]);
        blake3::hash(parts.to_string().as_bytes())
            .to_hex()
            .to_string()
    })
}

fn refusal(session: &SessionRecord, wrong_digest: bool) -> Failure {
    let id = &session.session_id;
    let why = session
        .last_error
        .as_ref()
        .map(|error| format!(": {}", error.cause))
        .unwrap_or_default();
    let wrong = if wrong_digest {
        "the digest given to `--discard` is not the workspace's; "
    } else {
        ""
    };
    let cause = format!(
        "{wrong}session `{id}` is `{}`, its workspace is kept{why}; to give the workspace up instead: alpine down {id} --discard {}",
        session.state,
        discard_digest(session)
    );
    Failure::new(ErrorCode::PersistenceVerificationFailed, cause)
        .exit(1)
        .next(format!("alpine down {id} --retry-persist"))
        .in_operation(&session.operation_id)
}

/// The `down` that gave the first answer.
pub(crate) fn first_answer(operations: &[OperationRecord]) -> Option<OperationRecord> {
    let ended = |operation: &&OperationRecord| {
        operation.action == Action::Down && operation.state == OperationState::Succeeded
    };
    operations.iter().find(ended).cloned()
}
