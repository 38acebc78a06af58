//! Whether a ledger is whole: every row is sound, and the tables agree with each other.

mod agree;

use crate::handle::{bars_writers, open_reader};
use crate::private;
use crate::rows::{self, KEPT};
use crate::site::Site;
use crate::store::{self, Order, Store, guard};
use crate::tables::TABLES;
use crate::{LedgerError, Options, Snapshot, backup, codec, migrate};
use agree::Agreement;
use redb::ReadableDatabase;
use std::collections::BTreeMap;
use std::path::Path;

/// How thoroughly to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// At every row, and whether the tables agree.
    Rows,
    /// At every page of a copy of the file, too.
    Pages,
}

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The table it was found in; none for the file itself.
    pub table: Option<String>,
    /// What is wrong.
    pub what: String,
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// The ledger's id; none when there is no ledger, or when it can't be read.
    pub ledger_id: Option<String>,
    /// How many rows each table has.
    pub rows: BTreeMap<String, u64>,
    /// What is wrong: the first of it.
    pub problems: Vec<Problem>,
    /// How much is wrong.
    pub problem_count: u64,
}

/// How many problems are told one by one.
const TOLD: usize = 200;

impl Checked {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.problem_count == 0
    }

    pub(crate) fn wrong(&mut self, table: Option<&str>, what: impl Into<String>) {
        self.problem_count += 1;
        if self.problems.len() < TOLD {
            self.problems.push(Problem {
                table: table.map(str::to_owned),
                what: what.into(),
            });
        }
    }
}

/// Looks at the whole ledger at `path`, and changes nothing. A ledger that is not there is sound.
///
/// # Errors
/// When the file can't be opened for a reason that is not damage.
pub fn check(path: &Path, options: Options, depth: Depth) -> Result<Checked, LedgerError> {
    check_site(&Site::new(path, options)?, depth)
}

pub(crate) fn check_site(site: &Site, depth: Depth) -> Result<Checked, LedgerError> {
    let mut checked = Checked::default();
    match look(site, &mut checked) {
        Ok(true) => {}
        Ok(false) => return Ok(checked),
        Err(LedgerError::Corrupt { what, .. }) => checked.wrong(None, what),
        Err(error) => return Err(error),
    }
    if depth == Depth::Pages {
        match look_at_pages(site) {
            Ok(()) => {}
            Err(LedgerError::Corrupt { what, .. }) => checked.wrong(None, what),
            Err(error) => return Err(error),
        }
    }
    Ok(checked)
}

/// Looks at all rows; whether there is a ledger.
fn look(site: &Site, checked: &mut Checked) -> Result<bool, LedgerError> {
    let Some(reader) = open_reader(site)? else {
        return Ok(false);
    };
    let transaction = guard(site, || Ok(reader.database.begin_read()?))?;
    let snapshot = Snapshot::new(Store::reading(site, &transaction));
    if let Err(error @ LedgerError::Newer { .. }) = migrate::refuse_newer(&snapshot.store) {
        return Err(error);
    }
    for table in TABLES {
        let count = look_at_rows(&snapshot.store, table, checked);
        checked.rows.insert(table.to_owned(), count);
    }
    Agreement::new(&snapshot, checked).look();
    Ok(true)
}

/// Looks at each row by itself.
fn look_at_rows(store: &Store<'_>, table: &'static str, checked: &mut Checked) -> u64 {
    let mut count = 0;
    let mut last: Option<Vec<u8>> = None;
    let walked = store.walk(table, Order::Forward, |key, value| {
        count += 1;
        if last.as_deref().is_some_and(|last| last >= key) {
            checked.wrong(Some(table), "its rows are out of order");
        }
        last = Some(key.to_vec());
        let sound = codec::verify(table, key, value).and_then(|json| {
            let readable = !KEPT.contains(&table) || rows::parts(table, key).is_some();
            if readable {
                rows::well_formed(table, json)
            } else {
                Err(format!("a key of `{table}` can't be read"))
            }
        });
        if let Err(what) = sound {
            checked.wrong(Some(table), what);
        }
    });
    if let Err(error) = walked {
        checked.wrong(
            Some(table),
            format!("it can't be read after {count} rows: {error}"),
        );
    }
    count
}

/// Lets redb look at every page of a copy: its own check writes.
fn look_at_pages(site: &Site) -> Result<(), LedgerError> {
    let copy = match backup::scratch_copy(site) {
        Err(error) if bars_writers(&error) => private::copy(site)?,
        copy => copy?,
    };
    let sound = guard(site, || {
        let backend = redb::backends::FileBackend::new(copy)?;
        let mut database = store::builder().create_with_backend(backend)?;
        Ok(database.check_integrity()?)
    })?;
    if sound {
        Ok(())
    } else {
        Err(site.corrupt("its pages do not match their checksums"))
    }
}
