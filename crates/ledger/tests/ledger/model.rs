//! The ledger against a map: whatever is done to it, it holds what a map would hold.

use crate::world::{World, error, kind, request, succeeded};
use alpine_ledger::{
    Acquired, Action, Admission, Grant, LedgerError, ListQuery, OperationState, Outcome, SessionId,
    SessionRecord, State,
};
use proptest::prelude::{Strategy, any, prop_oneof};
use proptest::test_runner::{Config, TestRunner};
use std::collections::BTreeMap;
use std::time::Duration;

#[derive(Clone, Debug)]
enum Act {
    Admit(u8),
    Acquire(u8),
    Die(u8),
    Move(u8, usize),
    Update(u8),
    Swap(u8, bool),
    Finish(u8, bool),
    Interrupt(u8),
    Advance(u16),
    Reopen,
}

fn act() -> impl Strategy<Value = Act> {
    let session = 0..5_u8;
    prop_oneof![
        3 => session.clone().prop_map(Act::Admit),
        2 => session.clone().prop_map(Act::Acquire),
        1 => session.clone().prop_map(Act::Die),
        6 => (session.clone(), any::<usize>()).prop_map(|(session, to)| Act::Move(session, to)),
        1 => session.clone().prop_map(Act::Update),
        1 => (session.clone(), any::<bool>()).prop_map(|(session, stale)| Act::Swap(session, stale)),
        1 => (session.clone(), any::<bool>()).prop_map(|(session, well)| Act::Finish(session, well)),
        1 => session.prop_map(Act::Interrupt),
        1 => any::<u16>().prop_map(Act::Advance),
        1 => proptest::strategy::Just(Act::Reopen),
    ]
}

/// What a session should look like.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Expected {
    state: State,
    version: u64,
    fence: u64,
    transitions: usize,
    counter: u64,
}

#[derive(Default)]
struct Model {
    sessions: BTreeMap<SessionId, Expected>,
    events: u64,
}

struct Run {
    world: World,
    model: Model,
    grants: BTreeMap<u8, Grant>,
}

fn id(session: u8) -> SessionId {
    SessionId::derive("me", &session.to_string())
}

/// A fence is above the lease's last one; by how much depends on what other sessions were given.
fn later(before: u64, grant: &Grant) -> u64 {
    assert!(grant.token.fence > before);
    grant.token.fence
}

impl Run {
    fn admit(&mut self, session: u8) {
        let admission = self.world.admit(&request("me", &session.to_string()));
        let known = self.model.sessions.get_mut(&id(session));
        match (admission, known) {
            (Admission::Run(grant), None) => {
                let expected = Expected {
                    state: State::Requested,
                    version: 1,
                    fence: grant.token.fence,
                    transitions: 1,
                    counter: 0,
                };
                self.model.sessions.insert(id(session), expected);
                self.model.events += 1;
                self.grants.insert(session, grant);
            }
            (Admission::Resume(grant), Some(expected)) => {
                assert!(
                    !self.grants.contains_key(&session),
                    "a live holder was taken over"
                );
                expected.fence = later(expected.fence, &grant);
                expected.version = grant.session.version;
                self.model.events += 1;
                self.grants.insert(session, grant);
            }
            (Admission::Wait(..), Some(_)) => assert!(self.grants.contains_key(&session)),
            (Admission::Replay(..) | Admission::Conflict(_), Some(_)) => {}
            (other, known) => panic!("{other:?} for {known:?}"),
        }
    }

    fn acquire(&mut self, session: u8) {
        let superseded = error("ERR_INTERRUPTED");
        let before = self
            .world
            .ledger
            .read(|snapshot| snapshot.open_operations_of(&id(session)))
            .unwrap();
        let result = self
            .world
            .ledger
            .write(|tx| tx.acquire(&id(session), Action::Down, "me", &superseded));
        let Some(expected) = self.model.sessions.get_mut(&id(session)) else {
            assert_eq!(kind(&result.unwrap_err()), "not_found");
            return;
        };
        match result.unwrap() {
            Acquired::Run(grant) => {
                assert!(!self.grants.contains_key(&session));
                (expected.fence, expected.version) =
                    (later(expected.fence, &grant), expected.version + 1);
                self.model.events += 1 + before.len() as u64;
                self.grants.insert(session, grant);
            }
            Acquired::Resume(grant) => {
                assert!(!self.grants.contains_key(&session));
                expected.fence = later(expected.fence, &grant);
                self.model.events += 1;
                self.grants.insert(session, grant);
            }
            Acquired::Wait(_) => assert!(self.grants.contains_key(&session)),
        }
    }

