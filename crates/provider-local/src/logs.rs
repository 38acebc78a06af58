//! Reads logs.

use crate::file::io_error;
use crate::layout::Sandbox;
use crate::provider::{Local, blocking};
use crate::{record, shim};
use alpine_provider_api::{
    Call, CallEvent, LogName, LogsReply, LogsRequest, ProviderError, SandboxState,
};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

const CHUNK: usize = 64 * 1024;

/// Sends a log's parts in their order, and goes on with it while the sandbox runs, if that is asked for.
pub(crate) async fn logs(
    local: &Arc<Local>,
    call: &Call,
    request: LogsRequest,
) -> Result<LogsReply, ProviderError> {
    let sandbox = local.there(&request.sandbox_id)?;
    let (parts, newest) = open_parts(&sandbox, request.log)?;
    for part in parts {
        drain(call, part).await?;
    }
    let mut newest = newest;
    loop {
        let runs = request.follow && record::state(&local.home, &sandbox)? == SandboxState::Running;
        if let Some(part) = newest {
            newest = Some(drain(call, part).await?);
        }
        if !runs {
            return Ok(LogsReply {});
        }
        let next = open(&sandbox.log(request.log))?;
        match (&newest, next) {
            (Some(part), Some(next)) if !same(part, &next) => {
                // It was rotated: what came to the old part after it was read last goes first.
                let rest = part
                    .try_clone()
                    .map_err(|source| no_log(&sandbox, &source))?;
                drain(call, rest).await?;
                newest = Some(next);
                continue;
            }
            (None, Some(next)) => newest = Some(next),
            (Some(_) | None, _) => {}
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// The last lines of a log from a place on, without their times.
pub(crate) fn tail(sandbox: &Sandbox, log: LogName, from: u64, lines: usize) -> Vec<String> {
    let text = since(&sandbox.log(log), from).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let all: Vec<&str> = text.lines().collect();
    let last = all.len().saturating_sub(lines);
    all[last..]
        .iter()
        .map(|line| line.get(shim::STAMP..).unwrap_or(line).to_owned())
        .collect()
}

/// What a log's newest part holds from a place on, the last 256 KiB of it at most.
pub(crate) fn since(path: &Path, from: u64) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let size = file.metadata()?.len();
    // A part that is shorter than that place is a newer one.
    let from = if size < from { 0 } else { from };
    let from = from.max(size.saturating_sub(256 * 1024));
    file.seek(SeekFrom::Start(from))?;
    let mut text = Vec::new();
    file.take(size - from).read_to_end(&mut text)?;
    Ok(text)
}

/// The older parts, the oldest first, and the newest; those that are not there are left out.
fn open_parts(sandbox: &Sandbox, log: LogName) -> Result<(Vec<File>, Option<File>), ProviderError> {
    let paths = sandbox.log_parts(log);
    let Some((newest, older)) = paths.split_last() else {
        return Ok((Vec::new(), None));
    };
    // The newest is opened first: what is rotated meanwhile is then not missed but, at worst, met again by its inode.
    let newest = open(newest)?;
    let mut parts = Vec::new();
    for path in older {
        if let Some(part) = open(path)?
            && !newest.as_ref().is_some_and(|newest| same(newest, &part))
        {
            parts.push(part);
        }
    }
    Ok((parts, newest))
}

fn open(path: &Path) -> Result<Option<File>, ProviderError> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(source) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(io_error(path, &source)),
    }
}

fn same(one: &File, other: &File) -> bool {
    match (one.metadata(), other.metadata()) {
        (Ok(one), Ok(other)) => (one.dev(), one.ino()) == (other.dev(), other.ino()),
        (Ok(_) | Err(_), _) => false,
    }
}

/// Sends what is there from where the file was read last.
async fn drain(call: &Call, part: File) -> Result<File, ProviderError> {
    let mut part = part;
    loop {
        let (file, text) = blocking(move || {
            let mut text = vec![0; CHUNK];
            let got = part
                .read(&mut text)
                .map_err(|source| ProviderError::io("a log", &source))?;
            text.truncate(got);
            Ok((part, text))
        })
        .await?;
        part = file;
        if text.is_empty() {
            return Ok(part);
        }
        call.send(CallEvent::Stdout(text)).await?;
    }
}

fn no_log(sandbox: &Sandbox, source: &io::Error) -> ProviderError {
    ProviderError::io(format!("a log of sandbox `{}`", sandbox.id), source)
}
