//! The end of this process: ours, or that of a library in it that called `exit`, which is never a success.

use crate::output;
use alpine_lifecycle::{ErrorCode, Failure};
use alpine_provider_port::PortProvider;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak, mpsc};
use std::time::Duration;

/// Whether the end is our own.
static OURS: AtomicBool = AtomicBool::new(false);
/// The process that is guarded, which is none that it forked, and what tells the failure and gives its exit status.
static GUARDED: OnceLock<(u32, Tell)> = OnceLock::new();

/// The providers that may have something running.
static OPEN: Mutex<Vec<Weak<PortProvider>>> = Mutex::new(Vec::new());
/// How long they get to end it.
const LAST_WORDS: Duration = Duration::from_millis(700);

/// Tells a failure, and gives its exit status.
type Tell = Box<dyn Fn(Failure) -> u8 + Send + Sync>;

/// Has a provider closed before this process ends.
pub(crate) fn closes(provider: &Arc<PortProvider>) {
    let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
    open.push(Arc::downgrade(provider));
}

/// Ends what providers were asked to do, such as a command, which would go on without anybody who waits for it.
fn close_all() {
    let open = std::mem::take(&mut *OPEN.lock().unwrap_or_else(PoisonError::into_inner));
    let (closed, all_closed) = mpsc::channel::<()>();
    for provider in open.iter().filter_map(Weak::upgrade) {
        let closed = closed.clone();
        std::thread::spawn(move || {
            provider.close();
            drop(closed);
        });
    }
    drop(closed);
    // It says nothing, and ends with the last of them.
    let _ = all_closed.recv_timeout(LAST_WORDS);
}

/// Ends this process: whatever still hangs on a thread ends with it.
pub(crate) fn exit(status: u8) -> ! {
    OURS.store(true, Ordering::Release);
    close_all();
    std::process::exit(status.into())
}

/// How an end that is not ours is told.
pub(crate) fn told_by(tell: impl Fn(Failure) -> u8 + Send + Sync + 'static) {
    // The first stays: there is one command in a process.
    let _ = GUARDED.set((std::process::id(), Box::new(tell)));
}

/// A library is about to be loaded into this process.
pub(crate) fn guard() {
    output::keep_standard_output();
    PortProvider::at_exit(|| {
        let (process, tell) = GUARDED.get()?;
        if OURS.swap(true, Ordering::AcqRel) || *process != std::process::id() {
            return None;
        }
        let cause = "a provider that runs in this process (`isolation = \"in-process\"`) has ended it by `exit`: what was asked may be done or not";
        let failure = Failure::new(ErrorCode::ProviderCrashed, cause).next("alpine provider list");
        Some(tell(failure).into())
    });
}
