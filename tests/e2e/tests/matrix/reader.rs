//! Who looks at the session all the while.

use crate::support::Running;
use alpine_testkit::Output;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Between two rounds, so that most of the machine is left to those that are looked at.
const PAUSE: Duration = Duration::from_millis(25);

/// What somebody read, and how long they waited for it.
#[derive(Debug)]
pub(super) struct Read {
    pub(super) output: Output,
    pub(super) took: Duration,
}

/// One that reads again and again.
#[derive(Debug)]
pub(super) struct Readers {
    is_over: Arc<AtomicBool>,
    reads: JoinHandle<Vec<Read>>,
}

impl Readers {
    /// Runs these commands in turn until it is told to end, and each at least once.
    pub(super) fn start(mut commands: Vec<Command>) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let over = Arc::clone(&is_over);
        let reads = thread::spawn(move || {
            let mut reads = Vec::new();
            loop {
                reads.extend(commands.iter_mut().map(read));
                if over.load(Ordering::SeqCst) {
                    return reads;
                }
                thread::park_timeout(PAUSE);
            }
        });
        Self { is_over, reads }
    }

    /// All that was read.
    pub(super) fn end(self) -> Vec<Read> {
        self.is_over.store(true, Ordering::SeqCst);
        self.reads.thread().unpark();
        self.reads.join().expect("a reader")
    }
}

fn read(command: &mut Command) -> Read {
    let begun = Instant::now();
    let output = Running::of(command).wait();
    Read {
        took: begun.elapsed(),
        output,
    }
}
