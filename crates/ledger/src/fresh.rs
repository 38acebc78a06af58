//! A new file that takes its name whole or not at all, so that nobody ever sees half of one.

use crate::backend::{PatientFile, wait_until};
use crate::error::from_io;
use crate::site::Site;
use crate::store::{self, Store, guard};
use crate::tables::TABLES;
use crate::{LedgerError, file, identity};
use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags, RenameFlags};
use rustix::io::Errno;
use std::ffi::{OsStr, OsString};
use std::fs::File;

/// The place of a new file. Its directory is locked, so that of many processes that come at once one makes the
/// file and the others find it.
#[derive(Debug)]
pub(crate) struct Fresh<'a> {
    site: &'a Site,
    dir: File,
    name: OsString,
}

impl<'a> Fresh<'a> {
    /// Locks the directory, which must be fit for a ledger.
    pub(crate) fn begin(site: &'a Site) -> Result<Self, LedgerError> {
        Self::begin_in(site, file::open_dir(site)?)
    }

    /// Locks the directory, whatever it is.
    pub(crate) fn begin_anywhere(site: &'a Site) -> Result<Self, LedgerError> {
        let dir = File::open(&site.dir).map_err(|error| from_io(site, error))?;
        Self::begin_in(site, dir)
    }

    fn begin_in(site: &'a Site, dir: File) -> Result<Self, LedgerError> {
        lock(site, &dir)?;
        let mut name = OsString::from(".");
        name.push(final_name(site));
        name.push(".new");
        Ok(Self { site, dir, name })
    }

    /// Whether there is something of the final name.
    pub(crate) fn is_taken(&self) -> Result<bool, LedgerError> {
        let name = final_name(self.site);
        match rustix::fs::statat(&self.dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(_) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(from_io(self.site, error.into())),
        }
    }

    /// Makes an empty file, which only its owner may read.
    pub(crate) fn file(&self) -> Result<File, LedgerError> {
        private_file(&self.dir, &self.name).map_err(|error| from_io(self.site, error.into()))
    }

    /// Keeps the id of the ledger that has the final name, or is about to.
    pub(crate) fn keep_id(&self, id: &str) -> Result<(), LedgerError> {
        identity::keep(self.site, &self.dir, id)
    }

    /// Makes a file of tables, and fills them in one transaction.
    pub(crate) fn fill<T>(
        &self,
        f: impl FnOnce(&Store<'_>) -> Result<T, LedgerError>,
    ) -> Result<T, LedgerError> {
        let site = self.site;
        let backend = PatientFile::new(site, self.file()?)?;
        let database = guard(site, || Ok(store::builder().create_with_backend(backend)?))?;
        let transaction = guard(site, || Ok(database.begin_write()?))?;
        let value = {
            let store = Store::writing(site, &transaction);
            for table in TABLES {
                store.make(table)?;
            }
            f(&store)?
        };
        guard(site, || Ok(transaction.commit()?))?;
        guard(site, || Ok(database.close()?))?;
        Ok(value)
    }

    /// Gives the new file its name, which must be free.
    pub(crate) fn place(self) -> Result<(), LedgerError> {
        let name = final_name(self.site);
        let (dir, fresh) = (&self.dir, &self.name);
        match rustix::fs::renameat_with(dir, fresh, dir, name, RenameFlags::NOREPLACE) {
            // Some file systems know no `NOREPLACE`; the lock of the directory keeps our own processes out.
            Err(Errno::INVAL | Errno::NOSYS) if !self.is_taken()? => {
                rustix::fs::renameat(dir, fresh, dir, name)
            }
            result => result,
        }
        .and_then(|()| rustix::fs::fsync(dir))
        .map_err(|error| from_io(self.site, error.into()))
    }

    /// Gives the new file its name, and takes that from the file that has it.
    pub(crate) fn replace(self) -> Result<(), LedgerError> {
        let name = final_name(self.site);
        rustix::fs::renameat(&self.dir, &self.name, &self.dir, name)
            .and_then(|()| rustix::fs::fsync(&self.dir))
            .map_err(|error| from_io(self.site, error.into()))
    }
}

impl Drop for Fresh<'_> {
    fn drop(&mut self) {
        // After a failure nothing is left of it; after success nothing has this name.
        let _ = rustix::fs::unlinkat(&self.dir, &self.name, AtFlags::empty());
    }
}

/// Makes an empty file, which only its owner may read, in the place of what was left there.
pub(crate) fn private_file(dir: &File, name: &OsStr) -> rustix::io::Result<File> {
    match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(error) => return Err(error),
    }
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(dir, name, flags, Mode::RUSR | Mode::WUSR).map(File::from)
}

fn final_name(site: &Site) -> &OsStr {
    site.path.file_name().unwrap_or_default()
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
