//! Writes an archive. The file appears under its name when it is whole and on the disk.

use crate::entry::Entry;
use crate::error::SnapshotError;
use crate::seal::SealWriter;
use crate::tick::ticking;
use crate::types::{Captured, LeftOut};
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

const LEVEL: i32 = 1;

/// So many zeros are packed once, as a frame of their own, and written as often as a hole has room for them.
const STRETCH: usize = 16 * 1024 * 1024;
static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];

type Encoder = zstd::Encoder<'static, SealWriter<File>>;

/// An archive that is being written.
pub(crate) struct Writer<'a> {
    /// None after a failure: nothing more is written then.
    encoder: Option<Encoder>,
    /// A packed [`STRETCH`], once one was needed.
    stretch: Vec<u8>,
    part: &'a Path,
    progress: &'a mut dyn FnMut(u64),
    done: u64,
    entries: u64,
}

/// Writes what `fill` adds, which says what it left out, to the file `to`, which is replaced in one step.
pub(crate) fn write(
    to: &Path,
    progress: &mut dyn FnMut(u64),
    fill: impl FnOnce(&mut Writer<'_>) -> Result<Vec<LeftOut>, SnapshotError>,
) -> Result<Captured, SnapshotError> {
    let mut part = to.as_os_str().to_owned();
    part.push(".part");
    let part = PathBuf::from(part);
    let captured = write_part(&part, to, progress, fill);
    if captured.is_err() {
        // The failure is what matters; the partial file is replaced by the next attempt in any case.
        let _ = std::fs::remove_file(&part);
    }
    captured
}

fn write_part(
    part: &Path,
    to: &Path,
    progress: &mut dyn FnMut(u64),
    fill: impl FnOnce(&mut Writer<'_>) -> Result<Vec<LeftOut>, SnapshotError>,
) -> Result<Captured, SnapshotError> {
    let written = |error: io::Error| SnapshotError::io("write", part, error);
    let file = File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(part)
        .map_err(written)?;
    let mut writer = Writer {
        encoder: Some(encoder(SealWriter::new(file)).map_err(written)?),
        stretch: Vec::new(),
        part,
        progress,
        done: 0,
        entries: 0,
    };
    let left_out = fill(&mut writer)?;
    // Two empty blocks end a tar archive.
    writer.put(&[0; 1024])?;
    let Writer {
        encoder: Some(encoder),
        progress,
        mut done,
        entries,
        ..
    } = writer
    else {
        return Err(written(broken()));
    };
    let mut tick = || {
        done += 1;
        progress(done);
    };
    let (digest, size) = ticking(&mut tick, || settle(encoder, part, to)).map_err(written)??;
    Ok(Captured {
        digest: digest.to_hex().to_string(),
        size,
        entries,
        left_out,
    })
}

impl Writer<'_> {
    /// Begins an entry; its content and the padding follow.
    pub(crate) fn add(&mut self, entry: &Entry) -> Result<(), SnapshotError> {
        self.entries += 1;
        self.put(&entry.blocks())
    }

    pub(crate) fn put(&mut self, bytes: &[u8]) -> Result<(), SnapshotError> {
        let encoder = self.encoder.as_mut().ok_or_else(broken);
        encoder
            .and_then(|encoder| encoder.write_all(bytes))
            .map_err(|error| SnapshotError::io("write", self.part, error))?;
        self.tell(bytes.len() as u64);
        Ok(())
    }

    /// Puts so many zeros, which costs little however many they are.
    pub(crate) fn put_zeros(&mut self, count: u64) -> Result<(), SnapshotError> {
        let stretches = count / STRETCH as u64;
        if stretches > 0 {
            self.put_stretches(stretches)
                .map_err(|error| SnapshotError::io("write", self.part, error))?;
        }
        let mut left = usize::try_from(count % STRETCH as u64).unwrap_or(0);
        while left > 0 {
            let some = left.min(ZEROS.len());
            self.put(&ZEROS[..some])?;
            left -= some;
        }
        Ok(())
    }

    /// Ends the frame that is being written, writes others between it and the next.
    fn put_stretches(&mut self, count: u64) -> io::Result<()> {
        if self.stretch.is_empty() {
            self.stretch = packed_zeros()?;
        }
        let mut file = self.encoder.take().ok_or_else(broken)?.finish()?;
        for _ in 0..count {
            file.write_all(&self.stretch)?;
            self.tell(STRETCH as u64);
        }
        self.encoder = Some(encoder(file)?);
        Ok(())
    }

    /// Lets the progress grow.
    pub(crate) fn tell(&mut self, more: u64) {
        self.done += more;
        (self.progress)(self.done);
    }
}

fn broken() -> io::Error {
    io::Error::other("an earlier write failed")
}

fn packed_zeros() -> io::Result<Vec<u8>> {
    let mut encoder = zstd::Encoder::new(Vec::new(), LEVEL)?;
    encoder.include_checksum(true)?;
    for _ in 0..STRETCH / ZEROS.len() {
        encoder.write_all(&ZEROS)?;
    }
    encoder.finish()
}

fn encoder(file: SealWriter<File>) -> io::Result<Encoder> {
    let mut encoder = zstd::Encoder::new(file, LEVEL)?;
    encoder.include_checksum(true)?;
    let threads = std::thread::available_parallelism().map_or(1, |count| count.get().min(8));
    encoder.multithread(u32::try_from(threads).unwrap_or(1))?;
    Ok(encoder)
}

/// Brings all to the disk, and then under its name.
fn settle(encoder: Encoder, part: &Path, to: &Path) -> Result<(blake3::Hash, u64), SnapshotError> {
    let written = |error: io::Error| SnapshotError::io("write", part, error);
    let (file, digest, size) = encoder
        .finish()
        .and_then(SealWriter::finish)
        .map_err(written)?;
    file.sync_all().map_err(written)?;
    std::fs::rename(part, to).map_err(|error| SnapshotError::io("write", to, error))?;
    sync_directory(to)?;
    Ok((digest, size))
}

fn sync_directory(of: &Path) -> Result<(), SnapshotError> {
    let parent = match of.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) | None => Path::new("."),
    };
    File::open(parent)
        .and_then(|directory| directory.sync_all())
        .map_err(|error| SnapshotError::io("flush", parent, error))
}
