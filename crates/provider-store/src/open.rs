//! Opens a provider's file, and looks at every directory on the way to it.
//!
//! The path is walked with one descriptor after the other, so that what is looked at is what is opened, on every kernel:
//! no component is a link; each belongs to root or to the caller; nobody else may write it. A directory that anybody may
//! write is accepted only where it is root's and has the sticky bit, as `/tmp`: there only the owner of an entry can
//! replace it, and the entry's owner is looked at too. (sshd refuses such a directory; sudo does not look at directories.)

use crate::refusal::{Reason, Refusal, command};
use rustix::fd::{AsRawFd, BorrowedFd, OwnedFd};
use rustix::fs::{FileType, Mode, OFlags, Stat, fstat, open as open_at_once, openat, readlinkat};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

/// Looks at a file without reading it, following or waiting for it.
const LOOK: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
/// Group and others.
const OTHERS_WRITE: u32 = 0o022;
/// Only the owner of an entry may replace it.
const STICKY: u32 = 0o1000;

/// A file that is open for reading, and of which nobody but root and the caller can have written a byte.
#[derive(Debug)]
pub struct Opened {
    /// The descriptor that every later check reads.
    pub file: OwnedFd,
    /// The path by which it was found.
    pub path: PathBuf,
    /// Its size in bytes.
    pub size: u64,
    /// Whether its owner may execute it.
    pub executable: bool,
}

/// Opens the file of an absolute path, as a configuration gives it.
///
/// # Errors
/// When the path is not absolute, or a component of it is a link, another's, or writable by others; when the file is not a
/// regular one, or can't be read.
pub fn open(path: &Path) -> Result<Opened, Refusal> {
    let names = components(path)?;
    let root = open_at_once("/", LOOK, Mode::empty()).map_err(|error| failed(path, error))?;
    let (last, above) = names.split_last().ok_or_else(|| not_absolute(path))?;
    let mut at = PathBuf::from("/");
    let mut directory = root;
    for name in above {
        trusted(&at, &stat(&at, directory.as_fd())?)?;
        at.push(name);
        let next = look(&directory, name, &at)?;
        let found = stat(&at, next.as_fd())?;
        refuse_link(&at, &next, &found)?;
        if FileType::from_raw_mode(found.st_mode) != FileType::Directory {
            return Err(not_there(path));
        }
        directory = next;
    }
    trusted(&at, &stat(&at, directory.as_fd())?)?;
    at.push(last);
    finish(at, &directory, last)
}

/// Opens a file that a person names now, perhaps from where they are. Links in the directories above it are theirs, and are
/// followed first.
///
/// # Errors
/// As [`open`].
pub fn open_named(path: &Path) -> Result<Opened, Refusal> {
    let path = std::path::absolute(path).map_err(|_| not_absolute(path))?;
    let resolved = match (path.parent().map(Path::canonicalize), path.file_name()) {
        (Some(Ok(parent)), Some(name)) => parent.join(name),
        _ => path,
    };
    open(&resolved)
}

/// The names on the way to a file.
fn components(path: &Path) -> Result<Vec<&OsStr>, Refusal> {
    let mut names = Vec::new();
    for part in path.components() {
        match part {
            Component::RootDir => {}
            Component::Normal(name) => names.push(name),
            Component::CurDir | Component::ParentDir | Component::Prefix(_) => {
                return Err(not_absolute(path));
            }
        }
    }
    // A path that ends in a slash means a directory.
    let ends_in_slash = path.as_os_str().as_bytes().ends_with(b"/");
    if !path.is_absolute() || names.is_empty() || ends_in_slash {
        return Err(not_absolute(path));
    }
    Ok(names)
}

