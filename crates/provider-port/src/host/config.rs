//! What a provider that is not compiled in is started with.

use alpine_provider_api::{OpenRequest, Redactor, Secret};
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;

/// The variables that every provider's process gets, beside those its configuration allows.
pub const ENV_ALWAYS: [&str; 7] = ["HOME", "LANG", "LC_ALL", "PATH", "TMPDIR", "TZ", "USER"];

/// A provider that is not compiled in.
#[derive(Debug)]
pub struct PortConfig {
    /// The name it is configured by.
    pub name: String,
    /// Where its code is.
    pub source: Source,
    /// What it is opened with.
    pub open: OpenRequest,
    /// The whole environment of its process: the caller picks it from [`ENV_ALWAYS`] and the allow-list.
    pub env: BTreeMap<String, Secret<String>>,
    /// The W3C trace context that goes with every call that has none of its own.
    pub traceparent: Option<String>,
    /// Takes secrets out of what it says.
    pub redactor: Redactor,
    /// How long things may take.
    pub timings: Timings,
}

/// Where a provider's code is.
#[derive(Debug)]
pub enum Source {
    /// A library in a child process: `program` is one whose `main` calls [`hosted`](crate::hosted) first.
    Hosted {
        /// The library, opened and checked: it is loaded from this very descriptor.
        library: OwnedFd,
        /// The program that loads it.
        program: PathBuf,
    },
    /// A library in this process. What it does wrong strikes this process.
    InProcess {
        /// The library, opened and checked.
        library: OwnedFd,
    },
    /// A program that speaks frames on descriptor 3.
    Executable {
        /// Its path.
        program: PathBuf,
        /// Its arguments.
        args: Vec<String>,
    },
}

/// How long things may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timings {
    /// From the start until calls may come.
    pub start: Duration,
    /// `describe`, which no caller sets a limit for.
    pub describe: Duration,
    /// A call whose caller sets none; `exec` and `logs` go on for as long as somebody listens.
    pub call: Duration,
    /// What a call gets beyond its deadline, so that a caller with a clock of its own is the one that gives up.
    pub slack: Duration,
    /// From CANCEL until the process is told to end.
    pub cancel: Duration,
    /// From SIGTERM to SIGKILL.
    pub term: Duration,
    /// From the end of the socket to SIGTERM, when the provider is closed.
    pub close: Duration,
    /// Between two PINGs while calls run.
    pub ping: Duration,
    /// From a PING until a provider that promised PONG is taken for stuck.
    pub pong: Duration,
    /// How many restarts there may be within [`restart_window`](Timings::restart_window).
    pub restarts: usize,
    /// See [`restarts`](Timings::restarts).
    pub restart_window: Duration,
}

impl Default for Timings {
    fn default() -> Self {
        Self {
            start: Duration::from_secs(10),
            describe: Duration::from_secs(10),
            call: Duration::from_secs(15 * 60),
            slack: Duration::from_millis(200),
            cancel: Duration::from_secs(10),
            term: Duration::from_secs(2),
            close: Duration::from_millis(500),
            ping: Duration::from_secs(5),
            pong: Duration::from_secs(20),
            restarts: 3,
            restart_window: Duration::from_secs(60),
        }
    }
}
