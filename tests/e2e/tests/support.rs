//! A world for one test: a home, a repository, the program in it, and what the program says.

use alpine_ledger::{Ledger, LedgerError, Options, Snapshot};
use alpine_testkit::{FakeControl, Fault, Output, TestEnv, TestRepo};
use expect_test::Expect;
use serde_json::Value;
use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// How long anything may take before a test gives up on it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// How long `status` waits for what a provider sees.
const OBSERVING: Duration = Duration::from_millis(250);

/// What every home is configured with: the fake provider, the built-in page, no long pauses between tries, and patience
/// with a machine that has far more to do than it can.
const CONFIG: &str = "[provider]\ndefault = 'fake'\n[agent]\ndefault = 'page'\n[ledger]\nlock_timeout = '60s'\n\
    [limits]\nbackoff = '5ms'\n";

/// The fields of every failure, in their order.
const FAILURE: [&str; 7] = [
    "schema_version",
    "error_code",
    "cause",
    "next_step",
    "retryable",
    "operation_id",
    "exit_code",
];

/// A home, a repository in it, and the program under test.
///
/// When it goes, nothing may be left of what the test started, and the fake provider must have been treated well.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) env: TestEnv,
    pub(crate) repo: TestRepo,
}

impl World {
    /// A home for the fake provider.
    pub(crate) fn new() -> Self {
        Self::configured(CONFIG)
    }

    /// The same, with these lines in `config.toml` after the usual ones, which end in `[limits]`.
    pub(crate) fn with_limits(lines: &str) -> Self {
        Self::configured(&format!("{CONFIG}{lines}\n"))
    }

    /// A home whose `config.toml` is this text.
    pub(crate) fn configured(text: &str) -> Self {
        let env = TestEnv::new();
        let repo = env.git_repo(&[("README.md", "a repository\n")]);
        let world = Self { env, repo };
        world.configure(text);
        world
    }

    /// Replaces `config.toml`.
    pub(crate) fn configure(&self, text: &str) {
        let file = self.env.alpine_home().join("config.toml");
        fs::write(&file, text).expect("a configuration");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("its mode");
    }

    /// The repository's path.
    pub(crate) fn repo_path(&self) -> &str {
        self.repo.path.to_str().expect("a path in UTF-8")
    }

    /// The hand in the fake provider.
    pub(crate) fn fake(&self) -> FakeControl {
        self.env.fake()
    }

    /// The ledger's file.
    pub(crate) fn ledger_path(&self) -> PathBuf {
        self.env.alpine_home().join("ledger.redb")
    }

    /// Reads the ledger, as another process would.
    pub(crate) fn ledger<T>(
        &self,
        read: impl FnOnce(&Snapshot<'_>) -> Result<T, LedgerError>,
    ) -> T {
        let options = Options {
            clock: Arc::new(self.env.clock().clone()),
            ..Options::new()
        };
        let ledger = Ledger::open_read(&self.ledger_path(), options).expect("a ledger");
        ledger.read(read).expect("a snapshot")
    }

    /// The program with these arguments.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.env.command(program());
        command.args(arguments);
        command
    }

