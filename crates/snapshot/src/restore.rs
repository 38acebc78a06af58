//! Writes what an archive holds below a directory, and nowhere else.
//!
//! Every path is opened part by part from that directory, and no part may be a link; every file is new. So whatever the
//! archive says, nothing outside is touched and nothing is written twice.

use crate::archive::{Archive, Limits};
use crate::entry::{Entry, Kind};
use crate::error::SnapshotError;
use crate::walk::failed;
use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, Timespec, Timestamps, XattrFlags, chmodat, fchmod,
    fsetxattr, futimens, linkat, mkdirat, mknodat, openat, symlinkat, utimensat,
};
use rustix::io::Errno;
use std::ffi::{CString, OsStr};
use std::fs::{self, File, Permissions};
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Writes the archive's directories below `into`, which must be empty or absent. `progress` gets a count that
/// grows with all that is done. After a failure `into` is empty again.
///
/// Owners are those of the caller; set-id bits are dropped.
///
/// # Errors
/// `Damaged` when the archive is not whole or holds what it must not, `NotEmpty`, or what the operating system says.
pub fn restore(
    archive: impl Read,
    into: &Path,
    progress: &mut dyn FnMut(u64),
) -> Result<u64, SnapshotError> {
    restore_within(archive, into, Limits::USUAL, progress)
}

pub(crate) fn restore_within(
    archive: impl Read,
    into: &Path,
    limits: Limits,
    progress: &mut dyn FnMut(u64),
) -> Result<u64, SnapshotError> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(into)
        .map_err(|error| SnapshotError::io("make", into, error))?;
    let root = openat(CWD, into, DIRECTORY, Mode::empty())
        .map_err(|error| SnapshotError::io("open", into, error))?;
    let mut listing = fs::read_dir(into).map_err(|error| SnapshotError::io("list", into, error))?;
    if listing.next().is_some() {
        return Err(SnapshotError::NotEmpty {
            path: into.to_owned(),
        });
    }
    let mut tree = Tree {
        root,
        current: None,
        directories: Vec::new(),
    };
    let restored = Archive::new(archive, limits).and_then(|mut archive| {
        tree.fill(&mut archive, progress)
            .map(|()| archive.entries())
    });
    if restored.is_err() {
        tree.clear(into);
    }
    restored
}

const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

struct Tree {
    root: OwnedFd,
    /// The directory that was used last, since the next entry is most often in it too.
    current: Option<(Vec<u8>, OwnedFd)>,
    /// Their modes and times come last: until then they must be writable.
    directories: Vec<Entry>,
}

impl Tree {
    fn fill<R: Read>(
        &mut self,
        archive: &mut Archive<R>,
        progress: &mut dyn FnMut(u64),
    ) -> Result<(), SnapshotError> {
        while let Some(entry) = archive.next()? {
            let (parent, name) = split(&entry.path)?;
            let directory = self.open(parent)?;
            let wrong = |error: Errno| refused(&entry.path, error);
            match &entry.kind {
                Kind::Directory => {
                    mkdirat(directory, &name, Mode::RWXU).map_err(wrong)?;
                    self.directories.push(entry);
                }
                Kind::File(size) => {
                    let file = create(directory, &name, &entry)?;
                    write(archive, file, &entry, *size, progress)?;
                }
                Kind::Symlink(target) => {
                    symlinkat(text(target)?, directory, &name).map_err(wrong)?;
                    let times = times(entry.modified);
                    utimensat(directory, &name, &times, AtFlags::SYMLINK_NOFOLLOW)
                        .map_err(wrong)?;
                }
                Kind::HardLink(target) => {
                    let (parent, first) = split(target)?;
                    let here = directory
                        .try_clone_to_owned()
                        .map_err(|error| SnapshotError::io("open", Path::new("."), error))?;
                    let there = self.open(parent)?;
                    linkat(there, &first, &here, &name, AtFlags::empty()).map_err(wrong)?;
                }
                Kind::Fifo => fifo(directory, &name, &entry)?,
            }
            progress(archive.done());
        }
        self.finish(archive.done(), progress)
    }

