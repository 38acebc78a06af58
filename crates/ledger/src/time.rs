//! Time: milliseconds since the epoch, from one injected clock.

use crate::Ledger;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::Duration;

/// Milliseconds since the Unix epoch; shown as RFC 3339 UTC with milliseconds.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// This time and `span` more.
    #[must_use]
    pub fn plus(self, span: Duration) -> Self {
        Self(self.0.saturating_add(span.as_millis() as u64))
    }

    /// How long ago `earlier` was; zero when it lies ahead.
    #[must_use]
    pub fn since(self, earlier: Timestamp) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = i64::try_from(self.0).unwrap_or(i64::MAX);
        let time = jiff::Timestamp::from_millisecond(ms).unwrap_or(jiff::Timestamp::MAX);
        write!(f, "{time:.3}")
    }
}

/// When something began, by both clocks: one that is set moves the wall clock, and a boot ends the other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moment {
    /// By the wall clock.
    pub at: Timestamp,
    /// The boot; empty when it is not known.
    pub boot_id: String,
    /// By the clock of that boot.
    pub boot_ms: u64,
}

impl From<Timestamp> for Moment {
    /// Of the boot nothing is known.
    fn from(at: Timestamp) -> Self {
        Self {
            at,
            boot_id: String::new(),
            boot_ms: 0,
        }
    }
}

impl Ledger {
    /// Now.
    #[must_use]
    pub fn moment(&self) -> Moment {
        let options = &self.site().options;
        Moment {
            at: options.clock.now(),
            boot_id: options.holder.boot_id.clone(),
            boot_ms: options.clock.boot_ms(),
        }
    }

    /// How long ago something began; none when the clock was set back since, so that it lies ahead.
    #[must_use]
    pub fn elapsed(&self, since: &Moment) -> Option<Duration> {
        let now = self.moment();
        let (now, since) = if !now.boot_id.is_empty() && now.boot_id == since.boot_id {
            (now.boot_ms, since.boot_ms)
        } else {
            (now.at.0, since.at.0)
        };
        now.checked_sub(since).map(Duration::from_millis)
    }
}

/// Where time comes from.
pub trait Clock: Send + Sync + fmt::Debug {
    /// The wall clock.
    fn now(&self) -> Timestamp;
    /// Milliseconds since this machine booted, suspended time included; no setting of the clock moves it.
    fn boot_ms(&self) -> u64;
}

/// The machine's clocks.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
        Timestamp(millis(time))
    }

    fn boot_ms(&self) -> u64 {
        millis(rustix::time::clock_gettime(rustix::time::ClockId::Boottime))
    }
}

fn millis(time: rustix::time::Timespec) -> u64 {
    u64::try_from(time.tv_sec).unwrap_or(0) * 1000
        + u64::try_from(time.tv_nsec).unwrap_or(0) / 1_000_000
}

#[cfg(test)]
mod tests {
    use super::Timestamp;

    #[test]
    fn times_are_shown_with_milliseconds_in_utc() {
        assert_eq!(Timestamp(0).to_string(), "1970-01-01T00:00:00.000Z");
        assert_eq!(
            Timestamp(1_790_000_000_007).to_string(),
            "2026-09-21T14:13:20.007Z"
        );
        assert!(Timestamp(u64::MAX).to_string().ends_with('Z'));
    }
}
