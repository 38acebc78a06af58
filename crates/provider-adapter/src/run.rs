//! Runs commands in a sandbox for the adapter itself, and takes what they say.

use crate::pipe::PIECES;
use crate::provider::Adapted;
use crate::sandboxes::Sandboxes;
use alpine_files::io_error;
use alpine_provider_api::*;
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use tokio::sync::mpsc;

/// How much is kept of what a command of the adapter says.
const KEPT: usize = 128 * 1024;
/// How much is kept of its complaints.
const COMPLAINTS: usize = 4096;
/// How large a log grows.
const LARGEST_LOG: u64 = 32 << 20;

/// Where a command's output goes.
pub(crate) enum Sink {
    /// Kept, up to a limit.
    Kept(Vec<u8>),
    /// To a thread that reads it.
    Pieces(mpsc::Sender<Vec<u8>>),
    /// With the complaints, to a file.
    Log {
        path: PathBuf,
        file: File,
        size: u64,
    },
}

/// A command that has ended.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) reply: ExecReply,
    pub(crate) stdout: Vec<u8>,
    complaints: String,
}

impl Sink {
    /// A log that begins anew.
    pub(crate) fn log(path: PathBuf) -> Result<Self, ProviderError> {
        let file = OpenOptions::new()
            .create(true)
            .truncate(true)
            .write(true)
            .mode(0o600)
            .open(&path)
            .map_err(|source| io_error(&path, &source))?;
        Ok(Sink::Log {
            path,
            file,
            size: 0,
        })
    }

    async fn take(&mut self, bytes: Vec<u8>) -> Result<(), ProviderError> {
        match self {
            Sink::Kept(kept) if kept.len() + bytes.len() > KEPT => Err(ProviderError::new(
                ErrorKind::Io,
                "a command in the sandbox says too much",
            )),
            Sink::Kept(kept) => {
                kept.extend(bytes);
                Ok(())
            }
            // Nobody reads any more: the reader has failed, and tells why.
            Sink::Pieces(to) => to
                .send(bytes)
                .await
                .map_err(|_| ProviderError::cancelled("its output is not read any more")),
            Sink::Log { path, file, size } => {
                let room = usize::try_from(LARGEST_LOG.saturating_sub(*size)).unwrap_or(0);
                let part = &bytes[..bytes.len().min(room)];
                *size += part.len() as u64;
                file.write_all(part)
                    .map_err(|source| io_error(path, &source))
            }
        }
    }
}

/// Does work whose call's events go to a sink, not to the caller; progress and warnings do. Gives its complaints too.
pub(crate) async fn listen<T, Work: Future<Output = Result<T, ProviderError>>>(
    call: &Call,
    work: impl FnOnce(Call) -> Work,
    sink: &mut Sink,
) -> Result<(T, String), ProviderError> {
    let (events, mut received) = mpsc::channel(PIECES);
    let work = work(Call::new(call.meta.clone(), events));
    tokio::pin!(work);
    let (mut done, mut complaints) = (None, Vec::new());
    loop {
        tokio::select! {
            result = &mut work, if done.is_none() => match result {
                Ok(it) => done = Some(it),
                Err(error) => return Err(complained(error, &complaints)),
            },
            event = received.recv() => match (event, done.take()) {
                (Some(event), before) => {
                    done = before;
                    heard(call, event, sink, &mut complaints).await?;
                }
                (None, Some(it)) => return Ok((it, text(&complaints))),
                (None, None) => {
                    let it = work.await.map_err(|error| complained(error, &complaints))?;
                    return Ok((it, text(&complaints)));
                }
            },
        }
    }
}

async fn heard(
    call: &Call,
    event: CallEvent,
    sink: &mut Sink,
    complaints: &mut Vec<u8>,
) -> Result<(), ProviderError> {
    match event {
        CallEvent::Stdout(bytes) => sink.take(bytes).await,
        CallEvent::Stderr(bytes) => {
            complaints.extend_from_slice(&bytes);
            let surplus = complaints.len().saturating_sub(COMPLAINTS);
            complaints.drain(..surplus);
            match sink {
                Sink::Log { .. } => sink.take(bytes).await,
                Sink::Kept(_) | Sink::Pieces(_) => Ok(()),
            }
        }
        CallEvent::Progress { what, done, total } => {
            call.progress(&what, done, total);
            Ok(())
        }
        CallEvent::Warning(text) => {
            call.warn(text);
            Ok(())
        }
    }
}

