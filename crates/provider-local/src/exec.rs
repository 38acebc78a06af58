//! Runs a command in the workspace.

use crate::dial::{self, Dial, PROMPT};
use crate::layout::Sandbox;
use crate::protocol::{Reply, Request, Run};
use crate::provider::Local;
use alpine_provider_api::{
    Call, CallEvent, ErrorKind, ExecInput, ExecReply, ExecRequest, ProviderError,
};
use rustix::io::Errno;
use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::unix::pipe;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

const CHUNK: usize = 64 * 1024;
/// How much input is taken in advance of a command that reads slowly.
const PENDING: usize = 1 << 20;
/// How much is taken for the sake of the signals behind it, whatever the caller sends.
const MOST_PENDING: usize = 16 << 20;
/// How often a caller who waits with input is looked at for a signal behind it.
const LOOK: Duration = Duration::from_millis(20);

/// Has the supervisor start the command, and carries between its pipes and the call. When this is dropped, so is the
/// connection, and the supervisor ends the command.
pub(crate) async fn exec(
    local: &Arc<Local>,
    call: &Call,
    request: ExecRequest,
    input: mpsc::Receiver<ExecInput>,
) -> Result<ExecReply, ProviderError> {
    let sandbox = local.running(&request.sandbox_id)?;
    if request.argv.first().is_none_or(String::is_empty) {
        let message = "no program is named";
        return Err(ProviderError::new(ErrorKind::InvalidArgument, message));
    }
    let run = Run {
        argv: request.argv,
        env: local.env(&request.env),
    };
    let request = Request::Exec(run);
    let started = tokio::time::timeout(PROMPT, start(&sandbox, &request));
    let silent = |_| dial::unreachable(&sandbox, "it does not answer");
    let mut dial = started.await.map_err(silent)??;
    let Ok([stdin, stdout, stderr]) = <[OwnedFd; 3]>::try_from(dial.take_pipes()) else {
        return Err(dial::unexpected(&sandbox));
    };
    let failed = |source: io::Error| ProviderError::io("the command's pipes", &source);
    let stdin = pipe::Sender::from_owned_fd(stdin).map_err(failed)?;
    let stdout = pipe::Receiver::from_owned_fd(stdout).map_err(failed)?;
    let stderr = pipe::Receiver::from_owned_fd(stderr).map_err(failed)?;
    let (say, said) = watch::channel(false);
    let (out, err, ended) = tokio::join!(
        pump(call, stdout, CallEvent::Stdout, said.clone()),
        pump(call, stderr, CallEvent::Stderr, said),
        control(&sandbox, &mut dial, stdin, input, say),
    );
    let ended = ended?;
    out.and(err)?;
    Ok(ended)
}

async fn start(sandbox: &Sandbox, request: &Request) -> Result<Dial, ProviderError> {
    let mut dial = Dial::ask(sandbox, request).await?;
    let Reply::Started = dial.next(sandbox).await? else {
        return Err(dial::unexpected(sandbox));
    };
    Ok(dial)
}

/// Passes input and signals on until the command has ended.
///
/// Signals come behind input on one channel, and must not wait for a command that does not read. So while enough input is
/// held, one piece is left waiting, which holds a caller up who sends a piece when the one before was taken; when there
/// is more than one, a signal is among them, and they are taken.
async fn control(
    sandbox: &Sandbox,
    dial: &mut Dial,
    stdin: pipe::Sender,
    mut input: mpsc::Receiver<ExecInput>,
    over: watch::Sender<bool>,
) -> Result<ExecReply, ProviderError> {
    let mut feed = Feed {
        stdin: Some(stdin),
        pending: VecDeque::new(),
        held: 0,
        ended: false,
    };
    let mut heard = true;
    let mut unanswered: Option<Instant> = None;
    let mut signals_among = 0;
    let ended = loop {
        if input.len() > 1 {
            signals_among = input.len();
        }
        let takes = heard && feed.takes(signals_among > 0);
        // A command that reads slowly must not keep its signals from it, nor its end from the caller.
        tokio::select! {
            // The answer to the question that went with a signal: it has arrived.
            reply = dial.next(sandbox) => match reply {
                Ok(Reply::Hello(_)) => unanswered = None,
                reply => break reply,
            },
            () = until(unanswered) => break Err(dial::unreachable(sandbox, "it takes no signal")),
            () = tokio::time::sleep(LOOK), if heard && !takes => {}
            () = feed.step(), if feed.has_work() => {}
            item = input.recv(), if takes => {
                signals_among = usize::saturating_sub(signals_among, 1);
                heard = item.is_some();
                match item {
                    Some(ExecInput::Data(data)) => feed.take(data),
                    Some(ExecInput::Eof) | None => feed.ended = true,
                    Some(ExecInput::Signal(number)) => {
                        let limit = *unanswered.get_or_insert(Instant::now() + PROMPT);
                        // A supervisor that has gone is noticed when it is read, one that stands still by its silence.
                        let _ = tokio::time::timeout_at(limit, signal(dial, number)).await;
                    }
                }
            },
        }
    };
    // What was written before the end is in the pipes now: they are read empty and no further. That nobody waits for this
    // any more means that both have ended.
    let _ = over.send(true);
    match ended {
        Ok(Reply::Ended(ended)) => Ok(ended),
        Ok(_) => Err(dial::unexpected(sandbox)),
        Err(error) => Err(error),
    }
}

