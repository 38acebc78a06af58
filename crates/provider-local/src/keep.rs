//! Captures workspaces, keeps them as durable objects, and brings them back.

use crate::file::{self, Flush, io_error};
use crate::intent::{self, Purpose};
use crate::layout::Sandbox;
use crate::provider::{Local, blocking};
use crate::record::FilledRecord;
use crate::{sync, tree};
use alpine_objects::Store;
use alpine_provider_api::*;
use alpine_snapshot::{Root, SnapshotError};
use std::error::Error;
use std::ffi::OsStr;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What stands in an archive for a transcript that was not exported, as it is where the agent was killed.
const AGENT_DATA: &str = "agent-data";
const UNEXPORTED: &str =
    "not all of the agent's transcript was exported: the agent's own data is in `agent-data`";

/// Writes the workspace and the transcript to an archive, unless that was done for this generation.
pub(crate) async fn capture(
    local: &Arc<Local>,
    call: &Call,
    request: CaptureRequest,
) -> Result<StagedSnapshot, ProviderError> {
    let sandbox = local
        .admit(&request.sandbox_id, call.meta.fence, Purpose::Save)
        .await?;
    if !file::is_dir(&sandbox.workspace())? {
        let message = format!("the workspace of sandbox `{}` is gone", sandbox.id);
        return Err(ProviderError::new(ErrorKind::WorkspaceLost, message));
    }
    let (home, fence, generation) = (Arc::clone(local), call.meta.fence, request.generation);
    let read = Arc::new(AtomicU64::new(0));
    let seen = Arc::clone(&read);
    let work = blocking(move || {
        if let Some(staged) = staged(&sandbox, generation, &seen)? {
            return Ok(staged);
        }
        let written = write(&sandbox, generation, &seen)?;
        intent::publish(&home.home, &sandbox, fence, Purpose::Save, || {
            // A try that was given up may end after the repeat: what the repeat has answered stays.
            if let Some(staged) = staged(&sandbox, generation, &seen)? {
                return Ok(staged);
            }
            let record = record_of(&sandbox, generation);
            file::write_json(&record, &written, Flush::Yes)?;
            Ok(written.clone())
        })
        .inspect(|_| forget_earlier(&sandbox, generation))
    });
    let staged = call.watched("capturing the workspace", &read, work).await?;
    if staged.left_out.iter().any(|left| left.reason == UNEXPORTED) {
        call.warn(UNEXPORTED);
    }
    Ok(staged)
}

fn record_of(sandbox: &Sandbox, generation: u64) -> PathBuf {
    sandbox.staged().join(format!("{generation}.json"))
}

/// The snapshot that was staged for this generation, if it is still whole.
fn staged(
    sandbox: &Sandbox,
    generation: u64,
    seen: &AtomicU64,
) -> Result<Option<StagedSnapshot>, ProviderError> {
    let staged: Option<StagedSnapshot> = file::read_json(&record_of(sandbox, generation))?;
    let mut tell = |done| seen.store(done, Ordering::Relaxed);
    Ok(staged.filter(|staged| {
        staged_file(sandbox, &staged.staging_id)
            .and_then(|path| {
                alpine_snapshot::verify(&path, &mut tell).map_err(|source| failed(&source))
            })
            .is_ok_and(|found| found.digest == staged.digest && found.size == staged.size)
    }))
}

/// Where a staged snapshot is; its id comes back from outside, so it is checked.
fn staged_file(sandbox: &Sandbox, staging_id: &str) -> Result<PathBuf, ProviderError> {
    match SandboxId::new(staging_id) {
        Some(name) => Ok(sandbox.staged().join(format!("{name}.tar.zst"))),
        None => Err(ProviderError::new(
            ErrorKind::InvalidArgument,
            "the staging id is malformed",
        )),
    }
}

fn write(
    sandbox: &Sandbox,
    generation: u64,
    seen: &AtomicU64,
) -> Result<StagedSnapshot, ProviderError> {
    // A name of its own for each try: an earlier one whose caller has gone may still be writing.
    let staging_id = format!("{generation}-{:08x}", file::random_u32());
    let (workspace, transcript) = (sandbox.workspace(), sandbox.transcript());
    file::private_dir(&transcript)?;
    let mut roots = vec![
        Root {
            name: "workspace",
            path: &workspace,
        },
        Root {
            name: "transcript",
            path: &transcript,
        },
    ];
    let data = unexported(sandbox);
    roots.extend(data.as_deref().map(|path| Root {
        name: AGENT_DATA,
        path,
    }));
    let captured =
        alpine_snapshot::capture(&roots, &staged_file(sandbox, &staging_id)?, &mut |bytes| {
            seen.store(bytes, Ordering::Relaxed)
        })
        .map_err(|source| failed(&source))?;
    let left_out = captured.left_out.into_iter().map(|left| LeftOut {
        path: left.path,
        reason: left.reason,
    });
    let instead = data.map(|_| LeftOut {
        path: "transcript".to_owned(),
        reason: UNEXPORTED.to_owned(),
    });
    Ok(StagedSnapshot {
        staging_id,
        digest: captured.digest,
        size: captured.size,
        entries: captured.entries,
        left_out: left_out.chain(instead).collect(),
    })
}

/// The data of an agent whose transcript was not exported, if there is any. The agent can make of it what it likes: a link
/// is not followed.
fn unexported(sandbox: &Sandbox) -> Option<PathBuf> {
    let data = sandbox.agent_data();
    let owed = sandbox.unexported().exists() && data.symlink_metadata().is_ok_and(|it| it.is_dir());
    let empty = || std::fs::read_dir(&data).is_ok_and(|mut entries| entries.next().is_none());
    (owed && !empty()).then_some(data)
}

