//! Ends every process of a sandbox.

use crate::clock;
use crate::dial::{self, Dial, PROMPT};
use crate::file::{self, Flush};
use crate::intent::Purpose;
use crate::layout::Sandbox;
use crate::processes::{self, Process};
use crate::protocol::{AgentAccess, Reply, Request};
use crate::provider::{Local, blocking};
use crate::record::{self, ExitRecord, StateRecord};
use alpine_gateway::Listener;
use alpine_gateway::client::AgentClient;
use alpine_provider_api::{Call, ErrorKind, ProviderError, StopReply, StopRequest};
use rustix::process::Signal;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long the export of the agent's transcript may take in all.
const EXPORT: Duration = Duration::from_secs(8);
/// How long the agent may take to take note that it is ended.
const DISPOSE: Duration = Duration::from_secs(2);

/// After how long an agent that has disposed of its work, and has nothing to lose any more, is asked again to end.
const AGAIN: Duration = Duration::from_secs(2);

/// How long the processes of a supervisor that had to be killed get at least.
const ORPHANS: Duration = Duration::from_secs(2);

/// Exports the transcript, ends everything, and makes sure that nothing is left.
pub(crate) async fn stop(
    local: &Arc<Local>,
    call: &Call,
    request: StopRequest,
) -> Result<StopReply, ProviderError> {
    let sandbox = local
        .admit(&request.sandbox_id, call.meta.fence, Purpose::Save)
        .await?;
    let disposed = match record::lock_is_held(&sandbox)? {
        true => export(call, &sandbox).await,
        false => None,
    };
    let grace = Duration::from_millis(request.grace_ms);
    let forced = end(call, &sandbox, grace, disposed).await?;
    Ok(StopReply { forced })
}

/// Ends every process: by the supervisor, or without it where it is dead or does not answer. Answers whether anything had
/// to be killed, and only when nothing is left. An agent that has disposed of its work is asked more than once.
pub(crate) async fn end(
    call: &Call,
    sandbox: &Sandbox,
    grace: Duration,
    disposed: Option<Process>,
) -> Result<bool, ProviderError> {
    let limit = Instant::now() + grace;
    let mut forced = false;
    if record::lock_is_held(sandbox)? {
        match ask(call, sandbox, grace, disposed).await {
            Ok(killed) => forced = killed,
            Err(error) if error.kind == ErrorKind::Cancelled => return Err(error),
            Err(error) => call.warn(format!("{error}; it is ended by a signal")),
        }
    }
    let (sandbox, call) = (sandbox.clone(), call.clone());
    blocking(move || finish(&call, &sandbox, limit, forced)).await
}

/// Asks the supervisor, which says every half second how far it is.
async fn ask(
    call: &Call,
    sandbox: &Sandbox,
    grace: Duration,
    disposed: Option<Process>,
) -> Result<bool, ProviderError> {
    let grace_ms = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
    let silent = |_| dial::unreachable(sandbox, "it does not answer");
    let request = Request::Stop { grace_ms };
    let begun = Instant::now();
    let asked = tokio::time::timeout(PROMPT, Dial::ask(sandbox, &request));
    let mut dial = asked.await.map_err(silent)??;
    loop {
        let said = tokio::time::timeout(PROMPT, dial.next(sandbox));
        match said.await.map_err(silent)? {
            Ok(Reply::Stopping { what, left }) => {
                call.progress(&what, left, None);
                // OpenCode ignores a signal that comes while it installs a package, and goes on after that.
                if let Some(agent) = disposed.filter(|_| begun.elapsed() >= AGAIN) {
                    agent.signal(Signal::TERM);
                }
            }
            Ok(Reply::Stopped { forced }) => return Ok(forced),
            Ok(_) => return Err(dial::unexpected(sandbox)),
            Err(error) => return Err(error),
        }
    }
}

/// Makes sure that the supervisor is gone and that no marked process lives, and writes down how it ended.
fn finish(
    call: &Call,
    sandbox: &Sandbox,
    limit: Instant,
    forced: bool,
) -> Result<bool, ProviderError> {
    let begun = Instant::now();
    if !file::is_dir(&sandbox.dir)? {
        return leave_nothing(call, sandbox, limit, forced);
    }
    let killed = end_supervisor(call, sandbox, limit)?;
    // A supervisor that was killed may have asked nobody.
    let grace = limit.saturating_duration_since(begun);
    let limit = match killed {
        true => limit.max(Instant::now() + grace.min(ORPHANS)),
        false => limit,
    };
    let forced = leave_nothing(call, sandbox, limit, forced || killed)?;
    let forced = write_exit(sandbox, forced)?;
    // Only now does nobody start it again, so that this is no new supervisor's socket.
    record::remove_socket(sandbox)?;
    Ok(forced)
}

/// Writes down that it was stopped, unless its supervisor did; answers whether anything had to be killed.
fn write_exit(sandbox: &Sandbox, forced: bool) -> Result<bool, ProviderError> {
    let before: Option<ExitRecord> = file::read_json(&sandbox.exit()).unwrap_or_default();
    match before {
        Some(exit) if exit.asked => Ok(exit.forced || forced),
        Some(_) | None => {
            let state: Option<StateRecord> = file::read_json(&sandbox.state()).unwrap_or_default();
            let exit = ExitRecord {
                version: record::VERSION,
                at: clock::now(),
                asked: true,
                forced,
                agent: state.and_then(|state| state.agent?.ended),
            };
            match file::write_json(&sandbox.exit(), &exit, Flush::Yes) {
                // A full disk must not keep a sandbox from being stopped: the free lock says that it is.
                Err(error) if error.kind != ErrorKind::NoSpace => Err(error),
                Ok(()) | Err(_) => Ok(forced),
            }
        }
    }
}

