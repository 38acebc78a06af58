//! Writes what an archive holds as a tar stream that any `tar` reads, BusyBox's too.

use crate::archive::{Archive, Limits};
use crate::entry::{Entry, Kind, padding};
use crate::error::SnapshotError;
use std::io::{self, Read, Write};
use std::path::Path;
use tar::{EntryType, Header};

/// How much a header's field of a name holds.
const SHORT: usize = 100;

/// Writes the root `root` of an archive to `to`, with paths relative to that root, in the GNU form: names of any length and
/// nothing beyond that. `progress` gets a count that grows with all that is done. Answers how many entries it wrote.
///
/// The archive's seal is only checked at its end: whoever acts on the stream has it [verified](crate::verify) first.
///
/// # Errors
/// `Damaged` when the archive is not whole; or what the operating system says.
pub fn to_tar(
    archive: impl Read,
    root: &str,
    to: impl Write,
    progress: &mut dyn FnMut(u64),
) -> Result<u64, SnapshotError> {
    let mut archive = Archive::new(archive, Limits::USUAL)?;
    let mut to = Giving {
        to,
        root: root.as_bytes(),
    };
    let mut entries = 0;
    while let Some(entry) = archive.next()? {
        let mine = to.entry(&entry)?;
        entries += u64::from(mine);
        if let Kind::File(size) = entry.kind {
            archive.content(size, |bytes| match mine {
                true => to.put(bytes),
                false => Ok(()),
            })?;
            if mine {
                to.put(&[0; 512][..padding(size)])?;
            }
        }
        progress(archive.done());
    }
    to.put(&[0; 1024])?;
    to.to.flush().map_err(unwritten)?;
    Ok(entries)
}

struct Giving<'a, W> {
    to: W,
    root: &'a [u8],
}

impl<W: Write> Giving<'_, W> {
    /// Writes an entry's headers, if it is below the root.
    fn entry(&mut self, entry: &Entry) -> Result<bool, SnapshotError> {
        let Some(path) = self.relative(&entry.path) else {
            return Ok(false);
        };
        let mut header = Header::new_gnu();
        header.set_mode(entry.mode & 0o1777);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(u64::try_from(entry.modified.0).unwrap_or(0));
        header.set_size(0);
        let mut name = path;
        match &entry.kind {
            Kind::Directory => {
                name.push(b'/');
                header.set_entry_type(EntryType::Directory);
            }
            Kind::File(size) => {
                header.set_size(*size);
                header.set_entry_type(EntryType::Regular);
            }
            Kind::Symlink(target) => {
                header.set_entry_type(EntryType::Symlink);
                self.link(&mut header, target)?;
            }
            Kind::HardLink(target) => {
                let target = self.relative(target).ok_or_else(|| {
                    SnapshotError::damaged("a file's other name is not in its root")
                })?;
                header.set_entry_type(EntryType::Link);
                self.link(&mut header, &target)?;
            }
            Kind::Fifo => header.set_entry_type(EntryType::Fifo),
        }
        self.long(EntryType::GNULongName, &name)?;
        fill(&mut header.as_old_mut().name, &name);
        header.set_cksum();
        self.put(header.as_bytes())?;
        Ok(true)
    }

    fn relative(&self, path: &[u8]) -> Option<Vec<u8>> {
        match path.strip_prefix(self.root)? {
            [] => Some(b".".to_vec()),
            [b'/', rest @ ..] => Some([b"./", rest].concat()),
            _ => None,
        }
    }

    fn link(&mut self, header: &mut Header, target: &[u8]) -> Result<(), SnapshotError> {
        fill(&mut header.as_old_mut().linkname, target);
        self.long(EntryType::GNULongLink, target)
    }

    /// A name that is too long for its field precedes its entry.
    fn long(&mut self, entry_type: EntryType, name: &[u8]) -> Result<(), SnapshotError> {
        if name.len() <= SHORT {
            return Ok(());
        }
        let size = name.len() as u64 + 1;
        let mut header = Header::new_gnu();
        fill(&mut header.as_old_mut().name, b"././@LongLink");
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(size);
        header.set_entry_type(entry_type);
        header.set_cksum();
        self.put(header.as_bytes())?;
        self.put(name)?;
        self.put(&[0; 513][..1 + padding(size)])
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), SnapshotError> {
        self.to.write_all(bytes).map_err(unwritten)
    }
}

fn fill(field: &mut [u8], text: &[u8]) {
    let length = text.len().min(field.len());
    field[..length].copy_from_slice(&text[..length]);
}

fn unwritten(error: io::Error) -> SnapshotError {
    SnapshotError::io("write", Path::new("the tar stream"), error)
}
