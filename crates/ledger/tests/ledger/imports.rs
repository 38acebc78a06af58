//! Export and import: the same ledger comes back, or nothing is changed.

use crate::upkeep::{exported, full};
use crate::world::{BEGUN, World, as_it_is, error, kind, options_of, request};
use alpine_ledger::{
    Acquired, Action, Admission, Conflict, Depth, Found, Imported, Ledger, LedgerError, ListQuery,
    OperationState, Options, Retention, SessionId, State, check, import,
};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;
use tempfile::TempDir;

fn empty() -> (TempDir, std::path::PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ledger.redb");
    (dir, path)
}

fn run(path: &Path, from: &Path) -> Result<Imported, LedgerError> {
    let redact = |text: &str| text.replace("hunter2", "[redacted]");
    import(path, Options::new(), from, &redact, &as_it_is)
}

fn sound(path: &Path) {
    let found = check(path, Options::new(), Depth::Pages).unwrap();
    assert_eq!(found.problems, []);
}

/// The rows of an export, without the leases.
fn rows(text: &str) -> Vec<Value> {
    text.lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .filter(|line| line["table"] != "leases" && line["blake3"].is_null())
        .collect()
}

/// The same as an import has to bring them back: where an `up` was under way, its agent may have worked since.
fn later(text: &str) -> Vec<Value> {
    let under_way = ["requested", "provisioning", "repo_syncing", "installing"];
    let mut rows = rows(text);
    for row in rows.iter_mut().filter(|row| row["table"] == "sessions") {
        let state = row["value"]["state"].as_str().unwrap();
        if under_way.contains(&state) {
            row["value"]["agent_started"] = true.into();
        }
    }
    rows
}

fn fences(text: &str) -> Vec<u64> {
    text.lines()
        .filter(|line| line.contains("\"table\":\"leases\""))
        .map(|line| {
            serde_json::from_str::<Value>(line).unwrap()["value"]["fence"]
                .as_u64()
                .unwrap()
        })
        .collect()
}

#[test]
fn an_export_comes_back_as_it_was_and_no_fence_goes_down() {
    let world = full();
    let text = exported(&world.ledger);
    assert_eq!(exported(&world.ledger), text, "equal ledgers, equal bytes");
    let (dir, path) = empty();
    let file = dir.path().join("export.jsonl");
    fs::write(&file, &text).unwrap();
    let done = run(&path, &file).unwrap();
    assert_eq!(
        done,
        Imported::Done {
            sessions: 15,
            left_out: 0,
            moved: None
        }
    );
    assert_eq!(
        fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );
    sound(&path);
    let ledger = Ledger::open(&path, options_of(&world.clock)).unwrap();
    let back = exported(&ledger);
    assert_eq!(rows(&back), later(&text));
    assert_ne!(rows(&back), rows(&text));
    assert_eq!(ledger.id(), world.ledger.id());
    let (before, after) = (fences(&text), fences(&back));
    assert_eq!(before.len(), after.len());
    assert!(
        before
            .iter()
            .zip(&after)
            .all(|(before, after)| after > before)
    );
    let list = |ledger: &Ledger| {
        let query = ListQuery {
            owner: None,
            states: Vec::new(),
            ended_since: None,
            limit: 100,
        };
        ledger.read(|snapshot| snapshot.list(&query)).unwrap()
    };
    assert_eq!(list(&ledger), list(&world.ledger));
}

/// Sandboxes may have seen the fences of a ledger that was imported in between, or the time itself.
#[test]
fn the_fences_of_an_import_are_above_all_that_were_taken_before_it() {
    let world = full();
    let (dir, path) = empty();
    let file = dir.path().join("backup");
    world.ledger.backup(&file).unwrap();
    world.clock.advance(Duration::from_secs(3600));
    import(
        &path,
        options_of(&world.clock),
        &file,
        &str::to_owned,
        &as_it_is,
    )
    .unwrap();
    let ledger = Ledger::open(&path, options_of(&world.clock)).unwrap();
    let now = BEGUN + 3_600_000;
    assert!(fences(&exported(&ledger)).iter().all(|fence| *fence >= now));
    let admission = ledger.write(|tx| tx.admit(&request("me", "new"), "f", "sbx_new", "me"));
    let Admission::Run(grant) = admission.unwrap() else {
        panic!("it is new")
    };
    assert!(grant.token.fence >= now);
}

