//! Which repository, which branch, which commit: checked when they are parsed, safe to hand to git after that.

use crate::{Secret, wire};
use percent_encoding::percent_decode_str;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::{Component, Path, PathBuf};

/// A repository's address: absolute, without credentials, and nothing git could take for an option or a command.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RepoUrl {
    text: String,
    transport: Transport,
    host: Option<String>,
}

/// How a repository is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// `https://`.
    Https,
    /// `http://`, to a loopback host only.
    Http,
    /// `ssh://` or `user@host:path`.
    Ssh,
    /// `file://` or a path.
    File,
}

/// Why a text is no repository's address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RepoUrlError {
    /// Nothing is there.
    #[error("the repository is empty")]
    Empty,
    /// White space, control characters or a backslash.
    #[error("the repository holds a character that no address may hold")]
    Character,
    /// It looks like an option of git.
    #[error("the repository starts with `-`")]
    Option,
    /// It names a transport that runs commands, or one that alpine does not know.
    #[error("`{0}` is no transport for a repository")]
    Transport(String),
    /// Plain HTTP to another machine.
    #[error("`http://` is accepted for loopback hosts only")]
    PlainHttp,
    /// A user or password in a URL.
    #[error("the URL holds credentials")]
    Credentials,
    /// A query or a fragment in a URL: no repository needs one, and what it holds is often a secret.
    #[error("the URL holds a query or a fragment (`?` or `#`)")]
    Query,
    /// A relative path, and nothing to take it from.
    #[error("the repository's path is relative")]
    Relative,
    /// The host or the path is missing or malformed.
    #[error("the repository's {0} is missing or malformed")]
    Part(&'static str),
}

impl RepoUrl {
    /// Parses what a user gave; a relative path is taken from `directory`.
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub fn parse(given: &str, directory: &Path) -> Result<Self, RepoUrlError> {
        if given.is_empty() {
            return Err(RepoUrlError::Empty);
        }
        if given.starts_with('-') {
            return Err(RepoUrlError::Option);
        }
        if given.contains(is_forbidden) || given.len() > 4096 {
            return Err(RepoUrlError::Character);
        }
        if let Some((scheme, rest)) = given.split_once("://") {
            return Self::with_scheme(scheme, rest);
        }
        match given.split_once(':') {
            // As in git, a colon before the first slash makes it `host:path`.
            Some((before, path)) if !before.contains('/') => Self::scp(given, before, path),
            Some(_) | None => Self::local(directory.join(given)),
        }
    }

    fn with_scheme(scheme: &str, rest: &str) -> Result<Self, RepoUrlError> {
        let transport = match scheme.to_ascii_lowercase().as_str() {
            "https" => Transport::Https,
            "http" => Transport::Http,
            "ssh" => Transport::Ssh,
            "file" => {
                let path = rest.strip_prefix("localhost").unwrap_or(rest);
                if !path.starts_with('/') {
                    return Err(RepoUrlError::Part("path"));
                }
                // As in git, what looks like an escape and is none is left as it is.
                let decoded = percent_decode_str(path).decode_utf8();
                let decoded = decoded.map_err(|_| RepoUrlError::Character)?;
                if decoded.contains(is_forbidden) {
                    return Err(RepoUrlError::Character);
                }
                return Self::local(PathBuf::from(&*decoded));
            }
            _ => return Err(RepoUrlError::Transport(scheme.chars().take(32).collect())),
        };
        if rest.contains(['?', '#']) {
            return Err(RepoUrlError::Query);
        }
        let (authority, path) = rest.split_once('/').ok_or(RepoUrlError::Part("path"))?;
        let (user, host_port) = match authority.rsplit_once('@') {
            Some((user, host)) => (Some(user), host),
            None => (None, authority),
        };
        match user {
            Some(user) if transport != Transport::Ssh || user.contains(':') => {
                return Err(RepoUrlError::Credentials);
            }
            Some(user) if !is_word(user) => return Err(RepoUrlError::Part("user")),
            Some(_) | None => {}
        }
        let host = host_of(host_port)?;
        if transport == Transport::Http && !is_loopback(&host) {
            return Err(RepoUrlError::PlainHttp);
        }
        if path.is_empty() || path.contains(|c: char| c.is_whitespace() || c == '\\') {
            return Err(RepoUrlError::Part("path"));
        }
        let user = user.map(|user| format!("{user}@")).unwrap_or_default();
        let scheme = scheme.to_ascii_lowercase();
        let text = format!("{scheme}://{user}{}/{path}", host_port.to_ascii_lowercase());
        Ok(Self {
            text,
            transport,
            host: Some(host_port.to_ascii_lowercase()),
        })
    }

    fn scp(given: &str, before: &str, path: &str) -> Result<Self, RepoUrlError> {
        let Some((user, host)) = before.split_once('@') else {
            return Err(RepoUrlError::Transport(format!(
                "{}:",
                before.chars().take(32).collect::<String>()
            )));
        };
        if !is_word(user) {
            return Err(RepoUrlError::Part("user"));
        }
        let host = host_of(host)?;
        let bad = |c: char| c.is_whitespace() || c == '\\';
        if path.is_empty() || path.starts_with('-') || path.starts_with(':') || path.contains(bad) {
            return Err(RepoUrlError::Part("path"));
        }
        Ok(Self {
            text: given.to_owned(),
            transport: Transport::Ssh,
            host: Some(host),
        })
    }

