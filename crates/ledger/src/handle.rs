//! What a ledger has open: one handle that all its reads share, and one that its writes take in turns.

use crate::LedgerError;
use crate::backend::PatientFile;
use crate::error::{Hindrance, from_io};
use crate::file::{self, Access};
use crate::private;
use crate::site::Site;
use crate::store::{self, guard};
use redb::{Database, ReadOnlyDatabase};
use std::fmt;
use std::fs::File;
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How often a file is repaired that another writer, killed meanwhile, left unclean again.
const REPAIRS: usize = 3;

/// How long a reader waits for the right to repair the file: who has it may be stopped.
const REPAIR_PATIENCE: Duration = Duration::from_millis(50);

/// The handle that all reads of this process share.
#[derive(Clone)]
pub(crate) struct Reader {
    pub(crate) database: Arc<ReadOnlyDatabase>,
    file: (u64, u64),
    /// Whether it reads a copy, which does not see what is written later.
    is_copy: bool,
}

/// What became of the handle that writes.
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

/// The handle that the writes of this process take in turns.
#[derive(Debug)]
pub(crate) struct Open {
    pub(crate) database: Database,
    pub(crate) file: (u64, u64),
}

/// The place where that handle waits for the next write.
#[derive(Debug)]
pub(crate) struct Writers {
    writer: Mutex<Writer>,
    is_free: Condvar,
}

/// The right to use it, given back when dropped.
#[derive(Debug)]
pub(crate) struct Turn<'a> {
    site: &'a Site,
    writers: &'a Writers,
    writer: Writer,
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader")
            .field("file", &self.file)
            .finish_non_exhaustive()
    }
}

impl Reader {
    /// Whether it sees what is in the ledger now.
    pub(crate) fn is_current(&self, site: &Site) -> bool {
        !self.is_copy && file::is_current(site, self.file)
    }
}

impl Writers {
    pub(crate) fn new() -> Self {
        Self {
            writer: Mutex::new(Writer::Closed),
            is_free: Condvar::new(),
        }
    }

    /// Waits until no other thread of this process writes, no longer than for another process.
    pub(crate) fn take<'a>(&'a self, site: &'a Site) -> Result<Turn<'a>, LedgerError> {
        let patience = site.options.lock_timeout;
        let start = Instant::now();
        let mut writer = lock(&self.writer);
        while matches!(*writer, Writer::Taken) {
            let Some(left) = patience
                .checked_sub(start.elapsed())
                .filter(|left| !left.is_zero())
            else {
                return Err(site.busy(patience));
            };
            writer = self
                .is_free
                .wait_timeout(writer, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        if let Writer::Damaged(what) = &*writer {
            return Err(site.corrupt(what.clone()));
        }
        Ok(Turn {
            site,
            writers: self,
            writer: std::mem::replace(&mut *writer, Writer::Taken),
        })
    }
}

impl Drop for Writers {
    fn drop(&mut self) {
        let writer = self
            .writer
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner);
        close(std::mem::replace(writer, Writer::Closed));
    }
}

impl Turn<'_> {
    /// The writer's handle, opened if need be.
    pub(crate) fn open(&mut self) -> Result<&Open, LedgerError> {
        if !matches!(self.writer, Writer::Open(_)) {
            self.writer = Writer::Open(open_writer(self.site)?);
        }
        match &self.writer {
            Writer::Open(open) => Ok(open),
            Writer::Closed | Writer::Taken | Writer::Damaged(_) => {
                Err(self.site.unavailable("it is closed", None))
            }
        }
    }

    /// Closes the handle, so that the file is whole.
    pub(crate) fn close(&mut self) {
        close(std::mem::replace(&mut self.writer, Writer::Closed));
    }