/// Neither the time nor the backup says how often leases were taken since: what was given out is kept beside the ledger.
#[test]
fn fences_grow_without_the_clocks_help() {
    let world = full();
    let file = world.dir.path().join("backup");
    world.ledger.backup(&file).unwrap();
    let restored = || {
        fs::remove_file(world.path()).unwrap();
        import(
            &world.path(),
            options_of(&world.clock),
            &file,
            &str::to_owned,
            &as_it_is,
        )
        .unwrap();
        world.other(|_| {})
    };
    let ready = SessionId::derive("me", "r3");
    let mut given = 0;
    for _ in 0..3 {
        world.clock.set_back(Duration::from_secs(3600));
        let ledger = restored();
        assert!(
            fences(&exported(&ledger))
                .iter()
                .all(|fence| *fence > given)
        );
        let why = error("ERR_INTERRUPTED");
        let taken = ledger.write(|tx| tx.acquire(&ready, Action::Down, "me", &why));
        let (Acquired::Run(grant) | Acquired::Resume(grant)) = taken.unwrap() else {
            panic!("it is free")
        };
        given = ledger.next_fence();
        assert!(given > grant.token.fence);
        assert!(ledger.next_fence() > given);
        given += 1;
    }
}

/// A ledger that was moved aside and is put back takes its leases above what its stand-in has given out meanwhile.
#[test]
fn fences_are_above_those_of_a_ledger_that_stood_in() {
    let world = full();
    let aside = world.path().with_extension("aside");
    let ready = SessionId::derive("me", "r3");
    fs::rename(world.path(), &aside).unwrap();
    world.clock.advance(Duration::from_secs(3600));
    let given = world.other(|_| {}).next_fence();
    fs::rename(&aside, world.path()).unwrap();
    let ledger = world.other(|_| {});
    let why = error("ERR_INTERRUPTED");
    let taken = ledger.write(|tx| tx.acquire(&ready, Action::Down, "me", &why));
    let (Acquired::Run(grant) | Acquired::Resume(grant)) = taken.unwrap() else {
        panic!("it is free")
    };
    assert!(grant.token.fence > given);
}

#[test]
fn a_backup_comes_back_too() {
    let world = full();
    let (dir, path) = empty();
    let file = dir.path().join("backup");
    world.ledger.backup(&file).unwrap();
    let done = run(&path, &file).unwrap();
    assert_eq!(
        done,
        Imported::Done {
            sessions: 15,
            left_out: 0,
            moved: None
        }
    );
    sound(&path);
    let ledger = Ledger::open(&path, Options::new()).unwrap();
    let (text, back) = (exported(&world.ledger), exported(&ledger));
    assert_eq!(rows(&back), later(&text));
    assert_ne!(rows(&back), rows(&text));
    assert!(fences(&text).iter().zip(fences(&back)).all(|(a, b)| *a < b));
}

#[test]
fn the_same_file_twice_is_one_import_and_another_is_refused() {
    let world = full();
    let (dir, path) = empty();
    let file = dir.path().join("export.jsonl");
    fs::write(&file, exported(&world.ledger)).unwrap();
    run(&path, &file).unwrap();
    let before = exported(&Ledger::open_read(&path, Options::new()).unwrap());
    assert_eq!(
        run(&path, &file).unwrap(),
        Imported::Again {
            sessions: 15,
            left_out: 0
        }
    );
    let other = dir.path().join("other.jsonl");
    world.up(&request("me", "one more"));
    fs::write(&other, exported(&world.ledger)).unwrap();
    let backup = dir.path().join("backup");
    world.ledger.backup(&backup).unwrap();
    let taken = |is_copy, unfinished| Imported::Taken {
        is_copy,
        unfinished,
    };
    let unfinished = |path| {
        let done = run(path, &other).unwrap();
        let Imported::Taken { unfinished, .. } = done else {
            panic!("{done:?}")
        };
        unfinished
    };
    let now = unfinished(&path);
    for copy in [&other, &backup] {
        assert_eq!(run(&path, copy).unwrap(), taken(true, now));
        assert_eq!(run(&world.path(), copy).unwrap(), taken(true, now + 1));
    }
    let predecessors = dir.path().join("sessions.json");
    fs::write(&predecessors, predecessor().to_string()).unwrap();
    assert_eq!(run(&path, &predecessors).unwrap(), taken(false, now));
    let after = exported(&Ledger::open_read(&path, Options::new()).unwrap());
    assert_eq!(after, before);
}

