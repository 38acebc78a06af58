//! What may be written to a session, and what goes with it.

use crate::world::{BEGUN, World, kind, named, request};
use alpine_ledger::{
    Action, AuditRecord, Found, LedgerError, PersistAttempt, Receipt, SessionId, SessionRecord,
    State, StepRecord, Timestamp,
};
use std::time::Duration;

#[test]
fn every_edge_that_is_not_in_the_table_is_refused_and_writes_nothing() {
    let world = World::new();
    for from in State::ALL {
        let new = request("me", from.as_str());
        let id = if from == State::Requested {
            world.up(&new).session.session_id
        } else {
            world.session_in(&new, from)
        };
        let grant = world.down(&id);
        for to in State::ALL.into_iter().filter(|to| !from.may_become(*to)) {
            let before = world
                .ledger
                .read(|snapshot| snapshot.events_after(0, usize::MAX))
                .unwrap()
                .len();
            let refused = world
                .ledger
                .write(|tx| tx.transition(&grant.token, to, "no", |_| {}))
                .unwrap_err();
            assert!(
                matches!(refused, LedgerError::IllegalTransition { .. }),
                "{from} to {to}: {refused:?}"
            );
            assert_eq!(world.session(&id).state, from);
            let after = world
                .ledger
                .read(|snapshot| snapshot.events_after(0, usize::MAX))
                .unwrap()
                .len();
            assert_eq!(before, after);
        }
    }
}

#[test]
fn a_transition_records_who_when_why_and_how_long() {
    let world = World::new();
    let grant = world.up(&request("me", "r1"));
    let id = grant.session.session_id.clone();
    world.clock.advance(Duration::from_millis(1_500));
    let session = world
        .ledger
        .write(|tx| {
            tx.transition(&grant.token, State::Provisioning, "first", |session| {
                session.target_commit_sha = Some("abc".to_owned());
            })
        })
        .unwrap();
    assert_eq!(session, world.session(&id));
    assert_eq!(
        (session.version, session.target_commit_sha.as_deref()),
        (2, Some("abc"))
    );
    assert_eq!(session.last_transition.reason, "first");
    assert_eq!(
        session.last_transition.operation_id,
        grant.token.operation_id
    );
    let transitions = world
        .ledger
        .read(|snapshot| snapshot.transitions(&id))
        .unwrap();
    assert_eq!(transitions.len(), 2);
    assert_eq!(transitions[1], session.last_transition);
    let event = world
        .ledger
        .read(|snapshot| snapshot.session_events(&id))
        .unwrap()
        .pop()
        .unwrap();
    assert_eq!(event.kind, "transition");
    assert_eq!(
        (event.duration_ms, event.actor.as_deref()),
        (Some(1_500), Some("me"))
    );
}

#[test]
fn a_change_may_not_touch_what_the_ledger_sets() {
    let world = World::new();
    let grant = world.up(&request("me", "r1"));
    let before = world.session(&grant.session.session_id);
    let changes: [fn(&mut SessionRecord); 9] = [
        |session| session.state = State::Stopped,
        |session| session.session_id = SessionId::derive("you", "r1"),
        |session| session.version = 7,
        |session| session.sandbox_id = "sbx_2".to_owned(),
        |session| session.new.owner = "you".to_owned(),
        |session| session.updated_at = Timestamp(1),
        |session| session.started_at = Timestamp(1),
        |session| session.last_transition.reason = "none".to_owned(),
        |session| session.operation_id = alpine_ledger::OperationId::from_recorded("op_1"),
    ];
    for change in changes {
        for refused in [
            world.ledger.write(|tx| tx.update(&grant.token, change)),
            world
                .ledger
                .write(|tx| tx.compare_and_swap(&before.session_id, before.version, change)),
            world
                .ledger
                .write(|tx| tx.transition(&grant.token, State::Provisioning, "x", change)),
        ] {
            assert_eq!(kind(&refused.unwrap_err()), "protected");
        }
    }
    assert_eq!(world.session(&before.session_id), before);
}

#[test]
fn compare_and_swap_goes_by_the_version() {
    let world = World::new();
    let grant = world.up(&request("me", "r1"));
    let id = grant.session.session_id;
    let swap = |version| {
        world.ledger.write(|tx| {
            tx.compare_and_swap(&id, version, |session| session.browser_opened = Some(true))
        })
    };
    assert_eq!(swap(1).unwrap().version, 2);
    let LedgerError::VersionMismatch {
        expected, found, ..
    } = swap(1).unwrap_err()
    else {
        panic!()
    };
    assert_eq!((expected, found), (1, 2));
    let missing = SessionId::derive("me", "never");
    let missing = world
        .ledger
        .write(|tx| tx.compare_and_swap(&missing, 1, |_| {}))
        .unwrap_err();
    assert_eq!(kind(&missing), "not_found");
}

