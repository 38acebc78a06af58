//! Sandboxes that bear our ledger's id and that no session owns: saved first, destroyed only at a second look.

use crate::engine::Engine;
use crate::payload::Payload;
use crate::reconcile::{Finding, Reconciled};
use crate::{ErrorCode, Failure};
use alpine_ledger::{QuarantineRecord, SessionId, SessionRecord};
use alpine_provider_api::*;
use std::sync::Arc;

impl Engine {
    /// What the providers that answer say they have of this ledger's.
    pub(crate) async fn listed(&self) -> Result<Vec<(String, ListedSandbox)>, Failure> {
        let mut listed = Vec::new();
        for name in self.providers.names() {
            let provider = self.providers.get(name)?;
            let call = self.quiet("op_reconcile");
            let request = ListRequest {
                ledger_id: self.ledger.id().to_owned(),
            };
            match tokio::time::timeout(self.limits.probe, provider.list(&call, request)).await {
                Ok(Ok(reply)) => listed.extend(
                    reply
                        .sandboxes
                        .into_iter()
                        .map(|sandbox| (name.to_owned(), sandbox)),
                ),
                Ok(Err(error)) => {
                    tracing::warn!(provider = name, cause = %self.redactor.redact(&error.message), "its sandboxes could not be listed")
                }
                Err(_) => tracing::warn!(provider = name, "its sandboxes were not listed in time"),
            }
        }
        Ok(listed)
    }

    /// The session that has the sandbox, be it ended or not.
    pub(crate) async fn owner_of(
        &self,
        sandbox: &ListedSandbox,
    ) -> Result<Option<SessionRecord>, Failure> {
        let (id, session) = (
            sandbox.sandbox_id.as_str().to_owned(),
            SessionId::from_recorded(sandbox.session_id.clone()),
        );
        self.read(move |snapshot| {
            let session = snapshot.session(&session)?;
            Ok(session.filter(|session| session.sandbox_id == id))
        })
        .await
    }

    /// The first look saves the workspace as a durable object; one after the grace period destroys the sandbox.
    pub(crate) async fn quarantine(
        &self,
        provider: &str,
        sandbox: &ListedSandbox,
        dry_run: bool,
    ) -> Result<Reconciled, Failure> {
        let mut found = Reconciled {
            session_id: None,
            sandbox_id: sandbox.sandbox_id.as_str().to_owned(),
            finding: Finding::Orphan,
            state: None,
            done: false,
            error: None,
        };
        if dry_run {
            return Ok(found);
        }
        let id = found.sandbox_id.clone();
        let known = self.read(move |snapshot| snapshot.quarantined(&id)).await?;
        let done = match known {
            Some(record) if record.durable_object_id.is_some() => self.reap(record, sandbox).await,
            Some(record) => self.save(record, sandbox).await,
            None => {
                let record = QuarantineRecord {
                    sandbox_id: found.sandbox_id.clone(),
                    provider: provider.to_owned(),
                    session_id: sandbox.session_id.clone(),
                    found_at: self.now(),
                    durable_object_id: None,
                    reaped_at: None,
                };
                self.note(record.clone()).await?;
                self.save(record, sandbox).await
            }
        };
        match done {
            Ok(done) => found.done = done,
            Err(failure) if failure.code == ErrorCode::Interrupted => return Err(failure),
            Err(failure) => {
                found.error = Some(
                    self.redactor
                        .redact(&format!("{}: {}", failure.code, failure.cause)),
                )
            }
        }
        Ok(found)
    }

    async fn note(&self, record: QuarantineRecord) -> Result<(), Failure> {
        self.write(move |tx| {
            tx.append_event(None, None, "quarantine", Some(&record.sandbox_id))?;
            tx.put_quarantine(&record)
        })
        .await
    }

    /// Stops it, captures it, writes it, reads it back.
    async fn save(
        &self,
        mut record: QuarantineRecord,
        sandbox: &ListedSandbox,
    ) -> Result<bool, Failure> {
        let provider = self.providers.get(&record.provider)?;
        let (sandbox_id, call) = (sandbox.sandbox_id.clone(), self.alone());
        // One that its session, should it be known again, never has.
        let generation = record.found_at.0;
        let grace_ms = u64::try_from(self.limits.grace.as_millis()).unwrap_or(u64::MAX);
        self.within(
            "stop",
            provider.stop(
                &call,
                StopRequest {
                    sandbox_id: sandbox_id.clone(),
                    grace_ms,
                },
            ),
        )
        .await?;
        let captured = self
            .within(
                "capture",
                provider.capture(
                    &call,
                    CaptureRequest {
                        sandbox_id: sandbox_id.clone(),
                        generation,
                    },
                ),
            )
            .await?;
        // A repeat after a crash sends the same bytes: their time is that of the first look.
        let payload = Payload::orphan(&record, &captured).to_text();
        let ask = PersistRequest {
            sandbox_id,
            session_id: record.session_id.clone(),
            generation,
            payload: payload.clone(),
            snapshot: Some(captured.clone()),
        };
        let id = self
            .within("persist", provider.persist(&call, ask))
            .await?
            .durable_object_id;
        let read = self
            .within(
                "verify",
                provider.read_object(
                    &call,
                    ReadObjectRequest {
                        durable_object_id: id.clone(),
                    },
                ),
            )
            .await?;
        if read.payload != payload
            || read.snapshot.map(|snapshot| snapshot.digest) != Some(captured.digest)
        {
            let cause =
                format!("verify: what was read back from `{id}` differs from what was sent");
            return Err(Failure::new(
                ErrorCode::PersistenceVerificationFailed,
                cause,
            ));
        }
        record.durable_object_id = Some(id);
        self.note(record).await?;
        // Nothing is deleted at the first look.
        Ok(false)
    }

    /// Destroys it, once the grace period is over and a second look has found it still unowned.
    async fn reap(
        &self,
        mut record: QuarantineRecord,
        sandbox: &ListedSandbox,
    ) -> Result<bool, Failure> {
        if self.now().since(record.found_at) < self.limits.quarantine {
            return Ok(false);
        }
        let provider: Arc<dyn SandboxProvider> = self.providers.get(&record.provider)?;
        let request = DestroyRequest {
            sandbox_id: sandbox.sandbox_id.clone(),
        };
        self.within("destroy", provider.destroy(&self.alone(), request))
            .await?;
        record.reaped_at = Some(self.now());
        self.note(record).await?;
        Ok(true)
    }

    /// A call under the time as its fence: above those that were taken before, and below that of a ledger that is imported
    /// later and has the session.
    fn alone(&self) -> Call {
        let mut call = self.quiet("op_reconcile");
        call.meta.fence = self.now().0;
        call
    }

    /// A provider's answer, if it comes in the time that persisting may take.
    async fn within<T>(
        &self,
        step: &str,
        asked: impl Future<Output = Result<T, ProviderError>>,
    ) -> Result<T, Failure> {
        let mut interrupt = self.interrupt.clone();
        let answer = tokio::select! {
            signal = interrupt.raised() => return Err(Failure::signalled(signal)),
            answer = tokio::time::timeout(self.limits.persist + self.limits.grace, asked) => answer,
        };
        match answer {
            Ok(Ok(reply)) => Ok(reply),
            Ok(Err(error)) => {
                let code = if error.kind.has_crashed() {
                    ErrorCode::ProviderCrashed
                } else {
                    ErrorCode::CleanupFailed
                };
                Err(Failure::new(code, format!("{step}: {}", error.message)))
            }
            Err(_) => Err(Failure::new(
                ErrorCode::Timeout,
                format!("`{step}` was not answered in time"),
            )),
        }
    }
}
