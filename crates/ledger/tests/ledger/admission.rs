//! One test for each row of the table of what a repeated request means.

use crate::world::{BEGUN, World, error, kind, named, request, succeeded};
use alpine_ledger::{
    Acquired, Action, Admission, Conflict, Liveness, OperationId, OperationState, Outcome,
    SessionId, State,
};
use expect_test::expect;

#[test]
fn a_new_request_runs_a_new_session() {
    let world = World::new();
    let Admission::Run(grant) = world.admit(&request("me", "r1")) else {
        panic!()
    };
    let id = SessionId::derive("me", "r1");
    assert_eq!(grant.session.session_id, id);
    assert_eq!(grant.session.state, State::Requested);
    assert_eq!(grant.session.version, 1);
    assert_eq!(
        grant.operation.operation_id,
        OperationId::derive(&id, "up", 0)
    );
    assert_eq!((grant.operation.n, grant.token.fence), (0, BEGUN));
    assert_eq!(
        world.locks(),
        [format!("{}.{BEGUN}.lock", grant.operation.operation_id)]
    );
    world
        .ledger
        .read(|snapshot| {
            assert_eq!(snapshot.session(&id)?.as_ref(), Some(&grant.session));
            assert_eq!(
                snapshot.operation(&grant.token.operation_id)?.as_ref(),
                Some(&grant.operation)
            );
            assert_eq!(snapshot.request("me", "r1")?, Some(id.clone()));
            assert_eq!(snapshot.request("you", "r1")?, None);
            assert_eq!(
                snapshot.transitions(&id)?,
                std::slice::from_ref(&grant.session.last_transition)
            );
            let lease = snapshot.lease(&id)?.unwrap();
            assert_eq!(snapshot.holder_is_live(&lease), Liveness::Live);
            let events = snapshot.session_events(&id)?;
            assert_eq!(events.len(), 1);
            assert_eq!(
                (events[0].seq, events[0].kind.as_str()),
                (1, "operation_started")
            );
            Ok(())
        })
        .unwrap();
}

#[test]
fn the_same_id_for_something_else_is_a_conflict() {
    let world = World::new();
    let grant = world.up(&request("me", "r1"));
    let admission = world
        .ledger
        .write(|tx| tx.admit(&request("me", "r1"), "other", "sbx_2", "me"))
        .unwrap();
    let Admission::Conflict(Conflict::OtherRequest(id)) = admission else {
        panic!("{admission:?}")
    };
    assert_eq!(id, grant.session.session_id);
}

#[test]
fn the_same_id_of_another_owner_is_another_session() {
    let world = World::new();
    let mine = world.up(&request("me", "r1"));
    let yours = world.up(&request("you", "r1"));
    assert_ne!(mine.session.session_id, yours.session.session_id);
}

#[test]
fn ready_is_replayed_without_a_side_effect() {
    let world = World::new();
    let id = world.session_in(&request("me", "r1"), State::Ready);
    let before = world.session(&id);
    let Admission::Replay(session, operation) = world.admit(&request("me", "r1")) else {
        panic!()
    };
    assert_eq!(session, before);
    assert_eq!(operation.state, OperationState::Succeeded);
    assert_eq!(Outcome::Succeeded(operation.result.unwrap()), succeeded());
    assert_eq!(world.session(&id), before);
    assert!(world.locks().is_empty());
}

#[test]
fn ready_is_replayed_though_a_down_has_begun() {
    let world = World::new();
    let id = world.session_in(&request("me", "r1"), State::Ready);
    let _down = world.down(&id);
    assert!(matches!(
        world.admit(&request("me", "r1")),
        Admission::Replay(..)
    ));
}

#[test]
fn a_live_holder_is_waited_for_in_every_state_of_up() {
    let world = World::new();
    let grant = world.up(&request("me", "r1"));
    for state in [
        State::Provisioning,
        State::RepoSyncing,
        State::Installing,
        State::Ready,
    ] {
        let Admission::Wait(_, lease) = world.admit(&request("me", "r1")) else {
            panic!("before {state}")
        };
        assert_eq!(lease.operation_id, grant.token.operation_id);
        world.go(&grant, &[state]);
    }
    assert!(matches!(
        world.admit(&request("me", "r1")),
        Admission::Wait(..)
    ));
}

