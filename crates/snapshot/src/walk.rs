//! Walks a tree by file descriptors, without following a link and however deep it is.

use crate::error::SnapshotError;
use crate::unlock::{Lifted, refused, unlock};
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat, fstat, openat, statat};
use rustix::io::Errno;
use std::ffi::{CStr, CString, OsStr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// How many directories are kept open at once. Those above are opened again from below.
const KEPT: usize = 64;

/// What the walk finds, in an order that is the same each time: a directory, what is in it, then its subdirectories.
#[derive(Debug)]
pub(crate) struct Found<'a> {
    /// The directory that is walked.
    pub(crate) root: &'a Path,
    /// The path in the archive.
    pub(crate) path: &'a [u8],
    /// The directory it is in, and its name there; for a directory, itself and `.`.
    pub(crate) parent: BorrowedFd<'a>,
    pub(crate) name: &'a CString,
    pub(crate) stat: Stat,
}

pub(crate) enum Seen<'a> {
    Entry(Found<'a>),
    /// A subdirectory, which is shown later.
    Later,
    /// It was listed, and then it was no longer there.
    Vanished(&'a [u8]),
}

struct Level {
    directory: Option<OwnedFd>,
    identity: (u64, u64),
    /// How long the path is up to here.
    length: usize,
    /// Subdirectories that are still to be walked, last first.
    pending: Vec<CString>,
    /// It was locked; it stays open until all below is seen.
    _lifted: Option<Lifted>,
}

/// A directory that can be listed and searched.
struct Opened {
    directory: OwnedFd,
    /// As it is for those who find it locked.
    stat: Stat,
    lifted: Option<Lifted>,
}

const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::NONBLOCK)
    .union(OFlags::CLOEXEC);

/// Shows every entry below `root`, and the root itself, to `visit`.
pub(crate) fn walk(
    name: &str,
    root: &Path,
    visit: &mut dyn FnMut(Seen) -> Result<(), SnapshotError>,
) -> Result<(), SnapshotError> {
    let mut path = name.as_bytes().to_vec();
    let opened = CString::new(root.as_os_str().as_bytes())
        .map_err(|_| Errno::INVAL)
        .and_then(|name| open(CWD, &name));
    let directory = match opened {
        Err(Errno::NOENT) => {
            return Err(SnapshotError::Missing {
                path: root.to_owned(),
            });
        }
        Err(Errno::ACCESS) => return Err(refused("open", root, &path, Errno::ACCESS)),
        opened => opened.map_err(|error| SnapshotError::io("open", root, error))?,
    };
    let mut levels = vec![enter(root, directory, &path, visit)?];
    while let Some(level) = levels.last_mut() {
        path.truncate(level.length);
        let Some(child) = level.pending.pop() else {
            leave(&mut levels, &path)?;
            continue;
        };
        let parent = open_parent(level, &path)?;
        path.push(b'/');
        path.extend_from_slice(child.as_bytes());
        match open(parent, &child) {
            Ok(directory) => {
                let next = enter(root, directory, &path, visit)?;
                levels.push(next);
                if let Some(above) = levels.len().checked_sub(KEPT + 1) {
                    levels[above].directory = None;
                }
            }
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => visit(Seen::Vanished(&path))?,
            Err(error) => return Err(refused("open", root, &path, error)),
        }
    }
    Ok(())
}

/// Opens a directory, and unlocks it if it is this user's and can't be listed or searched.
fn open(parent: BorrowedFd, name: &CStr) -> rustix::io::Result<Opened> {
    let opened = openat(parent, name, DIRECTORY, Mode::empty()).and_then(|directory| {
        // Even this needs the right to search it.
        let stat = statat(&directory, c".", AtFlags::SYMLINK_NOFOLLOW)?;
        Ok(Opened {
            directory,
            stat,
            lifted: None,
        })
    });
    match opened {
        Err(Errno::ACCESS) => unlock(parent, name, DIRECTORY).map(|unlocked| Opened {
            directory: unlocked.file,
            stat: unlocked.stat,
            lifted: Some(unlocked.lifted),
        }),
        opened => opened,
    }
}

fn open_parent<'a>(level: &'a Level, path: &[u8]) -> Result<BorrowedFd<'a>, SnapshotError> {
    level
        .directory
        .as_ref()
        .map(AsFd::as_fd)
        .ok_or_else(|| failed("open", path, Errno::BADF))
}

/// Goes up a level, which is opened from below if it was not kept open.
fn leave(levels: &mut Vec<Level>, path: &[u8]) -> Result<(), SnapshotError> {
    let (Some(left), Some(parent)) = (levels.pop(), levels.last_mut()) else {
        return Ok(());
    };
    if parent.directory.is_some() {
        return Ok(());
    }
    let below = open_parent(&left, path)?;
    let directory = openat(below, "..", DIRECTORY, Mode::empty())
        .map_err(|error| failed("open", path, error))?;
    let stat = fstat(&directory).map_err(|error| failed("read", path, error))?;
    if (stat.st_dev, stat.st_ino) != parent.identity {
        return Err(failed("find the way back from", path, Errno::STALE));
    }
    parent.directory = Some(directory);
    Ok(())
}

/// Shows a directory and all in it that is no directory.
fn enter(
    root: &Path,
    opened: Opened,
    path: &[u8],
    visit: &mut dyn FnMut(Seen) -> Result<(), SnapshotError>,
) -> Result<Level, SnapshotError> {
    let Opened {
        directory,
        stat,
        lifted,
    } = opened;
    let dot = CString::from(c".");
    visit(Seen::Entry(Found {
        root,
        path,
        parent: directory.as_fd(),
        name: &dot,
        stat,
    }))?;
    let mut pending = Vec::new();
    let mut child = path.to_vec();
    child.push(b'/');
    for name in names(&directory, path)? {
        child.truncate(path.len() + 1);
        child.extend_from_slice(name.as_bytes());
        let stat = match statat(&directory, &name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => {
                visit(Seen::Vanished(&child))?;
                continue;
            }
            Err(error) => return Err(failed("read", &child, error)),
        };
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            pending.push(name);
            visit(Seen::Later)?;
            continue;
        }
        visit(Seen::Entry(Found {
            root,
            path: &child,
            parent: directory.as_fd(),
            name: &name,
            stat,
        }))?;
    }
    pending.reverse();
    Ok(Level {
        directory: Some(directory),
        identity: (stat.st_dev, stat.st_ino),
        length: path.len(),
        pending,
        _lifted: lifted,
    })
}

fn names(directory: &OwnedFd, path: &[u8]) -> Result<Vec<CString>, SnapshotError> {
    let listing = Dir::read_from(directory).map_err(|error| failed("list", path, error))?;
    let mut names = Vec::new();
    for entry in listing {
        let entry = entry.map_err(|error| failed("list", path, error))?;
        let name = entry.file_name();
        if name != c"." && name != c".." {
            names.push(name.to_owned());
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// A failure on a path of the archive.
pub(crate) fn failed(what: &'static str, path: &[u8], error: Errno) -> SnapshotError {
    SnapshotError::io(what, &PathBuf::from(OsStr::from_bytes(path)), error)
}
