//! Starts supervisors.

use crate::config::LocalConfig;
use crate::layout::Sandbox;
use crate::protocol::{Birth, Birthcry, SecretText};
use crate::{file, record, shim};
use alpine_provider_api::{ErrorKind, ProviderError};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::MemfdFlags;
use rustix::io::Errno;
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Makes sure that the sandbox's supervisor serves, unless the sandbox was stopped. Several who do this at once get one
/// supervisor: its lock decides.
pub(crate) fn ensure_running(
    config: &LocalConfig,
    sandbox: &Sandbox,
    session_id: &str,
) -> Result<(), ProviderError> {
    if stopped(sandbox)? {
        return Ok(());
    }
    if record::lock_is_held(sandbox)? && serves(sandbox) {
        return Ok(());
    }
    file::private_dir(config.run_dir.as_path())?;
    let birth = Birth {
        home: std::path::absolute(&config.home).unwrap_or_else(|_| config.home.clone()),
        run_dir: std::path::absolute(&config.run_dir).unwrap_or_else(|_| config.run_dir.clone()),
        session_id: session_id.to_owned(),
        secrets: config.secrets.iter().cloned().map(SecretText).collect(),
    };
    match start(config, sandbox, &birth)? {
        Birthcry::Serving => Ok(()),
        Birthcry::Another => await_other(sandbox),
        Birthcry::Failed(error) => Err(error),
    }
}

/// Whether a call stopped the sandbox, so that it is not to run again.
pub(crate) fn stopped(sandbox: &Sandbox) -> Result<bool, ProviderError> {
    let exit: Option<record::ExitRecord> = file::read_json(&sandbox.exit())?;
    Ok(exit.is_some_and(|exit| exit.asked))
}

fn serves(sandbox: &Sandbox) -> bool {
    std::os::unix::net::UnixStream::connect(record::socket(sandbox)).is_ok()
}

fn await_other(sandbox: &Sandbox) -> Result<(), ProviderError> {
    let limit = Instant::now() + Duration::from_secs(5);
    while Instant::now() < limit {
        if serves(sandbox) {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Err(crate::dial::unreachable(
        sandbox,
        "it holds its lock and does not serve",
    ))
}

/// Starts one, and waits until it serves or says why it can't. Its configuration is its standard input, in memory; what it
/// says is its standard output; it gives both up before it serves.
fn start(
    config: &LocalConfig,
    sandbox: &Sandbox,
    birth: &Birth,
) -> Result<Birthcry, ProviderError> {
    let failed = |what: &str, source: std::io::Error| {
        let program = config.executable.display();
        ProviderError::io(
            format!("can't start a supervisor from `{program}`: {what}"),
            &source,
        )
    };
    let memory = sealed_in_memory(birth).map_err(|source| failed("its configuration", source))?;
    let (hear, speak) = std::io::pipe().map_err(|source| failed("a pipe", source))?;
    let mut stub = Command::new(&config.executable)
        .arg0(shim::SHIM)
        .arg(sandbox.id.as_str())
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::from(memory))
        .stdout(Stdio::from(speak))
        .stderr(Stdio::null())
        .spawn()
        .map_err(|source| failed("exec", source))?;
    let heard = listen(hear, Duration::from_secs(10));
    // What was started only detaches the supervisor and ends; a program that is none of ours might not.
    let _ = stub.kill();
    stub.wait().map_err(|source| failed("wait", source))?;
    let cry = heard.map_err(|source| failed("it does not answer", source))?;
    crate::protocol::decode(&cry).map_err(|why| {
        let message = format!(
            "the supervisor started from `{}` ended before it served: {why}",
            config.executable.display()
        );
        ProviderError::transient(ErrorKind::Io, message)
    })
}

/// A file in memory that holds a document, at its beginning.
pub(crate) fn sealed_in_memory<T: serde::Serialize>(document: &T) -> std::io::Result<File> {
    let mut memory = File::from(rustix::fs::memfd_create("alpine", MemfdFlags::CLOEXEC)?);
    memory.write_all(&serde_json::to_vec(document)?)?;
    memory.rewind()?;
    Ok(memory)
}

fn listen(mut hear: std::io::PipeReader, patience: Duration) -> std::io::Result<Vec<u8>> {
    let limit = Instant::now() + patience;
    let mut line = Vec::new();
    loop {
        let left = limit.saturating_duration_since(Instant::now());
        let timeout = Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(0),
            tv_nsec: i64::from(left.subsec_nanos()),
        };
        match poll(&mut [PollFd::new(&hear, PollFlags::IN)], Some(&timeout)) {
            Ok(0) => return Err(std::io::ErrorKind::TimedOut.into()),
            // A signal that this process got meanwhile says nothing about the supervisor.
            Err(Errno::INTR) => continue,
            ready => ready?,
        };
        let mut text = [0; 4096];
        let got = hear.read(&mut text)?;
        line.extend_from_slice(&text[..got]);
        if got == 0 || line.contains(&b'\n') {
            return Ok(line);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::listen;
    use rustix::thread::gettid;
    use std::io::Write;
    use std::time::Duration;
    use tokio::signal::unix::{SignalKind, signal};

    #[expect(unsafe_code, reason = "a signal to one thread is a raw system call")]
    fn interrupt(thread: rustix::thread::Pid) {
        let thread = thread.as_raw_nonzero().get();
        let process = rustix::process::getpid().as_raw_nonzero().get();
        // SAFETY: it sends a signal that has a handler, and touches no memory.
        let sent = unsafe { libc::syscall(libc::SYS_tgkill, process, thread, libc::SIGUSR1) };
        assert_eq!(sent, 0);
    }

    #[tokio::test]
    async fn a_signal_does_not_end_the_wait_for_a_supervisor() {
        let _handled = signal(SignalKind::user_defined1()).unwrap();
        let (hear, mut speak) = std::io::pipe().unwrap();
        let (tell, told) = std::sync::mpsc::channel();
        let listening = std::thread::spawn(move || {
            tell.send(gettid()).unwrap();
            listen(hear, Duration::from_secs(10))
        });
        let thread = told.recv().unwrap();
        let state = format!("/proc/self/task/{}/stat", thread.as_raw_nonzero());
        for _ in 0..10 {
            while !std::fs::read_to_string(&state).unwrap().contains(") S ") {
                std::thread::yield_now();
            }
            interrupt(thread);
        }
        speak.write_all(b"here\n").unwrap();
        assert_eq!(listening.join().unwrap().unwrap(), b"here\n");
    }
}
