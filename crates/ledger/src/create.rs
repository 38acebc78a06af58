//! How a ledger comes to be: whole, in one rename, so that nobody ever sees half of one.

use crate::backend::{PatientFile, wait_until};
use crate::error::{from_io, from_redb};
use crate::site::Site;
use crate::store::{self, Store};
use crate::tables::{META, SCHEMA, TABLES};
use crate::{LedgerError, file};
use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags, RenameFlags};
use rustix::io::Errno;
use std::ffi::OsString;
use std::fs::File;

/// Makes the ledger unless it is there. The directory is locked meanwhile, so that of many processes that
/// come at once one makes it and the others find it.
pub(crate) fn create(site: &Site) -> Result<(), LedgerError> {
    let dir = file::open_dir(site)?;
    lock(site, &dir)?;
    let name = site.path.file_name().unwrap_or_default();
    match rustix::fs::statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(_) => return Ok(()),
        Err(Errno::NOENT) => {}
        Err(error) => return Err(from_io(site, error.into())),
    }
    let mut fresh = OsString::from(".");
    fresh.push(name);
    fresh.push(".new");
    match rustix::fs::unlinkat(&dir, &fresh, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(error) => return Err(from_io(site, error.into())),
    }
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mode = Mode::RUSR | Mode::WUSR;
    let created = rustix::fs::openat(&dir, &fresh, flags, mode)
        .map_err(|error| from_io(site, error.into()))?;
    fill(site, File::from(created))?;
    match rustix::fs::renameat_with(&dir, &fresh, &dir, name, RenameFlags::NOREPLACE) {
        // Some file systems know no `NOREPLACE`; the lock of the directory keeps our own processes out.
        Err(Errno::INVAL | Errno::NOSYS) => rustix::fs::renameat(&dir, &fresh, &dir, name),
        result => result,
    }
    .and_then(|()| rustix::fs::fsync(&dir))
    .map_err(|error| from_io(site, error.into()))
}

fn lock(site: &Site, dir: &File) -> Result<(), LedgerError> {
    let patience = site.options.lock_timeout;
    let locked = wait_until(patience, || {
        match rustix::fs::flock(dir, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(true),
            Err(Errno::WOULDBLOCK | Errno::INTR) => Ok(false),
            Err(error) => Err(from_io(site, error.into())),
        }
    })?;
    if locked {
        Ok(())
    } else {
        Err(site.busy(patience))
    }
}

/// Writes the tables and the ledger's own facts into the new file.
fn fill(site: &Site, file: File) -> Result<(), LedgerError> {
    let mut random = [0; 16];
    getrandom::fill(&mut random).map_err(|error| {
        site.unavailable(
            "the system gave no random bytes for its id",
            Some(Box::new(error)),
        )
    })?;
    let id = format!(
        "led_{}",
        uuid::Builder::from_random_bytes(random)
            .into_uuid()
            .simple()
    );
    let backend = PatientFile::new(file, site.options.lock_timeout)
        .map_err(|error| from_redb(site, error))?;
    let database = store::builder()
        .create_with_backend(backend)
        .map_err(|error| from_redb(site, error))?;
    let transaction = database
        .begin_write()
        .map_err(|error| from_redb(site, error))?;
    {
        let store = Store::writing(site, &transaction);
        for table in TABLES {
            store.make(table)?;
        }
        store.put(META, b"id", &id)?;
        store.put(META, b"schema", &SCHEMA)?;
        store.put(META, b"created_at", &site.options.clock.now())?;
    }
    transaction
        .commit()
        .map_err(|error| from_redb(site, error))?;
    database.close().map_err(|error| from_redb(site, error))
}
