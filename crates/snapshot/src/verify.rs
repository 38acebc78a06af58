//! Reads an archive to its end and believes it only then.

use crate::archive::{Archive, Limits};
use crate::entry::Kind;
use crate::error::SnapshotError;
use crate::types::Verified;
use std::fs::File;
use std::path::Path;

/// Reads every byte of an archive's file: its frames decode, its entries parse, its seal fits. `progress` gets a
/// count that grows with all that is done.
///
/// # Errors
/// `Damaged` when it is not whole, else what the operating system says.
pub fn verify(file: &Path, progress: &mut dyn FnMut(u64)) -> Result<Verified, SnapshotError> {
    let opened = File::open(file).map_err(|error| SnapshotError::io("open", file, error))?;
    let mut archive = Archive::new(opened, Limits::USUAL)?;
    while let Some(entry) = archive.next()? {
        let mut done = archive.done();
        progress(done);
        if let Kind::File(size) = entry.kind {
            archive.content(size, |bytes| {
                done += bytes.len() as u64;
                progress(done);
                Ok(())
            })?;
        }
    }
    let (digest, size) = archive
        .whole()
        .ok_or_else(|| SnapshotError::damaged("it ends early"))?;
    Ok(Verified {
        digest: digest.to_hex().to_string(),
        size,
    })
}
