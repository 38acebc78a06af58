//! The checks that need no network and leave nothing behind.

use crate::{ErrorCode, Failure};
use alpine_provider_api::{GitCredential, RepoUrl, Secret, Transport};

/// What could open a remote repository.
#[derive(Clone, Debug, Default)]
pub struct Credentials {
    /// `GITHUB_TOKEN`, else `GH_TOKEN`.
    pub token: Option<Secret<String>>,
    /// `SSH_AUTH_SOCK`.
    pub ssh_auth_sock: Option<String>,
    /// The hosts that may see the token: `github.com`, `GH_HOST`, and those of the configuration.
    pub token_hosts: Vec<String>,
}

/// The credential for a repository.
///
/// # Errors
/// `ERR_REPO_AUTH_MISSING` when a remote repository is not said to be public and nothing could open it.
pub fn preflight(
    repo: &RepoUrl,
    public: bool,
    credentials: &Credentials,
) -> Result<Option<GitCredential>, Failure> {
    let found = match repo.transport() {
        Transport::File => return Ok(None),
        Transport::Https | Transport::Http => token_for(repo, credentials),
        Transport::Ssh => credentials
            .ssh_auth_sock
            .clone()
            .map(|socket| GitCredential::SshAgent { socket }),
    };
    let there =
        found.is_some() || credentials.token.is_some() && repo.transport() != Transport::Ssh;
    if there || public {
        return Ok(found);
    }
    let (missing, next) = match repo.transport() {
        Transport::Ssh => (
            "`SSH_AUTH_SOCK` is not set",
            "eval \"$(ssh-agent)\" && ssh-add",
        ),
        Transport::Https | Transport::Http | Transport::File => (
            "neither `GITHUB_TOKEN` nor `GH_TOKEN` is set",
            "export GITHUB_TOKEN=\"$(gh auth token)\"  # or add --public for a public repository",
        ),
    };
    Err(Failure::new(
        ErrorCode::RepoAuthMissing,
        format!("no credential for `{repo}`: {missing}"),
    )
    .next(next))
}

fn token_for(repo: &RepoUrl, credentials: &Credentials) -> Option<GitCredential> {
    let host = repo.host()?;
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        Some(_) | None => host,
    };
    let trusted = credentials
        .token_hosts
        .iter()
        .any(|trusted| trusted.eq_ignore_ascii_case(host) || trusted.eq_ignore_ascii_case(name));
    let token = credentials.token.clone()?;
    trusted.then(|| GitCredential::Token {
        host: host.to_owned(),
        token,
    })
}

#[cfg(test)]
mod tests {
    use super::{Credentials, preflight};
    use alpine_provider_api::{GitCredential, RepoUrl, Secret};
    use std::path::Path;

    fn url(text: &str) -> RepoUrl {
        RepoUrl::parse(text, Path::new("/")).unwrap()
    }

    fn token() -> Credentials {
        Credentials {
            token: Some(Secret::new("tokentoken".to_owned())),
            ssh_auth_sock: None,
            token_hosts: vec!["github.com".to_owned()],
        }
    }

    #[test]
    fn remote_repositories_need_a_credential_unless_public() {
        for text in [
            "https://github.com/o/r",
            "git@github.com:o/r",
            "ssh://git@h/r",
            "http://127.0.0.1:1/r",
        ] {
            let failure = preflight(&url(text), false, &Credentials::default()).unwrap_err();
            assert_eq!(failure.code.as_str(), "ERR_REPO_AUTH_MISSING", "{text}");
            assert_eq!(
                preflight(&url(text), true, &Credentials::default()).unwrap(),
                None,
                "{text}"
            );
        }
        assert_eq!(
            preflight(&url("/srv/r"), false, &Credentials::default()).unwrap(),
            None
        );
    }

    #[test]
    fn only_trusted_hosts_see_the_token() {
        let github = preflight(&url("https://github.com/o/r"), false, &token()).unwrap();
        assert!(matches!(github, Some(GitCredential::Token { host, .. }) if host == "github.com"));
        assert_eq!(
            preflight(&url("https://evil.example/o/r"), false, &token()).unwrap(),
            None
        );
        assert!(
            preflight(&url("git@github.com:o/r"), false, &token()).is_err(),
            "a token opens nothing over ssh"
        );
    }
}