    /// Opens a directory that came earlier in the archive.
    fn open(&mut self, path: &[u8]) -> Result<BorrowedFd<'_>, SnapshotError> {
        let below = |known: &[u8]| match path.strip_prefix(known) {
            Some([]) => Some(Vec::new()),
            Some([b'/', rest @ ..]) => Some(rest.to_vec()),
            Some(_) | None => None,
        };
        let start = self
            .current
            .take()
            .and_then(|(known, file)| Some((below(&known)?, file)));
        let (rest, mut at) = match start {
            Some((rest, file)) => (rest, Some(file)),
            None => (path.to_vec(), None),
        };
        for part in rest
            .split(|&byte| byte == b'/')
            .filter(|part| !part.is_empty())
        {
            let parent = at.as_ref().unwrap_or(&self.root);
            let next = openat(parent, text(part)?, DIRECTORY, Mode::empty())
                .map_err(|error| refused(path, error))?;
            at = Some(next);
        }
        match at {
            Some(file) => Ok(self.current.insert((path.to_vec(), file)).1.as_fd()),
            None => Ok(self.root.as_fd()),
        }
    }

    /// Gives the directories their modes and times, those that are deepest first.
    fn finish(
        &mut self,
        mut done: u64,
        progress: &mut dyn FnMut(u64),
    ) -> Result<(), SnapshotError> {
        for entry in std::mem::take(&mut self.directories).into_iter().rev() {
            let directory = self.open(&entry.path)?;
            let set = attributes(directory, &entry)
                .and_then(|()| fchmod(directory, mode(&entry)))
                .and_then(|()| futimens(directory, &times(entry.modified)));
            set.map_err(|error| failed("make", &entry.path, error))?;
            done += 1;
            progress(done);
        }
        Ok(())
    }

    /// Removes what was written. What can't be removed shows when the place is used again.
    fn clear(self, into: &Path) {
        for entry in &self.directories {
            let path = into.join(shown(&entry.path));
            let _ = fs::set_permissions(path, Permissions::from_mode(0o700));
        }
        let Ok(listing) = fs::read_dir(into) else {
            return;
        };
        for entry in listing.flatten() {
            let path = entry.path();
            let _ = fs::remove_dir_all(&path).or_else(|_| fs::remove_file(&path));
        }
    }
}

fn create(directory: BorrowedFd, name: &CString, entry: &Entry) -> Result<OwnedFd, SnapshotError> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(directory, name, flags, Mode::RUSR | Mode::WUSR)
        .map_err(|error| refused(&entry.path, error))
}

fn write<R: Read>(
    archive: &mut Archive<R>,
    file: OwnedFd,
    entry: &Entry,
    size: u64,
    progress: &mut dyn FnMut(u64),
) -> Result<(), SnapshotError> {
    let path = shown(&entry.path);
    let mut file = File::from(file);
    let mut done = archive.done();
    archive.content(size, |bytes| {
        done += bytes.len() as u64;
        progress(done);
        file.write_all(bytes)
            .map_err(|error| SnapshotError::io("write", &path, error))
    })?;
    let set = attributes(&file, entry)
        .and_then(|()| fchmod(&file, mode(entry)))
        .and_then(|()| futimens(&file, &times(entry.modified)));
    set.map_err(|error| failed("make", &entry.path, error))
}

fn fifo(directory: BorrowedFd, name: &CString, entry: &Entry) -> Result<(), SnapshotError> {
    let mode = mode(entry);
    mknodat(directory, name, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)
        .and_then(|()| chmodat(directory, name, mode, AtFlags::empty()))
        .and_then(|()| {
            utimensat(
                directory,
                name,
                &times(entry.modified),
                AtFlags::SYMLINK_NOFOLLOW,
            )
        })
        .map_err(|error| refused(&entry.path, error))
}

fn attributes(file: impl AsFd, entry: &Entry) -> rustix::io::Result<()> {
    for (name, value) in &entry.attributes {
        let name = CString::new(name.as_slice()).map_err(|_| Errno::INVAL)?;
        fsetxattr(&file, &name, value, XattrFlags::empty())?;
    }
    Ok(())
}

/// Without the set-id bits.
fn mode(entry: &Entry) -> Mode {
    Mode::from_raw_mode(entry.mode & 0o1777)
}

fn times((seconds, nanoseconds): (i64, u32)) -> Timestamps {
    let time = Timespec {
        tv_sec: seconds,
        tv_nsec: nanoseconds.into(),
    };
    Timestamps {
        last_access: time,
        last_modification: time,
    }
}

/// The directory that a path is in, and its name there.
fn split(path: &[u8]) -> Result<(&[u8], CString), SnapshotError> {
    let strange = |part: &[u8]| matches!(part, b"" | b"." | b"..");
    if path.split(|&byte| byte == b'/').any(strange) {
        return Err(SnapshotError::damaged(format!(
            "it holds the path {:?}",
            String::from_utf8_lossy(path)
        )));
    }
    match path.iter().rposition(|&byte| byte == b'/') {
        Some(slash) => Ok((&path[..slash], text(&path[slash + 1..])?)),
        None => Ok((b"", text(path)?)),
    }
}

fn text(bytes: &[u8]) -> Result<CString, SnapshotError> {
    CString::new(bytes).map_err(|_| SnapshotError::damaged("a name holds a zero byte"))
}

/// Failures that only a hostile or torn archive brings about are its fault, not the system's.
fn refused(path: &[u8], error: Errno) -> SnapshotError {
    let why = match error {
        Errno::EXIST => "comes twice",
        Errno::NOENT => "comes before what it needs",
        Errno::NOTDIR | Errno::LOOP => "leads through something that is no directory",
        Errno::NAMETOOLONG => "is too long",
        _ => return failed("make", path, error),
    };
    SnapshotError::damaged(format!("{:?} {why}", String::from_utf8_lossy(path)))
}

fn shown(path: &[u8]) -> PathBuf {
    OsStr::from_bytes(path).into()
}

#[cfg(test)]
mod tests;
