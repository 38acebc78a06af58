//! The main job: up, list, status, down, as scripts and as people see it.

use crate::support::{World, document, text, with_json};
use alpine_ledger::SessionId;
use expect_test::expect;
use serde_json::Value;
use std::collections::HashMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;
use std::time::Duration;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

#[test]
fn as_json() {
    let world = World::new();
    let up = with_json(&world.up("job-1"));
    world.check(&up, &expect![[r#"
        status 0
        --- stdout
        {"schema_version":"v1",
          "session_id":"ses_c3017c34d6d15e59ad73c863f26a7fd2",
          "operation_id":"op_b51e4043e9fc53c5ac251bf227318e13",
          "state":"ready",
          "opencode_url":"http://127.0.0.1:9/sbx_c3017c34d6d15e59ad73c863f26a7fd2",
          "open_url":"http://127.0.0.1:9/sbx_c3017c34d6d15e59ad73c863f26a7fd2/open?token=fake-link-1-sbx_c3017c34d6d15e59ad73c863f26a7fd2",
          "agent":"page",
          "provider":"fake",
          "isolation":{"layers":[],
          "limits":{},
          "missing":[],
          "tier":"process"},
          "ready_at":"2030-01-01T00:00:00.000Z",
          "browser_opened":false,
          "target_commit_sha":"$HEAD",
          "workspace_path":"$ROOT/fake/workspaces/sbx_c3017c34d6d15e59ad73c863f26a7fd2",
          "client_request_id":"job-1",
          "reused":false,
          "step_ms":{"install":0,
          "probe":0,
          "provision":0,
          "resolve":0,
          "start_agent":0,
          "sync_repo":0},
          "warnings":["isolation is `process`: the install step and the agent run as you, with your files and your network",
          "the browser was not opened: `--no-browser` was given"]}
        --- stderr
    "#]]);
    world.check(
        &["list", "--json"],
        &expect![[r#"
        status 0
        --- stdout
        {"schema_version":"v1",
          "sessions":[{"session_id":"ses_c3017c34d6d15e59ad73c863f26a7fd2",
          "name":null,
          "state":"ready",
          "repo_url":"$ROOT/repos/r0",
          "branch":"main",
          "provider":"fake",
          "opencode_url":"http://127.0.0.1:9/sbx_c3017c34d6d15e59ad73c863f26a7fd2",
          "updated_at":"2030-01-01T00:00:00.000Z",
          "owner_principal_id":"tester",
          "next_step":"alpine open ses_c3017c34d6d15e59ad73c863f26a7fd2"}],
          "truncated":false}
        --- stderr
    "#]],
    );
    let session = SessionId::derive("tester", "job-1");
    let session = session.as_str();
    world.check(
        &["down", session, "--json"],
        &expect![[r#"
        status 0
        --- stdout
        {"schema_version":"v1",
          "session_id":"ses_c3017c34d6d15e59ad73c863f26a7fd2",
          "operation_id":"op_c133937c2f4d557a99e89b7eb1d1f6b2",
          "state":"stopped",
          "durable_object_id":"$OBJECT",
          "persisted_at":"2030-01-01T00:00:00.000Z",
          "persistence_verified":true,
          "history_truncated":false,
          "workspace_snapshot":{"digest":"$DIGEST",
          "entries":3,
          "left_out":{"count":0,
          "first":[]},
          "size":$SIZE},
          "workspace_snapshot_reason":null,
          "last_error":null,
          "next_step":null}
        --- stderr
    "#]],
    );
    world.check(
        &["down", session, "--json"],
        &expect![[r#"
        status 0
        --- stdout
        {"schema_version":"v1",
          "session_id":"ses_c3017c34d6d15e59ad73c863f26a7fd2",
          "operation_id":"op_c133937c2f4d557a99e89b7eb1d1f6b2",
          "state":"stopped",
          "durable_object_id":"$OBJECT",
          "persisted_at":"2030-01-01T00:00:00.000Z",
          "persistence_verified":true,
          "history_truncated":false,
          "workspace_snapshot":{"digest":"$DIGEST",
          "entries":3,
          "left_out":{"count":0,
          "first":[]},
          "size":$SIZE},
          "workspace_snapshot_reason":null,
          "last_error":null,
          "next_step":null}
        --- stderr
    "#]],
    );
    world.check_when("\"observed\":{", &["status", session, "--json"], &expect![[r#"
        status 0
        --- stdout
        {"schema_version":"v1",
          "session_id":"ses_c3017c34d6d15e59ad73c863f26a7fd2",
          "name":null,
          "owner_principal_id":"tester",
          "client_request_id":"job-1",
          "state":"stopped",
          "repo_url":"$ROOT/repos/r0",
          "branch":"main",
          "target_commit_sha":"$HEAD",
          "provider":"fake",
          "provider_version":"1.0.0",
          "isolation":{"layers":[],
          "limits":{},
          "missing":[],
          "tier":"process"},
          "agent":"page",
          "opencode_url":null,
          "workspace_path":null,
          "started_at":"2030-01-01T00:00:00.000Z",
          "ready_at":"2030-01-01T00:00:00.000Z",
          "stopped_at":"2030-01-01T00:00:00.000Z",
          "persisted_at":"2030-01-01T00:00:00.000Z",
          "updated_at":"2030-01-01T00:00:00.000Z",
          "operation_id":"op_c133937c2f4d557a99e89b7eb1d1f6b2",
          "lease":null,
          "last_transition":{"state":"stopped",
          "timestamp":"2030-01-01T00:00:00.000Z",
          "actor":"tester",
          "reason":"the durable object was verified",
          "operation_id":"op_c133937c2f4d557a99e89b7eb1d1f6b2"},
          "last_error":null,
          "observed":{"state":"missing",
          "at":"2030-01-01T00:00:00.000Z"},
          "durable_object_id":"$OBJECT",
          "persistence_verified":true,
          "history_truncated":false,
          "workspace_snapshot":{"digest":"$DIGEST",
          "entries":3,
          "left_out":{"count":0,
          "first":[]},
          "size":$SIZE},
          "workspace_snapshot_reason":null,
          "destroy_pending":false,
          "warnings":["isolation is `process`: the install step and the agent run as you, with your files and your network",
          "the browser was not opened: `--no-browser` was given"],
          "next_step":null}
        --- stderr
    "#]]);
    world.assert_nothing_left();
}

#[test]
fn for_people() {
    let world = World::new();
    let mut up = world.up("job-2");
    up.extend(["--name", "hello"]);
    world.check(&up, &expect![[r#"
        status 0
        --- stdout
        session     ses_bb779cd90bca5b85901cc03069b3e4a9 (ready)
        url         http://127.0.0.1:9/sbx_bb779cd90bca5b85901cc03069b3e4a9
        open        http://127.0.0.1:9/sbx_bb779cd90bca5b85901cc03069b3e4a9/open?token=fake-link-1-sbx_bb779cd90bca5b85901cc03069b3e4a9  (works once, for 1m)
        workspace   $ROOT/fake/workspaces/sbx_bb779cd90bca5b85901cc03069b3e4a9
        commit      $HEAD
        agent       page
        provider    fake (isolation: process)
        request id  job-2

        another link:  alpine open ses_bb779cd90bca5b85901cc03069b3e4a9
        run a command: alpine exec ses_bb779cd90bca5b85901cc03069b3e4a9 -- git status
        bring it down: alpine down ses_bb779cd90bca5b85901cc03069b3e4a9
        --- stderr
        session ses_bb779cd90bca5b85901cc03069b3e4a9
        resolve: done in 0.0 s
        provision: done in 0.0 s
        warning: isolation is `process`: the install step and the agent run as you, with your files and your network
        sync_repo: done in 0.0 s
        install: done in 0.0 s
        start_agent: done in 0.0 s
        probe: done in 0.0 s
        warning: the browser was not opened: `--no-browser` was given
    "#]]);
    world.env.clock().advance(Duration::from_secs(90));
    world.check(&["list"], &expect![[r#"
        status 0
        --- stdout
        SESSION  NAME  STATE  REPOSITORY  BRANCH  UPDATED  NEXT
        ses_bb779cd90bca5b85901cc03069b3e4a9  hello  ready  $ROOT/repos/r0  main    1 minute ago  alpine open ses_bb779cd90bca5b85901cc03069b3e4a9
        --- stderr
    "#]]);
    world.check(&["open", "hello"], &expect![[r#"
        status 0
        --- stdout
        http://127.0.0.1:9/sbx_bb779cd90bca5b85901cc03069b3e4a9/open?token=fake-link-2-sbx_bb779cd90bca5b85901cc03069b3e4a9
        --- stderr
        the browser was not opened: there is no display (neither `DISPLAY` nor `WAYLAND_DISPLAY` is set)
    "#]]);
    world.check(
        &["down", "hello"],
        &expect![[r#"
            status 0
            --- stdout
            session     ses_bb779cd90bca5b85901cc03069b3e4a9 (stopped)
            object      $OBJECT (read back and verified)
            workspace   $SIZE B, 3 files and directories
            --- stderr
            session ses_bb779cd90bca5b85901cc03069b3e4a9
            stop: done in 0.0 s
            capture: done in 0.0 s
            persist: done in 0.0 s
            verify: done in 0.0 s
            destroy: done in 0.0 s
        "#]],
    );
    let session = SessionId::derive("tester", "job-2");
    world.check(
        &["down", session.as_str()],
        &expect![[r#"
            status 0
            --- stdout
            session     ses_bb779cd90bca5b85901cc03069b3e4a9 (stopped)
            object      $OBJECT (read back and verified)
            workspace   $SIZE B, 3 files and directories
            --- stderr
        "#]],
    );
    world.check_when(
        "sandbox ",
        &["status", session.as_str()],
        &expect![[r#"
            status 0
            --- stdout
            session      ses_bb779cd90bca5b85901cc03069b3e4a9
            name         hello
            owner        tester
            state        stopped (the durable object was verified)
            repository   $ROOT/repos/r0
            branch       main
            commit       $HEAD
            provider     fake 1.0.0
            isolation    process
            agent        page
            started      2030-01-01T00:00:00.000Z (1 minute ago)
            ready        2030-01-01T00:00:00.000Z (1 minute ago)
            stopped      2030-01-01T00:01:30.000Z (just now)
            persisted    2030-01-01T00:01:30.000Z (just now)
            updated      2030-01-01T00:01:30.000Z (just now)
            sandbox      missing
            object       $OBJECT
            --- stderr
        "#]],
    );
    world.assert_nothing_left();
}

/// What a field of a document may be.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Text,
    OptionalText,
    Time,
    OptionalTime,
    Flag,
    Object,
    OptionalObject,
    List,
}

impl Kind {
    fn takes(self, value: &Value) -> bool {
        match self {
            Kind::Text => value.as_str().is_some_and(|text| !text.is_empty()),
            Kind::OptionalText => value.is_null() || Kind::Text.takes(value),
            Kind::Time => value.as_str().is_some_and(is_time),
            Kind::OptionalTime => value.is_null() || Kind::Time.takes(value),
            Kind::Flag => value.is_boolean(),
            Kind::Object => value.is_object(),
            Kind::OptionalObject => value.is_null() || value.is_object(),
            Kind::List => value.is_array(),
        }
    }
}

/// RFC 3339, UTC, with milliseconds: `2030-01-01T00:00:00.000Z`.
fn is_time(text: &str) -> bool {
    let pattern = "dddd-dd-ddTdd:dd:dd.dddZ";
    text.len() == pattern.len()
        && text.chars().zip(pattern.chars()).all(|(c, p)| match p {
            'd' => c.is_ascii_digit(),
            exact => c == exact,
        })
}

const UP: [(&str, Kind); 17] = [
    ("schema_version", Kind::Text),
    ("session_id", Kind::Text),
    ("operation_id", Kind::Text),
    ("state", Kind::Text),
    ("opencode_url", Kind::OptionalText),
    ("open_url", Kind::OptionalText),
    ("agent", Kind::Text),
    ("provider", Kind::Text),
    ("isolation", Kind::Object),
    ("ready_at", Kind::Time),
    ("browser_opened", Kind::Flag),
    ("target_commit_sha", Kind::Text),
    ("workspace_path", Kind::OptionalText),
    ("client_request_id", Kind::Text),
    ("reused", Kind::Flag),
    ("step_ms", Kind::Object),
    ("warnings", Kind::List),
];

const DOWN: [(&str, Kind); 11] = [
    ("schema_version", Kind::Text),
    ("session_id", Kind::Text),
    ("operation_id", Kind::OptionalText),
    ("state", Kind::Text),
    ("durable_object_id", Kind::OptionalText),
    ("persisted_at", Kind::OptionalTime),
    ("persistence_verified", Kind::Flag),
    ("history_truncated", Kind::Flag),
    ("workspace_snapshot", Kind::OptionalObject),
    ("last_error", Kind::OptionalObject),
    ("next_step", Kind::OptionalText),
];

const LISTED: [(&str, Kind); 10] = [
    ("session_id", Kind::Text),
    ("name", Kind::OptionalText),
    ("state", Kind::Text),
    ("repo_url", Kind::Text),
    ("branch", Kind::Text),
    ("provider", Kind::Text),
    ("opencode_url", Kind::OptionalText),
    ("updated_at", Kind::Time),
    ("owner_principal_id", Kind::Text),
    ("next_step", Kind::OptionalText),
];

const STATUS: [(&str, Kind); 24] = [
    ("schema_version", Kind::Text),
    ("session_id", Kind::Text),
    ("name", Kind::OptionalText),
    ("owner_principal_id", Kind::Text),
    ("state", Kind::Text),
    ("repo_url", Kind::Text),
    ("branch", Kind::Text),
    ("target_commit_sha", Kind::OptionalText),
    ("provider", Kind::Text),
    ("isolation", Kind::OptionalObject),
    ("opencode_url", Kind::OptionalText),
    ("started_at", Kind::Time),
    ("ready_at", Kind::OptionalTime),
    ("stopped_at", Kind::OptionalTime),
    ("persisted_at", Kind::OptionalTime),
    ("updated_at", Kind::Time),
    ("operation_id", Kind::Text),
    ("lease", Kind::OptionalObject),
    ("last_transition", Kind::Object),
    ("last_error", Kind::OptionalObject),
    ("observed", Kind::OptionalObject),
    ("durable_object_id", Kind::OptionalText),
    ("next_step", Kind::OptionalText),
    ("client_request_id", Kind::Text),
];

#[track_caller]
fn assert_fields(document: &Value, fields: &[(&str, Kind)]) {
    for (name, kind) in fields {
        let value = document.get(*name);
        assert!(
            value.is_some_and(|value| kind.takes(value)),
            "`{name}` has to be {kind:?}: {document:#}"
        );
    }
}

#[test]
fn every_field_of_the_contract_is_there_in_every_state() {
    let world = World::new();
    for (id, agent) in [("page", "page"), ("none", "none")] {
        let up = world.done(&[&world.up(id)[..], &["--agent", agent]].concat());
        assert_fields(&up, &UP);
        assert_eq!(up["opencode_url"].is_null(), agent == "none", "{up:#}");
        assert_eq!(up["open_url"].is_null(), agent == "none", "{up:#}");
        let session = text(&up, "session_id");
        assert_fields(&world.status(&session), &STATUS);
        let listed = world.done(&["list"]);
        assert!(listed["truncated"].is_boolean(), "{listed:#}");
        assert_fields(&listed["sessions"][0], &LISTED);
        assert_fields(&world.done(&["down", &session]), &DOWN);
        assert_fields(&world.status(&session), &STATUS);
    }
    let fault = alpine_testkit::Fault::Error(alpine_provider_api::ErrorKind::InstallFailed);
    world.fake().fault("install", fault, 1);
    world.fails(&world.up("fails"), "ERR_INSTALL_FAILED", 2);
    let session = SessionId::derive("tester", "fails");
    assert_fields(&world.status(session.as_str()), &STATUS);
    assert_fields(&world.done(&["down", session.as_str()]), &DOWN);
}

#[test]
fn the_same_request_again_is_the_same_session() {
    let world = World::new();
    let first = world.done(&world.up("again"));
    let calls = world.fake().calls().len();
    let mut second = world.done(&world.up("again"));
    let made = world.fake().calls().split_off(calls);
    let methods: Vec<_> = made.iter().map(|call| call.method.as_str()).collect();
    assert_eq!(methods, ["open_agent"], "a fresh link and nothing else");
    assert_eq!(
        (&first["reused"], &second["reused"]),
        (&false.into(), &true.into())
    );
    assert_ne!(first["open_url"], second["open_url"], "a fresh link");
    for field in ["reused", "open_url"] {
        second[field] = first[field].clone();
    }
    assert_eq!(first, second);
    world.done(&["down", &text(&first, "session_id")]);
}

#[test]
fn another_request_with_the_same_id_conflicts() {
    let world = World::new();
    let other = world.env.git_repo(&[("other", "repository\n")]);
    world.repo.git(&["branch", "side"]);
    let session = world.ready("taken");
    let id = ["--client-request-id", "taken", "--no-browser"];
    let repo = world.repo_path();
    let others = [
        vec!["up", other.path.to_str().unwrap(), "--branch", "main"],
        vec!["up", repo, "--branch", "side"],
        vec!["up", repo, "--branch", "main", "--provider", "local"],
        vec!["up", repo, "--branch", "main", "--public"],
    ];
    for call in others {
        let failure = world.fails(&[&call[..], &id].concat(), "ERR_OPERATION_CONFLICT", 1);
        assert_eq!(failure["retryable"], false, "{failure:#}");
    }
    assert_eq!(world.fake().sandboxes().len(), 1);
    world.done(&["down", &session]);
    // From the end of the session on, the id itself is used up.
    let failure = world.fails(&world.up("taken"), "ERR_OPERATION_CONFLICT", 1);
    assert_eq!(failure["retryable"], false, "{failure:#}");
}

#[test]
fn a_session_is_named_by_its_id_by_a_prefix_or_by_its_name() {
    let world = World::new();
    let (one, two) = two_ids_with_a_common_prefix();
    let mut up = world.up(&one);
    up.extend(["--name", "my-work"]);
    let first = text(&world.done(&up), "session_id");
    assert_eq!(text(&world.status(&first[..8]), "session_id"), first);
    assert_eq!(text(&world.status("my-work"), "session_id"), first);
    world.fails(&["status", &first[..7]], "ERR_SESSION_NOT_FOUND", 1);
    let second = world.ready(&two);
    let ambiguous = world.fails(&["status", &first[..8]], "ERR_USAGE", 1);
    for id in [&first, &second] {
        assert!(text(&ambiguous, "cause").contains(id), "{ambiguous:#}");
    }
    world.fails(&["down", &first[..8]], "ERR_USAGE", 1);
    let mut taken = world.up("taken-name");
    taken.extend(["--name", "my-work"]);
    world.fails(&taken, "ERR_USAGE", 1);
    world.done(&["down", "my-work"]);
    assert_eq!(world.done(&taken)["state"], "ready", "a name is free again");
    world.done(&["down", "my-work"]);
    world.done(&["down", &second]);
    world.assert_nothing_left();
}

/// Two request ids whose sessions' ids have their first four digits in common.
fn two_ids_with_a_common_prefix() -> (String, String) {
    let mut seen = HashMap::new();
    (0..)
        .find_map(|number| {
            let id = format!("request-{number}");
            let session = SessionId::derive("tester", &id);
            let earlier = seen.insert(session.as_str()[..8].to_owned(), id.clone());
            earlier.map(|earlier| (earlier, id))
        })
        .expect("two of them")
}

#[test]
fn sessions_belong_to_their_owners() {
    let world = World::new();
    let session = world.ready("mine");
    let other = |arguments: &[&str], admin: bool| {
        let mut command = world.command(&with_json(arguments));
        command.env("ALPINE_PRINCIPAL_ID", "somebody-else");
        if admin {
            command.env("ALPINE_ROLES", "dev,alpine.admin");
        }
        world.env.run(&mut command)
    };
    for arguments in [
        &["status", &session][..],
        &["down", &session],
        &["logs", &session],
        &["open", &session],
    ] {
        crate::support::failed(&other(arguments, false), "ERR_SESSION_FORBIDDEN", 1);
    }
    let exec = other(&["exec", &session, "--", "true"], false);
    assert_eq!(exec.code(), Some(125), "{exec:#?}");
    assert_eq!(
        document(&other(&["list"], false))["sessions"],
        serde_json::json!([])
    );
    crate::support::failed(
        &other(&["list", "--all-owners"], false),
        "ERR_SESSION_FORBIDDEN",
        1,
    );
    let all = document(&other(&["list", "--all-owners"], true));
    assert_eq!(
        all["sessions"][0]["owner_principal_id"], "tester",
        "{all:#}"
    );
    assert_eq!(
        document(&other(&["status", &session], true))["state"],
        "ready"
    );
    crate::support::failed(&other(&["down", &session], true), "ERR_USAGE", 1);
    assert_eq!(world.ledger(|snapshot| snapshot.audit()), []);
    let down = document(&other(&["down", &session, "--reason", "left behind"], true));
    assert_eq!(down["state"], "stopped", "{down:#}");
    let audit = world.ledger(|snapshot| snapshot.audit());
    let [record] = &audit[..] else {
        panic!("one record: {audit:#?}");
    };
    assert_eq!(
        (
            record.actor.as_str(),
            record.session_id.as_str(),
            record.reason.as_str()
        ),
        ("somebody-else", session.as_str(), "left behind")
    );
    let payload: Value = serde_json::from_str(&world.fake().objects()[0].payload).unwrap();
    assert_eq!(payload["principal_id"], "tester", "the work is its owner's");
}

#[test]
fn what_an_admin_does_in_anothers_session_is_recorded() {
    let world = World::new();
    let session = world.ready("mine");
    let admin = |arguments: &[&str]| {
        let mut command = world.command(arguments);
        command.env("ALPINE_PRINCIPAL_ID", "somebody-else");
        command.env("ALPINE_ROLES", "alpine.admin");
        world.env.run(&mut command)
    };
    admin(&["exec", &session, "--", "echo", "hello"]);
    admin(&["open", &session, "--json"]);
    admin(&["logs", &session]);
    let audit = world.ledger(|snapshot| snapshot.audit());
    let acts: Vec<_> = audit
        .iter()
        .map(|record| (record.actor.as_str(), record.action.as_str()))
        .collect();
    let expected = ["exec", "open", "logs"].map(|action| ("somebody-else", action));
    assert_eq!(acts, expected);
}

#[test]
fn the_status_of_an_interrupted_up_says_why_and_how_it_goes_on() {
    let world = World::new();
    world
        .fake()
        .fault("install", alpine_testkit::Fault::Hang, 1);
    let repo = world.repo_path();
    let arguments = [
        "up",
        repo,
        "--branch",
        "main",
        "--client-request-id",
        "cut",
        "--name",
        "cut",
        "--timeout",
        "1s",
    ];
    let failure = world.fails(&arguments, "ERR_TIMEOUT", 2);
    let status = world.done(&["status", "cut"]);
    assert_eq!(status["state"], "installing", "{status:#}");
    assert_eq!(status["last_error"]["error_code"], "ERR_TIMEOUT");
    assert_eq!(status["next_step"], failure["next_step"]);
    assert!(text(&status, "next_step").contains("--client-request-id cut"));
    world.done(&["down", "cut"]);
}

#[test]
fn what_is_listed() {
    let world = World::new();
    let fault = |method: &str| {
        let fault = alpine_testkit::Fault::Error(alpine_provider_api::ErrorKind::Io);
        world.fake().fault(method, fault, 1);
    };
    let stopped = world.ready("stopped");
    world.done(&["down", &stopped]);
    let waiting = world.ready("waiting");
    fault("persist");
    world.fails(
        &["down", &waiting],
        "ERR_PERSISTENCE_VERIFICATION_FAILED",
        2,
    );
    world.env.clock().advance(DAY + Duration::from_secs(1));
    let ready = world.ready("ready");
    let listed = |arguments: &[&str]| {
        let list = world.done(&[&["list"], arguments].concat());
        let sessions = list["sessions"].as_array().expect("a list").clone();
        let ids: Vec<_> = sessions.iter().map(|one| text(one, "session_id")).collect();
        (ids, list["truncated"].as_bool().expect("a flag"))
    };
    let ids = |ids: &[&String]| ids.iter().map(|id| (*id).clone()).collect::<Vec<_>>();
    assert_eq!(listed(&[]), (ids(&[&ready, &waiting]), false));
    assert_eq!(listed(&["--limit", "1"]), (ids(&[&ready]), true));
    assert_eq!(
        listed(&["--state", "stopped_unpersisted"]).0,
        ids(&[&waiting])
    );
    let all = listed(&["--all"]).0;
    assert_eq!(all.len(), 3);
    assert_eq!(all[0], ready, "the newest first");
    assert_eq!(
        listed(&["--all", "--state", "stopped,ready"]).0,
        ids(&[&ready, &stopped])
    );
    world.done(&["down", &waiting, "--retry-persist"]);
    world.done(&["down", &ready]);
    assert_eq!(listed(&[]).0.len(), 2, "both ended today");
    world.assert_nothing_left();
}

#[test]
fn commands_pass_their_streams_and_their_status_through() {
    let world = World::new();
    let session = world.ready("exec");
    let exec = |argv: &[&str]| world.run(&[&["exec", &session, "--"], argv].concat());
    let said = exec(&["echo", "a", "--json"]);
    assert_eq!(
        (said.stdout.as_str(), said.stderr.as_str(), said.code()),
        ("a --json\n", "", Some(0))
    );
    assert_eq!(exec(&["exit", "7"]).code(), Some(7));
    let missing = exec(&["cat", "no-such-file"]);
    assert_eq!((missing.stdout.as_str(), missing.code()), ("", Some(1)));
    assert!(
        missing.stderr.starts_with("cat: no-such-file"),
        "{missing:?}"
    );
    let unknown = world.run(&["exec", "--json", &session, "--", "frob"]);
    assert_eq!((unknown.stdout.as_str(), unknown.code()), ("", Some(125)));
    let failure: Value = serde_json::from_str(&unknown.stderr).expect("the failure");
    assert_eq!(failure["exit_code"], 125, "{failure:#}");
    let mut cat = world.command(&["exec", &session, "--", "cat"]);
    cat.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut cat = cat.spawn().expect("the program");
    let mut input = cat.stdin.take().expect("a pipe");
    input.write_all(b"through and through").expect("a reader");
    drop(input);
    let output = cat.wait_with_output().expect("its end");
    assert_eq!(output.stdout, b"through and through");
    assert!(output.status.success(), "{output:?}");
    world.done(&["down", &session]);
    let late = exec(&["true"]);
    assert_eq!(
        (late.stdout.as_str(), late.code()),
        ("", Some(125)),
        "{late:?}"
    );
}

#[test]
fn logs_and_links() {
    let world = World::new();
    let session = world.ready("logs");
    world.check(
        &["logs", &session],
        &expect![[r#"
        status 0
        --- stdout
        installing
        installed
        --- stderr
    "#]],
    );
    world.check(
        &["logs", &session, "--step", "install"],
        &expect![[r#"
        status 0
        --- stdout
        installing
        installed
        --- stderr
    "#]],
    );
    let log = world.done(&["logs", &session, "--step", "install"]);
    let lines = serde_json::json!(["installing", "installed"]);
    assert_eq!(log["lines"], lines, "{log:#}");
    let one = world.done(&["open", &session]);
    let two = world.done(&["open", &session]);
    assert_ne!(one["open_url"], two["open_url"], "a fresh one each time");
    assert_eq!(one["url"], world.status(&session)["opencode_url"]);
    let access = world.done(&["open", &session, "--credentials"]);
    for field in ["url", "username", "password"] {
        assert!(!text(&access, field).is_empty(), "{access:#}");
    }
    world.done(&["down", &session]);
    world.fails(&["open", &session], "ERR_OPERATION_CONFLICT", 1);
}

#[test]
fn the_browser_is_opened_once_and_never_fails_an_up() {
    let world = World::with_limits("browser = '30s'");
    let browser = |name: &str, script: &str| {
        let file = world.env.root().join(name);
        fs::write(&file, format!("#!/bin/sh\n{script}\n")).expect("a script");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).expect("its mode");
        file
    };
    let up = |id: &str, browser: Option<&std::path::Path>| {
        let mut arguments = with_json(&world.up(id));
        arguments.retain(|word| *word != "--no-browser");
        let mut command = world.command(&arguments);
        if let Some(browser) = browser {
            command.env("DISPLAY", ":0").env("BROWSER", browser);
        }
        let output = world.env.run(&mut command);
        assert_eq!(output.code(), Some(0), "{output:#?}");
        document(&output)
    };
    let opened = world.env.root().join("opened");
    let good = browser("good", &format!("echo \"$1\" >> {}", opened.display()));
    let first = up("opens", Some(&good));
    assert_eq!(first["browser_opened"], true, "{first:#}");
    let link = fs::read_to_string(&opened).expect("what was opened");
    assert_ne!(link.trim(), text(&first, "open_url"), "a link of its own");
    assert_eq!(up("opens", Some(&good))["browser_opened"], true);
    let links = fs::read_to_string(&opened).expect("what was opened");
    assert_eq!(links.lines().count(), 1, "once: {links}");
    let bad = browser("bad", "exit 3");
    let slow = browser("slow", "exec sleep 2");
    let limit =
        "[provider]\ndefault = 'fake'\n[agent]\ndefault = 'page'\n[limits]\nbrowser = '200ms'";
    for (id, browser) in [
        ("fails", Some(&bad)),
        ("hangs", Some(&slow)),
        ("has-none", None),
    ] {
        if id == "hangs" {
            world.configure(limit);
        }
        let up = up(id, browser.map(std::path::PathBuf::as_path));
        assert_eq!(
            (&up["browser_opened"], &up["state"]),
            (&false.into(), &"ready".into())
        );
        let warnings = up["warnings"].to_string();
        assert!(
            warnings.contains("the browser was not opened"),
            "{warnings}"
        );
    }
    for id in ["opens", "fails", "hangs", "has-none"] {
        world.done(&["down", SessionId::derive("tester", id).as_str()]);
    }
}

#[test]
fn variables_for_an_agent_that_runs_no_program_are_warned_of() {
    let world = World::new();
    for agent in ["none", "page"] {
        let flags = ["--agent", agent, "--env", "KEY=value"];
        let up = world.done(&[&world.up(agent)[..], &flags].concat());
        let told = format!("`--env` has no effect: the agent `{agent}` runs no program");
        let warnings = up["warnings"].as_array().expect("warnings");
        assert!(warnings.contains(&told.into()), "{up:#}");
        world.done(&["down", &text(&up, "session_id")]);
    }
    let up = world.done(&world.up("without"));
    assert!(!up["warnings"].to_string().contains("--env"), "{up:#}");
    world.done(&["down", &text(&up, "session_id")]);
}
