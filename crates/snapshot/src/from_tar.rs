//! Turns what a foreign `tar` wrote into an archive, entry by entry, without a file of it on this machine.
//!
//! The stream comes from where an agent worked, so it is hostile: whatever it says, the archive holds one root, each path
//! once, after its directory, and nothing that [`restore`](crate::restore) refuses.

use crate::entry::{Attribute, Entry, Kind, padding};
use crate::error::SnapshotError;
use crate::foreign::{Foreign, Head};
use crate::pax;
use crate::types::{Captured, LeftOut};
use crate::writer::{Writer, write};
use std::collections::HashMap;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use tar::Header;

const CHUNK: usize = 256 * 1024;
const MOST_ENTRIES: usize = 10_000_000;
const MOST_LEFT_OUT: usize = 10_000;
const LONGEST_PATH: usize = 4096;
const LONGEST_NAME: usize = 255;

/// Writes the directory that a tar stream holds (as `.`, or without a name of its own) to the file `to` as the root `root`.
/// The file is replaced in one step. `progress` gets a count that grows with all that is done.
///
/// A stream that ends early at the border of two entries looks whole: the caller has to know that its writer succeeded.
/// What can't be kept is told in `left_out`.
///
/// # Errors
/// `Damaged` when it is no whole tar stream, or holds too much; else when something can't be read or written.
/// The name `to` is then as it was.
pub fn from_tar(
    tar: impl Read,
    root: &str,
    beside: &[Beside],
    to: &Path,
    progress: &mut dyn FnMut(u64),
) -> Result<Captured, SnapshotError> {
    write(to, progress, |writer| {
        let mut taking = Taking {
            writer,
            root: root.as_bytes(),
            left_out: Vec::new(),
            more_left_out: 0,
            seen: HashMap::new(),
            chunk: vec![0; CHUNK],
        };
        let mut from = Foreign::new(tar);
        while let Some(head) = from.next()? {
            taking.take(&mut from, head)?;
        }
        from.drain()?;
        taking.open_root()?;
        for file in beside {
            taking.file(file)?;
        }
        Ok(taking.all_left_out())
    })
}

/// A file that goes into an archive beside what a stream holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Beside {
    /// Its name in the archive, outside of the stream's root.
    pub name: String,
    /// Where it is.
    pub path: PathBuf,
}

/// What a path was taken as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Taken {
    Directory,
    Other,
}

struct Taking<'a, 'b> {
    writer: &'a mut Writer<'b>,
    root: &'a [u8],
    left_out: Vec<LeftOut>,
    more_left_out: usize,
    /// By the digests of their paths, which are shorter than the paths.
    seen: HashMap<[u8; 16], Taken>,
    chunk: Vec<u8>,
}

impl Taking<'_, '_> {
    fn take<R: Read>(&mut self, from: &mut Foreign<R>, head: Head) -> Result<(), SnapshotError> {
        self.writer.tell(1);
        let path = match self.placed(&head.path) {
            Ok(path) => path,
            Err(why) => return self.leave_out(&head.path, why),
        };
        let kind = match self.kind(&head) {
            Ok(kind) => kind,
            Err(why) => return self.leave_out(&path, why),
        };
        match (self.seen.get(&key(&path)), &kind) {
            // A directory that was needed before it came, or that comes again.
            (Some(Taken::Directory), Kind::Directory) => return Ok(()),
            (Some(_), _) => return self.leave_out(&path, "it comes twice"),
            (None, _) => {}
        }
        if let Err(why) = self.open_parents(&path)? {
            return self.leave_out(&path, why);
        }
        self.add(&described(&head, path, kind)?)?;
        match is_file(&head.header) {
            true => self.content(from),
            false => Ok(()),
        }
    }