#[test]
fn an_empty_ledger_gives_way() {
    let world = full();
    let (dir, path) = empty();
    let open = Ledger::open(&path, Options::new()).unwrap();
    let file = dir.path().join("export.jsonl");
    fs::write(&file, exported(&world.ledger)).unwrap();
    assert!(matches!(run(&path, &file).unwrap(), Imported::Done { .. }));
    // Who had the empty one open is told, instead of writing where it does not belong.
    let error = open
        .write(|tx| tx.admit(&request("me", "r"), "f", "s", "me").map(drop))
        .unwrap_err();
    assert_eq!(kind(&error), "unavailable");
    sound(&path);
}

#[test]
fn a_file_that_was_changed_or_cut_is_refused_and_nothing_is_made() {
    let world = full();
    let text = exported(&world.ledger);
    let (dir, path) = empty();
    let file = dir.path().join("export.jsonl");
    let lines: Vec<&str> = text.lines().collect();
    let without_one = [&lines[..3], &lines[4..]].concat().join("\n") + "\n";
    let damaged = [
        String::new(),
        "{}".to_owned(),
        "[]".to_owned(),
        "not json".to_owned(),
        text[..text.len() / 2].to_owned(),
        text[..text.len() - 1].to_owned(),
        lines[..lines.len() - 1].join("\n") + "\n",
        text.replacen("\"reason\":\"test\"", "\"reason\":\"best\"", 1),
        text.replacen("\"schema\":1", "\"schema\":2", 1),
        without_one,
        "{\"schema_version\":\"v2\",\"sessions\":{}}".to_owned(),
    ];
    for bytes in damaged {
        fs::write(&file, &bytes).unwrap();
        let done = run(&path, &file).unwrap();
        assert!(
            matches!(done, Imported::Refused { .. }),
            "{done:?}: {bytes}"
        );
        assert!(!path.exists());
    }
}

const STATES: [&str; 14] = [
    "requested",
    "provisioning",
    "repo_syncing",
    "installing",
    "ready",
    "failing",
    "stopping",
    "persisting",
    "stopped_unpersisted",
    "persist_failed",
    "cleanup_failed",
    "close_failed",
    "stopped",
    "failed",
];

fn id(number: usize) -> String {
    format!("ses_{number:016x}")
}