    fn step(&mut self, session: u8, to: usize) {
        let Some(grant) = self.grants.get(&session) else {
            return;
        };
        let expected = self.model.sessions.get_mut(&id(session)).unwrap();
        // Mostly along the table, at times anywhere.
        let successors = expected.state.successors();
        let to = match successors.get(to % (successors.len() + 1)) {
            Some(state) => *state,
            None => State::ALL[to % State::ALL.len()],
        };
        let result = self
            .world
            .ledger
            .write(|tx| tx.transition(&grant.token, to, "model", |_| {}));
        if expected.state.may_become(to) {
            result.unwrap();
            expected.state = to;
            expected.version += 1;
            expected.transitions += 1;
            self.model.events += 1;
        } else {
            assert!(matches!(
                result.unwrap_err(),
                LedgerError::IllegalTransition { .. }
            ));
        }
    }

    fn count(&mut self, session: u8, write: impl FnOnce(&Self, &Expected) -> bool) {
        let Some(expected) = self.model.sessions.get(&id(session)).cloned() else {
            return;
        };
        if write(self, &expected) {
            let expected = self.model.sessions.get_mut(&id(session)).unwrap();
            (expected.version, expected.counter) = (expected.version + 1, expected.counter + 1);
        }
    }

    fn act(&mut self, act: &Act) {
        match *act {
            Act::Admit(session) => self.admit(session),
            Act::Acquire(session) => self.acquire(session),
            Act::Die(session) => drop(self.grants.remove(&session)),
            Act::Move(session, to) => self.step(session, to),
            Act::Update(session) => self.count(session, |run, _| {
                let Some(grant) = run.grants.get(&session) else {
                    return false;
                };
                run.world
                    .ledger
                    .write(|tx| tx.update(&grant.token, add))
                    .unwrap();
                true
            }),
            Act::Swap(session, stale) => self.count(session, |run, expected| {
                let version = expected.version - u64::from(stale);
                let result = run
                    .world
                    .ledger
                    .write(|tx| tx.compare_and_swap(&id(session), version, add));
                assert_eq!(result.is_err(), stale);
                !stale
            }),
            Act::Finish(session, well) => {
                let Some(grant) = self.grants.remove(&session) else {
                    return;
                };
                let outcome = if well {
                    succeeded()
                } else {
                    Outcome::Failed(error("ERR_INSTALL_FAILED"))
                };
                let operation = self
                    .world
                    .ledger
                    .write(|tx| tx.finish(&grant.token, &outcome))
                    .unwrap();
                assert_eq!(operation.state == OperationState::Succeeded, well);
                self.model.events += 1;
            }
            Act::Interrupt(session) => {
                let Some(grant) = self.grants.remove(&session) else {
                    return;
                };
                self.world
                    .ledger
                    .write(|tx| tx.interrupt(&grant.token, &error("ERR_TIMEOUT")))
                    .unwrap();
                self.model.events += 1;
            }
            Act::Advance(ms) => {
                self.world
                    .clock
                    .advance(Duration::from_millis(u64::from(ms) / 16));
                for grant in self.grants.values() {
                    self.world
                        .ledger
                        .write(|tx| tx.renew(&grant.token))
                        .unwrap();
                }
            }
            Act::Reopen => self.world.ledger = self.world.other(|_| {}),
        }
    }

    fn check(&self) {
        let read = self.world.ledger.read(|snapshot| {
            let mut found = BTreeMap::new();
            let query = ListQuery {
                owner: None,
                states: Vec::new(),
                ended_since: None,
                limit: 100,
            };
            for summary in snapshot.list(&query)?.sessions {
                let session = snapshot.session(&summary.session_id)?.unwrap();
                assert_eq!(
                    (session.state, session.updated_at),
                    (summary.state, summary.updated_at)
                );
                assert_eq!(
                    snapshot
                        .operation(&session.operation_id)?
                        .unwrap()
                        .session_id,
                    session.session_id
                );
                let expected = Expected {
                    state: session.state,
                    version: session.version,
                    fence: snapshot.lease(&session.session_id)?.unwrap().fence,
                    transitions: snapshot.transitions(&session.session_id)?.len(),
                    counter: session.persist_generation,
                };
                assert!(snapshot.open_operations_of(&session.session_id)?.len() <= 1);
                found.insert(session.session_id, expected);
            }
            let seqs: Vec<u64> = snapshot
                .events_after(0, usize::MAX)?
                .iter()
                .map(|event| event.seq)
                .collect();
            Ok((found, seqs))
        });
        let (found, seqs) = read.unwrap();
        assert_eq!(found, self.model.sessions);
        assert_eq!(seqs, (1..=self.model.events).collect::<Vec<u64>>());
        assert_eq!(self.world.locks().len(), self.grants.len());
    }
}

fn add(session: &mut SessionRecord) {
    session.persist_generation += 1;
}

#[test]
fn the_ledger_holds_what_a_map_would_hold() {
    let config = Config {
        cases: 24,
        failure_persistence: None,
        ..Config::default()
    };
    let acts = proptest::collection::vec(act(), 1..40);
    let result = TestRunner::new(config).run(&acts, |acts| {
        let mut run = Run {
            world: World::new(),
            model: Model::default(),
            grants: BTreeMap::new(),
        };
        for act in &acts {
            run.act(act);
        }
        run.check();
        Ok(())
    });
    if let Err(failure) = result {
        panic!("{failure}");
    }
}
