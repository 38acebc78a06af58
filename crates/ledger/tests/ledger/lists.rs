//! What `list` shows, and in which order.

use crate::world::{World, request};
use alpine_ledger::{ListQuery, Page, State, Timestamp};
use std::time::Duration;

const DAY: Duration = Duration::from_secs(86_400);

fn everything() -> ListQuery {
    ListQuery {
        owner: None,
        states: Vec::new(),
        ended_since: None,
        limit: 1_000,
    }
}

fn list(world: &World, query: &ListQuery) -> Page {
    world.ledger.read(|snapshot| snapshot.list(query)).unwrap()
}

fn states(page: &Page) -> Vec<State> {
    page.sessions.iter().map(|session| session.state).collect()
}

#[test]
fn old_ended_sessions_are_left_out_and_those_that_need_the_user_are_not() {
    let world = World::new();
    for state in State::ALL
        .into_iter()
        .filter(|state| *state != State::Requested)
    {
        world.session_in(&request("me", state.as_str()), state);
        world.clock.advance(Duration::from_millis(1));
    }
    world.clock.advance(DAY);
    let recent = world.session_in(&request("me", "recent"), State::Stopped);
    let since = Some(Timestamp(
        alpine_ledger::Clock::now(&*world.clock).0 - 86_400_000,
    ));
    let page = list(
        &world,
        &ListQuery {
            ended_since: since,
            ..everything()
        },
    );
    assert_eq!(page.sessions[0].session_id, recent);
    let found = states(&page);
    for state in State::ALL
        .into_iter()
        .filter(|state| *state != State::Requested)
    {
        let expected = if state == State::Stopped {
            1
        } else {
            usize::from(!state.is_terminal())
        };
        assert_eq!(
            found.iter().filter(|found| **found == state).count(),
            expected,
            "{state}"
        );
    }
    let all = list(&world, &everything());
    assert_eq!(all.sessions.len(), 14);
    assert!(
        all.sessions
            .windows(2)
            .all(|pair| pair[0].updated_at >= pair[1].updated_at)
    );
    let ready = list(
        &world,
        &ListQuery {
            states: vec![State::Ready, State::Failed],
            ..everything()
        },
    );
    assert_eq!(states(&ready), [State::Failed, State::Ready]);
}

#[test]
fn the_window_includes_its_first_millisecond() {
    let world = World::new();
    world.session_in(&request("me", "r1"), State::Stopped);
    let at = alpine_ledger::Clock::now(&*world.clock);
    let since = |since| {
        list(
            &world,
            &ListQuery {
                ended_since: Some(since),
                ..everything()
            },
        )
        .sessions
        .len()
    };
    assert_eq!(since(at), 1);
    assert_eq!(since(Timestamp(at.0 + 1)), 0);
    assert_eq!(since(Timestamp(0)), 1);
    assert_eq!(since(Timestamp(u64::MAX)), 0);
}

#[test]
fn owners_are_kept_apart_and_the_limit_says_that_it_cut() {
    let world = World::new();
    // Names that are prefixes of one another must not run into each other.
    for (owner, count) in [("a", 3), ("ab", 2), ("b", 1), ("", 1)] {
        for n in 0..count {
            world.up(&request(owner, &n.to_string()));
            world.clock.advance(Duration::from_millis(1));
        }
    }
    let of = |owner: &str, limit| {
        let page = list(
            &world,
            &ListQuery {
                owner: Some(owner.to_owned()),
                limit,
                ..everything()
            },
        );
        (page.sessions.len(), page.truncated)
    };
    assert_eq!(of("a", 10), (3, false));
    assert_eq!(of("a", 3), (3, false));
    assert_eq!(of("a", 2), (2, true));
    assert_eq!(of("a", 0), (0, true));
    assert_eq!(of("ab", 10), (2, false));
    assert_eq!(of("nobody", 10), (0, false));
    let page = list(
        &world,
        &ListQuery {
            limit: 4,
            ..everything()
        },
    );
    let owners: Vec<&str> = page
        .sessions
        .iter()
        .map(|session| session.owner_principal_id.as_str())
        .collect();
    assert_eq!(owners, ["", "b", "ab", "ab"]);
    assert!(page.truncated);
}

#[test]
fn a_session_moves_in_the_index_when_it_changes() {
    let world = World::new();
    let first = world.up(&request("me", "r1"));
    world.clock.advance(Duration::from_millis(1));
    let second = world.up(&request("me", "r2"));
    world.clock.advance(Duration::from_millis(1));
    let ids = || -> Vec<String> {
        list(&world, &everything())
            .sessions
            .iter()
            .map(|session| session.session_id.to_string())
            .collect()
    };
    assert_eq!(ids()[0], second.session.session_id.to_string());
    world
        .ledger
        .write(|tx| {
            tx.update(&first.token, |session| {
                session.workspace_snapshot =
                    Some(serde_json::json!({"digest": "blake3:1", "bytes": 4}));
                session.opencode_url = Some("http://127.0.0.1:1".to_owned());
            })
        })
        .unwrap();
    assert_eq!(ids().len(), 2);
    assert_eq!(ids()[0], first.session.session_id.to_string());
    let summary = list(&world, &everything()).sessions.remove(0);
    assert_eq!(summary.workspace_digest.as_deref(), Some("blake3:1"));
    assert_eq!(summary.opencode_url.as_deref(), Some("http://127.0.0.1:1"));
}
