//! The session's address: the supervisor holds its socket, and starts the gateway when somebody knocks.

use super::GATEWAY;
use super::serve::{Role, Shim, kill_group};
use super::spawn;
use crate::clock;
use crate::launch::sealed_in_memory;
use crate::protocol::Publish;
use alpine_gateway::{
    AgentState, ControlReply, ControlRequest, GatewayConfig, Links, Listener, Upstream, host_label,
};
use alpine_provider_api::{ExecReply, LogName, PageFacts, ProviderError, Secret};
use rustix::process::Signal;
use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};

/// The user name that the address takes.
pub(super) const USERNAME: &str = "alpine";
/// After how long without a caller the gateway leaves.
const IDLE_MS: u64 = 300_000;
/// How long a gateway that ended at once is left alone before the next is started.
const PAUSE_MS: u64 = 250;

/// The session's listening socket, and the gateway behind it while there is one.
#[derive(Debug)]
pub(super) struct OpenDoor {
    listener: TcpListener,
    port: u16,
    page: PageFacts,
    /// An agent's server that is none of the supervisor's processes.
    elsewhere: Option<Upstream>,
    /// The log of an install step that was run elsewhere.
    install_log: Option<PathBuf>,
    links: Links,
    gateway: Option<Line>,
    last_start_ms: u64,
}

/// The line to a gateway.
#[derive(Debug)]
struct Line {
    stream: UnixStream,
    inbox: Vec<u8>,
    open: bool,
}

/// What the loop looks at.
#[derive(Clone, Copy, Debug)]
pub(super) enum Watched {
    /// Somebody connects.
    Knock,
    /// The gateway asks.
    Gateway,
}

impl OpenDoor {
    fn open(publish: Publish, wanted: Option<u16>) -> io::Result<Self> {
        let here = Ipv4Addr::LOCALHOST;
        let again = wanted.and_then(|port| TcpListener::bind((here, port)).ok());
        let listener = match again {
            Some(listener) => listener,
            None => TcpListener::bind((here, 0))?,
        };
        let port = listener.local_addr()?.port();
        Ok(Self {
            listener,
            port,
            page: publish.page,
            elsewhere: publish.upstream,
            install_log: publish.install_log,
            links: Links::new(),
            gateway: None,
            last_start_ms: 0,
        })
    }

    /// Its port.
    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// A fresh link.
    pub(super) fn link(&mut self, session: &str, link_ms: u64) -> io::Result<Secret<String>> {
        let token = self.links.mint(clock::monotonic_ms(), link_ms)?;
        Ok(alpine_gateway::open_url(
            &host_label(session),
            self.port,
            &token,
        ))
    }

    /// What is to be watched now: those who knock, or the gateway that took the socket over.
    pub(super) fn watched(&self) -> Option<(Watched, BorrowedFd<'_>)> {
        match &self.gateway {
            Some(line) if line.open => Some((Watched::Gateway, line.stream.as_fd())),
            Some(_) => None,
            None if self.pause().is_some() => None,
            None => Some((Watched::Knock, self.listener.as_fd())),
        }
    }

    /// How long those who knock have to wait, in milliseconds.
    pub(super) fn pause(&self) -> Option<i64> {
        let since = clock::monotonic_ms().saturating_sub(self.last_start_ms);
        let waits = self.gateway.is_none() && self.last_start_ms > 0 && since < PAUSE_MS;
        waits.then(|| i64::try_from(PAUSE_MS - since).unwrap_or(0).max(1))
    }
}

impl Shim {
    /// Opens the session's address, or says where it is.
    pub(super) fn publish(
        &mut self,
        publish: Publish,
    ) -> Result<crate::protocol::Door, ProviderError> {
        if let Some(door) = &mut self.door {
            let elsewhere = publish.upstream.or_else(|| door.elsewhere.clone());
            if std::mem::replace(&mut door.elsewhere, elsewhere) != door.elsewhere {
                // Who knocks next finds the agent.
                self.end_gateway();
            }
        } else {
            let door = OpenDoor::open(publish, self.last_port)
                .map_err(|source| ProviderError::io("a socket on 127.0.0.1", &source))?;
            self.last_port = Some(door.port);
            self.door = Some(door);
            self.save()?;
        }
        match &self.door {
            Some(door) => Ok(self.door_of(door)),
            None => Err(ProviderError::io(
                "a socket",
                &io::ErrorKind::NotConnected.into(),
            )),
        }
    }

    /// Somebody knocks: starts a gateway. One that can't be started leaves them waiting for the next try.
    pub(super) fn open_gateway(&mut self) {
        let started = self.start_gateway();
        if let Some(door) = &mut self.door {
            door.last_start_ms = clock::monotonic_ms();
            if let Ok((pid, stream)) = started {
                let inbox = Vec::new();
                let open = true;
                door.gateway = Some(Line {
                    stream,
                    inbox,
                    open,
                });
                self.children.push((pid, Role::Gateway));
            }
        }
    }

