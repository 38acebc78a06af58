//! The file under redb: its locks are waited for until a deadline instead of without end.

use crate::LedgerError;
use crate::error::{LockTimeout, from_redb};
use crate::queue::Queue;
use crate::site::Site;
use redb::backends::FileBackend;
use redb::{BackendError, StorageBackend};
use std::fs::File;
use std::io;
use std::ops::Bound;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

/// The first and the longest pause between two tries.
const PAUSES: (Duration, Duration) = (Duration::from_micros(100), Duration::from_millis(8));

/// The same for the header, which is never locked for longer than the disk takes for one block.
const HEADER_PAUSES: (Duration, Duration) = (Duration::from_micros(50), Duration::from_micros(400));

/// How long a reader waits for a writer that is writing the header.
const HEADER_PATIENCE: Duration = Duration::from_millis(50);

/// Where redb's header ends, at the latest.
const HEADER_END: u64 = 4096;

/// The byte that a writer of redb 4 keeps locked in each transaction.
const WRITER: u64 = 1 << 62;

/// A file whose locks are waited for until a deadline.
///
/// A reader does without the header's lock when its holder keeps it for longer than any write of the header takes: that
/// process is stopped, and so is what it writes. The header's own checksums, and those of every value, tell a reader that
/// was overtaken after all.
#[derive(Debug)]
pub(crate) struct PatientFile {
    file: Arc<dyn StorageBackend>,
    queue: Queue,
    patience: Duration,
    reads_only: bool,
}

impl PatientFile {
    pub(crate) fn new(site: &Site, file: File) -> Result<Self, LedgerError> {
        let mut file: Box<dyn StorageBackend> =
            Box::new(FileBackend::new(file).map_err(|error| from_redb(site, error))?);
        let options = &site.options;
        if let Some(wrap) = &options.wrap {
            file = wrap.wrap(file);
        }
        let file = Arc::from(file);
        Ok(Self {
            queue: Queue::new(&file),
            file,
            patience: options.lock_timeout,
            reads_only: false,
        })
    }

    /// The same, with another patience.
    pub(crate) fn waiting(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// The same, for a handle that only reads.
    pub(crate) fn reads_only(self) -> Self {
        Self {
            reads_only: true,
            ..self
        }
    }

    /// Takes the lock of who writes, without opening the file as redb does.
    pub(crate) fn lock_as_writer(&self) -> Result<(), BackendError> {
        self.lock_range(Bound::Included(WRITER), Bound::Included(WRITER))
    }

    fn timed_out(&self) -> BackendError {
        let waited = self.patience;
        BackendError::Io(io::Error::new(
            io::ErrorKind::TimedOut,
            LockTimeout { waited },
        ))
    }
}

/// Tries until it succeeds (`true`) or the time is over (`false`), with a growing, jittered pause in between.
pub(crate) fn wait_until<E>(
    patience: Duration,
    attempt: impl FnMut() -> Result<bool, E>,
) -> Result<bool, E> {
    poll(patience, PAUSES, attempt)
}

fn poll<E>(
    patience: Duration,
    (first, longest): (Duration, Duration),
    mut attempt: impl FnMut() -> Result<bool, E>,
) -> Result<bool, E> {
    let mut start = None;
    let mut pause = first;
    loop {
        if attempt()? {
            return Ok(true);
        }
        let waited = start.get_or_insert_with(Instant::now).elapsed();
        let Some(left) = patience.checked_sub(waited).filter(|left| !left.is_zero()) else {
            return Ok(false);
        };
        thread::sleep(jittered(pause).min(left));
        pause = (pause * 2).min(longest);
    }
}

/// Whether a range is the header's, and not one of the bytes behind every file's end that only stand for something.
fn is_header(start: Bound<u64>, end: Bound<u64>) -> bool {
    let from_start = matches!(start, Bound::Unbounded | Bound::Included(0));
    let short = matches!(end, Bound::Included(end) | Bound::Excluded(end) if end <= HEADER_END);
    from_start && short
}

/// Between half of the pause and all of it, so that processes that were woken together part.
fn jittered(pause: Duration) -> Duration {
    let random = getrandom::u32().unwrap_or(u32::MAX);
    pause / 2 + (pause / 2).mul_f64(f64::from(random) / f64::from(u32::MAX))
}

impl StorageBackend for PatientFile {
    fn len(&self) -> Result<u64, io::Error> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        self.file.read(offset, out)
    }

    fn set_len(&self, len: u64) -> Result<(), io::Error> {
        self.file.set_len(len)
    }

    fn sync_data(&self) -> Result<(), io::Error> {
        self.file.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
        self.file.write(offset, data)
    }

    fn close(&self) -> Result<(), io::Error> {
        self.file.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.queue.try_lock((start, end))
    }

    fn try_lock_shared_range(
        &self,
        start: Bound<u64>,
        end: Bound<u64>,
    ) -> Result<bool, BackendError> {
        self.file.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        if self.queue.lock((start, end), self.patience)? {
            Ok(())
        } else {
            Err(self.timed_out())
        }
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        let attempt = || self.file.try_lock_shared_range(start, end);
        if !is_header(start, end) {
            let locked = poll(self.patience, PAUSES, attempt)?;
            return if locked {
                Ok(())
            } else {
                Err(self.timed_out())
            };
        }
        let patience = if self.reads_only {
            HEADER_PATIENCE
        } else {
            self.patience
        };
        if poll(patience, HEADER_PAUSES, attempt)? || self.reads_only {
            Ok(())
        } else {
            Err(self.timed_out())
        }
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.query_lock_range(start, end)
    }
}
