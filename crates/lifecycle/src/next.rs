//! The command that takes a session further.

use crate::again::again;
use alpine_ledger::{
    LedgerError, Liveness, OperationState, SessionRecord, SessionSummary, Snapshot, State,
};

/// The states of an `up` that is under way, or was interrupted.
pub(crate) const COMING_UP: [State; 4] = [
    State::Requested,
    State::Provisioning,
    State::RepoSyncing,
    State::Installing,
];

/// The command that takes a session further, as the ledger has it; none where nothing is left to do.
///
/// # Errors
/// When the ledger can't be read.
pub fn next_step(
    snapshot: &Snapshot<'_>,
    session: &SessionSummary,
) -> Result<Option<String>, LedgerError> {
    let id = &session.session_id;
    if COMING_UP.contains(&session.state)
        && let Some(session) = snapshot.session(id)?
    {
        return coming_up(snapshot, &session).map(Some);
    }
    Ok(match (session.state, &session.opencode_url) {
        // One without a page is not opened.
        (State::Ready, None) => Some(format!("alpine down {id}")),
        (state, _) => of_state(id.as_str(), state, session.destroy_pending),
    })
}

/// Nobody is told to end an `up` that does well, nor to give up one that can be carried on.
fn coming_up(snapshot: &Snapshot<'_>, session: &SessionRecord) -> Result<String, LedgerError> {
    let id = &session.session_id;
    let lease = snapshot.lease(id)?;
    if lease.is_some_and(|lease| snapshot.holder_is_live(&lease) == Liveness::Live) {
        return Ok(format!("alpine status {id}"));
    }
    let Some(operation) = snapshot.operation(&session.operation_id)? else {
        return Ok(format!("alpine down {id}"));
    };
    if operation.cancel_requested {
        return Ok(format!("alpine down {id}"));
    }
    let told = operation.error.filter(|error| {
        operation.state == OperationState::Interrupted && !error.next_step.is_empty()
    });
    Ok(told.map_or_else(|| again(&session.new), |error| error.next_step))
}

/// The same, by the state alone: of one that is coming up, nothing is known then but that it can be brought down.
pub(crate) fn of_state(session: &str, state: State, destroy_pending: bool) -> Option<String> {
    match state {
        State::Ready => Some(format!("alpine open {session}")),
        State::Requested
        | State::Provisioning
        | State::RepoSyncing
        | State::Installing
        | State::Failing
        | State::Stopping
        | State::Persisting
        | State::CleanupFailed
        | State::CloseFailed => Some(format!("alpine down {session}")),
        State::StoppedUnpersisted | State::PersistFailed => {
            Some(format!("alpine down {session} --retry-persist"))
        }
        State::Stopped | State::Failed => destroy_pending.then(|| format!("alpine down {session}")),
    }
}
