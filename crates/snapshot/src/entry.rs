//! One entry of an archive, and how it is written as tar headers.

use crate::pax;
use tar::{EntryType, Header};

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Directory,
    /// Followed by this many bytes.
    File(u64),
    Symlink(Vec<u8>),
    /// Another name of a file that comes earlier.
    HardLink(Vec<u8>),
    Fifo,
}

/// One entry: its path in the archive and what the file system says of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) path: Vec<u8>,
    pub(crate) kind: Kind,
    pub(crate) mode: u32,
    pub(crate) owner: (u32, u32),
    pub(crate) modified: (i64, u32),
    /// Those of `user.*`, by their full names.
    pub(crate) attributes: Vec<Attribute>,
}

/// An extended attribute: its full name and its value.
pub(crate) type Attribute = (Vec<u8>, Vec<u8>);

/// The prefix of the records that hold extended attributes.
pub(crate) const ATTRIBUTE: &[u8] = b"SCHILY.xattr.";
const BLOCK: usize = 512;

impl Entry {
    /// The blocks that precede the entry's content.
    pub(crate) fn blocks(&self) -> Vec<u8> {
        let records = self.records();
        let mut blocks = Vec::with_capacity(BLOCK * 4);
        if !records.is_empty() {
            let mut header = Header::new_ustar();
            header.set_entry_type(EntryType::XHeader);
            name(&mut header, b"PaxHeaders/alpine");
            header.set_mode(0o644);
            header.set_size(records.len() as u64);
            header.set_cksum();
            blocks.extend_from_slice(header.as_bytes());
            blocks.extend_from_slice(&records);
            blocks.resize(blocks.len() + padding(records.len() as u64), 0);
        }
        blocks.extend_from_slice(self.header().as_bytes());
        blocks
    }

    fn header(&self) -> Header {
        let mut header = Header::new_ustar();
        name(&mut header, &self.named());
        header.set_mode(self.mode & 0o7777);
        header.set_uid(u64::from(self.owner.0));
        header.set_gid(u64::from(self.owner.1));
        header.set_mtime(u64::try_from(self.modified.0).unwrap_or(0));
        header.set_size(0);
        let entry_type = match &self.kind {
            Kind::Directory => EntryType::Directory,
            Kind::File(size) => {
                header.set_size(*size);
                EntryType::Regular
            }
            Kind::Symlink(target) => {
                link_name(&mut header, target);
                EntryType::Symlink
            }
            Kind::HardLink(target) => {
                link_name(&mut header, target);
                EntryType::Link
            }
            Kind::Fifo => EntryType::Fifo,
        };
        header.set_entry_type(entry_type);
        header.set_cksum();
        header
    }

    /// Directories bear a slash at the end, as everywhere in tar.
    fn named(&self) -> Vec<u8> {
        let mut name = self.path.clone();
        if self.kind == Kind::Directory {
            name.push(b'/');
        }
        name
    }

    fn records(&self) -> Vec<u8> {
        let mut records = Vec::new();
        let named = self.named();
        let link = match &self.kind {
            Kind::Symlink(target) | Kind::HardLink(target) => target.as_slice(),
            Kind::Directory | Kind::File(_) | Kind::Fifo => &[],
        };
        if !plain(&named) {
            pax::push(&mut records, b"path", &named);
        }
        if !plain(link) {
            pax::push(&mut records, b"linkpath", link);
        }
        let (seconds, nanoseconds) = self.modified;
        if nanoseconds != 0 || seconds < 0 {
            pax::push(
                &mut records,
                b"mtime",
                pax::time(seconds, nanoseconds).as_bytes(),
            );
        }
        for (attribute, value) in &self.attributes {
            pax::push(&mut records, &[ATTRIBUTE, attribute].concat(), value);
        }
        records
    }
}

/// How many zero bytes follow a content of this size.
pub(crate) fn padding(size: u64) -> usize {
    (BLOCK - (size % BLOCK as u64) as usize) % BLOCK
}

/// Whether a header's field of 100 bytes holds it, for readers of any character set.
fn plain(text: &[u8]) -> bool {
    text.len() <= 100 && text.is_ascii()
}

fn name(header: &mut Header, text: &[u8]) {
    fill(&mut header.as_old_mut().name, text);
}

fn link_name(header: &mut Header, text: &[u8]) {
    fill(&mut header.as_old_mut().linkname, text);
}

/// As much as fits; the whole is in a record.
fn fill(field: &mut [u8; 100], text: &[u8]) {
    let length = text.len().min(field.len());
    field[..length].copy_from_slice(&text[..length]);
}
