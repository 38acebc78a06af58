//! Real processes of a sandbox: each bears a mark, so that any process of the fake finds and ends them.

use super::work::Reply;
use alpine_provider_api::{
    Call, CallEvent, ErrorKind, ExecInput, ExecReply, ExecRequest, ProviderError,
};
use alpine_provider_local::{Process, belonging, kill_marked};
use rustix::process::{Pid, Signal, kill_process};
use std::collections::BTreeSet;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::mpsc;

const MARK: &str = "FAKE_SANDBOX";
const COMMAND: &str = "FAKE_COMMAND";
const LOOK: Duration = Duration::from_millis(5);

/// A process that is killed with all that it has started when nobody waits for it any more.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) child: Child,
    pid: Option<Pid>,
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

impl Group {
    pub(super) async fn ended(&mut self) -> Reply<ExecReply> {
        let status = self.child.wait().await;
        let status = status.map_err(|error| ProviderError::io("a command", &error))?;
        self.ended = true;
        Ok(reply(status))
    }
}

fn reply(status: ExitStatus) -> ExecReply {
    match status.code() {
        Some(code) => ExecReply::Exited(code),
        None => ExecReply::Signalled(status.signal().unwrap_or(0)),
    }
}

/// A command that belongs to the sandbox whose workspace this is.
pub(super) fn command(argv: &[String], workspace: &Path) -> Command {
    let mut command = Command::new(argv.first().map_or("", String::as_str));
    command
        .args(argv.iter().skip(1))
        .current_dir(workspace)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env(MARK, workspace)
        .process_group(0);
    command
}

pub(super) fn spawn(mut command: Command, program: &str) -> Reply<Group> {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let value = format!("{}-{number}", std::process::id());
    command.env(COMMAND, &value);
    let child = command.spawn().map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound | std::io::ErrorKind::PermissionDenied => {
            ProviderError::new(ErrorKind::InvalidArgument, format!("`{program}`: {error}"))
        }
        _ => ProviderError::io(format!("`{program}`"), &error),
    })?;
    let pid = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
    Ok(Group {
        child,
        pid,
        mark: format!("{COMMAND}={value}"),
        ended: false,
    })
}

/// Runs a command of `exec`.
pub(super) async fn run(
    call: &Call,
    request: &ExecRequest,
    input: mpsc::Receiver<ExecInput>,
    workspace: &Path,
) -> Reply<ExecReply> {
    let program = request.argv.first().map_or("", String::as_str);
    let mut command = command(&request.argv, workspace);
    let env = request.env.iter();
    command
        .envs(env.map(|(name, value)| (name, value.expose())))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut group = spawn(command, program)?;
    let stdin = group.child.stdin.take();
    let (out, err) = (group.child.stdout.take(), group.child.stderr.take());
    let pid = group.pid;
    let said = async {
        tokio::try_join!(
            pump(call, out, CallEvent::Stdout),
            pump(call, err, CallEvent::Stderr),
        )?;
        group.ended().await
    };
    tokio::select! {
        ended = said => ended,
        () = feed(stdin, input, pid) => unreachable!("feeding goes on for ever"),
    }
}

async fn pump(
    call: &Call,
    from: Option<impl AsyncRead + Unpin>,
    event: fn(Vec<u8>) -> CallEvent,
) -> Reply<()> {
    let Some(mut from) = from else { return Ok(()) };
    let mut part = vec![0; 64 * 1024];
    loop {
        let read = from.read(&mut part).await;
        let read = read.map_err(|error| ProviderError::io("a command's output", &error))?;
        if read == 0 {
            return Ok(());
        }
        call.send(event(part[..read].to_vec())).await?;
    }
}

async fn feed(
    mut stdin: Option<ChildStdin>,
    mut input: mpsc::Receiver<ExecInput>,
    pid: Option<Pid>,
) {
    loop {
        match input.recv().await {
            Some(ExecInput::Data(bytes)) => {
                if let Some(to) = &mut stdin
                    && to.write_all(&bytes).await.is_err()
                {
                    // It reads no more.
                    stdin = None;
                }
            }
            Some(ExecInput::Eof) => stdin = None,
            Some(ExecInput::Signal(number)) => {
                if let (Some(pid), Some(signal)) = (pid, Signal::from_named_raw(number)) {
                    // One that has just ended takes no signal.
                    let _sent = kill_process(pid, signal);
                }
            }
            None => {
                drop(stdin);
                return std::future::pending().await;
            }
        }
    }
}

/// Ends every process of the sandbox: gracefully, and after the grace by force. Gives whether any had to be killed.
pub(super) async fn end(workspace: &Path, grace: Duration) -> Reply<bool> {
    let until = Instant::now() + grace;
    let mut left = of(workspace, &BTreeSet::new());
    for process in &left {
        process.signal(Signal::TERM);
    }
    let (mut forced, mut looks) = (false, 0);
    loop {
        left = of(workspace, &left);
        looks = if left.is_empty() { looks + 1 } else { 0 };
        // One look alone misses what is started while it goes on.
        if looks == 2 {
            return Ok(forced);
        }
        if Instant::now() > until + Duration::from_secs(10) {
            let text = format!("{} processes can't be ended", left.len());
            return Err(ProviderError::new(ErrorKind::Io, text));
        }
        if !left.is_empty() && Instant::now() >= until {
            forced = true;
            for process in &left {
                process.signal(Signal::KILL);
            }
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// The sandbox's processes, those that were known and live included.
fn of(workspace: &Path, known: &BTreeSet<Process>) -> BTreeSet<Process> {
    let mark = [MARK.as_bytes(), b"=", workspace.as_os_str().as_bytes()].concat();
    belonging(&mark, Some(workspace), known)
}
