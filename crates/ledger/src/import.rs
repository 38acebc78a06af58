//! A ledger from a file: an export, a backup, or the predecessor's `sessions.json`. It is made whole, then takes its name.

use crate::error::from_io;
use crate::export::{FORMAT, Head, Line, Trailer};
use crate::file::{self, Access};
use crate::fresh::Fresh;
use crate::handle::open_reader;
use crate::rows::{self, KEPT};
use crate::site::Site;
use crate::store::{Order, Span, Store, guard};
use crate::tables::{
    AUDIT, EVENTS, LEASES, META, OPERATIONS, QUARANTINE, REQUESTS, SCHEMA, SESSIONS,
};
use crate::{
    LeaseRecord, LedgerError, Options, SessionRecord, Snapshot, State, Timestamp, backup, create,
    fence, identity, index, migrate, predecessor,
};
use redb::ReadableDatabase;
use rustix::fs::{Mode, OFlags};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fs::{self, File};
use std::io::Read;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

/// Takes secrets out of free text that others wrote.
pub type Redact<'r> = &'r dyn Fn(&str) -> String;

/// What became of an import.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Imported {
    /// It is the ledger now.
    Done {
        /// How many sessions it holds.
        sessions: u64,
        /// Where the predecessor's file is now, if it stood where the ledger stands.
        moved: Option<PathBuf>,
    },
    /// The same file was imported before: nothing was changed.
    Again {
        /// How many sessions it held.
        sessions: u64,
    },
    /// The ledger holds something else: nothing was changed.
    Taken,
    /// The file is none of those, or is damaged: nothing was changed.
    Refused {
        /// What is wrong with it.
        what: String,
    },
}

/// What the ledger remembers of an import.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
struct Source {
    blake3: String,
    sessions: u64,
    /// When it was.
    #[serde(default)]
    at: Timestamp,
}

impl Snapshot<'_> {
    /// When the ledger was imported, if it was: else long ago.
    pub(crate) fn imported_at(&self) -> Result<Timestamp, LedgerError> {
        let source: Option<Source> = self.store.get(META, b"imported")?;
        Ok(source.map_or_else(Timestamp::default, |source| source.at))
    }
}

/// What a file turned out to be.
enum Content {
    Export(Head, Vec<Line>),
    Backup,
    Predecessor(predecessor::Document),
}

/// Makes a ledger at `path` of the file `from`. One that is there already must be empty.
///
/// # Errors
/// When a file can't be read or written, or when the ledger at `path` can't be used.
pub fn import(
    path: &Path,
    options: Options,
    from: &Path,
    redact: Redact<'_>,
) -> Result<Imported, LedgerError> {
    let site = Site::new(path, options)?;
    file::open_dir(&site)?;
    let source = Site::new(from, site.options.clone())?;
    let (text, file) = read(&source)?;
    let in_place = file::is_current(&site, file);
    let content = match content(&text).and_then(|content| may_stand(content, in_place)) {
        Ok(content) => content,
        Err(what) => return Ok(Imported::Refused { what }),
    };
    let blake3 = blake3::hash(&text).to_hex().to_string();
    let fill = |fresh: &Fresh<'_>| {
        fresh.fill(|store| {
            let sessions = match &content {
                Content::Export(head, lines) => copy_lines(store, head, lines)?,
                Content::Backup => copy_backup(store, &source)?,
                Content::Predecessor(document) => {
                    create::own_facts(store, &identity::of_new(&site)?)?;
                    document.write(store, redact)?
                }
            };
            let source = Source {
                blake3: blake3.clone(),
                sessions,
                at: site.options.clock.now(),
            };
            store.put(META, b"imported", &source)?;
            index::rebuild(store)?;
            Ok(sessions)
        })
    };
    if in_place {
        return replace_source(&site, file, fill);
    }
    if file::open(&site, Access::Write)?.is_none() {
        let fresh = Fresh::begin(&site)?;
        if fresh.is_taken()? {
            return Err(site.unavailable("it was made meanwhile", None));
        }
        let sessions = fill(&fresh)?;
        fresh.place()?;
        return Ok(Imported::Done {
            sessions,
            moved: None,
        });
    }
    backup::rewrite(&site, |store, fresh| {
        if let Some(known) = store.get::<Source>(META, b"imported")?
            && known.blake3 == blake3
        {
            let sessions = known.sessions;
            return Ok((Imported::Again { sessions }, false));
        }
        for table in [SESSIONS, OPERATIONS, REQUESTS, EVENTS, AUDIT, QUARANTINE] {
            if !store.is_empty(table)? {
                return Ok((Imported::Taken, false));
            }
        }
        let sessions = fill(fresh)?;
        let moved = None;
        Ok((Imported::Done { sessions, moved }, true))
    })
}

/// The bytes of the source, and which file it is.
fn read(source: &Site) -> Result<(Vec<u8>, (u64, u64)), LedgerError> {
    let mut text = Vec::new();
    let failed = |error| from_io(source, error);
    // Without `NONBLOCK`, opening a named pipe would wait for its other end.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let mut file = rustix::fs::open(&source.path, flags, Mode::empty())
        .map(File::from)
        .map_err(|error| failed(error.into()))?;
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() {
        return Err(source.unavailable("it is not a regular file", None));
    }
    file.read_to_end(&mut text).map_err(failed)?;
    Ok((text, file::identity(&metadata)))
}

