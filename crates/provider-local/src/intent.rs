//! Which sandbox it is, who it belongs to, and who may still change it.
//!
//! Every call that changes something comes here first: under the lock of its sandbox's id, a destroyed id and a fence lower
//! than the highest that was seen are refused. What takes long is done outside that lock and published under it, after
//! the fence was looked at again, so that a caller that was overtaken changes nothing.

use crate::file::{self, io_error};
use crate::layout::{Home, Sandbox};
use crate::made;
use alpine_provider_api::{ErrorKind, ProviderError, SandboxId};
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::time::{Duration, Instant};

/// What was asked for when the sandbox was made: written first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Intent {
    /// The version of this record.
    pub(crate) version: u32,
    /// The sandbox.
    pub(crate) sandbox_id: SandboxId,
    /// The ledger that owns it.
    pub(crate) ledger_id: String,
    /// The session that it was made for.
    pub(crate) session_id: String,
    /// Whether weak isolation was said to be acceptable.
    pub(crate) allow_unsandboxed: bool,
}

/// An id that was destroyed.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Tombstone {
    version: u32,
    fence: u64,
}

/// The lock of a sandbox's id, held while this lives.
#[derive(Debug)]
pub(crate) struct Guard {
    _lock: File,
}

/// Takes the lock of an id. Its holders are quick; one that is not is an error, not a wait without end.
pub(crate) fn lock(home: &Home, id: &SandboxId) -> Result<Guard, ProviderError> {
    let shard = &blake3::hash(id.as_str().as_bytes()).to_hex()[..2];
    let path = home.locks().join(shard);
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(&path)
        .map_err(|source| io_error(&path, &source))?;
    let limit = Instant::now() + Duration::from_secs(20);
    loop {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(Guard { _lock: file }),
            Err(rustix::io::Errno::WOULDBLOCK) if Instant::now() < limit => {
                std::thread::sleep(Duration::from_millis(2));
            }
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let message = format!("another process holds the lock `{}`", path.display());
                return Err(ProviderError::transient(ErrorKind::Io, message));
            }
            Err(source) => return Err(io_error(&path, &source.into())),
        }
    }
}

/// What a call wants of a sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// To work with it.
    Use,
    /// To save what is in it. One that was destroyed while its directory was away, and is there again, may hold work.
    Save,
}

/// Admits a call to a sandbox that has to be there.
pub(crate) fn admit(
    home: &Home,
    id: &SandboxId,
    fence: u64,
    purpose: Purpose,
) -> Result<Sandbox, ProviderError> {
    let sandbox = home.sandbox(id);
    if !file::is_dir(home.root())? {
        return Err(made::absent(home, &sandbox));
    }
    home.make()?;
    let guard = lock(home, id)?;
    refuse_buried(home, &sandbox, fence, purpose)?;
    must_be_there(home, &sandbox)?;
    // One that was made before there were notes is noted now; a full disk must not keep it from being stopped.
    let _ = made::note(&guard, home, id);
    raise_fence(&guard, &sandbox, fence)?;
    Ok(sandbox)
}

/// Does a last, quick step under the lock, if the caller was not overtaken meanwhile.
pub(crate) fn publish<T>(
    home: &Home,
    sandbox: &Sandbox,
    fence: u64,
    purpose: Purpose,
    step: impl FnOnce() -> Result<T, ProviderError>,
) -> Result<T, ProviderError> {
    let guard = lock(home, &sandbox.id)?;
    refuse_buried(home, sandbox, fence, purpose)?;
    must_be_there(home, sandbox)?;
    raise_fence(&guard, sandbox, fence)?;
    step()
}

/// Refuses a sandbox that is not there; says that it is gone only where that is proven.
pub(crate) fn must_be_there(home: &Home, sandbox: &Sandbox) -> Result<(), ProviderError> {
    match file::is_dir(&sandbox.dir)? {
        true => Ok(()),
        false => Err(made::absent(home, sandbox)),
    }
}

/// Refuses an id that was destroyed, unless there is something to save under it.
fn refuse_buried(
    home: &Home,
    sandbox: &Sandbox,
    fence: u64,
    purpose: Purpose,
) -> Result<(), ProviderError> {
    match tombstone(home, &sandbox.id)? {
        Some(seen) if purpose == Purpose::Save && file::is_dir(&sandbox.dir)? => {
            if fence < seen {
                return Err(fenced(&sandbox.id, fence, seen));
            }
            Ok(())
        }
        Some(_) | None => refuse_destroyed(home, &sandbox.id),
    }
}

/// Refuses an id that was destroyed.
pub(crate) fn refuse_destroyed(home: &Home, id: &SandboxId) -> Result<(), ProviderError> {
    match tombstone(home, id)? {
        None => Ok(()),
        Some(_) => Err(ProviderError::new(
            ErrorKind::Destroyed,
            format!("sandbox `{id}` was destroyed"),
        )),
    }
}

/// The fence under which an id was destroyed.
pub(crate) fn tombstone(home: &Home, id: &SandboxId) -> Result<Option<u64>, ProviderError> {
    let path = home.tombstones().join(id.as_str());
    let stone: Option<Tombstone> = file::read_json(&path)?;
    Ok(stone.map(|stone| stone.fence))
}

/// Remembers that an id was destroyed.
pub(crate) fn bury(home: &Home, id: &SandboxId, fence: u64) -> Result<(), ProviderError> {
    let stone = serde_json::to_vec(&Tombstone { version: 1, fence })
        .map_err(|source| ProviderError::new(ErrorKind::Internal, source.to_string()))?;
    file::write_alone(&home.tombstones().join(id.as_str()), &stone)
}

/// Refuses a fence lower than the highest seen, and remembers a higher one.
pub(crate) fn raise_fence(
    _held: &Guard,
    sandbox: &Sandbox,
    fence: u64,
) -> Result<(), ProviderError> {
    let path = sandbox.fence();
    let seen = read_fence(sandbox)?;
    if fence < seen {
        return Err(fenced(&sandbox.id, fence, seen));
    }
    if fence > seen {
        // Written in place and at its full width, so that it needs no space: a full disk must not keep a sandbox from
        // being stopped.
        let written = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path)
            .and_then(|file| {
                file.write_all_at(format!("{fence:020}\n").as_bytes(), 0)?;
                file.sync_data()
            });
        written.map_err(|source| io_error(&path, &source))?;
    }
    Ok(())
}

fn read_fence(sandbox: &Sandbox) -> Result<u64, ProviderError> {
    let path = sandbox.fence();
    let text = file::read_small(&path, 64).map_err(|source| io_error(&path, &source))?;
    // Whoever made it empty was killed, or had no space, before anything was done under its fence.
    let Some(text) = text.filter(|text| !text.is_empty()) else {
        return Ok(0);
    };
    std::str::from_utf8(&text)
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .ok_or_else(|| {
            let source = io::Error::new(io::ErrorKind::InvalidData, "not a number");
            io_error(&path, &source)
        })
}

/// A caller that was overtaken.
pub(crate) fn fenced(id: &SandboxId, fence: u64, seen: u64) -> ProviderError {
    ProviderError::new(
        ErrorKind::Fenced,
        format!("fence {fence} of sandbox `{id}` is lower than {seen}, which was seen already"),
    )
}