/// The predecessor's file: a session in every state, without and with a durable object.
fn predecessor() -> Value {
    let mut sessions = serde_json::Map::new();
    let mut idempotency = serde_json::Map::new();
    let mut objects = serde_json::Map::new();
    for (number, state) in STATES.iter().chain(&STATES).enumerate() {
        let (session, up) = (id(number), format!("op_{number:016x}"));
        let mut record = json!({
            "schema_version": "v1",
            "session_id": session,
            "principal_id": "team:me",
            "owner_principal_id": "team:me",
            "repo_url": "https://example.com/repo.git",
            "branch": "main",
            "opencode_url": "http://127.0.0.1:4096",
            "state": state,
            "state_transitions": [
                {"state": "requested", "timestamp": "2025-01-02T03:04:05Z", "actor": "team:me",
                 "reason": "with hunter2", "operation_id": up},
                {"state": state, "timestamp": "2025-01-02T03:05:00Z", "actor": "team:me",
                 "reason": "up", "operation_id": up},
            ],
            "operation_history": [
                {"operation_id": up, "idempotency_key": format!("up:team:me:r{number}"), "action": "up",
                 "started_at": "2025-01-02T03:04:05Z", "completed_at": "2025-01-02T03:05:00Z",
                 "terminal_state": state},
            ],
            "started_at": "2025-01-02T03:04:05Z",
            "updated_at": "2025-01-02T03:05:00+00:00",
            "lock": {"operation_id": up, "lease_expires_at": "2025-01-02T03:06:00Z"},
        });
        if number >= STATES.len() {
            record["durable_object_id"] = json!(format!("obj_{number}"));
            record["persist_attempt"] = json!(2);
            record["persisted_at"] = json!("2025-01-02T03:04:59Z");
            objects.insert(
                session.clone(),
                json!({
                    "durable_object_id": format!("obj_{number}"),
                    "persisted_at": "2025-01-02T03:04:59Z",
                    "payload": {"schema_version": "v1", "session_id": session},
                }),
            );
        }
        if *state == "failed" {
            record["last_error"] = json!({"error_code": "ERR_INSTALL_FAILED", "cause": "no hunter2",
                "next_step": "try again", "retryable": false, "operation_id": up});
        }
        sessions.insert(session.clone(), record);
        idempotency.insert(
            format!("up:team:me:r{number}"),
            json!({"operation_id": up,
            "session_id": session, "action": "up", "request_fingerprint": "abc"}),
        );
        idempotency.insert(
            format!("down:{session}:1"),
            json!({"operation_id": up,
            "session_id": session, "action": "down", "request_fingerprint": "abc"}),
        );
    }
    // Nothing but what has to be there.
    let bare = id(99);
    sessions.insert(
        bare.clone(),
        json!({"schema_version": "v1", "session_id": bare,
        "principal_id": "you", "state": "ready"}),
    );
    json!({"schema_version": "v1", "sessions": sessions, "idempotency": idempotency,
        "durable_objects": objects})
}

#[test]
fn the_predecessors_sessions_come_along() {
    let (dir, path) = empty();
    let file = dir.path().join("sessions.json");
    fs::write(&file, predecessor().to_string()).unwrap();
    assert_eq!(
        run(&path, &file).unwrap(),
        Imported::Done {
            sessions: 29,
            left_out: 0,
            moved: None
        }
    );
    sound(&path);
    let ledger = Ledger::open(&path, Options::new()).unwrap();
    assert!(!exported(&ledger).contains("hunter2"));
    for (number, state) in STATES.iter().chain(&STATES).enumerate() {
        let session = SessionId::from_recorded(id(number));
        let record = ledger
            .read(|snapshot| snapshot.session(&session))
            .unwrap()
            .unwrap();
        let stored = number >= STATES.len();
        let may_be_stored = [
            "ready",
            "stopping",
            "persisting",
            "stopped_unpersisted",
            "persist_failed",
            "close_failed",
        ]
        .contains(state);
        let expected = if *state == "stopped" || (stored && may_be_stored) {
            State::Stopped
        } else {
            State::Failed
        };
        assert_eq!(record.state, expected, "{number} {state}");
        assert_eq!(record.opencode_url, None);
        assert_eq!(record.persistence_verified, stored);
        assert_eq!(record.durable_object_id.is_some(), stored);
        assert!(!record.destroy_pending);
        legal_from(&ledger, &session, state);
        let operations = ledger
            .read(|snapshot| snapshot.operations(&session))
            .unwrap();
        assert_eq!(
            operations[0].operation_id.as_str(),
            format!("op_{number:016x}")
        );
        assert!(
            operations
                .iter()
                .all(|one| one.completed_at.is_some() && one.state != OperationState::Running)
        );
        replays(&ledger, number, expected);
    }
}

/// The transitions after the recorded ones are edges of the table, and say why.
#[track_caller]
fn legal_from(ledger: &Ledger, session: &SessionId, state: &str) {
    let all = ledger
        .read(|snapshot| snapshot.transitions(session))
        .unwrap();
    assert_eq!(all[1].state, State::parse(state).unwrap());
    for pair in all[1..].windows(2) {
        assert!(pair[0].state.may_become(pair[1].state), "{pair:?}");
        assert_eq!(pair[1].reason, "imported");
    }
}

