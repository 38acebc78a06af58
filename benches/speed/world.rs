//! A home for the program that is measured.

use alpine_testkit::TestEnv;
use serde_json::Value;
use std::path::Path;
use std::process::Command;

/// The program that is measured: the shipped one, and the fake provider.
pub(crate) const ALPINE: &str = env!("CARGO_BIN_EXE_alpine-measured");

/// The program with these arguments, on the machine's own clock.
pub(crate) fn alpine(env: &TestEnv, arguments: &[&str]) -> Command {
    let mut command = env.command(Path::new(ALPINE));
    command.args(arguments).env_remove("ALPINE_TEST_CLOCK_MS");
    command
}

/// Another program in the same environment.
pub(crate) fn program(env: &TestEnv, name: &str, arguments: &[&str]) -> Command {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|folder| folder.join(name));
    let found = found.into_iter().find(|file| file.is_file());
    let mut command = env.command(&found.unwrap_or_else(|| panic!("`{name}` is not on PATH")));
    command
        .args(arguments)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null");
    command
}

/// The one document of a run with `--json`.
pub(crate) fn document(text: &str) -> Value {
    serde_json::from_str(text).expect("one JSON document")
}

/// A text of a document.
pub(crate) fn text<'a>(document: &'a Value, field: &str) -> &'a str {
    document[field].as_str().expect("a text")
}

/// A path as an argument.
pub(crate) fn argument(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}
