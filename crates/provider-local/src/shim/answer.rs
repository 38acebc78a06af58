//! What a supervisor does for its callers.

use super::clients::ClientId;
use super::door::OpenDoor;
use super::serve::{AgentRun, InstallRun, Role, Shim, kill_group};
use super::spawn::{self, Streams};
use crate::file::{self, Flush};
use crate::processes::{self, Process};
use crate::protocol::{AgentAccess, AgentStarted, Hello, Install, Reply, Request, Run, StartAgent};
use crate::record::InstalledRecord;
use alpine_gateway::free_port;
use alpine_provider_api::{ErrorKind, ExecReply, LogName, ProviderError, Secret};
use rustix::process::{Pid, Signal};

impl Shim {
    /// Does what a caller asks, and answers it now or when it is done.
    pub(super) fn answer(&mut self, id: ClientId, request: Result<Request, String>) {
        let reply = match request {
            Err(why) => Err(ProviderError::new(ErrorKind::InvalidArgument, why)),
            Ok(request) => self.request(id, request),
        };
        match reply {
            Ok(None) => {}
            Ok(Some(reply)) => self.tell(id, &reply),
            Err(error) => self.tell(id, &Reply::Refused(error)),
        }
    }

    /// Says something to a caller, if it is still there.
    pub(super) fn tell(&mut self, id: ClientId, reply: &Reply) {
        if let Some(client) = self.clients.get_mut(&id) {
            client.answer(reply);
        }
    }

    fn request(&mut self, id: ClientId, request: Request) -> Result<Option<Reply>, ProviderError> {
        match request {
            Request::Hello => Ok(Some(self.hello())),
            Request::Thaw => {
                for process in processes::own_descendants() {
                    process.signal(Signal::CONT);
                }
                Ok(Some(self.hello()))
            }
            Request::Signal(number) => {
                self.signal(id, number);
                Ok(None)
            }
            Request::Stop { grace_ms } => {
                self.begin_ending(Some(id), grace_ms);
                Ok(None)
            }
            Request::Install(install) => self.unless_ending()?.install(id, install).map(|()| None),
            Request::StartAgent(start) => self.unless_ending()?.start_agent(*start).map(Some),
            Request::Publish(publish) => {
                let door = self.unless_ending()?.publish(publish)?;
                Ok(Some(Reply::Published(door)))
            }
            Request::Link { link_ms } => self.link(link_ms).map(Some),
            Request::Exec(run) => self.unless_ending()?.exec(id, run).map(|()| None),
        }
    }

    fn unless_ending(&mut self) -> Result<&mut Self, ProviderError> {
        if self.ending.is_some() {
            let message = format!("sandbox `{}` is being stopped", self.sandbox.id);
            return Err(ProviderError::new(ErrorKind::NotFound, message));
        }
        Ok(self)
    }

    fn hello(&self) -> Reply {
        let agent = self.agent.as_ref().map(|agent| AgentAccess {
            server: agent.server.clone(),
            port: agent.port,
            password: self.password.clone(),
            running: agent.ended.is_none(),
        });
        let door = self.door.as_ref().map(|door| self.door_of(door));
        Reply::Hello(Box::new(Hello { agent, door }))
    }

    fn signal(&self, id: ClientId, number: i32) {
        let command = self.clients.get(&id).and_then(|client| client.command);
        if let (Some(pid), Some(signal)) = (command, Signal::from_named_raw(number)) {
            kill_group(pid, signal);
        }
    }

    /// Starts the install step, or lets the caller wait for the one that runs.
    fn install(&mut self, id: ClientId, install: Install) -> Result<(), ProviderError> {
        if let Some(running) = &mut self.install {
            // Nobody waits for it any more: it was killed, and a new one is started when it is gone.
            if running.waiters.is_empty() {
                let message = "an install step that was given up is still ending";
                return Err(ProviderError::transient(ErrorKind::Io, message));
            }
            running.waiters.push(id);
            return Ok(());
        }
        let (streams, pipe) = Streams::into_one_pipe().map_err(no_pipe)?;
        let pid = spawn::spawn(&self.sandbox, &install.run, streams)?;
        self.pump(LogName::Install, pipe);
        self.children.push((pid, Role::Install));
        self.install = Some(InstallRun {
            pid,
            command: install.command,
            found_by: install.found_by,
            waiters: vec![id],
        });
        Ok(())
    }

    /// The install step has ended: its success is written down before anybody is told.
    pub(super) fn install_ended(&mut self, ended: ExecReply) {
        self.drain(LogName::Install);
        let Some(install) = self.install.take() else {
            return;
        };
        let mut reply = Reply::Ended(ended);
        if ended == ExecReply::Exited(0) {
            let record = InstalledRecord {
                command: install.command,
                found_by: install.found_by,
            };
            let written = file::write_json(&self.sandbox.installed(), &record, Flush::Yes);
            if let Err(error) = written {
                reply = Reply::Refused(error);
            }
        }
        for id in install.waiters {
            self.tell(id, &reply);
        }
    }

