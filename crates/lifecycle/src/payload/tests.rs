use super::{MAX_PAYLOAD, Payload, PayloadOperation, PayloadTransition, compact};

fn payload(operations: usize, transitions: usize, reason: usize) -> Payload {
    let operation = |n: usize| PayloadOperation {
        operation_id: format!("op_{n:032x}"),
        action: "down".to_owned(),
        started_at: "2026-01-01T00:00:00.000Z".to_owned(),
        completed_at: None,
        terminal_state: None,
        error_code: None,
    };
    let transition = |n: usize| PayloadTransition {
        state: "stopping".to_owned(),
        timestamp: "2026-01-01T00:00:00.000Z".to_owned(),
        actor: "me".to_owned(),
        reason: "x".repeat(reason),
        operation_id: format!("op_{n:032x}"),
    };
    Payload {
        schema_version: "v1".to_owned(),
        session_id: "ses_0".to_owned(),
        principal_id: "me".to_owned(),
        repo_url: "/r".to_owned(),
        branch: "main".to_owned(),
        target_commit_sha: None,
        state: "stopped".to_owned(),
        state_transitions: (0..transitions).map(transition).collect(),
        started_at: "2026-01-01T00:00:00.000Z".to_owned(),
        ready_at: None,
        stopped_at: None,
        persisted_at: "2026-01-01T00:00:01.000Z".to_owned(),
        operation_history: (0..operations).map(operation).collect(),
        last_error: None,
        history_truncated: false,
        workspace_snapshot: None,
        workspace_snapshot_reason: None,
    }
}

#[test]
fn what_fits_is_left_alone() {
    let small = payload(3, 3, 10);
    assert_eq!(compact(&small, MAX_PAYLOAD), Some(small));
}

#[test]
fn the_oldest_operations_go_first_and_no_more_than_needed() {
    let large = payload(4000, 100, 10);
    let compacted = compact(&large, MAX_PAYLOAD).unwrap();
    assert!(compacted.history_truncated);
    assert!(compacted.to_text().len() <= MAX_PAYLOAD);
    assert_eq!(compacted.state_transitions, large.state_transitions);
    let dropped = large.operation_history.len() - compacted.operation_history.len();
    assert_eq!(
        compacted.operation_history[0],
        large.operation_history[dropped]
    );
    assert!(
        large.without(dropped - 1).to_text().len() > MAX_PAYLOAD,
        "one entry less would have been enough"
    );
}

#[test]
fn transitions_go_when_no_operation_is_left() {
    let large = payload(10, 2000, 500);
    let compacted = compact(&large, MAX_PAYLOAD).unwrap();
    assert!(compacted.operation_history.is_empty());
    assert!(compacted.state_transitions.len() < 2000);
    assert_eq!(
        compacted.state_transitions.last(),
        large.state_transitions.last()
    );
}

#[test]
fn persisted_at_never_changes_between_rounds_and_bytes_are_equal() {
    let large = payload(5000, 2000, 100);
    let (one, two) = (
        compact(&large, MAX_PAYLOAD).unwrap(),
        compact(&large, MAX_PAYLOAD).unwrap(),
    );
    assert_eq!(one.to_text(), two.to_text());
    assert_eq!(one.persisted_at, large.persisted_at);
}

#[test]
fn what_can_never_fit_is_refused() {
    let mut hopeless = payload(1, 1, 1);
    hopeless.branch = "b".repeat(MAX_PAYLOAD);
    assert_eq!(compact(&hopeless, MAX_PAYLOAD), None);
}
