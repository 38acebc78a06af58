//! `alpine ledger`: the shipped program on ledgers that the tests write and damage.

#![expect(clippy::unwrap_used, reason = "a test that can't go on has failed")]

use alpine_ledger::{
    Admission, AuditRecord, Ledger, NewSession, Options, Outcome, SessionId, State, Timestamp,
};
use serde_json::{Value, json};
use std::fs;
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
        let world = Self {
            directory: tempfile::tempdir().unwrap(),
        };
        fs::create_dir(world.path("home")).unwrap();
        fs::set_permissions(world.path("home"), fs::Permissions::from_mode(0o700)).unwrap();
        world
    }

    /// With a session that has failed, and an audit record.
    fn recorded() -> Self {
        let world = Self::new();
        let ledger = world.ledger();
        let new = NewSession {
            owner: "tester".to_owned(),
            client_request_id: "r1".to_owned(),
            repo_url: "https://example.com/repo.git".to_owned(),
            branch: "main".to_owned(),
            public: true,
            provider: "local".to_owned(),
            agent: "none".to_owned(),
            name: Some("first".to_owned()),
            request: Value::Null,
        };
        let admitted = ledger.write(|tx| tx.admit(&new, "f", "sbx_1", "tester"));
        let Admission::Run(grant) = admitted.unwrap() else {
            unreachable!("a new session");
        };
        ledger
            .write(|tx| {
                tx.transition(&grant.token, State::Failing, "test", |_| {})?;
                tx.transition(&grant.token, State::Failed, "test", |_| {})?;
                tx.put_audit(&AuditRecord {
                    actor: "admin".to_owned(),
                    session_id: grant.session.session_id.clone(),
                    action: "down".to_owned(),
                    reason: "test".to_owned(),
                    at: Timestamp(1),
                })?;
                tx.finish(&grant.token, &Outcome::Succeeded(Value::Null))
            })
            .unwrap();
        ledger.close();
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn ledger_path(&self) -> PathBuf {
        self.path("home/ledger.redb")
    }

    fn ledger(&self) -> Ledger {
        Ledger::open(&self.ledger_path(), Options::new()).unwrap()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let program = Path::new(env!("CARGO_BIN_EXE_alpine"));
        let folder = program.parent().unwrap();
        let mut command = Command::new(program);
        command
            .args(arguments)
            .env_clear()
            .env("PATH", format!("{}:/usr/bin:/bin", folder.display()))
            .env("HOME", self.directory.path())
            .env("ALPINE_HOME", self.path("home"))
            .current_dir(self.directory.path())
            .stdin(Stdio::null());
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).arg("--json").output().unwrap()
    }

    /// The one document, of a run that ends with that status.
    #[track_caller]
    fn document(&self, arguments: &[&str], status: i32) -> Value {
        let output = self.run(arguments);
        let text = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(status), "{arguments:?}: {text}");
        assert_eq!(text.lines().count(), 1, "{text}");
        let document: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(document["schema_version"], "v1");
        document
    }

    /// Pastes what a failure says to do into a shell.
    #[track_caller]
    fn paste(&self, next: &Value) -> Output {
        let next = next.as_str().unwrap();
        let mut shell = self.command(&[]);
        let variables: Vec<_> = shell
            .get_envs()
            .filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned())))
            .collect();
        shell = Command::new("/bin/sh");
        let output = shell
            .args(["-c", next])
            .env_clear()
            .envs(variables)
            .current_dir(self.directory.path())
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert!(output.status.success(), "{next}: {output:?}");
        output
    }

    /// Overwrites what is recorded of the session's name, wherever it stands.
    fn damage(&self) {
        let mut bytes = fs::read(self.ledger_path()).unwrap();
        let wanted = b"https://example.com/repo.git";
        let places: Vec<usize> = bytes
            .windows(wanted.len())
            .enumerate()
            .filter_map(|(at, found)| (found == wanted).then_some(at))
            .collect();
        for at in places {
            bytes[at] ^= 1;
        }
        fs::write(self.ledger_path(), bytes).unwrap();
    }
}

#[test]
fn without_a_ledger_nothing_is_made() {
    let world = World::new();
    let checked = world.document(&["ledger", "check"], 0);
    assert_eq!(
        (&checked["sound"], &checked["ledger_id"]),
        (&json!(true), &Value::Null)
    );
    world.document(&["ledger", "repair"], 0);
    world.document(&["ledger", "compact"], 0);
    for command in ["backup", "export"] {
        let failure = world.document(&["ledger", command], 1);
        assert_eq!(failure["error_code"], "ERR_LEDGER_UNAVAILABLE");
    }
    assert!(!world.ledger_path().exists());
}

