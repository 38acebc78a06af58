//! Sandboxes that bear our ledger's id and should not be there, since no session owns them or theirs has ended: saved first,
//! destroyed only at a second look.

use crate::engine::Engine;
use crate::gone::{confirmed, is_gone};
use crate::payload::Payload;
use crate::reconcile::{Finding, Reconciled};
use crate::turn::Turn;
use crate::{ErrorCode, Failure};
use alpine_ledger::{QuarantineRecord, SessionId, SessionRecord, Timestamp};
use alpine_provider_api::*;
use std::sync::Arc;
use std::time::Duration;

/// A sandbox that should not be there.
#[derive(Debug)]
pub(crate) struct Stray {
    pub(crate) provider: String,
    pub(crate) sandbox: ListedSandbox,
    /// The session that has ended without it; none where no session owns it.
    pub(crate) owner: Option<SessionRecord>,
}

/// One look at a stray sandbox.
#[derive(Debug)]
struct Look<'a> {
    stray: &'a Stray,
    provider: Arc<dyn SandboxProvider>,
    call: Call,
    at: Timestamp,
}

impl Look<'_> {
    /// One that its session, should it be known again, never has, nor another look.
    fn generation(&self) -> u64 {
        self.at.0
    }
}

impl Engine {
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
        stray: Stray,
        turn: &Turn,
    ) -> Result<Reconciled, Failure> {
        let owner = stray.owner.as_ref();
        let finding = match owner {
            Some(_) => Finding::SandboxLeft,
            None => Finding::Orphan,
        };
        let id = stray.sandbox.sandbox_id.as_str().to_owned();
        let mut found = Reconciled {
            session_id: owner.map(|session| session.session_id.to_string()),
            sandbox_id: Some(id.clone()),
            finding,
            state: owner.map(|session| session.state),
            done: false,
            error: None,
            durable_object_id: None,
        };
        match turn {
            Turn::Mine { .. } => match self.save_or_reap(&stray).await {
                Ok(done) => found.done = done,
                Err(failure) if failure.code == ErrorCode::Interrupted => return Err(failure),
                Err(failure) => found.error = Some(self.told(&failure)),
            },
            Turn::Nobodys => {}
            Turn::Anothers(why) => found.error = Some(why.clone()),
        }
        let known = self.read(move |snapshot| snapshot.quarantined(&id)).await?;
        found.durable_object_id = known.and_then(|record| record.durable_object_id);
        Ok(found)
    }

    /// The same of the sandbox of a session that has ended: nothing says that what is in it was ever saved.
    pub(crate) async fn save_left(
        &self,
        session: SessionRecord,
        turn: &Turn,
    ) -> Result<Reconciled, Failure> {
        let Some(sandbox_id) = SandboxId::new(&session.sandbox_id) else {
            return Err(Failure::new(
                ErrorCode::Internal,
                "the sandbox's id is malformed",
            ));
        };
        let sandbox = ListedSandbox {
            sandbox_id,
            session_id: session.session_id.to_string(),
            state: SandboxState::Unknown,
        };
        let stray = Stray {
            provider: session.new.provider.clone(),
            sandbox,
            owner: Some(session),
        };
        self.quarantine(stray, turn).await
    }

    async fn save_or_reap(&self, stray: &Stray) -> Result<bool, Failure> {
        let id = stray.sandbox.sandbox_id.as_str().to_owned();
        let asked = id.clone();
        let known = self
            .read(move |snapshot| snapshot.quarantined(&asked))
            .await?;
        match known {
            Some(record) => {
                let record = self.in_time(record).await?;
                match record.durable_object_id.clone() {
                    Some(kept) => self.reap(record, &kept, stray).await,
                    None => self.save(record, stray).await,
                }
            }
            None => {
                let record = QuarantineRecord {
                    sandbox_id: id,
                    provider: stray.provider.clone(),
                    session_id: stray.sandbox.session_id.clone(),
                    found_at: self.now(),
                    grace_since: Some(self.ledger.moment()),
                    durable_object_id: None,
                    reaped_at: None,
                };
                self.note(record.clone()).await?;
                self.save(record, stray).await
            }
        }
    }

    async fn note(&self, record: QuarantineRecord) -> Result<(), Failure> {
        let (id, object) = (&record.sandbox_id, record.durable_object_id.as_deref());
        let reason = match (object, record.reaped_at) {
            (None, None) => id.clone(),
            (Some(object), None) => format!("{id}: saved as {object}"),
            (Some(object), Some(_)) => format!("{id}: destroyed; its work is in {object}"),
            (None, Some(_)) => format!("{id}: destroyed; nothing in it was left to save"),
        };
        self.write(move |tx| {
            tx.append_event(None, None, "quarantine", Some(&reason))?;
            tx.put_quarantine(&record)
        })
        .await
    }

    /// The first look saves it. A repeat after a crash sends the same bytes: they bear the time that was recorded.
    async fn save(&self, mut record: QuarantineRecord, stray: &Stray) -> Result<bool, Failure> {
        let look = self.look(stray, record.found_at).await?;
        let Some(staged) = self.capture_stray(&look).await? else {
            return self.destroy_after_grace(record, &look).await;
        };
        if let Some(stored) = stored_by_its_session(stray)
            && self.holds(&look, stored, &staged).await
        {
            record.durable_object_id = Some(stored.to_owned());
            return self.destroy_stray(record, &look).await;
        }
        record.durable_object_id = Some(self.store_stray(&look, staged).await?);
        self.note(record).await?;
        // Nothing is deleted at the first look.
        Ok(false)
    }

    /// Destroys it at a look after the grace period that has found it still unowned. Work that came after it was saved, or
    /// that can't be read back any more, is saved first.
    async fn reap(
        &self,
        mut record: QuarantineRecord,
        saved: &str,
        stray: &Stray,
    ) -> Result<bool, Failure> {
        if self.is_in_grace(&record) {
            return Ok(false);
        }
        let look = self.look(stray, self.now()).await?;
        if let Some(staged) = self.capture_stray(&look).await?
            && !self.holds(&look, saved, &staged).await
        {
            record.durable_object_id = Some(self.store_stray(&look, staged).await?);
            self.note(record.clone()).await?;
        }
        self.destroy_stray(record, &look).await
    }

    /// For how long its grace period has run; none when its beginning lies ahead of the clock, which was set back.
    fn waited(&self, record: &QuarantineRecord) -> Option<Duration> {
        let since = record.grace_since.clone();
        self.ledger
            .elapsed(&since.unwrap_or_else(|| record.found_at.into()))
    }

    fn is_in_grace(&self, record: &QuarantineRecord) -> bool {
        self.waited(record)
            .is_none_or(|waited| waited < self.limits.quarantine)
    }

    /// A grace period that would begin only when the clock gets there begins now.
    async fn in_time(&self, mut record: QuarantineRecord) -> Result<QuarantineRecord, Failure> {
        if self.waited(&record).is_none() {
            record.grace_since = Some(self.ledger.moment());
            self.note(record.clone()).await?;
        }
        Ok(record)
    }

    async fn destroy_after_grace(
        &self,
        record: QuarantineRecord,
        look: &Look<'_>,
    ) -> Result<bool, Failure> {
        if self.is_in_grace(&record) {
            return Ok(false);
        }
        self.destroy_stray(record, look).await
    }

    /// Destroys one in which nothing is left that is not saved.
    async fn destroy_stray(
        &self,
        mut record: QuarantineRecord,
        look: &Look<'_>,
    ) -> Result<bool, Failure> {
        let request = DestroyRequest {
            sandbox_id: look.stray.sandbox.sandbox_id.clone(),
        };
        self.within("destroy", look.provider.destroy(&look.call, request))
            .await?;
        record.reaped_at = Some(self.now());
        self.note(record).await?;
        Ok(true)
    }

    /// Ends all that runs in it, and captures it; none where its workspace is provably gone, as after a destroy that was cut
    /// short.
    async fn capture_stray(&self, look: &Look<'_>) -> Result<Option<StagedSnapshot>, Failure> {
        let sandbox_id = look.stray.sandbox.sandbox_id.clone();
        let stop = StopRequest {
            sandbox_id: sandbox_id.clone(),
            grace_ms: u64::try_from(self.limits.grace.as_millis()).unwrap_or(u64::MAX),
        };
        let id = stop.sandbox_id.clone();
        let stopped = unless_gone(look, &id, look.provider.stop(&look.call, stop));
        if self.within("stop", stopped).await?.is_none() {
            return Ok(None);
        }
        let capture = CaptureRequest {
            sandbox_id,
            generation: look.generation(),
        };
        let captured = unless_gone(look, &id, look.provider.capture(&look.call, capture));
        self.within("capture", captured).await
    }

    /// Writes what was captured as a durable object, and reads it back; the object's id.
    async fn store_stray(
        &self,
        look: &Look<'_>,
        staged: StagedSnapshot,
    ) -> Result<String, Failure> {
        let session_id = look.stray.sandbox.session_id.clone();
        let payload = Payload::orphan(&session_id, &staged, look.at).to_text();
        let ask = PersistRequest {
            sandbox_id: look.stray.sandbox.sandbox_id.clone(),
            session_id,
            generation: look.generation(),
            payload: payload.clone(),
            snapshot: Some(staged.clone()),
        };
        let id = self
            .within("persist", look.provider.persist(&look.call, ask))
            .await?
            .durable_object_id;
        let read = self.read_saved(look, &id).await?;
        let digest = read.snapshot.map(|snapshot| snapshot.digest);
        if read.payload != payload || digest != Some(staged.digest) {
            let cause =
                format!("verify: what was read back from `{id}` differs from what was sent");
            return Err(Failure::new(
                ErrorCode::PersistenceVerificationFailed,
                cause,
            ));
        }
        Ok(id)
    }

    /// Whether an object can be read back and holds what was captured.
    async fn holds(&self, look: &Look<'_>, id: &str, staged: &StagedSnapshot) -> bool {
        let saved = self.read_saved(look, id).await.ok();
        let saved = saved.and_then(|saved| saved.snapshot);
        saved.is_some_and(|saved| saved.digest == staged.digest)
    }

    async fn read_saved(&self, look: &Look<'_>, id: &str) -> Result<ReadObjectReply, Failure> {
        let request = ReadObjectRequest {
            durable_object_id: id.to_owned(),
        };
        self.within("verify", look.provider.read_object(&look.call, request))
            .await
    }

    /// A look under a fence of its own: above those that were taken before, and below that of a ledger that is imported
    /// later and has the session.
    async fn look<'a>(&self, stray: &'a Stray, at: Timestamp) -> Result<Look<'a>, Failure> {
        let mut call = self.quiet("op_reconcile");
        let ledger = self.ledger.clone();
        let fence = tokio::task::spawn_blocking(move || ledger.next_fence()).await;
        // Without one, which is refused, nothing is done.
        call.meta.fence = fence.unwrap_or_default();
        let provider = self.providers.get(&stray.provider)?;
        Ok(Look {
            stray,
            provider,
            call,
            at,
        })
    }

    /// A provider's answer, if it comes in the time that persisting may take.
    async fn within<T>(
        &self,
        step: &str,
        asked: impl Future<Output = Result<T, ProviderError>>,
    ) -> Result<T, Failure> {
        let limit = self.limits.persist + self.limits.grace;
        self.answer(step, limit, ErrorCode::CleanupFailed, asked)
            .await
    }
}

/// The object that the stray's session was stored in, where it was verified.
fn stored_by_its_session(stray: &Stray) -> Option<&str> {
    let owner = stray.owner.as_ref()?;
    let object = owner.durable_object_id.as_deref();
    object.filter(|_| owner.persistence_verified)
}

/// An answer; none where it is that the sandbox, or its workspace, is provably gone.
async fn unless_gone<T>(
    look: &Look<'_>,
    id: &SandboxId,
    asked: impl Future<Output = Result<T, ProviderError>>,
) -> Result<Option<T>, ProviderError> {
    match confirmed(&look.provider, &look.call, id, asked.await).await {
        Err(error) if is_gone(error.kind) => Ok(None),
        answered => answered.map(Some),
    }
}
