//! One ledger's place on disk, and the options it was opened with.

use crate::error::Hindrance;
use crate::{LedgerError, Options};
use std::error::Error;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// One ledger's place on disk, and the options it was opened with.
#[derive(Debug)]
pub(crate) struct Site {
    /// The file, as an absolute path, so that a change of directory does not move it.
    pub(crate) path: PathBuf,
    /// The directory that the file is in.
    pub(crate) dir: PathBuf,
    /// How it was opened.
    pub(crate) options: Options,
}

impl Site {
    /// The site of the ledger at `path`.
    pub(crate) fn new(path: &Path, options: Options) -> Result<Self, LedgerError> {
        let unusable = |reason: &str, source| LedgerError::Unavailable {
            path: path.to_owned(),
            reason: reason.to_owned(),
            hindrance: Hindrance::Other,
            source,
        };
        let path = std::path::absolute(path).map_err(|error| {
            unusable(
                "the path can't be made absolute",
                Some(Box::new(error) as _),
            )
        })?;
        let (Some(dir), Some(_)) = (path.parent(), path.file_name()) else {
            return Err(unusable("the path names no file", None));
        };
        let dir = dir.to_owned();
        Ok(Self { path, dir, options })
    }

    /// The directory of the operations' lock files.
    pub(crate) fn ops_dir(&self) -> PathBuf {
        self.dir.join("ops")
    }

    pub(crate) fn unavailable(
        &self,
        reason: impl Into<String>,
        source: Option<Box<dyn Error + Send + Sync>>,
    ) -> LedgerError {
        self.hindered(Hindrance::Other, reason, source)
    }

    pub(crate) fn hindered(
        &self,
        hindrance: Hindrance,
        reason: impl Into<String>,
        source: Option<Box<dyn Error + Send + Sync>>,
    ) -> LedgerError {
        LedgerError::Unavailable {
            path: self.path.clone(),
            reason: reason.into(),
            hindrance,
            source,
        }
    }

    pub(crate) fn corrupt(&self, what: impl Into<String>) -> LedgerError {
        LedgerError::Corrupt {
            path: self.path.clone(),
            what: what.into(),
        }
    }

    pub(crate) fn incompatible(&self, what: impl Into<String>) -> LedgerError {
        LedgerError::Incompatible {
            path: self.path.clone(),
            what: what.into(),
        }
    }

    pub(crate) fn busy(&self, waited: Duration) -> LedgerError {
        LedgerError::Busy {
            path: self.path.clone(),
            waited,
            pids: self.other_pids(),
        }
    }

    /// The other processes that have the file open, as far as this user may see them.
    fn other_pids(&self) -> Vec<u32> {
        let Ok(ours) = fs::metadata(&self.path) else {
            return Vec::new();
        };
        let Ok(processes) = fs::read_dir("/proc") else {
            return Vec::new();
        };
        let mut pids: Vec<u32> = processes
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .filter(|pid| *pid != std::process::id() && has_open(*pid, &ours))
            .collect();
        pids.sort_unstable();
        pids
    }
}

/// Whether the process has that file open.
fn has_open(pid: u32, file: &fs::Metadata) -> bool {
    let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else {
        return false;
    };
    descriptors.flatten().any(|descriptor| {
        fs::metadata(descriptor.path())
            .is_ok_and(|open| open.dev() == file.dev() && open.ino() == file.ino())
    })
}
