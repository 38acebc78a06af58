//! Several real processes on one ledger: this test binary runs itself again.

use crate::disk::{Disk, on};
use crate::world::{kind, names, request};
use alpine_ledger::{Admission, Ledger, LedgerError, Liveness, Options, SessionId, StorageBackend};
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, setrlimit};
use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const ROLE: &str = "ALPINE_LEDGER_TEST_ROLE";
const LEDGER: &str = "ALPINE_LEDGER_TEST_PATH";

/// Another process in a role; killed when the test is done with it.
struct Other {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
}

impl Other {
    fn start(role: &str, path: &Path) -> Self {
        Self::run(Command::new(std::env::current_exe().unwrap()), role, path)
    }

    /// One whose files may not grow beyond a limit, as on a disk that is full.
    fn start_on_a_full_disk(role: &str, path: &Path, bytes: u64) -> Self {
        let mut shell = Command::new("sh");
        let script = format!("trap '' XFSZ; ulimit -S -f {}; exec \"$@\"", bytes / 512);
        shell
            .args(["-c", &script, "sh"])
            .arg(std::env::current_exe().unwrap());
        Self::run(shell, role, path)
    }

    fn run(mut command: Command, role: &str, path: &Path) -> Self {
        let mut child = command
            .args([
                "--exact",
                "processes::what_another_process_does",
                "--nocapture",
                "--test-threads=1",
            ])
            .env(ROLE, role)
            .env(LEDGER, path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        Self {
            stdin: child.stdin.take(),
            child,
            stdout,
        }
    }

    /// What it says next; none once it has ended.
    fn says(&mut self) -> Option<String> {
        loop {
            let mut line = String::new();
            if self.stdout.read_line(&mut line).unwrap() == 0 {
                return None;
            }
            // The test runner writes its own words before ours, on the same line.
            if let Some((_, said)) = line.trim_end().split_once('@') {
                return Some(said.to_owned());
            }
        }
    }

    fn signal(&self, signal: Signal) {
        kill_process(
            Pid::from_raw(self.child.id().try_into().unwrap()).unwrap(),
            signal,
        )
        .unwrap();
    }

    fn ends_well(mut self) {
        drop(self.stdin.take());
        while self.says().is_some() {}
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// What the other process does; nothing when the tests are run as usual.
#[test]
#[expect(
    clippy::disallowed_methods,
    reason = "the other process is told its role by its environment"
)]
fn what_another_process_does() {
    let (Ok(role), Ok(path)) = (std::env::var(ROLE), std::env::var(LEDGER)) else {
        return;
    };
    let path = Path::new(&path);
    match role.as_str() {
        "create" => println!("@{}", Ledger::open(path, Options::new()).unwrap().id()),
        "count" => count(&Ledger::open(path, patient()).unwrap()),
        "wait and look" => wait_and_look(path),
        "wait and write" => wait_and_write(path),
        "append" => append(&Ledger::open(path, Options::new()).unwrap()),
        "fill" => fill(&Ledger::open(path, Options::new()).unwrap()),
        "hold" => hold(&Ledger::open(path, Options::new()).unwrap()),
        "repair" => repair(path),
        "work" => work(&Ledger::open(path, Options::new()).unwrap()),
        role => panic!("{role}"),
    }
}

fn wait_for_the_end_of_stdin() {
    let mut rest = Vec::new();
    std::io::stdin().read_to_end(&mut rest).unwrap();
}

const COUNTS: u64 = 25;

/// Patience with a machine that has far more to do than it can.
fn patient() -> Options {
    Options {
        lock_timeout: Duration::from_secs(60),
        ..Options::new()
    }
}

/// Reads once its input has ended, and tells how many events there are, and how many microseconds that took.
fn wait_and_look(path: &Path) {
    println!("@waiting");
    wait_for_the_end_of_stdin();
    let start = Instant::now();
    let ledger = Ledger::open_read(path, patient()).unwrap();
    let events = ledger.read(|snapshot| snapshot.events_after(0, usize::MAX));
    let took = start.elapsed().as_micros();
    println!("@{} {took}", events.unwrap().len());
}

/// Writes once its input has ended, and tells the number of its event, and how many microseconds that took.
fn wait_and_write(path: &Path) {
    println!("@waiting");
    wait_for_the_end_of_stdin();
    let start = Instant::now();
    let ledger = Ledger::open(path, patient()).unwrap();
    let seq = ledger.write(|tx| tx.append_event(None, None, "written", None));
    let took = start.elapsed().as_micros();
    println!("@{} {took}", seq.unwrap());
}

/// Adds to a session's counter, by compare-and-swap, and tells the number of the event that went with it.
fn count(ledger: &Ledger) {
    let id = SessionId::derive("me", "r1");
    let mut done = 0;
    while done < COUNTS {
        let version = ledger
            .read(|snapshot| snapshot.session(&id))
            .unwrap()
            .unwrap()
            .version;
        let swapped = ledger.write(|tx| {
            tx.compare_and_swap(&id, version, |session| session.persist_generation += 1)?;
            tx.append_event(Some(&id), None, "counted", None)
        });
        match swapped {
            Ok(seq) => {
                println!("@{seq}");
                done += 1;
            }
            Err(LedgerError::VersionMismatch { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

/// Appends events until it is killed, and tells each after its commit.
fn append(ledger: &Ledger) {
    loop {
        let seq = ledger
            .write(|tx| tx.append_event(None, None, "appended", Some("by a process")))
            .unwrap();
        println!("@{seq}");
    }
}

/// Appends large events until the disk is full, then reads, and tells what came of it.
fn fill(ledger: &Ledger) {
    let reason = "x".repeat(10_000);
    let error = loop {
        match ledger.write(|tx| tx.append_event(None, None, "filled", Some(&reason))) {
            Ok(seq) => println!("@{seq}"),
            Err(error) => break error,
        }
    };
    println!("@{}", kind(&error));
    let again = ledger.write(|tx| tx.append_event(None, None, "filled", Some(&reason)));
    println!("@{}", kind(&again.unwrap_err()));
    let events = ledger
        .read(|snapshot| snapshot.events_after(0, usize::MAX))
        .unwrap();
    println!("@{}", events.len());
    // Somebody has made room: the same handle goes on.
    let room = Rlimit {
        current: None,
        maximum: getrlimit(Resource::Fsize).maximum,
    };
    setrlimit(Resource::Fsize, room).unwrap();
    let seq = ledger
        .write(|tx| tx.append_event(None, None, "after", None))
        .unwrap();
    println!("@{seq}");
}

/// Stays in a write transaction until its input ends.
fn hold(ledger: &Ledger) {
    ledger
        .write(|tx| {
            tx.append_event(None, None, "held", None)?;
            println!("@holding");
            wait_for_the_end_of_stdin();
            Ok(())
        })
        .unwrap();
}

/// A disk whose first write takes until the input ends.
#[derive(Debug)]
struct Slow;

impl Disk for Slow {
    fn write(&self, file: &dyn StorageBackend, offset: u64, data: &[u8]) -> io::Result<()> {
        println!("@writing");
        wait_for_the_end_of_stdin();
        file.write(offset, data)
    }
}

/// Repairs what a killed writer left, and stays in the first write of that until its input ends.
fn repair(path: &Path) {
    Ledger::open(path, on(&Arc::new(Slow))).unwrap();
}

/// Holds the lease of a session until its input ends.
fn work(ledger: &Ledger) {
    let admission = ledger
        .write(|tx| tx.admit(&request("me", "r1"), "f", "s", "me"))
        .unwrap();
    let Admission::Run(_grant) = admission else {
        panic!("{admission:?}")
    };
    println!("@working");
    wait_for_the_end_of_stdin();
}

fn home() -> (TempDir, std::path::PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ledger.redb");
    (dir, path)
}

fn loops(processes: usize) {
    let (_dir, path) = home();
    let ledger = Ledger::open(&path, Options::new()).unwrap();
    let admission = ledger
        .write(|tx| tx.admit(&request("me", "r1"), "f", "s", "me"))
        .unwrap();
    let others: Vec<Other> = (0..processes)
        .map(|_| Other::start("count", &path))
        .collect();
    let mut told = BTreeSet::new();
    for mut other in others {
        while let Some(said) = other.says() {
            assert!(
                told.insert(said.parse::<u64>().unwrap()),
                "event {said} was told twice"
            );
        }
        other.ends_well();
    }
    let total = processes as u64 * COUNTS;
    let session = ledger
        .read(|snapshot| snapshot.session(&SessionId::derive("me", "r1")))
        .unwrap()
        .unwrap();
    assert_eq!(
        (session.persist_generation, session.version),
        (total, total + 1)
    );
    let events = ledger
        .read(|snapshot| snapshot.events_after(0, usize::MAX))
        .unwrap();
    let seqs: Vec<u64> = events.iter().map(|event| event.seq).collect();
    assert_eq!(seqs, (1..=total + 1).collect::<Vec<u64>>());
    assert_eq!(told, (2..=total + 1).collect());
    drop(admission);
}

#[test]
fn two_processes_lose_no_write() {
    loops(2);
}

#[test]
fn eight_processes_lose_no_write() {
    loops(8);
}

#[test]
fn thirty_two_processes_lose_no_write() {
    loops(32);
}

/// How long they wait is held against a JSON file by `cargo bench -- contention`.
#[test]
fn two_hundred_processes_come_at_once_and_none_fails() {
    let (_dir, path) = home();
    Ledger::open(&path, Options::new()).unwrap().close();
    let mut others: Vec<Other> = (0..200)
        .map(|number| {
            let role = ["wait and look", "wait and write"][number % 2];
            Other::start(role, &path)
        })
        .collect();
    for other in &mut others {
        assert_eq!(other.says().as_deref(), Some("waiting"));
    }
    // Their inputs end together, or nearly so.
    let inputs: Vec<_> = others.iter_mut().map(|other| other.stdin.take()).collect();
    drop(inputs);
    let mut written = BTreeSet::new();
    let mut longest = [0, 0];
    for (number, mut other) in others.into_iter().enumerate() {
        let said = other.says().expect("it failed");
        let (said, took) = said.split_once(' ').unwrap();
        let (said, took): (u64, u64) = (said.parse().unwrap(), took.parse().unwrap());
        longest[number % 2] = longest[number % 2].max(took);
        if number % 2 == 0 {
            assert!(said <= 100);
        } else {
            assert!(written.insert(said), "event {said} was told twice");
        }
        other.ends_well();
    }
    assert_eq!(written, (1..=100).collect());
    println!(
        "the longest wait: {} \u{b5}s to read, {} \u{b5}s to write",
        longest[0], longest[1]
    );
}

#[test]
fn of_many_processes_that_come_at_once_one_makes_the_ledger() {
    let (dir, path) = home();
    let others: Vec<Other> = (0..200).map(|_| Other::start("create", &path)).collect();
    let mut ids = BTreeSet::new();
    for mut other in others {
        ids.insert(other.says().unwrap());
        other.ends_well();
    }
    assert_eq!(ids.len(), 1);
    assert_eq!(names(dir.path()), ["ledger.redb", "ledger.redb.id"]);
    let events = Ledger::open_read(&path, Options::new())
        .unwrap()
        .read(|snapshot| snapshot.events_after(0, 10));
    assert_eq!(events.unwrap(), []);
}

#[test]
fn what_a_killed_writer_was_told_is_there_is_there() {
    let (_dir, path) = home();
    let mut told = 0;
    for round in 0..25 {
        let mut other = Other::start("append", &path);
        // Each round another number of writes, and the kill falls somewhere into the next one.
        for _ in 0..=round % 7 {
            told = other.says().unwrap().parse::<u64>().unwrap();
        }
        other.signal(Signal::KILL);
        while let Some(said) = other.says() {
            told = said.parse().unwrap();
        }
        drop(other);
        let reader = Ledger::open_read(&path, Options::new()).unwrap();
        let events = reader
            .read(|snapshot| snapshot.events_after(0, usize::MAX))
            .unwrap();
        let seqs: Vec<u64> = events.iter().map(|event| event.seq).collect();
        assert_eq!(seqs, (1..=seqs.len() as u64).collect::<Vec<u64>>());
        assert!(seqs.len() as u64 >= told, "event {told} was told and lost");
        assert!(
            events
                .iter()
                .all(|event| event.reason.as_deref() == Some("by a process"))
        );
    }
}

#[test]
fn a_stopped_writer_makes_writers_busy_and_readers_not() {
    let (_dir, path) = home();
    let mut other = Other::start("hold", &path);
    assert_eq!(other.says().as_deref(), Some("holding"));
    other.signal(Signal::STOP);

    let limit = Duration::from_secs(2);
    let mut options = Options::new();
    options.lock_timeout = limit;
    let ledger = Ledger::open(&path, options).unwrap();
    let start = Instant::now();
    let refused = ledger
        .write(|tx| tx.append_event(None, None, "note", None))
        .unwrap_err();
    let waited = start.elapsed();
    let LedgerError::Busy {
        pids, waited: said, ..
    } = refused
    else {
        panic!("{refused:?}")
    };
    assert_eq!(pids, [other.child.id()]);
    assert_eq!(said, limit);
    assert!(waited >= limit, "{waited:?}");
    assert!(waited <= limit.mul_f64(1.1), "{waited:?}");

    let start = Instant::now();
    assert_eq!(
        ledger
            .read(|snapshot| snapshot.events_after(0, 10))
            .unwrap(),
        []
    );
    let reader = Ledger::open_read(&path, Options::new()).unwrap();
    assert_eq!(
        reader
            .read(|snapshot| snapshot.events_after(0, 10))
            .unwrap(),
        []
    );
    assert!(start.elapsed() < limit, "reads waited for the writer");

    other.signal(Signal::CONT);
    other.ends_well();
    // Who gave up keeps nobody else from it, and can have it again.
    let third = Ledger::open(&path, Options::new()).unwrap();
    for (number, ledger) in (2..).zip([&third, &ledger, &third]) {
        let written = ledger.write(|tx| tx.append_event(None, None, "note", None));
        assert_eq!(written.unwrap(), number);
    }
}

/// A writer may be stopped anywhere, and most often in a commit: while it writes the header too.
#[test]
fn a_writer_stopped_in_its_commit_keeps_no_reader_waiting() {
    let (_dir, path) = home();
    let mut other = Other::start("append", &path);
    other.says();
    let mut seen = 0;
    for round in 0..120u64 {
        // Another part of a commit each time, wherever that falls on this machine.
        std::thread::sleep(Duration::from_micros(300 + round * 37 % 1500));
        other.signal(Signal::STOP);
        let start = Instant::now();
        let reader = Ledger::open_read(&path, Options::new()).unwrap();
        let events = reader
            .read(|snapshot| snapshot.events_after(seen, usize::MAX))
            .unwrap();
        let took = start.elapsed();
        assert!(
            took < Duration::from_secs(2),
            "round {round}: a read took {took:?}"
        );
        let seqs: Vec<u64> = events.iter().map(|event| event.seq).collect();
        assert_eq!(
            seqs,
            (seen + 1..=seen + seqs.len() as u64).collect::<Vec<u64>>(),
            "round {round}"
        );
        seen += seqs.len() as u64;
        other.signal(Signal::CONT);
    }
    assert!(seen > 0);
    other.signal(Signal::KILL);
}

/// A ledger that a writer left unclean when it was killed, and how many events it told of at least.
fn unclean() -> (TempDir, std::path::PathBuf, usize) {
    let (dir, path) = home();
    let mut other = Other::start("append", &path);
    while other.says().unwrap() != "3" {}
    other.signal(Signal::KILL);
    let more = std::iter::from_fn(|| other.says()).count();
    (dir, path, 3 + more)
}

fn events(ledger: &Ledger) -> usize {
    ledger
        .read(|snapshot| snapshot.events_after(0, usize::MAX))
        .unwrap()
        .len()
}

#[test]
fn a_stopped_repair_keeps_no_reader_waiting() {
    let (_dir, path, told) = unclean();
    let mut other = Other::start("repair", &path);
    assert_eq!(other.says().as_deref(), Some("writing"));
    other.signal(Signal::STOP);

    let start = Instant::now();
    let reader = Ledger::open_read(&path, Options::new()).unwrap();
    let seen = events(&reader);
    assert!(seen >= told, "{seen} of {told}");
    let took = start.elapsed();
    assert!(took < Duration::from_secs(2), "a read took {took:?}");

    // Once there is a writer again, the same handle sees what it writes.
    other.signal(Signal::CONT);
    other.ends_well();
    let writer = Ledger::open(&path, Options::new()).unwrap();
    writer
        .write(|tx| tx.append_event(None, None, "note", None))
        .unwrap();
    assert_eq!(events(&reader), seen + 1);
}

/// The file is repaired, and its header changes, so that no copy of it is whole either: that is waited for.
#[test]
fn a_reader_waits_for_a_repair_that_is_under_way() {
    let (_dir, path, told) = unclean();
    let mut other = Other::start("repair", &path);
    assert_eq!(other.says().as_deref(), Some("writing"));
    let is_written = AtomicBool::new(true);
    let (says, said) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
            for number in 0_u64.. {
                if !is_written.load(Ordering::SeqCst) {
                    break;
                }
                // Behind what redb keeps there.
                file.write_all_at(&number.to_le_bytes(), 4000).unwrap();
            }
        });
        scope.spawn(|| {
            let seen = Ledger::open_read(&path, patient()).map(|reader| events(&reader));
            says.send(seen).unwrap();
        });
        // Time to give up in; nothing is wrong if it is not enough, or if a whole copy could be made.
        let early = said.recv_timeout(Duration::from_millis(500)).ok();
        is_written.store(false, Ordering::SeqCst);
        other.ends_well();
        let seen = early.unwrap_or_else(|| said.recv().unwrap()).unwrap();
        assert!(seen >= told, "{seen} of {told}");
    });
}

#[test]
fn what_a_killed_writer_left_is_read_where_nobody_may_write() {
    let (_dir, path, told) = unclean();
    fs::set_permissions(&path, Permissions::from_mode(0o400)).unwrap();
    let before = fs::read(&path).unwrap();
    let reader = Ledger::open_read(&path, Options::new()).unwrap();
    assert!(events(&reader) >= told);
    assert!(fs::read(&path).unwrap() == before, "the file was changed");
}

#[test]
fn the_lease_of_a_killed_process_is_taken_over_at_once() {
    let (_dir, path) = home();
    let mut other = Other::start("work", &path);
    assert_eq!(other.says().as_deref(), Some("working"));
    let ledger = Ledger::open(&path, Options::new()).unwrap();
    let id = SessionId::derive("me", "r1");
    let live = || {
        ledger
            .read(|snapshot| Ok(snapshot.holder_is_live(&snapshot.lease(&id)?.unwrap())))
            .unwrap()
    };
    assert_eq!(live(), Liveness::Live);
    let lease = ledger.read(|snapshot| snapshot.lease(&id)).unwrap();
    other.signal(Signal::STOP);
    assert_eq!(live(), Liveness::Live);
    other.signal(Signal::KILL);
    other.child.wait().unwrap();
    assert_eq!(live(), Liveness::Dead);
    let admission = ledger
        .write(|tx| tx.admit(&request("me", "r1"), "f", "s", "me"))
        .unwrap();
    let Admission::Resume(grant) = admission else {
        panic!("{admission:?}")
    };
    assert_eq!(grant.token.fence, lease.unwrap().fence + 1);
}

#[test]
fn a_killed_holder_of_the_writers_lock_blocks_nobody() {
    let (_dir, path) = home();
    let mut other = Other::start("hold", &path);
    assert_eq!(other.says().as_deref(), Some("holding"));
    let ledger = Ledger::open(&path, Options::new()).unwrap();
    other.signal(Signal::KILL);
    other.child.wait().unwrap();
    assert_eq!(
        ledger
            .write(|tx| tx.append_event(None, None, "note", None))
            .unwrap(),
        1
    );
}

#[test]
fn a_full_disk_is_an_error_and_loses_nothing() {
    let (_dir, path) = home();
    let ledger = Ledger::open(&path, Options::new()).unwrap();
    let mut other = Other::start_on_a_full_disk("fill", &path, 1 << 20);
    let mut said = Vec::new();
    while let Some(line) = other.says() {
        said.push(line);
    }
    other.ends_well();
    let [told @ .., first, second, read, after] = said.as_slice() else {
        panic!("{said:?}")
    };
    let told: u64 = told.last().unwrap().parse().unwrap();
    for error in [first, second] {
        assert!(
            ["unavailable", "outcome_unknown"].contains(&error.as_str()),
            "{said:?}"
        );
    }
    let read: u64 = read.parse().unwrap();
    assert!(read >= told, "event {told} was told and lost");
    assert_eq!(*after, (read + 1).to_string());
    let events = ledger
        .read(|snapshot| snapshot.events_after(0, usize::MAX))
        .unwrap();
    let seqs: Vec<u64> = events.iter().map(|event| event.seq).collect();
    assert_eq!(seqs, (1..=read + 1).collect::<Vec<u64>>());
}
