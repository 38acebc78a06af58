//! Writes an object so that it is seen whole or not at all.

use crate::directory;
use crate::error::{failed, io};
use crate::id::ObjectId;
use crate::manifest::{MANIFEST, Manifest, PAYLOAD, Part, SNAPSHOT, VERSION};
use crate::read;
use crate::store::{Progress, Store};
use alpine_provider_api::{ErrorKind, ProviderError};
use object_store::path::Path as Key;
use object_store::{MultipartUpload, ObjectStoreExt, PutPayload};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::mpsc::UnboundedSender;

const CHUNK: usize = 4 * 1024 * 1024;

/// A snapshot that waits to be written, and what it was when it was captured.
#[derive(Clone, Debug)]
pub(crate) struct Staged {
    pub(crate) path: PathBuf,
    pub(crate) digest: String,
}

/// Where progress goes.
pub(crate) type Told = UnboundedSender<(u64, Option<u64>)>;

/// Writes an object unless it is there already. It is a task of its own, since half of an interrupted write could end at any
/// later time and destroy what the next one has written; and it holds the session's lock to its end.
pub(crate) async fn put(
    store: Store,
    id: ObjectId,
    payload: String,
    staged: Option<Staged>,
    told: Told,
) -> Result<(), ProviderError> {
    let folder = store.folder(&id)?;
    let session = folder.parent().unwrap_or(&folder);
    let lock = Arc::new(directory::lock(session).await?);
    // Nobody may listen any more: the writing goes on all the same.
    let progress = move |done, total| {
        let _ = told.send((done, total));
    };
    let digest = staged.as_ref().map(|staged| staged.digest.as_str());
    if read::is_whole(&store, &id, &payload, digest, &progress).await? {
        return Ok(());
    }
    sweep(folder, store.path(&id.key(MANIFEST))?, lock.clone()).await?;
    let written = write(&store, &id, &payload, staged.as_ref(), &progress).await;
    drop(lock);
    written
}

/// Writes everything, the manifest last.
async fn write(
    store: &Store,
    id: &ObjectId,
    payload: &str,
    staged: Option<&Staged>,
    progress: Progress<'_>,
) -> Result<(), ProviderError> {
    let snapshot = match staged {
        Some(staged) => Some(copy(store, &id.key(SNAPSHOT), staged, progress).await?),
        None => None,
    };
    send_text(store, &id.key(PAYLOAD), payload.as_bytes().to_vec()).await?;
    let manifest = Manifest {
        schema_version: VERSION.to_owned(),
        durable_object_id: id.to_string(),
        payload: Part::of(payload.as_bytes()),
        snapshot,
    };
    let text = serde_json::to_vec(&manifest)
        .map_err(|error| ProviderError::new(ErrorKind::Internal, error.to_string()))?;
    send_text(store, &id.key(MANIFEST), text).await
}

/// Removes what an interrupted write left. An object that has its manifest but is damaged is set aside and not removed: the
/// staged snapshot has not proved yet that it is any better.
async fn sweep(folder: PathBuf, manifest: PathBuf, lock: Arc<File>) -> Result<(), ProviderError> {
    let shown = folder.clone();
    let swept = tokio::task::spawn_blocking(move || {
        let mut aside = folder.clone().into_os_string();
        aside.push(".damaged");
        let swept = if manifest.exists() {
            remove(Path::new(&aside)).and_then(|()| std::fs::rename(&folder, &aside))
        } else {
            remove(&folder)
        };
        // This may outlive its caller, and nobody may write until it is done.
        drop(lock);
        swept
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

async fn send_text(store: &Store, key: &Key, bytes: Vec<u8>) -> Result<(), ProviderError> {
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
    staged: &Staged,
    progress: Progress<'_>,
) -> Result<Part, ProviderError> {
    let file = open(&staged.path)?;
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
    staged: &Staged,
    progress: Progress<'_>,
) -> Result<Part, ProviderError> {
    let unread = |error: std::io::Error| io("read the staged snapshot", &staged.path, &error);
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
    File::open(path).map_err(|error| {
        if error.kind() == std::io::ErrorKind::NotFound {
            let message = format!(
                "the staged snapshot `{}` is not there any more",
                path.display()
            );
            ProviderError::new(ErrorKind::Corrupt, message)
        } else {
            io("read the staged snapshot", path, &error)
        }
    })
}

fn chunk(mut file: File) -> std::io::Result<(File, Vec<u8>)> {
    let mut bytes = Vec::with_capacity(CHUNK);
    file.by_ref().take(CHUNK as u64).read_to_end(&mut bytes)?;
    Ok((file, bytes))
}
