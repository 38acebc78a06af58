//! Tells from what git said which kind of failure it was. Git speaks English here (`LC_ALL=C`).

use crate::child::{Ended, killed};
use alpine_provider_api::{ErrorKind, GitCredential, ProviderError, RepoUrl, Transport};
use std::path::Path;

const TAIL: usize = 10;

/// What git was doing.
#[derive(Debug)]
pub(crate) enum Doing<'a> {
    /// It was talking to a remote.
    Remote {
        repo: &'a RepoUrl,
        credential: Option<&'a GitCredential>,
    },
    /// It was filling a workspace.
    Workspace { path: &'a Path },
}

/// The command that brings a token.
const TOKEN: &str = "export GITHUB_TOKEN=\"$(gh auth token)\"";
/// The command that has the user's browser authorise a new one.
const RENEW: &str = "gh auth refresh && export GITHUB_TOKEN=\"$(gh auth token)\"";

/// The failure of a git process that did not exit 0.
pub(crate) fn classify(doing: &Doing, ended: &Ended) -> ProviderError {
    let said = ended.stderr.join("\n");
    let failure = if is_full(&said) {
        ProviderError::new(ErrorKind::NoSpace, "git found no space left on the disk").hint("df -h")
    } else if let Some(killed) = killed(ended) {
        killed
    } else {
        match doing {
            Doing::Remote { repo, credential } => remote(repo, *credential, &said),
            Doing::Workspace { path } => ProviderError::new(
                ErrorKind::Io,
                format!("git could not fill `{}`: {}", path.display(), reason(&said)),
            ),
        }
    };
    let skip = ended.stderr.len().saturating_sub(TAIL);
    failure.log_tail(ended.stderr[skip..].to_vec())
}

/// Whether the remote said that it has not, or does not give, the object or ref that was asked for.
pub(crate) fn is_missing(ended: &Ended) -> bool {
    let said = ended.stderr.join("\n");
    contains_any(
        &said,
        &[
            "couldn't find remote ref",
            "not our ref",
            "unadvertised object",
            "no such remote ref",
            "did not send all necessary objects",
            "mismatched algorithms",
        ],
    )
}

fn remote(repo: &RepoUrl, credential: Option<&GitCredential>, said: &str) -> ProviderError {
    match repo.transport() {
        Transport::File => local(repo, said),
        Transport::Ssh => ssh(repo, said).unwrap_or_else(|| other(repo, said)),
        Transport::Http | Transport::Https => {
            http(repo, credential, said).unwrap_or_else(|| other(repo, said))
        }
    }
}

fn local(repo: &RepoUrl, said: &str) -> ProviderError {
    if said.contains("dubious ownership") {
        let word = repo.as_str().replace('\'', r"'\''");
        return ProviderError::new(
            ErrorKind::InvalidArgument,
            format!(
                "`{repo}` belongs to another user: git reads it only if you say that you trust it"
            ),
        )
        .hint(format!("git config --global --add safe.directory '{word}'"));
    }
    if contains_any(
        said,
        &[
            "does not appear to be a git repository",
            "does not exist",
            "not a git repository",
        ],
    ) {
        return ProviderError::new(
            ErrorKind::InvalidArgument,
            format!("`{repo}` is no git repository"),
        );
    }
    other(repo, said)
}

fn ssh(repo: &RepoUrl, said: &str) -> Option<ProviderError> {
    let host = repo.host().unwrap_or_default();
    if said.contains("Host key verification failed") {
        let failed = ProviderError::new(
            ErrorKind::Unreachable,
            format!(
                "the host key of `{host}` is not known, or not the known one; compare and accept it once by hand"
            ),
        );
        return Some(failed.hint(format!("ssh -T git@{host}")));
    }
    if contains_any(
        said,
        &["Permission denied", "Too many authentication failures"],
    ) {
        let failed = ProviderError::new(
            ErrorKind::AuthRejected,
            format!("`{host}` refused the keys of the SSH agent"),
        );
        return Some(failed.hint("ssh-add -l"));
    }
    if contains_any(
        said,
        &[
            "Repository not found",
            "does not appear to be a git repository",
            "access denied",
        ],
    ) {
        return Some(not_visible(repo));
    }
    said.contains("cannot run ssh").then(|| {
        ProviderError::new(ErrorKind::Io, "`ssh` can't be run")
            .hint("sudo apt-get install openssh-client")
    })
}

