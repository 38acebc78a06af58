//! From a stopped sandbox to a verified durable object.

use crate::bring_up::sandbox;
use crate::call::{StepEnd, asking, fail};
use crate::engine::Engine;
use crate::gone::{confirmed, elsewhere, gone, identity, is_gone, must_not_be};
use crate::held::Held;
use crate::payload::{MAX_PAYLOAD, Payload, compact};
use crate::{ErrorCode, Progress, Step};
use alpine_ledger::{PersistAttempt, Receipt, State};
use alpine_provider_api::*;
use serde_json::Value;
use std::sync::Arc;

/// The reason recorded when the workspace is provably gone.
pub(crate) const WORKSPACE_LOST: &str = "workspace_lost";

impl Engine {
    /// Ends every process of the sandbox. Says whether the sandbox is provably gone.
    pub(crate) async fn stop(&self, held: &mut Held) -> Result<bool, StepEnd> {
        let provider = self.providers.get(&held.session.new.provider)?;
        let grace_ms = u64::try_from(self.limits.grace.as_millis()).unwrap_or(u64::MAX);
        let ask = StopRequest {
            sandbox_id: sandbox(held)?,
            grace_ms,
        };
        let work = asking(&provider, &ask, |provider, call, ask| async move {
            let id = ask.sandbox_id.clone();
            let stopped = provider.stop(&call, ask).await;
            confirmed(&provider, &call, &id, stopped).await?;
            must_not_be(&provider, &call, id, &[SandboxState::Running]).await
        });
        match self
            .step(
                held,
                Step::Stop,
                self.limits.grace + self.limits.force,
                work,
            )
            .await
        {
            Ok(_) => Ok(false),
            Err(end) if gone(&end) => Ok(true),
            Err(end) => Err(end),
        }
    }

    /// The attempt's fixed part: the captured workspace, the time, the payload. One that was recorded is taken as it is.
    pub(crate) async fn attempt_to_persist(
        &self,
        held: &mut Held,
        state: &'static str,
    ) -> Result<PersistAttempt, StepEnd> {
        let id = held.session.session_id.clone();
        let recorded = self
            .read(move |snapshot| snapshot.persist_attempt(&id))
            .await?;
        if let Some(attempt) =
            recorded.filter(|attempt| attempt.generation == held.session.persist_generation)
        {
            return Ok(attempt);
        }
        let staged = self.capture(held).await?;
        let id = held.session.session_id.clone();
        let (transitions, operations) = self
            .read(move |snapshot| Ok((snapshot.transitions(&id)?, snapshot.operations(&id)?)))
            .await?;
        // Read once: payload, receipt, session and output bear this time.
        let persisted_at = self.now();
        let summary = staged
            .as_ref()
            .map(summary)
            .ok_or_else(|| WORKSPACE_LOST.to_owned());
        let recorded_summary = summary
            .clone()
            .unwrap_or_else(|reason| serde_json::json!({"digest": null, "reason": reason}));
        let payload = Payload::new(
            &held.session,
            &transitions,
            &operations,
            persisted_at,
            state,
            summary,
        );
        let Some(payload) = compact(&payload, MAX_PAYLOAD) else {
            let cause =
                format!("the payload is over {MAX_PAYLOAD} bytes even without its histories");
            return Err(fail(
                held,
                ErrorCode::PersistPayloadTooLarge,
                cause,
                ErrorKind::TooLarge,
            ));
        };
        let attempt = PersistAttempt {
            generation: held.session.persist_generation,
            persisted_at,
            payload: payload.to_text(),
            staged: staged.and_then(|staged| serde_json::to_value(staged).ok()),
        };
        let (put, truncated) = (attempt.clone(), payload.history_truncated);
        self.record(held, move |tx, token| {
            tx.put_persist_attempt(token, &put)?;
            tx.update(token, |session| {
                session.persisted_at = Some(persisted_at);
                session.history_truncated = truncated;
                session.workspace_snapshot = Some(recorded_summary);
            })
            .map(|_| ())
        })
        .await?;
        Ok(attempt)
    }

    /// Stages the workspace; none when it is provably gone.
    async fn capture(&self, held: &mut Held) -> Result<Option<StagedSnapshot>, StepEnd> {
        let provider = self.providers.get(&held.session.new.provider)?;
        let ask = CaptureRequest {
            sandbox_id: sandbox(held)?,
            generation: held.session.persist_generation,
        };
        let made_by = held.session.provider_identity.clone();
        let configuration = self.providers.configuration(&held.session.new.provider);
        let ask = (ask, made_by, configuration.to_owned());
        let work = asking(&provider, &ask, |provider, call, ask| async move {
            let (ask, made_by, configuration) = ask;
            let id = ask.sandbox_id.clone();
            let captured = provider.capture(&call, ask).await;
            let captured = confirmed(&provider, &call, &id, captured).await;
            match (captured, made_by) {
                (Err(error), Some(made_by)) if is_gone(error.kind) => {
                    let now = identity(&provider.describe().await?.name, &configuration);
                    Err(if now == made_by {
                        error
                    } else {
                        elsewhere(&id)
                    })
                }
                (captured, _) => captured,
            }
        });
        match self
            .step(held, Step::Capture, self.limits.persist, work)
            .await
        {
            Ok(staged) => Ok(Some(staged)),
            Err(end) if gone(&end) => {
                let id = &held.session.session_id;
                self.watch.tell(Progress::Warning(format!(
                    "the workspace of session `{id}` is gone: only its record can be stored"
                )));
                Ok(None)
            }
            Err(end) => Err(end),
        }
    }

