//! The seal at the end of an archive: a skippable zstd frame with the BLAKE3 digest of all bytes before it.

use std::io::{self, Read, Write};

const MAGIC: &[u8; 4] = &0x184D_2A5A_u32.to_le_bytes();
const LABEL: &[u8; 16] = b"alpine snapshot\n";
const PAYLOAD: usize = 16 + 32;
const SEAL: usize = 8 + PAYLOAD;
const CHUNK: usize = 128 * 1024;

/// Why the seal does not fit; found again in the chain of an [`io::Error`].
#[derive(Debug, thiserror::Error)]
#[error("the seal at its end is missing or does not fit")]
pub(crate) struct Broken;

fn seal(digest: &blake3::Hash) -> Vec<u8> {
    let mut seal = Vec::with_capacity(SEAL);
    seal.extend_from_slice(MAGIC);
    seal.extend_from_slice(&(PAYLOAD as u32).to_le_bytes());
    seal.extend_from_slice(LABEL);
    seal.extend_from_slice(digest.as_bytes());
    seal
}

/// Counts and hashes what goes through, and seals it.
pub(crate) struct SealWriter<W> {
    inner: W,
    hasher: blake3::Hasher,
    size: u64,
}

impl<W: Write> SealWriter<W> {
    pub(crate) fn new(inner: W) -> Self {
        Self {
            inner,
            hasher: blake3::Hasher::new(),
            size: 0,
        }
    }

    /// Writes the seal: the writer, the digest of everything with the seal, and its size.
    pub(crate) fn finish(mut self) -> io::Result<(W, blake3::Hash, u64)> {
        let seal = seal(&self.hasher.finalize());
        self.write_all(&seal)?;
        Ok((self.inner, self.hasher.finalize(), self.size))
    }
}

impl<W: Write> Write for SealWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        self.size += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Gives what is before the seal, and fails at the end if the seal does not fit.
pub(crate) struct SealReader<R> {
    inner: R,
    /// What was read; the last [`SEAL`] bytes are held back until more come.
    held: Vec<u8>,
    at: usize,
    /// Of what was given.
    given: blake3::Hasher,
    size: u64,
    /// Of everything, once the end was reached.
    whole: Option<blake3::Hash>,
}

impl<R: Read> SealReader<R> {
    pub(crate) fn new(inner: R) -> Self {
        Self {
            inner,
            held: Vec::with_capacity(CHUNK + SEAL),
            at: 0,
            given: blake3::Hasher::new(),
            size: 0,
            whole: None,
        }
    }

    /// The digest and the size of everything, after the end was reached.
    pub(crate) fn whole(&self) -> Option<(blake3::Hash, u64)> {
        self.whole.map(|digest| (digest, self.size))
    }

    fn fill(&mut self) -> io::Result<()> {
        self.held.drain(..self.at);
        self.at = 0;
        while self.whole.is_none() && self.held.len() <= SEAL {
            let before = self.held.len();
            self.held.resize(before + CHUNK, 0);
            let read = self.inner.read(&mut self.held[before..]);
            self.held
                .truncate(before + read.as_ref().map_or(0, |read| *read));
            match read {
                Ok(0) => self.end()?,
                Ok(read) => self.size += read as u64,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn end(&mut self) -> io::Result<()> {
        if self.held != seal(&self.given.finalize()) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, Broken));
        }
        let mut whole = self.given.clone();
        whole.update(&self.held);
        self.whole = Some(whole.finalize());
        Ok(())
    }
}

impl<R: Read> Read for SealReader<R> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        if self.whole.is_none() && self.held.len() - self.at <= SEAL {
            self.fill()?;
        }
        let ready = (self.held.len() - self.at).saturating_sub(SEAL);
        let length = ready.min(to.len());
        let given = &self.held[self.at..self.at + length];
        to[..length].copy_from_slice(given);
        self.given.update(given);
        self.at += length;
        Ok(length)
    }
}
