//! `logs`: what the install step or the agent printed.

use crate::args::{LogStep, LogsArgs};
use crate::output::LogWriter;
use crate::work::{Reached, Work, drive, provider_failed, runtime};
use alpine_lifecycle::{ErrorCode, Failure};
use alpine_provider_api::{Call, CallEvent, ErrorKind, LogName, LogsRequest, ProviderError};
use tokio::sync::mpsc;

pub(crate) fn run(work: &Work, args: &LogsArgs) -> Result<u8, Failure> {
    let config = work.config()?;
    let reached = work.reach(&config, &args.session, "logs")?;
    let session = &reached.session;
    if session.state.is_terminal() && !session.destroy_pending {
        // Not every provider knows a sandbox that is no more; one that was imported never was.
        reached
            .ready()
            .map_err(|failure| without(failure, &reached))?;
    }
    let log = match args.step {
        Some(LogStep::Install) => LogName::Install,
        Some(LogStep::Agent) => LogName::Agent,
        None if reached.session.agent_started => LogName::Agent,
        None => LogName::Install,
    };
    let request = LogsRequest {
        sandbox_id: reached.sandbox_id.clone(),
        log,
        follow: args.follow,
    };
    drive(
        runtime()?,
        show(reached, request, LogWriter::new(&work.output, args.follow)),
    )?;
    Ok(0)
}

async fn show(
    reached: Reached,
    request: LogsRequest,
    mut writer: LogWriter,
) -> Result<(), Failure> {
    let (sender, mut events) = mpsc::channel(64);
    let call = Call::new(reached.meta(None), sender);
    let provider = reached.provider.clone();
    let mut task = tokio::spawn(async move { provider.logs(&call, request).await });
    let ended = loop {
        tokio::select! {
            biased;
            Some(event) = events.recv() => if !take(&mut writer, event) {
                task.abort();
                return Ok(());
            },
            ended = &mut task => break ended,
        }
    };
    while let Ok(event) = events.try_recv() {
        take(&mut writer, event);
    }
    writer.finish(matches!(ended, Ok(Ok(_))));
    match ended {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(failed(&error, &reached)),
        Err(died) => Err(reached.panicked(&died)),
    }
}

fn failed(error: &ProviderError, reached: &Reached) -> Failure {
    let gone = matches!(error.kind, ErrorKind::NotFound | ErrorKind::Destroyed);
    match reached.ready() {
        Err(failure) if gone => without(failure, reached),
        Ok(()) | Err(_) => provider_failed("logs", error, reached),
    }
}

/// A session that has no sandbox any more is told as `open` and `exec` tell it.
fn without(mut failure: Failure, reached: &Reached) -> Failure {
    failure
        .cause
        .push_str(", and without its sandbox there are no logs");
    let last = reached.session.last_error.as_ref();
    if last.is_some_and(|last| last.error_code == ErrorCode::InstallFailed.as_str()) {
        let told = "; `alpine status` shows the last lines of the install step";
        failure.cause.push_str(told);
    }
    failure
}

/// Takes a piece of the log. Whether somebody still reads it.
fn take(writer: &mut LogWriter, event: CallEvent) -> bool {
    match event {
        CallEvent::Stdout(bytes) | CallEvent::Stderr(bytes) => writer.push(&bytes),
        CallEvent::Progress { .. } | CallEvent::Warning(_) => true,
    }
}
