//! Captures directories: reads them into an archive.

use crate::entry::{Attribute, Entry, Kind, padding};
use crate::error::SnapshotError;
use crate::types::{Captured, LeftOut, Root};
use crate::unlock::{Lifted, refused, unlock};
use crate::walk::{Found, Seen, failed, walk};
use crate::writer::{Writer, write};
use rustix::fs::{
    FileType, Mode, OFlags, SeekFrom, fgetxattr, flistxattr, fstat, openat, readlinkat, seek,
};
use rustix::io::{Errno, pread};
use std::collections::HashMap;
use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

const CHUNK: usize = 256 * 1024;
const VANISHED: &str = "it vanished while it was captured";
const LONGEST_ATTRIBUTE: usize = 64 * 1024;

/// Writes all of the roots to the file `to`, which is replaced in one step. `progress` gets a count that grows with all that
/// is done: the bytes of the archive before they are packed, and the time that the disk takes at the end.
///
/// Work is never lost silently: what can't be read is an error that names it. Sockets and devices, which no archive can
/// hold, and files that vanished or changed meanwhile, are told in `left_out`. What the caller owns and may not read by its
/// mode is read all the same, and its mode is kept.
///
/// # Errors
/// When something can't be read or written; the name `to` is then as it was.
pub fn capture(
    roots: &[Root],
    to: &Path,
    progress: &mut dyn FnMut(u64),
) -> Result<Captured, SnapshotError> {
    for root in roots {
        let name = root.name;
        if name.is_empty() || name == "." || name == ".." || name.contains(['/', '\0']) {
            return Err(SnapshotError::Name {
                name: name.to_owned(),
            });
        }
    }
    write(to, progress, |writer| {
        let mut capture = Capture {
            writer,
            left_out: Vec::new(),
            links: HashMap::new(),
            chunk: vec![0; CHUNK],
        };
        for root in roots {
            walk(root.name, root.path, &mut |seen| capture.visit(seen))?;
        }
        Ok(capture.left_out)
    })
}

struct Capture<'a, 'b> {
    writer: &'a mut Writer<'b>,
    left_out: Vec<LeftOut>,
    /// Device and inode of files with several names → the first name.
    links: HashMap<(u64, u64), Vec<u8>>,
    chunk: Vec<u8>,
}

impl Capture<'_, '_> {
    fn visit(&mut self, seen: Seen) -> Result<(), SnapshotError> {
        self.writer.tell(1);
        let found = match seen {
            Seen::Entry(found) => found,
            Seen::Later => return Ok(()),
            Seen::Vanished(path) => {
                self.leave_out(path, VANISHED);
                return Ok(());
            }
        };
        let identity = (found.stat.st_dev, found.stat.st_ino);
        let kind = FileType::from_raw_mode(found.stat.st_mode);
        let linked = found.stat.st_nlink > 1 && kind != FileType::Directory;
        if linked && let Some(first) = self.links.get(&identity) {
            let link = entry(&found, Kind::HardLink(first.clone()));
            return self.writer.add(&link);
        }
        let kept = match kind {
            FileType::RegularFile => self.file(&found)?,
            FileType::Directory => self.directory(&found)?,
            FileType::Symlink => self.symlink(&found)?,
            FileType::Fifo => {
                self.writer.add(&entry(&found, Kind::Fifo))?;
                true
            }
            FileType::Socket => self.leave_out(found.path, "a socket can't be kept"),
            FileType::CharacterDevice | FileType::BlockDevice | FileType::Unknown => {
                self.leave_out(found.path, "a device can't be kept")
            }
        };
        if kept && linked {
            self.links.insert(identity, found.path.to_vec());
        }
        Ok(())
    }

    fn directory(&mut self, found: &Found) -> Result<bool, SnapshotError> {
        let mut entry = entry(found, Kind::Directory);
        entry.attributes = self.attributes(found.parent, found.path)?;
        self.writer.add(&entry)?;
        Ok(true)
    }

    fn symlink(&mut self, found: &Found) -> Result<bool, SnapshotError> {
        match readlinkat(found.parent, found.name, Vec::new()) {
            Ok(target) => {
                self.writer
                    .add(&entry(found, Kind::Symlink(target.into_bytes())))?;
                Ok(true)
            }
            Err(Errno::NOENT) => Ok(self.leave_out(found.path, VANISHED)),
            Err(error) => Err(failed("read", found.path, error)),
        }
    }

    fn file(&mut self, found: &Found) -> Result<bool, SnapshotError> {
        let wrong = |error| failed("read", found.path, error);
        let (file, lifted) = match open(found) {
            Err(Errno::NOENT) => return Ok(self.leave_out(found.path, VANISHED)),
            opened => opened.map_err(|error| refused("read", found.root, found.path, error))?,
        };
        let stat = fstat(&file).map_err(wrong)?;
        if (stat.st_dev, stat.st_ino) != (found.stat.st_dev, found.stat.st_ino) {
            return Ok(self.leave_out(found.path, "it was replaced while it was captured"));
        }
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        let mut entry = entry(found, Kind::File(size));
        entry.modified = modified(&stat);
        entry.attributes = self.attributes(&file, found.path)?;
        // The content needs no right any more, the attributes did.
        drop(lifted);
        self.writer.add(&entry)?;
        self.content(found.path, &file, size)?;
        let after = fstat(&file).map_err(wrong)?;
        if (after.st_size, modified(&after)) != (stat.st_size, modified(&stat)) {
            self.leave_out(
                found.path,
                "it changed while it was captured: what was read is kept",
            );
        }
        Ok(true)
    }

