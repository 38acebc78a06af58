//! Starts the agent's server, and makes ways in.

use crate::dial::{self, Dial};
use crate::file;
use crate::inspect;
use crate::intent::Purpose;
use crate::layout::Sandbox;
use crate::logs;
use crate::processes::Process;
use crate::protocol::{AgentStarted, Door, Publish, Reply, Request, StartAgent};
use crate::provider::Local;
use crate::record;
use alpine_gateway::Listener;
use alpine_gateway::client::{AgentClient, ClientError};
use alpine_provider_api::*;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often the log is looked at for the line that says the server listens.
const LOOK: Duration = Duration::from_millis(20);

/// Starts what serves the session's page, waits until it answers, and opens the session's address.
pub(crate) async fn start_agent(
    local: &Arc<Local>,
    call: &Call,
    request: StartAgentRequest,
) -> Result<StartAgentReply, ProviderError> {
    let sandbox = local
        .admit(&request.sandbox_id, call.meta.fence, Purpose::Use)
        .await?;
    local.revive(&sandbox).await?;
    let publish = Publish {
        page: request.page,
        upstream: None,
        install_log: None,
    };
    let url = match request.agent.serve {
        Serve::None => None,
        Serve::Page => {
            let door = open_door(&sandbox, publish).await?;
            if !inspect::page_answers(&door).await {
                let message = "the built-in page does not answer";
                return Err(ProviderError::new(ErrorKind::AgentNotReady, message));
            }
            Some(url(&door))
        }
        Serve::Process(server) => {
            let deadline = Instant::now() + Duration::from_millis(request.ready_ms);
            if server.transcript.is_some() {
                file::write(&sandbox.unexported(), b"")?;
            }
            let agent = (request.agent.name.as_str(), server.as_ref());
            start_server(local, &sandbox, agent, &request.env, deadline).await?;
            Some(url(&open_door(&sandbox, publish).await?))
        }
    };
    Ok(StartAgentReply { url })
}

/// The session's address, without a secret.
pub(crate) fn url(door: &Door) -> String {
    format!("http://127.0.0.1:{}", door.port)
}

/// Opens the session's address, or says where it is.
pub(crate) async fn open_door(sandbox: &Sandbox, publish: Publish) -> Result<Door, ProviderError> {
    match Dial::prompt(sandbox, &Request::Publish(publish)).await {
        Ok(Reply::Published(door)) => Ok(door),
        Ok(_) => Err(dial::unexpected(sandbox)),
        Err(error) => Err(error),
    }
}

async fn start_server(
    local: &Local,
    sandbox: &Sandbox,
    (name, server): (&str, &Server),
    more: &BTreeMap<String, Secret<String>>,
    deadline: Instant,
) -> Result<(), ProviderError> {
    let request = Request::StartAgent(Box::new(StartAgent {
        server: server.clone(),
        env: environment(local, sandbox, server, more),
        secret: more.keys().cloned().collect(),
    }));
    let started = match Dial::prompt(sandbox, &request).await {
        Ok(Reply::AgentStarted(started)) => started,
        Ok(_) => return Err(dial::unexpected(sandbox)),
        Err(error) if error.kind == ErrorKind::InvalidArgument => {
            let message = format!("the agent `{name}` can't be started: {}", error.message);
            return Err(ProviderError::new(ErrorKind::AgentNotReady, message));
        }
        Err(error) => return Err(error),
    };
    let process = Process {
        pid: started.pid,
        start_time: started.start_time,
    };
    let auth = server.auth.as_ref();
    let client = AgentClient::new(
        started.port,
        auth.map(|auth| (auth.username.clone(), started.password.clone())),
    )
    .only_to(Listener::Family(started.supervisor));
    let ready = async {
        say_line(sandbox, &server.ready, &started, process, deadline).await?;
        client
            .ready(&server.ready, deadline, || process.lives())
            .await
    };
    match ready.await {
        Ok(()) => Ok(()),
        Err(source) => {
            let ended = if matches!(source, ClientError::Exited) {
                await_last_words(sandbox).await
            } else {
                None
            };
            let tail = logs::tail(sandbox, LogName::Agent, started.log_from, 20);
            Err(source.not_ready(name, server, ended.as_ref(), tail))
        }
    }
}

/// Waits, a little, until the supervisor has taken note of the server's end, and says how that was: its last lines are in
/// the log by then.
async fn await_last_words(sandbox: &Sandbox) -> Option<ExecReply> {
    let limit = Instant::now() + dial::PROMPT;
    while Instant::now() < limit {
        match Dial::prompt(sandbox, &Request::Hello).await {
            Ok(Reply::Hello(hello)) if hello.agent.as_ref().is_some_and(|agent| agent.running) => {
                tokio::time::sleep(LOOK).await;
            }
            Ok(_) | Err(_) => break,
        }
    }
    record::agent_ended(sandbox)
}

/// Waits for the line in the log after which the server may be asked.
async fn say_line(
    sandbox: &Sandbox,
    probe: &Probe,
    started: &AgentStarted,
    process: Process,
    deadline: Instant,
) -> Result<(), ClientError> {
    let Some(line) = probe.log_line.as_deref().filter(|line| !line.is_empty()) else {
        return Ok(());
    };
    let log = sandbox.log(LogName::Agent);
    loop {
        let lives = process.lives();
        // A log that is not there yet holds nothing.
        let text = logs::since(&log, started.log_from).unwrap_or_default();
        if text.windows(line.len()).any(|part| part == line.as_bytes()) {
            return Ok(());
        }
        if !lives {
            return Err(ClientError::Exited);
        }
        if Instant::now() >= deadline {
            return Err(ClientError::NotReady {
                path: probe.path.clone(),
                source: None,
            });
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// All variables of the server, but for its port and password: the user's, its own directories, its own, the session's.
fn environment(
    local: &Local,
    sandbox: &Sandbox,
    server: &Server,
    more: &BTreeMap<String, Secret<String>>,
) -> BTreeMap<String, Secret<String>> {
    let home = sandbox.agent_home();
    let home = std::path::absolute(&home).unwrap_or(home);
    let tmp = std::path::absolute(sandbox.tmp()).unwrap_or_else(|_| sandbox.tmp());
    let mut env = local.env(&BTreeMap::new());
    let own = Server::DIRECTORIES
        .map(|(name, path)| (name, home.join(path)))
        .into_iter()
        .chain([("TMPDIR", tmp)])
        .map(|(name, path)| (name.to_owned(), path.to_string_lossy().into_owned()));
    let fixed = server
        .env
        .iter()
        .map(|(name, value)| (name.clone(), value.clone()));
    env.extend(
        own.chain(fixed)
            .map(|(name, value)| (name, Secret::new(value))),
    );
    env.extend(
        more.iter()
            .map(|(name, value)| (name.clone(), value.clone())),
    );
    env
}

/// Makes a link that works once.
pub(crate) async fn open_agent(
    local: &Arc<Local>,
    request: OpenAgentRequest,
) -> Result<OpenAgentReply, ProviderError> {
    let sandbox = local.running(&request.sandbox_id)?;
    let link_ms = request.link_ms;
    match Dial::prompt(&sandbox, &Request::Link { link_ms }).await {
        Ok(Reply::Link { open_url, door }) => Ok(OpenAgentReply {
            url: url(&door),
            open_url,
            username: door.username,
            password: door.password,
        }),
        Ok(_) => Err(dial::unexpected(&sandbox)),
        Err(error) => Err(error),
    }
}
