//! What holds after every blow.

use super::stage::{SECRETS, Stage, session_id};
use alpine_ledger::{OperationState, SessionRecord, State};
use alpine_testkit::Output;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a `list` or a `status` may take, whatever else runs: it waits for nobody, so this is for a machine that has far
/// more to do than it can.
const READ: Duration = Duration::from_secs(2);

/// What differs from answer to answer though the outcome is the same.
const FLEETING: [&str; 4] = ["reused", "open_url", "warnings", "next_step"];

/// What the operation answered.
#[derive(Debug)]
pub(super) struct Answers {
    /// When it was struck; none where this is the answer of another command.
    pub(super) struck: Option<Output>,
    /// After the recovery.
    pub(super) retried: Output,
    /// Once more.
    pub(super) again: Output,
}

/// Which invariants do not hold, and why.
pub(super) fn broken(
    stage: &mut Stage,
    answers: &Answers,
    reads: &[(Output, Duration)],
) -> Vec<String> {
    let session = stage.session();
    let checks = [
        ("I1", nothing_is_stuck(stage, session.as_ref())),
        ("I2", sandboxes_are_the_ledgers(stage, session.as_ref())),
        ("I3", nothing_is_lost(stage, session.as_ref())),
        ("I4", answers_are_one(answers)),
        ("I5", reads_answer(reads)),
        ("I6", no_secret_is_told(stage)),
    ];
    let mut problems = Vec::new();
    for (name, check) in checks {
        problems.extend(check.err().map(|why| format!("{name}: {why}")));
    }
    if !problems.is_empty() {
        problems.push(format!("{answers:#?}"));
    }
    problems
}

/// What one `reconcile` must not leave: only an `up` that its own request may carry on is left to it for a while.
pub(super) fn left_by_recovery(stage: &Stage) -> Option<String> {
    let session = stage.session()?;
    let left = match session.state {
        State::Failing | State::Stopping | State::Persisting => true,
        State::Stopped | State::Failed => session.destroy_pending,
        State::Requested
        | State::Provisioning
        | State::RepoSyncing
        | State::Installing
        | State::Ready
        | State::StoppedUnpersisted
        | State::PersistFailed
        | State::CleanupFailed
        | State::CloseFailed => false,
    };
    left.then(|| format!("reconcile has left the session as it was: {session:#?}"))
}

/// I1: no transient state without a live holder; and nobody holds anything, since nobody works.
fn nothing_is_stuck(stage: &Stage, session: Option<&SessionRecord>) -> Result<(), String> {
    let Some(session) = session else {
        return Ok(());
    };
    let is_transient = match session.state {
        State::Requested
        | State::Provisioning
        | State::RepoSyncing
        | State::Installing
        | State::Failing
        | State::Stopping
        | State::Persisting => true,
        State::Ready
        | State::Stopped
        | State::Failed
        | State::StoppedUnpersisted
        | State::PersistFailed
        | State::CleanupFailed
        | State::CloseFailed => false,
    };
    if is_transient {
        return Err(format!(
            "nobody works on the session, which is `{}`",
            session.state
        ));
    }
    let (_, (operations, lease)) = stage.ledger(|snapshot| {
        let id = session_id();
        Ok((snapshot.operations(&id)?, snapshot.lease(&id)?))
    });
    let open = operations.iter().find(|operation| {
        !matches!(
            operation.state,
            OperationState::Succeeded | OperationState::Failed
        )
    });
    if let Some(open) = open {
        return Err(format!("an operation is open: {open:#?}"));
    }
    match lease.and_then(|lease| lease.holder) {
        Some(holder) => Err(format!("the lease has a holder: {holder:?}")),
        None => Ok(()),
    }
}

/// I2: the provider's sandboxes are exactly the ledger's.
fn sandboxes_are_the_ledgers(stage: &Stage, session: Option<&SessionRecord>) -> Result<(), String> {
    let there: Vec<String> = (stage.env.fake().sandboxes().into_iter())
        .map(|sandbox| sandbox.id)
        .collect();
    let owned = session.filter(|session| !session.state.is_terminal());
    for sandbox in &there {
        if owned.is_some_and(|session| session.sandbox_id == *sandbox) {
            continue;
        }
        let known = stage.ledger(|snapshot| snapshot.quarantined(sandbox)).1;
        if known.is_none_or(|known| known.reaped_at.is_some()) {
            return Err(format!("nobody owns sandbox `{sandbox}`"));
        }
    }
    match owned {
        // A clean-up that failed may have failed after it had destroyed the sandbox.
        Some(session)
            if session.state != State::CleanupFailed && !there.contains(&session.sandbox_id) =>
        {
            Err(format!(
                "the sandbox of a session in `{}` is gone",
                session.state
            ))
        }
        Some(_) | None => Ok(()),
    }
}