fn text(complaints: &[u8]) -> String {
    let text = String::from_utf8_lossy(complaints);
    text.trim()
        .replace(|c: char| c.is_control() && c != '\n', "")
}

/// A command's failure with the last of its complaints. What kept a command from running proves nothing of its sandbox:
/// whether that is there is what `inspect` says.
fn complained(mut error: ProviderError, complaints: &[u8]) -> ProviderError {
    if matches!(
        error.kind,
        ErrorKind::NotFound | ErrorKind::Destroyed | ErrorKind::WorkspaceLost
    ) {
        error.kind = ErrorKind::Io;
    }
    if let Some(last) = text(complaints).lines().last() {
        error.message = format!("{}: {last}", error.message);
    }
    error
}

/// Does what would keep the runtime's thread waiting on a thread made for that.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ProviderError> + Send + 'static,
) -> Result<T, ProviderError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(source) => Err(ProviderError::new(ErrorKind::Internal, source.to_string())),
    }
}

impl<S: Sandboxes> Adapted<S> {
    /// Runs a script in the workspace, with arguments and an input.
    pub(crate) async fn sh(
        &self,
        call: &Call,
        id: &SandboxId,
        script: &str,
        arguments: &[&str],
        input: mpsc::Receiver<ExecInput>,
        sink: &mut Sink,
    ) -> Result<Said, ProviderError> {
        self.run(call, script_of(id, script, arguments), input, sink)
            .await
    }

    /// Runs a command in the workspace.
    pub(crate) async fn run(
        &self,
        call: &Call,
        request: ExecRequest,
        input: mpsc::Receiver<ExecInput>,
        sink: &mut Sink,
    ) -> Result<Said, ProviderError> {
        let work = |call: Call| async move { self.sandboxes.exec(&call, request, input).await };
        let (reply, complaints) = listen(call, work, sink).await?;
        let stdout = match sink {
            Sink::Kept(kept) => std::mem::take(kept),
            Sink::Pieces(_) | Sink::Log { .. } => Vec::new(),
        };
        Ok(Said {
            reply,
            stdout,
            complaints,
        })
    }

    /// Runs a quick script without input, which has to succeed; gives what it says.
    pub(crate) async fn ask(
        &self,
        call: &Call,
        id: &SandboxId,
        script: &str,
        arguments: &[&str],
    ) -> Result<Vec<u8>, ProviderError> {
        let (_, no_input) = mpsc::channel(1);
        let mut sink = Sink::Kept(Vec::new());
        let said = self
            .sh(call, id, script, arguments, no_input, &mut sink)
            .await?;
        said.success(id)
    }
}

/// The command that runs a script.
pub(crate) fn script_of(id: &SandboxId, script: &str, arguments: &[&str]) -> ExecRequest {
    ExecRequest {
        sandbox_id: id.clone(),
        argv: ["sh", "-c", script, "alpine"]
            .iter()
            .chain(arguments)
            .map(|word| (*word).to_owned())
            .collect(),
        env: BTreeMap::new(),
    }
}

impl Said {
    /// What it said, if it exited 0.
    pub(crate) fn success(self, id: &SandboxId) -> Result<Vec<u8>, ProviderError> {
        let how = match self.reply {
            ExecReply::Exited(0) => return Ok(self.stdout),
            ExecReply::Exited(code) => format!("exited with status {code}"),
            ExecReply::Signalled(signal) => format!("was ended by signal {signal}"),
        };
        let message = format!("a command in sandbox `{id}` {how}");
        let kind = match self.complaints.contains("No space left on device") {
            true => ErrorKind::NoSpace,
            false => ErrorKind::Io,
        };
        let error = ProviderError::new(kind, message);
        Err(complained(error, self.complaints.as_bytes()))
    }
}
