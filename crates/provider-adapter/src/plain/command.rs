//! A command: a plain child process in a group of its own, which ends when nobody waits for it any more, with all that it has
//! started.

use super::MARKER;
use alpine_files::io_error;
use alpine_provider_api::*;
use alpine_provider_local::kill_marked;
use rustix::process::{Pid, Signal, kill_process_group};
use std::collections::BTreeMap;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::{mpsc, watch};

/// How long what a command wrote before its end may take to arrive.
const ARRIVAL: Duration = Duration::from_millis(50);

/// A command that runs.
pub(super) struct Running {
    child: Child,
    group: Group,
}

/// The processes of a command; they are ended when this is dropped, unless the command has ended itself.
struct Group {
    /// Of the command itself.
    pid: Option<Pid>,
    /// The variable that all of them carry, whatever group they are in.
    mark: String,
    ended: bool,
}

impl Drop for Group {
    fn drop(&mut self) {
        if !self.ended {
            kill_marked(self.mark.as_bytes());
        }
    }
}

/// The variable that every process of a command carries, and a value that no other command has.
fn command_mark() -> (&'static str, String) {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    // The process's id may come again; what it draws does not.
    let drawn = alpine_files::random_u32();
    let value = format!("{}-{number}-{drawn:08x}", std::process::id());
    ("ALPINE_PLAIN_COMMAND", value)
}

/// Starts it in the workspace of the sandbox in `directory`, which every process of it is marked with.
pub(super) fn start(
    request: &ExecRequest,
    directory: &Path,
    env: &BTreeMap<String, String>,
) -> Result<Running, ProviderError> {
    let workspace = directory.join("workspace");
    if !workspace.is_dir() {
        let message = format!("there is no sandbox `{}`", request.sandbox_id);
        return Err(ProviderError::new(ErrorKind::NotFound, message));
    }
    let (program, arguments) = request
        .argv
        .split_first()
        .ok_or_else(|| ProviderError::new(ErrorKind::InvalidArgument, "the command is empty"))?;
    let more = request
        .env
        .iter()
        .map(|(name, value)| (name, value.expose()));
    let (name, value) = command_mark();
    let child = Command::new(program)
        .args(arguments)
        .env_clear()
        .envs(env)
        // What they keep for a while goes with the sandbox.
        .env("TMPDIR", directory.join("tmp"))
        .envs(more)
        .env(MARKER, directory)
        .env(name, &value)
        .current_dir(&workspace)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| refused(program, &error))?;
    let pid = child.id().and_then(|pid| Pid::from_raw(pid.cast_signed()));
    Ok(Running {
        child,
        group: Group {
            pid,
            mark: format!("{name}={value}"),
            ended: false,
        },
    })
}

fn refused(program: &str, error: &io::Error) -> ProviderError {
    let wrong = [io::ErrorKind::NotFound, io::ErrorKind::PermissionDenied];
    match wrong.contains(&error.kind()) {
        true => ProviderError::new(
            ErrorKind::InvalidArgument,
            format!("`{program}` can't be run: {error}"),
        ),
        false => io_error(Path::new(program), error),
    }
}

impl Running {
    /// Passes its streams on until it ends.
    pub(super) async fn run(
        &mut self,
        call: &Call,
        input: mpsc::Receiver<ExecInput>,
    ) -> Result<ExecReply, ProviderError> {
        let (stdin, stdout, stderr) = (
            self.child.stdin.take(),
            self.child.stdout.take(),
            self.child.stderr.take(),
        );
        let (over, ended) = watch::channel(false);
        let group = self.group.pid;
        let child = &mut self.child;
        let ending = async {
            let status = child.wait().await;
            let _ = over.send(true);
            status.map_err(|error| ProviderError::io("a command", &error))
        };
        let fed = async {
            tokio::select! {
                status = ending => status,
                never = feed(stdin, input, group) => match never {},
            }
        };
        let (status, said, complained) = tokio::join!(
            fed,
            pump(call, stdout, CallEvent::Stdout, ended.clone()),
            pump(call, stderr, CallEvent::Stderr, ended),
        );
        let status = status?;
        // What it left in the background may stay, until the sandbox is stopped.
        self.group.ended = true;
        said.and(complained)?;
        Ok(match (status.code(), status.signal()) {
            (Some(code), _) => ExecReply::Exited(code),
            (None, signal) => ExecReply::Signalled(signal.unwrap_or(0)),
        })
    }
}

/// Passes input and signals on for as long as it is asked to.
async fn feed(
    mut stdin: Option<ChildStdin>,
    mut input: mpsc::Receiver<ExecInput>,
    group: Option<Pid>,
) -> std::convert::Infallible {
    while let Some(item) = input.recv().await {
        match (item, &mut stdin) {
            (ExecInput::Data(data), Some(open)) => {
                // A command that reads no more is no failure.
                if open.write_all(&data).await.is_err() {
                    stdin = None;
                }
            }
            (ExecInput::Data(_), None) => {}
            (ExecInput::Eof, _) => stdin = None,
            (ExecInput::Signal(number), _) => {
                if let (Some(group), Some(signal)) = (group, Signal::from_named_raw(number)) {
                    let _ = kill_process_group(group, signal);
                }
            }
        }
    }
    drop(stdin);
    std::future::pending().await
}

/// Passes output on to its end, or to what had been written when the command ended.
async fn pump(
    call: &Call,
    from: Option<impl AsyncRead + Unpin>,
    event: fn(Vec<u8>) -> CallEvent,
    mut ended: watch::Receiver<bool>,
) -> Result<(), ProviderError> {
    let Some(mut from) = from else { return Ok(()) };
    let mut text = vec![0; 64 * 1024];
    loop {
        let over = async {
            let _ = ended.wait_for(|ended| *ended).await;
            tokio::time::sleep(ARRIVAL).await;
        };
        let got = tokio::select! {
            biased;
            got = from.read(&mut text) => got,
            () = over => return Ok(()),
        };
        match got.map_err(|error| ProviderError::io("a command's output", &error))? {
            0 => return Ok(()),
            got => call.send(event(text[..got].to_vec())).await?,
        }
    }
}
