//! What is kept of each sandbox on this machine: who it belongs to, its highest fence, what was done, and what is staged.
//!
//! Every call that changes something comes here first: under the lock of its sandbox's id, a destroyed id and a fence lower
//! than the highest that was seen are refused. What takes long is done outside that lock and published under it.

use alpine_files::{self as file, Flush, io_error};
use alpine_provider_api::*;
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::time::Instant;

/// How long the holders of an id's lock, who are quick, are waited for.
const PATIENCE: Duration = Duration::from_secs(20);

/// The directory of all records.
#[derive(Clone, Debug)]
pub(crate) struct Records {
    root: PathBuf,
}

/// The files of one sandbox.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    pub(crate) id: SandboxId,
    pub(crate) dir: PathBuf,
}

/// What was asked for when the sandbox was made: written first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Intent {
    pub(crate) version: u32,
    pub(crate) request: ProvisionRequest,
}

/// What the workspace was filled from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Filled {
    /// A commit of the repository.
    Commit(CommitId),
    /// A durable object, of so many entries.
    Object { id: String, entries: u64 },
}

/// A lock that is held while this lives.
#[derive(Debug)]
pub(crate) struct Guard(#[expect(dead_code, reason = "its descriptor holds the lock")] File);

impl Records {
    pub(crate) fn new(state: &Path) -> Self {
        Self {
            root: state.join("records"),
        }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn of(&self, id: &SandboxId) -> Record {
        Record {
            id: id.clone(),
            dir: self.root.join(id.as_str()),
        }
    }

    fn tombstone(&self, id: &SandboxId) -> PathBuf {
        self.root.join(".destroyed").join(id.as_str())
    }

    /// Takes the lock of an id.
    pub(crate) async fn lock(&self, id: &SandboxId) -> Result<Guard, ProviderError> {
        file::private_dir(&self.root.join(".destroyed"))?;
        let locks = self.root.join(".locks");
        file::private_dir(&locks)?;
        let shard = &blake3::hash(id.as_str().as_bytes()).to_hex()[..2];
        lock(&locks.join(shard), Some(PATIENCE)).await
    }

    /// Admits a call to a sandbox that has to be there.
    pub(crate) async fn admit(&self, id: &SandboxId, fence: u64) -> Result<Record, ProviderError> {
        self.publish(id, fence, |record| Ok(record.clone())).await
    }

    /// Does a quick step under the lock, if the caller was not overtaken.
    pub(crate) async fn publish<T>(
        &self,
        id: &SandboxId,
        fence: u64,
        step: impl FnOnce(&Record) -> Result<T, ProviderError>,
    ) -> Result<T, ProviderError> {
        let (record, _held) = self.held(id, fence).await?;
        step(&record)
    }

    /// The same for a step that waits for something: the lock is held until its guard is dropped.
    pub(crate) async fn held(
        &self,
        id: &SandboxId,
        fence: u64,
    ) -> Result<(Record, Guard), ProviderError> {
        if !file::is_dir(&self.root)? {
            return Err(self.unknown(id));
        }
        let guard = self.lock(id).await?;
        self.refuse_destroyed(id)?;
        let record = self.of(id);
        if !file::is_dir(&record.dir)? {
            return Err(self.unknown(id));
        }
        record.raise_fence(fence)?;
        Ok((record, guard))
    }

    /// A sandbox that has to be there, for a call that changes nothing a lease guards.
    pub(crate) fn there(&self, id: &SandboxId) -> Result<Record, ProviderError> {
        let record = self.of(id);
        match file::is_dir(&record.dir)? {
            true => Ok(record),
            false if self.is_destroyed(id)? => Err(gone(id)),
            false => Err(self.unknown(id)),
        }
    }

    pub(crate) fn refuse_destroyed(&self, id: &SandboxId) -> Result<(), ProviderError> {
        match self.is_destroyed(id)? {
            false => Ok(()),
            true => Err(ProviderError::new(
                ErrorKind::Destroyed,
                format!("sandbox `{id}` was destroyed"),
            )),
        }
    }

    pub(crate) fn is_destroyed(&self, id: &SandboxId) -> Result<bool, ProviderError> {
        let path = self.tombstone(id);
        match path.symlink_metadata() {
            Ok(_) => Ok(true),
            Err(source) if source.kind() == std::io::ErrorKind::NotFound => Ok(false),
            Err(source) => Err(io_error(&path, &source)),
        }
    }

    /// Remembers that an id was destroyed; the caller holds its lock.
    pub(crate) fn bury(&self, id: &SandboxId) -> Result<(), ProviderError> {
        file::write_alone(&self.tombstone(id), b"destroyed\n")
    }

    /// A sandbox of which nothing is known here proves nothing.
    fn unknown(&self, id: &SandboxId) -> ProviderError {
        let message = format!(
            "sandbox `{id}` was not made in `{}`; is `ALPINE_HOME` the one it was made in, and is its disk mounted?",
            self.root.display()
        );
        ProviderError::new(ErrorKind::Io, message)
    }
}

impl Record {
    pub(crate) fn intent(&self) -> PathBuf {
        self.dir.join("intent.json")
    }

    /// What was answered when it was made.
    pub(crate) fn made(&self) -> PathBuf {
        self.dir.join("made.json")
    }

    /// That a call stopped it, so that nothing starts it again.
    pub(crate) fn stopped(&self) -> PathBuf {
        self.dir.join("stopped.json")
    }

    pub(crate) fn filled(&self) -> PathBuf {
        self.dir.join("filled.json")
    }

    pub(crate) fn installed(&self) -> PathBuf {
        self.dir.join("installed.json")
    }

    /// What serves the session's address.
    pub(crate) fn agent(&self) -> PathBuf {
        self.dir.join("agent.json")
    }

    /// Transcripts of the agent, for the snapshot.
    pub(crate) fn transcript(&self) -> PathBuf {
        self.dir.join("transcript")
    }

    pub(crate) fn staged(&self) -> PathBuf {
        self.dir.join("staged")
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.dir.join("install.log")
    }

    /// The agent's log, of a sandbox that was stopped.
    pub(crate) fn agent_log(&self) -> PathBuf {
        self.dir.join("agent.log")
    }

    /// What is done by one process at a time, however long it takes.
    pub(crate) async fn alone(&self, what: &str) -> Result<Guard, ProviderError> {
        lock(&self.dir.join(format!("{what}.lock")), None).await
    }

    /// Refuses a fence lower than the highest seen, and remembers a higher one; the caller holds the lock.
    pub(crate) fn raise_fence(&self, fence: u64) -> Result<(), ProviderError> {
        let path = self.dir.join("fence");
        let text = file::read_small(&path, 64).map_err(|source| io_error(&path, &source))?;
        // Whoever made it empty was killed, or had no space, before anything was done under its fence.
        let seen = match text.filter(|text| !text.is_empty()) {
            None => 0,
            Some(text) => std::str::from_utf8(&text)
                .ok()
                .and_then(|text| text.trim().parse().ok())
                .ok_or_else(|| io_error(&path, &std::io::ErrorKind::InvalidData.into()))?,
        };
        if fence < seen {
            let id = &self.id;
            return Err(ProviderError::new(
                ErrorKind::Fenced,
                format!(
                    "fence {fence} of sandbox `{id}` is lower than {seen}, which was seen already"
                ),
            ));
        }
        if fence > seen {
            // In place and at its full width, so that a full disk does not keep a sandbox from being stopped.
            OpenOptions::new()
                .create(true)
                .truncate(false)
                .write(true)
                .mode(0o600)
                .open(&path)
                .and_then(|file| {
                    file.write_all_at(format!("{fence:020}\n").as_bytes(), 0)?;
                    file.sync_data()
                })
                .map_err(|source| io_error(&path, &source))?;
        }
        Ok(())
    }

    /// Replaces one of its files by a record, flushed to disk.
    pub(crate) fn write<T: Serialize>(&self, path: &Path, it: &T) -> Result<(), ProviderError> {
        file::write_json(path, it, Flush::Yes)
    }
}

/// A sandbox that is provably not there.
pub(crate) fn gone(id: &SandboxId) -> ProviderError {
    ProviderError::new(ErrorKind::NotFound, format!("there is no sandbox `{id}`"))
}

async fn lock(path: &Path, patience: Option<Duration>) -> Result<Guard, ProviderError> {
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(path)
        .map_err(|source| io_error(path, &source))?;
    let limit = patience.map(|patience| Instant::now() + patience);
    loop {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(Guard(file)),
            Err(rustix::io::Errno::WOULDBLOCK) if limit.is_none_or(|at| Instant::now() < at) => {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let message = format!("another process holds the lock `{}`", path.display());
                return Err(ProviderError::transient(ErrorKind::Io, message));
            }
            Err(source) => return Err(io_error(path, &source.into())),
        }
    }
}
