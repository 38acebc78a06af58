//! The four faults of the predecessor, which must be impossible here.

use crate::support::{Running, World, document, failed, text, wait_until, with_json};
use alpine_ledger::SessionId;
use alpine_provider_api::ErrorKind;
use alpine_testkit::{Fault, GitMode, GitServer, KillPoint, TEST_EPOCH_MS};
use serde_json::Value;
use std::process::Command;
use std::time::{Duration, Instant};

/// How long a command may take that has nothing to do with a server that answers after a minute. A fraction of a second
/// is usual; a machine that has more to do than it can gets the rest.
const PROMPT: Duration = Duration::from_secs(20);

/// The time that a payload bears.
fn persisted_at(payload: &str) -> String {
    let payload: Value = serde_json::from_str(payload).expect("a payload");
    text(&payload, "persisted_at")
}

/// The program on a clock that goes on with each look at it, so that a second look gives another time.
fn ticking(world: &World, arguments: &[&str]) -> Command {
    let mut command = world.command(arguments);
    command.env("ALPINE_TEST_CLOCK_TICKS", "1");
    command
}

/// Fault 1: the payload's `persisted_at` differs from the record's, or changes between compaction rounds.
#[test]
fn payload_receipt_record_and_output_bear_the_same_time() {
    let world = World::new();
    let session = world.ready("times");
    // One attempt whose reply is lost and that is killed when it has written, and the one that ends it.
    world.fake().fault("persist", Fault::LostReply, 1);
    world
        .fake()
        .fault("read_object", Fault::KillCaller(KillPoint::Before), 1);
    let killed = world.env.run(&mut ticking(&world, &["down", &session]));
    assert_eq!(killed.code(), None, "{killed:#?}");
    let between = text(&world.status(&session), "persisted_at");
    world.env.clock().advance(Duration::from_secs(60));
    let down = world
        .env
        .run(&mut ticking(&world, &["--json", "down", &session]));
    let down = document(&down.success());
    let at = text(&down, "persisted_at");
    assert_ne!(at, alpine_ledger::Timestamp(TEST_EPOCH_MS).to_string());
    assert_eq!(at, between, "the same attempt");
    assert_eq!(text(&world.status(&session), "persisted_at"), at);
    let id = SessionId::from_recorded(session.clone());
    let receipt = world.ledger(|snapshot| snapshot.receipt(&id));
    assert_eq!(receipt.expect("a receipt").persisted_at.to_string(), at);
    let objects = world.fake().objects();
    assert_eq!(objects.len(), 1, "one object: {objects:#?}");
    assert_eq!(persisted_at(&objects[0].payload), at);
    assert_eq!(text(&world.done(&["down", &session]), "persisted_at"), at);
}

/// Fault 1: a payload that has to be compacted keeps its time, and says that it was shortened.
#[test]
fn a_payload_that_was_compacted_bears_the_same_time() {
    let world = World::new();
    let session = world.ready("long");
    grow_history(&world, &session);
    let down = world
        .env
        .run(&mut ticking(&world, &["--json", "down", &session]));
    let down = document(&down.success());
    assert_eq!(down["state"], "stopped", "{down:#}");
    assert_eq!(down["history_truncated"], true, "{down:#}");
    let objects = world.fake().objects();
    let object = objects.last().expect("an object");
    assert!(
        object.payload.len() <= 512 * 1024,
        "{}",
        object.payload.len()
    );
    assert!(object.payload.len() > 500 * 1024, "no more than is needed");
    assert_eq!(persisted_at(&object.payload), text(&down, "persisted_at"));
    let payload: Value = serde_json::from_str(&object.payload).expect("a payload");
    assert_eq!(payload["history_truncated"], true);
    assert_eq!(payload["state"], "stopped");
}

