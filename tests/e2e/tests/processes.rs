//! Several processes at once: one request is done once, signals are heard, and nobody waits for a process that stands still.

use crate::support::{World, document, failed, text, wait_until, with_json};
use alpine_ledger::SessionId;
use alpine_testkit::Fault;
use rustix::process::Signal;
use serde_json::Value;
use std::time::Duration;

fn session_of(id: &str) -> String {
    SessionId::derive("tester", id).to_string()
}

#[test]
fn an_up_that_gets_a_signal_records_where_it_stands_and_is_carried_on() {
    for (signal, exit) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        for (method, state) in [
            ("provision", "provisioning"),
            ("sync_repo", "repo_syncing"),
            ("install", "installing"),
            ("start_agent", "installing"),
        ] {
            let world = World::new();
            world.fake().fault(method, Fault::Hang, 1);
            let up = world.start(&with_json(&world.up("signal")));
            world.wait_for_call(method);
            up.signal(signal);
            let failure = failed(&up.wait(), "ERR_INTERRUPTED", exit);
            assert_eq!(failure["retryable"], true, "{failure:#}");
            let next = text(&failure, "next_step");
            assert!(next.contains("--client-request-id signal"), "{next}");
            let status = world.status(&session_of("signal"));
            assert_eq!(status["state"], state, "{status:#}");
            assert_eq!(status["lease"], Value::Null, "{status:#}");
            // The next step is a command to paste.
            let words = next.strip_prefix("alpine ").expect("our command");
            let words: Vec<&str> = words.split(' ').collect();
            let done = world.done(&words);
            assert_eq!(done["state"], "ready", "{done:#}");
            assert_eq!(done["operation_id"], failure["operation_id"]);
            world.done(&["down", &session_of("signal")]);
            world.assert_nothing_left();
        }
    }
}

#[test]
fn a_down_that_gets_a_signal_is_carried_on() {
    let world = World::new();
    for (method, state) in [("stop", "stopping"), ("persist", "persisting")] {
        let session = world.ready(method);
        world.fake().fault(method, Fault::Hang, 1);
        let calls = world.fake().count(method);
        let down = world.start(&["down", &session, "--json"]);
        world.wait_for_calls(method, calls + 1);
        down.signal(Signal::TERM);
        let failure = failed(&down.wait(), "ERR_INTERRUPTED", 143);
        assert_eq!(
            text(&failure, "next_step"),
            format!("alpine down {session}")
        );
        assert_eq!(world.state(&session), state);
        let down = world.done(&["down", &session]);
        assert_eq!(down["state"], "stopped", "{down:#}");
        assert_eq!(
            down["operation_id"], failure["operation_id"],
            "the same one"
        );
    }
    world.assert_nothing_left();
}

#[test]
fn a_second_signal_ends_the_program_at_once() {
    let world = World::new();
    world.fake().fault("provision", Fault::Hang, 1);
    let mut up = world.start(&with_json(&world.up("impatient")));
    world.wait_for_call("provision");
    wait_until("a signal ends it", || {
        up.has_ended() || {
            up.signal(Signal::INT);
            false
        }
    });
    assert_eq!(up.wait().code(), Some(130));
    // Whether or not the first one was recorded, the request is carried on.
    let done = world.done(&world.up("impatient"));
    assert_eq!(done["state"], "ready", "{done:#}");
    world.done(&["down", &session_of("impatient")]);
    world.assert_nothing_left();
}

#[test]
fn a_process_that_stands_still_delays_no_reader_and_not_its_own_end() {
    let world = World::new();
    world.fake().fault("install", Fault::Delay { ms: 200 }, 1);
    let up = world.start(&with_json(&world.up("still")));
    world.wait_for_call("install");
    up.signal(Signal::STOP);
    let session = session_of("still");
    for _ in 0..5 {
        let status = world.status(&session);
        assert_eq!(status["state"], "installing", "{status:#}");
        assert_eq!(status["lease"]["holder"]["pid"], up.pid(), "{status:#}");
        world.done(&["list"]);
    }
    let other = world.done(&world.up("other"));
    world.done(&["down", &text(&other, "session_id")]);
    world.fails(&["down", &session], "ERR_OPERATION_CONFLICT", 2);
    up.signal(Signal::CONT);
    assert_eq!(document(&up.wait())["state"], "ready");
    world.done(&["down", &session]);
    world.assert_nothing_left();
}

