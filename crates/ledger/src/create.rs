//! How a ledger comes to be: with its tables and an id.

use crate::fresh::Fresh;
use crate::site::Site;
use crate::store::Store;
use crate::tables::{META, SCHEMA};
use crate::{LedgerError, identity};

/// Makes the ledger unless it is there.
pub(crate) fn create(site: &Site) -> Result<(), LedgerError> {
    let fresh = Fresh::begin(site)?;
    if fresh.is_taken()? {
        return Ok(());
    }
    let id = identity::of_new(site)?;
    fresh.fill(|store| own_facts(store, &id))?;
    // Before it has its name: a ledger that is there, if only for a moment, may have sandboxes.
    fresh.keep_id(&id)?;
    fresh.place()
}

/// An id that no other ledger has.
pub(crate) fn new_id(site: &Site) -> Result<String, LedgerError> {
    let mut random = [0; 16];
    getrandom::fill(&mut random).map_err(|error| {
        site.unavailable(
            "the system gave no random bytes for its id",
            Some(Box::new(error)),
        )
    })?;
    let id = uuid::Builder::from_random_bytes(random).into_uuid();
    Ok(format!("led_{}", id.simple()))
}

/// Writes what is true of a new ledger itself.
pub(crate) fn own_facts(store: &Store<'_>, id: &str) -> Result<(), LedgerError> {
    store.put(META, b"id", &id)?;
    store.put(META, b"schema", &SCHEMA)?;
    store.put(META, b"created_at", &store.site.options.clock.now())
}
