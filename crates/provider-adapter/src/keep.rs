//! Keeps snapshots as durable objects on this machine, and brings them back.

use crate::pipe::{InputWriter, PIECE};
use crate::provider::Adapted;
use crate::record::Filled;
use crate::run::blocking;
use crate::sandboxes::Sandboxes;
use crate::stage::{ROOT, failed};
use crate::sync::Counted;
use alpine_files::{self as file, io_error};
use alpine_objects::Store;
use alpine_provider_api::*;
use std::fs::File;
use std::io::BufWriter;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

impl<S: Sandboxes> Adapted<S> {
    /// Writes the durable object.
    pub(crate) async fn put(
        &self,
        call: &Call,
        request: PersistRequest,
    ) -> Result<PersistReply, ProviderError> {
        let id = &request.sandbox_id;
        let record = match self.records.admit(id, call.meta.fence).await {
            // A payload without a workspace is all that can be kept of a sandbox that is lost, or was destroyed.
            Err(ProviderError {
                kind: ErrorKind::NotFound | ErrorKind::Destroyed,
                ..
            }) if request.snapshot.is_none() => self.records.of(id),
            admitted => admitted?,
        };
        let staged = match &request.snapshot {
            None => None,
            Some(snapshot) => {
                let path = record.staged_file(&snapshot.staging_id)?;
                if !path.is_file() {
                    let message = format!("the staged snapshot `{}` is gone", snapshot.staging_id);
                    return Err(ProviderError::new(ErrorKind::Corrupt, message));
                }
                Some((path, snapshot.digest.as_str()))
            }
        };
        let staged = staged
            .as_ref()
            .map(|(path, digest)| (path.as_path(), *digest));
        let progress = |done, total| call.progress("storing the durable object", done, total);
        let durable_object_id = self
            .store()
            .await?
            .put(
                &request.session_id,
                request.generation,
                &request.payload,
                staged,
                &progress,
            )
            .await?;
        Ok(PersistReply { durable_object_id })
    }

    pub(crate) async fn store(&self) -> Result<Store, ProviderError> {
        let objects = self.objects.clone();
        blocking(move || Store::file(&objects)).await
    }

    /// Streams a durable object's workspace into an empty one.
    pub(crate) async fn bring_back(
        &self,
        call: &Call,
        request: RestoreRequest,
    ) -> Result<RestoreReply, ProviderError> {
        let (sandbox_id, id) = (request.sandbox_id, request.durable_object_id);
        let record = self.records.admit(&sandbox_id, call.meta.fence).await?;
        let _alone = record.alone("work").await?;
        let asked = Filled::Object {
            id: id.clone(),
            entries: 0,
        };
        if self.is_filled(&record, &asked)?
            && let Some(Filled::Object { entries, .. }) = file::read_json(&record.filled())?
        {
            return Ok(RestoreReply { entries });
        }
        let archive = self.store().await?.snapshot_file(&id).await?;
        let read = Arc::new(AtomicU64::new(0));
        let (seen, path) = (Arc::clone(&read), archive.clone());
        // All of it is looked at before the first byte of it goes anywhere.
        let checking = blocking(move || {
            let mut tell = |done| seen.store(done, Ordering::Relaxed);
            let mut nowhere = std::io::sink();
            let file = File::open(&path).map_err(|source| io_error(&path, &source))?;
            alpine_snapshot::to_tar(file, ROOT, &mut nowhere, &mut tell)
                .map_err(|source| failed(&source))
        });
        let entries = call
            .watched("checking the durable object", &read, checking)
            .await?;
        if entries == 0 {
            let message = "the durable object holds no workspace";
            return Err(ProviderError::new(ErrorKind::Corrupt, message));
        }
        let pack = move |to: InputWriter, told: &AtomicU64| {
            let file = File::open(&archive).map_err(|source| io_error(&archive, &source))?;
            let to = BufWriter::with_capacity(PIECE, Counted { to, told });
            alpine_snapshot::to_tar(file, ROOT, to, &mut |_| {})
                .map(drop)
                .map_err(|source| failed(&source))
        };
        self.fill(call, &sandbox_id, Filled::Object { id, entries }, pack)
            .await?;
        Ok(RestoreReply { entries })
    }
}