#[test]
fn an_older_binary_keeps_what_a_newer_one_wrote() {
    let world = World::new();
    let grant = world.up(&request("me", "r1"));
    let write = |change: fn(&mut SessionRecord)| {
        world
            .ledger
            .write(|tx| tx.update(&grant.token, change))
            .unwrap()
    };
    write(|session| drop(session.unknown.insert("colour".to_owned(), "blue".into())));
    write(|session| session.browser_opened = Some(true));
    let session = world.session(&grant.session.session_id);
    assert_eq!(session.unknown["colour"], "blue");
}

#[test]
fn steps_attempts_receipts_and_audit_are_kept_in_order() {
    let world = World::new();
    let grant = world.up(&request("me", "r1"));
    let id = grant.session.session_id.clone();
    let at = Timestamp(5);
    let step = |name: &str| StepRecord {
        step: name.to_owned(),
        at,
        duration_ms: 12,
        attempts: 1,
        error_code: None,
    };
    let attempt = |generation| PersistAttempt {
        generation,
        persisted_at: at,
        payload: "{}".to_owned(),
        staged: None,
    };
    let receipt = |generation| Receipt {
        generation,
        durable_object_id: format!("obj_{generation}"),
        persisted_at: at,
        payload_digest: "d".to_owned(),
        snapshot_digest: None,
        verified_at: at,
    };
    let audit = |reason: &str| AuditRecord {
        actor: "root".to_owned(),
        session_id: id.clone(),
        action: "down".to_owned(),
        reason: reason.to_owned(),
        at,
    };
    world
        .ledger
        .write(|tx| {
            assert_eq!(tx.persist_attempt(&id)?, None);
            assert_eq!(tx.receipt(&id)?, None);
            for name in ["provision", "sync_repo"] {
                tx.record_step(&grant.token, &step(name))?;
            }
            for generation in [1, 2, 300] {
                tx.put_persist_attempt(&grant.token, &attempt(generation))?;
                tx.put_receipt(&grant.token, &receipt(generation))?;
            }
            tx.put_audit(&audit("first"))?;
            tx.put_audit(&audit("second"))
        })
        .unwrap();
    world
        .ledger
        .read(|snapshot| {
            let operation = snapshot.operation(&grant.token.operation_id)?.unwrap();
            assert_eq!(operation.steps, [step("provision"), step("sync_repo")]);
            assert_eq!(snapshot.persist_attempt(&id)?, Some(attempt(300)));
            assert_eq!(snapshot.receipt(&id)?, Some(receipt(300)));
            assert_eq!(snapshot.audit()?, [audit("first"), audit("second")]);
            let events = snapshot.events_after(1, 10)?;
            let steps: Vec<_> = events
                .iter()
                .map(|event| (event.reason.as_deref(), event.duration_ms))
                .collect();
            assert_eq!(
                steps,
                [(Some("provision"), Some(12)), (Some("sync_repo"), Some(12))]
            );
            Ok(())
        })
        .unwrap();
}

#[test]
fn a_cancel_is_seen_by_the_holder_and_told_once() {
    let world = World::new();
    let grant = world.up(&request("me", "r1"));
    let id = grant.session.session_id.clone();
    for _ in 0..2 {
        assert!(
            world
                .other(|_| {})
                .write(|tx| tx.request_cancel(&id, "admin"))
                .unwrap()
        );
    }
    let operation = world
        .ledger
        .read(|snapshot| snapshot.operation(&grant.token.operation_id))
        .unwrap()
        .unwrap();
    assert!(operation.cancel_requested);
    let events = world
        .ledger
        .read(|snapshot| snapshot.session_events(&id))
        .unwrap();
    let told: Vec<_> = events
        .iter()
        .filter(|event| event.kind == "cancel_requested")
        .collect();
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].actor.as_deref(), Some("admin"));
    world.go(&grant, &[State::Failing, State::Failed]);
    world.finish(&grant, &crate::world::succeeded());
    assert!(
        !world
            .ledger
            .write(|tx| tx.request_cancel(&id, "admin"))
            .unwrap()
    );
}

#[test]
fn events_are_read_in_pages_without_gaps() {
    let world = World::new();
    let grant = world.up(&request("me", "r1"));
    let id = grant.session.session_id;
    for n in 0..20 {
        let reason = n.to_string();
        let seq = world
            .ledger
            .write(|tx| {
                tx.append_event(
                    Some(&id),
                    Some(&grant.token.operation_id),
                    "note",
                    Some(&reason),
                )
            })
            .unwrap();
        assert_eq!(seq, n + 2);
    }
    let mut seen = Vec::new();
    loop {
        let after = seen.last().copied().unwrap_or(0);
        let page = world
            .ledger
            .read(|snapshot| snapshot.events_after(after, 7))
            .unwrap();
        if page.is_empty() {
            break;
        }
        seen.extend(page.iter().map(|event| event.seq));
    }
    assert_eq!(seen, (1..=21).collect::<Vec<u64>>());
    assert_eq!(
        world
            .ledger
            .read(|snapshot| snapshot.events_after(u64::MAX, 7))
            .unwrap(),
        []
    );
    let missing = world
        .ledger
        .write(|tx| tx.append_event(Some(&SessionId::derive("x", "y")), None, "note", None));
    assert_eq!(kind(&missing.unwrap_err()), "not_found");
}

