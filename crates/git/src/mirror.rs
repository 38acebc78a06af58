//! A bare mirror per address: what was fetched once is not fetched again.
//!
//! One process at a time fetches into a mirror (`flock`); several may read it. No collection of garbage ever runs in it, so
//! that what a reader found stays. A mirror that git can't read is set aside, and the next fetch begins anew.

use crate::asking::Asking;
use crate::child::{Ended, Invocation, run};
use crate::classify::{Doing, classify, damaged, is_damaged, is_missing};
use crate::environment::Environment;
use crate::git::{GitConfig, Progress};
use crate::skeleton;
use alpine_provider_api::{BranchName, CommitId, ErrorKind, GitCredential, ProviderError, RepoUrl};
use rustix::fs::{FlockOperation, flock};
use std::fs::File;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

const LOCK_POLL: Duration = Duration::from_millis(10);

/// A mirror that may or may not be there yet.
#[derive(Debug)]
pub(crate) struct Mirror<'a> {
    pub(crate) config: &'a GitConfig,
    pub(crate) repo: &'a RepoUrl,
    pub(crate) credential: Option<&'a GitCredential>,
    name: String,
}

/// A mirror that holds the commit for as long as this lives.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) path: PathBuf,
    inode: u64,
    _lock: File,
}

/// Which mirror it was, after its lock is gone.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen(u64);

impl Held {
    pub(crate) fn seen(&self) -> Seen {
        Seen(self.inode)
    }
}

enum Presence {
    Whole,
    Missing,
    Damaged,
}

impl<'a> Mirror<'a> {
    pub(crate) fn new(
        config: &'a GitConfig,
        repo: &'a RepoUrl,
        credential: Option<&'a GitCredential>,
        commit: &CommitId,
    ) -> Self {
        // A repository has one kind of ids: a source that was made anew with the other kind gets a mirror of its own.
        let kind = if skeleton::is_sha256(commit) {
            "-256"
        } else {
            ""
        };
        let name = format!("{}{kind}", blake3::hash(repo.as_str().as_bytes()).to_hex());
        Self {
            config,
            repo,
            credential,
            name,
        }
    }

    /// The mirror with the commit in it; without network if it is there already.
    pub(crate) async fn obtain(
        &self,
        branch: &BranchName,
        commit: &CommitId,
        progress: Progress<'_>,
    ) -> Result<Held, ProviderError> {
        self.prepare()?;
        let lock = self.lock(FlockOperation::NonBlockingLockShared).await?;
        if let Presence::Whole = self.presence(commit).await? {
            return self.held(lock);
        }
        drop(lock);
        let lock = self.lock(FlockOperation::NonBlockingLockExclusive).await?;
        match self.presence(commit).await? {
            Presence::Whole => return self.held(lock),
            Presence::Missing => {}
            Presence::Damaged => self.set_aside()?,
        }
        let used = self.path().join("HEAD").exists();
        match self.fetch(branch, commit, progress).await {
            Err(error) if used && error.kind == ErrorKind::Io => {
                tracing::warn!(%error, repo = %self.repo, "the mirror is made anew");
                self.set_aside()?;
                self.fetch(branch, commit, progress).await?;
            }
            fetched => fetched?,
        }
        self.held(lock)
    }

    /// Sets the mirror aside that a caller found damaged, unless it has been made anew since.
    pub(crate) async fn quarantine(&self, seen: Seen) -> Result<(), ProviderError> {
        let _lock = self.lock(FlockOperation::NonBlockingLockExclusive).await?;
        match self.inode() {
            Ok(inode) if inode == seen.0 => self.set_aside(),
            Ok(_) | Err(_) => Ok(()),
        }
    }

    fn path(&self) -> PathBuf {
        self.mirrors().join(&self.name)
    }

    fn mirrors(&self) -> PathBuf {
        self.config.cache.join("mirrors")
    }

