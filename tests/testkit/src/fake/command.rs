//! The commands that the fake knows, run in this process, and its logs.

use super::process;
use super::store::{Run, Store};
use super::work::{Reply, not_found};
use alpine_provider_api::{
    Call, CallEvent, ErrorKind, ExecInput, ExecReply, ExecRequest, LogName, LogsReply, LogsRequest,
    ProviderError,
};
use std::fs;
use std::path::Path;
use std::time::Duration;
use tokio::sync::mpsc;

const POLL: Duration = Duration::from_millis(5);

/// `echo`, `env`, `cat`, `write FILE TEXT`, `true`, `false`, `exit N`, `sleep SECONDS`.
pub(super) async fn run(
    call: &Call,
    request: &ExecRequest,
    mut input: mpsc::Receiver<ExecInput>,
    workspace: &Path,
    store: &Store,
) -> Reply<ExecReply> {
    let words: Vec<&str> = request.argv.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["echo", rest @ ..] => {
            out(call, format!("{}\n", rest.join(" "))).await?;
            Ok(ExecReply::Exited(0))
        }
        ["env"] => {
            for (name, value) in &request.env {
                out(call, format!("{name}={}\n", value.expose())).await?;
            }
            Ok(ExecReply::Exited(0))
        }
        ["cat"] => pass_on(call, &mut input).await,
        ["cat", files @ ..] => show(call, workspace, files).await,
        ["write", file, text] => {
            let path = workspace.join(file);
            fs::write(&path, text).map_err(|error| ProviderError::io(path.display(), &error))?;
            Ok(ExecReply::Exited(0))
        }
        ["true"] => Ok(ExecReply::Exited(0)),
        ["false"] => Ok(ExecReply::Exited(1)),
        ["exit", status] => Ok(ExecReply::Exited(status.parse().unwrap_or(2))),
        ["sleep", seconds] => {
            let seconds = seconds.parse().unwrap_or(0.0);
            tokio::select! {
                () = tokio::time::sleep(Duration::from_secs_f64(seconds)) => Ok(ExecReply::Exited(0)),
                signal = signal(&mut input) => Ok(ExecReply::Signalled(signal)),
            }
        }
        [program, ..] if !program.is_empty() && store.lock().is_real() => {
            process::run(call, request, input, workspace).await
        }
        _ => Err(ProviderError::new(
            ErrorKind::InvalidArgument,
            format!("the fake has no program `{}`", words.first().unwrap_or(&"")),
        )),
    }
}

async fn out(call: &Call, text: impl Into<Vec<u8>>) -> Reply<()> {
    call.send(CallEvent::Stdout(text.into())).await
}

async fn pass_on(call: &Call, input: &mut mpsc::Receiver<ExecInput>) -> Reply<ExecReply> {
    while let Some(piece) = input.recv().await {
        match piece {
            ExecInput::Data(bytes) => out(call, bytes).await?,
            ExecInput::Eof => break,
            ExecInput::Signal(signal) => return Ok(ExecReply::Signalled(signal)),
        }
    }
    Ok(ExecReply::Exited(0))
}

async fn show(call: &Call, workspace: &Path, files: &[&str]) -> Reply<ExecReply> {
    let mut status = 0;
    for file in files {
        match fs::read(workspace.join(file)) {
            Ok(bytes) => out(call, bytes).await?,
            Err(error) => {
                status = 1;
                let text = format!("cat: {file}: {error}\n");
                call.send(CallEvent::Stderr(text.into_bytes())).await?;
            }
        }
    }
    Ok(ExecReply::Exited(status))
}

async fn signal(input: &mut mpsc::Receiver<ExecInput>) -> i32 {
    loop {
        match input.recv().await {
            Some(ExecInput::Signal(signal)) => return signal,
            Some(ExecInput::Data(_) | ExecInput::Eof) => {}
            None => std::future::pending().await,
        }
    }
}

/// Sends a log, and goes on as it grows when that is asked for.
pub(super) async fn logs(call: &Call, request: &LogsRequest, store: &Store) -> Reply<LogsReply> {
    let id = request.sandbox_id.as_str();
    let name = match request.log {
        LogName::Install => "install",
        LogName::Agent => "agent",
    };
    let mut sent = 0;
    loop {
        let (text, runs) = {
            let store = store.lock();
            let sandbox = store.sandbox(id);
            let runs = sandbox.as_ref().map(|sandbox| sandbox.run == Run::Running);
            (fs::read(store.log(id, name)).unwrap_or_default(), runs)
        };
        if runs.is_none() && sent == 0 {
            return Err(not_found(&request.sandbox_id));
        }
        if text.len() > sent {
            out(call, &text[sent..]).await?;
            sent = text.len();
        }
        if !request.follow || runs != Some(true) {
            return Ok(LogsReply {});
        }
        tokio::time::sleep(POLL).await;
    }
}
