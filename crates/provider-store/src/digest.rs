//! The digest of an open file.

use rustix::fd::BorrowedFd;
use rustix::io::{Errno, pread};
use sha2::{Digest, Sha256};
use std::fmt::Write as _;

/// How much is read at once.
pub(crate) const PIECE: usize = 256 * 1024;

/// SHA-256 of every byte, in hex; what is read is handed to `also`.
pub(crate) fn sha256(
    file: BorrowedFd<'_>,
    mut also: impl FnMut(&[u8]) -> Result<(), std::io::Error>,
) -> Result<String, std::io::Error> {
    let mut hash = Sha256::new();
    let mut piece = vec![0; PIECE];
    let mut at = 0;
    loop {
        let read = match pread(file, &mut piece, at) {
            Ok(0) => break,
            Ok(read) => read,
            Err(Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
        };
        hash.update(&piece[..read]);
        also(&piece[..read])?;
        at += read as u64;
    }
    let hex = hash.finalize().iter().fold(String::new(), |mut hex, byte| {
        // Strings take every write.
        let _ = write!(hex, "{byte:02x}");
        hex
    });
    Ok(hex)
}