    /// Runs the program with these arguments.
    #[track_caller]
    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        self.env.run(&mut self.command(arguments))
    }

    /// Runs lines of a shell in which the program is called `alpine`.
    pub(crate) fn paste(&self, lines: &str) -> Output {
        let called = format!("alpine() {{ '{}' \"$@\"; }}", program().display());
        let mut shell = self.env.command(Path::new("/bin/sh"));
        shell.args(["-c", &format!("{called}\n{lines}")]);
        self.env.run(&mut shell)
    }

    /// Runs the program with `--json`, and gives its one document; it has to succeed.
    #[track_caller]
    pub(crate) fn done(&self, arguments: &[&str]) -> Value {
        let output = self.run(&with_json(arguments));
        assert_eq!(output.code(), Some(0), "{arguments:?}: {output:#?}");
        document(&output)
    }

    /// The same, where it has to fail with this code and exit status.
    #[track_caller]
    pub(crate) fn fails(&self, arguments: &[&str], code: &str, exit: i32) -> Value {
        failed(&self.run(&with_json(arguments)), code, exit)
    }

    /// Compares all that the program says with a snapshot.
    #[track_caller]
    pub(crate) fn check(&self, arguments: &[&str], expected: &Expect) {
        let output = self.run(arguments);
        if arguments.contains(&"--json") {
            document(&output);
        }
        expected.assert_eq(&self.shown(&output));
    }

    /// The same, of the first run whose standard output holds `mark`: what `status` observes may come too late to be told.
    #[track_caller]
    pub(crate) fn check_when(&self, mark: &str, arguments: &[&str], expected: &Expect) {
        let mut output = self.run(arguments);
        wait_until(mark, || {
            output.stdout.contains(mark) || {
                output = self.run(arguments);
                false
            }
        });
        expected.assert_eq(&self.shown(&output));
    }

    /// Starts the program with these arguments.
    pub(crate) fn start(&self, arguments: &[&str]) -> Running {
        Running::start(self.command(arguments))
    }

    /// The arguments of an `up` of the repository with this request id.
    pub(crate) fn up<'a>(&'a self, id: &'a str) -> Vec<&'a str> {
        vec![
            "up",
            self.repo_path(),
            "--branch",
            "main",
            "--client-request-id",
            id,
            "--no-browser",
        ]
    }

    /// Brings a session up with this request id, and gives its id.
    #[track_caller]
    pub(crate) fn ready(&self, id: &str) -> String {
        let up = self.done(&self.up(id));
        assert_eq!(up["state"], "ready", "{up:#}");
        text(&up, "session_id")
    }

    /// What `status` says of a session.
    #[track_caller]
    pub(crate) fn status(&self, session: &str) -> Value {
        self.done(&["status", session])
    }

    /// What `status` says of a session whose provider hangs, which it waits for no longer than it may. Of a few runs beside
    /// one of `list` each, one has to show that: a machine that has more to do than it can delays some.
    #[track_caller]
    pub(crate) fn status_beside_a_hang(&self, session: &str) -> Value {
        let mut late = Vec::new();
        for _ in 0..5 {
            self.fake().fault("inspect", Fault::Hang, 1);
            let (asked, status) = timed(|| self.status(session));
            self.fake().clear_faults();
            let (read, _) = timed(|| self.done(&["list"]));
            assert_eq!(status["observed"], Value::Null, "{status:#}");
            let waited = asked.saturating_sub(read);
            if waited < 2 * OBSERVING {
                return status;
            }
            late.push(waited);
        }
        panic!("`status` took so much longer than `list`: {late:?}");
    }

    /// The state that `status` shows.
    #[track_caller]
    pub(crate) fn state(&self, session: &str) -> String {
        text(&self.status(session), "state")
    }

    /// Both streams and the status, without what differs from run to run.
    pub(crate) fn shown(&self, output: &Output) -> String {
        let status = output
            .code()
            .map_or_else(|| output.status.to_string(), |code| code.to_string());
        let text = format!(
            "status {status}\n--- stdout\n{}--- stderr\n{}",
            in_lines(&output.stdout),
            output.stderr
        );
        self.scrubbed(&text)
    }

    /// A text without what differs from run to run.
    pub(crate) fn scrubbed(&self, text: &str) -> String {
        let root = self.env.root().to_str().expect("a path in UTF-8");
        let mut lines = String::new();
        for line in text.split_inclusive('\n') {
            // The columns of a table are as wide as the paths in it.
            match line.split_once(root) {
                Some((before, after)) if line.starts_with("ses_") => {
                    let (path, rest) = after.split_once("  ").unwrap_or((after, "\n"));
                    lines.extend([before, "$ROOT", path, "  ", rest.trim_start_matches(' ')]);
                }
                Some(_) | None if line.starts_with("SESSION  ") => {
                    let words: Vec<_> = line.split_whitespace().collect();
                    lines.extend([words.join("  ").as_str(), "\n"]);
                }
                Some(_) | None => lines.push_str(&line.replace(root, "$ROOT")),
            }
        }
        without_digests(&lines.replace(&self.repo.head, "$HEAD"))
    }

    /// Waits until a call of this method has come in and has not been answered.
    #[track_caller]
    pub(crate) fn wait_for_call(&self, method: &str) {
        self.wait_for_calls(method, 1);
    }

    /// Waits until so many calls of this method have come in.
    #[track_caller]
    pub(crate) fn wait_for_calls(&self, method: &str, count: usize) {
        wait_until(&format!("{count} calls of `{method}`"), || {
            self.fake().count(method) >= count
        });
    }

    /// Whether nothing of a session is left at the provider, and nobody broke the provider's contract.
    #[track_caller]
    pub(crate) fn assert_nothing_left(&self) {
        assert_eq!(self.fake().sandboxes(), [], "a sandbox is left");
        self.fake().assert_no_violations();
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if thread::panicking() {
            return;
        }
        if self.env.fake_directory().exists() {
            self.fake().assert_no_violations();
        }
        self.env.assert_no_processes(PATIENCE);
    }
}

