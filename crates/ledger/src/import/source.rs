//! The file that is imported: what it is, and what it holds.

use crate::export::{FORMAT, Head, Line, Trailer};
use crate::site::Site;
use crate::store::{Store, guard};
use crate::tables::{META, SCHEMA};
use crate::{LedgerError, file, predecessor, private, rows};
use redb::{ReadOnlyDatabase, ReadableDatabase};
use rustix::fs::{Mode, OFlags};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

/// What a file turned out to be.
pub(super) enum Content {
    Export(Head, Vec<Line>),
    Backup(ReadOnlyDatabase),
    Predecessor(predecessor::Document),
}

impl Content {
    /// The id of the ledger that the file was made of.
    pub(super) fn ledger_id(&self, source: &Site) -> Result<Option<String>, LedgerError> {
        match self {
            Content::Export(head, _) => Ok(Some(head.ledger_id.clone())),
            Content::Backup(database) => {
                let transaction = guard(source, || Ok(database.begin_read()?))?;
                Store::reading(source, &transaction).get(META, b"id")
            }
            Content::Predecessor(_) => Ok(None),
        }
    }
}

/// The bytes of the source as of one commit, and which file it is. Whose it is and who else may read it is all one: it
/// may be a link, and it is not written.
pub(super) fn read(source: &Site) -> io::Result<(Vec<u8>, (u64, u64))> {
    // Without `NONBLOCK`, opening a named pipe would wait for its other end.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let mut file = rustix::fs::open(&source.path, flags, Mode::empty()).map(File::from)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    for _ in 0..private::TRIES {
        let mut text = Vec::new();
        file.seek(SeekFrom::Start(0))?;
        file.read_to_end(&mut text)?;
        let header = private::header(&file)?;
        if text.starts_with(&header[..text.len().min(header.len())]) {
            return Ok((text, file::identity(&metadata)));
        }
    }
    Err(io::Error::other("it is written all the time"))
}

/// What the file is, as far as it is whole. Where the ledger should stand, only the predecessor's is taken.
pub(super) fn content(source: &Site, text: &[u8], in_place: bool) -> Result<Content, String> {
    if text.starts_with(file::MAGIC) {
        if in_place {
            return Err("it is the ledger itself".to_owned());
        }
        let database = private::of_bytes(source, text);
        return database
            .map(Content::Backup)
            .map_err(|error| wrong_with(source, error).unwrap_or_else(|error| error.to_string()));
    }
    let first = text.split(|byte| *byte == b'\n').next().unwrap_or_default();
    match serde_json::from_slice::<Head>(first) {
        Ok(head) if head.export == FORMAT && in_place => {
            Err("it stands where the ledger should: move it elsewhere first".to_owned())
        }
        Ok(head) if head.export == FORMAT => lines(head, text),
        Ok(_) | Err(_) => predecessor::Document::parse(text).map(Content::Predecessor),
    }
}

/// What is wrong with the source; an error that is not about it stays one.
pub(super) fn wrong_with(source: &Site, error: LedgerError) -> Result<String, LedgerError> {
    if let LedgerError::Corrupt { path, what } = &error
        && *path == source.path
    {
        return Ok(format!("it is damaged: {what}"));
    }
    if let LedgerError::Newer { path, schema } = &error
        && *path == source.path
    {
        return Ok(format!("a newer version wrote it (schema {schema})"));
    }
    if let LedgerError::Incompatible { path, what } = &error
        && *path == source.path
    {
        return Ok(what.clone());
    }
    Err(error)
}

fn lines(head: Head, text: &[u8]) -> Result<Content, String> {
    let cut = || "the export was cut short: its last line is missing".to_owned();
    if head.schema > SCHEMA {
        return Err(format!(
            "a newer version wrote the export (schema {})",
            head.schema
        ));
    }
    let body = text.strip_suffix(b"\n").ok_or_else(cut)?;
    let start = body
        .iter()
        .rposition(|byte| *byte == b'\n')
        .ok_or_else(cut)?
        + 1;
    let trailer: Trailer = serde_json::from_slice(&body[start..]).map_err(|_| cut())?;
    if trailer.blake3 != blake3::hash(&text[..start]).to_hex().as_str() {
        return Err("the export does not match its digest: it was changed or damaged".to_owned());
    }
    let mut lines = Vec::new();
    for (index, line) in text[..start - 1]
        .split(|byte| *byte == b'\n')
        .enumerate()
        .skip(1)
    {
        let wrong = |what: String| format!("line {} of the export: {what}", index + 1);
        let line: Line = serde_json::from_slice(line).map_err(|error| wrong(error.to_string()))?;
        let json = line.value.to_string();
        rows::well_formed(&line.table, json.as_bytes()).map_err(wrong)?;
        lines.push(line);
    }
    if lines.len() as u64 != trailer.rows {
        return Err(cut());
    }
    Ok(Content::Export(head, lines))
}