#[test]
fn a_sound_ledger_is_checked_backed_up_exported_and_comes_back() {
    let world = World::recorded();
    let checked = world.document(&["ledger", "check", "--deep"], 0);
    assert_eq!(checked["problem_count"], 0);
    assert_eq!(checked["rows"]["sessions"], 1);
    assert_eq!(checked["next_step"], Value::Null);
    let saved = world.document(&["ledger", "backup"], 0);
    let backup = saved["path"].as_str().unwrap();
    assert!(backup.ends_with(".backup") && Path::new(backup).is_file());
    let file = world.path("out.jsonl");
    let exported = world.document(&["ledger", "export", "out.jsonl"], 0);
    assert_eq!(
        fs::metadata(&file).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let text = fs::read_to_string(&file).unwrap();
    assert_eq!(world.run(&["ledger", "export"]).stdout, text.as_bytes());
    let last: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    assert_eq!(last["blake3"], exported["blake3"]);
    for again in [
        &["ledger", "export", "out.jsonl"],
        &["ledger", "backup", backup],
    ] {
        assert_eq!(world.document(again, 1)["error_code"], "ERR_USAGE");
    }
    assert_eq!(fs::read_to_string(&file).unwrap(), text);
    for from in [file.to_str().unwrap(), backup] {
        let other = World::new();
        let imported = other.document(&["ledger", "import", from], 0);
        assert_eq!(
            imported,
            json!({"schema_version": "v1", "sessions": 1, "left_out": 0, "reused": false, "moved_to": null})
        );
        assert_eq!(
            other.document(&["ledger", "import", from], 0)["reused"],
            true
        );
        assert_eq!(
            other.document(&["ledger", "check", "--deep"], 0)["sound"],
            true
        );
    }
}

#[test]
fn a_ledger_that_holds_something_is_not_imported_over() {
    let world = World::recorded();
    let other = World::recorded();
    other.document(&["ledger", "export", "out.jsonl"], 0);
    let from = other.path("out.jsonl");
    let failure = world.document(&["ledger", "import", from.to_str().unwrap()], 1);
    assert_eq!(failure["error_code"], "ERR_OPERATION_CONFLICT");
    world.paste(&failure["next_step"]);
    assert!(world.path("home/ledger.redb.imported").is_file());
    assert_eq!(
        world.document(&["ledger", "check"], 0)["rows"]["sessions"],
        1
    );
}

/// Two ledgers of one id would each take the other's sandboxes for nobody's.
#[test]
fn a_copy_of_the_ledger_takes_its_place_or_stays_where_it_is() {
    let world = World::recorded();
    world.document(&["ledger", "backup", "saved"], 0);
    let ledgers = || {
        let names = fs::read_dir(world.path("home")).unwrap().flatten();
        let is_ledger = |name: &String| name.starts_with("ledger.redb") && !name.contains(".id");
        let mut names: Vec<_> = names
            .map(|entry| entry.file_name().into_string().unwrap())
            .filter(is_ledger)
            .collect();
        names.sort();
        names
    };
    let new = NewSession {
        owner: "tester".to_owned(),
        client_request_id: "r2".to_owned(),
        repo_url: "https://example.com/repo.git".to_owned(),
        branch: "main".to_owned(),
        public: true,
        provider: "local".to_owned(),
        agent: "none".to_owned(),
        name: None,
        request: Value::Null,
    };
    let ledger = world.ledger();
    let admitted = ledger.write(|tx| tx.admit(&new, "f", "sbx_2", "tester"));
    let Admission::Run(grant) = admitted.unwrap() else {
        unreachable!("a new session");
    };
    let failure = world.document(&["ledger", "import", "saved"], 1);
    assert_eq!(failure["error_code"], "ERR_OPERATION_CONFLICT");
    assert_eq!(failure["next_step"], "alpine list --all");
    let cause = failure["cause"].as_str().unwrap();
    assert!(cause.contains("unfinished sessions (1)"), "{cause}");
    ledger
        .write(|tx| {
            tx.transition(&grant.token, State::Failing, "test", |_| {})?;
            tx.transition(&grant.token, State::Failed, "test", |_| {})?;
            tx.finish(&grant.token, &Outcome::Succeeded(Value::Null))
        })
        .unwrap();
    ledger.close();
    let failure = world.document(&["ledger", "import", "saved"], 1);
    assert_eq!(ledgers(), ["ledger.redb"]);
    world.paste(&failure["next_step"]);
    assert_eq!(ledgers(), ["ledger.redb", "ledger.redb.replaced"]);
    let checked = world.document(&["ledger", "check"], 0);
    assert_eq!(checked["rows"]["sessions"], 1);
}

/// The predecessor's file, with one session each of a repository and a branch.
fn predecessor(asked: &[(Value, Value)]) -> Value {
    let (mut sessions, mut requests) = (json!({}), json!({}));
    for (number, (repo, branch)) in asked.iter().enumerate() {
        let (id, operation) = (format!("ses_{number:016x}"), format!("op_{number:016x}"));
        sessions[&id] = json!({"schema_version": "v1", "session_id": id, "principal_id": "tester", "state": "ready",
            "repo_url": repo, "branch": branch, "updated_at": "2025-01-02T03:04:05Z",
            "operation_history": [{"operation_id": operation, "action": "up"}]});
        requests[format!("up:tester:r{number}")] =
            json!({"operation_id": operation, "session_id": id, "action": "up"});
    }
    json!({"schema_version": "v1", "sessions": sessions, "idempotency": requests})
}

#[test]
fn what_the_predecessor_recorded_is_no_command_of_its_own() {
    let world = World::new();
    let url = "https://example.com/o/r.git";
    let secret = "https://me:hunter2hunter2@example.com/o/r.git";
    let plain = format!("alpine up {url} --branch main");
    let cases = [
        (json!(url), json!("main"), plain.as_str()),
        (json!(secret), json!("main"), plain.as_str()),
        (
            json!(url),
            json!("x;touch${IFS}PWNED"),
            "alpine up https://example.com/o/r.git --branch 'x;touch${IFS}PWNED'",
        ),
        (json!("a;touch PWNED"), json!("main"), "alpine up --help"),
        (json!(url), json!("a b"), "alpine up --help"),
        (json!(url), Value::Null, "alpine up --help"),
        (Value::Null, json!("main"), "alpine up --help"),
        (json!(""), json!(""), "alpine up --help"),
    ];
    let asked = cases.clone().map(|(repo, branch, _)| (repo, branch));
    let mut old = predecessor(&asked);
    for session in old["sessions"].as_object_mut().unwrap().values_mut() {
        let session = session.as_object_mut().unwrap();
        session.retain(|_, value| !value.is_null());
    }
    fs::write(world.path("sessions.json"), old.to_string()).unwrap();
    world.document(&["ledger", "import", "sessions.json"], 0);
    for (number, (_, _, command)) in cases.iter().enumerate() {
        let status = world
            .command(&["status", &format!("ses_{number:016x}"), "--json"])
            .env("ALPINE_PRINCIPAL_ID", "tester")
            .output()
            .unwrap();
        let status: Value = serde_json::from_slice(&status.stdout).unwrap();
        assert_eq!(status["last_error"]["next_step"], *command, "{number}");
    }
    let bytes = fs::read(world.ledger_path()).unwrap();
    assert!(!bytes.windows(7).any(|found| found == b"hunter2"));
}

#[test]
fn the_predecessors_requests_are_answered_however_their_repository_was_spelled() {
    let world = World::new();
    for name in ["here", "gone"] {
        fs::create_dir_all(world.path(name).join(".git")).unwrap();
    }
    let here = world.path("here").to_str().unwrap().to_owned();
    let gone = world.path("gone").to_str().unwrap().to_owned();
    let file = |path: &str| format!("file://{path}");
    let github = "https://github.com/o/r";
    let cases = [
        (file(&here), here.clone()),
        (file(&here), file(&here)),
        (here.clone(), here.clone()),
        ("./here".to_owned(), here.clone()),
        (file(&gone), file(&gone)),
        (gone.clone(), "./gone".to_owned()),
        ("https://GitHub.com/o/r".to_owned(), github.to_owned()),
        (
            "https://me:hunter2hunter2@github.com/o/r".to_owned(),
            github.to_owned(),
        ),
        (
            "ssh://git:hunter2hunter2@host/r".to_owned(),
            "ssh://git@host/r".to_owned(),
        ),
        ("git@host:r".to_owned(), "git@host:r".to_owned()),
    ];
    let asked: Vec<_> = cases
        .iter()
        .map(|(old, _)| (json!(old), json!("main")))
        .collect();
    fs::write(world.path("sessions.json"), predecessor(&asked).to_string()).unwrap();
    world.document(&["ledger", "import", "sessions.json"], 0);
    fs::remove_dir_all(&gone).unwrap();
    let up = |repo: &str, branch: &str, id: &str| {
        let output = world
            .command(&["up", repo, "--branch", branch, "--client-request-id", id])
            .args(["--public", "--agent", "none", "--no-browser", "--json"])
            .env("ALPINE_PRINCIPAL_ID", "tester")
            .output()
            .unwrap();
        serde_json::from_slice::<Value>(&output.stdout).unwrap()
    };
    for (number, (_, repo)) in cases.iter().enumerate() {
        let told = up(repo, "main", &format!("r{number}"));
        assert_eq!(told["error_code"], "ERR_INTERRUPTED", "{repo}: {told:#}");
        assert_eq!(told["operation_id"], format!("op_{number:016x}"), "{repo}");
        let other = up(repo, "other", &format!("r{number}"));
        assert_eq!(
            other["error_code"], "ERR_OPERATION_CONFLICT",
            "{repo}: {other:#}"
        );
    }
    let new = up(&gone, "main", "new");
    assert_eq!(new["error_code"], "ERR_INVALID_REPO_URL");
}

#[test]
fn what_can_not_be_imported_is_refused() {
    let world = World::new();
    fs::write(world.path("junk"), "junk").unwrap();
    let failure = world.document(&["ledger", "import", "junk"], 2);
    assert_eq!(failure["error_code"], "ERR_LEDGER_INCOMPATIBLE");
    world.paste(&failure["next_step"]);
    let missing = world.document(&["ledger", "import", "missing"], 1);
    assert_eq!(missing["error_code"], "ERR_USAGE");
    assert!(!world.ledger_path().exists());
}

#[test]
fn a_damaged_ledger_is_told_and_what_is_told_repairs_it() {
    let world = World::recorded();
    world.damage();
    let damaged = fs::read(world.ledger_path()).unwrap();
    let checked = world.document(&["ledger", "check"], 2);
    assert_eq!(checked["sound"], false);
    assert!(checked["problem_count"].as_u64().unwrap() > 0);
    assert!(!checked["problems"].as_array().unwrap().is_empty());
    let mut list = world.command(&["list", "--json"]);
    let listed = list.env("ALPINE_PRINCIPAL_ID", "tester").output().unwrap();
    let failure: Value = serde_json::from_slice(&listed.stdout).unwrap();
    assert_eq!(failure["error_code"], "ERR_LEDGER_CORRUPT");
    assert_eq!(failure["next_step"], checked["next_step"]);
    let told = world.paste(&failure["next_step"]);
    let told = String::from_utf8(told.stdout).unwrap();
    let backup = told.trim().rsplit(": ").next().unwrap();
    assert_eq!(fs::read(backup).unwrap().len(), damaged.len());
    assert_eq!(
        world.document(&["ledger", "check", "--deep"], 0)["sound"],
        true
    );
    let again = world.document(&["ledger", "repair"], 0);
    assert_eq!(again["backup"], Value::Null);
    let mut list = world.command(&["list", "--json"]);
    let listed = list.env("ALPINE_PRINCIPAL_ID", "tester").output().unwrap();
    assert!(listed.status.success());
}

#[test]
fn a_file_that_is_too_damaged_goes_out_of_the_way() {
    let world = World::recorded();
    world.document(&["ledger", "export", "out.jsonl"], 0);
    fs::write(world.ledger_path(), "").unwrap();
    let failure = world.document(&["ledger", "repair"], 2);
    assert_eq!(failure["error_code"], "ERR_LEDGER_CORRUPT");
    world.paste(&failure["next_step"]);
    assert!(world.path("home/ledger.redb.damaged").exists());
    assert_eq!(
        world.document(&["ledger", "import", "out.jsonl"], 0)["sessions"],
        1
    );
}

#[test]
fn the_predecessors_file_is_imported_by_what_its_refusal_says() {
    let world = World::new();
    let id = "ses_00000000000000aa";
    let text = json!({"schema_version": "v1", "sessions": {id: {
        "schema_version": "v1", "session_id": id, "principal_id": "tester",
        "repo_url": "https://user:hunter2hunter2@example.com/repo.git", "branch": "main",
        "state": "ready", "started_at": "2025-01-02T03:04:05Z", "updated_at": "2025-01-02T03:04:05Z"}},
        "idempotency": {"up:tester:r1": {"operation_id": "op_00000000000000aa", "session_id": id,
        "action": "up", "request_fingerprint": "x"}}});
    fs::write(world.ledger_path(), text.to_string()).unwrap();
    fs::set_permissions(world.ledger_path(), fs::Permissions::from_mode(0o600)).unwrap();
    let run = |arguments: &[&str]| {
        let mut command = world.command(arguments);
        let output = command
            .arg("--json")
            .env("ALPINE_PRINCIPAL_ID", "tester")
            .output()
            .unwrap();
        serde_json::from_slice::<Value>(&output.stdout).unwrap()
    };
    let failure = run(&["list"]);
    assert_eq!(failure["error_code"], "ERR_LEDGER_INCOMPATIBLE");
    world.paste(&failure["next_step"]);
    assert_eq!(run(&["status", "ses_00000000"])["state"], "failed");
    let listed = run(&["list", "--all"]);
    assert_eq!(listed["sessions"][0]["session_id"], id);
    assert!(!listed.to_string().contains("hunter2"), "{listed}");
    let exported = world.run(&["ledger", "export"]).stdout;
    assert!(!String::from_utf8(exported).unwrap().contains("hunter2"));
    assert_eq!(run(&["down", id])["state"], "failed");
    assert_eq!(
        fs::read_to_string(world.path("home/ledger.redb.predecessor")).unwrap(),
        text.to_string()
    );
}

#[test]
fn a_compaction_keeps_everything() {
    let world = World::recorded();
    let before = world.run(&["ledger", "export"]).stdout;
    assert_eq!(
        world.document(&["ledger", "compact"], 0)["compacted"],
        false
    );
    let done = world.document(&["ledger", "compact", "--force"], 0);
    assert_eq!(done["compacted"], true);
    assert_eq!(done["sessions_removed"], 0);
    assert_eq!(world.run(&["ledger", "export"]).stdout, before);
    let id = SessionId::derive("tester", "r1");
    let there = world.ledger().read(|snapshot| snapshot.session(&id));
    assert!(there.unwrap().is_some());
}

#[test]
fn ledgers_of_every_version_are_listed_checked_and_shown() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2);
    let fixtures = fs::read_dir(root.unwrap().join("tests/fixtures")).unwrap();
    let mut count = 0;
    for file in fixtures.map(|entry| entry.unwrap().path()) {
        if file.extension().is_none_or(|extension| extension != "redb") {
            continue;
        }
        count += 1;
        let world = World::new();
        fs::copy(&file, world.ledger_path()).unwrap();
        fs::set_permissions(world.ledger_path(), fs::Permissions::from_mode(0o600)).unwrap();
        let run = |arguments: &[&str]| {
            let mut command = world.command(arguments);
            command.args(["--json"]).env("ALPINE_PRINCIPAL_ID", "me");
            let output = command.env("ALPINE_ADMIN", "1").output().unwrap();
            assert!(output.status.success(), "{arguments:?}: {output:?}");
            output.stdout
        };
        let document =
            |arguments: &[&str]| -> Value { serde_json::from_slice(&run(arguments)).unwrap() };
        assert_eq!(document(&["ledger", "check", "--deep"])["sound"], true);
        let list = document(&["list", "--all", "--all-owners", "--limit", "1000"]);
        let sessions = list["sessions"].as_array().unwrap();
        assert!(sessions.len() >= State::ALL.len(), "{list}");
        for session in sessions {
            let id = session["session_id"].as_str().unwrap();
            let status = document(&["status", id]);
            assert_eq!(status["state"], session["state"], "{id}");
            assert!(
                !document(&["ops", id])["operations"]
                    .as_array()
                    .unwrap()
                    .is_empty()
            );
        }
        assert!(!run(&["events"]).is_empty());
        assert!(
            !document(&["audit"])["records"]
                .as_array()
                .unwrap()
                .is_empty()
        );
        // What it exports is what that version exported.
        let export = fs::read(file.with_extension("jsonl")).unwrap();
        assert!(
            world.run(&["ledger", "export"]).stdout == export,
            "{}",
            file.display()
        );
    }
    assert!(count > 0);
}