/// The same request gives what was recorded; another one under its id is refused.
#[track_caller]
fn replays(ledger: &Ledger, number: usize, state: State) {
    let new = request("team:me", &format!("r{number}"));
    let admitted = ledger
        .write(|tx| tx.admit(&new, "f", "s", "team:me"))
        .unwrap();
    match admitted {
        Admission::Replay(session, operation) => {
            assert_eq!(state, State::Failed);
            assert_eq!(session.session_id.as_str(), id(number));
            assert!(operation.error.is_some() || session.last_error.is_some());
        }
        Admission::Conflict(Conflict::Ended(session)) => {
            assert_eq!(state, State::Stopped);
            assert_eq!(session.session_id.as_str(), id(number));
        }
        other @ (Admission::Run(_)
        | Admission::Resume(_)
        | Admission::Wait(..)
        | Admission::Conflict(_)) => panic!("{other:?}"),
    }
    let mut other = new;
    other.branch = "other".to_owned();
    let admitted = ledger
        .write(|tx| tx.admit(&other, "f", "s", "team:me"))
        .unwrap();
    assert!(matches!(
        admitted,
        Admission::Conflict(Conflict::OtherRequest(_))
    ));
}

#[test]
fn what_was_imported_is_kept_from_then_on_however_old_it_is() {
    let (dir, path) = empty();
    let file = dir.path().join("sessions.json");
    fs::write(&file, predecessor().to_string()).unwrap();
    let clock = World::new().clock;
    import(&path, options_of(&clock), &file, &str::to_owned, &as_it_is).unwrap();
    let ledger = Ledger::open(&path, options_of(&clock)).unwrap();
    let gone = || ledger.retain(&Retention::default(), 100).unwrap().sessions;
    clock.advance(Duration::from_secs(24 * 60 * 60) * 90);
    assert_eq!(gone(), 0);
    clock.advance(Duration::from_secs(1));
    assert_eq!(gone(), 29);
    sound(&path);
    assert!(!exported(&ledger).contains("\"table\":\"requests\""));
}

#[test]
fn an_imported_request_is_its_own_principals() {
    let (dir, path) = empty();
    let file = dir.path().join("sessions.json");
    let mut old = predecessor();
    let of = |number: usize| json!({"session_id": id(number)});
    // One is failed, and so is replayed.
    old["sessions"][id(13)]["principal_id"] = json!("ci:main");
    old["idempotency"] = json!({"up:ci:main:req-9": of(13), "up:bot:req-9": of(0)});
    fs::write(&file, old.to_string()).unwrap();
    run(&path, &file).unwrap();
    sound(&path);
    let ledger = Ledger::open(&path, Options::new()).unwrap();
    let admit = |who: &str| {
        let new = request(who, "req-9");
        ledger.write(|tx| tx.admit(&new, "f", "s", who)).unwrap()
    };
    for (who, number) in [("ci:main", 13), ("bot", 0)] {
        let admitted = admit(who);
        let Admission::Replay(session, operation) = admitted else {
            panic!("{who}: {admitted:?}")
        };
        assert_eq!(session.session_id.as_str(), id(number));
        assert_eq!(session.new.owner, "team:me");
        // What a failure exits with follows from its code.
        assert_eq!(
            operation.error.map(|error| error.exit_code),
            Some(u8::from(number == 0))
        );
    }
    assert!(matches!(admit("team:me"), Admission::Run(_)));
}

#[test]
fn imported_sessions_are_found_and_listed() {
    let (dir, path) = empty();
    let file = dir.path().join("sessions.json");
    fs::write(&file, predecessor().to_string()).unwrap();
    run(&path, &file).unwrap();
    let ledger = Ledger::open_read(&path, Options::new()).unwrap();
    let find = |given: &str| ledger.read(|snapshot| snapshot.find(None, given)).unwrap();
    let bare = SessionId::from_recorded(id(99));
    assert_eq!(find(&id(99)), Found::One(bare.clone()));
    assert_eq!(find("ses_000000000000006"), Found::One(bare));
    assert!(matches!(find("ses_0000"), Found::Ambiguous(_)));
    let query = ListQuery {
        owner: Some("team:me".to_owned()),
        states: Vec::new(),
        ended_since: None,
        limit: 100,
    };
    let page = ledger.read(|snapshot| snapshot.list(&query)).unwrap();
    assert_eq!(page.sessions.len(), 28);
    assert!(
        page.sessions
            .iter()
            .all(|session| session.opencode_url.is_none())
    );
}

