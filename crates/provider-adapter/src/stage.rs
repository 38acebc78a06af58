//! Stages the workspace as a snapshot on this machine.

use crate::pipe::{PIECES, PieceReader};
use crate::provider::Adapted;
use crate::record::Record;
use crate::run::{Sink, blocking, listen};
use crate::sandboxes::{Sandboxes, Storage};
use alpine_files::{self as file, random_u32};
use alpine_provider_api::*;
use alpine_snapshot::{Beside, SnapshotError};
use serde::{Deserialize, Serialize};
use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::mpsc;

/// The name of the workspace in a snapshot.
pub(crate) const ROOT: &str = "workspace";

/// Names what no tar stream holds.
const SOCKETS: &str = "find . -type s | head -n 1000";

/// The snapshot that is staged. A newer one takes its place when it is whole; until then it stays.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Staged {
    /// Which attempt to persist it is for; none before there is one.
    pub(crate) generation: Option<u64>,
    pub(crate) snapshot: StagedSnapshot,
}

impl Record {
    fn staged_record(&self) -> PathBuf {
        self.staged().join("staged.json")
    }

    pub(crate) fn staged_file(&self, staging_id: &str) -> Result<PathBuf, ProviderError> {
        match SandboxId::new(staging_id) {
            Some(name) => Ok(self.staged().join(format!("{name}.tar.zst"))),
            None => Err(ProviderError::new(
                ErrorKind::InvalidArgument,
                "the staging id is malformed",
            )),
        }
    }

    /// What is staged, if anything ever was.
    pub(crate) fn read_staged(&self) -> Result<Option<Staged>, ProviderError> {
        file::read_json(&self.staged_record())
    }

    /// The agent's transcripts, as they are kept in a snapshot.
    fn transcripts(&self) -> Result<Vec<Beside>, ProviderError> {
        let directory = self.transcript();
        if !file::is_dir(&directory)? {
            return Ok(Vec::new());
        }
        let failed = |source| file::io_error(&directory, &source);
        let mut all = Vec::new();
        for entry in std::fs::read_dir(&directory).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            all.push(Beside {
                name: format!("transcript/agent/{}", entry.file_name().to_string_lossy()),
                path: entry.path(),
            });
        }
        Ok(all)
    }

    pub(crate) fn write_staged(&self, staged: &Staged) -> Result<(), ProviderError> {
        self.write(&self.staged_record(), staged)?;
        let kept = format!("{}.tar.zst", staged.snapshot.staging_id);
        for entry in std::fs::read_dir(self.staged())
            .into_iter()
            .flatten()
            .flatten()
        {
            let name = entry.file_name();
            if name != kept.as_str() && name != "staged.json" {
                // What can't be removed now goes with the sandbox.
                let _ = std::fs::remove_file(entry.path());
            }
        }
        Ok(())
    }
}

impl<S: Sandboxes> Adapted<S> {
    /// What is staged, if every byte of it is as it was.
    pub(crate) async fn whole(
        &self,
        call: &Call,
        record: &Record,
    ) -> Result<Option<Staged>, ProviderError> {
        let Some(staged) = record.read_staged()? else {
            return Ok(None);
        };
        let path = record.staged_file(&staged.snapshot.staging_id)?;
        let read = Arc::new(AtomicU64::new(0));
        let seen = Arc::clone(&read);
        let work = blocking(move || {
            let mut tell = |done| seen.store(done, Ordering::Relaxed);
            let found = alpine_snapshot::verify(&path, &mut tell);
            let is_whole = found.is_ok_and(|found| {
                (&found.digest, found.size) == (&staged.snapshot.digest, staged.snapshot.size)
            });
            Ok(is_whole.then_some(staged))
        });
        call.watched("checking the staged snapshot", &read, work)
            .await
    }

