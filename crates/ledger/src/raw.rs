//! Whole tables as they are stored: copied, emptied, or looked at row by row, sound or not.

use crate::store::{Order, Rows, Store, guard};
use crate::tables::TABLES;
use crate::{LedgerError, codec};
use redb::ReadableTable;
use std::ops::Bound;

impl Store<'_> {
    /// Visits every row as it is stored, up to where the table can't be read any further.
    pub(crate) fn walk(
        &self,
        table: &'static str,
        order: Order,
        mut visit: impl FnMut(&[u8], &[u8]),
    ) -> Result<(), LedgerError> {
        guard(self.site, || {
            let Some(rows) = self.rows(table)? else {
                return Ok(());
            };
            let mut range = rows.range(Bound::Unbounded, Bound::Unbounded)?;
            loop {
                let next = match order {
                    Order::Forward => range.next(),
                    Order::Backward => range.next_back(),
                };
                let Some((key, value)) = next.transpose()? else {
                    return Ok(());
                };
                visit(key.value(), value.value());
            }
        })
    }

    /// Copies all tables, whose every row has to be sound. How many rows there are, and their bytes.
    pub(crate) fn copy_to(&self, into: &Store<'_>) -> Result<(u64, u64), LedgerError> {
        let mut all = (0, 0);
        for table in TABLES {
            let (rows, bytes) = self.copy_table(table, into)?;
            all = (all.0 + rows, all.1 + bytes);
        }
        Ok(all)
    }

    fn copy_table(&self, table: &'static str, into: &Store<'_>) -> Result<(u64, u64), LedgerError> {
        let copied = guard(self.site, || {
            let (Some(from), Some(Rows::Write(mut to))) = (self.rows(table)?, into.rows(table)?)
            else {
                return Ok(Ok((0, 0)));
            };
            let (mut count, mut size) = (0, 0);
            for row in from.range(Bound::Unbounded, Bound::Unbounded)? {
                let (key, value) = row?;
                if let Err(what) = codec::verify(table, key.value(), value.value()) {
                    return Ok(Err(what));
                }
                to.insert(key.value(), value.value())?;
                count += 1;
                size += (key.value().len() + value.value().len()) as u64;
            }
            Ok(Ok((count, size)))
        })?;
        copied.map_err(|what| self.site.corrupt(what))
    }

    /// Writes a row as it was stored elsewhere.
    pub(crate) fn put_stored(
        &self,
        table: &'static str,
        key: &[u8],
        value: &[u8],
    ) -> Result<(), LedgerError> {
        self.change(table, |rows| rows.insert(key, value).map(drop))
    }

    /// How many rows all tables have.
    pub(crate) fn count(&self) -> Result<u64, LedgerError> {
        let mut count = 0;
        for table in TABLES {
            self.walk(table, Order::Forward, |_, _| count += 1)?;
        }
        Ok(count)
    }

    /// The bytes of all keys and values.
    pub(crate) fn live_bytes(&self) -> Result<u64, LedgerError> {
        let mut size = 0;
        for table in TABLES {
            self.walk(table, Order::Forward, |key, value| {
                size += (key.len() + value.len()) as u64;
            })?;
        }
        Ok(size)
    }

    /// Removes all rows of a table.
    pub(crate) fn clear(&self, table: &'static str) -> Result<(), LedgerError> {
        self.change(table, |rows| rows.retain(|_, _| false))
    }

    /// Whether a table has no row.
    pub(crate) fn is_empty(&self, table: &'static str) -> Result<bool, LedgerError> {
        guard(self.site, || {
            Ok(match self.rows(table)? {
                None => true,
                Some(Rows::Read(rows)) => rows.first()?.is_none(),
                Some(Rows::Write(rows)) => rows.first()?.is_none(),
            })
        })
    }
}
