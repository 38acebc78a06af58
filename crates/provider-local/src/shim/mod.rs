//! The supervisor: a small process beside each sandbox that outlives the command line.
//!
//! It is the same executable, re-executed, with one thread and no runtime. It holds the sandbox's lock for life, starts the
//! sandbox's processes and inherits the orphans among them, keeps their logs, holds the session's listening socket, and
//! never ends while one of them lives. It never opens the ledger and starts nothing again by itself.

mod answer;
mod birth;
mod clients;
mod door;
mod ending;
mod kernel;
mod log;
mod place;
mod serve;
mod spawn;

pub(crate) use log::{PARTS as LOG_PARTS, STAMP};

use std::ffi::OsStr;
use std::path::Path;
use std::process::ExitCode;

/// What a supervisor is called.
pub(crate) const SHIM: &str = "alpine-shim";
/// What a gateway is called.
pub(crate) const GATEWAY: &str = "alpine-gateway";

/// Runs as a supervisor or a gateway, if that is what this process was started as.
///
/// It has to be the first thing in `main`: a supervisor detaches itself, which it can only do while it has one thread.
#[must_use]
pub fn reexecuted() -> Option<ExitCode> {
    let mut arguments = std::env::args_os();
    let role = arguments.next()?;
    let role = Path::new(&role).file_name().and_then(OsStr::to_str)?;
    let id = arguments.next();
    match role {
        SHIM => Some(birth::run(id.as_deref())),
        GATEWAY => Some(door::run_gateway()),
        _ => None,
    }
}