/// As `/tmp` is: to take it from everybody else would be no repair.
#[test]
fn a_directory_that_is_everybodys_is_left_to_them() {
    let world = World::new();
    let shared = world.path("shared");
    fs::create_dir(&shared).unwrap();
    fs::set_permissions(&shared, fs::Permissions::from_mode(0o1777)).unwrap();
    let ledger = shared.join("ledger.redb");
    for (name, value) in [("ALPINE_HOME", &shared), ("ALPINE_LEDGER_PATH", &ledger)] {
        let import = ["ledger", "import", "sessions.json", "--json"];
        fs::write(world.path("sessions.json"), predecessor(&[]).to_string()).unwrap();
        let refused = world.command(&import).env(name, value).output().unwrap();
        let failure: Value = serde_json::from_slice(&refused.stdout).unwrap();
        assert_eq!(failure["error_code"], "ERR_LEDGER_UNAVAILABLE");
        let next = failure["next_step"].as_str().unwrap();
        assert!(!next.contains("chmod"), "{next}");
        let value = value.display();
        let pasted = format!("export {name}={value}; {next}; alpine {}", import.join(" "));
        world.paste(&json!(pasted));
        let mode = fs::metadata(&shared).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o1777);
    }
}

#[test]
fn a_code_of_the_predecessors_is_answered_as_it_was_recorded() {
    let world = World::new();
    let url = "https://example.com/o/r.git";
    let mut old = predecessor(&[(json!(url), json!("main"))]);
    let session = &mut old["sessions"]["ses_0000000000000000"];
    session["state"] = json!("failed");
    session["last_error"] = json!({"error_code": "ERR_SANDBOX_CREATE_FAILED", "cause": "no room"});
    fs::write(world.path("sessions.json"), old.to_string()).unwrap();
    world.document(&["ledger", "import", "sessions.json"], 0);
    let up = ["up", url, "--branch", "main", "--client-request-id", "r0"];
    let run = |more: &[&str]| {
        let mut command = world.command(&up);
        command.args(["--public", "--agent", "none"]).args(more);
        command
            .env("ALPINE_PRINCIPAL_ID", "tester")
            .output()
            .unwrap()
    };
    let told: Value = serde_json::from_slice(&run(&["--json"]).stdout).unwrap();
    assert_eq!(told["error_code"], "ERR_SANDBOX_CREATE_FAILED");
    assert_eq!(told["exit_code"], 1);
    let told = String::from_utf8(run(&[]).stderr).unwrap();
    assert!(
        told.contains("no room (ERR_SANDBOX_CREATE_FAILED)"),
        "{told}"
    );
}