/// How long something takes, and what it gives.
fn timed<T>(run: impl FnOnce() -> T) -> (Duration, T) {
    let begun = Instant::now();
    let given = run();
    (begun.elapsed(), given)
}

/// The program under test.
pub(crate) fn program() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_alpine-under-test"))
}

/// A program that runs; it is killed when it is dropped.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
    streams: [Stream; 2],
}

/// What a program has said on one of its streams.
#[derive(Debug)]
struct Stream {
    said: Arc<Mutex<Vec<u8>>>,
    reader: Option<JoinHandle<()>>,
}

impl Running {
    /// Starts it. Both of its streams are read from the beginning.
    pub(crate) fn start(mut command: Command) -> Self {
        Self::of(&mut command)
    }

    /// The same, of a command that may be run again.
    pub(crate) fn of(command: &mut Command) -> Self {
        command.stdin(Stdio::null());
        Self::spawn(command)
    }

    /// Starts it with the standard input that it was given.
    pub(crate) fn start_fed(mut command: Command) -> Self {
        Self::spawn(&mut command)
    }

    fn spawn(command: &mut Command) -> Self {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program");
        let stdout = read(child.stdout.take().expect("a pipe"));
        let stderr = read(child.stderr.take().expect("a pipe"));
        Self {
            child,
            streams: [stdout, stderr],
        }
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let pid = i32::try_from(self.child.id()).expect("a process id");
        let pid = rustix::process::Pid::from_raw(pid).expect("a process id");
        rustix::process::kill_process(pid, signal).expect("a process that runs");
    }

    /// Kills it, and waits until it has gone.
    #[track_caller]
    pub(crate) fn kill(self) -> Output {
        self.signal(rustix::process::Signal::KILL);
        self.wait()
    }

    /// The same, of one that may have ended by itself.
    pub(crate) fn kill_if_it_runs(mut self) {
        if !self.has_ended() {
            self.signal(rustix::process::Signal::KILL);
        }
        let _output = self.wait();
    }

    /// Whether it has ended.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("a child's status").is_some()
    }

    /// Waits until it has said this on standard error.
    #[track_caller]
    pub(crate) fn wait_for(&self, text: &str) {
        wait_until(text, || self.streams[1].text().contains(text));
    }

    /// Waits until it has ended.
    #[track_caller]
    pub(crate) fn wait(mut self) -> Output {
        let until = Instant::now() + PATIENCE;
        while !self.has_ended() {
            assert!(Instant::now() < until, "the program has not ended");
            thread::sleep(Duration::from_millis(2));
        }
        let [stdout, stderr] = self.streams.each_mut().map(Stream::whole);
        Output {
            stdout,
            stderr,
            status: self.child.wait().expect("a child's status"),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // One that has ended can't be killed any more.
        let _killed = self.child.kill();
        let _reaped = self.child.wait();
    }
}

impl Stream {
    fn text(&self) -> String {
        let said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&said).into_owned()
    }

    /// All of it, once its end has come.
    fn whole(&mut self) -> String {
        if let Some(reader) = self.reader.take() {
            reader.join().expect("a stream's end");
        }
        self.text()
    }
}

fn read(mut pipe: impl Read + Send + 'static) -> Stream {
    let said = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&said);
    let reader = thread::spawn(move || {
        let mut piece = [0; 4096];
        // What came before an error is shown all the same.
        while let Ok(length @ 1..) = pipe.read(&mut piece) {
            let mut said = heard.lock().unwrap_or_else(PoisonError::into_inner);
            said.extend_from_slice(&piece[..length]);
        }
    });
    Stream {
        said,
        reader: Some(reader),
    }
}

