//! Who holds a lease, and whether it still works.
//!
//! A holder keeps a lock on `ops/<operation>.<fence>.lock` beside the ledger while it works. The lock belongs
//! to an open file that no child process inherits, so the kernel frees it when the process ends, however it
//! ends; a pid that was given to another process does not matter.

use crate::error::from_io;
use crate::site::Site;
use crate::{Holder, LeaseRecord, Ledger, LedgerError, OperationId, SessionId, Snapshot};
use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Proof of a taken lease; every write of its operation shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseToken {
    /// The session.
    pub session_id: SessionId,
    /// The operation that holds the lease.
    pub operation_id: OperationId,
    /// The number of the taking.
    pub fence: u64,
}

/// Whether a lease's holder still works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Liveness {
    /// It does, as far as can be known.
    Live,
    /// It has provably ended.
    Dead,
    /// It may still be there, but did not renew in time.
    Expired,
    /// It gave the lease up.
    Released,
}

/// The lock that a holder keeps while it works; dropping it frees the lock and removes its file.
#[derive(Debug)]
pub struct OperationLock {
    path: PathBuf,
    file: File,
}

/// How often a lock file that is removed under our hands is made again.
const TRIES: usize = 8;

impl Holder {
    /// This process.
    #[must_use]
    pub fn this_process() -> Holder {
        let host =
            first_line("/etc/machine-id").or_else(|| first_line("/proc/sys/kernel/hostname"));
        Holder {
            host: host.unwrap_or_default(),
            boot_id: first_line("/proc/sys/kernel/random/boot_id").unwrap_or_default(),
            pid: std::process::id(),
            start_time: start_time().unwrap_or_default(),
        }
    }
}

fn first_line(path: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let line = text.lines().next()?.trim();
    (!line.is_empty()).then(|| line.to_owned())
}

/// When this process started: the 22nd field of its `stat`, counted after the name, which may hold anything.
fn start_time() -> Option<u64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_whitespace().nth(19)?.parse().ok()
}

impl Snapshot<'_> {
    /// Whether the holder of a lease still works.
    #[must_use]
    pub fn holder_is_live(&self, lease: &LeaseRecord) -> Liveness {
        let Some(holder) = &lease.holder else {
            return Liveness::Released;
        };
        let site = self.store.site;
        let me = &site.options.holder;
        if holder.host != me.host {
            return unless(site.options.clock.now() >= lease.expires_at);
        }
        if holder.boot_id != me.boot_id {
            return Liveness::Dead;
        }
        match is_held(&lock_path(site, &lease.operation_id, lease.fence)) {
            Ok(false) => Liveness::Dead,
            // A lock that can't be looked at proves nothing.
            Ok(true) | Err(_) => unless(site.options.clock.boot_ms() >= lease.expires_boot_ms),
        }
    }

    /// For how long nobody has worked under a lease: since it was released, or renewed for the last time.
    #[must_use]
    pub fn idle(&self, lease: &LeaseRecord) -> Duration {
        let options = &self.store.site.options;
        let (clock, me) = (&options.clock, &options.holder);
        match &lease.holder {
            None => clock.now().since(lease.expires_at),
            // Nobody sets this boot's clock.
            Some(holder) if holder.host == me.host && holder.boot_id == me.boot_id => {
                let left = Duration::from_millis(lease.expires_boot_ms);
                (Duration::from_millis(clock.boot_ms()) + options.lease).saturating_sub(left)
            }
            Some(_) => clock.now().plus(options.lease).since(lease.expires_at),
        }
    }
}

fn unless(expired: bool) -> Liveness {
    if expired {
        Liveness::Expired
    } else {
        Liveness::Live
    }
}

/// Whether somebody has the lock. Looking takes it shared, so that those who look don't see each other.
fn is_held(path: &Path) -> io::Result<bool> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(file) => file,
        Err(Errno::NOENT) => return Ok(false),
        Err(error) => return Err(error.into()),
    };
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared) {
        Ok(()) => Ok(false),
        Err(Errno::WOULDBLOCK) => Ok(true),
        Err(error) => Err(error.into()),
    }
}

fn lock_path(site: &Site, operation: &OperationId, fence: u64) -> PathBuf {
    site.ops_dir().join(format!("{operation}.{fence}.lock"))
}

/// Removes the lock file of a holder whose lease was taken over. One that was only stopped keeps its lock on
/// the removed file, which harms nobody.
pub(crate) fn remove_lock(site: &Site, lease: &LeaseRecord) {
    // A file that stays is empty and named by a fence that never comes again.
    drop(fs::remove_file(lock_path(
        site,
        &lease.operation_id,
        lease.fence,
    )));
}

impl Ledger {
    /// The lock of whoever looks after sandboxes that no session owns, and so no lease guards; none while somebody has it.
    ///
    /// # Errors
    /// `Unavailable` when it can't be taken.
    pub fn lock_strays(&self) -> Result<Option<OperationLock>, LedgerError> {
        let site = self.site();
        OperationLock::at(site, &site.ops_dir().join("strays.lock"))
    }
}

impl OperationLock {
    /// Takes the lock of one taking of a lease. Nobody else can want it: the number is drawn in a transaction.
    pub(crate) fn take(
        site: &Site,
        operation: &OperationId,
        fence: u64,
    ) -> Result<Self, LedgerError> {
        let path = lock_path(site, operation, fence);
        Self::at(site, &path)?.ok_or_else(|| {
            let reason = format!("another process has the lock `{}`", path.display());
            site.unavailable(reason, None)
        })
    }

    /// None while another has it.
    fn at(site: &Site, path: &Path) -> Result<Option<Self>, LedgerError> {
        let wrong = |error: io::Error| {
            let reason = format!(
                "the operation's lock `{}` can't be taken: {error}",
                path.display()
            );
            site.unavailable(reason, Some(Box::new(error)))
        };
        let dir = site.ops_dir();
        match DirBuilder::new().mode(0o700).create(&dir) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(from_io(site, error));
            }
            Ok(()) | Err(_) => {}
        }
        for _ in 0..TRIES {
            match Self::try_take(path) {
                Ok(Some(lock)) => return Ok(Some(lock)),
                Ok(None) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) => return Err(wrong(error)),
            }
        }
        Ok(None)
    }

    /// None when the file was removed between being opened and being locked, as by an aborted transaction.
    fn try_take(path: &Path) -> io::Result<Option<Self>> {
        let flags =
            OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let file = File::from(rustix::fs::open(path, flags, Mode::RUSR | Mode::WUSR)?);
        rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        Ok(is_named(path, &file).then(|| Self {
            path: path.to_owned(),
            file,
        }))
    }
}

/// Whether the path still names the open file.
fn is_named(path: &Path, file: &File) -> bool {
    let (Ok(named), Ok(open)) = (fs::symlink_metadata(path), file.metadata()) else {
        return false;
    };
    (named.dev(), named.ino()) == (open.dev(), open.ino())
}

impl Drop for OperationLock {
    fn drop(&mut self) {
        // While the lock is held nobody else takes this path, so what it names is ours to remove.
        if is_named(&self.path, &self.file) {
            drop(fs::remove_file(&self.path));
        }
    }
}
