//! Many processes at once: how long each of them waits, and whether a reader notices them at all.

use crate::listing::Filled;
use crate::world::alpine;
use alpine_benches::cold;
use alpine_benches::measure::{Samples, run};
use alpine_benches::report::{Bar, Report, ms, ratio};
use alpine_ledger::{Ledger, Options};
use alpine_testkit::TestEnv;
use rustix::process::{Pid, Signal, kill_process};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Stdio};
use std::time::{Duration, Instant};

/// The words that make this program one of many.
const COLD: &str = "be-a-cold-process";
const WRITE_ON: &str = "write-on";

const PROCESSES: u64 = 200;
const ROUNDS: usize = 5;
const WRITERS: u64 = 50;
/// How long each writer rests after a commit: as many of them as there are at once in real life, and far more.
const PAUSES_MS: [u64; 2] = [200, 50];
const PROVIDERS: usize = 10;
const BLOCKS: usize = 8;
const LISTS: usize = 50;

/// Does what one of many does, if that is what this program was started for.
pub(crate) fn is_one_of_many(command: &str, arguments: &[String]) -> bool {
    let number = |text: &String| text.parse::<u64>().expect("a number");
    match (command, arguments) {
        (COLD, [kind, path, which]) => cold::run(kind, Path::new(path), number(which)),
        (WRITE_ON, [path, which, pause]) => {
            let pause = Duration::from_millis(number(pause));
            cold::write_on(Path::new(path), number(which), pause);
        }
        _ => return false,
    }
    true
}

/// One of many.
struct One {
    child: Child,
    said: BufReader<ChildStdout>,
}

impl One {
    fn start(env: &TestEnv, arguments: &[&str]) -> Self {
        let mut command = env.command(&std::env::current_exe().expect("this program"));
        command
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child = command.spawn().expect("a process");
        let said = BufReader::new(child.stdout.take().expect("its output"));
        Self { child, said }
    }

    fn says(&mut self) -> String {
        let mut line = String::new();
        self.said.read_line(&mut line).expect("a line");
        line.trim_end().to_owned()
    }
}

