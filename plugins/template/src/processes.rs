//! Finds the processes of a sandbox by the mark in their environment, and ends them.

use alpine_provider_api::{ErrorKind, ProviderError};
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// The variable that every process of a sandbox carries: its directory.
pub(crate) const MARKER: &str = "ALPINE_TEMPLATE_SANDBOX";
/// How long a killed process may take to go.
const KILLED: Duration = Duration::from_secs(5);

/// Ends them all: asks, and after the grace period forces. Says whether it had to.
pub(crate) async fn end(directory: &Path, grace: Duration) -> Result<bool, ProviderError> {
    let begun = Instant::now();
    let mut asked = Vec::new();
    loop {
        let left = marked(directory);
        let force = begun.elapsed() >= grace;
        if left.is_empty() {
            return Ok(force && !asked.is_empty());
        }
        if begun.elapsed() > grace + KILLED {
            let message = format!("processes can't be ended: {left:?}");
            return Err(ProviderError::new(ErrorKind::Io, message));
        }
        for pid in left {
            // One that has gone meanwhile is what is wanted.
            if force {
                let _ = kill_process(pid, Signal::KILL);
            } else if !asked.contains(&pid) {
                let _ = kill_process(pid, Signal::TERM);
                let _ = kill_process(pid, Signal::CONT);
            }
            asked.push(pid);
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn marked(directory: &Path) -> Vec<Pid> {
    let mark = [MARKER.as_bytes(), b"=", directory.as_os_str().as_bytes()].concat();
    let has = |pid: &Pid| {
        let environment = fs::read(format!("/proc/{}/environ", pid.as_raw_nonzero()));
        environment.is_ok_and(|all| all.split(|&byte| byte == 0).any(|one| one == mark))
    };
    let all = fs::read_dir("/proc").into_iter().flatten().flatten();
    all.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(Pid::from_raw)
        .filter(has)
        .collect()
}
