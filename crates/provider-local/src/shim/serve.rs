//! The supervisor's loop: it waits for callers, output, signals and its own deadlines, and does one small thing at a time.

use super::clients::{Client, ClientId, Heard};
use super::door::{self, OpenDoor};
use super::ending::{Ending, UNASKED_MS};
use super::kernel;
use super::log::Log;
use super::place::Place;
use crate::clock;
use crate::file::{self, Flush};
use crate::isolation::isolation;
use crate::layout::Sandbox;
use crate::processes::{self, Process, kill_marked};
use crate::protocol::Birth;
use crate::record::{self, AgentRecord, StateRecord};
use alpine_provider_api::{ExecReply, LogName, ProviderError, Redactor, Secret, Server};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, kill_process_group};
use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;

/// A supervisor.
#[derive(Debug)]
pub(super) struct Shim {
    pub(super) sandbox: Sandbox,
    pub(super) session_id: String,
    pub(super) redactor: Redactor,
    pub(super) password: Secret<String>,
    pub(super) cookie_key: Secret<String>,
    pub(super) clients: BTreeMap<ClientId, Client>,
    pub(super) children: Vec<(Pid, Role)>,
    pub(super) install: Option<InstallRun>,
    pub(super) agent: Option<AgentRun>,
    pub(super) door: Option<OpenDoor>,
    /// The port of the session's address before this supervisor was started.
    pub(super) last_port: Option<u16>,
    pub(super) ending: Option<Ending>,
    pumps: Vec<Pump>,
    listener: UnixListener,
    signals: OwnedFd,
    next_client: ClientId,
    started_at: String,
    over: bool,
    pub(super) place: Place,
}

/// What a direct child is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// The install step.
    Install,
    /// The agent's server.
    Agent,
    /// A caller's command.
    Command(ClientId),
    /// The gateway.
    Gateway,
}

/// An install step that runs.
#[derive(Debug)]
pub(super) struct InstallRun {
    pub(super) pid: Pid,
    pub(super) command: String,
    pub(super) found_by: String,
    pub(super) waiters: Vec<ClientId>,
}

/// An agent's server that was started.
#[derive(Debug)]
pub(super) struct AgentRun {
    pub(super) pid: Pid,
    pub(super) process: Process,
    pub(super) port: u16,
    pub(super) server: Server,
    pub(super) log_from: u64,
    pub(super) ended: Option<ExecReply>,
}

/// A pipe that is pumped into a log.
#[derive(Debug)]
struct Pump {
    name: LogName,
    pipe: OwnedFd,
    log: Log,
}

#[derive(Clone, Copy, Debug)]
enum Event {
    Caller,
    Signal,
    Client(ClientId),
    Pump(usize),
    Knock,
    Gateway,
}

impl Shim {
    /// A supervisor that holds its lock and its socket, and has written down that it is there.
    pub(super) fn new(
        birth: Birth,
        sandbox: Sandbox,
        listener: UnixListener,
        lock: File,
    ) -> Result<Self, ProviderError> {
        let failed = |source| ProviderError::io("the supervisor", &source);
        let last: Option<StateRecord> = file::read_json(&sandbox.state()).unwrap_or_default();
        let password = door::draw().map_err(failed)?;
        let mut redactor = Redactor::new(birth.secrets.iter().map(|secret| &secret.0));
        redactor.learn(&password);
        let shim = Self {
            session_id: birth.session_id,
            redactor,
            password,
            cookie_key: door::draw().map_err(failed)?,
            clients: BTreeMap::new(),
            children: Vec::new(),
            install: None,
            agent: None,
            door: None,
            last_port: last.and_then(|last| last.port),
            ending: None,
            pumps: Vec::new(),
            listener,
            signals: kernel::signals().map_err(failed)?,
            next_client: 1,
            started_at: clock::now(),
            over: false,
            place: Place::new(sandbox.lock(), lock),
            sandbox,
        };
        shim.save()?;
        Ok(shim)
    }