/// Fills a session's history with operations that failed, until a payload can't hold them all: written as the program
/// would write them, but in few transactions.
fn grow_history(world: &World, session: &str) {
    use alpine_ledger::{Acquired, Action, ErrorRecord, Ledger, Options, Outcome, State};
    let options = Options {
        clock: std::sync::Arc::new(world.env.clock().clone()),
        ..Options::new()
    };
    let ledger = Ledger::open(&world.ledger_path(), options).expect("the ledger");
    let id = SessionId::from_recorded(session);
    let error = ErrorRecord {
        error_code: "ERR_CLOSE_FAILED".to_owned(),
        cause: "it stood still".to_owned(),
        next_step: format!("alpine down {session}"),
        retryable: true,
        operation_id: None,
        exit_code: 2,
    };
    for _ in 0..300 {
        let (id, error) = (id.clone(), error.clone());
        let grown = ledger.write(|tx| {
            let Acquired::Run(grant) = tx.acquire(&id, Action::Down, "tester", &error)? else {
                unreachable!("nobody else has the session");
            };
            for state in [State::Stopping, State::CloseFailed] {
                tx.transition(&grant.token, state, &"x".repeat(1000), |_| {})?;
            }
            tx.finish(&grant.token, &Outcome::Failed(error.clone()))?;
            Ok(())
        });
        grown.expect("a longer history");
    }
}

/// Fault 2: a `down` that was killed in `stopping` or `persisting` can't be retried.
#[test]
fn a_down_that_was_killed_is_retried_from_where_it_stands() {
    for (method, state) in [
        ("stop", "stopping"),
        ("capture", "persisting"),
        ("persist", "persisting"),
        ("read_object", "persisting"),
    ] {
        let world = World::new();
        let session = world.ready("killed");
        world.fake().fault(method, Fault::Hang, 1);
        let down = world.start(&["down", &session, "--json"]);
        world.wait_for_call(method);
        let output = down.kill();
        assert_eq!((output.code(), output.stdout.as_str()), (None, ""));
        assert_eq!(world.state(&session), state, "{method}");
        let listed = world.done(&["list"]);
        let next = text(&listed["sessions"][0], "next_step");
        assert_eq!(next, format!("alpine down {session}"), "{method}");
        let down = world.done(&["down", &session]);
        assert_eq!(down["state"], "stopped", "{method}: {down:#}");
        assert_eq!(down["persistence_verified"], true, "{method}: {down:#}");
        assert_eq!(world.fake().objects().len(), 1, "{method}");
        world.assert_nothing_left();
    }
}

/// Fault 3: repeating a failed `up` with its request id exits 0.
#[test]
fn a_failed_up_that_is_repeated_fails_again() {
    let world = World::new();
    for (method, kind, code, exit) in [
        (
            "provision",
            ErrorKind::Io,
            "ERR_SANDBOX_PROVISION_FAILED",
            2,
        ),
        (
            "provision",
            ErrorKind::IsolationUnavailable,
            "ERR_SANDBOX_UNAVAILABLE",
            1,
        ),
        (
            "sync_repo",
            ErrorKind::AuthRejected,
            "ERR_REPO_AUTH_REJECTED",
            1,
        ),
        ("install", ErrorKind::InstallFailed, "ERR_INSTALL_FAILED", 2),
        (
            "start_agent",
            ErrorKind::AgentNotReady,
            "ERR_AGENT_NOT_READY",
            2,
        ),
        (
            "start_agent",
            ErrorKind::Unsupported,
            "ERR_AGENT_NOT_READY",
            2,
        ),
        ("provision", ErrorKind::Crashed, "ERR_PROVIDER_CRASHED", 2),
        (
            "provision",
            ErrorKind::Unsupported,
            "ERR_PROVIDER_INCOMPATIBLE",
            1,
        ),
    ] {
        let id = format!("{method}-{kind:?}");
        // What a crash did is not known: it is tried again before it is believed.
        let times = if kind == ErrorKind::Crashed { 3 } else { 1 };
        world.fake().fault(method, Fault::Error(kind), times);
        let first = world.fails(&world.up(&id), code, exit);
        let calls = world.fake().calls().len();
        for _ in 0..2 {
            let again = world.fails(&world.up(&id), code, exit);
            for field in ["cause", "operation_id", "retryable"] {
                assert_eq!(again[field], first[field], "{id}");
            }
            let next = text(&again, "next_step");
            assert!(next.starts_with("alpine up "), "a new request: {next}");
            assert!(!next.contains(&id), "a new request: {next}");
        }
        assert_eq!(world.fake().calls().len(), calls, "{id}: nothing was done");
        let people = world.run(&world.up(&id));
        assert_eq!((people.code(), people.stdout.as_str()), (Some(exit), ""));
    }
    world.assert_nothing_left();
}

