//! How a ledger is opened.

use crate::{Clock, Holder, SystemClock};
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
        }
    }
}

impl Default for Options {
    fn default() -> Self {
        Self::new()
    }
}
