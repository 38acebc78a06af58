//! The sessions that are listed: the same ones in a ledger and in a file of the predecessor's shape.

use alpine_ledger::{
    Acquired, Action, Admission, Clock, ErrorRecord, LeaseToken, Ledger, LedgerError, ListQuery,
    NewSession, Options, Outcome, PersistAttempt, Receipt, SessionId, SessionRecord, Snapshot,
    State, Timestamp, TransitionRecord, Tx,
};
use alpine_testkit::TestClock;
use serde_json::{Map, Value, json};
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Whose sessions they are.
pub const OWNER: &str = "tester";
/// How many of them are active.
pub const ACTIVE: u64 = 200;
/// How many ended in the last 24 hours.
pub const RECENT: u64 = 500;

const HOUR_MS: u64 = 60 * 60 * 1000;
/// How many sessions one transaction makes.
const BATCH: u64 = 1000;
const COMMIT: &str = "b6b2b3d2c39d9c1b0a6d6ae8c1e8d2f6c1f3e0aa";

/// The states that an active session goes through.
const UP: [State; 4] = [
    State::Provisioning,
    State::RepoSyncing,
    State::Installing,
    State::Ready,
];

/// Makes a ledger: `older` sessions that ended days ago, which a list does not show, then those that it shows.
///
/// # Panics
/// When the ledger can't be written.
pub fn fill(ledger: &Path, older: u64) {
    let clock = TestClock::in_memory();
    // Whole seconds: the predecessor's file has no others.
    let now = alpine_ledger::SystemClock.now().0 / 1000 * 1000;
    let options = Options {
        clock: Arc::new(clock.clone()),
        ..Options::new()
    };
    let ledger = Ledger::open(ledger, options).expect("a ledger");
    clock.set(now - 10 * 24 * HOUR_MS);
    let mut made = 0;
    while made < older {
        let next = older.min(made + BATCH);
        let filled = ledger.write(|tx| {
            (made..next).try_for_each(|number| failed(tx, &clock, &format!("older-{number}")))
        });
        filled.expect("a batch of sessions");
        made = next;
    }
    clock.set(now - 12 * HOUR_MS);
    let filled = ledger.write(|tx| {
        (0..RECENT).try_for_each(|number| stopped(tx, &clock, &format!("recent-{number}")))?;
        (0..ACTIVE)
            .try_for_each(|number| up(tx, &clock, &format!("active-{number}"), &UP).map(drop))
    });
    filled.expect("sessions");
}

/// Writes the same sessions as one file of the predecessor's shape, and a second one that holds nothing else.
///
/// # Panics
/// When the ledger can't be read, or a file can't be written.
pub fn convert(ledger: &Path, whole: &Path, sessions_alone: &Path) {
    let ledger = Ledger::open_read(ledger, Options::new()).expect("a ledger");
    let file = ledger.read(predecessor).expect("the sessions");
    let alone = json!({"schema_version": "v1", "sessions": file["sessions"]});
    for (path, document) in [(whole, &file), (sessions_alone, &alone)] {
        fs::write(path, document.to_string()).expect("a file of sessions");
    }
}

fn step(clock: &TestClock) {
    clock.advance(Duration::from_secs(1));
}

/// A session that was admitted and went through these states.
fn up(
    tx: &mut Tx<'_>,
    clock: &TestClock,
    request: &str,
    states: &[State],
) -> Result<LeaseToken, LedgerError> {
    let new = NewSession {
        owner: OWNER.to_owned(),
        client_request_id: request.to_owned(),
        repo_url: format!("https://github.com/example/{request}.git"),
        branch: "main".to_owned(),
        public: false,
        provider: "local".to_owned(),
        agent: "opencode".to_owned(),
        name: None,
        request: json!({"no_install": false, "allow_unsandboxed": false}),
    };
    let sandbox = format!("sbx_{request}");
    let Admission::Run(grant) = tx.admit(&new, request, &sandbox, OWNER)? else {
        unreachable!("every request is a new one");
    };
    for state in states {
        step(clock);
        tx.transition(&grant.token, *state, "the step before is done", |session| {
            session.target_commit_sha = Some(COMMIT.to_owned());
            if *state == State::Ready {
                session.ready_at = Some(clock.now());
                session.opencode_url = Some("http://127.0.0.1:38047".to_owned());
                session.browser_opened = Some(true);
            }
        })?;
    }
    let outcome = if states == UP {
        Outcome::Succeeded(json!({"state": "ready"}))
    } else {
        Outcome::Failed(error("ERR_INSTALL_FAILED"))
    };
    tx.finish(&grant.token, &outcome)?;
    Ok(grant.token)
}

/// A session that failed.
fn failed(tx: &mut Tx<'_>, clock: &TestClock, request: &str) -> Result<(), LedgerError> {
    up(tx, clock, request, &[State::Failing, State::Failed]).map(drop)
}

