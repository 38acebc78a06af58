//! Opening a ledger, and its transactions.

use crate::backend::PatientFile;
use crate::error::{from_io, from_redb};
use crate::file::{self, Access};
use crate::site::Site;
use crate::store::{self, Store, guard};
use crate::tables::{META, SCHEMA};
use crate::{LedgerError, Options, Snapshot, Tx, create};
use redb::{Database, ReadOnlyDatabase, ReadableDatabase};
use std::fs::File;
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

/// How often a file is repaired that another writer, killed meanwhile, left unclean again.
const REPAIRS: usize = 3;

/// A ledger. Cheap to clone; clones share what they have open.
#[derive(Clone, Debug)]
pub struct Ledger {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    site: Site,
    access: Access,
    id: OnceLock<String>,
    commits: AtomicU64,
    reader: Mutex<Option<Reader>>,
    writer: Mutex<Writer>,
    writer_is_free: Condvar,
}

/// The handle that all reads of this process share.
#[derive(Clone)]
struct Reader {
    database: Arc<ReadOnlyDatabase>,
    file: (u64, u64),
}

/// The handle that the writes of this process take in turns.
#[derive(Debug)]
enum Writer {
    /// Opened by the next write.
    Closed,
    /// Free to be taken.
    Open(Open),
    /// A write has it.
    Taken,
    /// The file is damaged: nothing is written any more.
    Damaged(String),
}

#[derive(Debug)]
struct Open {
    database: Database,
    file: (u64, u64),
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader")
            .field("file", &self.file)
            .finish_non_exhaustive()
    }
}

impl Ledger {
    /// Opens the ledger at `path`, and makes it if it is not there.
    ///
    /// # Errors
    /// `Unavailable` for a file, owner, mode, link or file system that is refused; `Corrupt`, `Incompatible`
    /// or `Predecessor` for what is in the file; `Busy` when another process kept it locked.
    pub fn open(path: &Path, options: Options) -> Result<Self, LedgerError> {
        let site = Site::new(path, options)?;
        file::open_dir(&site)?;
        if file::open(&site, Access::Write)?.is_none() {
            create::create(&site)?;
        }
        let ledger = Self::of(site, Access::Write);
        ledger.shared.reader()?;
        Ok(ledger)
    }

    /// Opens the ledger at `path` to read it. Where there is none, it is empty; it is never made.
    ///
    /// # Errors
    /// As `open`.
    pub fn open_read(path: &Path, options: Options) -> Result<Self, LedgerError> {
        let ledger = Self::of(Site::new(path, options)?, Access::Read);
        if ledger.shared.site.dir.exists() {
            file::open_dir(&ledger.shared.site)?;
        }
        ledger.shared.reader()?;
        Ok(ledger)
    }

