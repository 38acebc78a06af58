//! Directories that are there after a crash too, and the lock of a session's objects.

use crate::error::io;
use alpine_provider_api::ProviderError;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use std::fs::{DirBuilder, File};
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::time::Duration;

const LOCK_POLL: Duration = Duration::from_millis(10);

/// Makes a directory and those above it, for the owner alone, and flushes the names of the new ones.
pub(crate) fn make(directory: &Path) -> std::io::Result<()> {
    if directory.is_dir() {
        return Ok(());
    }
    let parent = match directory.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) | None => Path::new("."),
    };
    if parent != Path::new(".") {
        make(parent)?;
    }
    match DirBuilder::new().mode(0o700).create(directory) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists && directory.is_dir() => {}
        made => made?,
    }
    File::open(parent)?.sync_all()
}

/// Waits until nobody else writes objects of the session. The lock is the directory's: no file stays behind.
pub(crate) async fn lock(session: &Path) -> Result<File, ProviderError> {
    let failed = |error: std::io::Error| io("lock", session, &error);
    make(session).map_err(failed)?;
    let directory = File::open(session).map_err(failed)?;
    loop {
        match flock(&directory, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(directory),
            Err(Errno::WOULDBLOCK | Errno::INTR) => tokio::time::sleep(LOCK_POLL).await,
            Err(error) => return Err(failed(error.into())),
        }
    }
}
