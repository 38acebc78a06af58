//! `down`: from every state to `stopped` or `failed`, without losing a byte.

use crate::call::StepEnd;
use crate::caller::may_touch;
use crate::engine::Engine;
use crate::held::Held;
use crate::{Caller, DownFlags, DownPlan, ErrorCode, Failure, lookup, next_step, plan_down};
use alpine_ledger::{
    Acquired, Action, AuditRecord, ErrorRecord, Grant, LeaseRecord, LedgerError, Liveness,
    OperationRecord, OperationState, Outcome, SessionId, SessionRecord, State, Timestamp, Tx,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::time::Duration;
use tokio::time::Instant;

/// What `down` is asked for.
#[derive(Clone, Debug)]
pub struct DownRequest {
    /// Who asks.
    pub caller: Caller,
    /// The session: an id, a prefix, or a name.
    pub session: String,
    /// `--retry-persist`.
    pub retry_persist: bool,
    /// `--cancel`.
    pub cancel: bool,
    /// `--discard`, with the digest that was given.
    pub discard: Option<String>,
    /// Why; required of an admin who acts on another's session.
    pub reason: Option<String>,
    /// The time limit in all, if not the usual one.
    pub timeout: Option<Duration>,
}

/// A session that is down.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DownOutcome {
    /// The session.
    pub session_id: String,
    /// The operation that brought it down.
    pub operation_id: Option<String>,
    /// Where it stands.
    pub state: State,
    /// The verified durable object.
    pub durable_object_id: Option<String>,
    /// The time the object's payload bears.
    pub persisted_at: Option<Timestamp>,
    /// Whether it was verified by reading it back.
    pub persistence_verified: bool,
    /// Whether the payload's histories were shortened.
    pub history_truncated: bool,
    /// The workspace's snapshot; none when there is none.
    pub workspace_snapshot: Option<Value>,
    /// Why there is none.
    pub workspace_snapshot_reason: Option<String>,
    /// What is still to be done.
    pub next_step: Option<String>,
}

/// What the ledger answered to a `down`.
enum Answer {
    Go(Box<Grant>, DownPlan, bool),
    Wait(SessionId, LeaseRecord),
    /// Wait for another `down` and give its outcome.
    Join(SessionId, LeaseRecord),
    Done(Box<SessionRecord>, Option<OperationRecord>),
    No(Failure),
}

impl Engine {
    /// Brings a session down, or answers as before.
    ///
    /// # Errors
    /// As the contract's table of `down` has it.
    pub async fn down(&self, request: DownRequest) -> Result<DownOutcome, Failure> {
        let limit = request.timeout.unwrap_or(self.limits.down);
        let deadline = Instant::now() + limit;
        loop {
            match self.ask_down(&request).await? {
                Answer::Go(grant, plan, resumed) => {
                    let held = Held::new(self, *grant, resumed, limit);
                    return self.carry_down(held, plan).await;
                }
                Answer::Wait(session, lease) => {
                    self.wait_for(&session, &lease.operation_id, deadline)
                        .await?;
                }
                Answer::Join(session, lease) => {
                    if let Some(ended) = self
                        .wait_for(&session, &lease.operation_id, deadline)
                        .await?
                    {
                        return self.joined(&session, ended).await;
                    }
                }
                Answer::Done(session, operation) => {
                    return Ok(replay(&session, operation.as_ref()));
                }
                Answer::No(failure) => return Err(failure),
            }
        }
    }