#[test]
fn a_dead_holder_is_taken_over_at_once_in_every_state_of_up() {
    let ways: [&[State]; 6] = [
        &[],
        &[State::Provisioning],
        &[State::Provisioning, State::RepoSyncing],
        &[State::Provisioning, State::RepoSyncing, State::Installing],
        &[
            State::Provisioning,
            State::RepoSyncing,
            State::Installing,
            State::Ready,
        ],
        &[State::Failing],
    ];
    for way in ways {
        let world = World::new();
        let grant = world.up(&request("me", "r1"));
        if !way.is_empty() {
            world.go(&grant, way);
        }
        // A process that ends loses its lock and says nothing.
        drop(grant.lock);
        let Admission::Resume(again) = world.admit(&request("me", "r1")) else {
            panic!("after {way:?}")
        };
        assert_eq!(again.operation.operation_id, grant.operation.operation_id);
        let (before, after) = (grant.token.fence, again.token.fence);
        assert_eq!((after, again.operation.takeovers), (before + 1, 1));
        let late = world
            .ledger
            .write(|tx| tx.update(&grant.token, |_| {}))
            .unwrap_err();
        assert_eq!(kind(&late), "fenced");
    }
}

#[test]
fn an_interrupted_operation_is_carried_on() {
    let world = World::new();
    let grant = world.up(&request("me", "r1"));
    let id = grant.session.session_id.clone();
    world.go(&grant, &[State::Provisioning]);
    world
        .ledger
        .write(|tx| tx.request_cancel(&id, "me"))
        .unwrap();
    let before = world.session(&id);
    world
        .ledger
        .write(|tx| tx.interrupt(&grant.token, &error("ERR_TIMEOUT")))
        .unwrap();
    assert_eq!(world.session(&id), before);
    let interrupted = world
        .ledger
        .read(|snapshot| snapshot.operation(&grant.token.operation_id))
        .unwrap()
        .unwrap();
    assert_eq!(interrupted.state, OperationState::Interrupted);
    assert_eq!(interrupted.error, Some(error("ERR_TIMEOUT")));
    assert!(interrupted.cancel_requested && interrupted.completed_at.is_none());

    let Admission::Resume(again) = world.admit(&request("me", "r1")) else {
        panic!()
    };
    assert_eq!(again.operation.operation_id, grant.operation.operation_id);
    assert_eq!(again.operation.state, OperationState::Running);
    assert_eq!(
        (again.operation.error, again.operation.cancel_requested),
        (None, false)
    );
}

#[test]
fn a_wish_to_cancel_outlives_a_holder_that_never_saw_it() {
    let world = World::new();
    let grant = world.up(&request("me", "r1"));
    assert!(
        world
            .ledger
            .write(|tx| tx.request_cancel(&grant.session.session_id, "me"))
            .unwrap()
    );
    drop(grant.lock);
    let again = world.up(&request("me", "r1"));
    assert!(again.operation.cancel_requested);
}

#[test]
fn a_failed_session_is_replayed_with_its_error() {
    for state in [State::Failed, State::CleanupFailed] {
        let world = World::new();
        world.session_in(&request("me", "r1"), state);
        let Admission::Replay(session, operation) = world.admit(&request("me", "r1")) else {
            panic!("{state}")
        };
        assert_eq!(session.state, state);
        assert_eq!(operation.error, Some(error("ERR_INSTALL_FAILED")));
        assert_eq!(operation.terminal_state, Some(state));
    }
}

#[test]
fn a_clean_up_that_down_left_is_carried_on() {
    let world = World::new();
    let id = world.session_in(&request("me", "r1"), State::CleanupFailed);
    let down = world.down(&id);
    world.go(&down, &[State::Failing]);
    assert!(matches!(
        world.admit(&request("me", "r1")),
        Admission::Wait(..)
    ));
    drop(down.lock);
    let Admission::Resume(grant) = world.admit(&request("me", "r1")) else {
        panic!()
    };
    assert_eq!(grant.operation.operation_id, down.operation.operation_id);
}

#[test]
fn stopping_and_after_is_a_conflict() {
    for state in [
        State::Stopping,
        State::Persisting,
        State::Stopped,
        State::StoppedUnpersisted,
        State::PersistFailed,
        State::CloseFailed,
    ] {
        let world = World::new();
        world.session_in(&request("me", "r1"), state);
        let admission = world.admit(&request("me", "r1"));
        let Admission::Conflict(Conflict::Ended(session)) = admission else {
            panic!("{state}: {admission:?}")
        };
        assert_eq!(session.state, state);
    }
}

