//! `events`, `ops`, `audit` and `stats`: the shipped program on ledgers that the tests write.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that can't go on has failed"
)]

use alpine_ledger::{
    Acquired, Action, Admission, AuditRecord, Clock, ErrorRecord, Grant, Ledger, NewSession,
    Options, Outcome, QuarantineRecord, Retention, SessionId, State, StepRecord, SystemClock,
    Timestamp,
};
use expect_test::expect;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const SECRET: &str = "hunter2hunter2hunter2";
/// Where another process finds the ledger that it is to write.
const WRITTEN: &str = "ALPINE_HISTORY_TEST_LEDGER";
const HOUR: u64 = 60 * 60 * 1000;
/// How long what has to happen is waited for, on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Debug)]
struct TestClock(AtomicU64);

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::SeqCst))
    }

    fn boot_ms(&self) -> u64 {
        SystemClock.boot_ms()
    }
}

/// A home with a ledger, whose records the test writes under a clock of its own.
struct World {
    directory: TempDir,
    clock: Arc<TestClock>,
    ledger: Ledger,
}

impl World {
    fn new() -> Self {
        Self::at(1_790_000_000_000)
    }

    fn at(now: u64) -> Self {
        Self::within(tempfile::tempdir().unwrap(), now)
    }

    fn within(directory: TempDir, now: u64) -> Self {
        let home = directory.path().join("home");
        fs::create_dir(&home).unwrap();
        fs::set_permissions(&home, fs::Permissions::from_mode(0o700)).unwrap();
        let clock = Arc::new(TestClock(AtomicU64::new(now)));
        let options = Options {
            clock: clock.clone(),
            ..Options::new()
        };
        let ledger = Ledger::open(&home.join("ledger.redb"), options).unwrap();
        Self {
            directory,
            clock,
            ledger,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn wait(&self, ms: u64) {
        self.clock.0.fetch_add(ms, Ordering::SeqCst);
    }

    fn up(&self, owner: &str, id: &str) -> Grant {
        let new = NewSession {
            owner: owner.to_owned(),
            client_request_id: id.to_owned(),
            repo_url: "https://example.com/repo.git".to_owned(),
            branch: "main".to_owned(),
            public: true,
            provider: "local".to_owned(),
            agent: "none".to_owned(),
            name: None,
            request: Value::Null,
        };
        let admitted = self
            .ledger
            .write(|tx| tx.admit(&new, "fingerprint", "sbx_1", owner));
        match admitted.unwrap() {
            Admission::Run(grant) | Admission::Resume(grant) => grant,
            other @ (Admission::Replay(..) | Admission::Wait(..) | Admission::Conflict(_)) => {
                panic!("{other:?}")
            }
        }
    }

    /// A session that is `ready` after `took`, and its `up`.
    fn ready(&self, owner: &str, id: &str, took: u64) -> SessionId {
        let grant = self.up(owner, id);
        self.wait(took);
        self.be_ready(&grant);
        grant.session.session_id
    }

    fn be_ready(&self, grant: &Grant) {
        self.go(
            grant,
            &[State::Provisioning, State::RepoSyncing, State::Installing],
        );
        let now = self.clock.now();
        let write = self.ledger.write(|tx| {
            tx.transition(&grant.token, State::Ready, "all checks passed", |session| {
                session.ready_at = Some(now);
            })?;
            tx.finish(&grant.token, &Outcome::Succeeded(json!({})))
        });
        write.unwrap();
    }

    fn go(&self, grant: &Grant, states: &[State]) {
        for state in states {
            let write = self
                .ledger
                .write(|tx| tx.transition(&grant.token, *state, "test", |_| {}));
            write.unwrap();
        }
    }

    fn step(&self, grant: &Grant, step: &str, attempts: u32, error: Option<&str>) {
        let step = StepRecord {
            step: step.to_owned(),
            at: self.clock.now(),
            duration_ms: 1500,
            attempts,
            error_code: error.map(str::to_owned),
        };
        let write = self.ledger.write(|tx| tx.record_step(&grant.token, &step));
        write.unwrap();
    }

    fn down(&self, session: &SessionId) -> Grant {
        let acquired = self.ledger.write(|tx| {
            let superseded = error("ERR_INTERRUPTED");
            tx.acquire(session, Action::Down, "tester", &superseded)
        });
        match acquired.unwrap() {
            Acquired::Run(grant) | Acquired::Resume(grant) => grant,
            Acquired::Wait(lease) => panic!("{lease:?}"),
        }
    }

    fn finish(&self, grant: &Grant, outcome: &Outcome) {
        let write = self.ledger.write(|tx| tx.finish(&grant.token, outcome));
        write.unwrap();
    }

    fn event(&self, session: Option<&SessionId>, kind: &str, reason: &str) -> u64 {
        let write = self
            .ledger
            .write(|tx| tx.append_event(session, None, kind, Some(reason)));
        write.unwrap()
    }

    fn audit(&self, session: &SessionId, reason: &str) {
        let record = AuditRecord {
            actor: "admin".to_owned(),
            session_id: session.clone(),
            action: "down".to_owned(),
            reason: reason.to_owned(),
            at: self.clock.now(),
        };
        self.ledger.write(|tx| tx.put_audit(&record)).unwrap();
    }

    fn orphan(&self, sandbox: &str, session: &str) {
        let record = QuarantineRecord {
            sandbox_id: sandbox.to_owned(),
            provider: "local".to_owned(),
            session_id: session.to_owned(),
            found_at: self.clock.now(),
            grace_since: None,
            durable_object_id: None,
            reaped_at: None,
        };
        let write = self.ledger.write(|tx| {
            tx.append_event(None, None, "quarantine", Some(sandbox))?;
            tx.put_quarantine(&record)
        });
        write.unwrap();
    }

    fn command(&self, arguments: &[&str]) -> Command {
        command(self.directory.path(), arguments)
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    fn as_admin(&self, arguments: &[&str]) -> Output {
        self.command(arguments)
            .env("ALPINE_ADMIN", "1")
            .output()
            .unwrap()
    }

    fn follow(&self, arguments: &[&str]) -> Following {
        Following::start(self.directory.path(), arguments)
    }
}

fn command(directory: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_alpine"));
    command
        .args(arguments)
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("HOME", directory)
        .env("ALPINE_HOME", directory.join("home"))
        .env("ALPINE_PRINCIPAL_ID", "tester")
        .current_dir(directory)
        .stdin(Stdio::null());
    command
}

/// A process that follows the events; killed when the test is done with it.
struct Following {
    child: Child,
    lines: Receiver<Value>,
}

impl Following {
    fn start(directory: &Path, arguments: &[&str]) -> Self {
        Self::of(command(directory, &["events", "--follow", "--json"]).args(arguments))
    }

    fn of(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let stdout = child.stdout.take().unwrap();
        let (line, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for text in BufReader::new(stdout).lines() {
                let event: Value = serde_json::from_str(&text.unwrap()).unwrap();
                if line.send(event).is_err() {
                    return;
                }
            }
        });
        Self { child, lines }
    }

    fn next(&self) -> Value {
        self.lines.recv_timeout(PATIENCE).unwrap()
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id().try_into().unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    fn ended(&mut self) -> ExitStatus {
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            std::thread::yield_now();
        }
        panic!("it goes on");
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        // One that has ended can't be killed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn error(code: &str) -> ErrorRecord {
    ErrorRecord {
        error_code: code.to_owned(),
        cause: format!("it broke over {SECRET}"),
        next_step: "alpine list".to_owned(),
        retryable: true,
        operation_id: None,
        exit_code: 2,
    }
}

fn text(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn lines(output: &Output) -> Vec<Value> {
    let text = text(output);
    let line = |line| serde_json::from_str(line).unwrap();
    text.lines().map(line).collect()
}

fn document(output: &Output) -> Value {
    let mut lines = lines(output);
    assert_eq!(lines.len(), 1);
    assert_eq!(lines[0]["schema_version"], "v1");
    lines.remove(0)
}

fn code(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1));
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(!document["next_step"].as_str().unwrap().is_empty());
    document["error_code"].as_str().unwrap().to_owned()
}

fn numbers(events: &[Value]) -> Vec<u64> {
    let number = |event: &Value| event["seq"].as_u64().unwrap();
    events.iter().map(number).collect()
}

#[test]
fn events_are_shown_to_those_whose_sessions_they_are_of() {
    let world = World::new();
    let mine = world.ready("tester", "mine", 1000);
    let theirs = world.ready("somebody", "theirs", 1000);
    let last = world.event(None, "quarantine", "sbx_9");
    let seen = lines(&world.run(&["events", "--json"]));
    assert!(!seen.is_empty());
    assert!(
        seen.iter()
            .all(|event| event["session_id"] == mine.as_str())
    );
    let all = lines(&world.as_admin(&["events", "--json"]));
    assert_eq!(numbers(&all), (1..=last).collect::<Vec<_>>());
    assert_eq!(all.len(), 2 * seen.len() + 1);
    let of_theirs = ["events", "--json", "--session", theirs.as_str()];
    assert_eq!(code(&world.run(&of_theirs)), "ERR_SESSION_FORBIDDEN");
    let of_one = lines(&world.as_admin(&of_theirs));
    assert_eq!(of_one.len(), seen.len());
    assert!(
        of_one
            .iter()
            .all(|event| event["session_id"] == theirs.as_str())
    );
    let of_none = world.run(&["events", "--json", "--session", "nobody"]);
    assert_eq!(code(&of_none), "ERR_SESSION_NOT_FOUND");
    let of_theirs = world.run(&["ops", "--json", theirs.as_str()]);
    assert_eq!(code(&of_theirs), "ERR_SESSION_FORBIDDEN");
}

#[test]
fn an_event_has_these_fields_and_is_one_line() {
    let world = World::new();
    let session = world.ready("tester", "one", 1500);
    world.event(Some(&session), "note", "two\nlines \u{1b}[2J");
    let first = text(&world.run(&["events", "--json"]));
    let ids = |text: &str| text.replace(session.as_str(), "ses_1");
    let operation = lines(&world.run(&["events", "--json"]))[0]["operation_id"].clone();
    let first = ids(first.lines().next().unwrap()).replace(operation.as_str().unwrap(), "op_1");
    expect![[r#"{"schema_version":"v1","seq":1,"at":"2026-09-21T14:13:20.000Z","kind":"operation_started","session_id":"ses_1","operation_id":"op_1","state":"requested","actor":"tester","reason":"up","duration_ms":null}"#]].assert_eq(&first);
    expect![[r#"
        1       2026-09-21T14:13:20.000Z  operation_started     ses_1  requested  up  by tester
        2       2026-09-21T14:13:21.500Z  transition            ses_1  provisioning  test  (1.5 s)  by tester
        3       2026-09-21T14:13:21.500Z  transition            ses_1  repo_syncing  test  (0.0 s)  by tester
        4       2026-09-21T14:13:21.500Z  transition            ses_1  installing  test  (0.0 s)  by tester
        5       2026-09-21T14:13:21.500Z  transition            ses_1  ready  all checks passed  (0.0 s)  by tester
        6       2026-09-21T14:13:21.500Z  operation_finished    ses_1  ready  (1.5 s)  by tester
        7       2026-09-21T14:13:21.500Z  note                  ses_1  ready  two lines
    "#]].assert_eq(&ids(&text(&world.run(&["events"]))));
}

#[test]
fn a_cursor_gives_what_came_later_once_each() {
    let world = World::new();
    world.ready("tester", "mine", 1000);
    world.ready("somebody", "theirs", 1000);
    world.ready("tester", "another", 1000);
    let all = lines(&world.run(&["events", "--json"]));
    for event in &all {
        let seq = event["seq"].to_string();
        let after = lines(&world.run(&["events", "--json", "--after", &seq]));
        let expected = all
            .iter()
            .filter(|later| later["seq"].as_u64() > event["seq"].as_u64());
        assert_eq!(after, expected.cloned().collect::<Vec<_>>());
    }
    let ahead = world.run(&["events", "--json", "--after", "4711"]);
    assert_eq!(lines(&ahead), all, "it begins anew");
    let warned = String::from_utf8(ahead.stderr).unwrap();
    assert!(warned.contains("no event 4711"), "{warned}");
    let last = u64::MAX.to_string();
    assert_eq!(
        lines(&world.run(&["events", "--json", "--after", &last])),
        all
    );
}

#[test]
fn many_events_are_read_page_by_page() {
    let world = World::new();
    let write = world.ledger.write(|tx| {
        for number in 0..1200 {
            tx.append_event(None, None, "note", Some(&number.to_string()))?;
        }
        Ok(())
    });
    write.unwrap();
    let seen = lines(&world.as_admin(&["events", "--json", "--after", "99"]));
    assert_eq!(numbers(&seen), (100..=1200).collect::<Vec<_>>());
}

#[test]
fn following_sees_what_others_write_and_ends_when_it_is_told_to() {
    let world = World::new();
    let session = world.ready("tester", "mine", 1000);
    let last = world.event(Some(&session), "note", "the last one before");
    for (signal, status) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        let cursor = (last - 1).to_string();
        let mut following = world.follow(&["--after", &cursor]);
        assert_eq!(following.next()["seq"], last);
        let mut slowest = Duration::ZERO;
        for _ in 0..5 {
            let written = world.event(Some(&session), "note", "a new one");
            let start = Instant::now();
            while following.next()["seq"] != written {}
            slowest = slowest.max(start.elapsed());
        }
        assert!(slowest < Duration::from_secs(1), "{slowest:?}");
        following.signal(signal);
        assert_eq!(following.ended().code(), Some(status));
    }
}

#[test]
fn following_begins_anew_in_a_ledger_that_is_behind() {
    let world = World::new();
    let session = world.ready("tester", "mine", 1000);
    let older = world.path("older");
    world.ledger.backup(&older).unwrap();
    let last = world.event(Some(&session), "note", "lost");
    let following = world.follow(&[]);
    while following.next()["seq"] != last {}
    world.ledger.close();
    fs::rename(&older, world.path("home").join("ledger.redb")).unwrap();
    let seen: Vec<Value> = (1..last).map(|_| following.next()).collect();
    assert_eq!(numbers(&seen), (1..last).collect::<Vec<_>>());
    assert_eq!(world.event(Some(&session), "note", "another"), last);
    assert_eq!(following.next()["reason"], "another");
}

#[test]
fn following_gets_each_event_once_while_writers_come_and_go() {
    let world = World::new();
    let session = world.ready("tester", "mine", 1000);
    let before = lines(&world.run(&["events", "--json"])).len() as u64;
    let following = world.follow(&["--session", session.as_str()]);
    for number in 1..=200 {
        world.event(Some(&session), "note", &number.to_string());
        if number % 20 == 0 {
            world.ledger.close();
        }
    }
    let seen: Vec<Value> = (0..before + 200).map(|_| following.next()).collect();
    assert_eq!(numbers(&seen), (1..=before + 200).collect::<Vec<_>>());
}

/// What another process does: it writes one event after the other until it is killed.
#[test]
#[expect(
    clippy::disallowed_methods,
    reason = "the variable says that this is the other process"
)]
fn a_writer() {
    let Some(path) = std::env::var_os(WRITTEN) else {
        return;
    };
    let ledger = Ledger::open(Path::new(&path), Options::new()).unwrap();
    loop {
        let write = ledger.write(|tx| tx.append_event(None, None, "note", None));
        write.unwrap();
    }
}

#[test]
fn following_goes_on_when_writers_are_killed() {
    let world = World::new();
    let ledger = world.path("home/ledger.redb");
    let mut command = world.command(&["events", "--follow", "--json"]);
    let mut following = Following::of(command.env("ALPINE_ADMIN", "1"));
    let mut seen = 0;
    for _ in 0..8 {
        let mut writer = Command::new(std::env::current_exe().unwrap());
        let mut writer = writer
            .args(["--exact", "a_writer"])
            .env(WRITTEN, &ledger)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        for _ in 0..20 {
            seen += 1;
            assert_eq!(following.next()["seq"], seen);
        }
        writer.kill().unwrap();
        writer.wait().unwrap();
    }
    let last = world.event(None, "note", "the last one");
    while seen < last {
        seen += 1;
        assert_eq!(following.next()["seq"], seen);
    }
    assert!(following.child.try_wait().unwrap().is_none());
}

#[test]
fn a_gap_says_which_events_are_no_longer_kept() {
    let world = World::new();
    let session = world.ready("tester", "mine", 1000);
    let last = world.event(Some(&session), "note", "seen");
    let cursor = last.to_string();
    let following = world.follow(&["--after", &(last - 1).to_string()]);
    assert_eq!(following.next()["seq"], last);
    following.signal(Signal::STOP);
    for _ in 0..20 {
        world.event(Some(&session), "note", "while nobody looked");
    }
    let keep = Retention {
        events: 5,
        ..Retention::default()
    };
    assert_eq!(world.ledger.retain(&keep, 1000).unwrap().events, last + 15);
    following.signal(Signal::CONT);

    let gap = |from: u64| json!({"schema_version": "v1", "gap": {"from": from, "to": last + 15}});
    let kept: Vec<u64> = (last + 16..=last + 20).collect();
    assert_eq!(following.next(), gap(last + 1));
    let followed: Vec<Value> = kept.iter().map(|_| following.next()).collect();
    assert_eq!(numbers(&followed), kept);
    for (after, from) in [(&cursor, last + 1), (&"0".to_owned(), 1)] {
        let seen = lines(&world.run(&["events", "--json", "--after", after]));
        assert_eq!(seen[0], gap(from));
        assert_eq!(numbers(&seen[1..]), kept);
    }
    let whole = (last + 15).to_string();
    let seen = lines(&world.run(&["events", "--json", "--after", &whole]));
    assert_eq!(numbers(&seen), kept);
    let told = text(&world.run(&["events", "--after", &cursor]));
    let first = format!("events {} to {} are no longer kept", last + 1, last + 15);
    assert_eq!(told.lines().next(), Some(first.as_str()));
}

#[test]
fn following_begins_before_there_is_a_ledger() {
    let directory = tempfile::tempdir().unwrap();
    let mut following = Following::start(directory.path(), &[]);
    let early = following.lines.recv_timeout(Duration::from_millis(500));
    assert!(early.is_err());
    assert!(following.child.try_wait().unwrap().is_none());
    let world = World::within(directory, 1_790_000_000_000);
    world.ready("tester", "mine", 1000);
    assert_eq!(following.next()["seq"], 1);
    following.signal(Signal::INT);
    assert_eq!(following.ended().code(), Some(130));
}

#[test]
fn following_ends_when_nobody_reads_it_any_more() {
    let world = World::new();
    world.ready("tester", "mine", 1000);
    let mut command = world.command(&["events", "--follow"]);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    for _ in text(&world.run(&["events"])).lines() {
        stdout.read_line(&mut String::new()).unwrap();
    }
    // From now on there is no event that it could fail to show.
    drop(stdout);
    let mut following = Following {
        child,
        lines: mpsc::channel().1,
    };
    assert_eq!(following.ended().code(), Some(0));
}

#[test]
fn operations_are_shown_with_their_steps() {
    let world = World::new();
    let grant = world.up("tester", "mine");
    world.step(&grant, "resolve", 1, None);
    world.wait(2000);
    world.step(&grant, "provision", 3, Some("ERR_TIMEOUT"));
    let write = world
        .ledger
        .write(|tx| tx.interrupt(&grant.token, &error("ERR_TIMEOUT")));
    write.unwrap();
    drop(grant);
    let grant = world.up("tester", "mine");
    world.step(&grant, "provision", 1, None);
    world.wait(4000);
    world.be_ready(&grant);
    let session = grant.session.session_id.clone();
    let down = world.down(&session);
    world.go(&down, &[State::Stopping, State::CloseFailed]);
    world.step(&down, "stop", 2, Some("ERR_CLEANUP_FAILED"));
    world.finish(&down, &Outcome::Failed(error("ERR_CLEANUP_FAILED")));

    let output = world
        .command(&["ops", session.as_str(), "--json"])
        .env("GITHUB_TOKEN", SECRET)
        .output()
        .unwrap();
    let mut found = document(&output);
    assert_eq!(found["session_id"], session.as_str());
    let operations = found["operations"].as_array_mut().unwrap();
    assert_eq!(operations.len(), 2);
    for operation in operations.iter_mut() {
        let id = operation["operation_id"].take();
        assert!(id.as_str().unwrap().starts_with("op_"));
    }
    let lines: Vec<String> = operations.iter().map(ToString::to_string).collect();
    expect![[r#"
        {"action":"up","actor":"tester","cancel_requested":false,"completed_at":"2026-09-21T14:13:26.000Z","error":null,"operation_id":null,"started_at":"2026-09-21T14:13:20.000Z","state":"succeeded","steps":[{"at":"2026-09-21T14:13:20.000Z","attempts":1,"duration_ms":1500,"error_code":null,"step":"resolve"},{"at":"2026-09-21T14:13:22.000Z","attempts":3,"duration_ms":1500,"error_code":"ERR_TIMEOUT","step":"provision"},{"at":"2026-09-21T14:13:22.000Z","attempts":1,"duration_ms":1500,"error_code":null,"step":"provision"}],"takeovers":1,"terminal_state":"ready"}
        {"action":"down","actor":"tester","cancel_requested":false,"completed_at":"2026-09-21T14:13:26.000Z","error":{"cause":"it broke over [redacted]","error_code":"ERR_CLEANUP_FAILED","exit_code":2,"next_step":"alpine list","operation_id":null,"retryable":true},"operation_id":null,"started_at":"2026-09-21T14:13:26.000Z","state":"failed","steps":[{"at":"2026-09-21T14:13:26.000Z","attempts":2,"duration_ms":1500,"error_code":"ERR_CLEANUP_FAILED","step":"stop"}],"takeovers":0,"terminal_state":"close_failed"}"#]].assert_eq(&lines.join("\n"));
    let table = text(&world.run(&["ops", &session.as_str()[..12]]));
    let table = table
        .replace(grant.operation.operation_id.as_str(), "op_1")
        .replace(down.operation.operation_id.as_str(), "op_2");
    expect![[r#"
        OPERATION                            WHAT         STATE                  AT                        TOOK   TRIES  ERROR
        op_1  up           succeeded (ready)      2026-09-21T14:13:20.000Z  6.0 s  2      -
                                               resolve    done                   2026-09-21T14:13:20.000Z  1.5 s  1      -
                                               provision  failed                 2026-09-21T14:13:22.000Z  1.5 s  3      ERR_TIMEOUT
                                               provision  done                   2026-09-21T14:13:22.000Z  1.5 s  1      -
        op_2  down         failed (close_failed)  2026-09-21T14:13:26.000Z  0.0 s  1      ERR_CLEANUP_FAILED
                                               stop       failed                 2026-09-21T14:13:26.000Z  1.5 s  2      ERR_CLEANUP_FAILED
    "#]].assert_eq(&table);
}

#[test]
fn the_audit_is_for_admins_newest_first() {
    let world = World::new();
    let session = world.ready("somebody", "theirs", 1000);
    assert_eq!(
        document(&world.as_admin(&["audit", "--json"]))["records"],
        json!([])
    );
    for reason in ["first", "second", "third"] {
        world.audit(&session, reason);
        world.wait(1000);
    }
    assert_eq!(
        code(&world.run(&["audit", "--json"])),
        "ERR_SESSION_FORBIDDEN"
    );
    let all = document(&world.as_admin(&["audit", "--json"]));
    let reasons: Vec<_> = all["records"]
        .as_array()
        .unwrap()
        .iter()
        .map(|record| record["reason"].as_str().unwrap())
        .collect();
    assert_eq!(reasons, ["third", "second", "first"]);
    assert_eq!(all["truncated"], false);
    let two = document(&world.as_admin(&["audit", "--json", "--limit", "2"]));
    assert_eq!(two["truncated"], true);
    assert_eq!(two["records"][0], all["records"][0]);
    assert_eq!(two["records"].as_array().unwrap().len(), 2);
    assert_eq!(
        all["records"][2],
        json!({"actor": "admin", "session_id": session.as_str(), "action": "down", "reason": "first", "at": "2026-09-21T14:13:21.000Z"})
    );
    let none = world.as_admin(&["audit", "--json", "--limit", "0"]);
    assert_eq!(code(&none), "ERR_USAGE");
    let shown = world.as_admin(&["audit", "--limit", "1"]);
    let said = String::from_utf8(shown.stderr.clone()).unwrap();
    // It is not on the path here.
    let program = env!("CARGO_BIN_EXE_alpine");
    let more = format!("there are more: {program} audit --limit 10\n");
    assert_eq!(said, more);
    expect![[r#"
        AT                        ACTOR  ACTION  SESSION                               REASON
        2026-09-21T14:13:23.000Z  admin  down    ses_1  third
    "#]]
    .assert_eq(&text(&shown).replace(session.as_str(), "ses_1"));
}

/// Five `up`s of the caller in the window: three ready, one failed, one interrupted; three `down`s of them, whose object
/// was verified, was another, and could not be read back. Beside them what doesn't count.
fn busy() -> World {
    let now = SystemClock.now().0;
    let world = World::at(now - 240 * HOUR);
    world.ready("tester", "too old", 77_000);
    world.orphan("sbx_old", "ses_old");
    world.clock.0.store(now - HOUR, Ordering::SeqCst);

    let grant = world.up("tester", "1");
    world.step(&grant, "provision", 3, None);
    world.wait(1000);
    world.be_ready(&grant);
    let first = grant.session.session_id.clone();
    drop(grant);
    let second = world.ready("tester", "2", 2000);
    let grant = world.up("tester", "3");
    let write = world
        .ledger
        .write(|tx| tx.interrupt(&grant.token, &error("ERR_TIMEOUT")));
    write.unwrap();
    drop(grant);
    world.wait(4000);
    let grant = world.up("tester", "3");
    world.be_ready(&grant);
    let third = grant.session.session_id.clone();
    let grant = world.up("tester", "4");
    world.go(&grant, &[State::Failing, State::Failed]);
    world.finish(&grant, &Outcome::Failed(error("ERR_INSTALL_FAILED")));
    let grant = world.up("tester", "5");
    let write = world
        .ledger
        .write(|tx| tx.interrupt(&grant.token, &error("ERR_TIMEOUT")));
    write.unwrap();
    world.ready("somebody", "6", 9000);

    let down = world.down(&first);
    world.go(&down, &[State::Stopping, State::Persisting]);
    world.step(&down, "verify", 1, None);
    world.go(&down, &[State::Stopped]);
    world.step(&down, "destroy", 1, None);
    world.finish(&down, &Outcome::Succeeded(json!({})));
    for (session, read) in [
        (&second, None),
        (&third, Some("ERR_PERSISTENCE_VERIFICATION_FAILED")),
    ] {
        let down = world.down(session);
        world.go(&down, &[State::Stopping, State::Persisting]);
        world.step(&down, "verify", 1, read);
        world.go(&down, &[State::StoppedUnpersisted]);
        let failed = error("ERR_PERSISTENCE_VERIFICATION_FAILED");
        world.finish(&down, &Outcome::Failed(failed));
    }
    // Found, saved and destroyed: one sandbox all the same.
    for _ in 0..3 {
        world.orphan("sbx_mine", first.as_str());
    }
    world.orphan("sbx_whose", "ses_unknown");
    world
}

#[test]
fn the_numbers_of_stats_are_those_that_a_hand_counts() {
    let world = busy();
    let mut found = document(&world.run(&["stats", "--json"]));
    for time in ["since", "until"] {
        let at = found[time].take();
        assert!(at.as_str().unwrap().ends_with('Z'));
    }
    let up = |succeeded: u64, failed: u64, unfinished: u64, rate: f64| json!({"total": succeeded + failed + unfinished, "succeeded": succeeded, "failed": failed, "unfinished": unfinished, "success_rate": rate});
    assert_eq!(
        found,
        json!({
            "schema_version": "v1",
            "since": null,
            "until": null,
            "up": up(3, 1, 1, 0.75),
            "verification": {"total": 3, "succeeded": 1, "failed": 2, "success_rate": 0.3333},
            "time_to_ready_ms": {"p50": 2000, "p95": 4000, "p99": 4000},
            "retries": 2,
            "takeovers": 1,
            "orphans": 1,
            "errors": {"ERR_INSTALL_FAILED": 1, "ERR_PERSISTENCE_VERIFICATION_FAILED": 2, "ERR_TIMEOUT": 1},
        })
    );
    let all = document(&world.as_admin(&["stats", "--json", "--all-owners"]));
    assert_eq!(all["up"], up(4, 1, 1, 0.8));
    assert_eq!(all["orphans"], 2);
    assert_eq!(
        all["time_to_ready_ms"],
        json!({"p50": 2000, "p95": 9000, "p99": 9000})
    );
    let older = document(&world.run(&["stats", "--json", "--since", "90d"]));
    assert_eq!(older["up"], up(4, 1, 1, 0.8));
    let recent = document(&world.run(&["stats", "--json", "--since", "1m"]));
    assert_eq!(recent["up"]["total"], 0);
    assert_eq!(recent["up"]["success_rate"], Value::Null);
    let refused = world.run(&["stats", "--json", "--all-owners"]);
    assert_eq!(code(&refused), "ERR_SESSION_FORBIDDEN");
    for wrong in ["0", "soon", "-1d", ""] {
        let refused = world.run(&["stats", "--json", "--since", wrong]);
        assert_eq!(code(&refused), "ERR_USAGE");
    }
}

#[test]
fn stats_for_people_and_for_prometheus() {
    let world = busy();
    let told = text(&world.run(&["stats"]));
    let (first, rest) = told.split_once('\n').unwrap();
    assert!(first.starts_with("since"), "{first}");
    expect![[r#"
        up           3 succeeded, 1 failed, 1 unfinished (75.00 % of 4)
        verification 1 succeeded, 2 failed (33.33 % of 3)
        ready after  p50 2.0 s, p95 4.0 s, p99 4.0 s
        retries      2
        takeovers    1
        orphans      1
        error        ERR_INSTALL_FAILED (1)
        error        ERR_PERSISTENCE_VERIFICATION_FAILED (2)
        error        ERR_TIMEOUT (1)
    "#]]
    .assert_eq(rest);
    let page = text(&world.run(&["stats", "--prometheus"]));
    expect![[r##"
        # HELP alpine_window_seconds The length of the window that the other values are of.
        # TYPE alpine_window_seconds gauge
        alpine_window_seconds 604800
        # HELP alpine_ups Operations in the window that bring a session up, by outcome.
        # TYPE alpine_ups gauge
        alpine_ups{outcome="ready"} 3
        alpine_ups{outcome="failed"} 1
        alpine_ups{outcome="unfinished"} 1
        # HELP alpine_verifications Durable objects in the window that were read back, by outcome.
        # TYPE alpine_verifications gauge
        alpine_verifications{outcome="verified"} 1
        alpine_verifications{outcome="failed"} 2
        # HELP alpine_retries Tries of a step beyond the first, in the window.
        # TYPE alpine_retries gauge
        alpine_retries 2
        # HELP alpine_takeovers Operations in the window that another process carried on.
        # TYPE alpine_takeovers gauge
        alpine_takeovers 1
        # HELP alpine_orphans Sandboxes that were found without a session, in the window.
        # TYPE alpine_orphans gauge
        alpine_orphans 1
        # HELP alpine_errors Operations in the window that ended or were interrupted with an error, by code.
        # TYPE alpine_errors gauge
        alpine_errors{code="ERR_INSTALL_FAILED"} 1
        alpine_errors{code="ERR_PERSISTENCE_VERIFICATION_FAILED"} 2
        alpine_errors{code="ERR_TIMEOUT"} 1
        # HELP alpine_time_to_ready_seconds How long those `up`s took that ended well, in the window.
        # TYPE alpine_time_to_ready_seconds summary
        alpine_time_to_ready_seconds{quantile="0.5"} 2.000
        alpine_time_to_ready_seconds{quantile="0.95"} 4.000
        alpine_time_to_ready_seconds{quantile="0.99"} 4.000
        alpine_time_to_ready_seconds_sum 7.000
        alpine_time_to_ready_seconds_count 3
    "##]].assert_eq(&page);
    let wrapped = document(&world.run(&["stats", "--prometheus", "--json"]));
    assert_eq!(wrapped["text"], page);
    let recent = text(&world.run(&["stats", "--prometheus", "--since", "1m"]));
    assert!(recent.contains("alpine_time_to_ready_seconds{quantile=\"0.99\"} NaN\n"));
    assert!(recent.contains("alpine_ups{outcome=\"ready\"} 0\n"));
}

/// What a textfile collector accepts: each family once, its help and type before its samples, no timestamp, no sample
/// twice, and a line feed at the end. The number of samples.
#[track_caller]
fn accepted(page: &str) -> usize {
    let is_name = |text: &str| {
        let mut letters = text.chars();
        letters
            .next()
            .is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
            && letters.all(|c| c.is_ascii_alphanumeric() || c == '_')
    };
    assert!(page.ends_with('\n') && !page.contains("\n\n") && !page.contains('\r'));
    let (mut families, mut samples) = (Vec::new(), Vec::new());
    let mut lines = page.lines().peekable();
    while let Some(line) = lines.next() {
        let help = line.strip_prefix("# HELP ").expect("help before samples");
        let (name, help) = help.split_once(' ').expect("a text");
        assert!(is_name(name) && !help.trim().is_empty(), "{line}");
        assert!(!families.contains(&name), "{name} comes twice");
        families.push(name);
        let kind = lines.next().expect("a type");
        let kind = kind.strip_prefix(&format!("# TYPE {name} ")).expect(kind);
        assert!(["gauge", "summary"].contains(&kind), "{kind}");
        // By convention that is a counter's, which never goes down.
        assert!(!name.ends_with("_total"), "{name}");
        while let Some(line) = lines.next_if(|line| !line.starts_with('#')) {
            let (sample, value) = line.rsplit_once(' ').expect("a value");
            assert!(value.parse::<f64>().is_ok(), "{line}");
            assert!(!samples.contains(&sample), "{sample} comes twice");
            samples.push(sample);
            let (metric, labels) = sample.split_once('{').unwrap_or((sample, "}"));
            let part = metric.strip_prefix(name).expect(line);
            let parts: &[&str] = if kind == "summary" {
                &["", "_sum", "_count"]
            } else {
                &[""]
            };
            assert!(parts.contains(&part), "{line}");
            let labels = labels.strip_suffix('}').expect("the end of its labels");
            for label in labels.split(',').filter(|label| !label.is_empty()) {
                let (label, text) = label.split_once('=').expect("a label");
                let text = text
                    .strip_prefix('"')
                    .and_then(|text| text.strip_suffix('"'));
                assert!(is_name(label) && text.is_some_and(|text| !text.contains('"')));
            }
        }
    }
    samples.len()
}

#[test]
fn a_textfile_collector_accepts_the_page() {
    let world = busy();
    let page = text(&world.run(&["stats", "--prometheus"]));
    assert_eq!(accepted(&page), 17);
    accepted(&text(&world.run(&[
        "stats",
        "--prometheus",
        "--since",
        "1m",
    ])));
    let nobody = World::new();
    accepted(&text(&nobody.as_admin(&[
        "stats",
        "--prometheus",
        "--all-owners",
    ])));
    // Each of these is one that it would not accept.
    for wrong in [
        page.trim_end().to_owned(),
        page.replacen("# TYPE", "# KIND", 1),
        page.replacen(" 604800", " 604800 1790000000000", 1),
        page.clone() + &page,
        page.replacen("outcome=\"ready\"", "outcome=ready", 1),
    ] {
        assert!(
            std::panic::catch_unwind(|| accepted(&wrong)).is_err(),
            "{wrong}"
        );
    }
}

#[test]
fn secrets_are_nowhere_in_the_history() {
    let world = World::new();
    let session = world.ready("tester", "mine", 1000);
    world.event(Some(&session), "note", &format!("a {SECRET} slipped in"));
    let down = world.down(&session);
    world.go(&down, &[State::Stopping, State::CloseFailed]);
    world.finish(&down, &Outcome::Failed(error("ERR_CLEANUP_FAILED")));
    world.audit(&session, &format!("because {SECRET}"));
    let ops = ["ops", session.as_str()];
    for arguments in [&["events"][..], &ops, &["audit"], &["stats"]] {
        for form in [&[][..], &["--json"]] {
            let mut command = world.command(&[arguments, form].concat());
            command.env("ALPINE_ADMIN", "1").env("GITHUB_TOKEN", SECRET);
            let output = command.output().unwrap();
            let shown = text(&output) + &String::from_utf8_lossy(&output.stderr);
            assert!(!shown.contains(SECRET), "{arguments:?}: {shown}");
            let had_one = arguments != ["stats"] && (arguments[0] != "ops" || form == ["--json"]);
            assert_eq!(
                shown.contains("[redacted]"),
                had_one,
                "{arguments:?}: {shown}"
            );
        }
    }
}

#[test]
fn reading_changes_nothing() {
    let world = World::new();
    let session = world.ready("tester", "mine", 1000);
    world.ledger.close();
    let file = || fs::read(world.path("home/ledger.redb")).unwrap();
    let names = || {
        let entries = fs::read_dir(world.path("home")).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    let before = (file(), names());
    let mut following = world.follow(&[]);
    following.next();
    for arguments in [
        &["events"][..],
        &["ops", session.as_str()],
        &["audit"],
        &["stats"],
    ] {
        text(&world.as_admin(arguments));
    }
    following.signal(Signal::INT);
    following.ended();
    assert!(before == (file(), names()));
}

#[test]
fn where_there_is_no_ledger_there_is_no_history() {
    let directory = tempfile::tempdir().unwrap();
    let run = |arguments: &[&str]| {
        let mut command = command(directory.path(), arguments);
        command.env("ALPINE_ADMIN", "1").output().unwrap()
    };
    for arguments in [&["events"][..], &["events", "--json"]] {
        assert_eq!(text(&run(arguments)), "");
    }
    assert_eq!(
        code(&run(&["ops", "ses_1234", "--json"])),
        "ERR_SESSION_NOT_FOUND"
    );
    let audit = document(&run(&["audit", "--json"]));
    assert_eq!(audit["records"], json!([]));
    let said = run(&["audit"]);
    assert_eq!(text(&said), "");
    assert!(!said.stderr.is_empty());
    let stats = document(&run(&["stats", "--json", "--all-owners"]));
    assert_eq!(stats["up"]["total"], 0);
    assert_eq!(stats["errors"], json!({}));
    assert!(text(&run(&["stats", "--prometheus"])).ends_with('\n'));
    assert!(!directory.path().join("home").exists());
}

#[test]
fn list_and_status_say_the_same_of_an_up_and_never_to_end_one_that_does_well() {
    let world = World::new();
    let grant = world.up("tester", "build");
    let id = grant.session.session_id.to_string();
    let both = |wanted: &str| {
        let listed = document(&world.run(&["list", "--all", "--json"]));
        assert_eq!(listed["sessions"][0]["next_step"], wanted, "{listed:#}");
        let status = document(&world.run(&["status", &id, "--json"]));
        assert_eq!(status["next_step"], wanted, "{status:#}");
    };
    both(&format!("alpine status {id}"));
    // Its holder's lock goes with it.
    drop(grant);
    both(
        "alpine up https://example.com/repo.git --branch main --client-request-id build --agent none --provider local --public",
    );
}

#[test]
fn status_says_what_was_lost_and_nothing_that_is_not_so() {
    let world = World::new();
    let id = world.ready("tester", "build", 100);
    let grant = world.down(&id);
    world.go(&grant, &[State::Stopping, State::Persisting]);
    let now = world.clock.now();
    let go = |to: State| {
        let write = world.ledger.write(|tx| {
            tx.transition(&grant.token, to, "test", |session| {
                session.workspace_path = Some("/somewhere".to_owned());
                session.persisted_at = Some(now);
                session.workspace_snapshot =
                    Some(json!({"digest": null, "reason": "workspace_lost"}));
            })
        });
        write.unwrap();
        let told = world.run(&["status", id.as_str()]);
        (
            document(&world.run(&["status", id.as_str(), "--json"])),
            String::from_utf8(told.stdout).unwrap(),
        )
    };
    let (status, told) = go(State::StoppedUnpersisted);
    assert_eq!(status["workspace_snapshot"], Value::Null, "{status:#}");
    assert_eq!(status["workspace_snapshot_reason"], "workspace_lost");
    assert_eq!(status["workspace_path"], "/somewhere");
    assert!(status["lease"].is_object(), "{status:#}");
    assert!(told.contains("\nheld by      process "), "{told}");
    assert!(
        told.contains("\nsnapshot     lost: the workspace was gone before it could be stored\n"),
        "{told}"
    );
    assert!(!told.contains("\npersisted "), "{told}");
    let (status, told) = go(State::Failed);
    assert_eq!(status["workspace_path"], Value::Null, "{status:#}");
    assert!(!told.contains("\nworkspace "), "{told}");
    // The process that held it is dead, and so is its lock.
    drop(grant);
    let status = document(&world.run(&["status", id.as_str(), "--json"]));
    assert_eq!(status["lease"], Value::Null, "{status:#}");
    let told = world.run(&["status", id.as_str()]);
    assert!(!String::from_utf8_lossy(&told.stdout).contains("held by"));
}