    /// Exactly as many bytes as were announced: what is missing is zero, what is more is not read. Neither are holes.
    fn content(&mut self, path: &[u8], file: &OwnedFd, size: u64) -> Result<(), SnapshotError> {
        let mut at = 0;
        while at < size {
            let data = data_from(file, at, size);
            self.writer.put_zeros(data - at)?;
            at = data;
            if at < size {
                at = self.data(path, file, at, hole_from(file, at, size))?;
            }
        }
        self.writer.put(&[0; 512][..padding(size)])
    }

    /// Reads from `at` up to `end`, or up to where the file ends by now; gives where that is.
    fn data(
        &mut self,
        path: &[u8],
        file: &OwnedFd,
        mut at: u64,
        end: u64,
    ) -> Result<u64, SnapshotError> {
        while at < end {
            let left = usize::try_from(end - at).unwrap_or(usize::MAX);
            let want = self.chunk.len().min(left);
            let read = match pread(file, &mut self.chunk[..want], at) {
                Err(Errno::INTR) => continue,
                read => read.map_err(|error| failed("read", path, error))?,
            };
            if read == 0 {
                self.writer.put_zeros(end - at)?;
                return Ok(end);
            }
            self.writer.put(&self.chunk[..read])?;
            at += read as u64;
        }
        Ok(at)
    }

    /// Says what is not kept as it is; the answer is that it is not.
    fn leave_out(&mut self, path: &[u8], reason: &str) -> bool {
        self.left_out.push(LeftOut {
            path: String::from_utf8_lossy(path).into_owned(),
            reason: reason.to_owned(),
        });
        false
    }

    /// The extended attributes of the user's own name space.
    fn attributes(
        &mut self,
        file: impl AsFd,
        path: &[u8],
    ) -> Result<Vec<Attribute>, SnapshotError> {
        let wrong = |error| failed("read the attributes of", path, error);
        let names = match grown(|buffer| flistxattr(&file, buffer)) {
            Err(Errno::NOTSUP) => Vec::new(),
            listed => listed.map_err(wrong)?,
        };
        let mut found = Vec::new();
        for name in names.split(|&byte| byte == 0) {
            if !name.starts_with(b"user.") {
                continue;
            }
            if name.contains(&b'=') {
                self.leave_out(path, "an attribute with `=` in its name can't be kept");
                continue;
            }
            let Ok(key) = CString::new(name) else {
                continue;
            };
            match grown(|buffer| fgetxattr(&file, &key, buffer)) {
                Err(Errno::NODATA) => {}
                value => found.push((name.to_vec(), value.map_err(wrong)?)),
            }
        }
        found.sort_unstable();
        Ok(found)
    }
}

/// Where the first data from here on is. Where the file system can't tell holes, all is data.
fn data_from(file: &OwnedFd, at: u64, size: u64) -> u64 {
    match seek(file, SeekFrom::Data(at)) {
        Ok(data) => data.clamp(at, size),
        Err(Errno::NXIO) => size,
        Err(_) => at,
    }
}

/// Where the data from here on ends.
fn hole_from(file: &OwnedFd, at: u64, size: u64) -> u64 {
    seek(file, SeekFrom::Hole(at)).map_or(size, |hole| hole.clamp(at + 1, size))
}

/// What a system call gives that says `ERANGE` where the buffer is too small.
fn grown(
    mut call: impl FnMut(&mut [u8]) -> rustix::io::Result<usize>,
) -> rustix::io::Result<Vec<u8>> {
    let mut small = [0; 256];
    match call(&mut small) {
        Ok(length) => Ok(small[..length].to_vec()),
        Err(Errno::RANGE) => {
            let mut large = vec![0; LONGEST_ATTRIBUTE];
            let length = call(&mut large)?;
            large.truncate(length);
            Ok(large)
        }
        Err(error) => Err(error),
    }
}

fn entry(found: &Found, kind: Kind) -> Entry {
    Entry {
        path: found.path.to_vec(),
        kind,
        mode: found.stat.st_mode & 0o7777,
        owner: (found.stat.st_uid, found.stat.st_gid),
        modified: modified(&found.stat),
        attributes: Vec::new(),
    }
}

fn modified(stat: &rustix::fs::Stat) -> (i64, u32) {
    (
        stat.st_mtime,
        u32::try_from(stat.st_mtime_nsec).unwrap_or(0),
    )
}

/// Opens a file without following a link, without waiting, and, where that is allowed, without touching its access time.
fn open(found: &Found) -> rustix::io::Result<(OwnedFd, Option<Lifted>)> {
    let flags =
        OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let quietly = flags | OFlags::NOATIME;
    let opened = match openat(found.parent, found.name, quietly, Mode::empty()) {
        Err(Errno::PERM) => openat(found.parent, found.name, flags, Mode::empty()),
        opened => opened,
    };
    match opened {
        Err(Errno::ACCESS) => unlock(found.parent, found.name, quietly)
            .map(|unlocked| (unlocked.file, Some(unlocked.lifted))),
        opened => opened.map(|file| (file, None)),
    }
}
