//! Several processes at once: one request is done once, signals are heard, and nobody waits for a process that stands still.

use crate::support::{Running, World, document, failed, text, wait_until, with_json};
use alpine_ledger::SessionId;
use alpine_testkit::Fault;
use rustix::process::Signal;
use serde_json::Value;
use std::collections::BTreeSet;
use std::time::Duration;

fn session_of(id: &str) -> String {
    SessionId::derive("tester", id).to_string()
}

#[test]
fn thirty_processes_with_one_request_make_one_session() {
    let world = World::new();
    world.fake().fault("install", Fault::Delay { ms: 300 }, 1);
    let ups: Vec<Running> = (0..30)
        .map(|_| world.start(&with_json(&world.up("one"))))
        .collect();
    let mut answers: Vec<Value> = ups
        .into_iter()
        .map(|up| {
            let output = up.wait();
            assert_eq!(output.code(), Some(0), "{output:#?}");
            document(&output)
        })
        .collect();
    let made = answers.iter().filter(|up| up["reused"] == false).count();
    assert_eq!(made, 1, "one of them made it");
    let links: BTreeSet<String> = answers.iter().map(|up| text(up, "open_url")).collect();
    assert_eq!(links.len(), 30, "a link for each");
    for up in &mut answers {
        for field in ["reused", "open_url", "warnings"] {
            up.as_object_mut().expect("an object").remove(field);
        }
    }
    assert!(
        answers.windows(2).all(|two| two[0] == two[1]),
        "{answers:#?}"
    );
    for method in ["provision", "sync_repo", "install", "start_agent"] {
        assert_eq!(world.fake().count(method), 1, "{method}");
    }
    let listed = world.done(&["list"]);
    assert_eq!(listed["sessions"].as_array().map(Vec::len), Some(1));
    let downs: Vec<Running> = (0..10)
        .map(|_| world.start(&["down", &session_of("one"), "--json"]))
        .collect();
    let answers: Vec<Value> = downs
        .into_iter()
        .map(|down| document(&down.wait()))
        .collect();
    assert_eq!(answers[0]["state"], "stopped", "{:#}", answers[0]);
    assert!(
        answers.windows(2).all(|two| two[0] == two[1]),
        "{answers:#?}"
    );
    assert_eq!(
        world.fake().objects().len(),
        1,
        "{:#?}",
        world.fake().objects()
    );
    world.assert_nothing_left();
}

#[test]
fn twenty_sessions_at_once() {
    let world = World::new();
    let ids: Vec<String> = (0..20).map(|number| format!("crowd-{number}")).collect();
    let ups: Vec<Running> = ids
        .iter()
        .map(|id| world.start(&with_json(&world.up(id))))
        .collect();
    let lists: Vec<Running> = (0..5).map(|_| world.start(&["list", "--json"])).collect();
    for list in lists {
        let output = list.wait();
        assert_eq!(output.code(), Some(0), "{output:#?}");
    }
    for up in ups {
        let up = document(&up.wait());
        assert_eq!(up["state"], "ready", "{up:#}");
    }
    let listed = world.done(&["list"]);
    assert_eq!(listed["sessions"].as_array().map(Vec::len), Some(20));
    let downs: Vec<Running> = ids
        .iter()
        .map(|id| world.start(&["down", &session_of(id), "--json"]))
        .collect();
    for down in downs {
        let down = document(&down.wait());
        assert_eq!(down["state"], "stopped", "{down:#}");
        assert_eq!(down["persistence_verified"], true, "{down:#}");
    }
    assert_eq!(world.fake().objects().len(), 20);
    assert_no_gaps(&world);
    world.assert_nothing_left();
}

/// Events are numbered without gaps, whoever writes them.
fn assert_no_gaps(world: &World) {
    let events = world.ledger(|snapshot| snapshot.events_after(0, 10_000));
    let numbers: Vec<u64> = events.iter().map(|event| event.seq).collect();
    let expected: Vec<u64> = (1..=numbers.len() as u64).collect();
    assert!(numbers.len() > 100, "{}", numbers.len());
    assert_eq!(numbers, expected);
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
    world.fake().fault("inspect", Fault::Hang, 1);
    assert_eq!(world.status(&session)["observed"], Value::Null);
    world.done(&["down", &session]);
    world.assert_nothing_left();
}
