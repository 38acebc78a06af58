//! `exec`: a command in a session, with its own streams, signals and exit status.

use crate::args::ExecArgs;
use crate::ended;
use crate::output::{Stream, write};
use crate::signals;
use crate::work::{Reached, Work, drive, provider_failed, runtime};
use alpine_lifecycle::{ErrorCode, Failure};
use alpine_provider_api::{Call, CallEvent, ExecInput, ExecReply, ExecRequest};
use std::collections::BTreeMap;
use std::io::Read;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, watch};

/// How many pieces of input and signals may wait for the provider.
const WAITING: usize = 16;
/// How long the provider may take to take a signal.
const TAKEN: Duration = Duration::from_secs(2);
/// A failure that follows a signal as closely as this is that the signal could not be delivered.
const FOLLOWS: Duration = Duration::from_secs(5);
/// How much of standard input is taken at once.
const PIECE: usize = 64 * 1024;
/// The exit status of a program whose reader has gone: as if SIGPIPE had ended it.
const NO_READER: u8 = 141;

pub(crate) fn run(work: &Work, args: ExecArgs) -> Result<u8, Failure> {
    let config = work.config()?;
    let reached = work.reach(&config, &args.session, "exec")?;
    reached.ready()?;
    let (to_command, input) = mpsc::channel(WAITING);
    let (heard, signals) = mpsc::channel(16);
    signals::forward(heard)?;
    let line = Arc::new(Line {
        to_command,
        urgent: Mutex::new(false),
    });
    pump(Arc::clone(&line))?;
    drive(runtime()?, follow(reached, args.argv, line, input, signals))
}

/// The way to the command.
struct Line {
    to_command: mpsc::Sender<ExecInput>,
    /// Whether a signal is on its way: no input is sent behind it, so that it is seen to be taken.
    urgent: Mutex<bool>,
}

impl Line {
    /// Whether the provider has taken everything that was sent, or wants nothing more.
    fn is_taken(&self) -> bool {
        self.to_command.capacity() == self.to_command.max_capacity() || self.to_command.is_closed()
    }

    /// Sends a piece of input if nothing waits; gives it back if something does.
    fn offer(&self, input: ExecInput) -> Result<(), TrySendError<ExecInput>> {
        let urgent = self.urgent.lock().unwrap_or_else(PoisonError::into_inner);
        match *urgent || !self.is_taken() {
            true => Err(TrySendError::Full(input)),
            false => self.to_command.try_send(input),
        }
    }

    /// Sends a signal, and waits until it was taken.
    async fn signal(&self, number: i32) {
        {
            let mut urgent = self.urgent.lock().unwrap_or_else(PoisonError::into_inner);
            *urgent = true;
            // There is room: one piece of input waits at most. A command that has ended already gets no signal.
            let _ = self.to_command.try_send(ExecInput::Signal(number));
        }
        while !self.is_taken() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        *self.urgent.lock().unwrap_or_else(PoisonError::into_inner) = false;
    }
}

/// Sends standard input, and its end. The thread ends with the program.
///
/// A piece is sent when the one before was taken, so that a signal always finds a place, and the provider knows by two
/// that wait that a signal is among them: a command that does not read is signalled all the same.
fn pump(line: Arc<Line>) -> Result<(), Failure> {
    let thread = std::thread::Builder::new().name("stdin".to_owned());
    let spawned = thread.spawn(move || {
        let mut piece = vec![0; PIECE];
        let mut stdin = std::io::stdin().lock();
        loop {
            let mut input = match stdin.read(&mut piece) {
                Ok(0) => ExecInput::Eof,
                Ok(length) => ExecInput::Data(piece[..length].to_vec()),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                // A closed standard input is an empty one.
                Err(_) => ExecInput::Eof,
            };
            let last = input == ExecInput::Eof;
            let mut pause = Duration::from_micros(50);
            while let Err(unsent) = line.offer(input) {
                let TrySendError::Full(again) = unsent else {
                    return;
                };
                input = again;
                std::thread::sleep(pause);
                pause = (pause * 2).min(Duration::from_millis(20));
            }
            if last {
                return;
            }
        }
    });
    spawned.map(|_| ()).map_err(|error| {
        Failure::new(
            ErrorCode::Internal,
            format!("no thread can be started: {error}"),
        )
    })
}

/// Passes the first signal on. One that is not taken in time, or a second one, ends the program; the command, whose
/// connection ends with it, is ended then.
async fn relay(
    mut signals: mpsc::Receiver<i32>,
    line: Arc<Line>,
    passed: watch::Sender<Option<(i32, Instant)>>,
) {
    let Some(first) = signals.recv().await else {
        return;
    };
    passed.send_replace(Some((first, Instant::now())));
    tokio::select! {
        taken = tokio::time::timeout(TAKEN, line.signal(first)) => if taken.is_err() {
            ended::exit(status_of(first));
        },
        Some(second) = signals.recv() => ended::exit(status_of(second)),
    }
    if let Some(second) = signals.recv().await {
        ended::exit(status_of(second));
    }
}

/// The exit status that tells of a signal.
fn status_of(signal: i32) -> u8 {
    u8::try_from(signal).unwrap_or(0).saturating_add(128)
}

/// Passes output and signals on until the command has ended.
async fn follow(
    reached: Reached,
    argv: Vec<String>,
    line: Arc<Line>,
    input: mpsc::Receiver<ExecInput>,
    signals: mpsc::Receiver<i32>,
) -> Result<u8, Failure> {
    let (sender, mut events) = mpsc::channel(64);
    let call = Call::new(reached.meta(None), sender);
    let request = ExecRequest {
        sandbox_id: reached.sandbox_id.clone(),
        argv,
        env: BTreeMap::new(),
    };
    let provider = reached.provider.clone();
    let mut task = tokio::spawn(async move { provider.exec(&call, request, input).await });
    let (passed, signal) = watch::channel(None);
    // A task of its own: a reader of the output that stands still keeps no signal from being heard.
    tokio::spawn(relay(signals, line, passed));
    let ended = loop {
        tokio::select! {
            biased;
            Some(event) = events.recv() => if !pass(event) {
                task.abort();
                return Ok(NO_READER);
            },
            ended = &mut task => break ended,
        }
    };
    while let Ok(event) = events.try_recv() {
        if !pass(event) {
            return Ok(NO_READER);
        }
    }
    match ended {
        Ok(Ok(ExecReply::Exited(status))) => Ok(u8::try_from(status).unwrap_or(u8::MAX)),
        Ok(Ok(ExecReply::Signalled(signal))) => Ok(status_of(signal)),
        Ok(Err(error)) => match *signal.borrow() {
            Some((signal, at)) if at.elapsed() < FOLLOWS => {
                tracing::warn!("exec: {error}");
                Ok(status_of(signal))
            }
            Some(_) | None => Err(provider_failed("exec", &error, &reached)),
        },
        Err(died) => Err(reached.panicked(&died)),
    }
}

/// Writes output. Whether somebody still reads it.
fn pass(event: CallEvent) -> bool {
    match event {
        CallEvent::Stdout(bytes) => write(Stream::Stdout, &bytes),
        CallEvent::Stderr(bytes) => {
            // Without a reader of errors the command goes on.
            write(Stream::Stderr, &bytes);
            true
        }
        CallEvent::Progress { .. } | CallEvent::Warning(_) => true,
    }
}
