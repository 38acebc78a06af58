//! The ledger as text: JSON Lines, one row a line, with a line before that says what it is and one after that
//! proves that it is whole. Equal ledgers give equal bytes.

use crate::rows::{self, KEPT};
use crate::store::{Order, Span};
use crate::tables::{META, SCHEMA};
use crate::{Ledger, LedgerError};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::io::{self, Write};
use std::ops::ControlFlow;

/// What the first line says the file is.
pub(crate) const FORMAT: &str = "alpine-ledger";

/// The first line.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Head {
    pub(crate) export: String,
    pub(crate) schema: u64,
    pub(crate) ledger_id: String,
}

/// One row.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Line {
    pub(crate) table: String,
    pub(crate) key: Vec<Value>,
    pub(crate) value: Value,
}

/// The last line.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Trailer {
    pub(crate) rows: u64,
    pub(crate) blake3: String,
}

/// What an export holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exported {
    /// How many rows.
    pub rows: u64,
    /// The BLAKE3 digest of all lines but the last, which has it, too.
    pub blake3: String,
}

/// What goes out, counted and hashed.
struct Hashed<'o> {
    out: &'o mut dyn Write,
    hasher: blake3::Hasher,
    rows: u64,
}

impl Hashed<'_> {
    fn line(&mut self, line: &impl Serialize) -> io::Result<()> {
        let mut text = serde_json::to_vec(line)?;
        text.push(b'\n');
        self.hasher.update(&text);
        self.out.write_all(&text)
    }
}

impl Ledger {
    /// Writes one state of the ledger as text. Indexes are left out: they follow from the rest.
    ///
    /// # Errors
    /// `Corrupt` for a row that is not sound; `Unavailable` when `out` can't be written.
    pub fn export(&self, out: &mut dyn Write) -> Result<Exported, LedgerError> {
        self.read(|snapshot| {
            let store = &snapshot.store;
            let failed = |error: io::Error| {
                let reason = format!("its export can't be written: {error}");
                store.site.unavailable(reason, Some(Box::new(error)))
            };
            let mut hashed = Hashed {
                out,
                hasher: blake3::Hasher::new(),
                rows: 0,
            };
            let head = Head {
                export: FORMAT.to_owned(),
                schema: store.get(META, b"schema")?.unwrap_or(SCHEMA),
                ledger_id: self.id().to_owned(),
            };
            hashed.line(&head).map_err(failed)?;
            for table in KEPT {
                store.scan(table, &Span::of(&[]), Order::Forward, |key, json| {
                    if table == META && key == b"imported" {
                        return Ok(ControlFlow::Continue(()));
                    }
                    let line = Line {
                        table: table.to_owned(),
                        key: rows::parts(table, key).ok_or_else(|| snapshot.bad_key(table))?,
                        value: store.parse(table, json)?,
                    };
                    hashed.line(&line).map_err(failed)?;
                    hashed.rows += 1;
                    Ok(ControlFlow::Continue(()))
                })?;
            }
            let exported = Exported {
                rows: hashed.rows,
                blake3: hashed.hasher.finalize().to_hex().to_string(),
            };
            let trailer = Trailer {
                rows: exported.rows,
                blake3: exported.blake3.clone(),
            };
            hashed.line(&trailer).map_err(failed)?;
            hashed.out.flush().map_err(failed)?;
            Ok(exported)
        })
    }
}
