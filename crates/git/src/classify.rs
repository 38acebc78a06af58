//! Tells from what git said which kind of failure it was. Git speaks English here (`LC_ALL=C`).

use crate::child::{Ended, killed};
use alpine_provider_api::{ErrorKind, GitCredential, ProviderError, RepoUrl, Transport};
use std::path::Path;

const TAIL: usize = 10;
/// The host whose tokens `gh` keeps.
const GITHUB: &str = "github.com";

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

/// What git adds to every failure of a connection by SSH, whatever the cause.
const STOCK: [&str; 3] = [
    "fatal: Could not read from remote repository.",
    "Please make sure you have the correct access rights",
    "and the repository exists.",
];

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
    let tail = untold(&failure.message, &ended.stderr);
    failure.log_tail(tail)
}

/// The last lines, without those that the message tells already and those that tell nothing.
fn untold(message: &str, lines: &[String]) -> Vec<String> {
    let is_news = |line: &&String| !STOCK.contains(&line.as_str()) && !message.contains(bare(line));
    let lines: Vec<_> = lines.iter().filter(is_news).cloned().collect();
    lines[lines.len().saturating_sub(TAIL)..].to_vec()
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

/// Whether a repository on this machine said that it can't read its own objects. One that offers a branch and then knows
/// nothing of its commit has lost it.
pub(crate) fn is_damaged(repo: &RepoUrl, ended: &Ended, is_branch: bool) -> bool {
    let said = ended.stderr.join("\n");
    let broken = [
        "possible repository corruption",
        "error: object file",
        "is corrupt",
        "did not send all necessary objects",
    ];
    let broken = contains_any(&said, &broken) || is_branch && said.contains("not our ref");
    broken && repo.transport() == Transport::File
}

/// The failure of a repository on this machine that can't read its own objects.
pub(crate) fn damaged(repo: &RepoUrl, ended: &Ended) -> ProviderError {
    let message = format!("`{repo}` is damaged: git can't read all of its objects");
    let tail = untold(&message, &ended.stderr);
    ProviderError::new(ErrorKind::InvalidArgument, message)
        .hint(format!("git -C {} fsck", word(repo)))
        .log_tail(tail)
}

/// The address as a word of a shell.
fn word(repo: &RepoUrl) -> String {
    format!("'{}'", repo.as_str().replace('\'', r"'\''"))
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
        return ProviderError::new(
            ErrorKind::InvalidArgument,
            format!(
                "`{repo}` belongs to another user: git reads it only if you say that you trust it"
            ),
        )
        .hint(format!(
            "git config --global --add safe.directory {}",
            word(repo)
        ));
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
        let failed = ProviderError::new(
            ErrorKind::AuthRejected,
            format!("`{repo}` does not exist, or the keys of the SSH agent may not see it"),
        );
        return Some(failed.hint("ssh-add -l"));
    }
    said.contains("cannot run ssh").then(|| {
        ProviderError::new(ErrorKind::Io, "`ssh` can't be run")
            .hint("sudo apt-get install openssh-client")
    })
}

fn http(repo: &RepoUrl, credential: Option<&GitCredential>, said: &str) -> Option<ProviderError> {
    let host = repo.host().unwrap_or_default();
    let was_sent =
        matches!(credential, Some(GitCredential::Token { host: to, .. }) if to.as_str() == host);
    let rejected = |message: String| {
        let hint = if was_sent {
            renew(host)
        } else {
            give(host).to_owned()
        };
        ProviderError::new(ErrorKind::AuthRejected, message).hint(hint)
    };
    if contains_any(
        said,
        &["SAML SSO", "enforced SAML", "single sign-on", "SSO"],
    ) {
        return Some(rejected(format!(
            "`{repo}` asks for single sign-on: the token has to be authorised for the organisation"
        )));
    }
    let asks = ["could not read Username", "could not read Password"];
    let refuses = ["Authentication failed", "error: 401", "error: 403"];
    if contains_any(said, &asks) || !was_sent && contains_any(said, &refuses) {
        return Some(rejected(format!(
            "`{repo}` asks for a credential, and {}",
            unsent(host)
        )));
    }
    if contains_any(said, &["Authentication failed", "error: 401"]) {
        return Some(rejected(format!(
            "`{repo}` refused the credential: it may have expired or been revoked"
        )));
    }
    if said.contains("error: 403") {
        return Some(rejected(format!(
            "`{repo}` refused the credential, which may lack the right to read it: {}",
            told(said)
        )));
    }
    if contains_any(said, &["not found", "error: 404"]) {
        return Some(rejected(if was_sent {
            format!("`{repo}` does not exist, or this credential may not see it")
        } else {
            format!(
                "`{repo}` does not exist, or is not public, and {}",
                unsent(host)
            )
        }));
    }
    redirected(repo, said)
}

