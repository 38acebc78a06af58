//! How a supervisor comes to be: it reads its configuration, detaches, takes the lock, and says that it serves.

use super::kernel::{self, Forked};
use super::serve::Shim;
use crate::file::{self, io_error};
use crate::layout::{Home, Sandbox};
use crate::processes::{self, Process};
use crate::protocol::{self, Birth, Birthcry};
use crate::record;
use alpine_provider_api::{ErrorKind, ProviderError, SandboxId};
use rustix::fs::{FlockOperation, Mode, flock};
use rustix::process::{Pid, umask};
use std::ffi::{CStr, OsStr};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixListener;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Becomes the supervisor of a sandbox.
pub(super) fn run(id: Option<&OsStr>) -> ExitCode {
    kernel::close_inherited();
    let Ok(speak) = io::stdout().as_fd().try_clone_to_owned() else {
        return ExitCode::FAILURE;
    };
    match detach(id) {
        Ok(None) => ExitCode::SUCCESS,
        Ok(Some((birth, sandbox))) => live(birth, sandbox, speak),
        Err(error) => {
            cry(speak, &Birthcry::Failed(error));
            ExitCode::FAILURE
        }
    }
}

/// Says the one thing that the starter waits for.
fn cry(speak: OwnedFd, what: &Birthcry) {
    // A starter that has gone does not need to know.
    let _ = File::from(speak).write_all(&protocol::encode(what));
}

/// Reads the configuration and goes into the background; gives nothing in the process that stays behind.
fn detach(id: Option<&OsStr>) -> Result<Option<(Birth, Sandbox)>, ProviderError> {
    let id = id
        .and_then(OsStr::to_str)
        .and_then(SandboxId::new)
        .ok_or_else(|| ProviderError::new(ErrorKind::InvalidArgument, "no sandbox is named"))?;
    let mut text = Vec::new();
    io::stdin()
        .read_to_end(&mut text)
        .map_err(|source| ProviderError::io("the supervisor's configuration", &source))?;
    let birth: Birth = serde_json::from_slice(&text).map_err(|source| {
        let message = format!("the supervisor's configuration: {source}");
        ProviderError::new(ErrorKind::Internal, message)
    })?;
    let detached = |source| ProviderError::io("can't detach a supervisor", &source);
    if go_into_background(c"alpine-shim").map_err(detached)? == Forked::Parent {
        return Ok(None);
    }
    // What the sandbox's processes orphan is inherited.
    rustix::process::set_child_subreaper(Some(Pid::INIT))
        .map_err(|source| detached(source.into()))?;
    let sandbox = Home::new(&birth.home.clone(), &birth.run_dir.clone()).sandbox(&id);
    Ok(Some((birth, sandbox)))
}

/// Forks; the child has a session and a name of its own, no standard streams, and no directory that it would keep in use.
pub(crate) fn go_into_background(name: &CStr) -> io::Result<Forked> {
    if kernel::fork()? == Forked::Parent {
        return Ok(Forked::Parent);
    }
    rustix::process::setsid()?;
    rustix::thread::set_name(name)?;
    let nothing = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/null")?;
    rustix::stdio::dup2_stdin(&nothing)?;
    rustix::stdio::dup2_stdout(&nothing)?;
    rustix::stdio::dup2_stderr(&nothing)?;
    std::env::set_current_dir("/")?;
    Ok(Forked::Child)
}

fn live(birth: Birth, sandbox: Sandbox, speak: OwnedFd) -> ExitCode {
    let lock = match take_lock(&sandbox) {
        Ok(Some(lock)) => lock,
        Ok(None) => {
            cry(speak, &Birthcry::Another);
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            cry(speak, &Birthcry::Failed(error));
            return ExitCode::FAILURE;
        }
    };
    let born = listen(&sandbox).and_then(|listener| Shim::new(birth, sandbox, listener, lock));
    match born {
        Ok(shim) => {
            cry(speak, &Birthcry::Serving);
            shim.serve();
            ExitCode::SUCCESS
        }
        Err(error) => {
            cry(speak, &Birthcry::Failed(error));
            ExitCode::FAILURE
        }
    }
}

/// The lock for life, with this process's name in it; none when another supervisor has it.
fn take_lock(sandbox: &Sandbox) -> Result<Option<File>, ProviderError> {
    let path = sandbox.lock();
    let failed = |source: io::Error| io_error(&path, &source);
    let mut lock = OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .mode(0o600)
        .open(&path)
        .map_err(failed)?;
    // Those who only look hold it for an instant, so one refusal does not mean another supervisor.
    let limit = Instant::now() + Duration::from_millis(200);
    loop {
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => break,
            Err(rustix::io::Errno::WOULDBLOCK) if Instant::now() < limit => {
                std::thread::sleep(Duration::from_millis(2));
            }
            Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
            Err(source) => return Err(failed(source.into())),
        }
    }
    let me = Process::of(std::process::id()).map_or(0, |me| me.start_time);
    lock.set_len(0).map_err(failed)?;
    lock.write_all(format!("{} {me}\n", std::process::id()).as_bytes())
        .map_err(failed)?;
    // What an earlier supervisor left behind when it was killed is ended before anything new is started.
    let (left, _) = processes::end_marked(
        sandbox,
        Instant::now() + Duration::from_millis(200),
        &|_| (),
    );
    if let Some(process) = left.first() {
        let message = format!(
            "process {} of an earlier supervisor can't be ended",
            process.pid
        );
        return Err(ProviderError::transient(ErrorKind::Io, message));
    }
    Ok(Some(lock))
}

/// The socket, which only this user can connect to.
fn listen(sandbox: &Sandbox) -> Result<UnixListener, ProviderError> {
    let path = &sandbox.socket;
    if path.as_os_str().len() > 107 {
        let message = format!("`{}` is too long for a socket's path", path.display());
        let hint = "export XDG_RUNTIME_DIR=/run/user/\"$(id -u)\"";
        return Err(ProviderError::new(ErrorKind::Io, message).hint(hint));
    }
    record::remove_socket(sandbox)?;
    file::remove(path)?;
    let before = umask(Mode::XUSR | Mode::RWXG | Mode::RWXO);
    let bound = UnixListener::bind(path);
    umask(before);
    let listener = bound.map_err(|source| io_error(path, &source))?;
    listener
        .set_nonblocking(true)
        .map_err(|source| io_error(path, &source))?;
    Ok(listener)
}
