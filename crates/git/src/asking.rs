//! Runs a git that talks to a remote, with what the user has said about a repository of another owner.

use crate::child::{Ended, Invocation, run};
use crate::environment::Environment;
use crate::git::{GitConfig, Progress};
use crate::trust;
use alpine_provider_api::{GitCredential, ProviderError, RepoUrl};
use std::path::Path;

/// A remote, and who asks it.
#[derive(Debug)]
pub(crate) struct Asking<'a> {
    pub(crate) config: &'a GitConfig,
    pub(crate) repo: &'a RepoUrl,
    pub(crate) credential: Option<&'a GitCredential>,
}

impl Asking<'_> {
    /// Runs git, within a repository if one is given. If it does not read the remote for its owner, and the user's own
    /// configuration names that repository as safe, it is run once more with that one exception.
    pub(crate) async fn run(
        &self,
        git_dir: Option<&Path>,
        arguments: &[&str],
        progress: Option<Progress<'_>>,
    ) -> Result<Ended, ProviderError> {
        let mut environment = Environment::remote(self.config, self.repo, self.credential);
        if let Some(git_dir) = git_dir {
            environment = environment.in_repository(git_dir, None);
        }
        let ended = run(invocation(&environment, arguments), progress).await?;
        if ended.code == Some(0) || !trust::is_refused(&ended.stderr) {
            return Ok(ended);
        }
        match trust::exception(self.config, self.repo).await? {
            Some(file) => {
                environment.trust(&file);
                run(invocation(&environment, arguments), progress).await
            }
            None => Ok(ended),
        }
    }
}

fn invocation<'a>(environment: &'a Environment, arguments: &[&str]) -> Invocation<'a> {
    arguments
        .iter()
        .fold(Invocation::new(environment), Invocation::arg)
}
