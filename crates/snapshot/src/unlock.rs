//! Opens what its owner has locked to themself: a mode that lacks a right is lifted for a moment, then put back.
//!
//! What belongs to somebody else stays closed. The file is pinned first, so that whatever its name leads to by then, the
//! mode that changes and the one that comes back are those of the same file.

use crate::error::SnapshotError;
use rustix::fs::{CWD, FileType, Mode, OFlags, Stat, chmod, fstat, openat};
use rustix::io::Errno;
use rustix::process::geteuid;
use std::ffi::{CStr, OsStr};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// A file that was locked.
#[derive(Debug)]
pub(crate) struct Unlocked {
    pub(crate) file: OwnedFd,
    /// As it was while it was locked.
    pub(crate) stat: Stat,
    pub(crate) lifted: Lifted,
}

/// A mode that is lifted for as long as this lives.
#[derive(Debug)]
pub(crate) struct Lifted {
    pinned: OwnedFd,
    mode: Mode,
}

impl Drop for Lifted {
    fn drop(&mut self) {
        // The archive has the mode as it was, so nothing that is kept depends on this.
        let _ = chmod(named(&self.pinned), self.mode);
    }
}

/// Opens a file or a directory to which this user has no right, but which is theirs.
///
/// # Errors
/// `ACCESS` when it is not theirs, or neither a file nor a directory.
pub(crate) fn unlock(
    parent: impl AsFd,
    name: impl AsRef<CStr>,
    flags: OFlags,
) -> rustix::io::Result<Unlocked> {
    let pin = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let pinned = openat(parent, name.as_ref(), pin, Mode::empty())?;
    let stat = fstat(&pinned)?;
    let right = match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => Mode::RUSR | Mode::XUSR,
        FileType::RegularFile => Mode::RUSR,
        FileType::Symlink
        | FileType::Fifo
        | FileType::Socket
        | FileType::CharacterDevice
        | FileType::BlockDevice
        | FileType::Unknown => return Err(Errno::ACCESS),
    };
    if stat.st_uid != geteuid().as_raw() {
        return Err(Errno::ACCESS);
    }
    let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
    chmod(named(&pinned), mode | right)?;
    let lifted = Lifted { pinned, mode };
    // It is opened by the pin, which is a link: the name may be another file's by now.
    let flags = flags - OFlags::NOFOLLOW;
    let file = openat(CWD, named(&lifted.pinned), flags, Mode::empty())?;
    Ok(Unlocked { file, stat, lifted })
}

/// The name that leads to an open file and to no other.
fn named(file: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", file.as_raw_fd())
}

/// A failure on something below a root: where rights are missing, it says how to get them.
pub(crate) fn refused(what: &'static str, root: &Path, path: &[u8], error: Errno) -> SnapshotError {
    if error != Errno::ACCESS {
        return crate::walk::failed(what, path, error);
    }
    let full = below(root, path);
    // All of the root at once: where one file is another's, more may be.
    let source = io::Error::new(
        io::ErrorKind::PermissionDenied,
        format!(
            "permission denied; make it yours: `sudo chown -R \"$(id -u)\" {}`",
            quoted(root).unwrap_or_default()
        ),
    );
    SnapshotError::io(what, &full, source)
}

/// The place in the file system of a path in the archive, whose first part is the root's name.
fn below(root: &Path, path: &[u8]) -> PathBuf {
    match path.iter().position(|&byte| byte == b'/') {
        Some(slash) => root.join(OsStr::from_bytes(&path[slash + 1..])),
        None => root.to_owned(),
    }
}

/// As one word of a shell's command; none for a name that a terminal would not show as it is.
fn quoted(path: &Path) -> Option<String> {
    let text = path.to_str()?;
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:@%,=".contains(c);
    if text.chars().any(char::is_control) {
        None
    } else if text.chars().all(plain) {
        Some(text.to_owned())
    } else {
        Some(format!("'{}'", text.replace('\'', r"'\''")))
    }
}

#[cfg(test)]
mod tests {
    use super::{refused, unlock};
    use rustix::fs::{CWD, OFlags};
    use rustix::io::Errno;
    use std::error::Error;
    use std::ffi::CString;
    use std::fs::{self, Permissions};
    use std::io::Read;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::path::Path;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn the_mode_is_lifted_for_a_moment_only() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("f");
        let name = CString::new(path.as_os_str().as_bytes()).unwrap();
        fs::write(&path, "text").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o020)).unwrap();
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let unlocked = unlock(CWD, &name, flags).unwrap();
        assert_eq!(mode(&path), 0o420);
        assert_eq!(unlocked.stat.st_mode & 0o7777, 0o020);
        drop(unlocked.lifted);
        assert_eq!(mode(&path), 0o020);
        let mut text = String::new();
        fs::File::from(unlocked.file)
            .read_to_string(&mut text)
            .unwrap();
        assert_eq!(text, "text");
        // It can't be opened as a directory, and its mode is what it was.
        assert_eq!(
            unlock(CWD, &name, flags | OFlags::DIRECTORY).err(),
            Some(Errno::NOTDIR)
        );
        assert_eq!(mode(&path), 0o020);
        let link = place.path().join("l");
        symlink(&path, &link).unwrap();
        let link = CString::new(link.as_os_str().as_bytes()).unwrap();
        assert_eq!(unlock(CWD, &link, flags).err(), Some(Errno::ACCESS));
    }

    #[test]
    fn the_command_is_one_that_can_be_pasted() {
        let command = |path: &[u8]| {
            let error = refused("open", Path::new("/a b"), path, Errno::ACCESS);
            error.source().unwrap().to_string()
        };
        for (path, word) in [
            (&b"workspace"[..], "'/a b'"),
            (b"workspace/$(x)'", "'/a b'"),
            (b"workspace/x\ny", "'/a b'"),
            (b"workspace/\xff", "'/a b'"),
        ] {
            let end = format!("`sudo chown -R \"$(id -u)\" {word}`");
            assert!(command(path).ends_with(&end), "{}", command(path));
        }
        let error = refused("open", Path::new("/w"), b"workspace/d/f", Errno::ACCESS);
        assert_eq!(error.to_string(), "can't open `/w/d/f`");
    }
}
