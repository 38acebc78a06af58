//! The program in a home of its own, on the machine's own clock, since the local provider's processes live by that.

use crate::support::{document, failed, program, with_json};
use alpine_testkit::{Output, TestEnv, TestRepo};
use serde_json::Value;
use std::cell::RefCell;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// How long the program may run.
const LIMIT: Duration = Duration::from_secs(120);

/// A home, the variables that are added to its own, and all that the program has said in it.
pub(crate) struct Program {
    pub(crate) env: TestEnv,
    added: Vec<(String, String)>,
    said: RefCell<Vec<String>>,
}

impl Program {
    pub(crate) fn new() -> Self {
        Self {
            env: TestEnv::new(),
            added: Vec::new(),
            said: RefCell::default(),
        }
    }

    pub(crate) fn with(mut self, name: &str, value: &str) -> Self {
        self.added.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Writes `config.toml`.
    pub(crate) fn configure(&self, text: &str) {
        let file = self.env.alpine_home().join("config.toml");
        fs::write(&file, text).expect("a configuration");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("its mode");
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.env.command(program());
        command
            .args(arguments)
            .env_remove("ALPINE_TEST_CLOCK_MS")
            .envs(self.added.iter().cloned());
        command
    }

    #[track_caller]
    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        self.run_it(&mut self.command(arguments))
    }

    #[track_caller]
    pub(crate) fn run_it(&self, command: &mut Command) -> Output {
        let output = self.env.run_for(command, LIMIT);
        assert!(!output.stderr.contains("panicked"), "{output:#?}");
        let mut said = self.said.borrow_mut();
        said.extend([output.stdout.clone(), output.stderr.clone()]);
        output
    }

    /// Runs a command that has to succeed, with `--json`; gives its one document.
    #[track_caller]
    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        let output = self.run(&with_json(arguments));
        assert_eq!(output.code(), Some(0), "{arguments:?}: {output:#?}");
        document(&output)
    }

    /// Runs a command that has to fail like this, with `--json`; gives its one document.
    #[track_caller]
    pub(crate) fn fails(&self, arguments: &[&str], code: &str, exit: i32) -> Value {
        failed(&self.run(&with_json(arguments)), code, exit)
    }

    /// Everything that the program has said so far.
    pub(crate) fn said(&self) -> Vec<String> {
        self.said.borrow().clone()
    }

    /// Brings a session up with the local provider.
    #[track_caller]
    pub(crate) fn up(&self, repo: &TestRepo, more: &[&str]) -> Value {
        let path = repo.path.to_str().expect("a path of UTF-8");
        let fixed = ["up", path, "--branch", "main", "--no-browser"];
        self.json(&[&fixed[..], more].concat())
    }

    /// Brings a session down: it has to end `stopped`, and verified.
    #[track_caller]
    pub(crate) fn down(&self, session: &str) -> Value {
        let down = self.json(&["down", session]);
        assert_eq!(down["state"], "stopped", "{down:#}");
        assert_eq!(down["persistence_verified"], true, "{down:#}");
        down
    }

    pub(crate) fn sandboxes(&self) -> PathBuf {
        self.env.alpine_home().join("sandboxes")
    }

    /// The directories of sandboxes that are there.
    pub(crate) fn sandbox_dirs(&self) -> Vec<String> {
        let entries = fs::read_dir(self.sandboxes()).into_iter().flatten();
        let names = entries.map(|entry| {
            let name = entry.expect("an entry").file_name();
            name.to_string_lossy().into_owned()
        });
        names.filter(|name| !name.starts_with('.')).collect()
    }

    /// Neither a process nor a sandbox is left.
    #[track_caller]
    pub(crate) fn assert_nothing_left(&self) {
        self.env.assert_no_processes(Duration::from_secs(5));
        assert_eq!(self.sandbox_dirs(), [""; 0]);
        for place in [".removing", ".incoming"] {
            let entries = fs::read_dir(self.sandboxes().join(place));
            assert_eq!(entries.into_iter().flatten().count(), 0, "{place}");
        }
    }

    /// A document without what differs from run to run: the home's path, times, ports, durations.
    pub(crate) fn plain(&self, document: &Value) -> String {
        let root = self.env.root().to_string_lossy().into_owned();
        format!("{:#}", plain(document, &root))
    }
}

fn plain(value: &Value, root: &str) -> Value {
    match value {
        Value::String(text) if is_time(text) => "[time]".into(),
        Value::String(text) => without_port(&text.replace(root, "[root]")).into(),
        Value::Array(items) => items.iter().map(|item| plain(item, root)).collect(),
        Value::Object(fields) => {
            let field = |(key, value): (&String, &Value)| {
                let value = match value {
                    Value::Number(_) => "[number]".into(),
                    Value::String(_) if key == "digest" => "[digest]".into(),
                    Value::String(_) if key == "durable_object_id" => "[object]".into(),
                    other => plain(other, root),
                };
                (key.clone(), value)
            };
            Value::Object(fields.iter().map(field).collect())
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
    }
}

/// Whether a text is a time as the contract has it: RFC 3339, UTC, milliseconds.
pub(crate) fn is_time(text: &str) -> bool {
    let shape = "0000-00-00T00:00:00.000Z".bytes();
    text.len() == 24
        && text.bytes().zip(shape).all(|(byte, wanted)| match wanted {
            b'0' => byte.is_ascii_digit(),
            exact => byte == exact,
        })
}

fn without_port(text: &str) -> String {
    match text.split_once("http://127.0.0.1:") {
        Some((before, rest)) => {
            let rest = rest.trim_start_matches(|digit: char| digit.is_ascii_digit());
            format!("{before}http://127.0.0.1:[port]{rest}")
        }
        None => text.to_owned(),
    }
}

/// Every file below a directory, with its bytes; links are not followed.
pub(crate) fn files(below: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    let mut open = vec![below.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
            let kind = entry.file_type().expect("a file's type");
            if kind.is_dir() {
                open.push(entry.path());
            } else if kind.is_file() {
                // One that vanishes meanwhile holds nothing.
                found.push((entry.path(), fs::read(entry.path()).unwrap_or_default()));
            }
        }
    }
    found
}

pub(crate) fn holds(bytes: &[u8], part: &str) -> bool {
    // Searching text is fast even where the tests themselves are not optimised.
    String::from_utf8_lossy(bytes).contains(part)
}

/// Makes a file that can be run.
pub(crate) fn script(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().expect("a directory")).expect("a directory");
    fs::write(path, text).expect("a script");
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("its mode");
}