    fn prepare(&self) -> Result<(), ProviderError> {
        let path = self.mirrors();
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&path)
            .map_err(|error| ProviderError::io(format!("can't make `{}`", path.display()), &error))
    }

    async fn lock(&self, operation: FlockOperation) -> Result<File, ProviderError> {
        let path = self.mirrors().join(format!("{}.lock", self.name));
        let failed = |error: std::io::Error| {
            ProviderError::io(format!("can't lock `{}`", path.display()), &error)
        };
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path)
            .map_err(failed)?;
        loop {
            match flock(&file, operation) {
                Ok(()) => return Ok(file),
                Err(rustix::io::Errno::WOULDBLOCK | rustix::io::Errno::INTR) => {
                    tokio::time::sleep(LOCK_POLL).await;
                }
                Err(error) => return Err(failed(error.into())),
            }
        }
    }

    fn held(&self, lock: File) -> Result<Held, ProviderError> {
        let path = self.path();
        let inode = self.inode().map_err(|error| {
            ProviderError::io(format!("can't read `{}`", path.display()), &error)
        })?;
        Ok(Held {
            path,
            inode,
            _lock: lock,
        })
    }

    fn inode(&self) -> std::io::Result<u64> {
        Ok(std::fs::symlink_metadata(self.path())?.ino())
    }

    async fn presence(&self, commit: &CommitId) -> Result<Presence, ProviderError> {
        if !self.path().join("HEAD").exists() {
            return Ok(Presence::Missing);
        }
        let environment = Environment::offline(self.config).in_repository(&self.path(), None);
        let asked = Invocation::new(&environment)
            .args(["cat-file", "-e"])
            .arg(format!("{commit}^{{commit}}"));
        let ended = run(asked, None).await?;
        let damaged =
            |line: &String| line.starts_with("error:") || line.contains("not a git repository");
        Ok(match ended.code {
            Some(0) => Presence::Whole,
            Some(_) if ended.stderr.iter().any(damaged) => Presence::Damaged,
            Some(_) | None => Presence::Missing,
        })
    }

    /// Fetches the branch, and the commit by its id if the branch has left it behind.
    async fn fetch(
        &self,
        branch: &BranchName,
        commit: &CommitId,
        progress: Progress<'_>,
    ) -> Result<(), ProviderError> {
        self.make(commit)?;
        // The ref tells the next fetch what is here already. Its name is a digest, since a branch `a` and a later branch
        // `a/b` can't both be files.
        let digest = blake3::hash(branch.as_str().as_bytes()).to_hex();
        let refspec = format!("+refs/heads/{branch}:refs/alpine/branch/{}", &digest[..32]);
        self.fetch_one(&refspec, progress).await?;
        if let Presence::Whole = self.presence(commit).await? {
            return Ok(());
        }
        let found = self.fetch_one(commit.as_str(), progress).await?;
        match (found, self.presence(commit).await?) {
            (_, Presence::Whole) => Ok(()),
            (_, Presence::Missing | Presence::Damaged) => Err(ProviderError::new(
                ErrorKind::CommitNotFound,
                format!(
                    "`{}` no longer has the commit `{commit}`; the branch may have moved on",
                    self.repo
                ),
            )),
        }
    }

    /// Fetches one thing; false if the remote does not have it.
    async fn fetch_one(&self, what: &str, progress: Progress<'_>) -> Result<bool, ProviderError> {
        let asking = Asking {
            config: self.config,
            repo: self.repo,
            credential: self.credential,
        };
        let arguments = [
            "fetch",
            "--progress",
            "--no-tags",
            "--no-auto-gc",
            "--no-write-fetch-head",
            "--no-recurse-submodules",
            "--update-shallow",
            "--",
            self.repo.as_str(),
            what,
        ];
        let ended = asking
            .run(Some(&self.path()), &arguments, Some(progress))
            .await?;
        self.judge(&ended, what.starts_with('+'))
    }

    fn judge(&self, ended: &Ended, is_branch: bool) -> Result<bool, ProviderError> {
        if ended.code == Some(0) {
            return Ok(true);
        }
        if is_damaged(self.repo, ended, is_branch) {
            return Err(damaged(self.repo, ended));
        }
        if is_missing(ended) {
            return Ok(false);
        }
        let doing = Doing::Remote {
            repo: self.repo,
            credential: self.credential,
        };
        Err(classify(&doing, ended))
    }

    /// Makes the empty mirror, unless one is there. `HEAD` comes last: without it, it is none.
    fn make(&self, commit: &CommitId) -> Result<(), ProviderError> {
        let path = self.path();
        if path.join("HEAD").exists() {
            return Ok(());
        }
        let made = remove(&path).and_then(|()| skeleton::bare(&path, commit));
        made.map_err(|error| ProviderError::io(format!("can't make `{}`", path.display()), &error))
    }

    /// Puts the mirror out of the way; the latest damaged one is kept to be looked at.
    fn set_aside(&self) -> Result<(), ProviderError> {
        let path = self.path();
        let aside = self.mirrors().join(format!("{}.damaged", self.name));
        let moved = remove(&aside).and_then(|()| std::fs::rename(&path, &aside));
        moved.map_err(|error| {
            ProviderError::io(format!("can't set `{}` aside", path.display()), &error)
        })
    }
}

fn remove(path: &Path) -> std::io::Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}
