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
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;

/// Where redb's header ends, at the latest.
const HEADER: usize = 4096;

/// How often the file is copied again that was changed while it was.
pub(crate) const TRIES: usize = 10;

/// A copy of the file that was repaired; none while the file is written, which a reader of the file itself can wait for.
pub(crate) fn repaired(site: &Site) -> Result<Option<ReadOnlyDatabase>, LedgerError> {
    let Some(copy) = copy_once(site)? else {
        return Ok(None);
    };
    made_whole(site, copy).map(Some)
}

/// The ledger that these bytes of a file are, made whole in memory: the file is neither opened again nor written.
pub(crate) fn of_bytes(site: &Site, bytes: &[u8]) -> Result<ReadOnlyDatabase, LedgerError> {
    let mut copy = in_memory(site)?;
    copy.write_all(bytes)
        .map_err(|error| from_io(site, error))?;
    made_whole(site, copy)
}

fn made_whole(site: &Site, copy: File) -> Result<ReadOnlyDatabase, LedgerError> {
    let again = copy.try_clone().map_err(|error| from_io(site, error))?;
    guard(site, || {
        let builder = store::builder();
        let whole = builder.create_with_backend(FileBackend::new(copy)?)?;
        whole.close()?;
        Ok(builder.open_read_only_with_backend(FileBackend::new(again)?)?)
    })
}

fn in_memory(site: &Site) -> Result<File, LedgerError> {
    rustix::fs::memfd_create("ledger", MemfdFlags::CLOEXEC)
        .map(File::from)
        .map_err(|error| from_io(site, error.into()))
}

/// The bytes of the file as of one commit; none when there was another one meanwhile: what the header named may have
/// been written over then.
fn copy_once(site: &Site) -> Result<Option<File>, LedgerError> {
    let failed = |error| from_io(site, error);
    let mut from =
        file::open(site, Access::Read)?.ok_or_else(|| site.unavailable("it was removed", None))?;
    let mut to = in_memory(site)?;
    let before = header(&from).map_err(failed)?;
    from.seek(SeekFrom::Start(0))
        .and_then(|_| io::copy(&mut from, &mut to))
        .map_err(failed)?;
    let is_still = header(&from).map_err(failed)? == before;
    Ok(is_still.then_some(to))
}

/// The bytes of the file as of one commit.
pub(crate) fn copy(site: &Site) -> Result<File, LedgerError> {
    for _ in 0..TRIES {
        if let Some(copy) = copy_once(site)? {
            return Ok(copy);
        }
    }
    Err(site.unavailable("it is written faster than it can be copied", None))
}

/// What every commit changes.
pub(crate) fn header(file: &File) -> io::Result<[u8; HEADER]> {
    let mut header = [0; HEADER];
    file.read_at(&mut header, 0)?;
    Ok(header)
}