/// The arguments with `--json`.
pub(crate) fn with_json<'a>(arguments: &[&'a str]) -> Vec<&'a str> {
    [&["--json"], arguments].concat()
}

/// The one document of a run with `--json`: one line on standard output and nothing else there, no progress on standard
/// error, and an exit status that is the document's.
#[track_caller]
pub(crate) fn document(output: &Output) -> Value {
    let document = alpine_testkit::json(output);
    assert_eq!(output.stdout.lines().count(), 1, "one line: {output:#?}");
    assert!(output.stdout.ends_with('\n'), "a whole line: {output:#?}");
    assert_eq!(document["schema_version"], "v1", "{document:#}");
    let told = |line: &str| line.starts_with("warning: ");
    assert!(
        output.stderr.lines().all(told),
        "only warnings on standard error: {output:#?}"
    );
    if output.code() == Some(0) {
        assert_eq!(document.get("error_code"), None, "{document:#}");
    } else {
        assert_is_failure(&document, output);
    }
    document
}

#[track_caller]
fn assert_is_failure(document: &Value, output: &Output) {
    let fields = document.as_object().expect("an object");
    assert_eq!(fields.len(), FAILURE.len(), "{document:#}");
    let code = text(document, "error_code");
    let row = alpine_lifecycle::ErrorCode::TABLE
        .iter()
        .find(|row| row.1 == code);
    assert!(row.is_some(), "a code of the contract: {document:#}");
    for field in ["cause", "next_step"] {
        assert!(!text(document, field).trim().is_empty(), "{document:#}");
    }
    assert!(
        alpine_testkit::is_command(&text(document, "next_step")),
        "a command to paste: {document:#}"
    );
    assert!(document["retryable"].is_boolean(), "{document:#}");
    let operation = &document["operation_id"];
    let is_operation = |id: &str| id.starts_with("op_") && id.len() == 35;
    assert!(
        operation.is_null() || operation.as_str().is_some_and(is_operation),
        "{document:#}"
    );
    assert_eq!(
        document["exit_code"].as_i64(),
        output.code().map(i64::from),
        "{output:#?}"
    );
}

/// The document of a run that has to fail with this code and exit status.
#[track_caller]
pub(crate) fn failed(output: &Output, code: &str, exit: i32) -> Value {
    let document = document(output);
    assert_eq!(
        (document["error_code"].as_str(), output.code()),
        (Some(code), Some(exit)),
        "{document:#}"
    );
    document
}

/// A text of a document.
#[track_caller]
pub(crate) fn text(document: &Value, field: &str) -> String {
    document[field]
        .as_str()
        .unwrap_or_else(|| panic!("`{field}` is no text: {document:#}"))
        .to_owned()
}

/// Waits until something is so.
#[track_caller]
pub(crate) fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < until, "waited in vain for: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// A document with one field a line, so that a snapshot of it can be read.
fn in_lines(stdout: &str) -> String {
    if stdout.starts_with('{') {
        stdout.replace(",\"", ",\n  \"")
    } else {
        stdout.to_owned()
    }
}

/// Digests, objects and sizes depend on the path of the test's own directory.
fn without_digests(text: &str) -> String {
    let mut clean = String::new();
    let mut word = String::new();
    for c in text.chars().chain(['\n']) {
        if c.is_ascii_alphanumeric() || c == '_' {
            word.push(c);
            continue;
        }
        clean.push_str(match word.as_str() {
            digest if digest.len() == 64 && is_hex(digest) => "$DIGEST",
            object if object.strip_prefix("obj_").is_some_and(is_hex) => "$OBJECT",
            plain => plain,
        });
        word.clear();
        clean.push(c);
    }
    clean.pop();
    without_sizes(&clean)
}

fn without_sizes(text: &str) -> String {
    let mut clean = text.to_owned();
    for before in ["\"size\":", "\nworkspace   "] {
        let mut parts = clean.split(before);
        let mut rest = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            let after = part.trim_start_matches(|c: char| c.is_ascii_digit());
            let size = if after.len() < part.len() {
                "$SIZE"
            } else {
                ""
            };
            rest.extend([before, size, after]);
        }
        clean = rest;
    }
    clean
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_hexdigit())
}
