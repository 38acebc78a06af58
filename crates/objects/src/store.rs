//! A store of durable objects in a directory.

use crate::directory;
use crate::error::io;
use crate::id::ObjectId;
use crate::manifest::MANIFEST;
use crate::read;
use crate::write::{self, Staged};
use alpine_provider_api::{ErrorKind, ProviderError, ReadObjectReply};
use object_store::local::LocalFileSystem;
use object_store::path::Path as Key;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::mpsc;

/// A store of durable objects.
#[derive(Clone, Debug)]
pub struct Store {
    pub(crate) files: Arc<LocalFileSystem>,
}

/// Receives how many bytes are done, and how many there are where that is known.
pub(crate) type Progress<'a> = &'a (dyn Fn(u64, Option<u64>) + Send + Sync);

impl Store {
    /// A store in a directory of this machine, which is made if it is not there, for its owner alone. Whatever is written is
    /// flushed to the disk before it counts as written.
    ///
    /// # Errors
    /// `Io` or `NoSpace` when the directory can't be made or used.
    pub fn file(directory: &Path) -> Result<Self, ProviderError> {
        let failed = |error: std::io::Error| io("use the directory", directory, &error);
        directory::make(directory).map_err(failed)?;
        let permissions = std::fs::metadata(directory).map_err(failed)?.permissions();
        if permissions.mode() & 0o077 != 0 {
            std::fs::set_permissions(directory, PermissionsExt::from_mode(0o700))
                .map_err(failed)?;
        }
        let files = LocalFileSystem::new_with_prefix(directory)
            .map_err(|error| {
                ProviderError::new(
                    ErrorKind::Io,
                    format!("can't use the directory `{}`: {error}", directory.display()),
                )
            })?
            .with_fsync(true);
        Ok(Self {
            files: Arc::new(files),
        })
    }

    /// Writes an object: the payload, the snapshot (a staged file and the digest it had), and last the manifest. The same
    /// request gives the same id; what is there whole already is read, not written again. When this is dropped, the writing
    /// goes on by itself, and a repeat waits for it.
    ///
    /// # Errors
    /// `InvalidArgument`, `Corrupt` (the staged file is not what it was), `NoSpace`, `Io`. Nothing is visible then.
    pub async fn put(
        &self,
        session_id: &str,
        generation: u64,
        payload: &str,
        snapshot: Option<(&Path, &str)>,
        progress: &(dyn Fn(u64, Option<u64>) + Send + Sync),
    ) -> Result<String, ProviderError> {
        let staged = snapshot.map(|(path, digest)| Staged {
            path: path.to_owned(),
            digest: digest.to_owned(),
        });
        let digest = snapshot.map(|(_, digest)| digest);
        let id = ObjectId::of(session_id, generation, payload, digest)?;
        let text = id.to_string();
        let (send, mut told) = mpsc::unbounded_channel();
        let writing = tokio::spawn(write::put(
            self.clone(),
            id,
            payload.to_owned(),
            staged,
            send,
        ));
        while let Some((done, total)) = told.recv().await {
            progress(done, total);
        }
        let written = writing.await.unwrap_or_else(|error| {
            let message = format!("writing the durable object `{text}` ended: {error}");
            Err(ProviderError::new(ErrorKind::Internal, message))
        });
        written.map(|()| text)
    }

    /// Reads an object from the disk, every byte of it, and hashes the snapshot.
    ///
    /// # Errors
    /// `InvalidArgument`, `NotFound`, `Corrupt`, `Io`.
    pub async fn read(
        &self,
        durable_object_id: &str,
        progress: &(dyn Fn(u64, Option<u64>) + Send + Sync),
    ) -> Result<ReadObjectReply, ProviderError> {
        let id = ObjectId::parse(durable_object_id)?;
        read::read(self, &id, progress).await
    }

    /// Where an object's snapshot is, for a restore.
    ///
    /// # Errors
    /// `InvalidArgument`, `NotFound` (no such object, or it has no snapshot), `Corrupt`, `Io`.
    pub async fn snapshot_file(&self, durable_object_id: &str) -> Result<PathBuf, ProviderError> {
        let id = ObjectId::parse(durable_object_id)?;
        read::snapshot_file(self, &id).await
    }

    /// The file of a key.
    pub(crate) fn path(&self, key: &Key) -> Result<PathBuf, ProviderError> {
        self.files
            .path_to_filesystem(key)
            .map_err(|error| crate::error::failed("name", key, &error))
    }

    /// The directory of an object.
    pub(crate) fn folder(&self, id: &ObjectId) -> Result<PathBuf, ProviderError> {
        let manifest = self.path(&id.key(MANIFEST))?;
        let folder = manifest.parent().map(Path::to_owned);
        folder.ok_or_else(|| {
            ProviderError::new(ErrorKind::Internal, format!("`{id}` has no directory"))
        })
    }
}
