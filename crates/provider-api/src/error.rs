//! What a provider answers when it can't do what it was asked.

use serde::{Deserialize, Deserializer, Serialize};
use std::fmt;

/// What kind of failure it is. The engine decides by it; a kind it does not know is read as `Unknown`.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// The request makes no sense.
    InvalidArgument,
    /// There is no such sandbox or object.
    NotFound,
    /// It exists, made with other arguments.
    Conflict,
    /// A higher fence was seen.
    Fenced,
    /// This sandbox was destroyed; its id will not come back.
    Destroyed,
    /// The provider does not do this; `describe` says so.
    Unsupported,
    /// The isolation asked for can't be had here.
    IsolationUnavailable,
    /// The remote refused the credential.
    AuthRejected,
    /// The remote has no such branch.
    BranchNotFound,
    /// The remote has no such commit any more.
    CommitNotFound,
    /// The remote could not be reached.
    Unreachable,
    /// The repository's own configuration is malformed.
    ConfigInvalid,
    /// The install step failed.
    InstallFailed,
    /// The agent did not become ready.
    AgentNotReady,
    /// The workspace is provably gone.
    WorkspaceLost,
    /// It is too large for the store.
    TooLarge,
    /// What was read back is not what was written.
    Corrupt,
    /// No space, or no quota, is left.
    NoSpace,
    /// The caller gave up.
    Cancelled,
    /// It took too long.
    Timeout,
    /// The provider's process died: the outcome is unknown.
    Crashed,
    /// A system call or a tool failed.
    Io,
    /// A bug in the provider, such as a panic: the outcome is unknown.
    Internal,
    /// A kind that this version does not know.
    Unknown,
}

impl<'de> Deserialize<'de> for ErrorKind {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let name = String::deserialize(from)?;
        Ok(ErrorKind::ALL
            .into_iter()
            .find(|kind| kind.as_str() == name)
            .unwrap_or(ErrorKind::Unknown))
    }
}

impl ErrorKind {
    /// Every kind.
    pub const ALL: [ErrorKind; 24] = [
        ErrorKind::InvalidArgument,
        ErrorKind::NotFound,
        ErrorKind::Conflict,
        ErrorKind::Fenced,
        ErrorKind::Destroyed,
        ErrorKind::Unsupported,
        ErrorKind::IsolationUnavailable,
        ErrorKind::AuthRejected,
        ErrorKind::BranchNotFound,
        ErrorKind::CommitNotFound,
        ErrorKind::Unreachable,
        ErrorKind::ConfigInvalid,
        ErrorKind::InstallFailed,
        ErrorKind::AgentNotReady,
        ErrorKind::WorkspaceLost,
        ErrorKind::TooLarge,
        ErrorKind::Corrupt,
        ErrorKind::NoSpace,
        ErrorKind::Cancelled,
        ErrorKind::Timeout,
        ErrorKind::Crashed,
        ErrorKind::Io,
        ErrorKind::Internal,
        ErrorKind::Unknown,
    ];

    /// Whether the provider died or panicked: nobody knows how much it had done.
    #[must_use]
    pub const fn has_crashed(self) -> bool {
        matches!(self, ErrorKind::Crashed | ErrorKind::Internal)
    }

    /// The name on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            ErrorKind::InvalidArgument => "invalid_argument",
            ErrorKind::NotFound => "not_found",
            ErrorKind::Conflict => "conflict",
            ErrorKind::Fenced => "fenced",
            ErrorKind::Destroyed => "destroyed",
            ErrorKind::Unsupported => "unsupported",
            ErrorKind::IsolationUnavailable => "isolation_unavailable",
            ErrorKind::AuthRejected => "auth_rejected",
            ErrorKind::BranchNotFound => "branch_not_found",
            ErrorKind::CommitNotFound => "commit_not_found",
            ErrorKind::Unreachable => "unreachable",
            ErrorKind::ConfigInvalid => "config_invalid",
            ErrorKind::InstallFailed => "install_failed",
            ErrorKind::AgentNotReady => "agent_not_ready",
            ErrorKind::WorkspaceLost => "workspace_lost",
            ErrorKind::TooLarge => "too_large",
            ErrorKind::Corrupt => "corrupt",
            ErrorKind::NoSpace => "no_space",
            ErrorKind::Cancelled => "cancelled",
            ErrorKind::Timeout => "timeout",
            ErrorKind::Crashed => "crashed",
            ErrorKind::Io => "io",
            ErrorKind::Internal => "internal",
            ErrorKind::Unknown => "unknown",
        }
    }
}

/// Whether the same call may succeed when it is made again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Retry {
    /// Not without a change.
    #[default]
    Never,
    /// The failure was transient.
    Transient,
}

/// A provider's failure: recorded, and sent over process boundaries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub struct ProviderError {
    /// What kind of failure it is.
    pub kind: ErrorKind,
    /// Whether the same call may succeed when it is made again.
    #[serde(default)]
    pub retry: Retry,
    /// What happened: names the thing, holds no secret.
    pub message: String,
    /// What to do about it, where the provider knows.
    #[serde(default)]
    pub hint: Option<String>,
    /// The last lines of the log that tells more.
    #[serde(default)]
    pub log_tail: Vec<String>,
}

impl ProviderError {
    /// A failure that repeating won't mend.
    #[must_use]
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            retry: Retry::Never,
            message: message.into(),
            hint: None,
            log_tail: Vec::new(),
        }
    }

    /// A failure that may pass.
    #[must_use]
    pub fn transient(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            retry: Retry::Transient,
            ..Self::new(kind, message)
        }
    }

    /// The caller gave up.
    #[must_use]
    pub fn cancelled(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Cancelled, message)
    }

    /// A system call on something named failed.
    #[must_use]
    pub fn io(what: impl fmt::Display, source: &std::io::Error) -> Self {
        let full = matches!(
            source.kind(),
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded
        );
        let kind = if full {
            ErrorKind::NoSpace
        } else {
            ErrorKind::Io
        };
        Self::new(kind, format!("{what}: {source}"))
    }

    /// The same, with what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The same, with the last lines of a log.
    #[must_use]
    pub fn log_tail(mut self, lines: Vec<String>) -> Self {
        self.log_tail = lines;
        self
    }
}

impl fmt::Display for ProviderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

#[cfg(test)]
mod tests {
    use super::{ErrorKind, ProviderError};

    #[test]
    fn kinds_round_trip_and_unknown_ones_are_unknown() {
        for kind in ErrorKind::ALL {
            let text = serde_json::to_string(&kind).unwrap();
            assert_eq!(text, format!("\"{}\"", kind.as_str()));
            assert_eq!(serde_json::from_str::<ErrorKind>(&text).unwrap(), kind);
        }
        let later: ProviderError =
            serde_json::from_str(r#"{"kind":"on_fire","message":"m","new":1}"#).unwrap();
        assert_eq!(later.kind, ErrorKind::Unknown);
    }
}
