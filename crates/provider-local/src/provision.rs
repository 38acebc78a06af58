//! Makes a sandbox.

use crate::file::{self, Flush, io_error};
use crate::intent::{self, Guard, Intent};
use crate::isolation::isolation;
use crate::layout::{Home, Sandbox};
use crate::provider::Local;
use crate::{launch, made, remove};
use alpine_provider_api::{ErrorKind, ProviderError, ProvisionReply, ProvisionRequest};
use std::fs::File;

/// Makes the sandbox, or finds it as it was asked for, and makes sure that its supervisor runs.
pub(crate) fn provision(
    local: &Local,
    fence: u64,
    request: ProvisionRequest,
) -> Result<ProvisionReply, ProviderError> {
    local.home.make()?;
    let sandbox = local.home.sandbox(&request.sandbox_id);
    let held = intent::lock(&local.home, &sandbox.id)?;
    intent::refuse_destroyed(&local.home, &sandbox.id)?;
    let intent = Intent {
        version: 1,
        sandbox_id: request.sandbox_id,
        ledger_id: request.ledger_id,
        session_id: request.session_id,
        allow_unsandboxed: request.allow_unsandboxed,
    };
    made::note(&held, &local.home, &sandbox.id)?;
    remove::sweep(&held, &local.home, &sandbox.id)?;
    if file::is_dir(&sandbox.dir)? {
        intent::raise_fence(&held, &sandbox, fence)?;
        if file::read_json(&sandbox.intent())?.as_ref() != Some(&intent) {
            let message = format!("sandbox `{}` was made with other arguments", sandbox.id);
            return Err(ProviderError::new(ErrorKind::Conflict, message));
        }
    } else {
        make(&held, &local.home, &sandbox, &intent, fence)?;
    }
    launch::ensure_running(&local.config, &sandbox, &intent.session_id)?;
    Ok(ProvisionReply {
        workspace_path: Some(sandbox.workspace()),
        isolation: isolation(),
    })
}

/// Makes the directory with all that is in it under another name first, so that there is none without its intent and fence.
fn make(
    held: &Guard,
    home: &Home,
    sandbox: &Sandbox,
    intent: &Intent,
    fence: u64,
) -> Result<(), ProviderError> {
    let new = home.unborn(&sandbox.id);
    let unborn = Sandbox {
        dir: new.clone(),
        ..sandbox.clone()
    };
    file::private_dir(&new)?;
    for directory in unborn.directories() {
        file::private_dir(&directory)?;
    }
    intent::raise_fence(held, &unborn, fence)?;
    file::write_json(&unborn.intent(), intent, Flush::Yes)?;
    std::fs::rename(&new, &sandbox.dir)
        .and_then(|()| File::open(home.root())?.sync_all())
        .map_err(|source| io_error(&sandbox.dir, &source))
}