fn http(repo: &RepoUrl, credential: Option<&GitCredential>, said: &str) -> Option<ProviderError> {
    let rejected = |message: String| ProviderError::new(ErrorKind::AuthRejected, message);
    if contains_any(
        said,
        &["SAML SSO", "enforced SAML", "single sign-on", "SSO"],
    ) {
        return Some(
            rejected(format!(
                "`{repo}` asks for single sign-on: the token has to be authorised for the organisation"
            ))
            .hint(RENEW),
        );
    }
    if said.contains("could not read Username") || said.contains("could not read Password") {
        let host = repo.host().unwrap_or_default();
        let asked = format!("`{repo}` asks for a credential");
        let named = format!("a token is given to it if `[git] token_hosts` names `{host}`");
        return Some(match credential {
            None if host == "github.com" => rejected(asked).hint(TOKEN),
            None => rejected(format!("{asked}; {named}")).hint(TOKEN),
            // What is in force, and in which file that is changed.
            Some(_) => rejected(format!("{asked}; {named}")).hint("alpine config"),
        });
    }
    if contains_any(said, &["Authentication failed", "error: 401"]) {
        return Some(
            rejected(format!(
                "`{repo}` refused the credential: it may have expired or been revoked"
            ))
            .hint(TOKEN),
        );
    }
    if said.contains("error: 403") {
        return Some(
            rejected(format!(
                "`{repo}` refused the credential, which may lack the right to read it: {}",
                told(said)
            ))
            .hint(TOKEN),
        );
    }
    if contains_any(said, &["not found", "error: 404"]) {
        return Some(not_visible(repo));
    }
    redirected(repo, said)
}

fn redirected(repo: &RepoUrl, said: &str) -> Option<ProviderError> {
    let moved = [
        "error: 301",
        "error: 302",
        "error: 303",
        "error: 307",
        "error: 308",
    ];
    (contains_any(said, &moved) || said.contains("from redirection")).then(|| {
        ProviderError::new(
            ErrorKind::InvalidArgument,
            format!(
                "`{repo}` sends the caller to another address, which is not followed with a token"
            ),
        )
        .hint(format!(
            "curl -sI '{}'",
            repo.as_str().replace('\'', r"'\''")
        ))
    })
}

fn not_visible(repo: &RepoUrl) -> ProviderError {
    ProviderError::new(
        ErrorKind::AuthRejected,
        format!("`{repo}` does not exist, or this credential may not see it"),
    )
}

/// What none of the known texts explains: the network's fault where it is one.
fn other(repo: &RepoUrl, said: &str) -> ProviderError {
    let message = format!("`{repo}`: {}", reason(said));
    let network = [
        "Could not resolve",
        "Failed to connect",
        "Couldn't connect",
        "Connection refused",
        "Connection reset",
        "Connection timed out",
        "Connection closed",
        "Operation timed out",
        "Operation too slow",
        "Network is unreachable",
        "No route to host",
        "timed out",
        "hung up unexpectedly",
        "early EOF",
        "unexpected disconnect",
        "Empty reply from server",
        "Recv failure",
        "RPC failed",
        "error: 5",
        "error: 429",
        "Temporary failure in name resolution",
        "kex_exchange_identification",
        "Could not read from remote repository",
        "transfer closed",
        "invalid index-pack output",
    ];
    let certificate = ["SSL certificate", "certificate verif", "SSL routines"];
    if contains_any(said, &certificate) {
        return ProviderError::new(ErrorKind::Unreachable, message).hint(format!(
            "curl -sI '{}'",
            repo.as_str().replace('\'', r"'\''")
        ));
    }
    if repo.transport() != Transport::File && contains_any(said, &network) {
        return ProviderError::transient(ErrorKind::Unreachable, message);
    }
    ProviderError::new(ErrorKind::Io, message)
}

fn is_full(said: &str) -> bool {
    contains_any(said, &["No space left on device", "Disk quota exceeded"])
}

fn contains_any(text: &str, parts: &[&str]) -> bool {
    parts.iter().any(|part| text.contains(part))
}

/// The line that says most: the first `fatal:` or `error:`, else the last.
fn reason(said: &str) -> String {
    let line = said
        .lines()
        .find(|line| line.starts_with("fatal: ") || line.starts_with("error: "))
        .or_else(|| said.lines().last())
        .unwrap_or("git said nothing");
    let line = line
        .trim_start_matches("fatal: ")
        .trim_start_matches("error: ");
    line.chars().take(300).collect()
}

/// What the host itself told, where it did.
fn told(said: &str) -> String {
    said.lines()
        .find_map(|line| line.strip_prefix("remote: "))
        .map_or_else(|| reason(said), |line| line.trim().to_owned())
}
