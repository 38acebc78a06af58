//! Reads an object back and believes nothing that it has not hashed.

use crate::error::{corrupt, failed};
use crate::id::ObjectId;
use crate::manifest::{MANIFEST, Manifest, PAYLOAD, Part, SNAPSHOT, VERSION};
use crate::store::{Progress, Store};
use alpine_provider_api::{ErrorKind, ProviderError, ReadObjectReply, ReadSnapshot};
use object_store::ObjectStoreExt;
use object_store::path::Path as Key;
use rustix::fs::{Advice, fadvise};
use std::path::PathBuf;

const CHUNK: u64 = 4 * 1024 * 1024;
/// A payload is half a megabyte at most, and a manifest a few hundred bytes.
const LONGEST_TEXT: u64 = 16 * 1024 * 1024;

/// The whole object.
pub(crate) async fn read(
    store: &Store,
    id: &ObjectId,
    progress: Progress<'_>,
) -> Result<ReadObjectReply, ProviderError> {
    let manifest = manifest(store, id).await?.ok_or_else(|| not_found(id))?;
    let payload = bytes(store, id, PAYLOAD)
        .await?
        .ok_or_else(|| corrupt(id, "its payload is missing"))?;
    if Part::of(&payload) != manifest.payload {
        return Err(corrupt(id, "its payload is not what was written"));
    }
    let payload = String::from_utf8(payload).map_err(|_| corrupt(id, "its payload is no text"))?;
    let snapshot = match manifest.snapshot {
        None => None,
        Some(expected) => {
            let found = hash(store, id, expected.size, progress).await?;
            if found != expected {
                return Err(corrupt(id, "its snapshot is not what was written"));
            }
            Some(ReadSnapshot {
                digest: found.digest,
                size: found.size,
            })
        }
    };
    Ok(ReadObjectReply { payload, snapshot })
}

/// Whether the object is there and holds exactly this.
pub(crate) async fn is_whole(
    store: &Store,
    id: &ObjectId,
    payload: &str,
    digest: Option<&str>,
    progress: Progress<'_>,
) -> Result<bool, ProviderError> {
    match read(store, id, progress).await {
        Ok(found) => {
            let found_digest = found
                .snapshot
                .as_ref()
                .map(|snapshot| snapshot.digest.as_str());
            Ok(found.payload == payload && found_digest == digest)
        }
        Err(error) if matches!(error.kind, ErrorKind::NotFound | ErrorKind::Corrupt) => Ok(false),
        Err(error) => Err(error),
    }
}

/// The path of the object's snapshot.
pub(crate) async fn snapshot_file(store: &Store, id: &ObjectId) -> Result<PathBuf, ProviderError> {
    let manifest = manifest(store, id).await?.ok_or_else(|| not_found(id))?;
    let Some(expected) = manifest.snapshot else {
        return Err(ProviderError::new(
            ErrorKind::NotFound,
            format!("the durable object `{id}` was kept without its workspace"),
        ));
    };
    let key = id.key(SNAPSHOT);
    match size(store, &key).await? {
        Some(size) if size == expected.size => store.path(&key),
        Some(_) => Err(corrupt(id, "its snapshot is not as long as it was")),
        None => Err(corrupt(id, "its snapshot is missing")),
    }
}

async fn manifest(store: &Store, id: &ObjectId) -> Result<Option<Manifest>, ProviderError> {
    let Some(bytes) = bytes(store, id, MANIFEST).await? else {
        return Ok(None);
    };
    let manifest: Manifest =
        serde_json::from_slice(&bytes).map_err(|_| corrupt(id, "its manifest can't be read"))?;
    if manifest.schema_version != VERSION || manifest.durable_object_id != id.to_string() {
        return Err(corrupt(id, "its manifest is another object's"));
    }
    Ok(Some(manifest))
}

/// A small file, whole; none if it is not there.
async fn bytes(store: &Store, id: &ObjectId, file: &str) -> Result<Option<Vec<u8>>, ProviderError> {
    let key = id.key(file);
    forget(store, &key).await?;
    match size(store, &key).await? {
        None => return Ok(None),
        Some(size) if size > LONGEST_TEXT => return Err(corrupt(id, "it holds too much text")),
        Some(_) => {}
    }
    let got = store
        .files
        .get(&key)
        .await
        .map_err(|error| failed("read", &key, &error))?;
    let bytes = got
        .bytes()
        .await
        .map_err(|error| failed("read", &key, &error))?;
    Ok(Some(bytes.to_vec()))
}

/// Hashes the snapshot as it is on the disk.
async fn hash(
    store: &Store,
    id: &ObjectId,
    expected: u64,
    progress: Progress<'_>,
) -> Result<Part, ProviderError> {
    let key = id.key(SNAPSHOT);
    forget(store, &key).await?;
    let Some(size) = size(store, &key).await? else {
        return Err(corrupt(id, "its snapshot is missing"));
    };
    if size != expected {
        return Err(corrupt(id, "its snapshot is not as long as it was"));
    }
    let mut hasher = blake3::Hasher::new();
    let mut done = 0;
    while done < size {
        let range = done..size.min(done + CHUNK);
        let bytes = store
            .files
            .get_range(&key, range)
            .await
            .map_err(|error| failed("read", &key, &error))?;
        if bytes.is_empty() {
            return Err(corrupt(id, "its snapshot is not as long as it was"));
        }
        hasher.update(&bytes);
        done += bytes.len() as u64;
        progress(done, Some(size));
    }
    Ok(Part {
        digest: hasher.finalize().to_hex().to_string(),
        size: done,
    })
}

async fn size(store: &Store, key: &Key) -> Result<Option<u64>, ProviderError> {
    match store.files.head(key).await {
        Ok(found) => Ok(Some(found.size)),
        Err(object_store::Error::NotFound { .. }) => Ok(None),
        Err(error) => Err(failed("read", key, &error)),
    }
}

/// Has the system drop what it remembers of a file, so that the next read comes from the disk.
async fn forget(store: &Store, key: &Key) -> Result<(), ProviderError> {
    let path = store.path(key)?;
    let dropped = tokio::task::spawn_blocking(move || {
        let file = std::fs::File::open(path)?;
        Ok::<(), std::io::Error>(fadvise(&file, 0, None, Advice::DontNeed)?)
    });
    // A file that is not there, or a file system without such memory, shows when it is read.
    let _ = dropped.await;
    Ok(())
}

fn not_found(id: &ObjectId) -> ProviderError {
    ProviderError::new(
        ErrorKind::NotFound,
        format!("there is no durable object `{id}`"),
    )
}
