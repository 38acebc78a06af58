//! Copies of the file: as a backup that is whole by itself, and byte for byte.

use crate::backend::PatientFile;
use crate::error::{from_io, from_redb};
use crate::file::{self, Access};
use crate::fresh::Fresh;
use crate::handle::open_writer;
use crate::site::Site;
use crate::store::{Store, guard};
use crate::{Ledger, LedgerError, migrate};
use redb::StorageBackend as _;
use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};

/// What a backup holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Saved {
    /// Its file.
    pub path: PathBuf,
    /// How many rows it has.
    pub rows: u64,
    /// How long the file is.
    pub bytes: u64,
}

impl Ledger {
    /// Writes a copy of all that is recorded to a new file: one state, while others may write on. Every row is checked on the way; a file that is there is never overwritten.
    ///
    /// # Errors
    /// `Corrupt` for a row that is not sound; `Unavailable` when the file is there or can't be written.
    pub fn backup(&self, to: &Path) -> Result<Saved, LedgerError> {
        let place = Site::new(to, self.site().options.clone())?;
        let fresh = Fresh::begin_anywhere(&place)?;
        if fresh.is_taken()? {
            return Err(place.unavailable("there is a file of that name already", None));
        }
        let copied = self.read(|snapshot| {
            migrate::refuse_newer(&snapshot.store)?;
            fresh.fill(|into| snapshot.store.copy_to(into))
        });
        let rows = match copied {
            Ok((rows, _)) => {
                fresh.place()?;
                rows
            }
            // Of a newer version's tables not all are known here: it is copied byte for byte.
            Err(LedgerError::Newer { .. }) => {
                drop(fresh);
                byte_copy(self.site(), &place)?;
                self.read(|snapshot| snapshot.store.count())?
            }
            Err(error) => return Err(error),
        };
        let bytes = std::fs::metadata(&place.path).map_err(|error| from_io(&place, error))?;
        Ok(Saved {
            path: place.path,
            rows,
            bytes: bytes.len(),
        })
    }
}

/// A place beside the ledger for the file as it is: named by a word and the time.
pub(crate) fn free_name(site: &Site, word: &str) -> Result<Site, LedgerError> {
    let at = site.options.clock.now().to_string().replace(':', "");
    let mut number = 0;
    loop {
        let mut name = site.path.clone().into_os_string();
        name.push(format!(".{word}-{at}"));
        if number > 0 {
            name.push(format!("-{number}"));
        }
        let place = Site::new(Path::new(&name), site.options.clone())?;
        if !place.path.exists() {
            return Ok(place);
        }
        number += 1;
    }
}

/// Copies the file of a ledger, damaged or not, to a new file in its directory. No other process writes meanwhile.
pub(crate) fn byte_copy(site: &Site, to: &Site) -> Result<(), LedgerError> {
    locked(site, || byte_copy_locked(site, to))
}

/// The same, by who has the writer's lock.
pub(crate) fn byte_copy_locked(site: &Site, to: &Site) -> Result<(), LedgerError> {
    let fresh = Fresh::begin(to)?;
    let mut copy = fresh.file()?;
    copy_bytes(site, &mut copy)?;
    copy.sync_all().map_err(|error| from_io(to, error))?;
    fresh.place()
}

/// The same without a name: it is gone when it is closed.
pub(crate) fn scratch_copy(site: &Site) -> Result<File, LedgerError> {
    let mut name = site.path.clone().into_os_string();
    name.push(".check");
    let to = Site::new(Path::new(&name), site.options.clone())?;
    let fresh = Fresh::begin(&to)?;
    let mut copy = fresh.file()?;
    locked(site, || copy_bytes(site, &mut copy))?;
    Ok(copy)
}

/// Does something under the writer's lock. The file is not opened for that, only locked: damaged or not, it stays as
/// it is.
pub(crate) fn locked<T>(
    site: &Site,
    f: impl FnOnce() -> Result<T, LedgerError>,
) -> Result<T, LedgerError> {
    let file =
        file::open(site, Access::Write)?.ok_or_else(|| site.unavailable("it was removed", None))?;
    let file = PatientFile::new(site, file)?;
    file.lock_as_writer()
        .map_err(|error| from_redb(site, error))?;
    let done = f();
    // What can't be given back goes with the file.
    drop(file.close());
    done
}

fn copy_bytes(site: &Site, to: &mut File) -> Result<(), LedgerError> {
    let mut from =
        file::open(site, Access::Read)?.ok_or_else(|| site.unavailable("it was removed", None))?;
    let copied = from
        .seek(SeekFrom::Start(0))
        .and_then(|_| io::copy(&mut from, to));
    copied.map(drop).map_err(|error| from_io(site, error))
}

/// Copies the rows of a ledger into a new file, which takes its place. The writer's lock is held until it has,
/// so that whoever waits for it then finds the new file. `f` says whether it made one.
pub(crate) fn rewrite<T>(
    site: &Site,
    f: impl FnOnce(&Store<'_>, &Fresh<'_>) -> Result<(T, bool), LedgerError>,
) -> Result<T, LedgerError> {
    let fresh = Fresh::begin(site)?;
    let open = open_writer(site)?;
    let transaction = guard(site, || Ok(open.database.begin_write()?))?;
    if !file::is_current(site, open.file) {
        return Err(site.unavailable("it was replaced meanwhile", None));
    }
    let result = panic::catch_unwind(AssertUnwindSafe(|| {
        let store = Store::writing(site, &transaction);
        // Where it can't be told any more, the file is damaged, and somebody repairs it.
        if let Err(error @ LedgerError::Newer { .. }) = migrate::refuse_newer(&store) {
            return Err(error);
        }
        f(&store, &fresh)
    }))
    .unwrap_or_else(|_| Err(site.corrupt("reading it failed")))
    .and_then(|(value, made)| {
        if made {
            fresh.replace()?;
        }
        Ok(value)
    });
    // Ending the lock can write; over a damaged file redb may panic.
    drop(guard(site, || {
        drop(transaction);
        drop(open.database);
        Ok(())
    }));
    result
}