#[test]
fn an_imported_session_has_no_logs() {
    let world = World::new();
    let old = predecessor(&[(json!("https://example.com/o/r.git"), json!("main"))]);
    fs::write(world.path("sessions.json"), old.to_string()).unwrap();
    world.document(&["ledger", "import", "sessions.json"], 0);
    for step in ["install", "agent"] {
        let logs = world
            .command(&["logs", "ses_0000000000000000", "--step", step, "--json"])
            .env("ALPINE_PRINCIPAL_ID", "tester")
            .output()
            .unwrap();
        let told: Value = serde_json::from_slice(&logs.stdout).unwrap();
        assert_eq!(told["error_code"], "ERR_OPERATION_CONFLICT");
        assert_eq!(told["retryable"], false);
        assert_eq!(told["next_step"], "alpine status ses_0000000000000000");
        assert_eq!(logs.status.code(), Some(1));
    }
}

#[test]
fn an_export_that_can_not_be_written_is_not_the_ledgers_failure() {
    let world = World::recorded();
    let mut shell = Command::new("/bin/sh");
    let alpine = world.command(&[]);
    let limited = "trap '' XFSZ; ulimit -f 0; alpine ledger export out.jsonl --json | cat";
    let variables = alpine.get_envs();
    shell
        .args(["-c", limited])
        .env_clear()
        .envs(variables.filter_map(|(name, value)| Some((name, value?))))
        .current_dir(world.path("."));
    let output = shell.output().unwrap();
    let failure: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(failure["error_code"], "ERR_LEDGER_UNAVAILABLE");
    let cause = failure["cause"].as_str().unwrap();
    assert!(cause.starts_with("`out.jsonl` can't be written"), "{cause}");
    world.paste(&failure["next_step"]);
    assert!(!world.path("out.jsonl").exists());
}
