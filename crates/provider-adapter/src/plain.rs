//! Commands as plain processes of this machine, in sandboxes that are plain directories: for a provider that isolates nothing,
//! or by other means.
//!
//! A sandbox's directory holds its `workspace`, and `tmp`, which is the `TMPDIR` of its processes. Each process bears the
//! directory in a variable of its environment, by which a call in any process finds it; one that has cleared its environment is
//! found by its place or its parent, where it has kept one of them.

mod command;

use alpine_files::{io_error, private_dir, remove_tree};
use alpine_provider_api::*;
use alpine_provider_local::{Process, belonging};
use rustix::process::Signal;
use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// The variable that every process of a sandbox carries: its directory.
const MARKER: &str = "ALPINE_PLAIN_SANDBOX";
/// How long a killed process may take to go.
const KILLED: Duration = Duration::from_secs(5);

/// What a provider of plain processes has to say of its isolation.
#[must_use]
pub fn isolation() -> Isolation {
    let missing = |what: &str, why: &str| MissingLayer {
        what: what.to_owned(),
        why: why.to_owned(),
        fix: "use a provider that isolates".to_owned(),
    };
    Isolation {
        tier: "process".to_owned(),
        layers: Vec::new(),
        limits: BTreeMap::new(),
        missing: vec![
            missing("isolation", "commands are plain processes of the user"),
            missing(
                "processes",
                "one that clears its environment, loses its parent, and leaves the directory or sets a `HOME` is not ended",
            ),
        ],
    }
}

/// Makes the directories of a sandbox, those that are missing.
///
/// # Errors
/// Those of the system.
pub fn make(directory: &Path) -> Result<(), ProviderError> {
    private_dir(&directory.join("workspace"))?;
    private_dir(&directory.join("tmp"))
}

/// Runs a command in a sandbox that runs, with these variables and the request's. When it is dropped, so is the command,
/// with all that it has started; when the command ends by itself, what it left in the background may stay.
///
/// # Errors
/// `NotFound` where there is no such sandbox, or it does not run; `InvalidArgument` where there is no such program; `Io`.
pub async fn exec(
    call: &Call,
    request: ExecRequest,
    input: mpsc::Receiver<ExecInput>,
    directory: &Path,
    env: &BTreeMap<String, String>,
    state: impl FnOnce() -> Result<SandboxState, ProviderError>,
) -> Result<ExecReply, ProviderError> {
    let mut running = command::start(&request, directory, env)?;
    // Looked at when the process is there, so that no `stop` misses it.
    if state()? != SandboxState::Running {
        let message = format!("sandbox `{}` does not run", request.sandbox_id);
        return Err(ProviderError::new(ErrorKind::NotFound, message));
    }
    running.run(call, input).await
}

/// Ends every process of a sandbox: asks, and after the grace period forces. Answers when none is left.
///
/// # Errors
/// `Io` where they can't be ended.
pub async fn end(directory: &Path, grace: Duration) -> Result<StopReply, ProviderError> {
    let begun = Instant::now();
    let mark = [MARKER.as_bytes(), b"=", directory.as_os_str().as_bytes()].concat();
    let mut asked: BTreeSet<Process> = BTreeSet::new();
    loop {
        let left = belonging(&mark, Some(directory), &asked);
        let force = begun.elapsed() >= grace;
        if left.is_empty() {
            let forced = force && !asked.is_empty();
            return Ok(StopReply { forced });
        }
        if begun.elapsed() > grace + KILLED {
            let pids: Vec<_> = left.iter().map(|it| it.pid).collect();
            let message = format!("processes can't be ended: {pids:?}");
            return Err(ProviderError::new(ErrorKind::Io, message));
        }
        for process in left {
            if force {
                process.signal(Signal::KILL);
            } else if !asked.contains(&process) {
                process.signal(Signal::TERM);
                process.signal(Signal::CONT);
            }
            asked.insert(process);
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Removes a sandbox's directory, if it is there.
///
/// # Errors
/// Those of the system.
pub fn remove(directory: &Path) -> Result<(), ProviderError> {
    remove_tree(directory).map_err(|error| io_error(directory, &error))
}
