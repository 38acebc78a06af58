//! Rows of bytes in redb: every call is guarded against panics, every row against damage.

use crate::error::from_redb;
use crate::site::Site;
use crate::tables::end_of;
use crate::{LedgerError, codec, unknown};
use redb::{
    AccessGuard, Builder, ConcurrencyMode, Range, ReadOnlyTable, ReadTransaction, ReadableTable,
    Table, TableDefinition, WriteTransaction,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::any::Any;
use std::fmt;
use std::ops::{Bound, ControlFlow};
use std::panic::{self, AssertUnwindSafe};

/// How much of the file one handle may keep in memory; a process has a reader and a writer.
const CACHE: usize = 8 * 1024 * 1024;

/// How every ledger is opened.
pub(crate) fn builder() -> Builder {
    let mut builder = Builder::new();
    builder
        .set_concurrency_mode(ConcurrencyMode::MultiWriter)
        .set_cache_size(CACHE);
    builder
}

/// Runs something of redb's. It trusts its file, and may panic when the file is damaged.
pub(crate) fn guard<T>(
    site: &Site,
    call: impl FnOnce() -> Result<T, redb::Error>,
) -> Result<T, LedgerError> {
    match panic::catch_unwind(AssertUnwindSafe(call)) {
        Ok(result) => result.map_err(|error| from_redb(site, error)),
        Err(payload) => Err(site.corrupt(format!("reading it failed: {}", said(payload.as_ref())))),
    }
}

fn said(payload: &(dyn Any + Send)) -> &str {
    let text = payload.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| payload.downcast_ref::<&str>().copied())
        .unwrap_or("no reason given")
}

/// Which end of a range comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// From the first to the last.
    Forward,
    /// From the last to the first.
    Backward,
}

/// Rows from `start` until before `end`.
#[derive(Clone, Debug)]
pub(crate) struct Span {
    pub(crate) start: Vec<u8>,
    pub(crate) end: Option<Vec<u8>>,
}

impl Span {
    /// All rows whose key starts with `prefix`.
    pub(crate) fn of(prefix: &[u8]) -> Self {
        Self {
            start: prefix.to_vec(),
            end: end_of(prefix),
        }
    }

    /// Whether a scan that has come to this key has left the span behind.
    fn is_behind(&self, key: &[u8], order: Order) -> bool {
        match order {
            Order::Forward => self.end.as_deref().is_some_and(|end| key >= end),
            Order::Backward => key < self.start.as_slice(),
        }
    }

    fn contains(&self, key: &[u8]) -> bool {
        key >= self.start.as_slice() && self.end.as_deref().is_none_or(|end| key < end)
    }

    fn upper(&self) -> Bound<&[u8]> {
        self.end
            .as_deref()
            .map_or(Bound::Unbounded, Bound::Excluded)
    }
}

/// The rows of one transaction.
pub(crate) struct Store<'a> {
    pub(crate) site: &'a Site,
    source: Source<'a>,
}

enum Source<'a> {
    Empty,
    Read(&'a ReadTransaction),
    Write(&'a WriteTransaction),
}

type Bytes = &'static [u8];

/// One table of a transaction.
pub(crate) enum Rows<'a> {
    Read(ReadOnlyTable<Bytes, Bytes>),
    Write(Table<'a, Bytes, Bytes>),
}

impl Rows<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<AccessGuard<'_, Bytes>>, redb::StorageError> {
        match self {
            Rows::Read(table) => ReadableTable::get(table, key),
            Rows::Write(table) => table.get(key),
        }
    }

    pub(crate) fn range(
        &self,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
    ) -> Result<Range<'_, Bytes, Bytes>, redb::StorageError> {
        match self {
            Rows::Read(table) => ReadableTable::range::<&[u8]>(table, (from, to)),
            Rows::Write(table) => table.range::<&[u8]>((from, to)),
        }
    }
}

impl fmt::Debug for Store<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store")
            .field("site", &self.site)
            .finish_non_exhaustive()
    }
}

impl<'a> Store<'a> {
    /// A ledger that is not there yet.
    pub(crate) fn empty(site: &'a Site) -> Self {
        Self {
            site,
            source: Source::Empty,
        }
    }