/// The file itself: looked at before it is opened, since opening some kinds of files does something.
fn finish(at: PathBuf, directory: &OwnedFd, name: &OsStr) -> Result<Opened, Refusal> {
    let looked = look(directory, name, &at)?;
    let found = stat(&at, looked.as_fd())?;
    refuse_link(&at, &looked, &found)?;
    let kind = FileType::from_raw_mode(found.st_mode);
    if kind != FileType::RegularFile {
        return Err(Refusal::new(
            Reason::NotAFile,
            &at,
            "a regular file",
            format!("{}: give the path of the file itself", told(kind)),
            command("ls -ld", &at),
        ));
    }
    trusted(&at, &found)?;
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let again = format!("/proc/self/fd/{}", looked.as_raw_fd());
    let file = open_at_once(again, flags, Mode::empty()).map_err(|error| failed(&at, error))?;
    Ok(Opened {
        size: u64::try_from(found.st_size).unwrap_or(0),
        executable: found.st_mode & 0o100 != 0,
        file,
        path: at,
    })
}

fn look(directory: &OwnedFd, name: &OsStr, at: &Path) -> Result<OwnedFd, Refusal> {
    openat(directory, name, LOOK, Mode::empty()).map_err(|error| failed(at, error))
}

fn stat(at: &Path, file: BorrowedFd<'_>) -> Result<Stat, Refusal> {
    fstat(file).map_err(|error| failed(at, error))
}

fn refuse_link(at: &Path, file: &OwnedFd, found: &Stat) -> Result<(), Refusal> {
    if FileType::from_raw_mode(found.st_mode) != FileType::Symlink {
        return Ok(());
    }
    let to = readlinkat(file, "", Vec::new()).unwrap_or_default();
    let shown = String::from_utf8_lossy(to.as_bytes()).into_owned();
    Err(Refusal::new(
        Reason::Link,
        at,
        "a path without links",
        format!("a link to `{shown}`: name what it leads to"),
        command("realpath", at),
    ))
}

/// Refuses what another user owns or may write.
fn trusted(at: &Path, found: &Stat) -> Result<(), Refusal> {
    let caller = rustix::process::geteuid().as_raw();
    if found.st_uid != 0 && found.st_uid != caller {
        return Err(Refusal::new(
            Reason::Owner,
            at,
            "an owner that is root or you",
            format!(
                "the owner with user id {}: copy it to a place of your own, or `chown` it",
                found.st_uid
            ),
            command("ls -ld", at),
        ));
    }
    let is_shared = FileType::from_raw_mode(found.st_mode) == FileType::Directory
        && found.st_mode & STICKY != 0
        && found.st_uid == 0;
    if found.st_mode & OTHERS_WRITE != 0 && !is_shared {
        return Err(Refusal::new(
            Reason::Writable,
            at,
            "nothing that group or others may write",
            format!("mode {:04o}", found.st_mode & 0o7777),
            command("chmod go-w", at),
        ));
    }
    Ok(())
}

fn told(kind: FileType) -> &'static str {
    match kind {
        FileType::RegularFile => "a regular file",
        FileType::Directory => "a directory",
        FileType::Symlink => "a link",
        FileType::Fifo => "a named pipe",
        FileType::Socket => "a socket",
        FileType::CharacterDevice | FileType::BlockDevice => "a device",
        FileType::Unknown => "something else",
    }
}

fn failed(path: &Path, error: Errno) -> Refusal {
    if matches!(error, Errno::NOENT | Errno::NOTDIR) {
        return not_there(path);
    }
    Refusal::new(
        Reason::Unreadable,
        path,
        "a file that you may read",
        std::io::Error::from(error).to_string(),
        command("ls -ld", path),
    )
}

fn not_there(path: &Path) -> Refusal {
    Refusal::new(
        Reason::NotThere,
        path,
        "a provider's file",
        "nothing: build or copy it anew",
        command("ls -ld", path),
    )
}

fn not_absolute(path: &Path) -> Refusal {
    Refusal::new(
        Reason::Path,
        path,
        "the absolute path of a file, without `..`",
        "another form of path",
        command("realpath", path),
    )
}