    /// Serves until it was stopped.
    pub(super) fn serve(mut self) {
        while !self.over {
            for event in self.wait() {
                self.handle(event);
            }
            if self.place.is_due() {
                self.look_for_place();
            }
            self.reap();
            self.over = self.step_ending();
        }
        self.pumps.iter_mut().for_each(Pump::close);
        for client in std::mem::take(&mut self.clients).into_values() {
            client.farewell();
        }
        // The lock says that it is over; a socket that stays is replaced by the next supervisor.
        let _ = std::fs::remove_file(&self.sandbox.socket);
    }

    /// Writes down what it is and has.
    pub(super) fn save(&self) -> Result<(), ProviderError> {
        let agent = self.agent.as_ref().map(|agent| AgentRecord {
            pid: agent.process.pid,
            start_time: agent.process.start_time,
            port: agent.port,
            ended: agent.ended,
        });
        let pid = std::process::id();
        let state = StateRecord {
            version: record::VERSION,
            boot_id: processes::boot_id(),
            pid,
            start_time: Process::of(pid).map_or(0, |me| me.start_time),
            started_at: self.started_at.clone(),
            tier: isolation().tier,
            agent,
            port: self.door.as_ref().map(OpenDoor::port).or(self.last_port),
            socket: Some(self.sandbox.socket.clone()),
        };
        file::write_json(&self.sandbox.state(), &state, Flush::No)
    }

    /// Pumps a pipe into a log, in the place of an earlier run's; gives where its output begins.
    pub(super) fn pump(&mut self, name: LogName, pipe: OwnedFd) -> u64 {
        for pump in self.pumps.iter_mut().filter(|pump| pump.name == name) {
            pump.close();
        }
        self.pumps.retain(|pump| pump.name != name);
        let log = Log::open(self.sandbox.log(name), self.redactor.clone());
        let from = log.size();
        self.pumps.push(Pump { name, pipe, log });
        from
    }

    /// Takes what a log's writer left in the pipe.
    pub(super) fn drain(&mut self, name: LogName) {
        for pump in self.pumps.iter_mut().filter(|pump| pump.name == name) {
            pump.close();
        }
    }

    /// Waits until something is to be done.
    fn wait(&self) -> Vec<Event> {
        let mut events = vec![Event::Caller, Event::Signal];
        let mut fds = vec![
            PollFd::new(&self.listener, PollFlags::IN),
            PollFd::new(&self.signals, PollFlags::IN),
        ];
        for (&id, client) in &self.clients {
            let more = if client.has_more() {
                PollFlags::OUT
            } else {
                PollFlags::empty()
            };
            events.push(Event::Client(id));
            fds.push(PollFd::from_borrowed_fd(client.fd(), PollFlags::IN | more));
        }
        for (index, pump) in self.pumps.iter().enumerate() {
            events.push(Event::Pump(index));
            fds.push(PollFd::new(&pump.pipe, PollFlags::IN));
        }
        if let Some((event, fd)) = self.door.as_ref().and_then(OpenDoor::watched) {
            events.push(match event {
                door::Watched::Knock => Event::Knock,
                door::Watched::Gateway => Event::Gateway,
            });
            fds.push(PollFd::from_borrowed_fd(fd, PollFlags::IN));
        }
        let millis = self.patience();
        let timeout = Timespec {
            tv_sec: millis / 1000,
            tv_nsec: (millis % 1000) * 1_000_000,
        };
        // An interrupted wait is one in which nothing came.
        if poll(&mut fds, Some(&timeout)).is_err() {
            return Vec::new();
        }
        let ready = fds.iter().map(|fd| !fd.revents().is_empty());
        let mut come: Vec<Event> = events
            .into_iter()
            .zip(ready)
            .filter_map(|(event, ready)| ready.then_some(event))
            .collect();
        // A pump that has ended moves those behind it, so they are done from the last to the first.
        come.reverse();
        come
    }

