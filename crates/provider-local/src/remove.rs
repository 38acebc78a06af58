//! Destroys a sandbox.

use crate::file;
use crate::intent::{self, Guard};
use crate::layout::{Home, Sandbox};
use crate::provider::{Local, blocking};
use crate::{doomed, made, record, stop};
use alpine_provider_api::{Call, DestroyReply, DestroyRequest, ProviderError, SandboxId};
use std::sync::Arc;
use std::time::Duration;

/// Remembers the id as destroyed, ends what runs, and removes all that the sandbox stored.
pub(crate) async fn destroy(
    local: &Arc<Local>,
    call: &Call,
    request: DestroyRequest,
) -> Result<DestroyReply, ProviderError> {
    let fence = call.meta.fence;
    let sandbox = local.home.sandbox(&request.sandbox_id);
    {
        let (local, sandbox) = (Arc::clone(local), sandbox.clone());
        blocking(move || bury(&local.home, &sandbox, fence)).await?;
    }
    // Buried first: nobody starts it again meanwhile.
    stop::end(call, &sandbox, Duration::ZERO, None).await?;
    {
        let (local, sandbox) = (Arc::clone(local), sandbox.clone());
        blocking(move || dispose(&local.home, &sandbox)).await?;
    }
    doomed::clear(local, call, Some(sandbox.id)).await?;
    Ok(DestroyReply {})
}

fn bury(home: &Home, sandbox: &Sandbox, fence: u64) -> Result<(), ProviderError> {
    home.make()?;
    let held = intent::lock(home, &sandbox.id)?;
    if let Some(seen) = intent::tombstone(home, &sandbox.id)? {
        return match fence < seen {
            true => Err(intent::fenced(&sandbox.id, fence, seen)),
            false => Ok(()),
        };
    }
    if file::is_dir(&sandbox.dir)? {
        intent::raise_fence(&held, sandbox, fence)?;
    }
    intent::bury(home, &sandbox.id, fence)
}

/// Takes the directory away in one step: nothing that comes late finds its place.
fn dispose(home: &Home, sandbox: &Sandbox) -> Result<(), ProviderError> {
    let held = intent::lock(home, &sandbox.id)?;
    // A supervisor that was killed leaves its socket; where that is, the sandbox's own record says.
    record::remove_socket(sandbox)?;
    doomed::doom(home, &sandbox.id, &sandbox.dir)?;
    sweep(&held, home, &sandbox.id)?;
    made::forget(&held, home, &sandbox.id)
}

/// Takes away what an earlier call for this id left when it was killed.
pub(crate) fn sweep(_held: &Guard, home: &Home, id: &SandboxId) -> Result<(), ProviderError> {
    doomed::doom(home, id, &home.unborn(id))?;
    for of in [home.tombstones(), home.notes()] {
        file::remove(&file::part_of(&of.join(id.as_str())))?;
    }
    Ok(())
}
