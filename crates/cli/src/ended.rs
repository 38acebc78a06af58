//! The end of this process: ours, or that of a library in it that called `exit`, which is never a success.

use crate::output;
use alpine_lifecycle::{ErrorCode, Failure};
use alpine_provider_port::PortProvider;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether the end is our own.
static OURS: AtomicBool = AtomicBool::new(false);
/// The process that is guarded, which is none that it forked, and what tells the failure and gives its exit status.
static GUARDED: OnceLock<(u32, Tell)> = OnceLock::new();

/// Tells a failure, and gives its exit status.
type Tell = Box<dyn Fn(Failure) -> u8 + Send + Sync>;

/// Ends this process: whatever still hangs on a thread ends with it.
pub(crate) fn exit(status: u8) -> ! {
    OURS.store(true, Ordering::Release);
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