    /// Takes the workspace out and stages it, in the place of what was staged before.
    pub(crate) async fn stage(
        &self,
        call: &Call,
        record: &Record,
        generation: Option<u64>,
    ) -> Result<StagedSnapshot, ProviderError> {
        let staging_id = format!("{:08x}{:08x}", random_u32(), random_u32());
        let path = record.staged_file(&staging_id)?;
        file::private_dir(&record.staged())?;
        let sockets = match self.sandboxes.facts().storage {
            // Without `find`, it is not told that a socket, which holds nothing, is not kept.
            Storage::WhileRunning => self.ask(call, &record.id, SOCKETS, &[]).await,
            Storage::WhenStopped => Ok(Vec::new()),
        };
        let sockets = sockets.unwrap_or_default();
        let captured = self.take_out(call, record, path.clone()).await;
        let published = match captured {
            Ok(captured) => {
                let left_out = captured.left_out.into_iter().map(|left| LeftOut {
                    path: left.path,
                    reason: left.reason,
                });
                let snapshot = StagedSnapshot {
                    staging_id,
                    digest: captured.digest,
                    size: captured.size,
                    entries: captured.entries,
                    left_out: left_out.chain(told(&sockets)).collect(),
                };
                let staged = Staged {
                    generation,
                    snapshot: snapshot.clone(),
                };
                let publish = |record: &Record| record.write_staged(&staged);
                self.records
                    .publish(&record.id, call.meta.fence, publish)
                    .await
                    .map(|()| snapshot)
            }
            Err(error) => Err(error),
        };
        if published.is_err() {
            // Nothing tells of it: it would only take space.
            let _ = std::fs::remove_file(&path);
        }
        published
    }

    /// Streams the workspace to a file. It is whole only if the sandbox's side says so too.
    async fn take_out(
        &self,
        call: &Call,
        record: &Record,
        path: PathBuf,
    ) -> Result<alpine_snapshot::Captured, ProviderError> {
        let (pieces, from) = mpsc::channel(PIECES);
        let read = Arc::new(AtomicU64::new(0));
        let seen = Arc::clone(&read);
        let (id, beside) = (&record.id, record.transcripts()?);
        let writing = blocking(move || {
            let mut tell = |done| seen.store(done, Ordering::Relaxed);
            alpine_snapshot::from_tar(PieceReader::new(from), ROOT, &beside, &path, &mut tell)
                .map_err(|source| failed(&source))
        });
        let taking = async {
            let mut sink = Sink::Pieces(pieces);
            let work = |call: Call| async move { self.sandboxes.take_out(&call, id).await };
            listen(call, work, &mut sink).await
        };
        let both = async {
            match tokio::join!(taking, writing) {
                (Ok(_), written) => written,
                // What stopped the writing is why the taking was stopped.
                (Err(error), Err(why)) if error.kind == ErrorKind::Cancelled => Err(why),
                (Err(error), _) => Err(error),
            }
        };
        call.watched("capturing the workspace", &read, both).await
    }
}

fn told(sockets: &[u8]) -> Vec<LeftOut> {
    String::from_utf8_lossy(sockets)
        .lines()
        .map(|line| LeftOut {
            path: format!("{ROOT}/{}", line.trim_start_matches("./")),
            reason: "a socket can't be kept".to_owned(),
        })
        .collect()
}

pub(crate) fn failed(source: &SnapshotError) -> ProviderError {
    let kind = match source {
        SnapshotError::Missing { .. } => ErrorKind::WorkspaceLost,
        SnapshotError::Damaged { .. } => ErrorKind::Corrupt,
        SnapshotError::Io { .. } | SnapshotError::Read { .. } if source.is_full() => {
            ErrorKind::NoSpace
        }
        SnapshotError::Io { .. } | SnapshotError::Read { .. } => ErrorKind::Io,
        SnapshotError::NotEmpty { .. } | SnapshotError::Name { .. } => ErrorKind::Internal,
    };
    let message = match source.source() {
        Some(cause) => format!("{source}: {cause}"),
        None => source.to_string(),
    };
    ProviderError::new(kind, message)
}
