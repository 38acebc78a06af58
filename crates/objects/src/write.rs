//! Writes an object so that it is seen whole or not at all.

use crate::error::{failed, io};
use crate::id::ObjectId;
use crate::manifest::{MANIFEST, Manifest, PAYLOAD, Part, SNAPSHOT, VERSION};
use crate::store::{Progress, Store};
use alpine_provider_api::{ErrorKind, ProviderError};
use object_store::path::Path as Key;
use object_store::{MultipartUpload, ObjectStoreExt, PutPayload};
use std::fs::File;
use std::io::Read;
use std::path::Path;

const CHUNK: usize = 4 * 1024 * 1024;

/// A snapshot that waits to be written, and what it was when it was captured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Staged<'a> {
    pub(crate) path: &'a Path,
    pub(crate) digest: &'a str,
}

/// Writes everything, the manifest last.
pub(crate) async fn write(
    store: &Store,
    id: &ObjectId,
    payload: &str,
    staged: Option<&Staged<'_>>,
    progress: Progress<'_>,
) -> Result<(), ProviderError> {
    sweep(store, id).await?;
    let snapshot = match staged {
        Some(staged) => Some(copy(store, &id.key(SNAPSHOT), staged, progress).await?),
        None => None,
    };
    put(store, &id.key(PAYLOAD), payload.as_bytes().to_vec()).await?;
    let manifest = Manifest {
        schema_version: VERSION.to_owned(),
        durable_object_id: id.to_string(),
        payload: Part::of(payload.as_bytes()),
        snapshot,
    };
    let text = serde_json::to_vec(&manifest)
        .map_err(|error| ProviderError::new(ErrorKind::Internal, error.to_string()))?;
    put(store, &id.key(MANIFEST), text).await
}

/// Removes what an interrupted write left. An object that has its manifest but is damaged is set aside and not removed: the
/// staged snapshot has not proved yet that it is any better.
async fn sweep(store: &Store, id: &ObjectId) -> Result<(), ProviderError> {
    let manifest = store.path(&id.key(MANIFEST))?;
    let Some(folder) = manifest.parent().map(Path::to_owned) else {
        return Ok(());
    };
    let shown = folder.clone();
    let swept = tokio::task::spawn_blocking(move || {
        let mut aside = folder.clone().into_os_string();
        aside.push(".damaged");
        if manifest.exists() {
            remove(Path::new(&aside))?;
            std::fs::rename(&folder, &aside)
        } else {
            remove(&folder)
        }
    });
    swept
        .await
        .unwrap_or_else(|error| Err(std::io::Error::other(error)))
        .map_err(|error| io("clear", &shown, &error))
}

fn remove(folder: &Path) -> std::io::Result<()> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

async fn put(store: &Store, key: &Key, bytes: Vec<u8>) -> Result<(), ProviderError> {
    store
        .files
        .put(key, PutPayload::from(bytes))
        .await
        .map(|_| ())
        .map_err(|error| failed("write", key, &error))
}

/// Copies the staged file and hashes what is sent. It appears under its key only if it is what it was.
async fn copy(
    store: &Store,
    key: &Key,
    staged: &Staged<'_>,
    progress: Progress<'_>,
) -> Result<Part, ProviderError> {
    let file = open(staged.path)?;
    let mut upload = store
        .files
        .put_multipart(key)
        .await
        .map_err(|error| failed("write", key, &error))?;
    let sent = send(file, upload.as_mut(), key, staged, progress).await;
    let sent = match sent {
        Ok(part) if part.digest == staged.digest => Ok(part),
        Ok(_) => Err(ProviderError::new(
            ErrorKind::Corrupt,
            format!(
                "the staged snapshot `{}` is not what it was",
                staged.path.display()
            ),
        )),
        Err(error) => Err(error),
    };
    match sent {
        Ok(part) => {
            upload
                .complete()
                .await
                .map_err(|error| failed("write", key, &error))?;
            Ok(part)
        }
        Err(error) => {
            // What could not be removed is swept by the next attempt; the first failure is the one to tell.
            let _ = upload.abort().await;
            Err(error)
        }
    }
}

async fn send(
    file: File,
    upload: &mut dyn MultipartUpload,
    key: &Key,
    staged: &Staged<'_>,
    progress: Progress<'_>,
) -> Result<Part, ProviderError> {
    let unread = |error: std::io::Error| io("read the staged snapshot", staged.path, &error);
    let total = file.metadata().map_err(unread)?.len();
    let mut file = Some(file);
    let mut hasher = blake3::Hasher::new();
    let mut done = 0;
    while let Some(open) = file.take() {
        let (back, bytes) = tokio::task::spawn_blocking(move || chunk(open))
            .await
            .unwrap_or_else(|error| Err(std::io::Error::other(error)))
            .map_err(unread)?;
        if bytes.is_empty() {
            break;
        }
        hasher.update(&bytes);
        done += bytes.len() as u64;
        upload
            .put_part(PutPayload::from(bytes))
            .await
            .map_err(|error| failed("write", key, &error))?;
        progress(done, Some(total.max(done)));
        file = Some(back);
    }
    Ok(Part {
        digest: hasher.finalize().to_hex().to_string(),
        size: done,
    })
}

fn open(path: &Path) -> Result<File, ProviderError> {
    File::open(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => ProviderError::new(
            ErrorKind::Corrupt,
            format!(
                "the staged snapshot `{}` is not there any more",
                path.display()
            ),
        ),
        _ => io("read the staged snapshot", path, &error),
    })
}

fn chunk(mut file: File) -> std::io::Result<(File, Vec<u8>)> {
    let mut bytes = Vec::with_capacity(CHUNK);
    file.by_ref().take(CHUNK as u64).read_to_end(&mut bytes)?;
    Ok((file, bytes))
}
