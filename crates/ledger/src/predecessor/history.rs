//! What a session went through: its operations and its transitions.

use super::document::{Operation, Session};
use super::session::updated;
use crate::import::Redact;
use crate::{
    Action, OperationId, OperationRecord, OperationState, SessionId, State, Timestamp,
    TransitionRecord,
};
use std::collections::VecDeque;

/// The operations, each once, all ended; at least one.
pub(super) fn operations(
    from: &Session,
    session: &SessionId,
    now: Timestamp,
) -> Vec<OperationRecord> {
    let mut operations: Vec<OperationRecord> = Vec::new();
    for known in &from.operation_history {
        operations.retain(|other| other.operation_id.as_str() != known.operation_id);
        operations.push(operation(from, session, known, now));
    }
    if operations.is_empty() {
        let made = Operation {
            operation_id: OperationId::derive(session, "up", 0).to_string(),
            action: "up".to_owned(),
            started_at: from.started_at,
            completed_at: from.updated_at,
            terminal_state: from.state.clone(),
        };
        operations.push(operation(from, session, &made, now));
    }
    let (mut ups, mut downs) = (0, 0);
    for operation in &mut operations {
        let n = match operation.action {
            Action::Up => &mut ups,
            Action::Down | Action::Reconcile => &mut downs,
        };
        operation.n = *n;
        *n += 1;
    }
    operations
}

fn operation(
    from: &Session,
    session: &SessionId,
    known: &Operation,
    now: Timestamp,
) -> OperationRecord {
    let ended = State::parse(&known.terminal_state);
    let well =
        known.completed_at.0.is_some() && matches!(ended, Some(State::Ready | State::Stopped));
    OperationRecord {
        operation_id: OperationId::from_recorded(&known.operation_id),
        session_id: session.clone(),
        action: match known.action.as_str() {
            "down" | "teardown" => Action::Down,
            "reconcile" => Action::Reconcile,
            _ => Action::Up,
        },
        n: 0,
        state: if well {
            OperationState::Succeeded
        } else {
            OperationState::Failed
        },
        actor: from.owner().to_owned(),
        started_at: known.started_at.0.unwrap_or_else(|| updated(from, now)),
        completed_at: Some(known.completed_at.0.unwrap_or(now)),
        takeovers: 0,
        steps: Vec::new(),
        terminal_state: ended,
        error: None,
        result: None,
        cancel_requested: false,
        unknown: serde_json::Map::new(),
    }
}

pub(super) fn imported(
    state: State,
    operation: &OperationId,
    actor: &str,
    at: Timestamp,
) -> TransitionRecord {
    TransitionRecord {
        state,
        timestamp: at,
        actor: actor.to_owned(),
        reason: "imported".to_owned(),
        operation_id: operation.clone(),
    }
}

/// What was recorded, and the way to the end.
pub(super) fn transitions(
    from: &Session,
    before: State,
    after: State,
    latest: &OperationId,
    now: Timestamp,
    redact: Redact<'_>,
) -> Vec<TransitionRecord> {
    let mut transitions: Vec<TransitionRecord> = Vec::new();
    for known in &from.state_transitions {
        let operation = if known.operation_id.is_empty() {
            latest.clone()
        } else {
            OperationId::from_recorded(&known.operation_id)
        };
        transitions.push(TransitionRecord {
            state: State::parse(&known.state).unwrap_or(before),
            timestamp: known.timestamp.0.unwrap_or_else(|| updated(from, now)),
            actor: known.actor.clone(),
            reason: redact(&known.reason),
            operation_id: operation,
        });
    }
    if transitions.last().is_none_or(|last| last.state != before) {
        transitions.push(imported(before, latest, from.owner(), updated(from, now)));
    }
    let rest = way(before, after);
    transitions.extend(
        rest.iter()
            .map(|state| imported(*state, latest, from.owner(), now)),
    );
    transitions
}

/// The shortest way along the table's edges, without its start; it never says that a session was `ready`.
fn way(from: State, to: State) -> Vec<State> {
    let mut ways = VecDeque::from([vec![from]]);
    let mut seen = vec![from];
    while let Some(way) = ways.pop_front() {
        let last = way.last().copied().unwrap_or(from);
        if last == to {
            return way[1..].to_vec();
        }
        for next in last.successors() {
            if *next != State::Ready && !seen.contains(next) {
                seen.push(*next);
                ways.push_back([way.as_slice(), &[*next]].concat());
            }
        }
    }
    Vec::new()
}
