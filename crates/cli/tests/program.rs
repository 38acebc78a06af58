//! The shipped program, as far as no session is needed: usage, failures, configuration, homes.

#![expect(clippy::unwrap_used, reason = "a test that can't go on has failed")]

use alpine_ledger::{Ledger, Options};
use expect_test::{Expect, expect};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use tempfile::TempDir;

/// A home of its own, and nothing of the caller's environment.
struct World {
    directory: TempDir,
}

impl World {
    fn new() -> Self {
        Self {
            directory: tempfile::tempdir().unwrap(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A home with that configuration.
    fn configured(text: &str) -> Self {
        let world = Self::new();
        fs::create_dir(world.path("home")).unwrap();
        fs::set_permissions(world.path("home"), fs::Permissions::from_mode(0o700)).unwrap();
        fs::write(world.path("home/config.toml"), text).unwrap();
        fs::set_permissions(
            world.path("home/config.toml"),
            fs::Permissions::from_mode(0o600),
        )
        .unwrap();
        world
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let program = Path::new(env!("CARGO_BIN_EXE_alpine"));
        let folder = program.parent().expect("a folder");
        let mut command = Command::new(program);
        command
            .args(arguments)
            .env_clear()
            // The program is on the path, as it is once it is installed.
            .env("PATH", format!("{}:/usr/bin:/bin", folder.display()))
            .env("HOME", self.directory.path())
            .env("ALPINE_HOME", self.path("home"))
            .env("ALPINE_PRINCIPAL_ID", "tester")
            .current_dir(self.directory.path())
            .stdin(Stdio::null());
        command
    }

    /// Both streams and the status, with this world's directory called `$DIR`.
    fn shown(&self, output: &Output) -> String {
        let text = format!(
            "status {}\n--- stdout\n{}--- stderr\n{}",
            output
                .status
                .code()
                .map_or("signal".to_owned(), |code| code.to_string()),
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        text.replace(self.directory.path().to_str().unwrap(), "$DIR")
    }

    #[track_caller]
    fn check(&self, arguments: &[&str], expected: Expect) {
        let output = self.command(arguments).output().unwrap();
        expected.assert_eq(&self.shown(&output));
    }
}

/// The one document on standard output.
#[track_caller]
fn document(output: &Output) -> serde_json::Value {
    let text = std::str::from_utf8(&output.stdout).unwrap();
    assert_eq!(text.lines().count(), 1, "exactly one document: {text:?}");
    let document: serde_json::Value = serde_json::from_str(text).unwrap();
    assert_eq!(document["schema_version"], "v1");
    document
}

/// The code, the exit status, and the next step of a failure; the document and the process agree.
#[track_caller]
fn failure(output: &Output) -> (String, i64, String) {
    let document = document(output);
    let keys: Vec<_> = document
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    assert_eq!(
        keys,
        [
            "cause",
            "error_code",
            "exit_code",
            "next_step",
            "operation_id",
            "retryable",
            "schema_version"
        ]
    );
    let status = output.status.code().map(i64::from);
    assert_eq!(document["exit_code"].as_i64(), status);
    let text = |key: &str| document[key].as_str().unwrap().to_owned();
    (text("error_code"), status.unwrap(), text("next_step"))
}

#[test]
fn version_and_help() {
    let world = World::new();
    let version = env!("CARGO_PKG_VERSION");
    for flag in ["--version", "-V"] {
        let output = world.command(&[flag]).output().unwrap();
        assert_eq!(
            String::from_utf8(output.stdout).unwrap(),
            format!("alpine {version}\n")
        );
    }
    let output = world.command(&["--version", "--json"]).output().unwrap();
    assert_eq!(document(&output)["version"], version);
    for arguments in [&["--help"][..], &[], &["up", "--help"], &["exec", "-h"]] {
        let output = world.command(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{arguments:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(
            text.contains("Usage: alpine") && text.contains("Examples:"),
            "{text}"
        );
    }
    let help = |command: &str| {
        let output = world.command(&[command, "--help"]).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let up = help("up");
    assert!(
        up.contains("Usage: alpine up [OPTIONS] --branch <BRANCH> <GIT-REPO>"),
        "{up}"
    );
    let exec = help("exec");
    assert!(exec.contains("exec none"), "{exec}");
    let output = world.command(&["up", "--help", "--json"]).output().unwrap();
    assert!(
        document(&output)["text"]
            .as_str()
            .unwrap()
            .contains("Usage: alpine up")
    );
    for arguments in [
        &["help", "--json"][..],
        &["--json", "help", "up"],
        &["help", "up", "--json"],
    ] {
        let output = world.command(arguments).output().unwrap();
        let text = document(&output)["text"].to_string();
        assert!(text.contains("Usage: alpine"), "{arguments:?}: {text}");
    }
    assert!(!world.path("home").exists());
}

#[test]
fn malformed_calls() {
    let world = World::new();
    world.check(
        &["frob"],
        expect![[r#"
        status 1
        --- stdout
        --- stderr
        error: unrecognized subcommand 'frob' (ERR_USAGE)
        hint: alpine --help
    "#]],
    );
    world.check(&["list", "--frob", "--json"], expect![[r#"
        status 1
        --- stdout
        {"schema_version":"v1","error_code":"ERR_USAGE","cause":"unexpected argument '--frob' found","next_step":"alpine list --help","retryable":false,"operation_id":null,"exit_code":1}
        --- stderr
    "#]]);
    world.check(
        &["up", "."],
        expect![[r#"
        status 1
        --- stdout
        --- stderr
        error: `up` needs `--branch` (ERR_BRANCH_REQUIRED)
        hint: alpine up . --branch main
    "#]],
    );
    world.check(&["list", "--state", "gone"], expect![[r#"
        status 1
        --- stdout
        --- stderr
        error: there is no state `gone`; states: requested, provisioning, repo_syncing, installing, ready, failing, stopping, persisting, stopped_unpersisted, persist_failed, cleanup_failed, close_failed, stopped, failed (ERR_USAGE)
        hint: alpine list --help
    "#]]);
    for (arguments, code) in [
        (&["--json"][..], "ERR_USAGE"),
        (&["--json", "up"], "ERR_USAGE"),
        (&["up", "--json", "--branch", "main"], "ERR_USAGE"),
        (
            &["up", "--json", ".", "--branch", ""],
            "ERR_BRANCH_REQUIRED",
        ),
        (&["down", "--json"], "ERR_USAGE"),
        (&["down", "x", "--timeout", "soon", "--json"], "ERR_USAGE"),
        (&["list", "--json", "--limit", "0"], "ERR_USAGE"),
        (&["logs", "x", "--step", "y", "--json"], "ERR_USAGE"),
        (&["completions", "--json", "tcsh"], "ERR_USAGE"),
        (&["config", "--json", "x"], "ERR_USAGE"),
    ] {
        let output = world.command(arguments).output().unwrap();
        let (found, status, next) = failure(&output);
        assert_eq!((found.as_str(), status), (code, 1), "{arguments:?}");
        assert!(next.starts_with("alpine "), "{arguments:?}: {next}");
    }
    let output = world
        .command(&["list", "--json"])
        .arg(OsStr::from_bytes(b"a\xff"))
        .output()
        .unwrap();
    assert_eq!(failure(&output).0, "ERR_USAGE");
    assert!(!world.path("home").exists());
}

#[test]
fn replaced_commands() {
    let world = World::new();
    world.check(
        &["create", "https://h/my repo", "--branch", "main"],
        expect![[r#"
            status 1
            --- stdout
            --- stderr
            error: `alpine create` is `alpine up` now (ERR_COMMAND_REPLACED)
            hint: alpine up 'https://h/my repo' --branch main
        "#]],
    );
    world.check(&["--json", "teardown", "ses_1234"], expect![[r#"
        status 1
        --- stdout
        {"schema_version":"v1","error_code":"ERR_COMMAND_REPLACED","cause":"`alpine teardown` is `alpine down` now","next_step":"alpine down --json ses_1234","retryable":false,"operation_id":null,"exit_code":1}
        --- stderr
    "#]]);
}

#[test]
fn failures_of_exec_have_a_status_of_their_own() {
    let world = World::new();
    world.check(
        &["exec", "nobody", "--", "true"],
        expect![[r#"
        status 125
        --- stdout
        --- stderr
        error: there is no session `nobody` (ERR_SESSION_NOT_FOUND)
        hint: alpine list --all
    "#]],
    );
    world.check(
        &["exec", "--json", "nobody", "--", "ls", "--json"],
        expect![[r#"
            status 125
            --- stdout
            --- stderr
            {"schema_version":"v1","error_code":"ERR_SESSION_NOT_FOUND","cause":"there is no session `nobody`","next_step":"alpine list --all","retryable":false,"operation_id":null,"exit_code":125}
        "#]],
    );
    world.check(
        &["exec"],
        expect![[r#"
        status 125
        --- stdout
        --- stderr
        error: the following required arguments were not provided: <SESSION> <ARGV>... (ERR_USAGE)
        hint: alpine exec --help
    "#]],
    );
}

#[test]
fn input_is_checked_before_anything_is_made() {
    let world = World::new();
    fs::create_dir_all(world.path("repo/.git")).unwrap();
    for (arguments, code) in [
        (&["nowhere", "--branch", "main"][..], "ERR_INVALID_REPO_URL"),
        (&[".", "--branch", "main"], "ERR_INVALID_REPO_URL"),
        (
            &["ext::sh -c id", "--branch", "main"],
            "ERR_INVALID_REPO_URL",
        ),
        (
            &["http://example.org/x", "--branch", "main"],
            "ERR_INVALID_REPO_URL",
        ),
        (
            &["https://u:hunter2hunter2@h/x", "--branch", "main"],
            "ERR_INVALID_REPO_URL",
        ),
        (&["repo"], "ERR_BRANCH_REQUIRED"),
        (&["repo", "--branch", "-x"], "ERR_INVALID_BRANCH"),
        (&["repo", "--branch", "a..b"], "ERR_INVALID_BRANCH"),
        (&["repo", "--branch", "main", "--name", "No"], "ERR_USAGE"),
        (
            &["repo", "--branch", "main", "--client-request-id", ""],
            "ERR_USAGE",
        ),
        (
            &["repo", "--branch", "main", "--env", "1=hunter2hunter2"],
            "ERR_USAGE",
        ),
        (
            &["repo", "--branch", "main", "--env", "NOT_SET"],
            "ERR_USAGE",
        ),
        (
            &["repo", "--branch", "main", "--timeout", "0s"],
            "ERR_USAGE",
        ),
        (
            &["repo", "--branch", "main", "--agent", "emacs"],
            "ERR_USAGE",
        ),
        (
            &["repo", "--branch", "main", "--agent", "command"],
            "ERR_CONFIG_INVALID",
        ),
        (
            &["repo", "--branch", "main", "--provider", "moon"],
            "ERR_PROVIDER_NOT_FOUND",
        ),
        (
            &["https://github.com/o/r", "--branch", "main"],
            "ERR_REPO_AUTH_MISSING",
        ),
        (
            &["git@github.com:o/r", "--branch", "main"],
            "ERR_REPO_AUTH_MISSING",
        ),
    ] {
        let arguments = [&["up", "--json"], arguments].concat();
        let output = world.command(&arguments).output().unwrap();
        let (found, status, next) = failure(&output);
        assert_eq!((found.as_str(), status), (code, 1), "{arguments:?}");
        assert!(!next.is_empty(), "{arguments:?}");
        assert!(!world.shown(&output).contains("hunter2"), "{arguments:?}");
        assert!(document(&output)["operation_id"].is_null());
        assert!(!world.path("home").exists(), "{arguments:?}");
    }
}

#[test]
fn a_principal_is_needed_and_never_guessed() {
    let world = World::new();
    for arguments in [
        &["list", "--json"][..],
        &["status", "x", "--json"],
        &["down", "x", "--json"],
        &["up", "x", "--branch", "b", "--json"],
    ] {
        let output = world
            .command(arguments)
            .env("ALPINE_PRINCIPAL_ID", " ")
            .output()
            .unwrap();
        let (code, status, next) = failure(&output);
        assert_eq!((code.as_str(), status), ("ERR_CALLER_IDENTITY_REQUIRED", 1));
        assert_eq!(next, "export ALPINE_PRINCIPAL_ID=\"$(id -un)\"");
    }
    let configured = World::configured("principal = 'me'\n");
    let output = configured
        .command(&["list", "--json"])
        .env_remove("ALPINE_PRINCIPAL_ID")
        .output()
        .unwrap();
    assert_eq!(document(&output)["sessions"], serde_json::json!([]));
}

#[test]
fn an_empty_list_makes_nothing() {
    let world = World::new();
    world.check(
        &["list"],
        expect![[r#"
        status 0
        --- stdout
        --- stderr
        no sessions; start one with: alpine up <git-repo> --branch <branch>
    "#]],
    );
    world.check(
        &["list", "--json"],
        expect![[r#"
        status 0
        --- stdout
        {"schema_version":"v1","sessions":[],"truncated":false}
        --- stderr
    "#]],
    );
    let twice = world
        .command(&["--json", "list", "--json"])
        .output()
        .unwrap();
    assert_eq!(document(&twice)["sessions"], serde_json::json!([]));
    world.check(&["list", "--all-owners", "--json"], expect![[r#"
        status 1
        --- stdout
        {"schema_version":"v1","error_code":"ERR_SESSION_FORBIDDEN","cause":"`--all-owners` is for admins","next_step":"alpine list","retryable":false,"operation_id":null,"exit_code":1}
        --- stderr
    "#]]);
    world.check(
        &["status", "nobody"],
        expect![[r#"
        status 1
        --- stdout
        --- stderr
        error: there is no session `nobody` (ERR_SESSION_NOT_FOUND)
        hint: alpine list --all
    "#]],
    );
    world.check(&["down", "nobody", "--json"], expect![[r#"
        status 1
        --- stdout
        {"schema_version":"v1","error_code":"ERR_SESSION_NOT_FOUND","cause":"there is no session `nobody`","next_step":"alpine list --all","retryable":false,"operation_id":null,"exit_code":1}
        --- stderr
    "#]]);
    assert!(!world.path("home").exists());
}

#[test]
fn malformed_variables() {
    let world = World::new();
    for (name, value) in [
        ("ALPINE_PRINCIPAL_ID", &b"a\xff"[..]),
        ("ALPINE_PRINCIPAL_ID", b"a\x1b[31m"),
        ("ALPINE_HOME", b"/tmp/\xff"),
        ("ALPINE_LEDGER_PATH", b"/tmp/\xff"),
        ("ALPINE_ADMIN", b"perhaps"),
        ("ALPINE_LOG", b"a=b=c=d"),
        ("ALPINE_LOG_FORMAT", b"xml"),
        ("GITHUB_TOKEN", b"two words"),
        ("ALPINE_ROLES", b"\xff"),
    ] {
        let output = world
            .command(&["list", "--json"])
            .env(name, OsStr::from_bytes(value))
            .output()
            .unwrap();
        let (code, status, next) = failure(&output);
        assert_eq!((code.as_str(), status), ("ERR_CONFIG_INVALID", 1), "{name}");
        assert_eq!(next, format!("unset {name}"));
        assert!(
            document(&output)["cause"].as_str().unwrap().contains(name),
            "{name}"
        );
    }
    let output = world
        .command(&["list", "--json"])
        .env_remove("ALPINE_HOME")
        .env_remove("HOME")
        .output()
        .unwrap();
    assert_eq!(failure(&output).0, "ERR_CONFIG_INVALID");
}

#[test]
fn malformed_configuration() {
    World::configured("[limits]\nup = 5\n").check(&["list"], expect![[r#"
        status 1
        --- stdout
        --- stderr
        error: `$DIR/home/config.toml`, line 2: `limits.up` has to be a duration such as "90s" or "5m", not of type integer (ERR_CONFIG_INVALID)
        hint: ${EDITOR:-vi} +2 $DIR/home/config.toml
    "#]]);
    World::configured("later = true\n").check(&["list", "--json"], expect![[r#"
        status 1
        --- stdout
        {"schema_version":"v1","error_code":"ERR_CONFIG_INVALID","cause":"`$DIR/home/config.toml`, line 1: `later` is not a key of this version; known here: `principal`, `ledger`, `limits`, `git`, `agents`, `agent`, `env`, `provider`, `providers`, `browser`","next_step":"${EDITOR:-vi} +1 $DIR/home/config.toml","retryable":false,"operation_id":null,"exit_code":1}
        --- stderr
    "#]]);
    let writable = World::configured("");
    fs::set_permissions(
        writable.path("home/config.toml"),
        fs::Permissions::from_mode(0o666),
    )
    .unwrap();
    writable.check(
        &["config"],
        expect![[r#"
        status 1
        --- stdout
        --- stderr
        error: `$DIR/home/config.toml` may be written by others (ERR_CONFIG_INVALID)
        hint: chmod go-w $DIR/home/config.toml
    "#]],
    );
}

#[test]
fn a_home_that_others_may_write_is_refused() {
    let world = World::configured("");
    fs::set_permissions(world.path("home"), fs::Permissions::from_mode(0o777)).unwrap();
    world.check(&["list"], expect![[r#"
        status 2
        --- stdout
        --- stderr
        error: `ALPINE_HOME` (`$DIR/home`) can't be used: others may write it (ERR_LEDGER_UNAVAILABLE)
          the same command may succeed when it is run again
        hint: chmod go-w $DIR/home
    "#]]);
    let file = World::new();
    fs::write(file.path("home"), "").unwrap();
    let output = file.command(&["list", "--json"]).output().unwrap();
    assert_eq!(
        (failure(&output).0.as_str(), failure(&output).1),
        ("ERR_LEDGER_UNAVAILABLE", 2)
    );
}

#[test]
fn a_ledger_that_is_none_is_never_overwritten() {
    for (content, code) in [
        ("{\"sessions\": {}}", "ERR_LEDGER_INCOMPATIBLE"),
        ("text", "ERR_LEDGER_INCOMPATIBLE"),
        ("", "ERR_LEDGER_CORRUPT"),
    ] {
        let world = World::configured("");
        fs::write(world.path("home/ledger.redb"), content).unwrap();
        fs::set_permissions(
            world.path("home/ledger.redb"),
            fs::Permissions::from_mode(0o600),
        )
        .unwrap();
        fs::create_dir_all(world.path("repo/.git")).unwrap();
        for arguments in [
            &["list", "--json"][..],
            &["up", "repo", "--branch", "main", "--json"],
        ] {
            let output = world.command(arguments).output().unwrap();
            assert_eq!(
                (failure(&output).0.as_str(), failure(&output).1),
                (code, 2),
                "{content:?}"
            );
        }
        assert_eq!(
            fs::read_to_string(world.path("home/ledger.redb")).unwrap(),
            content
        );
    }
}

#[test]
fn configuration_is_shown_with_its_origins_and_without_secrets() {
    let world = World::configured("[limits]\nup = '20m'\n[agents.mine]\nargv = ['serve-me']\n");
    let output = world
        .command(&["config", "--json"])
        .env("GITHUB_TOKEN", "ghp_hunter2hunter2")
        .output()
        .unwrap();
    let settings = document(&output)["settings"].clone();
    let find = |key: &str| {
        settings
            .as_array()
            .unwrap()
            .iter()
            .find(|setting| setting["key"] == key)
            .unwrap()
            .clone()
    };
    assert_eq!(find("limits.up")["value"], "20m");
    assert_eq!(find("limits.up")["origin"], "file");
    assert_eq!(find("limits.down")["origin"], "default");
    assert_eq!(find("principal")["source"], "ALPINE_PRINCIPAL_ID");
    assert_eq!(find("agents.mine")["value"], "serve-me");
    assert_eq!(find("GITHUB_TOKEN")["value"], "set");
    assert_eq!(find("GH_TOKEN")["value"], "not set");
    assert!(!world.shown(&output).contains("hunter2"));
    let output = world.command(&["config"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        text.starts_with("KEY") && text.contains("limits.up"),
        "{text}"
    );
}

#[test]
fn completions_for_every_shell() {
    let world = World::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let output = world.command(&["completions", shell]).output().unwrap();
        let script = String::from_utf8(output.stdout).unwrap();
        for flag in ["retry-persist", "lock-timeout"] {
            assert!(script.contains(flag), "{shell}: {flag}");
        }
    }
}

#[test]
fn the_flag_says_how_long_the_ledger_is_waited_for_over_the_configuration() {
    let world = World::configured("[ledger]\nlock_timeout = '50s'\n");
    for (arguments, value, origin, source) in [
        (
            &["config", "--json", "--lock-timeout", "2s"][..],
            "2s",
            "flag",
            "--lock-timeout",
        ),
        (
            &["--lock-timeout=70", "--json", "config"],
            "1m 10s",
            "flag",
            "--lock-timeout",
        ),
        (&["config", "--json"], "50s", "file", "home/config.toml"),
    ] {
        let shown = document(&world.command(arguments).output().unwrap());
        let mut settings = shown["settings"].as_array().unwrap().iter();
        let found = settings.find(|setting| setting["key"] == "ledger.lock_timeout");
        let found = found.unwrap();
        assert_eq!(
            (&found["value"], &found["origin"]),
            (&value.into(), &origin.into())
        );
        assert!(
            found["source"].as_str().unwrap().ends_with(source),
            "{found}"
        );
    }
    let ledger = Ledger::open(&world.path("home/ledger.redb"), Options::new()).unwrap();
    let compact = [
        "--json",
        "--lock-timeout",
        "70ms",
        "ledger",
        "compact",
        "--force",
    ];
    let mut command = world.command(&compact);
    let busy = ledger.write(|_| Ok(command.output().unwrap())).unwrap();
    assert_eq!(failure(&busy).0, "ERR_LEDGER_UNAVAILABLE");
    let cause = document(&busy)["cause"].to_string();
    assert!(cause.contains("was busy for 70 ms"), "{cause}");
}

#[test]
fn a_reader_that_goes_away_is_no_panic() {
    let world = World::new();
    let mut child = world
        .command(&["completions", "bash"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn secrets_of_the_environment_never_come_back() {
    let world = World::new();
    let secret = "hunter2hunter2";
    for arguments in [
        &["status", secret][..],
        &["up", &format!("/nowhere/{secret}"), "--branch", "main"],
        &["list", "--state", secret],
        &[secret],
    ] {
        for json in [&[][..], &["--json"]] {
            let arguments = [arguments, json].concat();
            let output = world
                .command(&arguments)
                .env("MY_SECRET_THING", secret)
                .env("ALPINE_LOG", "trace")
                .output()
                .unwrap();
            assert_ne!(output.status.code(), Some(0));
            assert!(
                !world.shown(&output).contains(secret),
                "{}",
                world.shown(&output)
            );
        }
    }
}

#[test]
fn colours_are_for_terminals_only() {
    let world = World::new();
    let output = world.command(&["status", "\u{1b}[31mx"]).output().unwrap();
    assert!(!output.stderr.contains(&0x1b) && !output.stdout.contains(&0x1b));
}

#[test]
fn off_the_path_the_commands_it_prints_name_its_file() {
    let world = World::new();
    let mut command = world.command(&["up"]);
    let said = command
        .env("PATH", "/usr/bin:/bin")
        .output()
        .expect("it runs");
    let stderr = String::from_utf8_lossy(&said.stderr);
    let hint = format!("hint: {} up --help", env!("CARGO_BIN_EXE_alpine"));
    assert!(stderr.contains(&hint), "{stderr}");
    // A document is read by other processes, too, and may be recorded.
    let mut command = world.command(&["up", "--json"]);
    let said = command.env("PATH", "/usr/bin:/bin").output().unwrap();
    assert_eq!(failure(&said).2, "alpine up --help");
}

#[test]
fn a_result_that_can_not_be_written_is_no_success() {
    let world = World::new();
    for arguments in [&["list", "--json"][..], &["config"], &["--version"]] {
        let full = fs::OpenOptions::new()
            .write(true)
            .open("/dev/full")
            .unwrap();
        let said = world.command(arguments).stdout(full).output().unwrap();
        let stderr = String::from_utf8_lossy(&said.stderr);
        assert_eq!(said.status.code(), Some(2), "{arguments:?}: {stderr}");
        assert!(
            stderr.contains("standard output can't be written"),
            "{stderr}"
        );
    }
}

#[test]
fn what_is_recorded_for_good_holds_no_secret() {
    let world = World::new();
    let secret = "hunter2hunter2";
    let repo = world.path(secret);
    fs::create_dir_all(repo.join(".git")).unwrap();
    fs::create_dir_all(world.path("plain/.git")).unwrap();
    let repo = repo.to_str().unwrap();
    let cases: [(&[&str], &str); 4] = [
        (&["up", repo, "--branch", "main"], "ERR_INVALID_REPO_URL"),
        (&["up", "plain", "--branch", secret], "ERR_INVALID_BRANCH"),
        (
            &["up", "plain", "--branch", "main", "--name", secret],
            "ERR_USAGE",
        ),
        (
            &[
                "up",
                "plain",
                "--branch",
                "main",
                "--client-request-id",
                secret,
            ],
            "ERR_USAGE",
        ),
    ];
    for (arguments, code) in cases {
        let said = world
            .command(arguments)
            .env("GITHUB_TOKEN", secret)
            .arg("--json")
            .output()
            .unwrap();
        let stdout = String::from_utf8_lossy(&said.stdout);
        assert!(
            stdout.contains(code) && !stdout.contains(secret),
            "{arguments:?}: {stdout}"
        );
        assert!(!world.path("home").exists(), "nothing was recorded");
    }
}
