//! A copy of the file in memory, for who can't have the file itself made whole, or locked.

use crate::LedgerError;
use crate::error::from_io;
use crate::file::{self, Access};
use crate::site::Site;
use crate::store::{self, guard};
use redb::ReadOnlyDatabase;
use redb::backends::FileBackend;
use rustix::fs::MemfdFlags;
use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::FileExt;

/// Where redb's header ends, at the latest.
const HEADER: usize = 4096;

/// How often the file is copied again that was changed while it was.
const TRIES: usize = 10;

/// A copy of the file that was repaired.
pub(crate) fn repaired(site: &Site) -> Result<ReadOnlyDatabase, LedgerError> {
    let copy = copy(site)?;
    let again = copy.try_clone().map_err(|error| from_io(site, error))?;
    guard(site, || {
        let builder = store::builder();
        let whole = builder.create_with_backend(FileBackend::new(copy)?)?;
        whole.close()?;
        Ok(builder.open_read_only_with_backend(FileBackend::new(again)?)?)
    })
}

/// The bytes of the file as of one commit: after another one, what the header named may have been written over.
pub(crate) fn copy(site: &Site) -> Result<File, LedgerError> {
    let failed = |error| from_io(site, error);
    for _ in 0..TRIES {
        let mut from = file::open(site, Access::Read)?
            .ok_or_else(|| site.unavailable("it was removed", None))?;
        let mut to = rustix::fs::memfd_create("ledger", MemfdFlags::CLOEXEC)
            .map(File::from)
            .map_err(|error| failed(error.into()))?;
        let before = header(&from).map_err(failed)?;
        from.seek(SeekFrom::Start(0))
            .and_then(|_| io::copy(&mut from, &mut to))
            .map_err(failed)?;
        if header(&from).map_err(failed)? == before {
            return Ok(to);
        }
    }
    Err(site.unavailable("it is written faster than it can be copied", None))
}

fn header(file: &File) -> io::Result<[u8; HEADER]> {
    let mut header = [0; HEADER];
    file.read_at(&mut header, 0)?;
    Ok(header)
}