impl Drop for One {
    fn drop(&mut self) {
        // One that has ended can't be killed any more.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The longest that one of 200 waits, half of which write.
struct Longest {
    all: Duration,
    readers: Duration,
}

fn at_once(env: &TestEnv, what: &str, path: &Path) -> Longest {
    let path = path.to_str().expect("a path in UTF-8");
    let mut all: Vec<One> = (0..PROCESSES)
        .map(|number| {
            let kind = ["read", "write"][number as usize % 2];
            let number = number.to_string();
            One::start(env, &[COLD, &format!("{kind}-{what}"), path, &number])
        })
        .collect();
    for one in &mut all {
        assert_eq!(one.says(), "waiting");
    }
    let inputs: Vec<_> = all.iter_mut().map(|one| one.child.stdin.take()).collect();
    drop(inputs);
    let mut longest = Longest {
        all: Duration::ZERO,
        readers: Duration::ZERO,
    };
    for (number, one) in all.iter_mut().enumerate() {
        let took = one.says().parse().expect("it has not failed");
        let took = Duration::from_nanos(took);
        longest.all = longest.all.max(took);
        if number.is_multiple_of(2) {
            longest.readers = longest.readers.max(took);
        }
        assert!(one.child.wait().expect("its end").success());
    }
    longest
}

/// 200 cold processes at once, on the ledger and on a JSON file under `flock`, by turns.
pub(crate) fn cold_processes(report: &mut Report) {
    let filled = Filled::new(0);
    let ledger = filled.env.alpine_home().join("ledger.redb");
    let mut times: [Samples; 4] = Default::default();
    for _ in 0..ROUNDS {
        let ours = at_once(&filled.env, "ledger", &ledger);
        let theirs = at_once(&filled.env, "json", &filled.whole);
        for (samples, time) in
            times
                .iter_mut()
                .zip([ours.all, theirs.all, ours.readers, theirs.readers])
        {
            samples.add(time);
        }
    }
    let [ours, theirs, our_readers, their_readers] = times.map(|samples| samples.median());
    let bar = Bar {
        value: ratio(ours, theirs),
        most: 0.8,
        unit: "×",
    };
    let what =
        "200 cold processes at once, 100 of them write: the longest wait / a JSON file under flock";
    report.bar(what, ms(ours), ms(theirs), bar);
    report.fact(
        "  … of those that read, who wait for no lock there either",
        ms(our_readers),
        ms(their_readers),
        Some(ratio(our_readers, their_readers)),
    );
}

/// The supervisors of sandboxes, which are stopped while the writers write.
struct Providers(Vec<Pid>);

impl Providers {
    fn bring_up(env: &TestEnv) -> Self {
        let repo = env.git_repo(&[("README.md", "a repository\n")]);
        let repo = repo.path.to_str().expect("a path in UTF-8");
        for _ in 0..PROVIDERS {
            run(&mut alpine(
                env,
                &[
                    "up",
                    repo,
                    "--branch",
                    "main",
                    "--provider",
                    "local",
                    "--agent",
                    "none",
                    "--no-browser",
                    "--allow-unsandboxed",
                ],
            ));
        }
        let pids: Vec<Pid> = env
            .processes()
            .iter()
            .filter_map(|process| Pid::from_raw(process.pid as i32))
            .collect();
        assert!(pids.len() >= PROVIDERS, "{pids:?}");
        Self(pids)
    }

    fn signal(&self, signal: Signal) {
        for pid in &self.0 {
            kill_process(*pid, signal).expect("a supervisor");
        }
    }
}

fn lists(filled: &Filled, samples: &mut Samples) {
    for _ in 0..LISTS {
        samples.add(run(&mut filled.list(&["--json"])));
    }
}

/// 50 processes that write again and again.
struct Writers {
    all: Vec<One>,
    ledger: PathBuf,
    before: u64,
    start: Instant,
}

impl Writers {
    fn start(env: &TestEnv, ledger: &Path, pause_ms: u64) -> Self {
        let path = ledger.to_str().expect("a path in UTF-8");
        let mut all: Vec<One> = (0..WRITERS)
            .map(|number| {
                let (number, pause) = (number.to_string(), pause_ms.to_string());
                One::start(env, &[WRITE_ON, path, &number, &pause])
            })
            .collect();
        for writer in &mut all {
            assert_eq!(writer.says(), "writing");
        }
        Self {
            all,
            before: events(ledger),
            ledger: ledger.to_owned(),
            start: Instant::now(),
        }
    }

    /// Ends them; how many commits they made in a second.
    fn end(mut self) -> f64 {
        let span = self.start.elapsed();
        let written = events(&self.ledger) - self.before;
        for writer in &mut self.all {
            let ended = writer.child.try_wait().expect("a writer");
            assert!(ended.is_none(), "a writer failed");
        }
        written as f64 / span.as_secs_f64()
    }
}

/// The number of the last event.
fn events(ledger: &Path) -> u64 {
    let ledger = Ledger::open_read(ledger, Options::new()).expect("a ledger");
    let events = ledger.read(|snapshot| snapshot.events_after(0, usize::MAX));
    events.expect("events").len() as u64
}

/// `list` beside 50 processes that write and 10 providers that are stopped, and beside nobody, by turns.
pub(crate) fn reader_among_writers(report: &mut Report) {
    let filled = Filled::new(0);
    let ledger = filled.env.alpine_home().join("ledger.redb");
    let providers = Providers::bring_up(&filled.env);
    let mut idle = Samples::default();
    let mut busy = PAUSES_MS.map(|pause| (pause, Samples::default(), 0.0));
    lists(&filled, &mut Samples::default());
    for _ in 0..BLOCKS {
        lists(&filled, &mut idle);
        for (pause, samples, rate) in &mut busy {
            providers.signal(Signal::STOP);
            let writers = Writers::start(&filled.env, &ledger, *pause);
            lists(&filled, samples);
            *rate += writers.end() / BLOCKS as f64;
            providers.signal(Signal::CONT);
        }
    }
    let [(pause, writing, rate), (short, often, often_rate)] = busy;
    let bar = Bar {
        value: ratio(writing.p95(), idle.p95()),
        most: 1.2,
        unit: "×",
    };
    let what =
        "`list --json` of 710, 50 processes write and 10 providers are stopped / nobody: p95";
    report.bar(what, ms(writing.p95()), ms(idle.p95()), bar);
    let short_rest = format!("  … each rests {short} ms: p95");
    for (what, ours, theirs) in [
        ("  … the median", writing.median(), idle.median()),
        (&short_rest, often.p95(), idle.p95()),
        ("  … the same: the median", often.median(), idle.median()),
    ] {
        report.fact(what, ms(ours), ms(theirs), Some(ratio(ours, theirs)));
    }
    report.note(format!(
        "each of the 50 writers rests {pause} ms after a commit: {rate:.0} commits a second in all, as {:.0} sessions make that \
         renew their leases; those that rest {short} ms made {often_rate:.0}",
        rate * 10.0,
    ));
}
