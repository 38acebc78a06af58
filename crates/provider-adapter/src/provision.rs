//! Makes sandboxes, and destroys them for good.

use crate::provider::Adapted;
use crate::record::{Intent, Record};
use crate::run::blocking;
use crate::sandboxes::Sandboxes;
use alpine_files::{self as file, io_error};
use alpine_provider_api::*;
use std::fs::File;

impl<S: Sandboxes> Adapted<S> {
    /// Writes down what is asked for, and has the sandbox made, or finds it as it was asked for. One that a call stopped is
    /// not started again.
    pub(crate) async fn make(
        &self,
        call: &Call,
        request: ProvisionRequest,
    ) -> Result<ProvisionReply, ProviderError> {
        let id = request.sandbox_id.clone();
        let intent = Intent {
            version: 1,
            request,
        };
        let record = self.intend(&intent, call.meta.fence).await?;
        let _alone = record.alone("work").await?;
        self.records.admit(&id, call.meta.fence).await?;
        if file::read_json::<bool>(&record.stopped())?.is_some() {
            let made = file::read_json(&record.made())?;
            return Ok(made.unwrap_or_else(|| ProvisionReply {
                workspace_path: None,
                isolation: self.sandboxes.facts().isolation,
            }));
        }
        let made = self.sandboxes.provision(call, &intent.request).await;
        // Who was destroyed meanwhile leaves nothing.
        match self.records.refuse_destroyed(&id) {
            Ok(()) => {
                let made = made?;
                record.write(&record.made(), &made)?;
                Ok(made)
            }
            Err(destroyed) => {
                self.sandboxes.destroy(call, &id).await?;
                Err(destroyed)
            }
        }
    }

    async fn intend(&self, intent: &Intent, fence: u64) -> Result<Record, ProviderError> {
        let id = &intent.request.sandbox_id;
        let _held = self.records.lock(id).await?;
        self.records.refuse_destroyed(id)?;
        let record = self.records.of(id);
        let before = match file::is_dir(&record.dir)? {
            true => {
                record.raise_fence(fence)?;
                file::read_json::<Intent>(&record.intent())?
            }
            false => None,
        };
        match before {
            Some(before) if before == *intent => {}
            Some(_) => {
                let message = format!("sandbox `{id}` was made with other arguments");
                return Err(ProviderError::new(ErrorKind::Conflict, message));
            }
            None => {
                file::private_dir(&record.staged())?;
                record.raise_fence(fence)?;
                record.write(&record.intent(), intent)?;
                File::open(self.records.root())
                    .and_then(|root| root.sync_all())
                    .map_err(|source| io_error(self.records.root(), &source))?;
            }
        }
        Ok(record)
    }

    /// Remembers that the id is destroyed, and has everything of it removed.
    pub(crate) async fn unmake(
        &self,
        call: &Call,
        id: &SandboxId,
    ) -> Result<DestroyReply, ProviderError> {
        let record = self.records.of(id);
        {
            let _held = self.records.lock(id).await?;
            if file::is_dir(&record.dir)? {
                record.raise_fence(call.meta.fence)?;
            }
            self.records.bury(id)?;
        }
        // From here on nobody begins anything with it, and who has begun finds the tombstone.
        self.sandboxes.destroy(call, id).await?;
        self.close(call, id).await?;
        let state = self.sandboxes.inspect(id).await?;
        if matches!(state, SandboxState::Running | SandboxState::Exited) {
            let message = format!(
                "sandbox `{id}` is `{}` after it was destroyed",
                state.as_str()
            );
            return Err(ProviderError::transient(ErrorKind::Io, message));
        }
        blocking(move || match std::fs::remove_dir_all(&record.dir) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                Err(io_error(&record.dir, &source))
            }
            Ok(()) | Err(_) => Ok(DestroyReply {}),
        })
        .await
    }
}
