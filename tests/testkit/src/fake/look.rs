//! What each method answers that changes nothing a lease guards.

use super::judge::Judge;
use super::store::{Locked, Run};
use super::work::{Extent, Reply, half_done, not_found};
use alpine_provider_api::*;
use std::path::PathBuf;

pub(super) fn open_agent(
    _: &Judge<'_>,
    store: &Locked,
    extent: Extent,
    request: &OpenAgentRequest,
) -> Reply<OpenAgentReply> {
    let id = &request.sandbox_id;
    let mut sandbox = store.sandbox(id.as_str()).ok_or_else(|| not_found(id))?;
    let ready = sandbox.agent.as_ref().filter(|agent| agent.ready);
    let Some(url) = ready.and_then(|agent| agent.url.clone()) else {
        let text = format!("no agent answers in sandbox `{id}`");
        return Err(ProviderError::new(ErrorKind::AgentNotReady, text));
    };
    if extent == Extent::Half {
        return Err(half_done());
    }
    sandbox.links += 1;
    store.keep_sandbox(&sandbox);
    Ok(OpenAgentReply {
        open_url: Secret::new(format!("{url}/open?token=fake-link-{}-{id}", sandbox.links)),
        url,
        username: "alpine".to_owned(),
        password: Secret::new(format!("fake-password-{id}")),
    })
}

pub(super) fn inspect(
    _: &Judge<'_>,
    store: &Locked,
    extent: Extent,
    request: &InspectRequest,
) -> Reply<InspectReply> {
    if extent == Extent::Half {
        return Err(half_done());
    }
    let Some(sandbox) = store.sandbox(request.sandbox_id.as_str()) else {
        return Ok(InspectReply {
            state: SandboxState::Missing,
            probe: None,
            agent_ended: None,
        });
    };
    let look = || ProbeReply {
        head: store.head(&sandbox.id),
        writable: !sandbox.read_only && sandbox.run == Run::Running && !sandbox.lost,
        agent_ready: match &sandbox.agent {
            Some(agent) if agent.spec.serve != Serve::None => Some(agent.ready),
            Some(_) | None => None,
        },
    };
    Ok(InspectReply {
        state: state(sandbox.run, sandbox.lost),
        probe: request.probe.then(look),
        agent_ended: None,
    })
}

pub(super) fn state(run: Run, lost: bool) -> SandboxState {
    match run {
        _ if lost => SandboxState::Missing,
        Run::Running => SandboxState::Running,
        Run::Half | Run::Stopped | Run::Exited => SandboxState::Exited,
    }
}

pub(super) fn list(store: &Locked, extent: Extent, request: &ListRequest) -> Reply<ListReply> {
    if extent == Extent::Half {
        return Err(half_done());
    }
    let sandboxes = store
        .sandboxes()
        .into_iter()
        .filter(|sandbox| sandbox.ledger_id == request.ledger_id)
        .filter_map(|sandbox| {
            Some(ListedSandbox {
                sandbox_id: SandboxId::new(&sandbox.id)?,
                session_id: sandbox.session_id.clone(),
                state: state(sandbox.run, sandbox.lost),
            })
        });
    Ok(ListReply {
        sandboxes: sandboxes.collect(),
    })
}

pub(super) fn running_workspace(store: &Locked, id: &SandboxId) -> Reply<PathBuf> {
    store
        .sandbox(id.as_str())
        .filter(|sandbox| sandbox.run == Run::Running && !sandbox.lost)
        .map(|sandbox| store.workspace(&sandbox.id))
        .ok_or_else(|| not_found(id))
}
