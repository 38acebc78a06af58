//! What is kept, and what goes.

use crate::upkeep::exported;
use crate::world::{World, named, options_of, request};
use alpine_ledger::{Admission, Depth, Retained, Retention, SessionId, State, Tx, check};
use std::time::Duration;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn sound(world: &World) {
    let found = check(&world.path(), options_of(&world.clock), Depth::Rows).unwrap();
    assert_eq!(found.problems, []);
}

fn there(world: &World, id: &SessionId) -> bool {
    world
        .ledger
        .read(|snapshot| snapshot.session(id))
        .unwrap()
        .is_some()
}

/// All of it, in batches of `batch`.
fn retain(world: &World, batch: usize) -> Retained {
    let mut all = Retained::default();
    loop {
        let done = world.ledger.retain(&Retention::default(), batch).unwrap();
        assert!(done.sessions <= batch as u64 && done.events <= batch as u64);
        all.sessions += done.sessions;
        all.events += done.events;
        if !done.more {
            return all;
        }
    }
}

#[test]
fn nothing_is_written_while_nothing_is_due() {
    let world = World::new();
    world.session_in(&request("me", "r"), State::Failed);
    let (before, commits) = (exported(&world.ledger), world.ledger.commits());
    world.clock.advance(DAY * 29);
    assert_eq!(retain(&world, 10), Retained::default());
    assert_eq!(world.ledger.commits(), commits);
    assert_eq!(exported(&world.ledger), before);
}

#[test]
fn what_anybody_may_need_stays_however_old_it_is() {
    let world = World::new();
    let mut kept = Vec::new();
    for (number, state) in State::ALL.into_iter().skip(1).enumerate() {
        let id = world.session_in(&request("me", &format!("r{number}")), state);
        // A session that is `stopped` is known to have been stored only if that was verified.
        if state == State::Stopped {
            let version = world.session(&id).version;
            world
                .ledger
                .write(|tx| {
                    tx.compare_and_swap(&id, version, |session| {
                        session.durable_object_id = Some("obj_1".to_owned());
                    })
                })
                .unwrap();
        }
        if state != State::Failed {
            kept.push(id);
        }
    }
    let pending = world.session_in(&request("me", "pending"), State::Failed);
    let open = world.session_in(&request("me", "open"), State::Failed);
    let version = world.session(&pending).version;
    world
        .ledger
        .write(|tx| {
            tx.compare_and_swap(&pending, version, |session| session.destroy_pending = true)
        })
        .unwrap();
    let grant = world.down(&open);
    drop(grant);
    kept.extend([pending, open]);
    world.clock.advance(DAY * 400);
    let done = retain(&world, 3);
    assert_eq!(
        done.sessions, 1,
        "only the one that failed and is done with"
    );
    for id in &kept {
        assert!(there(&world, id), "{id}: {:?}", world.session(id).state);
    }
    sound(&world);
}

#[test]
fn a_session_goes_with_all_its_rows_and_its_request() {
    let world = World::new();
    let old = world.session_in(&named("me", "old", "same"), State::Failed);
    world.clock.advance(DAY * 60);
    let young = world.session_in(&named("me", "young", "same"), State::Failed);
    world.clock.advance(DAY * 31);
    assert_eq!(retain(&world, 10).sessions, 1);
    assert!(!there(&world, &old) && there(&world, &young));
    assert!(
        !exported(&world.ledger)
            .lines()
            .any(|line| { line.contains(old.as_str()) && !line.contains("\"events\"") })
    );
    sound(&world);
    // The same request is a new one: nothing is left that it could be mistaken for.
    let again = world.admit(&named("me", "old", "other"));
    assert!(matches!(again, Admission::Run(_)), "{again:?}");
    sound(&world);
}

#[test]
fn a_session_whose_workspace_was_given_up_goes_and_one_with_an_unverified_object_never() {
    let world = World::new();
    let attempted = |request_id: &str, object: Option<&str>| {
        let id = world.session_in(&request("me", request_id), State::Failed);
        let version = world.session(&id).version;
        let change = |tx: &mut Tx<'_>| {
            tx.compare_and_swap(&id, version, |session| {
                session.persist_generation = 2;
                session.durable_object_id = object.map(str::to_owned);
            })
        };
        world.ledger.write(change).unwrap();
        id
    };
    let given_up = attempted("given up", None);
    let unverified = attempted("unverified", Some("obj_1"));
    world.clock.advance(DAY * 89);
    assert_eq!(retain(&world, 10).sessions, 0);
    world.clock.advance(DAY * 2);
    assert_eq!(retain(&world, 10).sessions, 1);
    assert!(!there(&world, &given_up) && there(&world, &unverified));
    sound(&world);
}

#[test]
fn a_stored_session_goes_once_it_was_verified() {
    let world = World::new();
    let id = world.session_in(&request("me", "r"), State::Stopped);
    let verify = |verified: bool| {
        let version = world.session(&id).version;
        world
            .ledger
            .write(|tx| {
                tx.compare_and_swap(&id, version, |session| {
                    session.durable_object_id = Some("obj_1".to_owned());
                    session.persistence_verified = verified;
                })
            })
            .unwrap();
    };
    verify(false);
    world.clock.advance(DAY * 91);
    assert_eq!(retain(&world, 10).sessions, 0);
    verify(true);
    world.clock.advance(DAY * 91);
    assert_eq!(retain(&world, 10).sessions, 1);
    sound(&world);
}

#[test]
fn events_are_trimmed_from_the_front_and_numbers_never_come_again() {
    let world = World::new();
    let id = world.session_in(&request("me", "r1"), State::Ready);
    let events = || {
        world
            .ledger
            .read(|snapshot| snapshot.events_after(0, 10_000))
            .unwrap()
    };
    let last = events().last().unwrap().seq;
    world.clock.advance(DAY * 31);
    assert_eq!(retain(&world, 2).events, last - 1, "the last one stays");
    assert_eq!(events()[0].seq, last);
    sound(&world);
    world.session_in(&request("me", "r2"), State::Ready);
    assert_eq!(events()[1].seq, last + 1);
    let own = world
        .ledger
        .read(|snapshot| snapshot.session_events(&id))
        .unwrap();
    assert!(own.iter().all(|event| event.seq >= last));
    assert_eq!(retain(&world, 100).events, 1, "what is young stays");
    sound(&world);
    let few = Retention {
        events: 3,
        ..Retention::default()
    };
    world.ledger.retain(&few, 100).unwrap();
    assert_eq!(events().len(), 3);
    sound(&world);
}
