//! Why a snapshot can't be made, or not be brought back.

use std::io;
use std::path::{Path, PathBuf};

/// Why a snapshot can't be made, or not be brought back.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// A directory that was to be captured is not there.
    #[error("`{}` is not there", path.display())]
    Missing {
        /// The directory.
        path: PathBuf,
    },
    /// A system call failed.
    #[error("can't {what} `{}`", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The archive is torn, was altered, or holds what no archive of ours holds.
    #[error("the archive is damaged: {why}")]
    Damaged {
        /// What is wrong with it.
        why: String,
    },
    /// The archive's bytes could not be had.
    #[error("can't read the archive")]
    Read {
        /// Why.
        source: io::Error,
    },
    /// The place to restore to holds something already.
    #[error("`{}` is not empty", path.display())]
    NotEmpty {
        /// The place.
        path: PathBuf,
    },
    /// A root's name can't be the top of an archive.
    #[error("`{name}` can't be a name in an archive")]
    Name {
        /// The name.
        name: String,
    },
}

impl SnapshotError {
    pub(crate) fn io(what: &'static str, path: &Path, source: impl Into<io::Error>) -> Self {
        Self::Io {
            what,
            path: path.to_owned(),
            source: source.into(),
        }
    }

    pub(crate) fn damaged(why: impl Into<String>) -> Self {
        Self::Damaged { why: why.into() }
    }

    /// Whether no space is left, or no quota.
    #[must_use]
    pub fn is_full(&self) -> bool {
        let source = match self {
            SnapshotError::Io { source, .. } | SnapshotError::Read { source } => source,
            SnapshotError::Missing { .. }
            | SnapshotError::Damaged { .. }
            | SnapshotError::NotEmpty { .. }
            | SnapshotError::Name { .. } => return false,
        };
        matches!(
            source.kind(),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
        )
    }
}