    async fn ask_down(&self, request: &DownRequest) -> Result<Answer, Failure> {
        let (request, redactor, now) = (request.clone(), self.redactor.clone(), self.now());
        let known: Vec<String> = self.providers.names().map(str::to_owned).collect();
        self.write(move |tx| {
            let session = match lookup(tx, &request.caller, &request.session)? {
                Ok(session) => session,
                Err(failure) => return Ok(Answer::No(failure)),
            };
            if let Err(failure) = may_act(&request, &session) {
                return Ok(Answer::No(failure));
            }
            if let Some(lease) = tx.lease(&session.session_id)?
                && tx.holder_is_live(&lease) == Liveness::Live
            {
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
            if request.caller.principal != session.new.owner {
                let reason = redactor.redact(request.reason.as_deref().unwrap_or_default());
                tx.put_audit(&AuditRecord {
                    actor: request.caller.principal.clone(),
                    session_id: session.session_id.clone(),
                    action: "down".to_owned(),
                    reason,
                    at: now,
                })?;
            }
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

    async fn carry_down(&self, mut held: Held, plan: DownPlan) -> Result<DownOutcome, Failure> {
        let done = match plan {
            DownPlan::CleanUp => return self.clean_down(held).await,
            DownPlan::Discard => self.discard(&mut held).await,
            DownPlan::Close
            | DownPlan::CarryOn
            | DownPlan::RetryPersist
            | DownPlan::Destroy
            | DownPlan::Refuse
            | DownPlan::Replay => self.close(&mut held).await,
        };
        match done {
            Ok(()) => {
                let outcome = outcome(&held.session, Some(&held.operation));
                let result = serde_json::to_value(&outcome).unwrap_or_default();
                self.record(&mut held, move |tx, token| {
                    tx.finish(token, &Outcome::Succeeded(result)).map(|_| ())
                })
                .await?;
                Ok(outcome)
            }
            Err(StepEnd::Failed(failure, _)) => Err(self.end_down(held, failure).await),
            Err(StepEnd::Stopped(failure)) => {
                let retry = format!("alpine down {}", held.session.session_id);
                Err(self.leave(held, failure.next(retry)).await)
            }
        }
    }

    /// Stop, capture, persist, verify, destroy: from wherever the session stands.
    async fn close(&self, held: &mut Held) -> Result<(), StepEnd> {
        if held.session.state == State::Stopping {
            let gone = self.stop(held).await?;
            let now = self.now();
            let reason = if gone {
                "the sandbox is gone"
            } else {
                "every process has ended"
            };
            self.advance(held, State::Persisting, reason, move |session| {
                session.stopped_at = Some(now);
                session.opencode_url = None;
                session.persist_generation += 1;
            })
            .await?;
        }
        if held.session.state == State::Persisting {
            let attempt = self
                .attempt_to_persist(held, State::Stopped.as_str())
                .await?;
            let receipt = self.persist_and_verify(held, &attempt).await?;
            self.record(held, move |tx, token| {
                tx.put_receipt(token, &receipt)?;
                tx.transition(
                    token,
                    State::Stopped,
                    "the durable object was verified",
                    |session| {
                        session.durable_object_id = Some(receipt.durable_object_id);
                        session.persistence_verified = true;
                        session.destroy_pending = true;
                        session.last_error = None;
                    },
                )
                .map(|_| ())
            })
            .await?;
        }
        match self.destroy(held).await {
            Ok(()) => {
                self.record(held, |tx, token| {
                    tx.update(token, |session| session.destroy_pending = false)
                        .map(|_| ())
                })
                .await?;
            }
            // The work is safe: what is left to delete waits for the next `down`.
            Err(StepEnd::Failed(failure, _)) => {
                let failure = failure.next(format!("alpine down {}", held.session.session_id));
                let record = failure.to_record(&self.redactor);
                self.record(held, move |tx, token| {
                    tx.update(token, |session| session.last_error = Some(record))
                        .map(|_| ())
                })
                .await?;
            }
            Err(stopped) => return Err(stopped),
        }
        Ok(())
    }

    async fn discard(&self, held: &mut Held) -> Result<(), StepEnd> {
        self.destroy(held).await?;
        self.advance(held, State::Failed, "the workspace was discarded", |_| {})
            .await?;
        Ok(())
    }

    /// Cleans up what an `up` left; the session ends `failed`.
    async fn clean_down(&self, mut held: Held) -> Result<DownOutcome, Failure> {
        match self.clean_up(&mut held).await {
            Ok(()) => {
                let ended = DownOutcome {
                    state: State::Failed,
                    next_step: None,
                    ..outcome(&held.session, Some(&held.operation))
                };
                let result = serde_json::to_value(&ended).unwrap_or_default();
                self.end_cleaned(held, "brought down", Outcome::Succeeded(result))
                    .await?;
                Ok(ended)
            }
            Err(StepEnd::Failed(left, _)) => {
                let failure = Failure {
                    code: ErrorCode::CleanupFailed,
                    retryable: true,
                    exit_code: 2,
                    ..left
                }
                .next(format!("alpine down {}", held.session.session_id));
                let outcome = Outcome::Failed(failure.to_record(&self.redactor));
                self.end_uncleaned(held, failure.clone(), outcome).await?;
                Err(failure)
            }
            Err(StepEnd::Stopped(failure)) => {
                let retry = format!("alpine down {}", held.session.session_id);
                Err(self.leave(held, failure.next(retry)).await)
            }
        }
    }

    /// A step has failed: the session waits in the state that says what may help.
    async fn end_down(&self, mut held: Held, failure: Failure) -> Failure {
        let id = held.session.session_id.clone();
        let (to, next) = match (held.session.state, failure.code) {
            (State::Stopping, _) => (Some(State::CloseFailed), format!("alpine down {id}")),
            (State::Persisting, ErrorCode::PersistPayloadTooLarge) => (
                Some(State::PersistFailed),
                format!("alpine down {id} --retry-persist"),
            ),
            (State::Persisting, _) => (
                Some(State::StoppedUnpersisted),
                format!("alpine down {id} --retry-persist"),
            ),
            // A discard whose destroy failed: the state still holds.
            _ => (
                None,
                format!(
                    "alpine down {id} --discard {}",
                    discard_digest(&held.session)
                ),
            ),
        };
        let failure = failure.next(next);
        let record = failure.to_record(&self.redactor);
        let ended = self
            .record(&mut held, move |tx, token| {
                let reason = record.error_code.clone();
                let noted = record.clone();
                match to {
                    Some(to) => tx.transition(token, to, &reason, |session| {
                        session.last_error = Some(noted)
                    }),
                    None => tx.update(token, |session| session.last_error = Some(noted)),
                }?;
                tx.finish(token, &Outcome::Failed(record)).map(|_| ())
            })
            .await;
        ended.map_or_else(|unrecorded| unrecorded, |()| failure)
    }

    /// The outcome of another process's `down`.
    async fn joined(
        &self,
        session: &SessionId,
        ended: OperationRecord,
    ) -> Result<DownOutcome, Failure> {
        if let Some(error) = &ended.error {
            return Err(Failure::from_record(error));
        }
        let id = session.clone();
        let session = self.read(move |snapshot| snapshot.session(&id)).await?;
        let session = session.ok_or_else(|| {
            Failure::new(
                ErrorCode::SessionNotFound,
                "the session is gone from the ledger",
            )
        })?;
        Ok(replay(&session, Some(&ended)))
    }
}

/// Ownership, and the reason that an admin has to give.
fn may_act(request: &DownRequest, session: &SessionRecord) -> Result<(), Failure> {
    may_touch(&request.caller, session)?;
    let reason = request.reason.as_deref().unwrap_or_default().trim();
    if session.new.owner != request.caller.principal && reason.is_empty() {
        return Err(Failure::new(
            ErrorCode::Usage,
            "acting on another's session needs a reason",
        )
        .next(format!("alpine down {} --reason '…'", session.session_id)));
    }
    Ok(())
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

/// Takes the lease and enters the plan's first state, in one transaction.
fn begin(
    tx: &mut Tx<'_>,
    request: &DownRequest,
    session: &SessionRecord,
    plan: DownPlan,
    reason: Option<String>,
) -> Result<Answer, LedgerError> {
    let superseded = ErrorRecord {
        error_code: ErrorCode::Interrupted.as_str().to_owned(),
        cause: "interrupted, and then brought down".to_owned(),
        next_step: String::new(),
        retryable: false,
        operation_id: None,
        exit_code: 1,
    };
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

fn no_provider(session: &SessionRecord) -> Failure {
    let provider = &session.new.provider;
    Failure::new(
        ErrorCode::ProviderNotFound,
        format!(
            "session `{}` was made by provider `{provider}`, which is not configured",
            session.session_id
        ),
    )
    .next("alpine config")
}

/// The `down` that gave the first answer.
fn first_answer(operations: &[OperationRecord]) -> Option<OperationRecord> {
    let ended = |operation: &&OperationRecord| {
        operation.action == Action::Down && operation.state == OperationState::Succeeded
    };
    operations.iter().find(ended).cloned()
}

/// The recorded answer again, with what has changed since.
fn replay(session: &SessionRecord, operation: Option<&OperationRecord>) -> DownOutcome {
    let first = operation
        .and_then(|operation| operation.result.clone())
        .and_then(|result| serde_json::from_value::<DownOutcome>(result).ok());
    let now = outcome(session, operation);
    first.map_or(now.clone(), |first| DownOutcome {
        next_step: now.next_step,
        ..first
    })
}

fn outcome(session: &SessionRecord, operation: Option<&OperationRecord>) -> DownOutcome {
    let snapshot = session.workspace_snapshot.clone();
    let reason = snapshot
        .as_ref()
        .and_then(|snapshot| snapshot["reason"].as_str())
        .map(str::to_owned);
    DownOutcome {
        session_id: session.session_id.to_string(),
        operation_id: operation.map(|operation| operation.operation_id.to_string()),
        state: session.state,
        durable_object_id: session.durable_object_id.clone(),
        persisted_at: session.persisted_at,
        persistence_verified: session.persistence_verified,
        history_truncated: session.history_truncated,
        workspace_snapshot: if reason.is_some() { None } else { snapshot },
        workspace_snapshot_reason: reason,
        next_step: next_step(
            session.session_id.as_str(),
            session.state,
            session.destroy_pending,
        ),
    }
}