#[test]
fn the_predecessors_file_is_replaced_where_it_stands_and_kept() {
    let (_dir, path) = empty();
    let bytes = predecessor().to_string();
    let kept = path.with_file_name("ledger.redb.predecessor");
    fs::write(&path, &bytes).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    let error = Ledger::open(&path, Options::new()).unwrap_err();
    assert_eq!(kind(&error), "predecessor");
    // An import that was killed after it had made the second name is carried on.
    fs::hard_link(&path, &kept).unwrap();
    let done = run(&path, &path).unwrap();
    assert_eq!(
        done,
        Imported::Done {
            sessions: 29,
            left_out: 0,
            moved: Some(kept.clone())
        }
    );
    assert_eq!(fs::read_to_string(&kept).unwrap(), bytes);
    sound(&path);
    assert_eq!(
        run(&path, &kept).unwrap(),
        Imported::Again {
            sessions: 29,
            left_out: 0
        }
    );
}

#[test]
fn a_ledger_is_not_imported_into_itself() {
    let world = full();
    let link = world.dir.path().join("link");
    std::os::unix::fs::symlink(world.path(), &link).unwrap();
    let before = exported(&world.ledger);
    for from in [&world.path(), &link] {
        let done = run(&world.path(), from).unwrap();
        assert!(matches!(done, Imported::Refused { .. }), "{done:?}");
    }
    assert_eq!(exported(&world.ledger), before);
    // Nor is an export that stands in its place.
    let (_dir, path) = empty();
    fs::write(&path, &before).unwrap();
    let done = run(&path, &path).unwrap();
    assert!(matches!(done, Imported::Refused { .. }), "{done:?}");
    assert_eq!(fs::read_to_string(&path).unwrap(), before);
}

#[test]
fn a_pipe_is_not_waited_for() {
    let (dir, path) = empty();
    let pipe = dir.path().join("pipe");
    rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RUSR).unwrap();
    let done = run(&path, &pipe).unwrap();
    assert!(matches!(done, Imported::Refused { .. }), "{done:?}");
}

/// What has to be true of the ledger's own file has not of a backup, and neither is written.
#[test]
fn a_backup_is_taken_through_a_link_whoever_may_read_it() {
    let world = full();
    let (dir, path) = empty();
    let (file, link) = (dir.path().join("backup"), dir.path().join("latest"));
    world.ledger.backup(&file).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o444)).unwrap();
    fs::hard_link(&file, dir.path().join("another")).unwrap();
    std::os::unix::fs::symlink(&file, &link).unwrap();
    let before = fs::read(&file).unwrap();
    let done = run(&path, &link).unwrap();
    assert!(matches!(done, Imported::Done { sessions: 15, .. }));
    assert_eq!(fs::read(&file).unwrap(), before);
    sound(&path);
    assert_eq!(
        run(&path, &file).unwrap(),
        Imported::Again {
            sessions: 15,
            left_out: 0
        }
    );
}

#[test]
fn a_damaged_backup_is_not_taken_for_a_damaged_ledger() {
    let world = full();
    let (dir, path) = empty();
    let file = dir.path().join("backup");
    world.ledger.backup(&file).unwrap();
    let mut bytes = fs::read(&file).unwrap();
    let wanted = b"https://example.com/repo.git";
    let places = 0..bytes.len() - wanted.len();
    for at in places {
        if bytes[at..].starts_with(wanted) {
            bytes[at] ^= 1;
        }
    }
    for damaged in [&bytes[..], &bytes[..4096]] {
        fs::write(&file, damaged).unwrap();
        let done = run(&path, &file).unwrap();
        let Imported::Refused { what } = done else {
            panic!("{done:?}")
        };
        assert!(what.starts_with("it is damaged: "), "{what}");
        assert!(!path.exists());
    }
}