    pub(crate) fn reading(site: &'a Site, transaction: &'a ReadTransaction) -> Self {
        Self {
            site,
            source: Source::Read(transaction),
        }
    }

    pub(crate) fn writing(site: &'a Site, transaction: &'a WriteTransaction) -> Self {
        Self {
            site,
            source: Source::Write(transaction),
        }
    }

    pub(crate) fn rows(&self, table: &'static str) -> Result<Option<Rows<'a>>, redb::Error> {
        let definition = TableDefinition::<Bytes, Bytes>::new(table);
        Ok(match self.source {
            Source::Empty => None,
            Source::Read(transaction) => Some(Rows::Read(transaction.open_table(definition)?)),
            Source::Write(transaction) => Some(Rows::Write(transaction.open_table(definition)?)),
        })
    }

    /// The row, if it is there.
    pub(crate) fn get<T: DeserializeOwned>(
        &self,
        table: &'static str,
        key: &[u8],
    ) -> Result<Option<T>, LedgerError> {
        let found = guard(self.site, || {
            let Some(rows) = self.rows(table)? else {
                return Ok(Ok(None));
            };
            let Some(row) = rows.get(key)? else {
                return missing(table, &rows, key);
            };
            Ok(codec::decode(table, key, row.value()).map(Some))
        })?;
        found.map_err(|what| self.site.corrupt(what))
    }

    /// Visits the rows of a span until it is told to stop. The visitor gets keys and JSON.
    ///
    /// The range has no end where the span has one: the row that ends it must be sound, too, or else a row
    /// whose key was damaged would hide all that follow.
    pub(crate) fn scan(
        &self,
        table: &'static str,
        span: &Span,
        order: Order,
        mut visit: impl FnMut(&[u8], &[u8]) -> Result<ControlFlow<()>, LedgerError>,
    ) -> Result<(), LedgerError> {
        guard(self.site, || {
            let Some(rows) = self.rows(table)? else {
                return Ok(Ok(()));
            };
            let mut range = match order {
                Order::Forward => rows.range(Bound::Included(&span.start), Bound::Unbounded)?,
                Order::Backward => rows.range(Bound::Unbounded, span.upper())?,
            };
            if let Err(what) = check_edge(table, &rows, span, order)? {
                return Ok(Err(self.site.corrupt(what)));
            }
            loop {
                let next = match order {
                    Order::Forward => range.next(),
                    Order::Backward => range.next_back(),
                };
                let Some((key, value)) = next.transpose()? else {
                    return Ok(Ok(()));
                };
                let visited = match codec::verify(table, key.value(), value.value()) {
                    Err(what) => Err(self.site.corrupt(what)),
                    Ok(_) if span.is_behind(key.value(), order) => return Ok(Ok(())),
                    // A search that a damaged page above has misled begins beside the span.
                    Ok(_) if !span.contains(key.value()) => Err(self
                        .site
                        .corrupt(format!("the rows of `{table}` are out of order"))),
                    Ok(json) => visit(key.value(), json),
                };
                match visited {
                    Ok(ControlFlow::Continue(())) => {}
                    Ok(ControlFlow::Break(())) => return Ok(Ok(())),
                    Err(error) => return Ok(Err(error)),
                }
            }
        })?
    }

    /// All rows of a span.
    pub(crate) fn all<T: DeserializeOwned>(
        &self,
        table: &'static str,
        prefix: &[u8],
    ) -> Result<Vec<T>, LedgerError> {
        let mut found = Vec::new();
        self.scan(table, &Span::of(prefix), Order::Forward, |_, json| {
            found.push(self.parse(table, json)?);
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(found)
    }

    /// The last key that starts with `prefix`.
    pub(crate) fn last_key(
        &self,
        table: &'static str,
        prefix: &[u8],
    ) -> Result<Option<Vec<u8>>, LedgerError> {
        let mut found = None;
        self.scan(table, &Span::of(prefix), Order::Backward, |key, _| {
            found = Some(key.to_vec());
            Ok(ControlFlow::Break(()))
        })?;
        Ok(found)
    }

    /// The value of verified JSON.
    pub(crate) fn parse<T: DeserializeOwned>(
        &self,
        table: &str,
        json: &[u8],
    ) -> Result<T, LedgerError> {
        serde_json::from_slice(json).map_err(|error| {
            self.site
                .corrupt(format!("a row of `{table}` can't be read: {error}"))
        })
    }

    /// Makes an empty table.
    pub(crate) fn make(&self, table: &'static str) -> Result<(), LedgerError> {
        guard(self.site, || self.rows(table).map(drop))
    }

    /// Writes a row, whether it was there or not.
    pub(crate) fn put<T: Serialize>(
        &self,
        table: &'static str,
        key: &[u8],
        value: &T,
    ) -> Result<(), LedgerError> {
        let bytes = codec::encode(table, key, value).map_err(|error| self.unencoded(error))?;
        self.change(table, |rows| rows.insert(key, bytes.as_slice()).map(drop))
    }

    /// Writes a record, and keeps what only a newer version knows of the row that it replaces.
    pub(crate) fn put_record<T: Serialize + DeserializeOwned>(
        &self,
        table: &'static str,
        key: &[u8],
        record: &T,
    ) -> Result<(), LedgerError> {
        let Some(row) = self.get::<Value>(table, key)? else {
            return self.put(table, key, record);
        };
        let known = T::deserialize(&row).and_then(|known| serde_json::to_value(known));
        let known = known.map_err(|error| {
            self.site
                .corrupt(format!("a row of `{table}` can't be read: {error}"))
        })?;
        if row == known {
            return self.put(table, key, record);
        }
        let new = serde_json::to_value(record).map_err(|error| self.unencoded(error))?;
        self.put(table, key, &unknown::kept(row, &known, new))
    }

    /// Removes a row, whether it was there or not.
    pub(crate) fn remove(&self, table: &'static str, key: &[u8]) -> Result<(), LedgerError> {
        self.change(table, |rows| rows.remove(key).map(drop))
    }

    fn unencoded(&self, error: serde_json::Error) -> LedgerError {
        self.site
            .unavailable("a record can't be encoded", Some(Box::new(error)))
    }

    pub(crate) fn change(
        &self,
        table: &'static str,
        change: impl FnOnce(&mut Table<'a, Bytes, Bytes>) -> Result<(), redb::StorageError>,
    ) -> Result<(), LedgerError> {
        let changed = guard(self.site, || match self.rows(table)? {
            Some(Rows::Write(mut rows)) => Ok(change(&mut rows).map(|()| true)?),
            Some(Rows::Read(_)) | None => Ok(false),
        })?;
        if changed {
            Ok(())
        } else {
            Err(self.site.unavailable("it is open only to be read", None))
        }
    }
}

/// No row, unless damage hides it: both of its neighbours must be sound and stand where they should.
fn missing<T>(
    table: &str,
    rows: &Rows<'_>,
    key: &[u8],
) -> Result<Result<Option<T>, String>, redb::Error> {
    let here = Span {
        start: key.to_vec(),
        end: Some(key.to_vec()),
    };
    for order in [Order::Forward, Order::Backward] {
        if let Err(what) = check_edge(table, rows, &here, order)? {
            return Ok(Err(what));
        }
    }
    Ok(Ok(None))
}

/// Looks at the row before the place where a scan begins. A row whose key was damaged stays where it was, so
/// that a search that it misled ends beside it, and it does not match its checksum. Where a search was misled
/// by a damaged page above, a row of the span stands before the place where the span was thought to begin.
fn check_edge(
    table: &str,
    rows: &Rows<'_>,
    span: &Span,
    order: Order,
) -> Result<Result<(), String>, redb::Error> {
    let row = match (order, &span.end) {
        (Order::Forward, _) => rows
            .range(Bound::Unbounded, Bound::Excluded(&span.start))?
            .next_back(),
        (Order::Backward, Some(end)) => rows.range(Bound::Included(end), Bound::Unbounded)?.next(),
        (Order::Backward, None) => None,
    };
    let Some((key, value)) = row.transpose()? else {
        return Ok(Ok(()));
    };
    let key = key.value();
    let beyond = match order {
        Order::Forward => key < span.start.as_slice(),
        Order::Backward => span.end.as_deref().is_some_and(|end| key >= end),
    };
    Ok(match codec::verify(table, key, value.value()) {
        Err(what) => Err(what),
        Ok(_) if !beyond => Err(format!("the rows of `{table}` are out of order")),
        Ok(_) => Ok(()),
    })
}