/// Fault 4: a slow network call delays another process's `list`, `status`, `up` or `down`.
#[test]
fn a_git_server_that_answers_after_a_minute_delays_nobody_else() {
    let world = World::new();
    let server = GitServer::start(&world.env.root().join("repos"));
    server.set(GitMode::Delay(Duration::from_secs(60)));
    let url = server.url("r0/.git");
    let slow = |id: &str| {
        world.start(&[
            "up",
            &url,
            "--branch",
            "main",
            "--public",
            "--no-browser",
            "--json",
            "--client-request-id",
            id,
        ])
    };
    let mut running: Vec<Running> = ["slow-1", "slow-2", "slow-3"].map(slow).into();
    wait_until("the slow server is asked", || server.requests().len() >= 3);
    let session = SessionId::derive("tester", "slow-1").to_string();
    let listed = prompt(&world, &["list"]);
    assert_eq!(listed["sessions"].as_array().map(Vec::len), Some(3));
    let status = prompt(&world, &["status", &session]);
    assert_eq!(status["state"], "requested", "{status:#}");
    assert!(status["lease"].is_object(), "{status:#}");
    let up = prompt(&world, &world.up("quick"));
    assert_eq!(up["state"], "ready", "{up:#}");
    let down = prompt(&world, &["down", &text(&up, "session_id")]);
    assert_eq!(down["state"], "stopped", "{down:#}");
    for up in &mut running {
        assert!(!up.has_ended(), "the slow one still runs");
    }
    let session = SessionId::derive("tester", "slow-2").to_string();
    let cancelled = prompt(&world, &["down", &session, "--cancel"]);
    assert_eq!(cancelled["state"], "failed", "{cancelled:#}");
    failed(&running.remove(1).wait(), "ERR_INTERRUPTED", 1);
    // Whoever answers in the end is waited for, and no longer.
    drop(server);
    for up in running {
        failed(&up.wait(), "ERR_REPO_UNREACHABLE", 2);
    }
    world.assert_nothing_left();
}

/// Runs the program, which has to be done at once.
#[track_caller]
fn prompt(world: &World, arguments: &[&str]) -> Value {
    let begun = Instant::now();
    let output = world.run(&with_json(arguments));
    assert_eq!(output.code(), Some(0), "{arguments:?}: {output:#?}");
    let took = begun.elapsed();
    assert!(took < PROMPT, "{arguments:?} took {took:?}");
    document(&output)
}

/// The same for a provider that hangs, and for a program that was stopped while it held the lease.
#[test]
fn a_provider_that_hangs_delays_nobody_else() {
    let world = World::new();
    world.fake().fault("provision", Fault::Hang, 1);
    let hanging = world.start(&with_json(&world.up("hangs")));
    world.wait_for_call("provision");
    let session = SessionId::derive("tester", "hangs").to_string();
    let status = world.status_beside_a_hang(&session);
    assert_eq!(status["state"], "provisioning", "{status:#}");
    prompt(&world, &["list"]);
    let up = prompt(&world, &world.up("quick"));
    prompt(&world, &["down", &text(&up, "session_id")]);
    prompt(&world, &["down", &session, "--cancel"]);
    failed(&hanging.wait(), "ERR_INTERRUPTED", 1);
    world.assert_nothing_left();
}
