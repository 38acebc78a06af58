//! The checks that need no network and leave nothing behind.

use crate::{ErrorCode, Failure};
use alpine_provider_api::{GitCredential, RepoUrl, Secret, Transport};

const NO_TOKEN: &str = "neither `GITHUB_TOKEN` nor `GH_TOKEN` is set";

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
    let (missing, next) = match (repo.transport(), repo.host()) {
        (Transport::Ssh, _) => (
            "`SSH_AUTH_SOCK` is not set".to_owned(),
            "eval \"$(ssh-agent)\" && ssh-add",
        ),
        (Transport::Https | Transport::Http | Transport::File, Some("github.com")) => (
            NO_TOKEN.to_owned(),
            "export GITHUB_TOKEN=\"$(gh auth token)\"  # or add --public for a public repository",
        ),
        // What `gh` keeps is for another host.
        (Transport::Https | Transport::Http | Transport::File, host) => (
            host.filter(|host| !is_trusted(host, credentials))
                .map_or_else(|| NO_TOKEN.to_owned(), unnamed),
            "export GITHUB_TOKEN=…  # or add --public for a public repository",
        ),
    };
    Err(Failure::new(
        ErrorCode::RepoAuthMissing,
        format!("no credential for `{repo}`: {missing}"),
    )
    .next(next))
}

/// That there is no token, and that this host would not get one.
fn unnamed(host: &str) -> String {
    format!(
        "{NO_TOKEN}, and a token goes to `{host}` only where `config.toml` has, under `[git]`, `token_hosts = [\"{host}\"]`"
    )
}

fn token_for(repo: &RepoUrl, credentials: &Credentials) -> Option<GitCredential> {
    let host = repo.host()?;
    let token = credentials.token.clone()?;
    is_trusted(host, credentials).then(|| GitCredential::Token {
        host: host.to_owned(),
        token,
    })
}

/// Whether the host, with its port or without, is named as one that may see the token.
fn is_trusted(host: &str, credentials: &Credentials) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        Some(_) | None => host,
    };
    credentials
        .token_hosts
        .iter()
        .any(|trusted| trusted.eq_ignore_ascii_case(host) || trusted.eq_ignore_ascii_case(name))
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
    fn what_is_missing_is_told_by_host() {
        let hosts = |token_hosts: &[&str]| Credentials {
            token_hosts: token_hosts.iter().map(|&host| host.to_owned()).collect(),
            ..Credentials::default()
        };
        let missing = |text: &str, token_hosts: &[&str]| {
            preflight(&url(text), false, &hosts(token_hosts)).unwrap_err()
        };
        let github = missing("https://github.com/o/r", &["github.com"]);
        assert!(github.next_step.contains("gh auth token"), "{github:?}");
        // `gh` has no token of another host, and without its name in the configuration none would be sent.
        let other = missing("https://git.example:8443/o/r", &["github.com"]);
        assert!(!other.next_step.contains("gh auth"), "{other:?}");
        let line = "`token_hosts = [\"git.example:8443\"]`";
        assert!(other.cause.ends_with(line), "{other:?}");
        let named = missing("https://git.example:8443/o/r", &["git.example"]);
        assert!(!named.cause.contains("token_hosts"), "{named:?}");
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
