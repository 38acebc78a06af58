//! Malformed input of every kind: its code, its exit status, one document, no panic, and nothing made.

use crate::support::{World, document, text, with_json};
use alpine_ledger::SessionId;
use alpine_testkit::Output;
use rustix::fs::Mode;
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::{self, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The user that owns nothing.
const NOBODY: u32 = 65534;

/// Every path below a directory, with its kind, mode and size.
fn tree(root: &Path) -> BTreeMap<PathBuf, (u32, u64)> {
    let mut found = BTreeMap::new();
    let mut open = vec![root.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(&directory).expect("a directory") {
            let path = entry.expect("an entry").path();
            let seen = fs::symlink_metadata(&path).expect("an entry");
            if seen.is_dir() {
                open.push(path.clone());
                found.insert(path, (seen.mode(), 0));
            } else {
                found.insert(path, (seen.mode(), seen.len()));
            }
        }
    }
    found
}

/// What a program said that has no reason to panic.
#[track_caller]
fn assert_calm(output: &Output) {
    let said = format!("{}{}", output.stdout, output.stderr);
    let is_calm = !said.contains("panicked") && !said.contains("ERR_INTERNAL");
    let status = output.code();
    assert!(
        is_calm && status.is_some_and(|code| code != 101),
        "{output:#?}"
    );
}

/// Fails in the same way with `--json` and without, and makes nothing.
#[track_caller]
fn refused(
    world: &World,
    arguments: &[&OsStr],
    code: &str,
    exit: i32,
    adapt: impl Fn(&mut Command),
) {
    let before = tree(world.env.root());
    let run = |json: bool| {
        let mut command = world.command(if json { &["--json"] } else { &[] });
        command.args(arguments);
        adapt(&mut command);
        let output = world.env.run(&mut command);
        assert_calm(&output);
        output
    };
    let output = run(true);
    let failure = document(&output);
    assert_eq!(
        (failure["error_code"].as_str(), output.code()),
        (Some(code), Some(exit)),
        "{arguments:?}: {failure:#}"
    );
    assert!(failure["operation_id"].is_null(), "{failure:#}");
    let people = run(false);
    assert_eq!(
        (people.stdout.as_str(), people.code()),
        ("", Some(exit)),
        "{arguments:?}: {people:#?}"
    );
    let first = people.stderr.lines().next().unwrap_or_default();
    assert!(first.starts_with("error: "), "{people:#?}");
    assert!(people.stderr.contains(&format!("({code})")), "{people:#?}");
    assert!(people.stderr.contains("\nhint: "), "{people:#?}");
    assert!(!people.stderr.contains('\u{1b}'), "{people:#?}");
    assert_eq!(
        before,
        tree(world.env.root()),
        "{arguments:?} made something"
    );
}

#[track_caller]
fn refused_text(world: &World, arguments: &[&str], code: &str) {
    let arguments: Vec<&OsStr> = arguments.iter().map(OsStr::new).collect();
    refused(world, &arguments, code, 1, |_| {});
}

#[test]
fn repositories() {
    let world = World::new();
    let long = format!("https://github.com/{}", "a".repeat(5000));
    let file = world.env.root().join("clock");
    let empty = world.env.root().join("data");
    for repo in [
        "",
        " ",
        "nowhere",
        "/nowhere/at all",
        file.to_str().expect("a path"),
        empty.to_str().expect("a path"),
        "ext::sh -c touch% canary",
        "EXT::sh -c id",
        "fd::17",
        "::",
        "transport::address",
        "ftp://h/r",
        "git://h/r",
        "rsync://h/r",
        "javascript://h/r",
        "http://example.org/r",
        "http://127.0.0.1.example.org/r",
        "http://localhost@example.org/r",
        "https://",
        "https://host",
        "https:///r",
        "https://host/",
        "https://ho st/r",
        "https://host/a b",
        "https://host:port/r",
        "https://host:99999/r",
        "https://user@host/r",
        "https://user:password@host/r",
        "https://[::1/r",
        "https://host/r?private_token=q",
        "https://host/r#q",
        "ssh://-oProxyCommand=touch/r",
        "ssh://-x@host/r",
        "ssh://user:password@host/r",
        "git@-oProxyCommand=touch:r",
        "-u@host:r",
        "git@host:-x",
        "git@host:",
        "@host:r",
        "host:r",
        "C:\\repository",
        "file://",
        "file://host/r",
        "file://relative",
        "a\u{7}b",
        "https://host/\u{1b}[31mr",
        "https://host/r\nhttps://other/r",
        "https://host/\u{2028}r",
        "repo\r",
        &long,
    ] {
        refused_text(
            &world,
            &["up", "--branch", "main", "--", repo],
            "ERR_INVALID_REPO_URL",
        );
    }
    // What could be an option is none after `--`, and is refused before it, too.
    for repo in ["--upload-pack=touch canary", "-x", "--frobnicate"] {
        refused_text(
            &world,
            &["up", "--branch", "main", "--", repo],
            "ERR_INVALID_REPO_URL",
        );
        refused_text(&world, &["up", repo, "--branch", "main"], "ERR_USAGE");
    }
    for repo in [
        "https://github.com/o/r",
        "git@github.com:o/r",
        "ssh://git@github.com/o/r",
        "http://127.0.0.1:9/r",
        "http://[::1]:9/r",
    ] {
        refused_text(
            &world,
            &["up", repo, "--branch", "main"],
            "ERR_REPO_AUTH_MISSING",
        );
    }
}

/// Whether git itself would take a branch's name.
fn git_takes(name: &str) -> bool {
    let mut git = Command::new("git");
    git.args(["check-ref-format", "--branch", name]);
    git.output().expect("git").status.success()
}

#[test]
fn branches_follow_gits_own_rules() {
    let world = World::new();
    let long = "a".repeat(200);
    let (mut taken, mut not_taken) = (0, 0);
    for name in [
        "a..b",
        "a b",
        "a~b",
        "a^b",
        "a:b",
        "a?b",
        "a*b",
        "a[b",
        "a\\b",
        "a\u{7}b",
        "a\u{7f}b",
        "a\nb",
        ".a",
        "a/.b",
        "a.",
        "a/",
        "/a",
        "a//b",
        "a.lock",
        "a.lock/b",
        "a@{b",
        "refs/heads/../x",
        "a",
        "a.b",
        "a@b",
        "@a",
        "a{b",
        "a.lockb",
        "feature/a-b_c",
        "a'b",
        "a\"b",
        "$(touch canary)",
        "`id`",
        "a;b",
        "a|b",
        "a&b",
        "ä/ö",
        "a#b",
        "a%b",
        "a=b",
        &long,
    ] {
        if git_takes(name) {
            taken += 1;
            let arguments = ["up", world.repo_path(), "--branch", name];
            world.fails(&arguments, "ERR_BRANCH_NOT_FOUND", 1);
        } else {
            not_taken += 1;
            let arguments = ["up", world.repo_path(), "--branch", name];
            refused_text(&world, &arguments, "ERR_INVALID_BRANCH");
        }
    }
    assert!(taken > 15 && not_taken > 15, "{taken} and {not_taken}");
    for name in ["-x", "--upload-pack=touch", "HEAD", "@", "@{-1}"] {
        let arguments = ["up", world.repo_path(), "--branch", name];
        refused_text(&world, &arguments, "ERR_INVALID_BRANCH");
    }
    for arguments in [
        &["up", world.repo_path()][..],
        &["up", world.repo_path(), "--branch", ""],
        &["up", world.repo_path(), "--branch="],
    ] {
        refused_text(&world, arguments, "ERR_BRANCH_REQUIRED");
    }
    let failed = world.done(&["list", "--all", "--state", "failed"]);
    assert_eq!(failed["sessions"].as_array().map(Vec::len), Some(taken));
    world.assert_nothing_left();
}

#[test]
fn flags_of_up() {
    let world = World::new();
    let long_name = "a".repeat(65);
    let long_id = "a".repeat(257);
    for (flag, value) in [
        ("--name", ""),
        ("--name", "A"),
        ("--name", "a_b"),
        ("--name", "a b"),
        ("--name", "ä"),
        ("--name", long_name.as_str()),
        ("--client-request-id", ""),
        ("--client-request-id", " "),
        ("--client-request-id", "a\nb"),
        ("--client-request-id", "\u{1b}[2J"),
        ("--client-request-id", long_id.as_str()),
        ("--timeout", ""),
        ("--timeout", "0s"),
        ("--timeout", "soon"),
        ("--timeout", "-5s"),
        ("--timeout", "99999999999999999999y"),
        ("--env", ""),
        ("--env", "=x"),
        ("--env", "1A=x"),
        ("--env", "A B=x"),
        ("--env", "A-B=x"),
        ("--env", "NOT_IN_THE_ENVIRONMENT"),
        ("--agent", ""),
        ("--agent", "emacs"),
        ("--agent", "../page"),
        ("--frobnicate", "x"),
    ] {
        let value = format!("{flag}={value}");
        let arguments = ["up", world.repo_path(), "--branch", "main", &value];
        refused_text(&world, &arguments, "ERR_USAGE");
    }
    for provider in ["", "moon", "../local", "local "] {
        let value = format!("--provider={provider}");
        let arguments = ["up", world.repo_path(), "--branch", "main", &value];
        refused_text(&world, &arguments, "ERR_PROVIDER_NOT_FOUND");
    }
    let twice = [
        "up",
        world.repo_path(),
        "--branch",
        "main",
        "--branch",
        "side",
    ];
    refused_text(&world, &twice, "ERR_USAGE");
    let two = [
        "up",
        world.repo_path(),
        world.repo_path(),
        "--branch",
        "main",
    ];
    refused_text(&world, &two, "ERR_USAGE");
}

#[test]
fn sessions_that_are_none() {
    let world = World::new();
    let session = world.ready("there");
    let long = "x".repeat(100_000);
    let unknown = format!("ses_{}", "0".repeat(32));
    let upper = session.to_uppercase();
    for given in [
        "",
        " ",
        "ses_",
        "ses_zz",
        "../../etc/passwd",
        "a\u{1b}[31mb",
        "a\nb",
        "*",
        "%s",
        "None",
        "null",
        "ſes_",
        "\u{202e}",
        &long,
        &unknown,
        &upper,
        &session[..7],
        &session[4..],
        &format!("{session}0"),
        &format!(" {session}"),
    ] {
        for command in ["status", "down", "logs", "open"] {
            refused_text(&world, &[command, "--", given], "ERR_SESSION_NOT_FOUND");
        }
        let output = world.run(&["exec", given, "--", "true"]);
        assert_calm(&output);
        assert_eq!(
            (output.stdout.as_str(), output.code()),
            ("", Some(125)),
            "{given:?}"
        );
    }
    world.done(&["down", &session]);
}

#[test]
fn calls_that_are_none() {
    let world = World::new();
    for arguments in [
        &["frobnicate"][..],
        &["up"],
        &["down"],
        &["status"],
        &["logs"],
        &["open"],
        &["list", "extra"],
        &["list", "--state", "gone"],
        &["list", "--state", ""],
        &["list", "--limit", "0"],
        &["list", "--limit", "-1"],
        &["list", "--limit", "99999999999999999999"],
        &["list", "--limit", "many"],
        &["down", "x", "--timeout", "0s"],
        &["down", "x", "--reason", &"r".repeat(2000)],
        &["logs", "x", "--step", "other"],
        &["completions", "tcsh"],
        &["config", "extra"],
    ] {
        refused_text(&world, arguments, "ERR_USAGE");
    }
    refused_text(&world, &["list", "--all-owners"], "ERR_SESSION_FORBIDDEN");
    for old in [
        &["create", "https://h/r", "--branch", "b"][..],
        &["teardown", "x"],
    ] {
        refused_text(&world, old, "ERR_COMMAND_REPLACED");
    }
    let bytes = OsStr::from_bytes(b"not\xffutf-8");
    for command in [
        "up",
        "down",
        "list",
        "status",
        "logs",
        "open",
        "config",
        "completions",
    ] {
        refused(
            &world,
            &[OsStr::new(command), bytes],
            "ERR_USAGE",
            1,
            |_| {},
        );
    }
}

#[test]
fn variables() {
    let world = World::new();
    let long = "p".repeat(257);
    for (name, value) in [
        ("ALPINE_PRINCIPAL_ID", &b"a\xff"[..]),
        ("ALPINE_PRINCIPAL_ID", b"a\x1b[31m"),
        ("ALPINE_PRINCIPAL_ID", b"a\nb"),
        ("ALPINE_PRINCIPAL_ID", long.as_bytes()),
        ("ALPINE_ADMIN", b"perhaps"),
        ("ALPINE_ADMIN", b"\xff"),
        ("ALPINE_ROLES", b"\xff"),
        ("ALPINE_LOG", b"a=b=c=d"),
        ("ALPINE_LOG", b"\xff"),
        ("ALPINE_LOG_FORMAT", b"xml"),
        ("ALPINE_HOME", b"/tmp/\xff"),
        ("ALPINE_HOME", b"/tmp/a\nb"),
        ("ALPINE_LEDGER_PATH", b"/tmp/\xff"),
        ("ALPINE_LEDGER_PATH", b"/tmp/a\x07b"),
        ("GITHUB_TOKEN", b"two words"),
        ("GITHUB_TOKEN", b"two\nlines"),
        ("GH_TOKEN", b"\xff"),
        ("GH_HOST", b"\xff"),
        ("SSH_AUTH_SOCK", b"\xff"),
        ("ALPINE_OPENCODE", b"\xff"),
    ] {
        for arguments in [
            &["list"][..],
            &["up", world.repo_path(), "--branch", "main"],
        ] {
            let arguments: Vec<&OsStr> = arguments.iter().map(OsStr::new).collect();
            refused(&world, &arguments, "ERR_CONFIG_INVALID", 1, |command| {
                command.env(name, OsStr::from_bytes(value));
            });
        }
    }
    for blank in ["", " ", "\t"] {
        let arguments = ["list"].map(OsStr::new);
        refused(
            &world,
            &arguments,
            "ERR_CALLER_IDENTITY_REQUIRED",
            1,
            |command| {
                command.env("ALPINE_PRINCIPAL_ID", blank);
            },
        );
    }
    // A variable that nothing reads may hold anything.
    let mut command = world.command(&["list", "--json"]);
    command.env("EDITOR", OsStr::from_bytes(b"\xff"));
    command.env(OsStr::from_bytes(b"\xff"), "x");
    assert_eq!(world.env.run(&mut command).code(), Some(0));
}

#[test]
fn configuration_that_says_nonsense() {
    let world = World::new();
    for (text, said) in [
        ("= 1", "line 1"),
        ("principal", "line 1"),
        ("principal = 7", "`principal`"),
        ("principal = \"a\\nb\"", "`principal`"),
        ("colour = 'red'", "`colour`"),
        ("[limits]\nup = 5", "`limits.up`"),
        ("[limits]\nup = '0s'", "`limits.up`"),
        ("[limits]\nup = 'soon'", "`limits.up`"),
        ("[limits]\ntries = 0", "`limits.tries`"),
        ("[limits]\ntries = -1", "`limits.tries`"),
        ("[limits]\ntries = '3'", "`limits.tries`"),
        ("[limits]\nnap = '5s'", "`limits.nap`"),
        ("limits = []", "`limits`"),
        ("[ledger]\nlock_timeout = true", "`ledger.lock_timeout`"),
        (
            "[ledger]\nallow_network_fs = 1",
            "`ledger.allow_network_fs`",
        ),
        ("[git]\ntoken_hosts = 'h'", "`git.token_hosts`"),
        ("[git]\ntoken_hosts = ['a b']", "`git.token_hosts`"),
        ("[git]\ntoken_hosts = [1]", "`git.token_hosts`"),
        ("[agent]\ndefault = []", "`agent.default`"),
        ("[agent]\ndefault = 'zz'", "line 2: `agent.default`"),
        ("[agents]\npage = 1", "`agents.page`"),
        ("[agents.'A B']\nargv = ['x']", "A B"),
        ("[agents.mine]\nargv = 'x'", "`agents.mine.argv`"),
        ("[agents.mine]\nfrob = 'x'", "`agents.mine.frob`"),
        ("[env]\npass = ['1X']", "`env.pass`"),
        ("[provider]\ndefault = 1", "`provider.default`"),
        ("[browser]\nopen = 'no'", "`browser.open`"),
        ("a = 1\na = 2", "line 2"),
        ("principal = '''", "line"),
    ] {
        world.configure(text);
        for arguments in [
            &["list"][..],
            &["up", world.repo_path(), "--branch", "main"],
            &["down", "x"],
            &["config"],
        ] {
            refused_text(&world, arguments, "ERR_CONFIG_INVALID");
        }
        let failure = world.fails(&["list"], "ERR_CONFIG_INVALID", 1);
        let cause = text_of(&failure);
        assert!(cause.contains("config.toml"), "{text:?}: {cause}");
        assert!(cause.contains(said), "{text:?}: {cause}");
    }
}

fn text_of(failure: &serde_json::Value) -> String {
    text(failure, "cause")
}

#[test]
fn configuration_files_that_are_none() {
    let world = World::new();
    let file = world.env.alpine_home().join("config.toml");
    let mode = |mode| fs::set_permissions(&file, Permissions::from_mode(mode)).expect("a mode");
    let check = || {
        refused_text(&world, &["list"], "ERR_CONFIG_INVALID");
        fs::remove_file(&file)
            .or_else(|_| fs::remove_dir_all(&file))
            .expect("it was there");
    };
    mode(0o666);
    check();
    fs::write(&file, [0xff, 0xfe]).expect("a file");
    check();
    fs::write(&file, vec![b'#'; 2 * 1024 * 1024]).expect("a file");
    check();
    fs::create_dir(&file).expect("a directory");
    check();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &file,
        rustix::fs::FileType::Fifo,
        Mode::from_raw_mode(0o600),
        0,
    )
    .expect("a named pipe");
    check();
    symlink("/dev/zero", &file).expect("a link");
    check();
    if rustix::process::geteuid().is_root() {
        fs::write(&file, "").expect("a file");
        std::os::unix::fs::chown(&file, Some(NOBODY), None).expect("another owner");
        check();
    } else {
        symlink("/etc/passwd", &file).expect("a link");
        check();
    }
}

