//! What is sound in a damaged ledger, in a new file. The damaged file is kept as it was, byte for byte.

mod damaged;
mod mend;

use crate::check::check_site;
use crate::file::{self, Access};
use crate::fresh::Fresh;
use crate::rows::{self, KEPT};
use crate::site::Site;
use crate::store::{Order, Store, guard};
use crate::{Checked, Depth, LedgerError, Options, backup, codec, index, migrate};
use redb::ReadableDatabase;
use std::path::{Path, PathBuf};

/// What became of a repair.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repaired {
    /// What was wrong before.
    pub before: Checked,
    /// The copy of the file as it was; none when nothing was wrong.
    pub backup: Option<PathBuf>,
    /// How many rows were not sound; the copy has their bytes.
    pub lost: u64,
    /// What is still wrong.
    pub after: Checked,
}

/// Makes a new file of all that is sound in the ledger at `path`, after the damaged one was copied to a file
/// beside it. Does nothing where nothing is wrong.
///
/// # Errors
/// `Corrupt` when too little is left to make a ledger of it; when the files can't be written.
pub fn repair(path: &Path, options: Options) -> Result<Repaired, LedgerError> {
    let site = Site::new(path, options)?;
    let before = check_site(&site, Depth::Rows)?;
    if before.is_sound() || file::open(&site, Access::Write)?.is_none() {
        return Ok(Repaired {
            after: before.clone(),
            before,
            backup: None,
            lost: 0,
        });
    }
    let copy = backup::free_name(&site, "damaged")?;
    backup::byte_copy(&site, &copy)?;
    let lost = renew(&site);
    if lost.is_err() {
        // Nothing was changed: the file is its own copy.
        drop(std::fs::remove_file(&copy.path));
    }
    let lost = lost?;
    Ok(Repaired {
        before,
        backup: Some(copy.path),
        lost,
        after: check_site(&site, Depth::Rows)?,
    })
}

/// Puts a new file of all that is sound in the place of the damaged one; how many rows were not sound. It is only
/// read, and page by page: opened to be written it would have to be sound.
fn renew(site: &Site) -> Result<u64, LedgerError> {
    let fresh = Fresh::begin(site)?;
    backup::locked(site, || {
        let database = damaged::open(site)?;
        let transaction = guard(site, || Ok(database.begin_read()?))?;
        let store = Store::reading(site, &transaction);
        // Where it can't be told any more, this is what repairs it.
        if let Err(error @ LedgerError::Newer { .. }) = migrate::refuse_newer(&store) {
            return Err(error);
        }
        let lost = fresh.fill(|into| {
            let lost = salvage(&store, into)?;
            mend::mend(into)?;
            index::rebuild(into)?;
            Ok(lost)
        })?;
        fresh.replace()?;
        Ok(lost)
    })
}

/// Copies the sound rows of the tables that are kept. How many rows were not sound. Where a table can't be read
/// to its end it is read from its end, too: what is lost lies in between.
fn salvage(from: &Store<'_>, into: &Store<'_>) -> Result<u64, LedgerError> {
    let mut lost = 0;
    for table in KEPT {
        let mut failed = None;
        let mut take = |key: &[u8], value: &[u8]| {
            let sound = codec::verify(table, key, value)
                .and_then(|json| rows::well_formed(table, json))
                .is_ok()
                && rows::parts(table, key).is_some();
            if !sound {
                lost += 1;
            } else if let Err(error) = into.put_stored(table, key, value) {
                failed = Some(error);
            }
        };
        let read = from.walk(table, Order::Forward, &mut take);
        if read.is_err() {
            // What can't be read from there either is lost, which the check before has told.
            let _ = from.walk(table, Order::Backward, &mut take);
        }
        if read.is_err() {
            lost += 1;
        }
        if let Some(error) = failed {
            return Err(error);
        }
    }
    Ok(lost)
}