/// Refuses what stands where the ledger should, unless it is the predecessor's.
fn may_stand(content: Content, in_place: bool) -> Result<Content, String> {
    let what = match &content {
        Content::Backup => "it is the ledger itself",
        Content::Export(..) => "it stands where the ledger should: move it elsewhere first",
        Content::Predecessor(_) => return Ok(content),
    };
    if in_place {
        Err(what.to_owned())
    } else {
        Ok(content)
    }
}

/// What the file is, as far as it is whole.
fn content(text: &[u8]) -> Result<Content, String> {
    if text.starts_with(file::MAGIC) {
        return Ok(Content::Backup);
    }
    let first = text.split(|byte| *byte == b'\n').next().unwrap_or_default();
    match serde_json::from_slice::<Head>(first) {
        Ok(head) if head.export == FORMAT => lines(head, text),
        Ok(_) | Err(_) => predecessor::Document::parse(text).map(Content::Predecessor),
    }
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

fn copy_lines(store: &Store<'_>, head: &Head, lines: &[Line]) -> Result<u64, LedgerError> {
    create::own_facts(store, &head.ledger_id)?;
    for line in lines {
        let wrong = || {
            let table = &line.table;
            store
                .site
                .incompatible(format!("the export has an unknown row of `{table}`"))
        };
        let table = KEPT
            .into_iter()
            .find(|known| *known == line.table)
            .ok_or_else(wrong)?;
        let key = rows::key(table, &line.key).ok_or_else(wrong)?;
        store.put(table, key.as_bytes(), &line.value)?;
    }
    came_back(store)
}

/// Copies a backup, whose every row has to be sound.
fn copy_backup(store: &Store<'_>, source: &Site) -> Result<u64, LedgerError> {
    let reader =
        open_reader(source)?.ok_or_else(|| source.unavailable("it was removed meanwhile", None))?;
    let transaction = guard(source, || Ok(reader.database.begin_read()?))?;
    let from = Store::reading(source, &transaction);
    migrate::refuse_newer(&from)?;
    from.copy_to(store)?;
    came_back(store)
}

/// What the file says was true when it was written; more has happened since. How many sessions it holds.
fn came_back(store: &Store<'_>) -> Result<u64, LedgerError> {
    // Nobody holds a lease. Whoever did, then or later, is behind its fence, and providers take the next holder's.
    each_row(store, LEASES, |lease: &mut LeaseRecord| {
        lease.fence = fence::above(store.site, lease.fence);
        lease.holder = None;
        true
    })?;
    // The agent of an `up` that was under way then may have worked since.
    let mut sessions = 0;
    each_row(store, SESSIONS, |session: &mut SessionRecord| {
        sessions += 1;
        use State::{Installing, Provisioning, RepoSyncing, Requested};
        let was_under_way = matches!(
            session.state,
            Requested | Provisioning | RepoSyncing | Installing
        );
        session.agent_started |= was_under_way;
        was_under_way
    })?;
    Ok(sessions)
}

/// Visits all rows of a table, and writes those again that were changed.
fn each_row<T: DeserializeOwned + Serialize>(
    store: &Store<'_>,
    table: &'static str,
    mut change: impl FnMut(&mut T) -> bool,
) -> Result<(), LedgerError> {
    let mut changed: Vec<(Vec<u8>, T)> = Vec::new();
    store.scan(table, &Span::of(&[]), Order::Forward, |key, json| {
        let mut row = store.parse(table, json)?;
        if change(&mut row) {
            changed.push((key.to_vec(), row));
        }
        Ok(ControlFlow::Continue(()))
    })?;
    changed
        .iter()
        .try_for_each(|(key, row)| store.put_record(table, key, row))
}

/// Puts the ledger where its source stood, which keeps its bytes under another name.
fn replace_source(
    site: &Site,
    source: (u64, u64),
    fill: impl FnOnce(&Fresh<'_>) -> Result<u64, LedgerError>,
) -> Result<Imported, LedgerError> {
    let fresh = Fresh::begin(site)?;
    if !file::is_current(site, source) {
        return Err(site.unavailable("it was replaced meanwhile", None));
    }
    let sessions = fill(&fresh)?;
    let mut name = site.path.clone().into_os_string();
    name.push(".predecessor");
    let moved = PathBuf::from(name);
    let failed = |error| from_io(site, error);
    match fs::hard_link(&site.path, &moved) {
        // An import that was interrupted here had made it.
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            let (old, new) = (fs::metadata(&site.path), fs::metadata(&moved));
            let (old, new) = (old.map_err(failed)?, new.map_err(failed)?);
            if file::identity(&old) != file::identity(&new) {
                let reason = format!("`{}` is there already", moved.display());
                return Err(site.unavailable(reason, None));
            }
        }
        result => result.map_err(failed)?,
    }
    fresh.replace()?;
    Ok(Imported::Done {
        sessions,
        moved: Some(moved),
    })
}