    /// How long it may wait, in milliseconds, until something has its time.
    fn patience(&self) -> i64 {
        let ending = self.ending.is_some().then_some(10);
        let door = self.door.as_ref().and_then(OpenDoor::pause);
        let next = ending.into_iter().chain(door).min();
        next.unwrap_or(i64::MAX).min(self.place.waits())
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Caller => self.accept(),
            Event::Signal => self.signalled(),
            Event::Client(id) => self.hear(id),
            Event::Pump(index) => {
                if self.pumps.get_mut(index).is_some_and(|pump| pump.carry(2)) {
                    self.pumps.remove(index);
                }
            }
            Event::Knock => self.open_gateway(),
            Event::Gateway => self.answer_gateway(),
        }
    }

    fn accept(&mut self) {
        while let Ok((stream, _)) = self.listener.accept() {
            if let Ok(client) = Client::accept(stream) {
                self.clients.insert(self.next_client, client);
                self.next_client += 1;
            }
        }
    }

    fn hear(&mut self, id: ClientId) {
        let Some(client) = self.clients.get_mut(&id) else {
            return;
        };
        client.flush();
        match client.hear() {
            Heard::Gone => self.gone(id),
            Heard::Requests(requests) => {
                if !requests.is_empty() {
                    self.look_for_place();
                }
                for request in requests {
                    self.answer(id, request);
                }
            }
        }
    }

    /// A caller has gone: what ran for it alone is ended.
    fn gone(&mut self, id: ClientId) {
        let client = self.clients.remove(&id);
        if client.is_some_and(|client| client.command.is_some()) {
            let (name, value) = self.sandbox.command_mark(id);
            kill_marked(format!("{name}={value}").as_bytes());
        }
        if let Some(install) = &mut self.install {
            let waited = install.waiters.len();
            install.waiters.retain(|&waiter| waiter != id);
            if waited > 0 && install.waiters.is_empty() {
                kill_group(install.pid, Signal::KILL);
            }
        }
    }

    /// Only the end of a child and a request to end are of interest; the other signals are taken and forgotten.
    fn signalled(&mut self) {
        const SIGNAL_BYTES: usize = 128;
        let mut text = [0; SIGNAL_BYTES * 16];
        while let Ok(got) = rustix::io::read(&self.signals, &mut text) {
            let asked = text[..got]
                .chunks_exact(SIGNAL_BYTES)
                .filter_map(|record| record.first_chunk())
                .any(|number| u32::from_ne_bytes(*number) == libc::SIGTERM.cast_unsigned());
            if asked {
                self.begin_ending(None, UNASKED_MS);
            }
            if got == 0 {
                return;
            }
        }
    }

    /// Takes note of every child that has ended; those that were orphaned to this process are only buried.
    fn reap(&mut self) {
        while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
            let Some(index) = self.children.iter().position(|child| child.0 == pid) else {
                continue;
            };
            let (_, role) = self.children.swap_remove(index);
            let ended = ended(status);
            match role {
                Role::Install => self.install_ended(ended),
                Role::Agent => self.agent_ended(pid, ended),
                Role::Command(id) => self.command_ended(id, ended),
                Role::Gateway => self.gateway_ended(),
            }
        }
    }

    fn agent_ended(&mut self, pid: Pid, ended: ExecReply) {
        self.drain(LogName::Agent);
        if let Some(agent) = self.agent.as_mut().filter(|agent| agent.pid == pid) {
            agent.ended = Some(ended);
            // What can't be written down is still known here.
            let _ = self.save();
        }
    }
}

impl Pump {
    /// Carries what is there, in so many pieces at most; true when the pipe has ended.
    fn carry(&mut self, pieces: u32) -> bool {
        let mut text = vec![0; 64 * 1024];
        for _ in 0..pieces {
            match rustix::io::read(&self.pipe, &mut text) {
                Ok(0) => {
                    self.log.finish();
                    return true;
                }
                Ok(got) => self.log.push(&text[..got]),
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => return false,
                Err(_) => return true,
            }
        }
        false
    }

    /// Carries what a writer that has ended left, and writes the last line.
    fn close(&mut self) {
        // No pipe holds more than these, unless somebody in the background goes on writing.
        self.carry(32);
        self.log.finish();
    }
}

/// Signals a child and what it started in its session's first group.
pub(super) fn kill_group(pid: Pid, signal: Signal) {
    // It may have ended already.
    let _ = kill_process_group(pid, signal);
}

fn ended(status: WaitStatus) -> ExecReply {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => ExecReply::Exited(code),
        (None, Some(signal)) => ExecReply::Signalled(signal),
        (None, None) => ExecReply::Exited(-1),
    }
}
