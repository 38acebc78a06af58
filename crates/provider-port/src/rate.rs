//! At most so many a second.

use std::time::{Duration, Instant};

/// Counts what comes within a second, and what was too much.
#[derive(Debug)]
pub(crate) struct Rate {
    most: u32,
    begun: Instant,
    passed: u32,
    dropped: u64,
}

/// What becomes of one more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Passed {
    /// It passes, and so many before it did not.
    After(u64),
    /// It is dropped.
    No,
}

impl Rate {
    pub(crate) fn new(most: u32) -> Self {
        Self {
            most,
            begun: Instant::now(),
            passed: 0,
            dropped: 0,
        }
    }

    /// One more.
    pub(crate) fn pass(&mut self) -> Passed {
        self.pass_at(Instant::now())
    }

    fn pass_at(&mut self, now: Instant) -> Passed {
        if now.saturating_duration_since(self.begun) >= Duration::from_secs(1) {
            (self.begun, self.passed) = (now, 0);
        }
        if self.passed >= self.most {
            self.dropped += 1;
            return Passed::No;
        }
        self.passed += 1;
        Passed::After(std::mem::take(&mut self.dropped))
    }
}

#[cfg(test)]
mod tests {
    use super::{Passed, Rate};
    use std::time::Duration;

    #[test]
    fn what_is_too_much_is_counted_and_told_with_the_next() {
        let mut rate = Rate::new(2);
        let start = rate.begun;
        assert_eq!(rate.pass_at(start), Passed::After(0));
        assert_eq!(rate.pass_at(start), Passed::After(0));
        assert_eq!(rate.pass_at(start), Passed::No);
        assert_eq!(rate.pass_at(start + Duration::from_millis(999)), Passed::No);
        assert_eq!(
            rate.pass_at(start + Duration::from_secs(1)),
            Passed::After(2)
        );
        assert_eq!(
            rate.pass_at(start + Duration::from_secs(1)),
            Passed::After(0)
        );
    }
}
