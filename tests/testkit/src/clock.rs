//! Clocks that only tests move.

use alpine_ledger::{Clock, Timestamp};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// When every test begins: 2030-01-01T00:00:00.000Z.
pub const TEST_EPOCH_MS: u64 = 1_893_456_000_000;

const BOOT_MS: u64 = 1_000_000;

/// A clock that stands still until it is moved; its clones and, with a file, other processes see the same time.
#[derive(Clone, Debug)]
pub struct TestClock {
    place: Place,
}

#[derive(Clone, Debug)]
enum Place {
    Memory(Arc<Mutex<Times>>),
    File(PathBuf),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Times {
    now: u64,
    boot: u64,
}

const BEGIN: Times = Times {
    now: TEST_EPOCH_MS,
    boot: BOOT_MS,
};

impl TestClock {
    /// A clock of this process.
    #[must_use]
    pub fn in_memory() -> Self {
        Self {
            place: Place::Memory(Arc::new(Mutex::new(BEGIN))),
        }
    }

    /// The clock in a file, which is written when it is not there.
    #[must_use]
    pub fn in_file(path: &Path) -> Self {
        let clock = Self {
            place: Place::File(path.to_owned()),
        };
        if !path.exists() {
            clock.write(BEGIN);
        }
        clock
    }

    /// Time passes: both the wall clock and the time since boot move.
    pub fn advance(&self, span: Duration) {
        let times = self.read();
        let span = u64::try_from(span.as_millis()).expect("a span of this age");
        self.write(Times {
            now: times.now + span,
            boot: times.boot + span,
        });
    }

    /// Somebody sets the wall clock; the time since boot stays.
    pub fn set(&self, now_ms: u64) {
        let times = self.read();
        self.write(Times {
            now: now_ms,
            ..times
        });
    }

    /// Somebody sets the wall clock on by so many milliseconds, or back; the time since boot stays.
    pub fn jump(&self, ms: i64) {
        let times = self.read();
        self.set(times.now.saturating_add_signed(ms));
    }

    /// The machine boots anew.
    pub fn set_boot(&self, boot_ms: u64) {
        let times = self.read();
        self.write(Times {
            boot: boot_ms,
            ..times
        });
    }

    fn read(&self) -> Times {
        match &self.place {
            Place::Memory(times) => *times.lock().unwrap_or_else(PoisonError::into_inner),
            Place::File(path) => {
                let text = fs::read_to_string(path)
                    .unwrap_or_else(|error| panic!("clock {}: {error}", path.display()));
                let mut numbers = text.split_whitespace().map(|number| number.parse::<u64>());
                match (numbers.next(), numbers.next()) {
                    (Some(Ok(now)), Some(Ok(boot))) => Times { now, boot },
                    (Some(Ok(now)), None) => Times { now, boot: BOOT_MS },
                    _ => panic!("clock {}: `{text}` is no time", path.display()),
                }
            }
        }
    }

    fn write(&self, times: Times) {
        match &self.place {
            Place::Memory(place) => *place.lock().unwrap_or_else(PoisonError::into_inner) = times,
            Place::File(path) => {
                let fresh = path.with_extension("new");
                fs::write(&fresh, format!("{} {}\n", times.now, times.boot))
                    .and_then(|()| fs::rename(&fresh, path))
                    .unwrap_or_else(|error| panic!("clock {}: {error}", path.display()));
            }
        }
    }
}

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.read().now)
    }

    fn boot_ms(&self) -> u64 {
        self.read().boot
    }
}

#[cfg(test)]
mod tests {
    use super::{BOOT_MS, TEST_EPOCH_MS, TestClock};
    use alpine_ledger::Clock;
    use std::time::Duration;

    #[test]
    fn the_wall_clock_and_the_time_since_boot_move_apart() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("clock");
        for clock in [TestClock::in_memory(), TestClock::in_file(&file)] {
            clock.advance(Duration::from_secs(2));
            assert_eq!(clock.now().0, TEST_EPOCH_MS + 2000);
            assert_eq!(clock.boot_ms(), BOOT_MS + 2000);
            clock.set(7);
            clock.set_boot(8);
            assert_eq!((clock.clone().now().0, clock.boot_ms()), (7, 8));
        }
        assert_eq!(TestClock::in_file(&file).now().0, 7);
        std::fs::write(&file, "99\n").unwrap();
        assert_eq!(TestClock::in_file(&file).now().0, 99);
    }
}