/// I3: every byte is still in place, or in an object that was read back; and the provider was treated well.
fn nothing_is_lost(stage: &Stage, session: Option<&SessionRecord>) -> Result<(), String> {
    let fake = stage.env.fake();
    let violations = fake.violations();
    if !violations.is_empty() {
        return Err(format!("{violations:#?}"));
    }
    let (sandboxes, objects) = (fake.sandboxes(), fake.objects());
    for work in &stage.works {
        let in_place = sandboxes.iter().any(|sandbox| {
            sandbox.id == work.sandbox && sandbox.files.get(&work.path) == Some(&work.bytes)
        });
        let kept = objects.iter().find(|object| {
            let files = object.files.as_ref();
            object.sandbox_id == work.sandbox
                && object.read_back
                && files.and_then(|files| files.get(&work.path)) == Some(&work.bytes)
        });
        if !in_place && kept.is_none() {
            return Err(format!("lost: {work:?}"));
        }
    }
    let Some(session) = session.filter(|session| session.state == State::Stopped) else {
        return Ok(());
    };
    let id = session.durable_object_id.as_deref().unwrap_or_default();
    let verified = session.persistence_verified
        && objects
            .iter()
            .any(|object| object.id == id && object.read_back);
    if verified {
        Ok(())
    } else {
        Err(format!("stopped without a verified object: {session:#?}"))
    }
}

/// I4: the same request gives the recorded outcome.
fn answers_are_one(answers: &Answers) -> Result<(), String> {
    let retried = outcome(&answers.retried)?;
    let again = outcome(&answers.again)?;
    if retried != again {
        return Err(format!(
            "the same request was answered otherwise: {retried:#} / {again:#}"
        ));
    }
    match answers
        .struck
        .as_ref()
        .filter(|first| first.code() == Some(0))
    {
        Some(first) if outcome(first)? != retried => {
            Err("what was answered first is not answered again".to_owned())
        }
        Some(_) | None => Ok(()),
    }
}

/// The part of an answer that is the outcome: of a success all but what is fleeting, of a failure its code, cause and status.
fn outcome(output: &Output) -> Result<Value, String> {
    if output.stderr.contains("panicked") {
        return Err(format!("a panic: {output:#?}"));
    }
    let mut document: Value = serde_json::from_str(&output.stdout)
        .map_err(|error| format!("no document ({error}): {output:#?}"))?;
    let Some(fields) = document.as_object_mut() else {
        return Err(format!("no object: {output:#?}"));
    };
    for field in FLEETING {
        fields.remove(field);
    }
    fields.insert("exit".to_owned(), output.code().into());
    Ok(document)
}

/// I5: every `list` and `status` that ran meanwhile has answered in time.
fn reads_answer(reads: &[(Output, Duration)]) -> Result<(), String> {
    for (output, took) in reads {
        let unknown = output.stdout.contains("ERR_SESSION_NOT_FOUND");
        if output.code() != Some(0) && !unknown {
            return Err(format!("{output:#?}"));
        }
        if *took > READ {
            return Err(format!("it took {took:?}: {output:#?}"));
        }
    }
    Ok(())
}

/// I6: no planted secret is anywhere.
fn no_secret_is_told(stage: &Stage) -> Result<(), String> {
    let is_in = |bytes: &[u8], secret: &str| {
        let mut windows = bytes.windows(secret.len());
        windows.any(|window| window == secret.as_bytes())
    };
    for secret in SECRETS {
        for output in &stage.said {
            let said = [&output.stdout, &output.stderr];
            if said.iter().any(|said| said.contains(secret)) {
                return Err(format!("`{secret}` was told: {output:#?}"));
            }
        }
        for file in files(stage.env.root()) {
            if is_in(&fs::read(&file).unwrap_or_default(), secret) {
                return Err(format!("`{secret}` is in {}", file.display()));
            }
        }
    }
    Ok(())
}

/// Every file below a directory.
fn files(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![root.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => open.push(entry.path()),
                Ok(kind) if kind.is_file() => found.push(entry.path()),
                Ok(_) | Err(_) => {}
            }
        }
    }
    found
}
