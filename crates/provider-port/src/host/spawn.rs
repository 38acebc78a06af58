//! Starts a provider's process.

use super::config::{PortConfig, Source};
use super::hosted::{ARGV0, LIBRARY_FD};
use super::library::log_level;
use crate::child::SOCKET_FD;
use alpine_provider_api::{ErrorKind, ProviderError};
use rustix::io::fcntl_dupfd_cloexec;
use rustix::process::{Pid, Signal, getpid, getppid, set_parent_process_death_signal};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Descriptors are moved to here first, so that putting one in its place overwrites none that is still wanted.
const ABOVE: RawFd = 10;

/// What was started.
pub(super) struct Started {
    pub(super) child: Child,
    /// What it prints.
    pub(super) printed: OwnedFd,
}

/// Starts the process, with this end of the socket. The thread that calls this has to outlive it: the kernel ends a program
/// with that thread.
pub(super) fn spawn(config: &PortConfig, socket: &OwnedFd) -> Result<Started, ProviderError> {
    let failed = |what: &str, error: std::io::Error| ProviderError::io(what, &error);
    let (mut command, library) = match &config.source {
        Source::Hosted { library, program } => {
            let mut command = Command::new(program);
            command
                .arg0(ARGV0)
                .arg(log_level().to_string())
                .arg(&config.name);
            (command, Some(library))
        }
        Source::Executable { program, args } => {
            let mut command = Command::new(program);
            command.args(args);
            (command, None)
        }
        Source::InProcess { .. } => {
            let message = "it is configured to run in this process";
            return Err(ProviderError::new(ErrorKind::InvalidArgument, message));
        }
    };
    let mut placed = vec![(moved(socket)?, SOCKET_FD)];
    if let Some(library) = library {
        placed.push((moved(library)?, LIBRARY_FD));
    }
    let (printed, pipe) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
        .map_err(|error| failed("a pipe can't be made", error.into()))?;
    rustix::io::ioctl_fionbio(&printed, true)
        .map_err(|error| failed("a pipe can't be read without blocking", error.into()))?;
    let both = pipe
        .try_clone()
        .map_err(|error| failed("a pipe can't be shared", error))?;
    let env = config.env.iter();
    command
        .env_clear()
        .envs(env.map(|(name, value)| (name, value.expose())))
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(both)
        .stderr(pipe)
        // What a terminal signals is for its user's command to decide on; and what it starts is ended with it.
        .process_group(0);
    // Our own program ends by itself, within a second, whatever its library does: so long it has to end what it has started.
    let orphaned = library.is_none().then_some(Signal::KILL);
    place(&mut command, &placed, orphaned);
    // While these are there, the standard library's own pipe to the child takes neither of the places.
    let _taken = [held(socket)?, held(socket)?];
    let child = command.spawn().map_err(|error| {
        let program = command.get_program();
        // Of a script the kernel says the same where it is its interpreter that is not there.
        let why = match interpreter(program.as_ref()) {
            Some(missing) => format!("its interpreter `{}` is not there", missing.display()),
            None => error.to_string(),
        };
        let program = program.to_string_lossy();
        ProviderError::new(
            ErrorKind::Unsupported,
            format!("`{program}` can't be started: {why}"),
        )
    })?;
    Ok(Started { child, printed })
}

/// The interpreter that a script names and that is not there.
fn interpreter(program: &Path) -> Option<PathBuf> {
    let mut start = Vec::new();
    // The kernel reads no more of it.
    let file = File::open(program).ok()?.take(256);
    BufReader::new(file).read_until(b'\n', &mut start).ok()?;
    let line = start.strip_prefix(b"#!")?.trim_ascii();
    let name = line.split(u8::is_ascii_whitespace).next()?;
    let path = Path::new(OsStr::from_bytes(name));
    (!path.exists()).then(|| path.to_owned())
}

fn held(fd: &OwnedFd) -> Result<OwnedFd, ProviderError> {
    fcntl_dupfd_cloexec(fd, SOCKET_FD)
        .map_err(|error| ProviderError::io("a descriptor can't be held", &error.into()))
}

fn moved(fd: &OwnedFd) -> Result<OwnedFd, ProviderError> {
    fcntl_dupfd_cloexec(fd, ABOVE)
        .map_err(|error| ProviderError::io("a descriptor can't be handed over", &error.into()))
}

/// Puts descriptors in their places in the child, and has it signalled when the thread that started it ends.
#[expect(unsafe_code, reason = "what a child does before exec has no safe form")]
fn place(command: &mut Command, placed: &[(OwnedFd, RawFd)], orphaned: Option<Signal>) {
    let parent = getpid();
    let first = |at: usize| placed.get(at).map(|(fd, to)| (fd.as_raw_fd(), *to));
    let pairs = [first(0), first(1)];
    // What stands behind the last place is not for the child.
    let others = SOCKET_FD.unsigned_abs() + placed.len() as u32;
    // SAFETY: between fork and exec it makes system calls only; it neither allocates nor takes a lock. The descriptors in
    // `placed` are open in the child too, and no `OwnedFd` of it owns their places.
    unsafe {
        command.pre_exec(move || {
            for (from, to) in pairs.into_iter().flatten() {
                let from = ManuallyDrop::new(OwnedFd::from_raw_fd(from));
                let mut to = ManuallyDrop::new(OwnedFd::from_raw_fd(to));
                rustix::io::dup2(&*from, &mut to)?;
            }
            close_from(others)?;
            set_parent_process_death_signal(orphaned)?;
            if getppid() == Some(parent) {
                Ok(())
            } else {
                Err(std::io::ErrorKind::BrokenPipe.into())
            }
        });
    }
}

/// Whatever this process itself was started with is not for a provider: it is closed with exec, since the standard library
/// still needs a pipe of its own until then.
#[expect(unsafe_code, reason = "no safe call closes a range")]
fn close_from(first: u32) -> std::io::Result<()> {
    let last = u32::MAX;
    // SAFETY: it marks descriptors only; none is closed before exec.
    let marked = unsafe {
        libc::syscall(
            libc::SYS_close_range,
            first,
            last,
            libc::CLOSE_RANGE_CLOEXEC,
        )
    };
    if marked == 0 {
        Ok(())
    } else {
        Err(std::io::Error::last_os_error())
    }
}

/// The process's id.
pub(super) fn pid_of(child: &Child) -> Option<Pid> {
    Pid::from_raw(i32::try_from(child.id()).ok()?)
}
