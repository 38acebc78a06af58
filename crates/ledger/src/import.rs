//! A ledger from a file: an export, a backup, or the predecessor's `sessions.json`. It is made whole, then takes its name.

mod source;

use crate::error::from_io;
use crate::export::{Head, Line};
use crate::file::{self, Access};
use crate::fresh::Fresh;
use crate::rows::{self, KEPT};
use crate::site::Site;
use crate::store::{Order, Span, Store, guard};
use crate::tables::{AUDIT, EVENTS, LEASES, META, OPERATIONS, QUARANTINE, REQUESTS, SESSIONS};
use crate::{
    LeaseRecord, LedgerError, Options, SessionRecord, Snapshot, State, Timestamp, backup, create,
    fence, identity, index, migrate,
};
use redb::{ReadOnlyDatabase, ReadableDatabase};
use serde::Serialize;
use serde::de::DeserializeOwned;
use source::{Content, content, read, wrong_with};
use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

/// Takes secrets out of free text that others wrote.
pub type Redact<'r> = &'r dyn Fn(&str) -> String;

/// Knows a repository, as the predecessor had it, and a branch: the repository's address as `up` asks for it, and what
/// brings up a session of both.
pub type Ask<'r> = &'r dyn Fn(&str, &str) -> (String, String);

/// What became of an import.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Imported {
    /// It is the ledger now.
    Done {
        /// How many sessions it holds.
        sessions: u64,
        /// How many of the predecessor's requests and durable objects are of no session, and were left out.
        left_out: u64,
        /// Where the predecessor's file is now, if it stood where the ledger stands.
        moved: Option<PathBuf>,
    },
    /// The same file was imported before: nothing was changed.
    Again {
        /// How many sessions it held.
        sessions: u64,
        /// What was left out of it then.
        left_out: u64,
    },
    /// The ledger holds something else: nothing was changed.
    Taken {
        /// Whether the file is a copy of that ledger, as it was: beside it, each would take the other's sandboxes for
        /// nobody's.
        is_copy: bool,
        /// How many sessions of the ledger are unfinished.
        unfinished: u64,
    },
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
    #[serde(default)]
    left_out: u64,
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

/// Makes a ledger at `path` of the file `from`. One that is there already must be empty.
///
/// # Errors
/// When the ledger at `path` can't be used or written.
pub fn import(
    path: &Path,
    options: Options,
    from: &Path,
    redact: Redact<'_>,
    ask: Ask<'_>,
) -> Result<Imported, LedgerError> {
    let site = Site::new(path, options)?;
    file::open_dir(&site)?;
    let source = Site::new(from, site.options.clone())?;
    let read = match read(&source) {
        Ok((text, file)) => {
            let in_place = file::is_current(&site, file);
            content(&source, &text, in_place).map(|content| (text, file, content))
        }
        Err(error) => Err(format!("it can't be read: {error}")),
    };
    let (text, file, content) = match read {
        Ok(read) => read,
        Err(what) => return Ok(Imported::Refused { what }),
    };
    let done = write(&site, &source, file, (&text, &content), redact, ask);
    match done {
        // What is wrong with the file says nothing of the ledger.
        Err(error) if source.path != site.path => {
            wrong_with(&source, error).map(|what| Imported::Refused { what })
        }
        done => done,
    }
}

fn write(
    site: &Site,
    source: &Site,
    file: (u64, u64),
    (text, content): (&[u8], &Content),
    redact: Redact<'_>,
    ask: Ask<'_>,
) -> Result<Imported, LedgerError> {
    let left_out = match content {
        Content::Export(..) | Content::Backup(_) => 0,
        Content::Predecessor(document) => document.left_out(),
    };
    let blake3 = blake3::hash(text).to_hex().to_string();
    let fill = |fresh: &Fresh<'_>| {
        fresh.fill(|store| {
            let sessions = write_rows(store, source, content, redact, ask)?;
            let source = Source {
                blake3: blake3.clone(),
                sessions,
                left_out,
                at: site.options.clock.now(),
            };
            store.put(META, b"imported", &source)?;
            index::rebuild(store)?;
            Ok(sessions)
        })
    };
    if file::is_current(site, file) {
        let (sessions, moved) = replace_source(site, file, fill)?;
        return Ok(Imported::Done {
            sessions,
            left_out,
            moved: Some(moved),
        });
    }
    if file::open(site, Access::Write)?.is_none() {
        let fresh = Fresh::begin(site)?;
        if fresh.is_taken()? {
            return Err(site.unavailable("it was made meanwhile", None));
        }
        let sessions = fill(&fresh)?;
        fresh.place()?;
        return Ok(Imported::Done {
            sessions,
            left_out,
            moved: None,
        });
    }
    backup::rewrite(site, |store, fresh| {
        if let Some(known) = store.get::<Source>(META, b"imported")?
            && known.blake3 == blake3
        {
            let again = Imported::Again {
                sessions: known.sessions,
                left_out: known.left_out,
            };
            return Ok((again, false));
        }
        if let Some(taken) = taken(store, source, content)? {
            return Ok((taken, false));
        }
        let sessions = fill(fresh)?;
        let done = Imported::Done {
            sessions,
            left_out,
            moved: None,
        };
        Ok((done, true))
    })
}

/// Fills an empty ledger, which `store` is. How many sessions it has then.
fn write_rows(
    store: &Store<'_>,
    source: &Site,
    content: &Content,
    redact: Redact<'_>,
    ask: Ask<'_>,
) -> Result<u64, LedgerError> {
    match content {
        Content::Export(head, lines) => copy_lines(store, head, lines),
        Content::Backup(database) => copy_backup(store, source, database),
        Content::Predecessor(document) => {
            create::own_facts(store, &identity::of_new(store.site)?)?;
            document.write(store, redact, ask)
        }
    }
}

/// What is said of a ledger that is not empty.
fn taken(
    store: &Store<'_>,
    source: &Site,
    content: &Content,
) -> Result<Option<Imported>, LedgerError> {
    for table in [SESSIONS, OPERATIONS, REQUESTS, EVENTS, AUDIT, QUARANTINE] {
        if !store.is_empty(table)? {
            let id = content.ledger_id(source)?;
            return Ok(Some(Imported::Taken {
                is_copy: id.is_some() && id == store.get(META, b"id")?,
                unfinished: unfinished(store)?,
            }));
        }
    }
    Ok(None)
}

/// How many sessions have a sandbox, or may.
fn unfinished(store: &Store<'_>) -> Result<u64, LedgerError> {
    let mut unfinished = 0;
    store.scan(SESSIONS, &Span::of(&[]), Order::Forward, |_, json| {
        let session: SessionRecord = store.parse(SESSIONS, json)?;
        unfinished += u64::from(!session.state.is_terminal() || session.destroy_pending);
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(unfinished)
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
fn copy_backup(
    store: &Store<'_>,
    source: &Site,
    database: &ReadOnlyDatabase,
) -> Result<u64, LedgerError> {
    let transaction = guard(source, || Ok(database.begin_read()?))?;
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
) -> Result<(u64, PathBuf), LedgerError> {
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
    Ok((sessions, moved))
}
