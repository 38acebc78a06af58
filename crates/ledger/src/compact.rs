//! A file that is much larger than what it holds, written anew.

use crate::error::from_io;
use crate::file::{self, Access};
use crate::site::Site;
use crate::{LedgerError, Options, backup};
use std::path::Path;

/// Below this size a file is never worth writing anew.
const LARGE: u64 = 64 * 1024 * 1024;

/// How many times larger than its live data a file has to be.
const SPARSE: u64 = 4;

/// What became of a compaction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Compacted {
    /// Whether the file was written anew.
    pub done: bool,
    /// The bytes of all rows.
    pub live: u64,
    /// How long the file was.
    pub before: u64,
    /// How long it is.
    pub after: u64,
}

/// Whether the file is so large that it may be worth writing it anew: one look at its size, and no wait.
#[must_use]
pub fn is_large(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|file| file.len() > LARGE)
}

/// Writes the file anew when it is worth it, or when it has to be. Other processes go on with the new file.
///
/// # Errors
/// `Corrupt` for a row that is not sound; when the ledger can't be opened or written.
pub fn compact(path: &Path, options: Options, force: bool) -> Result<Compacted, LedgerError> {
    let site = Site::new(path, options)?;
    if file::open(&site, Access::Write)?.is_none() {
        return Ok(Compacted::default());
    }
    let size = || {
        std::fs::metadata(&site.path)
            .map(|metadata| metadata.len())
            .map_err(|error| from_io(&site, error))
    };
    let before = size()?;
    let (done, live) = backup::rewrite(&site, |store, fresh| {
        let live = store.live_bytes()?;
        let worth = before > LARGE && before > live.saturating_mul(SPARSE);
        if force || worth {
            fresh.fill(|into| store.copy_to(into))?;
        }
        Ok(((force || worth, live), force || worth))
    })?;
    Ok(Compacted {
        done,
        live,
        before,
        after: size()?,
    })
}
