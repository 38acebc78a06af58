//! When a sandbox is taken for gone, and its work with it: only on proof.

use crate::call::StepEnd;
use alpine_provider_api::*;
use std::sync::Arc;

/// Whether a step failed because the sandbox, or its workspace, is provably gone.
pub(crate) fn gone(end: &StepEnd) -> bool {
    matches!(end, StepEnd::Failed(_, kind) if is_gone(*kind))
}

/// Whether an error says that the sandbox, or its workspace, is provably gone.
pub(crate) fn is_gone(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::NotFound | ErrorKind::Destroyed | ErrorKind::WorkspaceLost
    )
}

/// What a call ended with. That there is no such sandbox is taken for proof only where it is not shown either: an answer to
/// another question may have got there, as that of a command's program that is not found.
pub(crate) async fn confirmed<T>(
    provider: &Arc<dyn SandboxProvider>,
    call: &Call,
    id: &SandboxId,
    ended: Result<T, ProviderError>,
) -> Result<T, ProviderError> {
    let error = match ended {
        Err(error) if matches!(error.kind, ErrorKind::NotFound | ErrorKind::Destroyed) => error,
        ended => return ended,
    };
    match state(provider, call, id).await {
        Ok(state) if state != SandboxState::Missing => {
            let state = state.as_str();
            let message = format!(
                "the provider says that there is no such sandbox, and shows it as `{state}`: {error}"
            );
            Err(ProviderError::transient(ErrorKind::Io, message))
        }
        Err(unknown) if !is_gone(unknown.kind) => Err(unknown),
        Ok(_) | Err(_) => Err(error),
    }
}

/// Looks for itself whether a sandbox is in a state that it was said to have left.
pub(crate) async fn must_not_be(
    provider: &Arc<dyn SandboxProvider>,
    call: &Call,
    sandbox_id: SandboxId,
    states: &[SandboxState],
) -> Result<(), ProviderError> {
    let found = state(provider, call, &sandbox_id).await?;
    if states.contains(&found) {
        let message = format!(
            "the provider says it is done, but the sandbox is `{}`",
            found.as_str()
        );
        return Err(ProviderError::transient(ErrorKind::Io, message));
    }
    Ok(())
}

/// What `inspect` shows.
async fn state(
    provider: &Arc<dyn SandboxProvider>,
    call: &Call,
    id: &SandboxId,
) -> Result<SandboxState, ProviderError> {
    let ask = InspectRequest {
        sandbox_id: id.clone(),
        probe: false,
    };
    provider.inspect(call, ask).await.map(|found| found.state)
}

/// What tells the provider that makes a sandbox from another one of the same name, or with other settings.
pub(crate) fn identity(name: &str, configuration: &str) -> String {
    let both = serde_json::json!([name, configuration]).to_string();
    blake3::hash(both.as_bytes()).to_hex().to_string()
}

/// That a provider has no such sandbox proves nothing where it is another one than the one that made it.
pub(crate) fn elsewhere(id: &SandboxId) -> ProviderError {
    let message = format!(
        "there is no sandbox `{id}`, but the provider is another one, or configured otherwise, than when it was made: its workspace may be where that one kept it; configure it as it was"
    );
    ProviderError::new(ErrorKind::Io, message)
}