#[test]
fn homes_that_are_none() {
    let world = World::new();
    let make = |name: &str, mode: u32| {
        let path = world.env.root().join(name);
        fs::create_dir(&path).expect("a directory");
        fs::set_permissions(&path, Permissions::from_mode(mode)).expect("its mode");
        path
    };
    let file = world.env.root().join("clock");
    let mut homes = vec![
        make("open", 0o777),
        make("group", 0o770),
        file.clone(),
        file.join("below"),
        PathBuf::from("/dev/null"),
    ];
    if rustix::process::geteuid().is_root() {
        let theirs = make("theirs", 0o700);
        std::os::unix::fs::chown(&theirs, Some(NOBODY), None).expect("another owner");
        homes.push(theirs);
    } else {
        homes.push(PathBuf::from("/usr"));
    }
    for home in homes {
        for arguments in [
            &["list"][..],
            &["up", world.repo_path(), "--branch", "main"],
        ] {
            let arguments: Vec<&OsStr> = arguments.iter().map(OsStr::new).collect();
            refused(&world, &arguments, "ERR_LEDGER_UNAVAILABLE", 2, |command| {
                command.env("ALPINE_HOME", &home);
            });
            // A home holds more than the ledger: it is refused wherever that is.
            let elsewhere = world.env.root().join("data/ledger.redb");
            refused(&world, &arguments, "ERR_LEDGER_UNAVAILABLE", 2, |command| {
                command.env("ALPINE_HOME", &home);
                command.env("ALPINE_LEDGER_PATH", &elsewhere);
            });
        }
    }
}