/// A holder that stood still for longer than its lease has lost it, and changes nothing when it wakes up.
#[test]
fn a_process_that_wakes_up_too_late_changes_nothing() {
    let world = World::new();
    world.fake().fault("install", Fault::Delay { ms: 200 }, 1);
    let up = world.start(&with_json(&world.up("late")));
    world.wait_for_call("install");
    up.signal(Signal::STOP);
    world.env.clock().advance(Duration::from_secs(60));
    let session = session_of("late");
    let down = world.done(&["down", &session]);
    assert_eq!(down["state"], "failed", "{down:#}");
    let before = world.status(&session);
    up.signal(Signal::CONT);
    let output = up.wait();
    assert_eq!(output.code(), Some(2), "{output:#?}");
    failed(&output, "ERR_OPERATION_CONFLICT", 2);
    let after = world.status(&session);
    for field in ["state", "operation_id", "updated_at", "last_transition"] {
        assert_eq!(before[field], after[field], "{field}");
    }
    world.assert_nothing_left();
}

/// The same for a `down`, wherever it stood still: whoever takes it over ends it, once.
#[test]
fn a_down_that_wakes_up_too_late_changes_nothing() {
    let world = World::new();
    for method in ["stop", "capture", "persist", "read_object", "destroy"] {
        let session = world.ready(method);
        world.fake().fault(method, Fault::Delay { ms: 200 }, 1);
        let calls = world.fake().count(method);
        let late = world.start(&["down", &session, "--json"]);
        world.wait_for_calls(method, calls + 1);
        late.signal(Signal::STOP);
        world.env.clock().advance(Duration::from_secs(60));
        let down = world.done(&["down", &session]);
        assert_eq!(down["state"], "stopped", "{method}: {down:#}");
        let objects = world.fake().objects();
        let before = world.status(&session);
        late.signal(Signal::CONT);
        failed(&late.wait(), "ERR_OPERATION_CONFLICT", 2);
        assert_eq!(world.status(&session), before, "{method}");
        assert_eq!(world.fake().objects(), objects, "{method}");
        assert_eq!(world.done(&["down", &session]), down, "{method}");
    }
    world.assert_nothing_left();
}

/// A holder that stands still hears no wish to cancel: its lease is waited for.
#[test]
fn a_process_that_stands_still_is_cancelled_when_its_lease_has_expired() {
    let world = World::new();
    world.fake().fault("install", Fault::Delay { ms: 200 }, 1);
    let up = world.start(&with_json(&world.up("still")));
    world.wait_for_call("install");
    up.signal(Signal::STOP);
    let session = session_of("still");
    let mut down = world.start(&["down", &session, "--cancel", "--json"]);
    let id = SessionId::from_recorded(session.clone());
    wait_until("the wish is recorded", || {
        let operations = world.ledger(|snapshot| snapshot.operations(&id));
        operations[0].cancel_requested
    });
    assert!(!down.has_ended(), "the lease is good");
    world.env.clock().advance(Duration::from_secs(60));
    assert_eq!(document(&down.wait())["state"], "failed");
    let before = world.status(&session);
    up.signal(Signal::CONT);
    // It sees the wish or the loss of its lease, whichever comes first.
    let late = document(&up.wait());
    let codes = ["ERR_INTERRUPTED", "ERR_OPERATION_CONFLICT"];
    assert!(
        codes.contains(&text(&late, "error_code").as_str()),
        "{late:#}"
    );
    assert_eq!(world.status(&session), before);
    world.assert_nothing_left();
}

#[test]
fn a_recovery_that_gets_a_signal_is_carried_on() {
    for (signal, exit) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        let world = World::new();
        let session = world.ready("one");
        world.fake().fault("capture", Fault::Hang, 2);
        let down = world.start(&["down", &session, "--json"]);
        world.wait_for_call("capture");
        down.kill();
        let recovery = world.start(&["reconcile", "--json"]);
        world.wait_for_calls("capture", 2);
        recovery.signal(signal);
        failed(&recovery.wait(), "ERR_INTERRUPTED", exit);
        let report = world.done(&["reconcile"]);
        assert_eq!(report["reconciled"][0]["done"], true, "{report:#}");
        assert_eq!(world.state(&session), "stopped");
        world.assert_nothing_left();
    }
}

#[test]
fn what_the_provider_sees_is_observed() {
    let world = World::new();
    let session = world.ready("observed");
    let observed = |state: &str| {
        wait_until(state, || {
            world.status(&session)["observed"]["state"] == state
        });
    };
    observed("running");
    let sandbox = world.fake().sandboxes().remove(0).id;
    world.fake().exit_sandbox(&sandbox);
    observed("exited");
    world.fake().lose_workspace(&sandbox);
    observed("missing");
    assert_eq!(
        world.state(&session),
        "ready",
        "what users see is the ledger"
    );
    world.status_beside_a_hang(&session);
    world.done(&["down", &session]);
    world.assert_nothing_left();
}
