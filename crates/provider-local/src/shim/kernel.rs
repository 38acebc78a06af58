//! The few system calls that have no safe form.

use rustix::process::{Pid, Signal};
use std::io;
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Which of the two this is, after a fork.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Forked {
    /// The one that was there before.
    Parent,
    /// The new one.
    Child,
}

/// Forks.
#[expect(unsafe_code, reason = "no safe call forks")]
pub(crate) fn fork() -> io::Result<Forked> {
    // SAFETY: this process has one thread (`reexecuted` is called first in `main`), so the child may do whatever the parent
    // may: no lock is held by a thread that the child lacks.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Forked::Child),
        _ => Ok(Forked::Parent),
    }
}

/// Closes every descriptor but the standard ones: what the caller left open is none of a supervisor's business.
#[expect(
    unsafe_code,
    reason = "no safe call closes descriptors it does not own"
)]
pub(crate) fn close_inherited() {
    // SAFETY: called before anything of this process has opened a descriptor, so that none above 2 is owned by any value.
    unsafe { libc::syscall(libc::SYS_close_range, 3_u32, u32::MAX, 0_u32) };
}

/// Takes the signals that a supervisor looks at, and those that must not end it, as a descriptor to read.
#[expect(unsafe_code, reason = "no safe call makes a signalfd")]
pub(crate) fn signals() -> io::Result<OwnedFd> {
    let numbers = [
        libc::SIGCHLD,
        libc::SIGTERM,
        libc::SIGINT,
        libc::SIGHUP,
        libc::SIGQUIT,
        libc::SIGUSR1,
        libc::SIGUSR2,
    ];
    // A caller that was started in the background, or by `nohup`, ignores signals, and so would this process.
    default_dispositions();
    // SAFETY: `set` is plain data that `sigemptyset` fills in before it is read, and the calls only read it; the
    // descriptor, once checked, is new and owned by nobody else.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        for number in numbers {
            libc::sigaddset(&mut set, number);
        }
        if libc::sigprocmask(libc::SIG_BLOCK, &set, std::ptr::null_mut()) != 0 {
            return Err(io::Error::last_os_error());
        }
        match libc::signalfd(-1, &set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) {
            -1 => Err(io::Error::last_os_error()),
            raw => Ok(OwnedFd::from_raw_fd(raw)),
        }
    }
}

/// Takes every signal as a fresh process does, whatever was inherited. A broken pipe stays an error to this program; a
/// command's own disposition for that is set when it is spawned.
#[expect(unsafe_code, reason = "no safe call sets what a signal does")]
fn default_dispositions() {
    for number in (1..=64).filter(|&number| number != libc::SIGPIPE) {
        // SAFETY: `signal` is async-signal-safe, and the default disposition refers to no function. Numbers that can't be
        // set are refused by the system.
        unsafe { libc::signal(number, libc::SIG_DFL) };
    }
}

/// Makes a command the leader of a session of its own that takes every signal and dies with this process.
#[expect(unsafe_code, reason = "what a child does before exec has no safe form")]
pub(crate) fn own_session(command: &mut Command, parent: Pid) {
    // SAFETY: the closure only makes system calls, each of them async-signal-safe, and allocates nothing.
    unsafe {
        command.pre_exec(move || {
            rustix::process::setsid()?;
            rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
            if rustix::process::getppid() != Some(parent) {
                return Err(io::Error::from_raw_os_error(libc::ESRCH));
            }
            default_dispositions();
            let mut none: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&mut none);
            if libc::sigprocmask(libc::SIG_SETMASK, &none, std::ptr::null_mut()) != 0 {
                return Err(io::Error::last_os_error());
            }
            Ok(())
        });
    }
}