/// Removes what earlier generations left. Other tries of this one may still be writing, and a later one may have begun:
/// what they leave, and what can't be removed now, goes with the sandbox.
fn forget_earlier(sandbox: &Sandbox, generation: u64) {
    let entries = std::fs::read_dir(sandbox.staged()).into_iter().flatten();
    for entry in entries.flatten() {
        if generation_of(&entry.file_name()).is_some_and(|of| of < generation) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

/// The number that a staged file's name begins with.
fn generation_of(name: &OsStr) -> Option<u64> {
    let name = name.to_str()?;
    name.split(['-', '.']).next()?.parse().ok()
}

/// Writes the durable object.
pub(crate) async fn persist(
    local: &Arc<Local>,
    call: &Call,
    request: PersistRequest,
) -> Result<PersistReply, ProviderError> {
    let sandbox = match local
        .admit(&request.sandbox_id, call.meta.fence, Purpose::Save)
        .await
    {
        // A payload without a workspace is all that can be kept of a sandbox that is lost, or was destroyed.
        Err(ProviderError {
            kind: ErrorKind::NotFound | ErrorKind::Destroyed,
            ..
        }) if request.snapshot.is_none() => local.home.sandbox(&request.sandbox_id),
        admitted => admitted?,
    };
    let staged = match &request.snapshot {
        None => None,
        Some(snapshot) => {
            let path = staged_file(&sandbox, &snapshot.staging_id)?;
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
    let durable_object_id = store(local)
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

/// Reads a durable object back.
pub(crate) async fn read_object(
    local: &Arc<Local>,
    call: &Call,
    request: ReadObjectRequest,
) -> Result<ReadObjectReply, ProviderError> {
    let progress = |done, total| call.progress("reading the durable object", done, total);
    let store = store(local).await?;
    store.read(&request.durable_object_id, &progress).await
}

async fn store(local: &Arc<Local>) -> Result<Store, ProviderError> {
    let objects = local.config.objects.clone();
    blocking(move || Store::file(&objects)).await
}

/// Brings a durable object's workspace back into an empty one.
pub(crate) async fn restore(
    local: &Arc<Local>,
    call: &Call,
    request: RestoreRequest,
) -> Result<RestoreReply, ProviderError> {
    let sandbox = local
        .admit(&request.sandbox_id, call.meta.fence, Purpose::Use)
        .await?;
    let id = request.durable_object_id;
    if let Some(entries) = restored(&sandbox, &id)? {
        return Ok(RestoreReply { entries });
    }
    let archive = store(local).await?.snapshot_file(&id).await?;
    let read = Arc::new(AtomicU64::new(0));
    let seen = Arc::clone(&read);
    let work = {
        let sandbox = sandbox.clone();
        blocking(move || unpack(&sandbox, &archive, &seen))
    };
    let (incoming, entries) = call.watched("restoring the workspace", &read, work).await?;
    let filled = FilledRecord::Object { id, entries };
    let (workspace, transcript) = (incoming.join("workspace"), incoming.join("transcript"));
    let fence = call.meta.fence;
    sync::fill(local, &sandbox, fence, workspace, Some(transcript), filled).await?;
    blocking(move || tree::remove_tree(&incoming)).await?;
    Ok(RestoreReply { entries })
}

/// How many entries came back, if this object was restored here before; an error where something else is there.
fn restored(sandbox: &Sandbox, id: &str) -> Result<Option<u64>, ProviderError> {
    let filled: Option<FilledRecord> = file::read_json(&sandbox.filled())?;
    match filled {
        Some(FilledRecord::Object { id: from, entries }) if from == id => Ok(Some(entries)),
        Some(_) => {
            let message = format!("the workspace of sandbox `{}` is in use", sandbox.id);
            Err(ProviderError::new(ErrorKind::Conflict, message))
        }
        None => Ok(None),
    }
}

fn unpack(
    sandbox: &Sandbox,
    archive: &Path,
    seen: &AtomicU64,
) -> Result<(PathBuf, u64), ProviderError> {
    let incoming = sync::incoming(sandbox)?;
    let file = File::open(archive).map_err(|source| io_error(archive, &source))?;
    let entries = alpine_snapshot::restore(file, &incoming, &mut |bytes| {
        seen.store(bytes, Ordering::Relaxed);
    })
    .map_err(|source| failed(&source))?;
    if !incoming.join("workspace").is_dir() {
        let message = "the durable object holds no workspace";
        return Err(ProviderError::new(ErrorKind::Corrupt, message));
    }
    Ok((incoming, entries))
}

fn failed(source: &SnapshotError) -> ProviderError {
    let kind = match source {
        SnapshotError::Missing { .. } => ErrorKind::WorkspaceLost,
        SnapshotError::Damaged { .. } => ErrorKind::Corrupt,
        SnapshotError::Io { .. } | SnapshotError::Read { .. } if source.is_full() => {
            ErrorKind::NoSpace
        }
        SnapshotError::Io { .. } | SnapshotError::Read { .. } => ErrorKind::Io,
        SnapshotError::NotEmpty { .. } | SnapshotError::Name { .. } => ErrorKind::Internal,
    };
    let message = match source.source() {
        Some(cause) => format!("{source}: {cause}"),
        None => source.to_string(),
    };
    ProviderError::new(kind, message)
}
