//! What callers ask for: a branch's tip, and a workspace at a commit.

use crate::asking::Asking;
use crate::checkout::Checkout;
use crate::classify::{Doing, classify};
use crate::environment::prepare_home;
use alpine_provider_api::{
    BranchName, CommitId, ErrorKind, GitCredential, ProviderError, Redactor, RepoUrl,
};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

/// Where git's things are, and what it may know.
#[derive(Clone)]
pub struct GitConfig {
    /// The directory of the mirrors.
    pub cache: PathBuf,
    /// The `PATH` in which git and ssh are found.
    pub path: OsString,
    /// The user's home, whose git configuration says which repositories of other owners are safe.
    pub home: Option<PathBuf>,
    /// Variables that git gets beside its own: proxies, certificates.
    pub extra_env: BTreeMap<String, String>,
    /// Takes secrets out of what git says.
    pub redactor: Redactor,
}

/// Runs git. Callers set time limits by dropping a future: its processes end with it.
#[derive(Clone, Debug)]
pub struct Git {
    config: GitConfig,
}

impl fmt::Debug for GitConfig {
    /// Without the variables' values: a proxy's address may hold a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GitConfig")
            .field("cache", &self.cache)
            .field("path", &self.path)
            .field("extra_env", &self.extra_env.keys())
            .finish_non_exhaustive()
    }
}

/// Receives how much is done, and how much there is where that is known.
pub(crate) type Progress<'a> = &'a (dyn Fn(u64, Option<u64>) + Send + Sync);

impl Git {
    /// Nothing is run or written yet.
    #[must_use]
    pub fn new(config: GitConfig) -> Self {
        Self { config }
    }

    /// Asks the remote for the commit that a branch points at.
    ///
    /// # Errors
    /// `BranchNotFound`, `AuthRejected`, `Unreachable`, `InvalidArgument` (no repository is there), `Io`.
    pub async fn tip(
        &self,
        repo: &RepoUrl,
        branch: &BranchName,
        credential: Option<&GitCredential>,
    ) -> Result<CommitId, ProviderError> {
        prepare_home(&self.config.cache)?;
        let asking = Asking {
            config: &self.config,
            repo,
            credential,
        };
        let name = format!("refs/heads/{branch}");
        let arguments = ["ls-remote", "--exit-code", "--", repo.as_str(), &name];
        let ended = asking.run(None, &arguments, None).await?;
        if ended.code == Some(2) {
            return Err(ProviderError::new(
                ErrorKind::BranchNotFound,
                format!("`{repo}` has no branch `{branch}`"),
            ));
        }
        if ended.code != Some(0) {
            return Err(classify(&Doing::Remote { repo, credential }, &ended));
        }
        commit_of(&ended.stdout, &name).ok_or_else(|| {
            ProviderError::new(
                ErrorKind::BranchNotFound,
                format!("`{repo}` has no branch `{branch}`"),
            )
        })
    }

    /// Brings a commit into a workspace, on the branch. `into` is made, or replaced in one step when the new workspace is
    /// whole. The commit is had even if the branch has moved since; a mirror that holds it makes this a local affair.
    ///
    /// # Errors
    /// `CommitNotFound`, `AuthRejected`, `Unreachable`, `InvalidArgument`, `NoSpace`, `Io`.
    pub async fn checkout(
        &self,
        repo: &RepoUrl,
        branch: &BranchName,
        commit: &CommitId,
        credential: Option<&GitCredential>,
        into: &Path,
        progress: &(dyn Fn(u64, Option<u64>) + Send + Sync),
    ) -> Result<CommitId, ProviderError> {
        prepare_home(&self.config.cache)?;
        let checkout = Checkout {
            config: &self.config,
            repo,
            branch,
            commit,
            credential,
            progress,
        };
        checkout.run(into).await?;
        Ok(commit.clone())
    }
}

/// The id on the line of exactly this ref; a pattern of `ls-remote` matches the ends of longer names too.
fn commit_of(listing: &[u8], name: &str) -> Option<CommitId> {
    let listing = std::str::from_utf8(listing).ok()?;
    let (id, _) = listing
        .lines()
        .filter_map(|line| line.split_once('\t'))
        .find(|(_, found)| *found == name)?;
    CommitId::new(id)
}

#[cfg(test)]
mod tests {
    use super::commit_of;

    #[test]
    fn only_the_very_ref_counts() {
        let id = "0123456789abcdef0123456789abcdef01234567";
        let other = "1123456789abcdef0123456789abcdef01234567";
        let text = format!("{other}\trefs/heads/x/refs/heads/main\n{id}\trefs/heads/main\n");
        let found = commit_of(text.as_bytes(), "refs/heads/main").map(|id| id.to_string());
        assert_eq!(found.as_deref(), Some(id));
        assert_eq!(commit_of(text.as_bytes(), "refs/heads/mai"), None);
        assert_eq!(
            commit_of(b"\xff\trefs/heads/main\n", "refs/heads/main"),
            None
        );
    }
}
