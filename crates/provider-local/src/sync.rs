//! Brings the repository into the workspace.

use crate::file::{self, Flush, io_error};
use crate::intent::{self, Purpose};
use crate::layout::Sandbox;
use crate::provider::{Local, blocking};
use crate::record::FilledRecord;
use crate::tree;
use alpine_provider_api::{
    Call, CommitId, ErrorKind, ProviderError, SyncRepoReply, SyncRepoRequest,
};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Checks the commit out beside the workspace and puts it in its place in one step.
pub(crate) async fn sync_repo(
    local: &Arc<Local>,
    call: &Call,
    request: SyncRepoRequest,
) -> Result<SyncRepoReply, ProviderError> {
    let sandbox = local
        .admit(&request.sandbox_id, call.meta.fence, Purpose::Use)
        .await?;
    let commit = request.commit.clone();
    let (there, incoming) = {
        let sandbox = sandbox.clone();
        blocking(move || {
            let there = already(&sandbox, &commit)?;
            Ok((there, incoming(&sandbox)?))
        })
        .await?
    };
    if let Some(head) = there {
        return Ok(SyncRepoReply { head });
    }
    let progress = |done, total| call.progress("fetching the repository", done, total);
    let head = local
        .git
        .checkout(
            &request.repo,
            &request.branch,
            &request.commit,
            request.credential.as_ref(),
            &incoming,
            &progress,
        )
        .await?;
    for warning in alpine_git::left_out(&incoming) {
        call.warn(warning);
    }
    let filled = FilledRecord::Commit(request.commit);
    fill(local, &sandbox, call.meta.fence, incoming, None, filled).await?;
    Ok(SyncRepoReply { head })
}

/// What HEAD is, if the workspace was filled from this commit before: what was done in it since is left alone.
fn already(sandbox: &Sandbox, commit: &CommitId) -> Result<Option<CommitId>, ProviderError> {
    let workspace = sandbox.workspace();
    let head = match workspace.join(".git").symlink_metadata() {
        Ok(_) => alpine_git::head(&workspace)?,
        Err(_) => None,
    };
    let filled: Option<FilledRecord> = file::read_json(&sandbox.filled())?;
    match filled {
        Some(FilledRecord::Commit(from)) if from == *commit => match head {
            Some(head) => Ok(Some(head)),
            None => Err(other(sandbox, "its HEAD can't be read any more")),
        },
        Some(FilledRecord::Commit(from)) => Err(other(
            sandbox,
            &format!("it was filled from commit `{from}`"),
        )),
        Some(FilledRecord::Object { id, .. }) => {
            Err(other(sandbox, &format!("it was filled from object `{id}`")))
        }
        // It was put in its place in one step, so it is whole.
        None => Ok(head.filter(|head| head == commit)),
    }
}

fn other(sandbox: &Sandbox, why: &str) -> ProviderError {
    let message = format!("the workspace of sandbox `{}` is in use: {why}", sandbox.id);
    ProviderError::new(ErrorKind::Conflict, message)
}

/// A new name beside the workspace; what earlier tries left is removed.
pub(crate) fn incoming(sandbox: &Sandbox) -> Result<PathBuf, ProviderError> {
    let entries =
        std::fs::read_dir(&sandbox.dir).map_err(|source| io_error(&sandbox.dir, &source))?;
    for entry in entries.flatten() {
        if entry
            .file_name()
            .as_encoded_bytes()
            .starts_with(b".incoming-")
        {
            // A try whose caller has gone may be writing there just now; what stays of it goes with the sandbox.
            let _ = tree::remove_tree(&entry.path());
        }
    }
    let name = format!(".incoming-{:08x}", file::random_u32());
    Ok(sandbox.dir.join(name))
}

/// Puts what came in the workspace's and the transcript's place, if the caller was not overtaken.
pub(crate) async fn fill(
    local: &Arc<Local>,
    sandbox: &Sandbox,
    fence: u64,
    incoming: PathBuf,
    transcript: Option<PathBuf>,
    filled: FilledRecord,
) -> Result<(), ProviderError> {
    let (local, sandbox) = (Arc::clone(local), sandbox.clone());
    blocking(move || {
        intent::publish(&local.home, &sandbox, fence, Purpose::Use, || {
            if let Some(transcript) = transcript.filter(|transcript| transcript.is_dir()) {
                swap(&transcript, &sandbox.transcript())?;
            }
            swap(&incoming, &sandbox.workspace())?;
            match std::fs::remove_file(sandbox.installed()) {
                Ok(()) => {}
                Err(source) if source.kind() == std::io::ErrorKind::NotFound => {}
                Err(source) => return Err(io_error(&sandbox.installed(), &source)),
            }
            file::write_json(&sandbox.filled(), &filled, Flush::Yes)
        })
    })
    .await
}

/// An empty directory is replaced by the rename itself; a partial one goes first.
fn swap(from: &Path, to: &Path) -> Result<(), ProviderError> {
    let failed = |source: std::io::Error| io_error(to, &source);
    match std::fs::rename(from, to) {
        Err(source) if source.kind() == std::io::ErrorKind::DirectoryNotEmpty => {
            tree::remove_tree(to)?;
            std::fs::rename(from, to).map_err(failed)
        }
        renamed => renamed.map_err(failed),
    }
}