/// Ends what bears the sandbox's mark and outlived its supervisor.
fn leave_nothing(
    call: &Call,
    sandbox: &Sandbox,
    limit: Instant,
    forced: bool,
) -> Result<bool, ProviderError> {
    let told = |left: usize| call.progress("waiting for processes to end", left as u64, None);
    let (left, killed) = processes::end_marked(sandbox, limit, &told);
    match left.is_empty() {
        true => Ok(forced || killed),
        false => Err(processes::leftovers(&left)),
    }
}

/// Waits a little for the supervisor to let go of its lock. One that does not is asked by a signal, on which it ends its
/// sandbox in order; one that does not even then is killed. Answers whether anything had to be killed.
fn end_supervisor(call: &Call, sandbox: &Sandbox, limit: Instant) -> Result<bool, ProviderError> {
    let patience = Duration::from_secs(1);
    if freed(call, sandbox, Instant::now() + patience)? {
        return Ok(false);
    }
    // While the lock is held, it names the process that holds it.
    if let Some(supervisor) = record::supervisor(sandbox) {
        supervisor.signal(Signal::TERM);
        supervisor.signal(Signal::CONT);
    }
    // It gives its processes a time of its own; when the caller's is over, it gets a moment to see to the rest.
    if freed(call, sandbox, limit.max(Instant::now()) + patience)? {
        let exit: Option<ExitRecord> = file::read_json(&sandbox.exit()).unwrap_or_default();
        return Ok(exit.is_some_and(|exit| exit.forced));
    }
    let killing = Instant::now() + Duration::from_secs(10);
    while record::lock_is_held(sandbox)? {
        if Instant::now() > killing {
            let message = format!("the supervisor of sandbox `{}` can't be ended", sandbox.id);
            return Err(ProviderError::new(ErrorKind::Io, message));
        }
        if let Some(supervisor) = record::supervisor(sandbox) {
            supervisor.signal(Signal::KILL);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(true)
}

/// Whether the supervisor's lock is free before the time is up.
fn freed(call: &Call, sandbox: &Sandbox, limit: Instant) -> Result<bool, ProviderError> {
    let mut told = Instant::now();
    while record::lock_is_held(sandbox)? {
        if Instant::now() > limit {
            return Ok(false);
        }
        if told.elapsed() > Duration::from_millis(500) {
            told = Instant::now();
            call.progress("waiting for the supervisor to end", 1, None);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(true)
}

/// Lets paused processes run, and asks the agent for its transcripts. What fails here costs a warning only. Gives the agent
/// if it has disposed of its work.
async fn export(call: &Call, sandbox: &Sandbox) -> Option<Process> {
    let Ok(Reply::Hello(hello)) = Dial::prompt(sandbox, &Request::Thaw).await else {
        call.warn("the supervisor does not answer: no transcript was exported");
        return None;
    };
    let agent = hello.agent.filter(|agent| agent.running)?;
    let state: Option<StateRecord> = file::read_json(&sandbox.state()).unwrap_or_default();
    let process = state.and_then(|state| state.agent).map(|agent| Process {
        pid: agent.pid,
        start_time: agent.start_time,
    });
    let disposed = export_from(call, sandbox, &agent).await;
    process.filter(|_| disposed)
}

/// Answers whether the agent has disposed of its work.
async fn export_from(call: &Call, sandbox: &Sandbox, agent: &AgentAccess) -> bool {
    let client = client(sandbox, agent);
    let shutdown = &agent.server.shutdown;
    if let Some(transcript) = &agent.server.transcript {
        call.progress("exporting the transcript", 0, None);
        match client.export_transcript(transcript, shutdown, EXPORT).await {
            Ok(exported) => {
                for failure in &exported.failures {
                    call.warn(format!(
                        "a part of the transcript was not exported: {failure}"
                    ));
                }
                let whole = exported.failures.is_empty();
                if let Err(error) = store(sandbox, exported.transcripts, whole).await {
                    call.warn(format!("the transcript was not exported: {error}"));
                }
            }
            Err(why) => call.warn(format!("the transcript was not exported: {why}")),
        }
    }
    match &shutdown.dispose_path {
        // It is ended anyway; this only lets it end in order.
        Some(path) => client
            .post(path, DISPOSE)
            .await
            .is_ok_and(|answer| answer.is_success()),
        None => false,
    }
}

/// Writes the transcripts; their ids were found safe to name files by. Where they are the whole of them, the agent's own data
/// need not be kept.
async fn store(
    sandbox: &Sandbox,
    all: Vec<(String, Vec<u8>)>,
    whole: bool,
) -> Result<(), ProviderError> {
    let directory = sandbox.transcript().join("agent");
    let unexported = sandbox.unexported();
    blocking(move || {
        file::private_dir(&directory)?;
        for (id, text) in all {
            let path = directory.join(format!("{id}.json"));
            file::write(&path, &text)?;
        }
        match whole {
            true => file::remove(&unexported),
            false => Ok(()),
        }
    })
    .await
}

/// A client that sends the session's password to the session's own processes only.
pub(crate) fn client(sandbox: &Sandbox, agent: &AgentAccess) -> AgentClient {
    let auth = agent.server.auth.as_ref();
    let auth = auth.map(|auth| (auth.username.clone(), agent.password.clone()));
    let client = AgentClient::new(agent.port, auth);
    match record::supervisor(sandbox) {
        Some(supervisor) => client.only_to(Listener::Family(supervisor.pid)),
        None => client,
    }
}
