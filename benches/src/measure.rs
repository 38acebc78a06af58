//! How runs are measured: interleaved, so that what else the machine does strikes all of them alike.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How long something took, each time.
#[derive(Clone, Debug, Default)]
pub struct Samples(Vec<Duration>);

impl Samples {
    /// One more time.
    pub fn add(&mut self, sample: Duration) {
        self.0.push(sample);
        self.0.sort_unstable();
    }

    /// The time that half of them stay below.
    #[must_use]
    pub fn median(&self) -> Duration {
        self.at(50)
    }

    /// The time that 95 of 100 stay within.
    #[must_use]
    pub fn p95(&self) -> Duration {
        self.at(95)
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.len()
    }

    fn at(&self, percent: usize) -> Duration {
        let rank = (self.0.len() * percent).div_ceil(100).max(1);
        self.0[rank - 1]
    }
}

/// Something that is measured: it says itself how long it took.
pub type Measured<'a> = &'a mut dyn FnMut() -> Duration;

/// Does each of these once without counting it, and then `times` times, in turns; who begins changes with each turn.
pub fn in_turns<const N: usize>(times: usize, mut all: [Measured<'_>; N]) -> [Samples; N] {
    let mut samples = std::array::from_fn(|_| Samples::default());
    for one in &mut all {
        one();
    }
    for turn in 0..times {
        for place in 0..N {
            let which = (turn + place) % N;
            samples[which].add(all[which]());
        }
    }
    samples
}

/// The time from starting a program until it has ended; nobody reads its output.
///
/// # Panics
/// When it can't be started, or fails.
pub fn run(command: &mut Command) -> Duration {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let start = Instant::now();
    let status = command.status().expect("a program");
    let took = start.elapsed();
    assert!(status.success(), "{command:?}: {status}");
    took
}

/// The same, and what it said.
///
/// # Panics
/// When it can't be started, or fails.
pub fn run_and_read(command: &mut Command) -> (Duration, String) {
    command.stdin(Stdio::null());
    let start = Instant::now();
    let output = command.output().expect("a program");
    let took = start.elapsed();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        output.status.success(),
        "{command:?}: {}",
        text(&output.stderr) + &text(&output.stdout)
    );
    (took, text(&output.stdout))
}

/// The most memory that a program had resident at once, in KiB, as `wait4` says.
///
/// What the program that starts it has resident is counted until the new one replaces it: it is the least that can be seen.
///
/// # Panics
/// When it can't be started, or fails.
#[expect(
    clippy::zombie_processes,
    reason = "`wait4` waits for it and says more than `wait` does"
)]
pub fn peak_kib(command: &mut Command) -> u64 {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let child = command.spawn().expect("a program");
    let pid = libc::pid_t::try_from(child.id()).expect("a process id");
    let mut status = 0;
    // SAFETY: a `rusage` of zeros is valid, both places outlive the call, and `child` is not waited for otherwise.
    let (waited, usage) = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        (libc::wait4(pid, &raw mut status, 0, &raw mut usage), usage)
    };
    assert_eq!((waited, status), (pid, 0), "{command:?}");
    u64::try_from(usage.ru_maxrss).expect("a size")
}

/// A field of a file of `/proc` that counts KiB, of a process.
///
/// # Panics
/// When the process or the field is not there.
#[must_use]
pub fn proc_kib(pid: u32, file: &str, field: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/{file}")).expect("a process");
    let line = text.lines().find_map(|line| line.strip_prefix(field));
    let number = line.and_then(|line| line.trim_start_matches(':').split_whitespace().next());
    number.expect("a field").parse().expect("a number")
}
