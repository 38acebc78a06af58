//! `exec`: a command in a session, with its own streams, signals and exit status.

use crate::args::ExecArgs;
use crate::config::Config;
use crate::output::{Stream, write};
use crate::signals;
use crate::work::{Reached, Work, drive, provider_failed, runtime};
use alpine_lifecycle::{ErrorCode, Failure};
use alpine_provider_api::{Call, CallEvent, ExecInput, ExecReply, ExecRequest};
use std::collections::BTreeMap;
use std::io::Read;
use tokio::sync::mpsc;

/// How much of standard input is taken at once.
const PIECE: usize = 64 * 1024;
/// The exit status of a program whose reader has gone: as if SIGPIPE had ended it.
const NO_READER: u8 = 141;

pub(crate) fn run(work: &Work, args: ExecArgs) -> Result<u8, Failure> {
    let config = Config::load(&work.variables)?;
    let reached = work.reach(&config, &args.session, "exec")?;
    reached.ready()?;
    let (to_command, input) = mpsc::channel(16);
    let (heard, signals) = mpsc::channel(16);
    signals::forward(heard)?;
    pump(to_command.clone())?;
    drive(
        runtime()?,
        follow(reached, args.argv, to_command, input, signals),
    )
}

/// Sends standard input, and its end. The thread ends with the program.
fn pump(to_command: mpsc::Sender<ExecInput>) -> Result<(), Failure> {
    let thread = std::thread::Builder::new().name("stdin".to_owned());
    let spawned = thread.spawn(move || {
        let mut piece = vec![0; PIECE];
        let mut stdin = std::io::stdin().lock();
        loop {
            let input = match stdin.read(&mut piece) {
                Ok(0) => ExecInput::Eof,
                Ok(length) => ExecInput::Data(piece[..length].to_vec()),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                // A closed standard input is an empty one.
                Err(_) => ExecInput::Eof,
            };
            let last = input == ExecInput::Eof;
            if to_command.blocking_send(input).is_err() || last {
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

/// Passes output and signals on until the command has ended.
async fn follow(
    reached: Reached,
    argv: Vec<String>,
    to_command: mpsc::Sender<ExecInput>,
    input: mpsc::Receiver<ExecInput>,
    mut signals: mpsc::Receiver<i32>,
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
    let ended = loop {
        tokio::select! {
            biased;
            Some(signal) = signals.recv() => {
                let to_command = to_command.clone();
                // Standard input may fill the channel: the signal waits for its place without holding the output up.
                tokio::spawn(async move { to_command.send(ExecInput::Signal(signal)).await });
            }
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
        Ok(Ok(ExecReply::Signalled(signal))) => {
            Ok(u8::try_from(signal).unwrap_or(0).saturating_add(128))
        }
        Ok(Err(error)) => Err(provider_failed("exec", &error, &reached)),
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