/// Sends a signal, and a question behind it whose answer says that the signal was delivered.
async fn signal(dial: &mut Dial, number: i32) -> io::Result<()> {
    dial.say(&Request::Signal(number)).await?;
    dial.say(&Request::Hello).await
}

/// Waits until then, or for ever.
async fn until(limit: Option<Instant>) {
    match limit {
        Some(limit) => tokio::time::sleep_until(limit).await,
        None => std::future::pending().await,
    }
}

/// What is on its way to the command's standard input.
struct Feed {
    stdin: Option<pipe::Sender>,
    pending: VecDeque<Vec<u8>>,
    held: usize,
    ended: bool,
}

impl Feed {
    fn has_work(&self) -> bool {
        self.stdin.is_some() && (self.ended || !self.pending.is_empty())
    }

    /// Whether the next piece is taken, which may have a signal behind it.
    fn takes(&self, signal_behind: bool) -> bool {
        self.held < PENDING || (signal_behind && self.held < MOST_PENDING)
    }

    /// Takes a piece of input, if the command still reads.
    fn take(&mut self, data: Vec<u8>) {
        if self.stdin.is_some() && !self.ended {
            self.held += data.len();
            self.pending.push_back(data);
        }
    }

    /// Writes some of it; after the last of it, closes the input. May be dropped at any time.
    async fn step(&mut self) {
        let Some(stdin) = &self.stdin else { return };
        let Some(data) = self.pending.front_mut() else {
            self.stdin = None;
            return;
        };
        let written = match stdin.writable().await {
            Ok(()) => stdin.try_write(data),
            Err(source) => Err(source),
        };
        match written {
            Ok(count) => {
                self.held -= count;
                data.drain(..count);
                if data.is_empty() {
                    self.pending.pop_front();
                }
            }
            Err(source) if source.kind() == io::ErrorKind::WouldBlock => {}
            // It has closed its input: what else comes is dropped, as a shell does.
            Err(_) => {
                self.stdin = None;
                self.held = 0;
                self.pending.clear();
            }
        }
    }
}

/// Sends a pipe's output to the call until it ends; after the command's own end, only what is there already.
async fn pump(
    call: &Call,
    pipe: pipe::Receiver,
    event: fn(Vec<u8>) -> CallEvent,
    mut over: watch::Receiver<bool>,
) -> Result<(), ProviderError> {
    let mut text = vec![0; CHUNK];
    loop {
        match pipe.try_read(&mut text) {
            Ok(0) => return Ok(()),
            Ok(got) => call.send(event(text[..got].to_vec())).await?,
            Err(source) if source.kind() == io::ErrorKind::WouldBlock => {
                tokio::select! {
                    ready = pipe.readable() => ready.map_err(|source| unread(&source))?,
                    _ = over.wait_for(|over| *over) => break,
                }
            }
            Err(source) => return Err(unread(&source)),
        }
    }
    // Now the pipe itself is asked, not what the runtime believes of it: this look is the last.
    loop {
        match rustix::io::read(&pipe, &mut text) {
            Ok(0) | Err(Errno::AGAIN) => return Ok(()),
            Ok(got) => call.send(event(text[..got].to_vec())).await?,
            Err(Errno::INTR) => {}
            Err(source) => return Err(unread(&source.into())),
        }
    }
}

fn unread(source: &io::Error) -> ProviderError {
    ProviderError::io("the command's output", source)
}
