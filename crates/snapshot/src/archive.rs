//! Reads an archive entry by entry, and takes none of it on trust.

use crate::entry::{ATTRIBUTE, Entry, Kind, padding};
use crate::error::SnapshotError;
use crate::pax;
use crate::seal::SealReader;
use std::io::{self, BufReader, Read};
use tar::{EntryType, Header};

const BLOCK: usize = 512;
const CHUNK: usize = 256 * 1024;
const WINDOW_LOG: u32 = 27;

/// What is more than this is no archive of ours.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) entries: u64,
    pub(crate) bytes: u64,
    pub(crate) records: u64,
}

impl Limits {
    pub(crate) const USUAL: Limits = Limits {
        entries: 50_000_000,
        bytes: 8 << 40,
        records: 16 << 20,
    };
}

/// An archive that is being read.
pub(crate) struct Archive<R: Read> {
    decoder: zstd::Decoder<'static, BufReader<SealReader<R>>>,
    limits: Limits,
    entries: u64,
    bytes: u64,
    done: u64,
    chunk: Vec<u8>,
}

impl<R: Read> Archive<R> {
    pub(crate) fn new(from: R, limits: Limits) -> Result<Self, SnapshotError> {
        let mut decoder = zstd::Decoder::new(SealReader::new(from)).map_err(wrong)?;
        decoder.window_log_max(WINDOW_LOG).map_err(wrong)?;
        Ok(Self {
            decoder,
            limits,
            entries: 0,
            bytes: 0,
            done: 0,
            chunk: vec![0; CHUNK],
        })
    }

    /// How far it is: a count that grows with each entry and each byte of a content, however well they are packed.
    pub(crate) fn done(&self) -> u64 {
        self.done
    }

    pub(crate) fn entries(&self) -> u64 {
        self.entries
    }

    /// The digest and the size of the archive's file, once [`next`](Self::next) has found its end.
    pub(crate) fn whole(&self) -> Option<(blake3::Hash, u64)> {
        self.decoder.get_ref().get_ref().whole()
    }

    /// The next entry. If it is a file, [`content`](Self::content) has to be called before the next.
    pub(crate) fn next(&mut self) -> Result<Option<Entry>, SnapshotError> {
        let Some(mut header) = self.header()? else {
            self.end()?;
            return Ok(None);
        };
        let mut records = Vec::new();
        if header.entry_type() == EntryType::XHeader {
            records = self.records(&header)?;
            header = self
                .header()?
                .ok_or_else(|| SnapshotError::damaged("an entry is missing at its end"))?;
        }
        self.entries += 1;
        self.done += BLOCK as u64;
        if self.entries > self.limits.entries {
            return Err(SnapshotError::damaged("it holds too many entries"));
        }
        entry(&header, &records).map(Some)
    }

    /// The content of the file that was the last entry, in pieces.
    pub(crate) fn content(
        &mut self,
        size: u64,
        mut take: impl FnMut(&[u8]) -> Result<(), SnapshotError>,
    ) -> Result<(), SnapshotError> {
        self.bytes = self.bytes.saturating_add(size);
        if self.bytes > self.limits.bytes {
            return Err(SnapshotError::damaged("it holds too many bytes"));
        }
        let mut left = size;
        while left > 0 {
            let want = CHUNK.min(usize::try_from(left).unwrap_or(CHUNK));
            self.decoder
                .read_exact(&mut self.chunk[..want])
                .map_err(wrong)?;
            self.done += want as u64;
            take(&self.chunk[..want])?;
            left -= want as u64;
        }
        self.zeros(padding(size))
    }

    /// A header, or none where the archive ends.
    fn header(&mut self) -> Result<Option<Header>, SnapshotError> {
        let mut header = Header::new_old();
        self.decoder
            .read_exact(header.as_mut_bytes())
            .map_err(wrong)?;
        if header.as_bytes().iter().all(|&byte| byte == 0) {
            return Ok(None);
        }
        let sum: u32 = header.as_bytes()[..148]
            .iter()
            .chain(&header.as_bytes()[156..])
            .fold(8 * 32, |sum, &byte| sum + u32::from(byte));
        match header.cksum() {
            Ok(told) if told == sum && header.as_ustar().is_some() => Ok(Some(header)),
            Ok(_) | Err(_) => Err(SnapshotError::damaged("a header is malformed")),
        }
    }

