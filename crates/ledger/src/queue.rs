//! The kernel's queue for a lock, with a deadline: a thread of its own stands in it, since who stands there can't leave.
//!
//! The kernel serves who came first. Trying again and again is served by chance: the longest wait grows with the crowd.

use crate::backend::wait_until;
use crate::handle::lock;
use redb::{BackendError, StorageBackend};
use std::ops::Bound;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

type Range = (Bound<u64>, Bound<u64>);

/// Who stands in the queue for a range.
#[derive(Debug)]
struct Waiter {
    range: Range,
    /// What came of it; none while it still stands there.
    got: Option<Result<(), BackendError>>,
    /// Whether anybody still waits for it; a lock that nobody waits for any more is given back.
    is_wanted: bool,
}

#[derive(Debug)]
struct Shared {
    file: Arc<dyn StorageBackend>,
    waiters: Mutex<Vec<Waiter>>,
    changed: Condvar,
}

/// The exclusive locks of one open file.
#[derive(Debug)]
pub(crate) struct Queue(Arc<Shared>);

impl Queue {
    pub(crate) fn new(file: &Arc<dyn StorageBackend>) -> Self {
        Self(Arc::new(Shared {
            file: Arc::clone(file),
            waiters: Mutex::new(Vec::new()),
            changed: Condvar::new(),
        }))
    }

    /// Takes the lock if it is free. While somebody of ours stands in the queue for it, it is not: all locks of one open
    /// file are one to the kernel, so that whoever gets it second would give it back for both.
    pub(crate) fn try_lock(&self, range: Range) -> Result<bool, BackendError> {
        let waiters = lock(&self.0.waiters);
        if waiters.iter().any(|waiter| waiter.range == range) {
            return Ok(false);
        }
        self.0.file.try_lock_range(range.0, range.1)
    }

    /// Waits for the lock; whether it came in time.
    pub(crate) fn lock(&self, range: Range, patience: Duration) -> Result<bool, BackendError> {
        let start = Instant::now();
        loop {
            if self.try_lock(range)? {
                return Ok(true);
            }
            let left = patience.saturating_sub(start.elapsed());
            if left.is_zero() {
                return Ok(false);
            }
            let got = if self.send(range) {
                self.wait(range, left)
            } else {
                Err(BackendError::Unsupported)
            };
            match got {
                Ok(Some(got)) => return Ok(got),
                Ok(None) => {}
                // No thread is to be had, or there is no queue: what is left is to try again and again.
                Err(BackendError::Unsupported) => {
                    return wait_until(left, || self.try_lock(range));
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Lets somebody stand in the queue, unless somebody does; whether there is one now.
    fn send(&self, range: Range) -> bool {
        let mut waiters = lock(&self.0.waiters);
        if let Some(waiter) = waiters.iter_mut().find(|waiter| waiter.range == range) {
            // One that was given up on still stands there, ahead of anybody new.
            waiter.is_wanted = true;
            return true;
        }
        let shared = Arc::clone(&self.0);
        let sent = thread::Builder::new()
            .name("ledger lock".to_owned())
            .spawn(move || shared.stand(range))
            .is_ok();
        if sent {
            waiters.push(Waiter {
                range,
                got: None,
                is_wanted: true,
            });
        }
        sent
    }

    /// Waits for who stands in the queue; whether they got it in time, and none when another thread took it from them.
    fn wait(&self, range: Range, patience: Duration) -> Result<Option<bool>, BackendError> {
        let start = Instant::now();
        let mut waiters = lock(&self.0.waiters);
        loop {
            let Some(at) = waiters.iter().position(|waiter| waiter.range == range) else {
                return Ok(None);
            };
            if waiters[at].got.is_some() {
                let got = waiters.remove(at).got;
                return got.unwrap_or(Ok(())).map(|()| Some(true));
            }
            let left = patience.saturating_sub(start.elapsed());
            if left.is_zero() {
                waiters[at].is_wanted = false;
                return Ok(Some(false));
            }
            let woken = self.0.changed.wait_timeout(waiters, left);
            waiters = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Shared {
    /// Stands in the kernel's queue, however long that takes.
    fn stand(&self, range: Range) {
        let got = self.file.lock_range(range.0, range.1);
        let mut waiters = lock(&self.waiters);
        let Some(at) = waiters.iter().position(|waiter| waiter.range == range) else {
            return;
        };
        if waiters[at].is_wanted {
            waiters[at].got = Some(got);
        } else {
            waiters.remove(at);
            if got.is_ok() {
                // What can't be given back goes with the file.
                drop(self.file.unlock_range(range.0, range.1));
            }
        }
        self.changed.notify_all();
    }
}