/// The bytes of a ledger with a session in it.
fn real_ledger(world: &World) -> Vec<u8> {
    let session = world.ready("recorded");
    world.done(&["down", &session]);
    fs::read(world.ledger_path()).expect("the ledger")
}

/// Runs every command on the ledger as it is; each has to fail with one of the codes, and leave the file as it is.
#[track_caller]
fn assert_unusable(world: &World, codes: &[&str], what: &str) {
    let bytes = |path: &Path| fs::read(path).ok();
    let before = bytes(&world.ledger_path());
    let session = SessionId::derive("tester", "recorded").to_string();
    for arguments in [
        &["list"][..],
        &["status", &session],
        &["down", &session],
        &["logs", &session],
        &["up", world.repo_path(), "--branch", "main"],
    ] {
        let output = world.run(&with_json(arguments));
        assert_calm(&output);
        let failure = document(&output);
        assert_ne!(output.code(), Some(0), "{what}: {arguments:?}: {failure:#}");
        let code = text(&failure, "error_code");
        assert!(
            codes.contains(&code.as_str()),
            "{what}: {arguments:?}: {failure:#}"
        );
        assert_eq!(output.code(), Some(2), "{what}: {failure:#}");
        assert_eq!(
            before,
            bytes(&world.ledger_path()),
            "{what}: {arguments:?} wrote"
        );
        assert!(world.fake().sandboxes().is_empty(), "{what}");
    }
}