#[test]
fn a_name_is_taken_until_its_session_has_ended() {
    let world = World::new();
    let first = world.up(&named("me", "r1", "docs"));
    let taken = world.admit(&named("me", "r2", "docs"));
    let Admission::Conflict(Conflict::NameTaken(id)) = taken else {
        panic!("{taken:?}")
    };
    assert_eq!(id, first.session.session_id);
    assert_eq!(
        world
            .ledger
            .read(|snapshot| snapshot.request("me", "r2"))
            .unwrap(),
        None
    );
    assert!(matches!(
        world.admit(&named("you", "r2", "docs")),
        Admission::Run(_)
    ));
    world.go(&first, &[State::Failing, State::Failed]);
    assert!(matches!(
        world.admit(&named("me", "r2", "docs")),
        Admission::Run(_)
    ));
}

#[test]
fn an_operation_waits_for_a_live_holder_and_takes_over_a_dead_one() {
    let world = World::new();
    let id = world.session_in(&request("me", "r1"), State::Ready);
    let Acquired::Run(first) = world.acquire(&id, Action::Down) else {
        panic!()
    };
    assert_eq!(
        first.operation.operation_id,
        OperationId::derive(&id, "down", 0)
    );
    assert_eq!(
        world.session(&id).operation_id,
        first.operation.operation_id
    );
    assert!(matches!(
        world.acquire(&id, Action::Down),
        Acquired::Wait(_)
    ));
    drop(first.lock);
    let Acquired::Resume(second) = world.acquire(&id, Action::Down) else {
        panic!()
    };
    assert_eq!(second.operation.operation_id, first.operation.operation_id);
    assert_eq!(second.token.fence, first.token.fence + 1);
    world.finish(&second, &Outcome::Failed(error("ERR_CLOSE_FAILED")));
    let Acquired::Run(third) = world.acquire(&id, Action::Down) else {
        panic!()
    };
    assert_eq!(
        third.operation.operation_id,
        OperationId::derive(&id, "down", 1)
    );
}

#[test]
fn an_open_operation_of_another_action_is_superseded() {
    let world = World::new();
    let up = world.up(&request("me", "r1"));
    let id = up.session.session_id.clone();
    drop(up.lock);
    let Acquired::Run(down) = world.acquire(&id, Action::Down) else {
        panic!()
    };
    let operations = world
        .ledger
        .read(|snapshot| snapshot.operations(&id))
        .unwrap();
    assert_eq!(operations.len(), 2);
    assert_eq!(operations[0].state, OperationState::Failed);
    assert_eq!(operations[0].error, Some(error("ERR_INTERRUPTED")));
    assert_eq!(operations[1], down.operation);
    let open = world
        .ledger
        .read(|snapshot| snapshot.open_operations())
        .unwrap();
    assert_eq!(open, [down.operation]);
}

#[test]
fn an_unknown_session_can_not_be_acquired() {
    let world = World::new();
    let id = SessionId::derive("me", "never");
    let error = world
        .ledger
        .write(|tx| tx.acquire(&id, Action::Down, "me", &error("ERR_INTERRUPTED")))
        .unwrap_err();
    assert_eq!(kind(&error), "not_found");
}

#[test]
fn the_history_of_a_session_reads_as_it_happened() {
    let world = World::new();
    let id = world.session_in(&request("me", "r1"), State::Stopped);
    let events = world
        .ledger
        .read(|snapshot| snapshot.session_events(&id))
        .unwrap();
    let lines: Vec<String> = events
        .iter()
        .map(|event| {
            let state = event.state.map_or("-", State::as_str);
            format!(
                "{} {} {state} {}",
                event.seq,
                event.kind,
                event.reason.as_deref().unwrap_or("-")
            )
        })
        .collect();
    expect![[r#"
        1 operation_started requested up
        2 transition provisioning test
        3 transition repo_syncing test
        4 transition installing test
        5 transition ready test
        6 operation_finished ready -
        7 operation_started ready down
        8 transition stopping test
        9 transition persisting test
        10 transition stopped test
        11 operation_finished stopped -"#]]
    .assert_eq(&lines.join("\n"));
}
