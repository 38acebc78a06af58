//! `down`: from every state to `stopped` or `failed`, without losing a byte.

use crate::again::down_again;
use crate::ask::{Answer, discard_digest, first_answer};
use crate::call::StepEnd;
use crate::engine::Engine;
use crate::held::Held;
use crate::next::of_state;
use crate::{Caller, DownPlan, ErrorCode, Failure};
use alpine_ledger::{
    ErrorRecord, OperationRecord, Outcome, SessionId, SessionRecord, State, Timestamp,
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
    /// Why the sandbox is still to be destroyed.
    #[serde(default)]
    pub last_error: Option<ErrorRecord>,
    /// What is still to be done.
    pub next_step: Option<String>,
}

/// What became of the sandbox of a session whose work is safe, or was given up.
#[derive(Debug)]
enum End {
    Destroyed,
    Undestroyed(ErrorRecord),
}

impl Engine {
    /// Brings a session down, or answers as before.
    ///
    /// # Errors
    /// As the contract's table of `down` has it.
    pub async fn down(&self, request: DownRequest) -> Result<DownOutcome, Failure> {
        let retried = request.retry_persist;
        self.down_at(request, None).await.map_err(|failure| {
            // Another attempt to persist is made only for those who ask for it.
            let kept = failure.code == ErrorCode::PersistenceVerificationFailed;
            failure.settled(kept && !retried)
        })
    }

