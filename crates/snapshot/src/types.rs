//! What goes in and comes out.

use std::path::Path;

/// A directory that is captured.
#[derive(Clone, Copy, Debug)]
pub struct Root<'a> {
    /// Its name in the archive: one part of a path.
    pub name: &'a str,
    /// Where it is.
    pub path: &'a Path,
}

/// An archive that was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Captured {
    /// BLAKE3 of the file's bytes, in hex.
    pub digest: String,
    /// Its size in bytes.
    pub size: u64,
    /// How many files, directories and links it holds, the roots included.
    pub entries: u64,
    /// What is not in it, or not as it was, and why.
    pub left_out: Vec<LeftOut>,
}

/// Something that is not in an archive, or not as it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOut {
    /// Its path in the archive.
    pub path: String,
    /// Why.
    pub reason: String,
}

/// An archive that was read and found whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// BLAKE3 of the file's bytes, in hex.
    pub digest: String,
    /// Its size in bytes.
    pub size: u64,
}
