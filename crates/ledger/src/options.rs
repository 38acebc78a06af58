//! How a ledger is opened.

use crate::{Clock, Holder, SystemClock};
use redb::StorageBackend;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// How a ledger is opened.
#[derive(Clone, Debug)]
pub struct Options {
    /// How long a transaction waits for another process; 5 s.
    pub lock_timeout: Duration,
    /// How long a lease is good for without renewal; 30 s.
    pub lease: Duration,
    /// Where time comes from.
    pub clock: Arc<dyn Clock>,
    /// Who takes leases.
    pub holder: Holder,
    /// Whether a file system over the network is accepted, whose locks may not hold.
    pub allow_network_fs: bool,
    /// What is laid around each file that is opened; nothing when none.
    pub wrap: Option<Arc<dyn WrapFile>>,
}

/// Lays something around the ledger's file, as for a proof of what happens when it fails.
pub trait WrapFile: fmt::Debug + Send + Sync {
    /// The file in its wrapping. It has to pass the locks on, whose defaults only refuse.
    fn wrap(&self, file: Box<dyn StorageBackend>) -> Box<dyn StorageBackend>;
}

impl Options {
    /// The machine's clock, this process, and the default limits.
    #[must_use]
    pub fn new() -> Self {
        Self {
            lock_timeout: Duration::from_secs(5),
            lease: Duration::from_secs(30),
            clock: Arc::new(SystemClock),
            holder: Holder::this_process(),
            allow_network_fs: false,
            wrap: None,
        }
    }
}

impl Default for Options {
    fn default() -> Self {
        Self::new()
    }
}
