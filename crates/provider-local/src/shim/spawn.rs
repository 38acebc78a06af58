//! Starts the processes of a sandbox.

use super::kernel;
use crate::layout::{ID_VARIABLE, MARKER, Sandbox};
use crate::protocol::Run;
use alpine_provider_api::{ErrorKind, ProviderError};
use rustix::process::Pid;
use std::io;
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};

/// The standard streams of a process.
#[derive(Debug)]
pub(super) struct Streams {
    /// What it reads.
    pub(super) stdin: Stdio,
    /// What it writes.
    pub(super) stdout: Stdio,
    /// What it complains on.
    pub(super) stderr: Stdio,
}

impl Streams {
    /// Nothing to read, and one pipe for all that is written; gives its other end, which never makes a reader wait.
    pub(super) fn into_one_pipe() -> io::Result<(Self, OwnedFd)> {
        let (read, write) = pipe()?;
        rustix::io::ioctl_fionbio(&read, true)?;
        let streams = Self {
            stdin: Stdio::null(),
            stdout: Stdio::from(write.try_clone()?),
            stderr: Stdio::from(write),
        };
        Ok((streams, read))
    }

    /// A pipe for each; gives their other ends in order.
    pub(super) fn piped() -> io::Result<(Self, [OwnedFd; 3])> {
        let (stdin, feed) = pipe()?;
        let (out, stdout) = pipe()?;
        let (err, stderr) = pipe()?;
        let streams = Self {
            stdin: Stdio::from(stdin),
            stdout: Stdio::from(stdout),
            stderr: Stdio::from(stderr),
        };
        Ok((streams, [feed, out, err]))
    }
}

fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?)
}

/// Starts a program in the workspace.
pub(super) fn spawn(sandbox: &Sandbox, run: &Run, streams: Streams) -> Result<Pid, ProviderError> {
    let (program, arguments) = run
        .argv
        .split_first()
        .ok_or_else(|| ProviderError::new(ErrorKind::InvalidArgument, "no program is named"))?;
    let workspace = sandbox.workspace();
    if !workspace.is_dir() {
        let message = format!("the workspace `{}` is gone", workspace.display());
        return Err(ProviderError::new(ErrorKind::NotFound, message));
    }
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env_clear()
        .envs(run.env.iter().map(|(name, value)| (name, value.expose())))
        .current_dir(workspace)
        .stdin(streams.stdin)
        .stdout(streams.stdout)
        .stderr(streams.stderr);
    start(sandbox, &mut command).map_err(|source| refused(program, &source))
}

/// Starts a command as a marked process of the sandbox that dies with the supervisor.
pub(super) fn start(sandbox: &Sandbox, command: &mut Command) -> io::Result<Pid> {
    command
        .env(ID_VARIABLE, sandbox.id.as_str())
        .env(MARKER, &sandbox.key);
    kernel::own_session(command, rustix::process::getpid());
    let child = command.spawn()?;
    i32::try_from(child.id())
        .ok()
        .and_then(Pid::from_raw)
        .ok_or_else(|| io::ErrorKind::InvalidData.into())
}

fn refused(program: &str, source: &io::Error) -> ProviderError {
    // What the caller named can't be run, whatever else may be well.
    let callers = [
        libc::ENOENT,
        libc::ENOTDIR,
        libc::EACCES,
        libc::ENOEXEC,
        libc::EISDIR,
        libc::ELOOP,
        libc::E2BIG,
        libc::ENAMETOOLONG,
    ];
    // A word with a zero byte does not even get to the system.
    if source
        .raw_os_error()
        .is_none_or(|code| callers.contains(&code))
    {
        let message = format!("program `{program}` can't be run: {source}");
        return ProviderError::new(ErrorKind::InvalidArgument, message);
    }
    ProviderError::io(format!("program `{program}`"), source)
}
