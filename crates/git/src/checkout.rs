//! Makes a workspace beside its place, and puts it there when it is whole.

use crate::child::{Invocation, run};
use crate::classify::{Doing, classify};
use crate::environment::Environment;
use crate::git::{GitConfig, Progress};
use crate::mirror::{Held, Mirror};
use crate::skeleton::{self, Origin};
use alpine_provider_api::{BranchName, CommitId, ErrorKind, GitCredential, ProviderError, RepoUrl};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Everything that one checkout needs.
pub(crate) struct Checkout<'a> {
    pub(crate) config: &'a GitConfig,
    pub(crate) repo: &'a RepoUrl,
    pub(crate) branch: &'a BranchName,
    pub(crate) commit: &'a CommitId,
    pub(crate) credential: Option<&'a GitCredential>,
    pub(crate) progress: Progress<'a>,
}

impl Checkout<'_> {
    /// Fills `into`.
    pub(crate) async fn run(&self, into: &Path) -> Result<(), ProviderError> {
        let place = Place::of(into)?;
        blocking({
            let place = place.clone();
            move || place.sweep()
        })
        .await
        .map_err(|error| place.failed("can't clear the leftovers beside", &error))?;
        let tree = self.whole(&place).await?;
        let into = place.into.clone();
        blocking(move || tree.publish(&into))
            .await
            .map_err(|error| place.failed("can't put the workspace at", &error))
    }

    /// A tree that is whole, from a mirror that may have to be made anew.
    async fn whole(&self, place: &Place) -> Result<Tree, ProviderError> {
        let mirror = Mirror::new(self.config, self.repo, self.credential, self.commit);
        let held = mirror
            .obtain(self.branch, self.commit, self.progress)
            .await?;
        let seen = held.seen();
        let error = match self.tree(place, held).await {
            Err(error) if error.kind == ErrorKind::Io => error,
            done => return done,
        };
        // What git can't read here it fetched whole once: the mirror is damaged.
        tracing::warn!(%error, repo = %self.repo, "the mirror is made anew");
        mirror.quarantine(seen).await?;
        let held = mirror
            .obtain(self.branch, self.commit, self.progress)
            .await?;
        self.tree(place, held).await
    }

    async fn tree(&self, place: &Place, held: Held) -> Result<Tree, ProviderError> {
        let tree = place.tree();
        let git_dir = tree.path().join(".git");
        let origin = Origin {
            repo: self.repo.clone(),
            branch: self.branch.clone(),
            commit: self.commit.clone(),
        };
        blocking({
            let git_dir = git_dir.clone();
            move || skeleton::session(&git_dir, &held.path, &origin)
        })
        .await
        .map_err(|error| place.failed("can't make a repository beside", &error))?;
        skeleton::told(self.progress);
        let environment =
            Environment::offline(self.config).in_repository(&git_dir, Some(tree.path()));
        let asked = Invocation::new(&environment).args([
            "read-tree",
            "-v",
            "-m",
            "-u",
            self.commit.as_str(),
        ]);
        let ended = run(asked, Some(self.progress)).await?;
        if ended.code == Some(0) {
            Ok(tree)
        } else {
            Err(classify(&Doing::Workspace { path: &place.into }, &ended))
        }
    }
}

/// Where the workspace goes, and the names beside it that are ours.
#[derive(Clone, Debug)]
struct Place {
    into: PathBuf,
    parent: PathBuf,
    prefix: String,
}

impl Place {
    fn of(into: &Path) -> Result<Self, ProviderError> {
        let named = into.file_name().and_then(|name| name.to_str());
        let (Some(name), Some(parent)) = (named, into.parent()) else {
            return Err(ProviderError::new(
                ErrorKind::InvalidArgument,
                format!("`{}` can't be a workspace", into.display()),
            ));
        };
        Ok(Self {
            into: into.to_owned(),
            parent: parent.to_owned(),
            prefix: format!(".{name}.checkout-"),
        })
    }

    /// A name for a tree that nobody else has.
    fn tree(&self) -> Tree {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{}{}-{number}", self.prefix, std::process::id());
        Tree(Some(self.parent.join(name)))
    }

    /// Removes what checkouts left that were killed. Only processes that are gone leave something.
    fn sweep(&self) -> io::Result<()> {
        std::fs::create_dir_all(&self.parent)?;
        for entry in std::fs::read_dir(&self.parent)? {
            let entry = entry?;
            let name = entry.file_name();
            let rest = name
                .to_str()
                .and_then(|name| name.strip_prefix(&self.prefix));
            let process = rest.and_then(|rest| rest.split('-').next());
            if let Some(process) = process
                && !Path::new("/proc").join(process).exists()
            {
                std::fs::remove_dir_all(entry.path())?;
            }
        }
        Ok(())
    }

    fn failed(&self, what: &str, error: &io::Error) -> ProviderError {
        ProviderError::io(format!("{what} `{}`", self.into.display()), error)
    }
}

/// A tree under a name of its own. It goes when it is dropped.
#[derive(Debug)]
struct Tree(Option<PathBuf>);

impl Tree {
    fn path(&self) -> &Path {
        self.0.as_deref().unwrap_or(Path::new(""))
    }

    /// Puts the tree at its place; what was there goes.
    fn publish(mut self, into: &Path) -> io::Result<()> {
        let moved = renameat_with(CWD, self.path(), CWD, into, RenameFlags::NOREPLACE);
        if let Err(error) = moved {
            if error != rustix::io::Errno::EXIST {
                return Err(error.into());
            }
            renameat_with(CWD, self.path(), CWD, into, RenameFlags::EXCHANGE)?;
            // What was there has the tree's name now, and goes when this is dropped.
            return Ok(());
        }
        self.0 = None;
        Ok(())
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        if let Some(path) = &self.0
            && let Err(error) = std::fs::remove_dir_all(path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(%error, path = %path.display(), "a half-made workspace is left");
        }
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(io::Error::other(error)))
}