    fn records(&mut self, header: &Header) -> Result<Vec<u8>, SnapshotError> {
        let size = header.entry_size().map_err(wrong)?;
        if size > self.limits.records {
            return Err(SnapshotError::damaged("a header is too long"));
        }
        let mut records = vec![0; usize::try_from(size).unwrap_or(0)];
        self.decoder.read_exact(&mut records).map_err(wrong)?;
        self.zeros(padding(size))?;
        Ok(records)
    }

    fn zeros(&mut self, length: usize) -> Result<(), SnapshotError> {
        let mut block = [0; BLOCK];
        self.decoder
            .read_exact(&mut block[..length])
            .map_err(wrong)?;
        if block.iter().any(|&byte| byte != 0) {
            return Err(SnapshotError::damaged("padding holds something"));
        }
        Ok(())
    }

    /// The second empty block, then nothing but the seal.
    fn end(&mut self) -> Result<(), SnapshotError> {
        self.zeros(BLOCK)?;
        let mut more = [0; 1];
        match self.decoder.read(&mut more).map_err(wrong)? {
            0 => Ok(()),
            _ => Err(SnapshotError::damaged("something follows its end")),
        }
    }
}

/// The operating system's errors are its own; all others say that the archive is not whole.
fn wrong(error: io::Error) -> SnapshotError {
    if error.raw_os_error().is_some() {
        SnapshotError::Read { source: error }
    } else if error.kind() == io::ErrorKind::UnexpectedEof {
        SnapshotError::damaged("it ends early")
    } else {
        SnapshotError::damaged(error.to_string())
    }
}

fn entry(header: &Header, records: &[u8]) -> Result<Entry, SnapshotError> {
    let number = |value: io::Result<u64>| {
        value
            .ok()
            .and_then(|value| u32::try_from(value).ok())
            .ok_or_else(|| SnapshotError::damaged("a header is malformed"))
    };
    let seconds = header
        .mtime()
        .ok()
        .and_then(|time| i64::try_from(time).ok());
    let mut entry = Entry {
        path: header.path_bytes().into_owned(),
        kind: kind(header)?,
        mode: header.mode().map_err(wrong)? & 0o7777,
        owner: (number(header.uid())?, number(header.gid())?),
        modified: (seconds.unwrap_or(0), 0),
        attributes: Vec::new(),
    };
    for (key, value) in pax::parse(records)? {
        apply(&mut entry, key, value)?;
    }
    if entry.kind == Kind::Directory && entry.path.last() == Some(&b'/') {
        entry.path.pop();
    }
    Ok(entry)
}

fn kind(header: &Header) -> Result<Kind, SnapshotError> {
    let size = header.entry_size().map_err(wrong)?;
    let link = || {
        header
            .link_name_bytes()
            .map(|name| name.into_owned())
            .unwrap_or_default()
    };
    let entry_type = header.entry_type();
    if entry_type == EntryType::Regular {
        return Ok(Kind::File(size));
    }
    if size != 0 {
        return Err(SnapshotError::damaged(
            "an entry that is no file has a content",
        ));
    }
    if entry_type == EntryType::Directory {
        Ok(Kind::Directory)
    } else if entry_type == EntryType::Symlink {
        Ok(Kind::Symlink(link()))
    } else if entry_type == EntryType::Link {
        Ok(Kind::HardLink(link()))
    } else if entry_type == EntryType::Fifo {
        Ok(Kind::Fifo)
    } else {
        Err(SnapshotError::damaged(format!(
            "it holds an entry of type {:?}, which no workspace has",
            char::from(entry_type.as_byte())
        )))
    }
}

fn apply(entry: &mut Entry, key: &[u8], value: &[u8]) -> Result<(), SnapshotError> {
    match key {
        b"path" => entry.path = value.to_vec(),
        b"linkpath" => match &mut entry.kind {
            Kind::Symlink(target) | Kind::HardLink(target) => *target = value.to_vec(),
            Kind::Directory | Kind::File(_) | Kind::Fifo => {
                return Err(SnapshotError::damaged(
                    "an entry that is no link has a target",
                ));
            }
        },
        b"mtime" => {
            entry.modified = pax::parse_time(value)
                .ok_or_else(|| SnapshotError::damaged("a time is malformed"))?;
        }
        _ => match key.strip_prefix(ATTRIBUTE) {
            // What other name spaces hold would change what the system does with a file.
            Some(name) if name.starts_with(b"user.") => {
                entry.attributes.push((name.to_vec(), value.to_vec()));
            }
            // A size in a record, most of all: readers do not agree on it.
            Some(_) | None => {
                let key = String::from_utf8_lossy(key).into_owned();
                return Err(SnapshotError::damaged(format!("it holds a record {key:?}")));
            }
        },
    }
    Ok(())
}