#[test]
fn a_pending_destroy_is_found_until_it_is_done() {
    let world = World::new();
    let id = world.session_in(&request("me", "r1"), State::Stopped);
    let set = |pending| {
        let version = world.session(&id).version;
        world
            .ledger
            .write(|tx| {
                tx.compare_and_swap(&id, version, |session| session.destroy_pending = pending)
            })
            .unwrap();
        world
            .ledger
            .read(|snapshot| snapshot.pending_destroys())
            .unwrap()
    };
    assert_eq!(set(true), std::slice::from_ref(&id));
    assert_eq!(set(false), []);
}

#[test]
fn a_session_is_found_by_id_prefix_and_name() {
    let world = World::new();
    let grant = world.up(&named("me", "r1", "docs"));
    let id = grant.session.session_id.clone();
    let yours = world.up(&named("you", "r1", "docs")).session.session_id;
    let find = |owner: Option<&str>, given: &str| {
        world
            .ledger
            .read(|snapshot| snapshot.find(owner, given))
            .unwrap()
    };
    assert_eq!(find(Some("you"), id.as_str()), Found::One(id.clone()));
    assert_eq!(find(Some("me"), &id.as_str()[..8]), Found::One(id.clone()));
    assert_eq!(find(Some("me"), &id.as_str()[..7]), Found::None);
    assert_eq!(find(Some("you"), &id.as_str()[..12]), Found::None);
    assert_eq!(find(None, &id.as_str()[..12]), Found::One(id.clone()));
    assert_eq!(find(Some("me"), "docs"), Found::One(id.clone()));
    let Found::Ambiguous(mut both) = find(None, "docs") else {
        panic!()
    };
    both.sort();
    let mut expected = vec![id.clone(), yours];
    expected.sort();
    assert_eq!(both, expected);
    assert_eq!(find(Some("me"), "doc"), Found::None);
    assert_eq!(find(Some("me"), ""), Found::None);

    world.go(&grant, &[State::Failing, State::Failed]);
    assert_eq!(find(Some("me"), "docs"), Found::One(id));
    world.clock.advance(Duration::from_millis(1));
    let second = world.up(&named("me", "r2", "docs"));
    assert_eq!(
        find(Some("me"), "docs"),
        Found::One(second.session.session_id.clone())
    );
    world.go(&second, &[State::Failing, State::Failed]);
    assert_eq!(
        find(Some("me"), "docs"),
        Found::One(second.session.session_id)
    );
    assert_eq!(
        world
            .ledger
            .read(|snapshot| snapshot.find(Some("nobody"), "docs"))
            .unwrap(),
        Found::None
    );
}

#[test]
fn a_common_prefix_is_ambiguous() {
    let world = World::new();
    // Among 300 ids two share their first character after any given prefix of three; four is enough to try.
    let mut ids: Vec<String> = Vec::new();
    world
        .ledger
        .write(|tx| {
            for n in 0..600 {
                let new = request("me", &n.to_string());
                if let alpine_ledger::Admission::Run(grant) = tx.admit(&new, "f", "s", "me")? {
                    ids.push(grant.session.session_id.to_string());
                }
            }
            Ok(())
        })
        .unwrap();
    ids.sort();
    let twins = ids.windows(2).find(|pair| pair[0][..8] == pair[1][..8]);
    let prefix = twins.map_or_else(|| ids[0][..8].to_owned(), |pair| pair[0][..8].to_owned());
    let expected: Vec<SessionId> = ids
        .iter()
        .filter(|id| id.starts_with(&prefix))
        .map(|id| SessionId::from_recorded(id.as_str()))
        .collect();
    let found = world
        .ledger
        .read(|snapshot| snapshot.find(Some("me"), &prefix))
        .unwrap();
    assert_eq!(
        found,
        if expected.len() == 1 {
            Found::One(expected[0].clone())
        } else {
            Found::Ambiguous(expected)
        }
    );
}

#[test]
fn operations_are_counted_by_action() {
    let world = World::new();
    let id = world.session_in(&request("me", "r1"), State::Ready);
    let mut seen = Vec::new();
    for action in [Action::Down, Action::Reconcile, Action::Down] {
        let alpine_ledger::Acquired::Run(grant) = world.acquire(&id, action) else {
            panic!()
        };
        seen.push((
            grant.operation.action,
            grant.operation.n,
            grant.token.fence - BEGUN,
        ));
        world.finish(&grant, &crate::world::succeeded());
    }
    assert_eq!(
        seen,
        [
            (Action::Down, 0, 1),
            (Action::Reconcile, 0, 2),
            (Action::Down, 1, 3)
        ]
    );
}
