//! Ends sandboxes and captures their workspaces, in the order that loses nothing.

use crate::provider::Adapted;
use crate::record::{Intent, Record, gone};
use crate::sandboxes::{Sandboxes, Storage};
use crate::stage::Staged;
use alpine_files as file;
use alpine_provider_api::*;
use std::time::{Duration, Instant};

/// How long processes have after the workspace was read out, at least.
const LAST_GRACE: Duration = Duration::from_millis(500);

impl<S: Sandboxes> Adapted<S> {
    /// Ends every process. Where the workspace can only be read while the sandbox runs, it is staged first; a sandbox whose
    /// workspace can't be staged goes on running, since ending it would lose it.
    pub(crate) async fn end(
        &self,
        call: &Call,
        request: StopRequest,
    ) -> Result<StopReply, ProviderError> {
        let stopped = self.end_all(call, &request).await?;
        self.close(call, &request.sandbox_id).await?;
        Ok(stopped)
    }

    /// Closes the session's address.
    pub(crate) async fn close(&self, call: &Call, id: &SandboxId) -> Result<(), ProviderError> {
        match &self.front {
            Some(front) => front.close(call, id).await,
            None => Ok(()),
        }
    }

    async fn end_all(
        &self,
        call: &Call,
        request: &StopRequest,
    ) -> Result<StopReply, ProviderError> {
        let id = &request.sandbox_id;
        let record = self.records.admit(id, call.meta.fence).await?;
        let _alone = record.alone("keep").await?;
        let limit = Instant::now() + Duration::from_millis(request.grace_ms);
        let state = self.state(&record).await?;
        let mut forced = false;
        if state == SandboxState::Running {
            self.farewell(call, &record).await;
        }
        match (state, self.sandboxes.facts().storage) {
            (SandboxState::Missing, _) => return Err(gone(id)),
            (SandboxState::Exited, _) if record.read_staged()?.is_some() => {
                return Ok(StopReply { forced: false });
            }
            (_, Storage::WhenStopped) => {}
            (SandboxState::Exited, Storage::WhileRunning) => {
                if !self.revived(call, &record).await? {
                    return Ok(StopReply { forced: false });
                }
                self.stage(call, &record, None).await?;
            }
            (SandboxState::Running | SandboxState::Unknown, Storage::WhileRunning) => {
                let grace = limit.saturating_duration_since(Instant::now());
                forced = self.settle_and_stage(call, &record, grace).await?;
            }
        }
        if state == SandboxState::Running {
            self.keep_agent_log(call, &record).await;
        }
        self.records
            .publish(id, call.meta.fence, |record| {
                record.write(&record.stopped(), &true)
            })
            .await?;
        let grace = limit
            .saturating_duration_since(Instant::now())
            .max(LAST_GRACE);
        let stopped = self.sandboxes.stop(call, id, grace).await?;
        Ok(StopReply {
            forced: forced || stopped.forced,
        })
    }

    /// Stages the workspace of a sandbox that runs. Says whether something had to be killed before.
    async fn settle_and_stage(
        &self,
        call: &Call,
        record: &Record,
        grace: Duration,
    ) -> Result<bool, ProviderError> {
        let settled = self.sandboxes.settle(call, &record.id, grace).await;
        let staged = match &settled {
            Ok(_) => self.stage(call, record, None).await.map(drop),
            Err(error) => Err(error.clone()),
        };
        match staged {
            // A stop that was given up may go on all the same, after it has staged the workspace.
            Err(error) if !self.ended_and_staged(record).await? => Err(error),
            Ok(()) | Err(_) => Ok(settled.is_ok_and(|settled| settled.forced)),
        }
    }

    /// Whether it has ended, and its workspace is staged.
    async fn ended_and_staged(&self, record: &Record) -> Result<bool, ProviderError> {
        let ended = self.state(record).await? == SandboxState::Exited;
        Ok(ended && record.read_staged()?.is_some())
    }

    /// Tries to start a sandbox that ended by itself, for its workspace to be read. Says whether it runs.
    async fn revived(&self, call: &Call, record: &Record) -> Result<bool, ProviderError> {
        let Some(intent) = file::read_json::<Intent>(&record.intent())? else {
            return Ok(false);
        };
        if let Err(error) = self.sandboxes.provision(call, &intent.request).await {
            call.warn(format!(
                "sandbox `{}` can't be started again: {error}",
                record.id
            ));
            return Ok(false);
        }
        Ok(self.sandboxes.inspect(&record.id).await? == SandboxState::Running)
    }

    /// The snapshot for an attempt to persist: the one that was staged for it, the one that `stop` staged, or a new one.
    pub(crate) async fn keep(
        &self,
        call: &Call,
        request: CaptureRequest,
    ) -> Result<StagedSnapshot, ProviderError> {
        let id = &request.sandbox_id;
        let record = self.records.admit(id, call.meta.fence).await?;
        let _alone = record.alone("keep").await?;
        let staged = self.whole(call, &record).await?;
        let generation = Some(request.generation);
        if let Some(staged) = &staged
            && staged.generation == generation
        {
            return Ok(staged.snapshot.clone());
        }
        let can_be_read = match (self.state(&record).await?, self.sandboxes.facts().storage) {
            (SandboxState::Running, _) => true,
            (SandboxState::Exited, Storage::WhenStopped) => !self.is_missing(&record).await?,
            (SandboxState::Exited, Storage::WhileRunning) => false,
            (SandboxState::Missing | SandboxState::Unknown, _) => false,
        };
        match staged {
            _ if can_be_read => self.stage(call, &record, generation).await,
            Some(Staged { snapshot, .. }) => {
                let staged = Staged {
                    generation,
                    snapshot: snapshot.clone(),
                };
                self.records
                    .publish(id, call.meta.fence, |record| record.write_staged(&staged))
                    .await?;
                Ok(snapshot)
            }
            None => Err(self.lost(&record).await?),
        }
    }

    /// Why there is nothing to keep: that it is provably gone, or that it can't be had.
    async fn lost(&self, record: &Record) -> Result<ProviderError, ProviderError> {
        let id = &record.id;
        if record.read_staged()?.is_some() {
            let message = format!("the staged snapshot of sandbox `{id}` is damaged");
            return Ok(ProviderError::new(ErrorKind::Io, message));
        }
        Ok(match self.state(record).await? {
            SandboxState::Missing => ProviderError::new(
                ErrorKind::WorkspaceLost,
                format!("sandbox `{id}` is gone, and its workspace with it"),
            ),
            SandboxState::Running | SandboxState::Exited | SandboxState::Unknown => {
                ProviderError::new(
                    ErrorKind::Io,
                    format!(
                        "sandbox `{id}` ended before its workspace was read, and does not start again"
                    ),
                )
            }
        })
    }

    async fn is_missing(&self, record: &Record) -> Result<bool, ProviderError> {
        Ok(self.sandboxes.inspect(&record.id).await? == SandboxState::Missing)
    }

    /// How a sandbox is of which there is a record. What is staged of it is storage too: with that it is not missing.
    pub(crate) async fn state(&self, record: &Record) -> Result<SandboxState, ProviderError> {
        let state = self.sandboxes.inspect(&record.id).await?;
        match state {
            SandboxState::Missing if record.read_staged()?.is_some() => Ok(SandboxState::Exited),
            SandboxState::Missing
            | SandboxState::Running
            | SandboxState::Exited
            | SandboxState::Unknown => Ok(state),
        }
    }
}