#[test]
fn ledgers_that_are_none() {
    let world = World::new();
    let whole = real_ledger(&world);
    let path = world.ledger_path();
    let put = |bytes: &[u8]| {
        fs::write(&path, bytes).expect("a file");
        fs::set_permissions(&path, Permissions::from_mode(0o600)).expect("its mode");
    };
    let damaged = ["ERR_LEDGER_CORRUPT"];
    let foreign = ["ERR_LEDGER_INCOMPATIBLE"];
    let either = ["ERR_LEDGER_CORRUPT", "ERR_LEDGER_INCOMPATIBLE"];
    put(b"");
    assert_unusable(&world, &damaged, "empty");
    for (bytes, what) in [
        (&b"garbage"[..], "garbage"),
        (b"SQLite format 3\0 and so on", "another database"),
        (b"{\"sessions\": {}}", "the predecessor's"),
        (b"[]", "a list"),
        (b"redb", "a part of the mark"),
    ] {
        put(bytes);
        assert_unusable(&world, &foreign, what);
    }
    put(b"{\"sessions\": {\"ses_1\": {\"session_id\": \"ses_1\"}}}");
    let failure = world.fails(&["list"], "ERR_LEDGER_INCOMPATIBLE", 2);
    let import = format!("alpine ledger import {}", path.display());
    assert_eq!(text(&failure, "next_step"), import);
    for length in [9, 64, 320, 4096, 16 * 1024] {
        put(&whole[..length]);
        assert_unusable(&world, &either, &format!("cut to {length}"));
    }
    let mut newer = whole.clone();
    newer[9..512].fill(0xff);
    put(&newer);
    assert_unusable(&world, &either, "a header of ones");
    put(&whole);
    assert_eq!(
        world.done(&["list"])["sessions"].as_array().map(Vec::len),
        Some(1)
    );
}