    fn of(site: Site, access: Access) -> Self {
        let shared = Shared {
            site,
            access,
            id: OnceLock::new(),
            commits: AtomicU64::new(0),
            reader: Mutex::new(None),
            writer: Mutex::new(Writer::Closed),
            writer_is_free: Condvar::new(),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// The ledger's id, drawn when it was made; empty while there is none.
    #[must_use]
    pub fn id(&self) -> &str {
        self.shared.id.get().map_or("", String::as_str)
    }

    /// How many write transactions this handle has committed.
    #[must_use]
    pub fn commits(&self) -> u64 {
        self.shared.commits.load(Ordering::Relaxed)
    }

    /// One atomic transaction. An error of `f` undoes all of it.
    ///
    /// # Errors
    /// What `f` says; `Busy` when another process wrote for longer than the limit; `OutcomeUnknown` when the
    /// commit failed.
    pub fn write<T>(
        &self,
        f: impl FnOnce(&mut Tx<'_>) -> Result<T, LedgerError>,
    ) -> Result<T, LedgerError> {
        let shared = &*self.shared;
        if shared.access == Access::Read {
            return Err(shared
                .site
                .unavailable("it was opened only to be read", None));
        }
        let mut turn = shared.take_turn()?;
        let result = turn.open().and_then(|open| transact(&shared.site, open, f));
        match &result {
            Ok(_) => {
                shared.commits.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => turn.after(error),
        }
        result
    }

    /// Reads one state of the ledger. Waits for no writer.
    ///
    /// # Errors
    /// What `f` says; `Unavailable` or `Corrupt` when the file can't be read.
    pub fn read<T>(
        &self,
        f: impl FnOnce(&Snapshot<'_>) -> Result<T, LedgerError>,
    ) -> Result<T, LedgerError> {
        let shared = &*self.shared;
        let Some(reader) = shared.reader()? else {
            return f(&Snapshot::new(Store::empty(&shared.site)));
        };
        let result = guard(&shared.site, || Ok(reader.database.begin_read()?))
            .and_then(|transaction| f(&Snapshot::new(Store::reading(&shared.site, &transaction))));
        if let Err(LedgerError::Unavailable { .. } | LedgerError::Corrupt { .. }) = &result {
            *lock(&shared.reader) = None;
        }
        result
    }
}

/// One write transaction, from the writer's lock to the commit.
fn transact<T>(
    site: &Site,
    open: &Open,
    f: impl FnOnce(&mut Tx<'_>) -> Result<T, LedgerError>,
) -> Result<T, LedgerError> {
    let transaction = guard(site, || Ok(open.database.begin_write()?))?;
    if !file::is_current(site, open.file) {
        return Err(site.unavailable("it was removed or replaced since it was opened", None));
    }
    let store = Store::writing(site, &transaction);
    let schema: u64 = store
        .get(META, b"schema")?
        .ok_or_else(|| site.corrupt("it has no version"))?;
    if schema > SCHEMA {
        return Err(site.incompatible(format!(
            "a newer version wrote it (schema {schema}); it can only be read"
        )));
    }
    let mut tx = Tx::new(Snapshot::new(store));
    match f(&mut tx) {
        Ok(value) => guard(site, || Ok(transaction.commit()?))
            .map(|()| value)
            .map_err(|error| LedgerError::OutcomeUnknown {
                source: Box::new(error),
            }),
        Err(error) => {
            // What was found out first says more than an abort that fails because of it.
            let aborted = guard(site, || Ok(transaction.abort()?));
            let worse = aborted
                .err()
                .filter(|_| !matches!(error, LedgerError::Corrupt { .. }));
            Err(worse.unwrap_or(error))
        }
    }
}

impl Shared {
    /// The reader's handle, opened if need be; none while there is no file.
    fn reader(&self) -> Result<Option<Reader>, LedgerError> {
        let mut held = lock(&self.reader);
        if let Some(reader) = held
            .as_ref()
            .filter(|reader| file::is_current(&self.site, reader.file))
        {
            return Ok(Some(reader.clone()));
        }
        *held = open_reader(&self.site)?;
        if let Some(reader) = held.as_ref() {
            let id = read_id(&self.site, reader)?;
            self.id.get_or_init(|| id);
        }
        Ok(held.clone())
    }

    /// Waits until no other thread of this process writes, no longer than for another process.
    fn take_turn(&self) -> Result<Turn<'_>, LedgerError> {
        let patience = self.site.options.lock_timeout;
        let start = Instant::now();
        let mut writer = lock(&self.writer);
        while matches!(*writer, Writer::Taken) {
            let Some(left) = patience
                .checked_sub(start.elapsed())
                .filter(|left| !left.is_zero())
            else {
                return Err(self.site.busy(patience));
            };
            writer = self
                .writer_is_free
                .wait_timeout(writer, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        if let Writer::Damaged(what) = &*writer {
            return Err(self.site.corrupt(what.clone()));
        }
        Ok(Turn {
            shared: self,
            writer: std::mem::replace(&mut *writer, Writer::Taken),
        })
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let writer = self
            .writer
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner);
        close(std::mem::replace(writer, Writer::Closed));
    }
}

/// The right to use the writer's handle, given back when dropped.
struct Turn<'a> {
    shared: &'a Shared,
    writer: Writer,
}

impl Turn<'_> {
    /// The writer's handle, opened if need be.
    fn open(&mut self) -> Result<&Open, LedgerError> {
        if !matches!(self.writer, Writer::Open(_)) {
            self.writer = Writer::Open(open_writer(&self.shared.site)?);
        }
        match &self.writer {
            Writer::Open(open) => Ok(open),
            Writer::Closed | Writer::Taken | Writer::Damaged(_) => {
                Err(self.shared.site.unavailable("it is closed", None))
            }
        }
    }

    /// What becomes of the handle after a write that failed.
    fn after(&mut self, error: &LedgerError) {
        match error {
            // Closing would write into a damaged file, so the handle is left open until the process ends.
            LedgerError::Corrupt { what, .. } => {
                std::mem::forget(std::mem::replace(
                    &mut self.writer,
                    Writer::Damaged(what.clone()),
                ));
            }
            // After an error of the file system redb refuses all work until the file is opened again.
            LedgerError::Unavailable { .. } | LedgerError::OutcomeUnknown { .. } => {
                close(std::mem::replace(&mut self.writer, Writer::Closed));
            }
            LedgerError::Busy { .. }
            | LedgerError::Incompatible { .. }
            | LedgerError::Predecessor { .. }
            | LedgerError::Fenced { .. }
            | LedgerError::IllegalTransition { .. }
            | LedgerError::NotFound { .. }
            | LedgerError::VersionMismatch { .. }
            | LedgerError::Protected { .. } => {}
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut writer = std::mem::replace(&mut self.writer, Writer::Closed);
        if std::thread::panicking() {
            close(std::mem::replace(&mut writer, Writer::Closed));
        }
        *lock(&self.shared.writer) = writer;
        self.shared.writer_is_free.notify_one();
    }
}

/// Closes a handle; redb may panic over a damaged file.
fn close(writer: Writer) {
    drop(panic::catch_unwind(AssertUnwindSafe(|| drop(writer))));
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn backend(site: &Site, file: File) -> Result<(PatientFile, (u64, u64)), LedgerError> {
    let metadata = file.metadata().map_err(|error| from_io(site, error))?;
    let backend = PatientFile::new(file, site.options.lock_timeout)
        .map_err(|error| from_redb(site, error))?;
    Ok((backend, file::identity(&metadata)))
}

fn open_writer(site: &Site) -> Result<Open, LedgerError> {
    let file = file::open(site, Access::Write)?
        .ok_or_else(|| site.unavailable("it was removed since it was opened", None))?;
    let (backend, file) = backend(site, file)?;
    let database = guard(site, || Ok(store::builder().create_with_backend(backend)?))?;
    Ok(Open { database, file })
}

/// Opens the file to read it. After its last writer was killed it has to be repaired first, which takes a
/// writer: once, unless another one is killed meanwhile.
fn open_reader(site: &Site) -> Result<Option<Reader>, LedgerError> {
    for _ in 0..REPAIRS {
        let Some(file) = file::open(site, Access::Read)? else {
            return Ok(None);
        };
        let (backend, file) = backend(site, file)?;
        let opened = guard(site, || {
            match store::builder().open_read_only_with_backend(backend) {
                Ok(database) => Ok(Some(database)),
                Err(redb::DatabaseError::RepairAborted) => Ok(None),
                Err(error) => Err(error.into()),
            }
        })?;
        if let Some(database) = opened {
            return Ok(Some(Reader {
                database: Arc::new(database),
                file,
            }));
        }
        let repaired = open_writer(site)?;
        guard(site, || Ok(repaired.database.close()?))?;
    }
    Err(site.unavailable(
        "its writers are killed faster than it can be repaired",
        None,
    ))
}

fn read_id(site: &Site, reader: &Reader) -> Result<String, LedgerError> {
    let transaction = guard(site, || Ok(reader.database.begin_read()?))?;
    let id: Option<String> = Store::reading(site, &transaction).get(META, b"id")?;
    id.ok_or_else(|| site.corrupt("it has no id"))
}
