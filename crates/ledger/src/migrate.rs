//! How the file of an older version becomes one of this version: a backup first, then step by step, each step one
//! transaction. Whoever is interrupted leaves the schema that the last whole step led to, and the next one goes on.

use crate::handle::open_writer;
use crate::site::Site;
use crate::store::{Store, guard};
use crate::tables::{META, SCHEMA};
use crate::{LedgerError, backup};
use redb::Database;

/// What leads from each schema to the next: the first is from schema 1 to 2. A version that changes the tables
/// raises `tables::SCHEMA` and adds its step; no step is ever changed or removed.
pub(crate) const STEPS: &[Step] = &[];

/// One step: what becomes of the rows, in one transaction with the new schema.
pub(crate) type Step = fn(&Store<'_>) -> Result<(), LedgerError>;

/// The schema that the rows have: from 1.
pub(crate) fn schema(store: &Store<'_>) -> Result<u64, LedgerError> {
    store
        .get(META, b"schema")?
        .filter(|schema| *schema > 0)
        .ok_or_else(|| store.site.corrupt("it has no version"))
}

/// Refuses what a newer version wrote: it may have tables and rows that are not known here.
pub(crate) fn refuse_newer(store: &Store<'_>) -> Result<(), LedgerError> {
    let schema = schema(store)?;
    if schema <= SCHEMA {
        return Ok(());
    }
    Err(LedgerError::Newer {
        path: store.site.path.clone(),
        schema,
    })
}

/// Brings the ledger to the schema that the last of the steps leads to.
///
/// Several processes may do so at once: each step looks under the writer's lock whether it is still to be done.
pub(crate) fn migrate(site: &Site, steps: &[Step]) -> Result<(), LedgerError> {
    let open = open_writer(site)?;
    let mut is_saved = false;
    for (number, step) in (1..).zip(steps) {
        in_transaction(site, &open.database, |store| {
            if schema(store)? != number {
                return Ok(());
            }
            if !is_saved {
                save(site, number)?;
                is_saved = true;
            }
            step(store)?;
            store.put(META, b"schema", &(number + 1))
        })?;
    }
    guard(site, || Ok(open.database.close()?))
}

/// Keeps the file as it is under another name, byte for byte: nobody needs to know its tables for that.
fn save(site: &Site, schema: u64) -> Result<(), LedgerError> {
    let copy = backup::free_name(site, &format!("schema-{schema}"))?;
    backup::byte_copy_locked(site, &copy)
}

/// One transaction, which takes place as a whole or not at all.
fn in_transaction(
    site: &Site,
    database: &Database,
    f: impl FnOnce(&Store<'_>) -> Result<(), LedgerError>,
) -> Result<(), LedgerError> {
    let transaction = guard(site, || Ok(database.begin_write()?))?;
    f(&Store::writing(site, &transaction))?;
    guard(site, || Ok(transaction.commit()?))
}

#[cfg(test)]
mod tests;