#[test]
fn a_ledger_with_wrong_bytes_is_never_a_panic() {
    let world = World::new();
    let whole = real_ledger(&world);
    let session = SessionId::derive("tester", "recorded").to_string();
    let step = whole.len() / 40;
    for at in (0..whole.len()).step_by(step) {
        let mut wrong = whole.clone();
        for byte in wrong.iter_mut().skip(at).take(64) {
            *byte ^= 0x5a;
        }
        fs::write(world.ledger_path(), &wrong).expect("a file");
        for arguments in [&["list"][..], &["down", &session]] {
            let output = world.run(&with_json(arguments));
            assert_calm(&output);
            let said = document(&output);
            let is_fine = output.code() == Some(0)
                || [
                    "ERR_LEDGER_CORRUPT",
                    "ERR_LEDGER_INCOMPATIBLE",
                    "ERR_SESSION_NOT_FOUND",
                ]
                .contains(&text(&said, "error_code").as_str());
            assert!(is_fine, "byte {at}: {arguments:?}: {said:#}");
        }
    }
    world.fake().assert_no_violations();
}

#[test]
fn ledger_files_that_are_not_to_be_trusted() {
    let world = World::new();
    let whole = real_ledger(&world);
    let path = world.ledger_path();
    let aside = world.env.alpine_home().join("aside");
    let unavailable = ["ERR_LEDGER_UNAVAILABLE"];
    let mode = |mode| fs::set_permissions(&path, Permissions::from_mode(mode)).expect("a mode");
    mode(0o644);
    assert_unusable(&world, &unavailable, "others may read it");
    mode(0o660);
    assert_unusable(&world, &unavailable, "others may write it");
    mode(0o600);
    fs::hard_link(&path, &aside).expect("a link");
    assert_unusable(&world, &unavailable, "two names");
    fs::remove_file(&path).expect("one name");
    symlink(&aside, &path).expect("a link");
    assert_unusable(&world, &unavailable, "a symbolic link");
    fs::remove_file(&path).expect("the link");
    fs::create_dir(&path).expect("a directory");
    assert_unusable(&world, &unavailable, "a directory");
    fs::remove_dir(&path).expect("the directory");
    let pipe = rustix::fs::FileType::Fifo;
    let private = Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(rustix::fs::CWD, &path, pipe, private, 0).expect("a named pipe");
    for arguments in [
        &["list"][..],
        &["up", world.repo_path(), "--branch", "main"],
    ] {
        world.fails(arguments, "ERR_LEDGER_UNAVAILABLE", 2);
    }
    fs::remove_file(&path).expect("the pipe");
    fs::rename(&aside, &path).expect("the ledger");
    // What may only be read can be read.
    mode(0o400);
    assert_eq!(
        world.done(&["list"])["sessions"].as_array().map(Vec::len),
        Some(1)
    );
    world.fails(&world.up("new"), "ERR_LEDGER_UNAVAILABLE", 2);
    mode(0o600);
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(&path, Some(NOBODY), None).expect("another owner");
        assert_unusable(&world, &unavailable, "another owner");
        std::os::unix::fs::chown(&path, Some(0), None).expect("its owner");
    }
    let elsewhere = |ledger: &Path| {
        for arguments in [
            &["list"][..],
            &["up", world.repo_path(), "--branch", "main"],
        ] {
            let mut command = world.command(&with_json(arguments));
            command.env("ALPINE_LEDGER_PATH", ledger);
            let output = world.env.run(&mut command);
            if arguments == ["list"] && output.code() == Some(0) {
                // A ledger that is not there is an empty one.
                assert_eq!(document(&output)["sessions"], serde_json::json!([]));
            } else {
                // Whether its owner or its content is looked at first is of no matter.
                let codes = ["ERR_LEDGER_UNAVAILABLE", "ERR_LEDGER_INCOMPATIBLE"];
                let failure = document(&output);
                let code = text(&failure, "error_code");
                assert!(codes.contains(&code.as_str()), "{failure:#}");
                assert_eq!(output.code(), Some(2), "{failure:#}");
            }
        }
    };
    elsewhere(Path::new("/etc/passwd"));
    elsewhere(Path::new("/"));
    elsewhere(&world.env.root().join("not/there/ledger.redb"));
    assert_eq!(
        fs::read(&path).expect("the ledger"),
        whole,
        "never overwritten"
    );
}

