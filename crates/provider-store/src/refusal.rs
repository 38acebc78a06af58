//! Why a file is not taken as a provider.

use std::fmt;
use std::path::{Path, PathBuf};

/// Which check a file did not pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The path is relative, or climbs.
    Path,
    /// There is no such file.
    NotThere,
    /// The file, or a directory above it, can't be read.
    Unreadable,
    /// The file, or a directory above it, is a link.
    Link,
    /// It is a directory, a named pipe, a socket or a device.
    NotAFile,
    /// The file, or a directory above it, belongs to another user.
    Owner,
    /// Others may write the file, or a directory above it.
    Writable,
    /// It is too large.
    TooLarge,
    /// It is no ELF file.
    NotElf,
    /// It is for another machine.
    Machine,
    /// It is an ELF file, but no shared library.
    NotALibrary,
    /// It ends before what its headers announce.
    Truncated,
    /// Its tables make no sense.
    Damaged,
    /// It needs a newer C library.
    Glibc,
    /// What it needs is looked for in a place that is not fixed.
    Search,
    /// It does not export the entry point.
    NoSymbol,
    /// It has no manifest.
    NoManifest,
    /// Its manifest can't be read.
    Manifest,
    /// It speaks other versions of the boundary.
    Abi,
    /// It ends its process when it panics, and is to run in this one.
    Panic,
    /// No digest is pinned.
    NotPinned,
    /// It is not the file that was pinned.
    Digest,
    /// It can't be executed.
    NotExecutable,
}

/// A file that is not taken as a provider: what was expected, what was found, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Which check it did not pass.
    pub reason: Reason,
    /// The file, or the directory above it that is at fault.
    pub path: PathBuf,
    /// What should have been found.
    pub expected: String,
    /// What was found.
    pub found: String,
    /// What to do: a command wherever one exists.
    pub remedy: String,
}

impl Refusal {
    pub(crate) fn new(
        reason: Reason,
        path: &Path,
        expected: impl Into<String>,
        found: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self {
            reason,
            path: path.to_owned(),
            expected: expected.into(),
            found: found.into(),
            remedy: remedy.into(),
        }
    }

    /// Whether the file is not there at all.
    #[must_use]
    pub fn is_not_there(&self) -> bool {
        self.reason == Reason::NotThere
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        write!(
            f,
            "`{path}`: expected {}, found {}",
            self.expected, self.found
        )
    }
}

impl std::error::Error for Refusal {}

/// A command on a path, for a shell.
pub(crate) fn command(words: &str, path: &Path) -> String {
    let path = path.to_string_lossy();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+@%:,=".contains(c);
    if path.chars().all(plain) && !path.is_empty() {
        format!("{words} {path}")
    } else {
        format!("{words} '{}'", path.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::command;
    use std::path::Path;

    #[test]
    fn commands_can_be_pasted() {
        assert_eq!(command("ls -l", Path::new("/a/b-1.so")), "ls -l /a/b-1.so");
        assert_eq!(command("ls", Path::new("/a b's")), r"ls '/a b'\''s'");
    }
}
