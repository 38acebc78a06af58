//! Reads a tar stream that something else wrote: old, GNU or PAX. No part of it is held in memory but for names and records.

use crate::entry::padding;
use crate::error::SnapshotError;
use crate::pax;
use std::io::{self, Read};
use tar::Header;

/// The longest name, or set of records, that an entry may have.
const LONGEST: u64 = 1 << 20;

/// A tar stream that is being read.
pub(crate) struct Foreign<R> {
    from: R,
    /// How much of the last entry's content is unread, and how many zero bytes follow it.
    left: u64,
    padding: usize,
}

/// What an entry's headers say.
pub(crate) struct Head {
    pub(crate) path: Vec<u8>,
    pub(crate) target: Vec<u8>,
    pub(crate) size: u64,
    pub(crate) header: Header,
    /// PAX records.
    pub(crate) records: Vec<u8>,
}

impl<R: Read> Foreign<R> {
    pub(crate) fn new(from: R) -> Self {
        Self {
            from,
            left: 0,
            padding: 0,
        }
    }

    /// The next entry; none at the end of the archive. What is unread of the last one's content is skipped.
    pub(crate) fn next(&mut self) -> Result<Option<Head>, SnapshotError> {
        let (mut path, mut target, mut records) = (None, None, Vec::new());
        loop {
            self.skip()?;
            let Some(header) = self.header()? else {
                return Ok(None);
            };
            let size = header.entry_size().map_err(wrong)?;
            match header.entry_type().as_byte() {
                // A name, or a link's target, that its field has no room for.
                b'L' => path = Some(self.text(size)?),
                b'K' => target = Some(self.text(size)?),
                b'x' => records = self.text_of(size)?,
                b'g' => self.expect(size),
                _ => return self.head(header, path, target, records).map(Some),
            }
        }
    }

    fn head(
        &mut self,
        header: Header,
        path: Option<Vec<u8>>,
        target: Option<Vec<u8>>,
        records: Vec<u8>,
    ) -> Result<Head, SnapshotError> {
        let link = header.link_name_bytes().map(|name| name.into_owned());
        let mut head = Head {
            path: path.unwrap_or_else(|| header.path_bytes().into_owned()),
            target: target.or(link).unwrap_or_default(),
            size: header.entry_size().map_err(wrong)?,
            header,
            records: Vec::new(),
        };
        for (key, value) in pax::parse(&records)? {
            match key {
                b"path" => head.path = value.to_vec(),
                b"linkpath" => head.target = value.to_vec(),
                b"size" => {
                    let size = std::str::from_utf8(value).ok();
                    head.size = size
                        .and_then(|size| size.parse().ok())
                        .ok_or_else(|| SnapshotError::damaged("a size is malformed"))?;
                }
                _ => {}
            }
        }
        head.records = records;
        self.expect(head.size);
        Ok(head)
    }

    fn expect(&mut self, size: u64) {
        self.left = size;
        self.padding = padding(size);
    }

    /// Reads some of the last entry's content: all of `to`, or what is left.
    pub(crate) fn content(&mut self, to: &mut [u8]) -> Result<usize, SnapshotError> {
        let want = to
            .len()
            .min(usize::try_from(self.left).unwrap_or(usize::MAX));
        self.from.read_exact(&mut to[..want]).map_err(wrong)?;
        self.left -= want as u64;
        Ok(want)
    }

    /// Reads what follows the end, so that the writer can end in order.
    pub(crate) fn drain(&mut self) -> Result<(), SnapshotError> {
        io::copy(&mut self.from, &mut io::sink())
            .map(drop)
            .map_err(wrong)
    }

    fn skip(&mut self) -> Result<(), SnapshotError> {
        let rest = self.left + self.padding as u64;
        let mut skipped = (&mut self.from).take(rest);
        let found = io::copy(&mut skipped, &mut io::sink()).map_err(wrong)?;
        self.expect(0);
        match found == rest {
            true => Ok(()),
            false => Err(SnapshotError::damaged("it ends early")),
        }
    }

    fn header(&mut self) -> Result<Option<Header>, SnapshotError> {
        let mut header = Header::new_old();
        self.from.read_exact(header.as_mut_bytes()).map_err(wrong)?;
        let bytes = header.as_bytes();
        if bytes.iter().all(|&byte| byte == 0) {
            return Ok(None);
        }
        let sum: u32 = bytes[..148]
            .iter()
            .chain(&bytes[156..])
            .fold(8 * 32, |sum, &byte| sum + u32::from(byte));
        match header.cksum() {
            Ok(told) if told == sum => Ok(Some(header)),
            Ok(_) | Err(_) => Err(SnapshotError::damaged("a header is malformed")),
        }
    }

    /// A name that has an entry of its own, without the zero at its end.
    fn text(&mut self, size: u64) -> Result<Vec<u8>, SnapshotError> {
        let mut text = self.text_of(size)?;
        let end = text.iter().position(|&byte| byte == 0);
        text.truncate(end.unwrap_or(text.len()));
        Ok(text)
    }

    fn text_of(&mut self, size: u64) -> Result<Vec<u8>, SnapshotError> {
        if size > LONGEST {
            return Err(SnapshotError::damaged("a name is too long"));
        }
        self.expect(size);
        let mut text = vec![0; usize::try_from(size).unwrap_or(0)];
        self.content(&mut text)?;
        Ok(text)
    }
}

/// The operating system's errors are their own; all others say that the stream is not whole.
pub(crate) fn wrong(error: io::Error) -> SnapshotError {
    if error.raw_os_error().is_some() {
        SnapshotError::Read { source: error }
    } else if error.kind() == io::ErrorKind::UnexpectedEof {
        SnapshotError::damaged("it ends early")
    } else {
        SnapshotError::damaged(error.to_string())
    }
}