#[test]
fn what_a_repository_says_of_its_own_setup() {
    let world = World::configured("[agent]\ndefault = 'none'\n");
    for (number, content) in [
        "= 1",
        "[network]\nmode = 'full'",
        "[env]\npass = ['GITHUB_TOKEN']",
        "provider = 'other'",
        "setup = 'make'",
        "[setup]\ninstall = 7",
        "[setup]\ninstall = []",
        "[setup]\nfrobnicate = 'x'",
    ]
    .iter()
    .enumerate()
    {
        world.repo.commit("setup", &[(".alpine.toml", content)]);
        let id = format!("setup-{number}");
        let failure = world.fails(&world.up(&id), "ERR_CONFIG_INVALID", 1);
        assert!(
            text(&failure, "cause").contains(".alpine.toml"),
            "{failure:#}"
        );
        world.fails(&world.up(&id), "ERR_CONFIG_INVALID", 1);
        let session = SessionId::derive("tester", &id).to_string();
        assert_eq!(world.state(&session), "failed", "{content:?}");
    }
    let sandboxes = world.env.alpine_home().join("sandboxes");
    let left: Vec<OsString> = fs::read_dir(&sandboxes)
        .map(|entries| entries.flatten().map(|entry| entry.file_name()).collect())
        .unwrap_or_default();
    let left: Vec<_> = left
        .into_iter()
        .filter(|name| name.as_bytes().starts_with(b"sbx_"))
        .collect();
    assert_eq!(left, Vec::<OsString>::new(), "a sandbox is left");
}
