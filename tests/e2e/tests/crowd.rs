//! Crowds: many processes that want the same, or things that exclude each other. Smaller ones by default, the whole with
//! `ALPINE_MATRIX=all`.

use crate::matrix::is_whole;
use crate::support::{Running, World, document, text, with_json};
use alpine_ledger::SessionId;
use alpine_provider_api::ErrorKind;
use alpine_testkit::{Fault, Output};
use serde_json::Value;
use std::collections::BTreeSet;
use std::time::Instant;

/// How many processes run at once that want the same: each of them polls while it waits.
const AT_ONCE: usize = 50;

/// A crowd's size: all of it where all was asked for.
fn size(by_default: usize, whole: usize) -> usize {
    if is_whole() { whole } else { by_default }
}

fn session_of(id: &str) -> String {
    SessionId::derive("tester", id).to_string()
}

/// The documents of commands that all have to succeed.
#[track_caller]
fn all_done(running: Vec<Running>) -> Vec<Value> {
    let each = running.into_iter().map(|one| {
        let output = one.wait();
        assert_eq!(output.code(), Some(0), "{output:#?}");
        document(&output)
    });
    each.collect()
}

#[track_caller]
fn assert_equal(answers: &[Value]) {
    assert!(
        answers.windows(2).all(|two| two[0] == two[1]),
        "{answers:#?}"
    );
}

#[test]
fn a_thousand_ups_with_one_request_make_one_session() {
    let (world, begun) = (World::new(), Instant::now());
    world.fake().fault("install", Fault::Delay { ms: 300 }, 1);
    let count = size(100, 1_000);
    let mut answers = Vec::new();
    while answers.len() < count {
        let ups = (0..AT_ONCE).map(|_| world.start(&with_json(&world.up("one"))));
        answers.extend(all_done(ups.collect()));
    }
    println!("{count} ups of one request: {:.1?}", begun.elapsed());
    let made = answers.iter().filter(|up| up["reused"] == false).count();
    assert_eq!(made, 1, "one of them made it");
    let links: BTreeSet<String> = answers.iter().map(|up| text(up, "open_url")).collect();
    assert_eq!(links.len(), count, "a link for each");
    for up in &mut answers {
        for field in ["reused", "open_url", "warnings"] {
            up.as_object_mut().expect("an object").remove(field);
        }
    }
    assert_equal(&answers);
    for method in ["provision", "sync_repo", "install", "start_agent"] {
        assert_eq!(world.fake().count(method), 1, "{method}");
    }
    let listed = world.done(&["list"]);
    assert_eq!(listed["sessions"].as_array().map(Vec::len), Some(1));
    world.done(&["down", &session_of("one")]);
    world.assert_nothing_left();
}

#[test]
fn two_hundred_sessions_are_brought_up_listed_and_brought_down_at_once() {
    let (world, begun) = (World::new(), Instant::now());
    let count = size(30, 200);
    let ids: Vec<String> = (0..count).map(|number| format!("crowd-{number}")).collect();
    let ups = ids.iter().map(|id| world.start(&with_json(&world.up(id))));
    let ups: Vec<Running> = ups.collect();
    let list = |_| world.start(&["list", "--limit", "1000", "--json"]);
    all_done((0..count / 5).map(list).collect());
    for up in all_done(ups) {
        assert_eq!(up["state"], "ready", "{up:#}");
    }
    for listed in all_done((0..count).map(list).collect()) {
        assert_eq!(listed["sessions"].as_array().map(Vec::len), Some(count));
    }
    let down = |id: &String| world.start(&["down", &session_of(id), "--json"]);
    for down in all_done(ids.iter().map(down).collect()) {
        assert_eq!(down["state"], "stopped", "{down:#}");
        assert_eq!(down["persistence_verified"], true, "{down:#}");
    }
    println!("{count} sessions up, listed, down: {:.1?}", begun.elapsed());
    assert_eq!(world.fake().objects().len(), count);
    let events = world.ledger(|snapshot| snapshot.events_after(0, 100_000));
    let numbers: Vec<u64> = events.iter().map(|event| event.seq).collect();
    let expected: Vec<u64> = (1..=numbers.len() as u64).collect();
    assert!(numbers.len() > 5 * count, "{}", numbers.len());
    assert_eq!(numbers, expected, "without gaps");
    world.assert_nothing_left();
}

#[test]
fn downs_that_race_give_one_answer() {
    let world = World::new();
    for round in 0..size(3, 30) {
        let session = world.ready(&format!("round-{round}"));
        world.fake().fault("capture", Fault::Delay { ms: 20 }, 1);
        let persisted = world.fake().count("persist");
        let down = |_| world.start(&["down", &session, "--json"]);
        let answers = all_done((0..12).map(down).collect());
        assert_eq!(answers[0]["state"], "stopped", "{:#}", answers[0]);
        assert_equal(&answers);
        assert_eq!(world.fake().count("persist"), persisted + 1);
    }
    world.assert_nothing_left();
}

#[test]
fn retries_to_persist_that_race_give_one_answer() {
    let world = World::new();
    for round in 0..size(3, 30) {
        let session = world.ready(&format!("round-{round}"));
        world
            .fake()
            .fault("persist", Fault::Error(ErrorKind::Io), 1);
        world.fails(
            &["down", &session],
            "ERR_PERSISTENCE_VERIFICATION_FAILED",
            2,
        );
        let objects = world.fake().objects().len();
        world.fake().fault("persist", Fault::Delay { ms: 20 }, 1);
        let retry = |_| world.start(&["down", &session, "--retry-persist", "--json"]);
        let answers = all_done((0..12).map(retry).collect());
        assert_eq!(answers[0]["state"], "stopped", "{:#}", answers[0]);
        assert_equal(&answers);
        assert_eq!(world.fake().objects().len(), objects + 1, "one object");
    }
    world.assert_nothing_left();
}

/// A `down` that comes while an `up` runs is refused, ends what it found, or comes after it; and one more ends it all.
#[test]
fn a_down_that_races_an_up_leaves_nothing() {
    let world = World::new();
    let mut ends = BTreeSet::new();
    for round in 0..size(16, 160) {
        let id = format!("race-{round}");
        let session = session_of(&id);
        let up = world.start(&with_json(&world.up(&id)));
        // The later rounds let the `up` come further before they begin.
        let methods = ["", "provision", "install", "start_agent"];
        let method = methods[round % methods.len()];
        if !method.is_empty() {
            world.wait_for_calls(method, round / methods.len() + 1);
        }
        let mut downs = vec![world.start(&["down", &session, "--json"])];
        downs.push(world.start(&["down", &session, "--cancel", "--json"]));
        for down in downs {
            ends.insert(end(&down.wait()));
        }
        let (up, again) = (end(&up.wait()), end(&world.run(&with_json(&world.up(&id)))));
        // One that was refused before the `up` was admitted leaves the session to be brought down.
        let last = world.done(&["down", &session]);
        assert!(
            ["stopped", "failed"].contains(&text(&last, "state").as_str()),
            "{last:#}"
        );
        ends.insert(format!("up: {up}, then {again}"));
        assert_eq!(world.fake().sandboxes(), [], "{round}");
    }
    println!("{ends:#?}");
    for end in &ends {
        assert!(!end.contains("INTERNAL"), "{end}");
    }
    world.assert_nothing_left();
}

/// The state or the code that a command ended with.
fn end(output: &Output) -> String {
    let document = document(output);
    let field = if output.code() == Some(0) {
        "state"
    } else {
        "error_code"
    };
    text(&document, field)
}