/// That no credential was sent, and what it takes to send one.
fn unsent(host: &str) -> String {
    if host == GITHUB {
        return "none was sent: neither `GITHUB_TOKEN` nor `GH_TOKEN` is set".to_owned();
    }
    format!(
        "none was sent: a token (`GITHUB_TOKEN`) goes to `{host}` only where `config.toml` has, under `[git]`, `token_hosts = [\"{host}\"]`"
    )
}

/// What brings a token where none was sent, or shows which hosts get one and in which file that is said.
fn give(host: &str) -> &'static str {
    if host == GITHUB {
        "export GITHUB_TOKEN=\"$(gh auth token)\""
    } else {
        "alpine config"
    }
}

/// What brings another token in place of the one that was refused. `gh` would answer with that one while it is set.
fn renew(host: &str) -> String {
    if host == GITHUB {
        "unset GITHUB_TOKEN GH_TOKEN; gh auth refresh && export GITHUB_TOKEN=\"$(gh auth token)\""
            .to_owned()
    } else {
        format!("export GITHUB_TOKEN=…  # a token that `{host}` takes")
    }
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
        .hint(format!("curl -sI {}", word(repo)))
    })
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
        return ProviderError::new(ErrorKind::Unreachable, message)
            .hint(format!("curl -sI {}", word(repo)));
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

/// The line that says most: the first `fatal:` or `error:`, else the last. What SSH itself said comes before what git made of it.
fn reason(said: &str) -> String {
    let lines: Vec<_> = said
        .lines()
        .filter(|line| !STOCK.contains(line))
        .filter(|line| !line.starts_with("Warning: Permanently added"))
        .collect();
    let line = lines
        .iter()
        .find(|line| line.starts_with("fatal: ") || line.starts_with("error: "))
        .or(lines.last())
        .or(said.lines().next().as_ref())
        .map_or("git said nothing", |line| bare(line));
    line.chars().take(300).collect()
}

/// A line without the prefixes that say nothing of the cause: that it is a failure, and of which address.
fn bare(line: &str) -> &str {
    let line = line
        .trim_start_matches("fatal: ")
        .trim_start_matches("error: ");
    line.strip_prefix("unable to access '")
        .and_then(|rest| rest.split_once("': "))
        .map_or(line, |(_, why)| why)
}

/// What the host itself told, where it did.
fn told(said: &str) -> String {
    said.lines()
        .find_map(|line| line.strip_prefix("remote: "))
        .map_or_else(|| reason(said), |line| line.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::{Doing, classify};
    use crate::child::Ended;
    use alpine_provider_api::{GitCredential, RepoUrl, Secret};
    use std::path::Path;

    #[test]
    fn the_hint_fits_the_host_and_what_was_sent() {
        let asks = "fatal: could not read Username for 'https://h': terminal prompts disabled";
        let refuses = "fatal: Authentication failed for 'https://h'";
        let bring = "export GITHUB_TOKEN=\"$(gh auth token)\"";
        // `gh` would answer with the token that was refused while it is set.
        let renew = "unset GITHUB_TOKEN GH_TOKEN; gh auth refresh && ";
        for (host, was_sent, said, hint, cause) in [
            ("github.com", false, asks, bring, "is set"),
            ("github.com", true, refuses, renew, "revoked"),
            (
                "git.example",
                false,
                asks,
                "alpine config",
                "`token_hosts = [\"git.example\"]`",
            ),
            (
                "git.example",
                true,
                refuses,
                "export GITHUB_TOKEN=…",
                "revoked",
            ),
        ] {
            let repo = RepoUrl::parse(&format!("https://{host}/o/r"), Path::new("/")).unwrap();
            let token = GitCredential::Token {
                host: host.to_owned(),
                token: Secret::new("tokentoken".to_owned()),
            };
            let doing = Doing::Remote {
                repo: &repo,
                credential: was_sent.then_some(&token),
            };
            let ended = Ended {
                code: Some(128),
                stdout: Vec::new(),
                stderr: vec![said.to_owned()],
            };
            let error = classify(&doing, &ended);
            let told = error.hint.as_deref().unwrap_or_default();
            assert!(told.starts_with(hint), "{error:?}");
            assert!(error.message.contains(cause), "{error:?}");
        }
    }
}
