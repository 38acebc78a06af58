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

pub(crate) use birth::go_into_background;
pub(crate) use kernel::Forked;
pub(crate) use log::{PARTS as LOG_PARTS, STAMP};

use crate::doomed;
use std::ffi::OsStr;
use std::path::Path;
use std::process::ExitCode;

/// What a supervisor is called.
pub(crate) const SHIM: &str = "alpine-shim";
/// What a gateway is called.
pub(crate) const GATEWAY: &str = "alpine-gateway";
/// What a remover is called.
pub(crate) const REMOVER: &str = "alpine-remover";

/// Runs as a supervisor, a gateway or a remover, if that is what this process was started as.
///
/// It has to be the first thing in `main`: a supervisor detaches itself, which it can only do while it has one thread.
#[must_use]
pub fn reexecuted() -> Option<ExitCode> {
    let mut arguments = std::env::args_os();
    let role = arguments.next()?;
    let role = Path::new(&role).file_name().and_then(OsStr::to_str)?;
    let of = arguments.next();
    match role {
        SHIM => Some(birth::run(of.as_deref())),
        GATEWAY => Some(door::run_gateway()),
        REMOVER => {
            kernel::close_inherited();
            Some(doomed::run(of.as_deref()))
        }
        _ => None,
    }
}
