//! Says how sandboxes are.

use crate::dial::Dial;
use crate::file::{self, io_error};
use crate::intent::Intent;
use crate::layout::Sandbox;
use crate::protocol::{AgentAccess, Door, Hello, Reply, Request};
use crate::provider::{Local, blocking};
use crate::{record, stop};
use alpine_gateway::client::AgentClient;
use alpine_provider_api::*;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long the agent may take to answer a probe.
const LIMIT: Duration = Duration::from_secs(5);

/// Reads the state from the sandbox's lock; with `probe`, looks inside too.
pub(crate) async fn inspect(
    local: &Arc<Local>,
    request: InspectRequest,
) -> Result<InspectReply, ProviderError> {
    let sandbox = local.home.sandbox(&request.sandbox_id);
    let state = record::state(&local.home, &sandbox)?;
    let probe = match state {
        SandboxState::Missing | SandboxState::Unknown => None,
        SandboxState::Running | SandboxState::Exited if !request.probe => None,
        SandboxState::Running | SandboxState::Exited => Some(probe(&sandbox, state).await?),
    };
    let agent_ended = match state {
        SandboxState::Running => record::agent_ended(&sandbox),
        SandboxState::Exited | SandboxState::Missing | SandboxState::Unknown => None,
    };
    Ok(InspectReply {
        state,
        probe,
        agent_ended,
    })
}

async fn probe(sandbox: &Sandbox, state: SandboxState) -> Result<ProbeReply, ProviderError> {
    let (head, writable) = {
        let sandbox = sandbox.clone();
        blocking(move || {
            let workspace = sandbox.workspace();
            // What can't be read as a HEAD is none.
            let head = alpine_git::head(&workspace).unwrap_or_default();
            Ok((head, is_writable(&sandbox)))
        })
        .await?
    };
    let agent_ready = match state {
        SandboxState::Running => agent_ready(sandbox).await?,
        SandboxState::Exited | SandboxState::Missing | SandboxState::Unknown => None,
    };
    Ok(ProbeReply {
        head,
        writable,
        agent_ready,
    })
}

/// Writes a file that was not there, and removes it again.
fn is_writable(sandbox: &Sandbox) -> bool {
    let name = format!(".alpine-probe-{:08x}", file::random_u32());
    let path = sandbox.workspace().join(name);
    file::create(&path, b"probe\n").is_ok() && std::fs::remove_file(&path).is_ok()
}

/// Whether what the session serves answers; none where it serves nothing.
pub(crate) async fn agent_ready(sandbox: &Sandbox) -> Result<Option<bool>, ProviderError> {
    match Dial::prompt(sandbox, &Request::Hello).await {
        Ok(Reply::Hello(hello)) => {
            let Hello { agent, door } = *hello;
            match (agent, door) {
                (Some(agent), _) => Ok(Some(agent.running && answers(sandbox, &agent).await)),
                (None, Some(door)) => Ok(Some(page_answers(&door).await)),
                (None, None) => Ok(None),
            }
        }
        Ok(_) => Err(crate::dial::unexpected(sandbox)),
        Err(error) => Err(error),
    }
}

async fn answers(sandbox: &Sandbox, agent: &AgentAccess) -> bool {
    let probe = Probe {
        warm_path: None,
        ..agent.server.ready.clone()
    };
    let client = stop::client(sandbox, agent);
    client
        .ready(&probe, Instant::now() + LIMIT, || true)
        .await
        .is_ok()
}

/// The page is served by the gateway itself: it answers for it.
pub(crate) async fn page_answers(door: &Door) -> bool {
    let auth = Some((door.username.clone(), door.password.clone()));
    let answer = AgentClient::new(door.port, auth)
        .get("/_alpine/state", LIMIT)
        .await;
    answer.is_ok_and(|answer| (200..400).contains(&answer.status))
}

/// Lists the sandboxes that bear the ledger's id.
pub(crate) fn list(local: &Local, request: &ListRequest) -> Result<ListReply, ProviderError> {
    let root = local.home.root();
    let entries = match std::fs::read_dir(root) {
        Ok(entries) => entries,
        Err(source) if source.kind() == std::io::ErrorKind::NotFound => {
            return Ok(ListReply {
                sandboxes: Vec::new(),
            });
        }
        Err(source) => return Err(io_error(root, &source)),
    };
    let mut sandboxes = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|source| io_error(root, &source))?;
        let Some(id) = entry.file_name().to_str().and_then(SandboxId::new) else {
            continue;
        };
        let sandbox = local.home.sandbox(&id);
        // A damaged intent belongs to nobody: it must not hide the other sandboxes.
        let intent: Option<Intent> = file::read_json(&sandbox.intent()).unwrap_or_default();
        if let Some(intent) = intent.filter(|intent| intent.ledger_id == request.ledger_id) {
            sandboxes.push(ListedSandbox {
                sandbox_id: id,
                session_id: intent.session_id,
                // One sandbox that can't be looked at must not hide the others.
                state: record::state(&local.home, &sandbox).unwrap_or(SandboxState::Unknown),
            });
        }
    }
    sandboxes.sort_by(|one, other| one.sandbox_id.cmp(&other.sandbox_id));
    Ok(ListReply { sandboxes })
}