    /// What becomes of the handle after a write that failed.
    pub(crate) fn after(&mut self, error: &LedgerError) {
        match error {
            // Closing would write into a damaged file, so the handle is left open until the process ends.
            LedgerError::Corrupt { what, .. } => {
                std::mem::forget(std::mem::replace(
                    &mut self.writer,
                    Writer::Damaged(what.clone()),
                ));
            }
            // After an error of the file system redb refuses all work until the file is opened again.
            LedgerError::Unavailable { .. } => self.close(),
            // Opening it decides whether the commit took place: only then do reads say what writes will find.
            LedgerError::OutcomeUnknown { .. } => {
                self.close();
                drop(self.open());
            }
            LedgerError::Busy { .. }
            | LedgerError::Incompatible { .. }
            | LedgerError::Newer { .. }
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
        *lock(&self.writers.writer) = writer;
        self.writers.is_free.notify_one();
    }
}

/// Closes a handle; redb may panic over a damaged file.
fn close(writer: Writer) {
    drop(panic::catch_unwind(AssertUnwindSafe(|| drop(writer))));
}

/// Locks a mutex; what it guards stays whole when a thread panics.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn backend(site: &Site, file: File) -> Result<(PatientFile, (u64, u64)), LedgerError> {
    let metadata = file.metadata().map_err(|error| from_io(site, error))?;
    Ok((PatientFile::new(site, file)?, file::identity(&metadata)))
}

pub(crate) fn open_writer(site: &Site) -> Result<Open, LedgerError> {
    open_writer_within(site, site.options.lock_timeout)
}

fn open_writer_within(site: &Site, patience: Duration) -> Result<Open, LedgerError> {
    let file = file::open(site, Access::Write)?
        .ok_or_else(|| site.unavailable("it was removed since it was opened", None))?;
    let (backend, file) = backend(site, file)?;
    let backend = backend.waiting(patience);
    let database = guard(site, || Ok(store::builder().create_with_backend(backend)?))?;
    Ok(Open { database, file })
}

/// Opens the file to read it. After its last writer was killed it has to be repaired first, which takes a
/// writer: once, unless another one is killed meanwhile. Where nobody can write, a copy is repaired.
pub(crate) fn open_reader(site: &Site) -> Result<Option<Reader>, LedgerError> {
    let limit = Instant::now() + site.options.lock_timeout;
    let mut repairs = 0;
    while repairs < REPAIRS {
        let Some(file) = file::open(site, Access::Read)? else {
            return Ok(None);
        };
        let (backend, file) = backend(site, file)?;
        let reader = |database, is_copy| {
            Some(Reader {
                database: Arc::new(database),
                file,
                is_copy,
            })
        };
        let opened = guard(site, || {
            match store::builder().open_read_only_with_backend(backend.reads_only()) {
                Ok(database) => Ok(Some(database)),
                Err(redb::DatabaseError::RepairAborted) => Ok(None),
                Err(error) => Err(error.into()),
            }
        })?;
        if let Some(database) = opened {
            return Ok(reader(database, false));
        }
        match repair(site) {
            Err(error) if bars_writers(&error) => match private::repaired(site)? {
                Some(copy) => return Ok(reader(copy, true)),
                // Somebody repairs it, or writes already: that is soon over.
                None if Instant::now() < limit => {}
                None => return Err(error),
            },
            repaired => {
                repaired?;
                repairs += 1;
            }
        }
    }
    Err(site.unavailable(
        "its writers are killed faster than it can be repaired",
        None,
    ))
}

/// Repairs the file as any writer does that opens it.
fn repair(site: &Site) -> Result<(), LedgerError> {
    let repaired = open_writer_within(site, REPAIR_PATIENCE.min(site.options.lock_timeout))?;
    guard(site, || Ok(repaired.database.close()?))
}

/// Whether an error only keeps writers out: their lock is held, or the file may not be written.
pub(crate) fn bars_writers(error: &LedgerError) -> bool {
    matches!(
        error,
        LedgerError::Busy { .. }
            | LedgerError::Unavailable {
                hindrance: Hindrance::ReadOnly
                    | Hindrance::ReadOnlyFileSystem
                    | Hindrance::Permissions
                    | Hindrance::NoSpace,
                ..
            }
    )
}
