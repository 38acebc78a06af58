//! What holds after every blow.

use super::reader::Read;
use super::stage::{SECRETS, Stage, ledger, session_id};
use alpine_ledger::{OperationState, SessionRecord, State};
use alpine_testkit::{Output, TestEnv};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a `list` or a `status` may take, whatever else runs.
pub(super) const READ: Duration = Duration::from_secs(2);

/// What differs from answer to answer though the outcome is the same.
const FLEETING: [&str; 5] = ["reused", "open_url", "warnings", "last_error", "next_step"];

/// What the request was answered.
#[derive(Debug)]
pub(super) struct Answers {
    /// When its operation was struck; none where that is not its outcome yet.
    pub(super) struck: Option<Output>,
    /// After the recovery.
    pub(super) retried: Output,
    /// Once more.
    pub(super) again: Output,
}

/// Which invariants do not hold, and why.
pub(super) fn broken(stage: &mut Stage, answers: &Answers, reads: &[Read]) -> Vec<String> {
    let session = stage.session();
    let said = stage.said.iter();
    let said = said.flat_map(|output| [output.stdout.as_str(), output.stderr.as_str()]);
    let checks = [
        ("I1", nothing_is_stuck(&stage.env, session.as_ref())),
        ("I2", sandboxes_are_the_ledgers(stage, session.as_ref())),
        ("I3", nothing_is_lost(stage, session.as_ref())),
        ("I4", answers_are_one(answers)),
        ("I5", reads_answer(reads)),
        ("I6", no_secret_is_told(said, stage.env.root())),
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
pub(super) fn nothing_is_stuck(
    env: &TestEnv,
    session: Option<&SessionRecord>,
) -> Result<(), String> {
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
    let (_, (operations, lease)) = ledger(env, |snapshot| {
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

/// Once it is over, nothing of it is left but its verified object.
pub(super) fn is_not_over(stage: &Stage) -> Option<String> {
    let session = stage.session()?;
    let lost = nothing_is_lost(stage, Some(&session)).err();
    let left = stage.env.fake().sandboxes().into_iter();
    let left: Vec<_> = left.filter(|one| one.id == session.sandbox_id).collect();
    let is_left = !session.state.is_terminal() || !left.is_empty();
    lost.or_else(|| is_left.then(|| format!("it is not over: {session:#?} {left:#?}")))
}

/// I4: the same request gives the recorded outcome.
pub(super) fn answers_are_one(answers: &Answers) -> Result<(), String> {
    let retried = outcome(&answers.retried)?;
    let again = outcome(&answers.again)?;
    if retried != again {
        return Err(format!(
            "the same request was answered otherwise: {retried:#} / {again:#}"
        ));
    }
    match &answers.struck {
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

/// I5: every `list` and `status` that ran meanwhile has answered; and a session that was there stays there.
pub(super) fn reads_answer(reads: &[Read]) -> Result<(), String> {
    let mut is_known = false;
    for Read { output, .. } in reads {
        let unknown = output.stdout.contains("\"ERR_SESSION_NOT_FOUND\"");
        let document = outcome(output)?;
        let has = |field: &str| !document[field].is_null();
        let is_answer = document["schema_version"] == "v1"
            && match output.code() {
                Some(0) => has("sessions") || has("state") && has("updated_at"),
                Some(_) => unknown && !is_known,
                None => false,
            };
        if !is_answer {
            return Err(format!("no answer: {output:#?}"));
        }
        is_known |= has("state");
    }
    Ok(())
}

/// I5, too: which of them did not answer in time.
pub(super) fn late(reads: &[Read]) -> Option<String> {
    let late = reads.iter().find(|read| read.took > READ)?;
    Some(format!("I5: it took {:?}: {:#?}", late.took, late.output))
}

/// I6: no planted secret is anywhere.
pub(super) fn no_secret_is_told<'a>(
    said: impl Iterator<Item = &'a str>,
    root: &Path,
) -> Result<(), String> {
    let tells = |text: &str| SECRETS.into_iter().find(|secret| text.contains(secret));
    for text in said {
        if let Some(secret) = tells(text) {
            return Err(format!("`{secret}` was told: {text}"));
        }
    }
    for file in files(root) {
        let bytes = fs::read(&file).unwrap_or_default();
        if let Some(secret) = tells(&String::from_utf8_lossy(&bytes)) {
            return Err(format!("`{secret}` is in {}", file.display()));
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