#[test]
fn what_is_empty_may_be_null() {
    let (dir, path) = empty();
    let file = dir.path().join("sessions.json");
    let bare = json!({"schema_version": "v1", "session_id": id(1), "principal_id": "me", "state": "ready"});
    let with = |session: Value| json!({"schema_version": "v1", "sessions": {id(1): session}});
    let imported = |document: &Value| {
        fs::write(&file, document.to_string()).unwrap();
        let done = run(&path, &file).unwrap();
        let Imported::Done { sessions, .. } = done else {
            panic!("{done:?}: {document}")
        };
        sound(&path);
        fs::remove_file(&path).unwrap();
        sessions
    };
    for field in [
        "owner_principal_id",
        "repo_url",
        "branch",
        "target_commit_sha",
        "opencode_url",
        "browser_opened",
        "state_transitions",
        "operation_history",
        "last_error",
        "started_at",
        "durable_object_id",
        "persist_attempt",
        "history_truncated",
        "lock",
    ] {
        let mut session = bare.clone();
        session[field] = Value::Null;
        assert_eq!(imported(&with(session)), 1, "{field}");
    }
    let mut session = bare.clone();
    session["operation_history"] =
        json!([{"operation_id": "op_1", "action": "up", "terminal_state": null}]);
    session["state_transitions"] =
        json!([{"state": "ready", "actor": null, "reason": null, "operation_id": null}]);
    session["last_error"] = json!({"error_code": null, "cause": null, "retryable": null});
    assert_eq!(imported(&with(session)), 1);
    for field in ["sessions", "idempotency", "durable_objects"] {
        let mut document = json!({"schema_version": "v1"});
        document[field] = Value::Null;
        assert_eq!(imported(&document), 0, "{field}");
    }
}

#[test]
fn what_is_of_no_session_is_counted() {
    let (dir, path) = empty();
    let file = dir.path().join("sessions.json");
    let mut old = predecessor();
    let of =
        |session: String| json!({"operation_id": "op_1", "session_id": session, "action": "up"});
    old["idempotency"]["up:me:lost"] = of(id(1000));
    old["idempotency"]["sideways"] = of(id(1));
    old["idempotency"]["up:me:found"] = of(id(1));
    old["durable_objects"][id(1000)] = json!({"durable_object_id": "obj_1", "payload": {}});
    old["durable_objects"][id(1)] = json!({"payload": {}});
    fs::write(&file, old.to_string()).unwrap();
    let done = run(&path, &file).unwrap();
    assert!(
        matches!(done, Imported::Done { left_out: 4, .. }),
        "{done:?}"
    );
    let again = run(&path, &file).unwrap();
    assert!(
        matches!(again, Imported::Again { left_out: 4, .. }),
        "{again:?}"
    );
}

/// Whatever an import takes is told to be imported, and nothing else is.
#[test]
fn a_predecessors_file_without_sessions_is_known_as_one() {
    for (text, known) in [
        (r#"{"schema_version": "v1"}"#, "predecessor"),
        (
            r#"{"schema_version": "v1", "sessions": null}"#,
            "predecessor",
        ),
        (
            r#"{"schema_version": "v1", "sessions": []}"#,
            "incompatible",
        ),
        (r#"{"colour": "blue"}"#, "incompatible"),
    ] {
        let (_dir, path) = empty();
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let error = Ledger::open(&path, Options::new()).unwrap_err();
        assert_eq!(kind(&error), known, "{text}");
        let done = run(&path, &path).unwrap();
        let is_done = matches!(done, Imported::Done { sessions: 0, .. });
        assert_eq!(is_done, known == "predecessor", "{text}: {done:?}");
    }
}

#[test]
fn a_predecessors_file_that_makes_no_sense_is_refused() {
    let (dir, path) = empty();
    let file = dir.path().join("sessions.json");
    let good = predecessor();
    let session = id(0);
    let cases: [(&str, Value); 5] = [
        ("state", json!("dreaming")),
        ("session_id", json!("ses_other")),
        ("owner_principal_id", json!(7)),
        ("started_at", json!("yesterday")),
        ("operation_history", json!([{"operation_id": "../../etc"}])),
    ];
    for (field, value) in cases {
        let mut bad = good.clone();
        bad["sessions"][&session][field] = value;
        fs::write(&file, bad.to_string()).unwrap();
        let done = run(&path, &file).unwrap();
        assert!(
            matches!(done, Imported::Refused { .. }),
            "{field}: {done:?}"
        );
        assert!(!path.exists());
    }
}