    /// Starts the agent's server, unless it runs.
    fn start_agent(&mut self, start: StartAgent) -> Result<Reply, ProviderError> {
        if let Some(agent) = self.agent.as_ref().filter(|agent| agent.ended.is_none()) {
            return Ok(self.started(agent));
        }
        if let Some(before) = self.agent.take() {
            // What its server left in its group would hold its port, its files and its log.
            kill_group(before.pid, Signal::KILL);
        }
        // A gateway knows the port of the server that was there when it was started; the next one knows the new one's.
        self.end_gateway();
        let port = free_port().map_err(|source| ProviderError::io("a free port", &source))?;
        for name in &start.secret {
            if let Some(value) = start.env.get(name) {
                self.redactor.learn(value);
            }
        }
        let run = self.agent_run(&start, port);
        let (streams, pipe) = Streams::into_one_pipe().map_err(no_pipe)?;
        let pid = spawn::spawn(&self.sandbox, &run, streams)?;
        let log_from = self.pump(LogName::Agent, pipe);
        self.children.push((pid, Role::Agent));
        let number = pid.as_raw_nonzero().get().cast_unsigned();
        let process = Process::of(number).unwrap_or(Process {
            pid: number,
            start_time: 0,
        });
        let agent = AgentRun {
            pid,
            process,
            port,
            server: start.server,
            log_from,
            ended: None,
        };
        let reply = self.started(&agent);
        self.agent = Some(agent);
        self.save()?;
        Ok(reply)
    }

    fn agent_run(&self, start: &StartAgent, port: u16) -> Run {
        let text = port.to_string();
        let mut env = start.env.clone();
        if let Some(name) = &start.server.port_env {
            env.insert(name.clone(), Secret::new(text.clone()));
        }
        if let Some(auth) = &start.server.auth {
            env.insert(auth.password_env.clone(), self.password.clone());
        }
        let filled = |word: &String| word.replace("{port}", &text).replace("{host}", "127.0.0.1");
        Run {
            argv: start.server.argv.iter().map(filled).collect(),
            env,
        }
    }

    fn started(&self, agent: &AgentRun) -> Reply {
        Reply::AgentStarted(AgentStarted {
            pid: agent.process.pid,
            start_time: agent.process.start_time,
            port: agent.port,
            password: self.password.clone(),
            log_from: agent.log_from,
            supervisor: std::process::id(),
        })
    }

    fn link(&mut self, link_ms: u64) -> Result<Reply, ProviderError> {
        let session = self.session_id.clone();
        let Some(door) = &mut self.door else {
            let message = "the session has no address";
            return Err(ProviderError::new(ErrorKind::AgentNotReady, message));
        };
        let open_url = door
            .link(&session, link_ms)
            .map_err(|source| ProviderError::io("a link", &source))?;
        let door = self.door.as_ref().map(|door| self.door_of(door));
        Ok(match door {
            Some(door) => Reply::Link { open_url, door },
            None => self.hello(),
        })
    }

    /// Starts a command whose pipes go to its caller, and which ends with the caller's connection.
    fn exec(&mut self, id: ClientId, mut run: Run) -> Result<(), ProviderError> {
        let Some(client) = self.clients.get_mut(&id) else {
            return Ok(());
        };
        if client.command.is_some() {
            let message = "a connection runs one command";
            return Err(ProviderError::new(ErrorKind::InvalidArgument, message));
        }
        let (streams, pipes) = Streams::piped().map_err(no_pipe)?;
        let (name, value) = self.sandbox.command_mark(id);
        run.env.insert(name.to_owned(), Secret::new(value));
        let pid: Pid = spawn::spawn(&self.sandbox, &run, streams)?;
        client.command = Some(pid);
        self.children.push((pid, Role::Command(id)));
        client
            .answer_with(&Reply::Started, &pipes)
            .map_err(|source| ProviderError::io("the command's pipes", &source))
    }

    /// A caller's command has ended.
    pub(super) fn command_ended(&mut self, id: ClientId, ended: ExecReply) {
        if let Some(client) = self.clients.get_mut(&id) {
            client.command = None;
            client.answer(&Reply::Ended(ended));
        }
    }

    /// What callers are told of the address.
    pub(super) fn door_of(&self, door: &OpenDoor) -> crate::protocol::Door {
        crate::protocol::Door {
            port: door.port(),
            username: super::door::USERNAME.to_owned(),
            password: self.password.clone(),
        }
    }
}

fn no_pipe(source: std::io::Error) -> ProviderError {
    ProviderError::io("a pipe", &source)
}
