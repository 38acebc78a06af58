//! What is written down beside a sandbox.

use crate::file;
use crate::layout::{Home, Sandbox};
use crate::{made, processes};
use alpine_provider_api::{CommitId, ExecReply, ProviderError, SandboxState};
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::PathBuf;

/// What the supervisor tells of itself while it runs.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct StateRecord {
    /// The version of this record.
    pub(crate) version: u32,
    /// The boot that its process ids belong to.
    pub(crate) boot_id: String,
    /// The supervisor.
    pub(crate) pid: u32,
    /// When it started, which tells it from a later process of the same id.
    pub(crate) start_time: u64,
    /// When it started, for people.
    pub(crate) started_at: String,
    /// The isolation that the sandbox has.
    pub(crate) tier: String,
    /// The agent's server.
    pub(crate) agent: Option<AgentRecord>,
    /// The port of the session's address, which a restart takes again.
    pub(crate) port: Option<u16>,
    /// Where its socket is, whatever the caller's own directory of sockets is. Earlier programs did not write it.
    #[serde(default)]
    pub(crate) socket: Option<PathBuf>,
}

/// The agent's server process.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct AgentRecord {
    /// Its process.
    pub(crate) pid: u32,
    /// When it started.
    pub(crate) start_time: u64,
    /// The port that it listens on.
    pub(crate) port: u16,
    /// How it ended, if it has.
    pub(crate) ended: Option<ExecReply>,
}

/// How a sandbox ended.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ExitRecord {
    /// The version of this record.
    pub(crate) version: u32,
    /// When.
    pub(crate) at: String,
    /// Whether it was stopped by a call, so that nothing starts it again.
    pub(crate) asked: bool,
    /// Whether something had to be killed.
    pub(crate) forced: bool,
    /// How the agent's server ended.
    pub(crate) agent: Option<ExecReply>,
}

/// An install step that exited 0.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct InstalledRecord {
    /// The command.
    pub(crate) command: String,
    /// What it was found by.
    pub(crate) found_by: String,
}

/// What the workspace was filled from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum FilledRecord {
    /// A commit of the repository.
    Commit(CommitId),
    /// A durable object, of so many entries.
    Object {
        /// Its id.
        id: String,
        /// How many files, directories and links came back.
        entries: u64,
    },
}

/// The version that this program writes.
pub(crate) const VERSION: u32 = 1;

/// Whether a sandbox runs, told by its lock alone; one that is not there is missing only where that is proven.
pub(crate) fn state(home: &Home, sandbox: &Sandbox) -> Result<SandboxState, ProviderError> {
    if !file::is_dir(&sandbox.dir)? {
        return made::absent_state(home, &sandbox.id);
    }
    Ok(if lock_is_held(sandbox)? {
        SandboxState::Running
    } else {
        SandboxState::Exited
    })
}

/// How the agent's server ended, if it has and its supervisor has taken note of that.
pub(crate) fn agent_ended(sandbox: &Sandbox) -> Option<ExecReply> {
    let state: Option<StateRecord> = file::read_json(&sandbox.state()).unwrap_or_default();
    state?.agent?.ended
}

/// Whether a supervisor holds the sandbox's lock.
pub(crate) fn lock_is_held(sandbox: &Sandbox) -> Result<bool, ProviderError> {
    let path = sandbox.lock();
    let lock = match File::open(&path) {
        Ok(lock) => lock,
        Err(source) if source.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(source) => return Err(file::io_error(&path, &source)),
    };
    // A shared lock, so that two who look at once do not take each other for a supervisor.
    match flock(&lock, FlockOperation::NonBlockingLockShared) {
        Ok(()) => Ok(false),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(true),
        Err(source) => Err(file::io_error(&path, &source.into())),
    }
}

/// Where the supervisor's socket is: the caller that started it may have had another directory of sockets.
pub(crate) fn socket(sandbox: &Sandbox) -> PathBuf {
    let state: Option<StateRecord> = file::read_json(&sandbox.state()).unwrap_or_default();
    state
        .and_then(|state| state.socket)
        .unwrap_or_else(|| sandbox.socket.clone())
}

/// Removes the socket that a supervisor left, wherever it is; nothing but a socket is removed.
pub(crate) fn remove_socket(sandbox: &Sandbox) -> Result<(), ProviderError> {
    for path in [socket(sandbox), sandbox.socket.clone()] {
        let found = path.symlink_metadata();
        if found.is_ok_and(|found| found.file_type().is_socket()) {
            file::remove(&path)?;
        }
    }
    Ok(())
}

/// The supervisor, as its lock names it: its process and when that started.
pub(crate) fn supervisor(sandbox: &Sandbox) -> Option<processes::Process> {
    let text = file::read_small(&sandbox.lock(), 256).ok()??;
    let text = String::from_utf8(text).ok()?;
    let (pid, start_time) = text.trim().split_once(' ')?;
    Some(processes::Process {
        pid: pid.parse().ok()?,
        start_time: start_time.parse().ok()?,
    })
}
