//! Counts what the program commits to its ledger, and strikes at one commit: the process dies there, or the disk is full.
//!
//! redb writes its header, whose flags are at `FLAGS`, at every turn of a commit. Only one write in each commit bears
//! `UNFLUSHED`: the one that names the new state, which is synced and then confirmed by the next write of the header.

use alpine_ledger::{BackendError, StorageBackend, WrapFile};
use rustix::process::{Signal, getpid, kill_process};
use std::io;
use std::ops::Bound;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

const FLAGS: usize = 9;
const UNFLUSHED: u8 = 8;

/// What happens at a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strike {
    /// The process dies: all is written, but nothing names it yet.
    Before,
    /// The process dies: the new state is named, but neither synced nor confirmed.
    During,
    /// The process dies: the commit is done, and nobody was told.
    After,
    /// The disk is full from this commit on.
    Full,
}

impl Strike {
    /// Every one.
    pub const ALL: [Strike; 4] = [Strike::Before, Strike::During, Strike::After, Strike::Full];

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Strike::Before => "killed before",
            Strike::During => "killed during",
            Strike::After => "killed after",
            Strike::Full => "disk full",
        }
    }
}

/// The commits of this process so far, and the one that is struck.
#[derive(Debug, Default)]
pub struct Commits {
    begun: AtomicU64,
    done: AtomicU64,
    struck: Option<(u64, Strike)>,
    told: Option<PathBuf>,
}

impl Commits {
    /// As the variables say: `ALPINE_TEST_STRIKE` is the number of a commit and what happens at it. How many there were, or
    /// `refused` where the disk was full, is written to the file `ALPINE_TEST_COMMITS`.
    ///
    /// # Panics
    /// When the test wrote nonsense.
    #[must_use]
    pub fn from_environment() -> Self {
        let struck = std::env::var("ALPINE_TEST_STRIKE").ok().map(|text| {
            let (at, name) = text.split_once(' ').expect("a number and a name");
            let strike = Strike::ALL.into_iter().find(|one| one.name() == name);
            (at.parse().expect("a number"), strike.expect("a name"))
        });
        Self {
            struck,
            told: std::env::var_os("ALPINE_TEST_COMMITS").map(Into::into),
            ..Self::default()
        }
    }

    /// How many commits are done.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.done.load(Ordering::SeqCst)
    }

    fn dies(&self, at: u64, strike: Strike) {
        if self.struck == Some((at, strike)) {
            let killed = kill_process(getpid(), Signal::KILL);
            unreachable!("this process should have died: {killed:?}");
        }
    }

    /// A file's content can't grow or change any more; its header, which is always there, still can.
    fn must_have_room(&self) -> io::Result<()> {
        match self.struck {
            Some((at, Strike::Full)) if self.count() + 1 >= at => {
                self.tell("refused");
                Err(io::Error::from(io::ErrorKind::StorageFull))
            }
            Some(_) | None => Ok(()),
        }
    }

    fn tell(&self, what: &str) {
        if let Some(path) = &self.told {
            std::fs::write(path, what).expect("a file that is told of commits");
        }
    }

    fn confirmed(&self) {
        let done = self.done.fetch_add(1, Ordering::SeqCst) + 1;
        self.tell(&done.to_string());
        self.dies(done, Strike::After);
    }
}

/// Lays the count around each file that is opened.
#[derive(Clone, Debug)]
pub struct Counting(pub Arc<Commits>);

impl WrapFile for Counting {
    fn wrap(&self, file: Box<dyn StorageBackend>) -> Box<dyn StorageBackend> {
        Box::new(Counted {
            file,
            commits: Arc::clone(&self.0),
            is_named: AtomicBool::new(false),
        })
    }
}

#[derive(Debug)]
struct Counted {
    file: Box<dyn StorageBackend>,
    commits: Arc<Commits>,
    /// The new state is named and not confirmed yet.
    is_named: AtomicBool,
}

impl Counted {
    fn write_header(&self, data: &[u8]) -> io::Result<()> {
        let commits = &self.commits;
        if data[FLAGS] & UNFLUSHED != 0 {
            let at = commits.begun.fetch_add(1, Ordering::SeqCst) + 1;
            commits.dies(at, Strike::Before);
            self.file.write(0, data)?;
            self.is_named.store(true, Ordering::SeqCst);
            commits.dies(at, Strike::During);
            return Ok(());
        }
        self.file.write(0, data)?;
        if self.is_named.swap(false, Ordering::SeqCst) {
            commits.confirmed();
        }
        Ok(())
    }
}

impl StorageBackend for Counted {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.commits.must_have_room()?;
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        if offset == 0 && data.len() > FLAGS {
            return self.write_header(data);
        }
        self.commits.must_have_room()?;
        self.file.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.file.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.try_lock_range(start, end)
    }

    fn try_lock_shared_range(
        &self,
        start: Bound<u64>,
        end: Bound<u64>,
    ) -> Result<bool, BackendError> {
        self.file.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.query_lock_range(start, end)
    }
}

#[cfg(test)]
mod tests {
    use super::{Commits, Counting};
    use alpine_ledger::{Ledger, LedgerError, Options};
    use std::sync::Arc;

    #[test]
    fn what_is_counted_is_every_commit_and_redbs_own_at_each_close() {
        let directory = tempfile::tempdir().unwrap();
        let commits = Arc::new(Commits::default());
        let options = Options {
            wrap: Some(Arc::new(Counting(Arc::clone(&commits)))),
            ..Options::new()
        };
        let path = directory.path().join("ledger.redb");
        let ledger = Ledger::open(&path, options.clone()).unwrap();
        let made = commits.count();
        let mut closes = 0;
        for round in 1..=40 {
            ledger
                .write(|tx| tx.append_event(None, None, "test", None))
                .unwrap();
            // Neither what is given up nor reading counts.
            let nothing: Result<(), _> = ledger.write(|tx| {
                tx.append_event(None, None, "test", None)?;
                Err(LedgerError::NotFound { id: String::new() })
            });
            assert!(nothing.is_err());
            ledger.read(|snapshot| snapshot.events_after(0, 1)).unwrap();
            if round % 10 == 0 {
                ledger.close();
                closes += 1;
                drop(Ledger::open_read(&path, options.clone()).unwrap());
            }
            assert_eq!(commits.count() - made, ledger.commits() + closes);
        }
        assert_eq!(ledger.commits(), 40);
    }
}
