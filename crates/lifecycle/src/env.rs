//! What the engine takes from outside: time and chance.

use alpine_ledger::Clock;
use std::fmt;
use std::sync::Arc;

/// Time and chance.
#[derive(Clone)]
pub struct Env {
    /// The one clock.
    pub clock: Arc<dyn Clock>,
    /// Draws 128 random bits.
    pub random: Arc<dyn Fn() -> u128 + Send + Sync>,
}

impl fmt::Debug for Env {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Env")
            .field("clock", &self.clock)
            .finish_non_exhaustive()
    }
}