    fn local(path: PathBuf) -> Result<Self, RepoUrlError> {
        let mut absolute = PathBuf::new();
        for part in path.components() {
            match part {
                Component::CurDir => {}
                Component::ParentDir => {
                    absolute.pop();
                }
                Component::Prefix(_) | Component::RootDir | Component::Normal(_) => {
                    absolute.push(part)
                }
            }
        }
        let text = absolute
            .into_os_string()
            .into_string()
            .map_err(|_| RepoUrlError::Character)?;
        if !text.starts_with('/') {
            return Err(RepoUrlError::Relative);
        }
        Ok(Self {
            text,
            transport: Transport::File,
            host: None,
        })
    }

    /// The address, without credentials.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// How it is reached.
    #[must_use]
    pub fn transport(&self) -> Transport {
        self.transport
    }

    /// The host, with its port where one was given; none for a path.
    #[must_use]
    pub fn host(&self) -> Option<&str> {
        self.host.as_deref()
    }

    /// The path, where the repository is on this machine.
    #[must_use]
    pub fn local_path(&self) -> Option<&Path> {
        (self.transport == Transport::File).then(|| Path::new(&self.text))
    }
}

impl TryFrom<String> for RepoUrl {
    type Error = RepoUrlError;

    fn try_from(text: String) -> Result<Self, RepoUrlError> {
        Self::parse(&text, Path::new(""))
    }
}

impl From<RepoUrl> for String {
    fn from(url: RepoUrl) -> String {
        url.text
    }
}

impl fmt::Display for RepoUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text)
    }
}

/// What no address may hold: it would not be shown as it is.
fn is_forbidden(c: char) -> bool {
    c.is_control() || c == '\u{2028}' || c == '\u{2029}'
}

fn is_word(text: &str) -> bool {
    !text.is_empty()
        && !text.starts_with('-')
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
}

/// The host without its port, after checking both.
fn host_of(host_port: &str) -> Result<String, RepoUrlError> {
    let wrong = RepoUrlError::Part("host");
    if let Some(rest) = host_port.strip_prefix('[') {
        let (address, port) = rest.split_once(']').ok_or(wrong.clone())?;
        let port_fits = port.is_empty()
            || port
                .strip_prefix(':')
                .is_some_and(|port| port.parse::<u16>().is_ok());
        return if address.parse::<std::net::Ipv6Addr>().is_ok() && port_fits {
            Ok(address.to_owned())
        } else {
            Err(wrong)
        };
    }
    let (host, port) = match host_port.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (host_port, None),
    };
    if !is_word(host) || port.is_some_and(|port| port.parse::<u16>().is_err()) {
        return Err(wrong);
    }
    Ok(host.to_ascii_lowercase())
}

fn is_loopback(host: &str) -> bool {
    host == "localhost"
        || host
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

/// A branch's name, by the rules of `git check-ref-format --branch`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BranchName(String);

impl BranchName {
    /// Takes a name that git would take for a branch.
    #[must_use]
    pub fn new(name: &str) -> Option<Self> {
        let part_fits =
            |part: &str| !part.is_empty() && !part.starts_with('.') && !part.ends_with(".lock");
        let fits = name.len() <= 1000
            && !name.starts_with('-')
            && !name.ends_with('.')
            && name != "@"
            && name != "HEAD"
            && !name.contains("..")
            && !name.contains("@{")
            && !name.contains(|c: char| c.is_ascii_control() || " ~^:?*[\\".contains(c))
            && name.split('/').all(part_fits);
        fits.then(|| Self(name.to_owned()))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for BranchName {
    type Error = &'static str;

    fn try_from(name: String) -> Result<Self, &'static str> {
        Self::new(&name).ok_or("not a branch name")
    }
}

impl From<BranchName> for String {
    fn from(name: BranchName) -> String {
        name.0
    }
}

impl fmt::Display for BranchName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// A commit's id: 40 or 64 hex digits in lower case.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CommitId(String);

impl CommitId {
    /// Takes a full id.
    #[must_use]
    pub fn new(id: &str) -> Option<Self> {
        let digits = id
            .bytes()
            .all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
        (digits && (id.len() == 40 || id.len() == 64)).then(|| Self(id.to_owned()))
    }

    /// The id.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for CommitId {
    type Error = &'static str;

    fn try_from(id: String) -> Result<Self, &'static str> {
        Self::new(&id).ok_or("not a full commit id")
    }
}

impl From<CommitId> for String {
    fn from(id: CommitId) -> String {
        id.0
    }
}

impl fmt::Display for CommitId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// What opens a remote repository; git gets it from a credential helper in its environment and from nowhere else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum GitCredential {
    /// A token, for one host over HTTP.
    Token {
        /// The host (with its port, where the URL has one) that alone may see it.
        host: String,
        /// The token.
        #[serde(with = "wire")]
        token: Secret<String>,
    },
    /// The socket of an SSH agent.
    SshAgent {
        /// Its path.
        socket: String,
    },
}

#[cfg(test)]
mod tests;