    /// Writes the object, reads it back, and says what was read: the receipt, for the caller to record.
    pub(crate) async fn persist_and_verify(
        &self,
        held: &mut Held,
        attempt: &PersistAttempt,
    ) -> Result<Receipt, StepEnd> {
        let provider = self.providers.get(&held.session.new.provider)?;
        let staged: Option<StagedSnapshot> = attempt
            .staged
            .clone()
            .and_then(|staged| serde_json::from_value(staged).ok());
        let ask = PersistRequest {
            sandbox_id: sandbox(held)?,
            session_id: held.session.session_id.to_string(),
            generation: attempt.generation,
            payload: attempt.payload.clone(),
            snapshot: staged.clone(),
        };
        let work = asking(&provider, &ask, |provider, call, ask| async move {
            provider.persist(&call, ask).await
        });
        let durable_object_id = self
            .step(held, Step::Persist, self.limits.persist, work)
            .await?
            .durable_object_id;
        let read = self.read_back(held, provider, &durable_object_id).await?;
        if let Some(difference) = difference(attempt, staged.as_ref(), &read) {
            let cause = format!(
                "verify: what was read back from `{durable_object_id}` differs: {difference}"
            );
            return Err(fail(
                held,
                ErrorCode::PersistenceVerificationFailed,
                cause,
                ErrorKind::Corrupt,
            ));
        }
        Ok(Receipt {
            generation: attempt.generation,
            durable_object_id,
            persisted_at: attempt.persisted_at,
            payload_digest: digest(&read.payload),
            snapshot_digest: read.snapshot.map(|snapshot| snapshot.digest),
            verified_at: self.now(),
        })
    }

    async fn read_back(
        &self,
        held: &mut Held,
        provider: Arc<dyn SandboxProvider>,
        id: &str,
    ) -> Result<ReadObjectReply, StepEnd> {
        let ask = ReadObjectRequest {
            durable_object_id: id.to_owned(),
        };
        let work = asking(&provider, &ask, |provider, call, ask| async move {
            provider.read_object(&call, ask).await
        });
        self.step(held, Step::Verify, self.limits.persist, work)
            .await
    }

    /// Saves what may be work of an `up` that failed after its agent was started.
    pub(crate) async fn rescue(&self, held: &mut Held) -> Result<(), StepEnd> {
        self.stop(held).await?;
        // A new operation makes a new attempt: what failed before may have failed for what was staged then.
        if !held.resumed || held.session.persist_generation == 0 {
            self.record(held, |tx, token| {
                tx.update(token, |session| session.persist_generation += 1)
                    .map(|_| ())
            })
            .await?;
        }
        let attempt = self
            .attempt_to_persist(held, State::Failed.as_str())
            .await?;
        let receipt = self.persist_and_verify(held, &attempt).await?;
        self.record(held, move |tx, token| {
            tx.put_receipt(token, &receipt)?;
            tx.update(token, |session| {
                session.durable_object_id = Some(receipt.durable_object_id);
                session.persistence_verified = true;
            })
            .map(|_| ())
        })
        .await?;
        Ok(())
    }
}

/// What output and payload tell of a snapshot.
fn summary(staged: &StagedSnapshot) -> Value {
    let left_out: Vec<_> = staged
        .left_out
        .iter()
        .take(20)
        .map(|one| serde_json::json!({"path": one.path, "reason": one.reason}))
        .collect();
    serde_json::json!({
        "digest": staged.digest,
        "size": staged.size,
        "entries": staged.entries,
        "left_out": {"count": staged.left_out.len(), "first": left_out},
    })
}

/// How what was read back differs from what was sent; none when it does not.
fn difference(
    attempt: &PersistAttempt,
    staged: Option<&StagedSnapshot>,
    read: &ReadObjectReply,
) -> Option<String> {
    let Ok(sent) = serde_json::from_str::<Payload>(&attempt.payload) else {
        return Some("the payload that was sent is not a payload".to_owned());
    };
    let Ok(found) = serde_json::from_str::<Payload>(&read.payload) else {
        return Some("the payload is not a payload".to_owned());
    };
    let fields = [
        ("session_id", sent.session_id == found.session_id),
        (
            "schema_version",
            sent.schema_version == found.schema_version,
        ),
        ("principal_id", sent.principal_id == found.principal_id),
        ("branch", sent.branch == found.branch),
        ("state", sent.state == found.state),
        (
            "persisted_at",
            attempt.persisted_at.to_string() == found.persisted_at,
        ),
        (
            "the payload's digest",
            digest(&attempt.payload) == digest(&read.payload),
        ),
        (
            "the snapshot's digest",
            staged.map(|s| s.digest.as_str()) == read.snapshot.as_ref().map(|s| s.digest.as_str()),
        ),
        (
            "the snapshot's size",
            staged.map(|s| s.size) == read.snapshot.as_ref().map(|s| s.size),
        ),
    ];
    fields
        .iter()
        .find(|(_, equal)| !equal)
        .map(|(name, _)| (*name).to_owned())
}

fn digest(text: &str) -> String {
    blake3::hash(text.as_bytes()).to_hex().to_string()
}