    /// The path in the archive, if it stays below the root.
    fn placed(&self, given: &[u8]) -> Result<Vec<u8>, &'static str> {
        if given.first() == Some(&b'/') {
            return Err("its path is absolute");
        }
        let mut path = self.root.to_vec();
        for part in given.split(|&byte| byte == b'/') {
            match part {
                b"" | b"." => {}
                b".." => return Err("its path leads out of the workspace"),
                part if part.contains(&0) => return Err("its name holds a zero byte"),
                part if part.len() > LONGEST_NAME => return Err("its name is too long"),
                part => {
                    path.push(b'/');
                    path.extend_from_slice(part);
                }
            }
        }
        match path.len() < LONGEST_PATH {
            true => Ok(path),
            false => Err("its path is too long"),
        }
    }

    fn kind(&self, head: &Head) -> Result<Kind, &'static str> {
        match head.header.entry_type().as_byte() {
            _ if is_file(&head.header) => Ok(Kind::File(head.size)),
            b'5' => Ok(Kind::Directory),
            b'6' => Ok(Kind::Fifo),
            b'2' => match head.target.len() {
                1..LONGEST_PATH => Ok(Kind::Symlink(head.target.clone())),
                _ => Err("its target can't be one"),
            },
            b'1' => {
                let target = self.placed(&head.target)?;
                match self.seen.get(&key(&target)) {
                    Some(Taken::Other) => Ok(Kind::HardLink(target)),
                    Some(Taken::Directory) | None => Err("what it is another name of is not there"),
                }
            }
            b'3' | b'4' => Err("a device can't be kept"),
            _ => Err("its kind is not known"),
        }
    }

    /// Makes sure that there is a root, though nothing is in it.
    fn open_root(&mut self) -> Result<(), SnapshotError> {
        let inside = [self.root, b"/"].concat();
        self.open_parents(&inside).map(drop)
    }

    /// Makes sure that the directories above a path are in the archive, those that never came included.
    fn open_parents(&mut self, path: &[u8]) -> Result<Result<(), &'static str>, SnapshotError> {
        let slashes = path.iter().enumerate().filter(|(_, byte)| **byte == b'/');
        for (end, _) in slashes {
            let parent = &path[..end];
            match self.seen.get(&key(parent)) {
                Some(Taken::Directory) => {}
                Some(Taken::Other) => {
                    return Ok(Err("it leads through something that is no directory"));
                }
                None => self.add(&Entry {
                    path: parent.to_vec(),
                    kind: Kind::Directory,
                    mode: 0o755,
                    owner: (0, 0),
                    modified: (0, 0),
                    attributes: Vec::new(),
                })?,
            }
        }
        Ok(Ok(()))
    }

    fn add(&mut self, entry: &Entry) -> Result<(), SnapshotError> {
        if self.seen.len() >= MOST_ENTRIES {
            return Err(SnapshotError::damaged("it holds too many entries"));
        }
        let taken = match entry.kind {
            Kind::Directory => Taken::Directory,
            Kind::File(_) | Kind::Symlink(_) | Kind::HardLink(_) | Kind::Fifo => Taken::Other,
        };
        self.seen.insert(key(&entry.path), taken);
        self.writer.add(entry)
    }

    fn content<R: Read>(&mut self, from: &mut Foreign<R>) -> Result<(), SnapshotError> {
        let (mut chunk, mut size) = (std::mem::take(&mut self.chunk), 0);
        loop {
            let got = from.content(&mut chunk)?;
            if got == 0 {
                break;
            }
            self.writer.put(&chunk[..got])?;
            size += got as u64;
        }
        self.chunk = chunk;
        self.writer.put(&[0; 512][..padding(size)])
    }

    fn file(&mut self, beside: &Beside) -> Result<(), SnapshotError> {
        let path = beside.name.as_bytes();
        let content = std::fs::read(&beside.path)
            .map_err(|error| SnapshotError::io("read", &beside.path, error))?;
        // What the stream may have held can't be above it: the stream is all below the root.
        let _ = self.open_parents(path)?;
        self.add(&Entry {
            path: path.to_vec(),
            kind: Kind::File(content.len() as u64),
            mode: 0o600,
            owner: (0, 0),
            modified: (0, 0),
            attributes: Vec::new(),
        })?;
        self.writer.put(&content)?;
        self.writer.put(&[0; 512][..padding(content.len() as u64)])
    }

    fn leave_out(&mut self, path: &[u8], reason: &str) -> Result<(), SnapshotError> {
        match self.left_out.len() < MOST_LEFT_OUT {
            true => self.left_out.push(LeftOut {
                path: String::from_utf8_lossy(path).into_owned(),
                reason: reason.to_owned(),
            }),
            false => self.more_left_out += 1,
        }
        Ok(())
    }

    fn all_left_out(self) -> Vec<LeftOut> {
        let mut all = self.left_out;
        if self.more_left_out > 0 {
            all.push(LeftOut {
                path: String::from_utf8_lossy(self.root).into_owned(),
                reason: format!("so many more are left out: {}", self.more_left_out),
            });
        }
        all
    }
}

fn is_file(header: &Header) -> bool {
    matches!(header.entry_type().as_byte(), b'0' | b'\0' | b'7')
}

fn key(path: &[u8]) -> [u8; 16] {
    let mut key = [0; 16];
    key.copy_from_slice(&blake3::hash(path).as_bytes()[..16]);
    key
}

/// What the headers say beside path and kind. A number that is none is 0: it is worth no workspace.
fn described(head: &Head, path: Vec<u8>, kind: Kind) -> Result<Entry, SnapshotError> {
    let header = &head.header;
    let id = |id: io::Result<u64>| id.ok().and_then(|id| u32::try_from(id).ok()).unwrap_or(0);
    let seconds = header
        .mtime()
        .ok()
        .and_then(|time| i64::try_from(time).ok());
    let (mode, owner) = (
        header.mode().unwrap_or(0o644),
        (id(header.uid()), id(header.gid())),
    );
    let mut entry = Entry {
        path,
        kind,
        mode: mode & 0o7777,
        owner,
        modified: (seconds.unwrap_or(0), 0),
        attributes: Vec::new(),
    };
    for (key, value) in pax::parse(&head.records)? {
        if key == b"mtime" {
            entry.modified = pax::parse_time(value).unwrap_or(entry.modified);
        } else if let Some(attribute) = attribute(key, value) {
            entry.attributes.push(attribute);
        }
    }
    entry.attributes.sort_unstable();
    entry.attributes.dedup_by(|one, other| one.0 == other.0);
    Ok(entry)
}

fn attribute(key: &[u8], value: &[u8]) -> Option<Attribute> {
    let name = key.strip_prefix(crate::entry::ATTRIBUTE)?;
    name.starts_with(b"user.")
        .then(|| (name.to_vec(), value.to_vec()))
}

#[cfg(test)]
mod tests;