    /// The same, if the session is still at this version when its lease is taken.
    pub(crate) async fn down_at(
        &self,
        request: DownRequest,
        version: Option<u64>,
    ) -> Result<DownOutcome, Failure> {
        let limit = request.timeout.unwrap_or(self.limits.down);
        let deadline = Instant::now() + limit;
        loop {
            let answer = self.ask_down(&request, version, deadline).await;
            match answer.map_err(|failure| failure.carried_on(|| down_again(&request)))? {
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
                    self.look_again(&session).await?;
                    return Ok(replay(&session, operation.as_ref()));
                }
                Answer::No(failure) => return Err(failure),
            }
        }
    }

    async fn carry_down(&self, mut held: Held, plan: DownPlan) -> Result<DownOutcome, Failure> {
        let done = match plan {
            DownPlan::CleanUp => return self.clean_down(held).await,
            DownPlan::Close
            | DownPlan::CarryOn
            | DownPlan::RetryPersist
            | DownPlan::Discard
            | DownPlan::Destroy
            | DownPlan::Refuse
            | DownPlan::Replay => self.close(&mut held).await,
        };
        match done {
            Ok(end) => {
                let outcome = self.end_well(&mut held, end).await?;
                self.first(&held, outcome).await
            }
            Err(StepEnd::Failed(failure, _)) => Err(self.end_down(held, failure).await),
            Err(StepEnd::Stopped(failure)) => {
                let retry = format!("alpine down {}", held.session.session_id);
                Err(self.leave(held, failure.next(retry)).await)
            }
        }
    }

    /// The answer of the first `down` that ended well; this one may only have finished its destroy.
    async fn first(&self, held: &Held, outcome: DownOutcome) -> Result<DownOutcome, Failure> {
        let id = held.session.session_id.clone();
        let operations = self.read(move |snapshot| snapshot.operations(&id)).await?;
        let first = first_answer(&operations);
        Ok(first.map_or(outcome, |first| replay(&held.session, Some(&first))))
    }

    /// Stop, capture, persist, verify, destroy: from wherever the session stands.
    async fn close(&self, held: &mut Held) -> Result<End, StepEnd> {
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
            Ok(()) => Ok(End::Destroyed),
            // The work is safe, or was given up: what is left to delete waits for the next `down`.
            Err(StepEnd::Failed(failure, _)) => {
                let failure = failure.next(format!("alpine down {}", held.session.session_id));
                Ok(End::Undestroyed(failure.to_record(&self.redactor)))
            }
            Err(stopped) => Err(stopped),
        }
    }

    /// What became of the sandbox, and the end of the operation: one transaction, so that neither is there without the other.
    async fn end_well(&self, held: &mut Held, end: End) -> Result<DownOutcome, Failure> {
        let operation = held.operation.clone();
        self.record(held, move |tx, token| {
            let session = match end {
                End::Destroyed => tx.update(token, |session| {
                    session.destroy_pending = false;
                    // What a destroy failed of before is mended.
                    let destroy = ErrorCode::CleanupFailed.as_str();
                    session
                        .last_error
                        .take_if(|error| error.error_code == destroy);
                }),
                End::Undestroyed(error) => {
                    tx.update(token, |session| session.last_error = Some(error))
                }
            }?;
            let outcome = outcome(&session, Some(&operation));
            let result = serde_json::to_value(&outcome).unwrap_or_default();
            tx.finish(token, &Outcome::Succeeded(result))?;
            Ok(outcome)
        })
        .await
    }

    /// Cleans up what an `up` left; the session ends `failed`.
    async fn clean_down(&self, mut held: Held) -> Result<DownOutcome, Failure> {
        match self.clean_up(&mut held).await {
            Ok(()) => {
                let ended = DownOutcome {
                    state: State::Failed,
                    last_error: None,
                    next_step: None,
                    ..outcome(&held.session, Some(&held.operation))
                };
                let result = serde_json::to_value(&ended).unwrap_or_default();
                self.end_cleaned(held, "brought down", Outcome::Succeeded(result))
                    .await?;
                Ok(ended)
            }
            Err(StepEnd::Failed(left, _)) => {
                let cause = self.way_out(&held, left.cause);
                let failure = Failure {
                    cause,
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

    /// The cause, with how to give up a workspace that can't be saved.
    fn way_out(&self, held: &Held, cause: String) -> String {
        if !held.session.agent_started || held.session.persistence_verified {
            return cause;
        }
        let (id, digest) = (&held.session.session_id, discard_digest(&held.session));
        format!(
            "{cause}; the workspace is kept; to give it up instead: alpine down {id} --discard {digest}"
        )
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
            // Nothing else can fail: the state still holds.
            _ => (None, format!("alpine down {id}")),
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

/// The recorded answer again, with what has changed since.
fn replay(session: &SessionRecord, operation: Option<&OperationRecord>) -> DownOutcome {
    let first = operation
        .and_then(|operation| operation.result.clone())
        .and_then(|result| serde_json::from_value::<DownOutcome>(result).ok());
    let now = outcome(session, operation);
    first.map_or(now.clone(), |first| DownOutcome {
        last_error: now.last_error,
        next_step: now.next_step,
        ..first
    })
}

/// A session's snapshot, or why it has none: one of them, once it was looked for.
#[must_use]
pub fn snapshot_or_reason(recorded: Option<&Value>) -> (Option<&Value>, Option<&str>) {
    let reason = recorded.and_then(|snapshot| snapshot["reason"].as_str());
    (recorded.filter(|_| reason.is_none()), reason)
}

fn outcome(session: &SessionRecord, operation: Option<&OperationRecord>) -> DownOutcome {
    let (snapshot, reason) = snapshot_or_reason(session.workspace_snapshot.as_ref());
    DownOutcome {
        session_id: session.session_id.to_string(),
        operation_id: operation.map(|operation| operation.operation_id.to_string()),
        state: session.state,
        durable_object_id: session.durable_object_id.clone(),
        persisted_at: session.persisted_at,
        persistence_verified: session.persistence_verified,
        history_truncated: session.history_truncated,
        workspace_snapshot: snapshot.cloned(),
        workspace_snapshot_reason: reason.map(str::to_owned),
        last_error: session
            .last_error
            .clone()
            .filter(|_| session.state.is_terminal() && session.destroy_pending),
        next_step: of_state(
            session.session_id.as_str(),
            session.state,
            session.destroy_pending,
        ),
    }
}
