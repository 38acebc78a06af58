//! What a failed `up` leaves is cleaned up; what may be work is saved first.

use crate::again::anew;
use crate::bring_up::sandbox;
use crate::call::{StepEnd, asking};
use crate::caller::quoted;
use crate::engine::Engine;
use crate::gone::{confirmed, must_not_be};
use crate::held::Held;
use crate::{ErrorCode, Failure, Step};
use alpine_ledger::{NewSession, Outcome, State};
use alpine_provider_api::{DestroyRequest, ErrorKind, SandboxState};
use tokio::time::Instant;

impl Engine {
    /// A step of `up` has failed for good.
    pub(crate) async fn fail_up(&self, mut held: Held, failure: Failure) -> Failure {
        let failure = self.with_next_step(failure, &held);
        let record = failure.to_record(&self.redactor);
        let reason = record.error_code.clone();
        let moved = self
            .advance(&mut held, State::Failing, &reason, move |session| {
                session.last_error = Some(record)
            })
            .await;
        match moved {
            Ok(()) => self.end_failed_up(held, failure).await,
            Err(unrecorded) => self.leave(held, unrecorded).await,
        }
    }

    /// Cleans up in `failing`, and ends the operation with the failure that led there.
    pub(crate) async fn end_failed_up(&self, mut held: Held, failure: Failure) -> Failure {
        let failure = failure
            .in_operation(&held.operation.operation_id)
            .settled(true);
        match self.clean_up(&mut held).await {
            Ok(()) => {
                let record = failure.to_record(&self.redactor);
                self.end_cleaned(held, "cleaned up", Outcome::Failed(record))
                    .await
                    .map_or_else(|unrecorded| unrecorded, |()| failure)
            }
            Err(StepEnd::Failed(left, _)) => {
                let mut failure = failure;
                failure.cause = format!(
                    "{}; and what it left could not be cleaned up: {}",
                    failure.cause, left.cause
                );
                failure.next_step = format!("alpine down {}", held.session.session_id);
                let outcome = Outcome::Failed(failure.to_record(&self.redactor));
                self.end_uncleaned(held, left, outcome)
                    .await
                    .map_or_else(|unrecorded| unrecorded, |()| failure)
            }
            Err(StepEnd::Stopped(stopped)) => {
                let retry = format!("alpine down {}", held.session.session_id);
                self.leave(held, stopped.next(retry)).await
            }
        }
    }

    /// Everything is gone: `failing` → `failed`, and the operation ends.
    pub(crate) async fn end_cleaned(
        &self,
        mut held: Held,
        reason: &'static str,
        outcome: Outcome,
    ) -> Result<(), Failure> {
        self.record(&mut held, move |tx, token| {
            tx.transition(token, State::Failed, reason, |session| {
                session.opencode_url = None
            })?;
            tx.finish(token, &outcome).map(|_| ())
        })
        .await
    }

    /// Something is left: `failing` → `cleanup_failed`, and the operation ends.
    pub(crate) async fn end_uncleaned(
        &self,
        mut held: Held,
        left: Failure,
        outcome: Outcome,
    ) -> Result<(), Failure> {
        let left = Failure {
            code: ErrorCode::CleanupFailed,
            retryable: true,
            exit_code: 2,
            ..left
        };
        let left = left.next(format!("alpine down {}", held.session.session_id));
        let record = left.to_record(&self.redactor);
        self.record(&mut held, move |tx, token| {
            tx.transition(
                token,
                State::CleanupFailed,
                "the clean-up failed",
                |session| session.last_error = Some(record),
            )?;
            tx.finish(token, &outcome).map(|_| ())
        })
        .await
    }

    /// Saves what may be work, then destroys the sandbox. It has time of its own: a failed `up` may have used up its own.
    pub(crate) async fn clean_up(&self, held: &mut Held) -> Result<(), StepEnd> {
        held.deadline = Instant::now() + self.limits.down;
        if held.session.agent_started && !held.session.persistence_verified {
            self.rescue(held).await?;
        }
        self.destroy(held).await
    }

    /// Destroys the sandbox; one that never was is gone too.
    pub(crate) async fn destroy(&self, held: &mut Held) -> Result<(), StepEnd> {
        let provider = self.providers.get(&held.session.new.provider)?;
        let ask = DestroyRequest {
            sandbox_id: sandbox(held)?,
        };
        let work = asking(&provider, &ask, |provider, call, ask| async move {
            let id = ask.sandbox_id.clone();
            let destroyed = provider.destroy(&call, ask).await;
            confirmed(&provider, &call, &id, destroyed).await?;
            let there = [SandboxState::Running, SandboxState::Exited];
            must_not_be(&provider, &call, id, &there).await
        });
        match self
            .step(
                held,
                Step::Destroy,
                self.limits.grace + self.limits.force,
                work,
            )
            .await
        {
            Ok(_) | Err(StepEnd::Failed(_, ErrorKind::NotFound | ErrorKind::Destroyed)) => Ok(()),
            Err(end) => Err(end),
        }
    }

    /// The failure with a command to paste, where the provider knew none.
    fn with_next_step(&self, failure: Failure, held: &Held) -> Failure {
        if !failure.next_step.is_empty() {
            return failure;
        }
        let new = &held.session.new;
        let next = match failure.code.as_str() {
            "ERR_BRANCH_NOT_FOUND" => format!("git ls-remote --heads {}", quoted(&new.repo_url)),
            "ERR_PROVIDER_INCOMPATIBLE" => format!("alpine provider check {}", new.provider),
            "ERR_REPO_AUTH_REJECTED" => "gh auth status".to_owned(),
            // The repository's own step: it can be done by hand in a session without it.
            "ERR_INSTALL_FAILED" | "ERR_CONFIG_INVALID" => format!("{} --no-install", anew(new)),
            "ERR_AGENT_NOT_READY" if new.agent != "page" => anew(&NewSession {
                agent: "page".to_owned(),
                ..new.clone()
            }),
            _ => anew(new),
        };
        failure.next(next)
    }
}