/// A session that was brought up and down.
fn stopped(tx: &mut Tx<'_>, clock: &TestClock, request: &str) -> Result<(), LedgerError> {
    let session = up(tx, clock, request, &UP)?.session_id;
    let superseded = error("ERR_INTERRUPTED");
    let Acquired::Run(grant) = tx.acquire(&session, Action::Down, OWNER, &superseded)? else {
        unreachable!("nobody else has the session");
    };
    let token = grant.token;
    step(clock);
    tx.transition(&token, State::Stopping, "asked for", |_| {})?;
    step(clock);
    let persisted_at = clock.now();
    tx.transition(&token, State::Persisting, "stopped", |session| {
        session.stopped_at = Some(persisted_at);
        session.persisted_at = Some(persisted_at);
        session.persist_generation = 1;
    })?;
    let payload = payload(tx, &session)?.to_string();
    tx.put_persist_attempt(
        &token,
        &PersistAttempt {
            generation: 1,
            persisted_at,
            payload,
            staged: None,
        },
    )?;
    step(clock);
    let object = format!("{session}/1-99f245e78a7410fb");
    tx.put_receipt(
        &token,
        &Receipt {
            generation: 1,
            durable_object_id: object.clone(),
            persisted_at,
            payload_digest: "0".repeat(64),
            snapshot_digest: Some("0".repeat(64)),
            verified_at: clock.now(),
        },
    )?;
    tx.transition(&token, State::Stopped, "verified", |session| {
        session.durable_object_id = Some(object);
        session.persistence_verified = true;
    })?;
    let outcome = Outcome::Succeeded(json!({"state": "stopped"}));
    tx.finish(&token, &outcome).map(drop)
}

fn error(code: &str) -> ErrorRecord {
    ErrorRecord {
        error_code: code.to_owned(),
        cause: "the install step ended with status 1".to_owned(),
        next_step: "alpine logs".to_owned(),
        retryable: false,
        operation_id: None,
        exit_code: 2,
    }
}

/// A time as the predecessor wrote it.
fn time(at: Timestamp) -> Value {
    Value::String(at.to_string().replace(".000Z", "Z"))
}

fn transition(transition: &TransitionRecord) -> Value {
    json!({
        "state": transition.state,
        "timestamp": time(transition.timestamp),
        "actor": transition.actor,
        "reason": transition.reason,
        "operation_id": transition.operation_id,
    })
}

/// What was stored of a session.
fn payload(snapshot: &Snapshot<'_>, id: &SessionId) -> Result<Value, LedgerError> {
    let session = snapshot.session(id)?.expect("a session that was made");
    let mut record = record(snapshot, &session)?;
    record.insert("workspace_snapshot".to_owned(), Value::Null);
    Ok(Value::Object(record))
}

/// One session in the predecessor's shape; fields that are empty are absent.
fn record(
    snapshot: &Snapshot<'_>,
    session: &SessionRecord,
) -> Result<Map<String, Value>, LedgerError> {
    let transitions = snapshot.transitions(&session.session_id)?;
    let operations = snapshot.operations(&session.session_id)?;
    let history = operations.iter().map(|operation| {
        json!({
            "operation_id": operation.operation_id,
            "idempotency_key": format!("{}:{}:{}", operation.action, OWNER, session.new.client_request_id),
            "action": operation.action,
            "started_at": time(operation.started_at),
            "completed_at": operation.completed_at.map(time),
            "terminal_state": operation.terminal_state,
        })
    });
    let Value::Object(mut record) = json!({
        "schema_version": "v1",
        "session_id": session.session_id,
        "principal_id": session.new.owner,
        "owner_principal_id": session.new.owner,
        "repo_url": session.new.repo_url,
        "branch": session.new.branch,
        "target_commit_sha": session.target_commit_sha,
        "opencode_url": session.opencode_url,
        "browser_opened": session.browser_opened,
        "state": session.state,
        "state_transitions": transitions.iter().map(transition).collect::<Vec<_>>(),
        "operation_history": history.collect::<Vec<_>>(),
        "started_at": time(session.started_at),
        "ready_at": session.ready_at.map(time),
        "stopped_at": session.stopped_at.map(time),
        "persisted_at": session.persisted_at.map(time),
        "updated_at": time(session.updated_at),
        "durable_object_id": session.durable_object_id,
        "history_truncated": session.history_truncated,
    }) else {
        unreachable!("an object");
    };
    record.retain(|_, value| !value.is_null());
    Ok(record)
}

/// The predecessor's file.
fn predecessor(snapshot: &Snapshot<'_>) -> Result<Value, LedgerError> {
    let every = ListQuery {
        owner: Some(OWNER.to_owned()),
        states: Vec::new(),
        ended_since: None,
        limit: usize::MAX,
    };
    let (mut sessions, mut requests, mut objects) = (Map::new(), Map::new(), Map::new());
    for summary in snapshot.list(&every)?.sessions {
        let id = summary.session_id.to_string();
        let Some(session) = snapshot.session(&summary.session_id)? else {
            continue;
        };
        let key = format!("up:{OWNER}:{}", session.new.client_request_id);
        let request = json!({
            "operation_id": session.operation_id,
            "session_id": id,
            "action": "up",
            "request_fingerprint": "0".repeat(64),
        });
        requests.insert(key, request);
        if let (Some(object), Some(at)) = (&session.durable_object_id, session.persisted_at) {
            let object = json!({
                "durable_object_id": object,
                "persisted_at": time(at),
                "payload": payload(snapshot, &summary.session_id)?,
            });
            objects.insert(id.clone(), object);
        }
        sessions.insert(id, Value::Object(record(snapshot, &session)?));
    }
    Ok(json!({
        "schema_version": "v1",
        "sessions": sessions,
        "idempotency": requests,
        "durable_objects": objects,
    }))
}
