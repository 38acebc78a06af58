//! A damaged file as redb may read it: whatever is wrong with it, only the pages that are read are looked at.

use crate::LedgerError;
use crate::error::from_io;
use crate::file::{self, Access};
use crate::site::Site;
use crate::store::{self, guard};
use redb::{BackendError, ReadOnlyDatabase, StorageBackend};
use std::fs::File;
use std::io;
use std::ops::Bound;
use std::os::unix::fs::FileExt;

/// Opens the file, which nobody may write meanwhile.
pub(super) fn open(site: &Site) -> Result<ReadOnlyDatabase, LedgerError> {
    let file =
        file::open(site, Access::Read)?.ok_or_else(|| site.unavailable("it was removed", None))?;
    let len = file.metadata().map_err(|error| from_io(site, error))?.len();
    guard(site, || {
        Ok(store::builder().open_read_only_with_backend(Damaged { file, len })?)
    })
}

/// What was cut off is read as zeros, and all locks are had: who reads it has the writer's lock, if there is one.
#[derive(Debug)]
struct Damaged {
    file: File,
    len: u64,
}

type Done = Result<(), io::Error>;
type Locked<T> = Result<T, BackendError>;

impl StorageBackend for Damaged {
    fn len(&self) -> Result<u64, io::Error> {
        Ok(self.len)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Done {
        let there = self.len.saturating_sub(offset).min(out.len() as u64);
        let (there, missing) = out.split_at_mut(usize::try_from(there).unwrap_or(0));
        missing.fill(0);
        self.file.read_exact_at(there, offset)
    }

    fn set_len(&self, _len: u64) -> Done {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn sync_data(&self) -> Done {
        Ok(())
    }

    fn write(&self, _offset: u64, _data: &[u8]) -> Done {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn try_lock_range(&self, _start: Bound<u64>, _end: Bound<u64>) -> Locked<bool> {
        Ok(true)
    }

    fn try_lock_shared_range(&self, _start: Bound<u64>, _end: Bound<u64>) -> Locked<bool> {
        Ok(true)
    }

    fn lock_range(&self, _start: Bound<u64>, _end: Bound<u64>) -> Locked<()> {
        Ok(())
    }

    fn lock_shared_range(&self, _start: Bound<u64>, _end: Bound<u64>) -> Locked<()> {
        Ok(())
    }

    fn unlock_range(&self, _start: Bound<u64>, _end: Bound<u64>) -> Locked<()> {
        Ok(())
    }

    /// As if a writer had the file open, and no other reader: redb refuses an unclean file that nobody has open,
    /// and repairs it whole or not at all.
    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Locked<bool> {
        Ok((start, end) == (Bound::Included(OPEN), Bound::Included(OPEN)))
    }
}

/// The byte that writers of redb 4 keep locked while a file that is not clean is only not closed yet.
const OPEN: u64 = (1 << 62) + 4;
