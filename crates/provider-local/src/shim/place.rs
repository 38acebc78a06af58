//! Where a supervisor belongs: the lock that it holds for life, and the path by which everybody finds that.

use super::ending::UNASKED_MS;
use super::serve::Shim;
use crate::clock;
use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

/// How often it is looked for.
const EVERY_MS: u64 = 60_000;

/// The lock that a supervisor holds, and its path.
#[derive(Debug)]
pub(super) struct Place {
    path: PathBuf,
    lock: File,
    looked_ms: u64,
}

impl Place {
    /// The lock, which is held, at its path.
    pub(super) fn new(path: PathBuf, lock: File) -> Self {
        let looked_ms = clock::monotonic_ms();
        Self {
            path,
            lock,
            looked_ms,
        }
    }

    /// How long until it is to be looked for, in milliseconds.
    pub(super) fn waits(&self) -> i64 {
        let since = clock::monotonic_ms().saturating_sub(self.looked_ms);
        i64::try_from(EVERY_MS.saturating_sub(since)).unwrap_or(0)
    }

    /// Whether it is to be looked for.
    pub(super) fn is_due(&self) -> bool {
        self.waits() == 0
    }

    /// Whether the path names no lock, or another one. That it can't be told proves nothing.
    pub(super) fn is_lost(&mut self) -> bool {
        self.looked_ms = clock::monotonic_ms();
        let inode = |found: &Metadata| (found.dev(), found.ino());
        match (self.path.symlink_metadata(), self.lock.metadata()) {
            (Ok(there), Ok(held)) => inode(&there) != inode(&held),
            (Err(source), _) => matches!(
                source.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ),
            (Ok(_), Err(_)) => false,
        }
    }
}

impl Shim {
    /// A supervisor whose sandbox was taken away serves nobody: nothing finds it any more. It ends all that it started.
    pub(super) fn look_for_place(&mut self) {
        if self.place.is_lost() {
            self.begin_ending(None, UNASKED_MS);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{EVERY_MS, Place};
    use std::fs::{self, File};

    #[test]
    fn a_place_is_lost_when_its_path_names_another_file() {
        let directory = tempfile::tempdir().unwrap();
        let inner = directory.path().join("inner");
        fs::create_dir(&inner).unwrap();
        let path = inner.join("lock");
        let mut place = Place::new(path.clone(), File::create(&path).unwrap());
        assert!(!place.is_lost());
        fs::rename(&inner, directory.path().join("away")).unwrap();
        assert!(place.is_lost());
        fs::create_dir(&inner).unwrap();
        File::create(&path).unwrap();
        assert!(place.is_lost());
        fs::remove_dir_all(&inner).unwrap();
        fs::rename(directory.path().join("away"), &inner).unwrap();
        assert!(!place.is_lost());
    }

    #[test]
    fn it_is_looked_for_once_a_minute() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lock");
        let mut place = Place::new(path.clone(), File::create(&path).unwrap());
        assert!(!place.is_due() && place.waits() > 50_000);
        place.looked_ms = place.looked_ms.saturating_sub(EVERY_MS);
        assert!(place.is_due());
        place.is_lost();
        assert!(!place.is_due());
    }
}