    /// The gateway gets its three descriptors in the place of the standard streams, which it gives up at once.
    fn start_gateway(&self) -> io::Result<(rustix::process::Pid, UnixStream)> {
        let Some(door) = &self.door else {
            return Err(io::ErrorKind::NotConnected.into());
        };
        let (ours, theirs) = UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let memory = sealed_in_memory(&self.gateway_config(door))?;
        let mut command = Command::new("/proc/self/exe");
        command
            .arg0(GATEWAY)
            .arg(self.sandbox.id.as_str())
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::from(OwnedFd::from(door.listener.try_clone()?)))
            .stdout(Stdio::from(OwnedFd::from(theirs)))
            .stderr(Stdio::from(memory));
        Ok((spawn::start(&self.sandbox, &mut command)?, ours))
    }

    fn gateway_config(&self, door: &OpenDoor) -> GatewayConfig {
        let upstream = self.agent.as_ref().map(|agent| Upstream {
            port: agent.port,
            auth: agent.server.auth.as_ref().map(|auth| auth.username.clone()),
            listener: Listener::Family(std::process::id()),
        });
        let upstream = upstream.or_else(|| door.elsewhere.clone());
        GatewayConfig {
            session_id: self.session_id.clone(),
            port: door.port,
            host_label: host_label(&self.session_id),
            username: USERNAME.to_owned(),
            password: self.password.clone(),
            cookie_key: self.cookie_key.clone(),
            upstream,
            page: Some(door.page.clone()),
            agent_log: self.sandbox.log(LogName::Agent),
            install_log: door
                .install_log
                .clone()
                .unwrap_or_else(|| self.sandbox.log(LogName::Install)),
            idle_ms: IDLE_MS,
        }
    }

    /// Answers what the gateway asks.
    pub(super) fn answer_gateway(&mut self) {
        let ended = self.agent.as_ref().and_then(|agent| agent.ended);
        let Some(door) = &mut self.door else { return };
        let Some(line) = &mut door.gateway else {
            return;
        };
        let mut text = [0; 4096];
        match line.stream.read(&mut text) {
            Ok(got) if got > 0 => line.inbox.extend_from_slice(&text[..got]),
            Err(source) if source.kind() == io::ErrorKind::WouldBlock => return,
            Ok(_) | Err(_) => line.open = false,
        }
        while let Some(end) = line.inbox.iter().position(|&byte| byte == b'\n') {
            let asked: Vec<u8> = line.inbox.drain(..=end).collect();
            let reply = match serde_json::from_slice(&asked) {
                Ok(ControlRequest::Redeem { token }) => {
                    door.links.redeem(&token, clock::monotonic_ms())
                }
                Ok(ControlRequest::State) => agent_state(ended),
                Err(_) => ControlReply::Unknown,
            };
            let mut answer = serde_json::to_vec(&reply).unwrap_or_default();
            answer.push(b'\n');
            // A gateway that reads nothing gets nothing: it must not hold the supervisor up.
            if line.stream.write(&answer).is_err() {
                line.open = false;
            }
        }
        // What is longer than any question is none.
        line.open &= line.inbox.len() <= 64 * 1024;
        if !line.open {
            // Without its line it can't answer for anybody: the next one can.
            self.end_gateway();
        }
    }

    /// Ends the gateway; who knocks next starts another.
    pub(super) fn end_gateway(&self) {
        for (pid, _) in self.children.iter().filter(|it| it.1 == Role::Gateway) {
            kill_group(*pid, Signal::KILL);
        }
    }

    /// The gateway has left: who knocks next starts another.
    pub(super) fn gateway_ended(&mut self) {
        if let Some(door) = &mut self.door {
            door.gateway = None;
        }
    }
}

fn agent_state(ended: Option<ExecReply>) -> ControlReply {
    let (agent, exit_status) = match ended {
        None => (AgentState::Running, None),
        Some(ExecReply::Exited(code)) => (AgentState::Exited, Some(code)),
        Some(ExecReply::Signalled(signal)) => (AgentState::Exited, Some(128 + signal)),
    };
    ControlReply::State { agent, exit_status }
}

/// A password or key: 32 random bytes in hexadecimal.
pub(super) fn draw() -> io::Result<Secret<String>> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|source| io::Error::other(source.to_string()))?;
    let mut text = String::with_capacity(64);
    for byte in bytes {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
    }
    Ok(Secret::new(text))
}

/// Runs as a gateway, with the socket, the line to the supervisor and the configuration in the place of its standard streams.
pub(super) fn run_gateway() -> ExitCode {
    let ran = || -> io::Result<()> {
        let listener = TcpListener::from(io::stdin().as_fd().try_clone_to_owned()?);
        let control = UnixStream::from(io::stdout().as_fd().try_clone_to_owned()?);
        let mut memory = std::fs::File::from(io::stderr().as_fd().try_clone_to_owned()?);
        let nothing = OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/null")?;
        rustix::stdio::dup2_stdin(&nothing)?;
        rustix::stdio::dup2_stdout(&nothing)?;
        rustix::stdio::dup2_stderr(&nothing)?;
        let mut text = Vec::new();
        memory.read_to_end(&mut text)?;
        drop(memory);
        let config: GatewayConfig = serde_json::from_slice(&text)?;
        rustix::thread::set_name(c"alpine-gateway")?;
        alpine_gateway::run(listener, control, config)
    };
    match ran() {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}
