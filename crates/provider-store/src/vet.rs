//! Every check, in its order, on one open descriptor.

use crate::digest::sha256;
use crate::elf;
use crate::manifest::{Manifest, Panic};
use crate::open::{Opened, open};
use crate::refusal::{Reason, Refusal, command};
use rustix::fd::{AsFd, AsRawFd, OwnedFd};
use rustix::io::pread;
use serde::{Deserialize, Serialize};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

/// The most bytes a provider's file may have.
pub const LARGEST: u64 = 256 * 1024 * 1024;

/// What a provider's file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A library that is loaded.
    Dylib,
    /// A program that is started.
    Exec,
}

/// Where a library runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Isolation {
    /// In a process of its own.
    #[default]
    Process,
    /// In this one: its crash is ours.
    InProcess,
}

/// What a file has to be.
#[derive(Clone, Debug)]
pub struct Expectation {
    /// What it is.
    pub kind: Kind,
    /// Where it is to run.
    pub isolation: Isolation,
    /// The versions of the boundary that we speak.
    pub abi: RangeInclusive<u32>,
    /// SHA-256 of its bytes, in hex. A library without one is refused; a program may be without.
    pub sha256: Option<String>,
}

/// A file that passed every check.
#[derive(Debug)]
pub struct Vetted {
    /// The descriptor that was checked; whoever loads or starts it goes through this.
    pub file: OwnedFd,
    /// The path by which it was found.
    pub path: PathBuf,
    /// What it is.
    pub kind: Kind,
    /// What a library says of itself.
    pub manifest: Option<Manifest>,
    /// SHA-256 of its bytes, in hex.
    pub sha256: String,
    is_script: bool,
}

impl Kind {
    /// The word in configuration and output.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Kind::Dylib => "dylib",
            Kind::Exec => "exec",
        }
    }
}

impl Isolation {
    /// The word in configuration and output.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Isolation::Process => "process",
            Isolation::InProcess => "in-process",
        }
    }
}

impl Vetted {
    /// What to load or start. The path of the descriptor, so that it is what was checked; but for a script its own path,
    /// since its interpreter opens it anew, when the descriptor is gone.
    #[must_use]
    pub fn program(&self) -> PathBuf {
        if self.is_script {
            self.path.clone()
        } else {
            format!("/proc/self/fd/{}", self.file.as_raw_fd()).into()
        }
    }
}

/// Checks the file of an absolute path, and hands over the descriptor that was checked. Nothing of it is loaded or run.
///
/// # Errors
/// The first check that it does not pass.
pub fn vet(path: &Path, expected: &Expectation) -> Result<Vetted, Refusal> {
    let opened = open(path)?;
    let (manifest, is_script) = structure(&opened, expected.kind)?;
    if let Some(manifest) = &manifest {
        manifest.check_abi(path, &expected.abi)?;
        check_panic(path, manifest, expected.isolation)?;
    }
    let found = digest(&opened)?;
    check_digest(path, expected, &found)?;
    Ok(Vetted {
        file: opened.file,
        path: opened.path,
        kind: expected.kind,
        manifest,
        sha256: found,
        is_script,
    })
}

/// Says what an open file is, without anything expected of it; nothing of it is loaded or run.
///
/// # Errors
/// When it is neither a provider's library nor a program.
pub fn inspect(opened: &Opened) -> Result<(Kind, Option<Manifest>, String), Refusal> {
    let (kind, manifest) = look(opened)?;
    Ok((kind, manifest, digest(opened)?))
}

/// The same by its size and structure alone: not all of it is read.
pub(crate) fn look(opened: &Opened) -> Result<(Kind, Option<Manifest>), Refusal> {
    check_size(opened)?;
    // A script that lacks its execute bit is told that, not that it is no library.
    let is_program = is_script(opened) || opened.executable && is_program(opened);
    let kind = if is_program { Kind::Exec } else { Kind::Dylib };
    let (manifest, _) = structure(opened, kind)?;
    Ok((kind, manifest))
}

/// Size and structure: a library's manifest, and whether a program is a script.
fn structure(opened: &Opened, kind: Kind) -> Result<(Option<Manifest>, bool), Refusal> {
    check_size(opened)?;
    match kind {
        Kind::Dylib => Ok((Some(elf::check_library(opened)?), false)),
        Kind::Exec => Ok((None, check_program(opened)?)),
    }
}

fn check_size(opened: &Opened) -> Result<(), Refusal> {
    if opened.size <= LARGEST {
        return Ok(());
    }
    Err(Refusal::new(
        Reason::TooLarge,
        &opened.path,
        format!("at most {LARGEST} bytes"),
        format!("{} bytes", opened.size),
        command("strip", &opened.path),
    ))
}

/// A program is a script, or a whole ELF file for this machine; and may be executed.
fn check_program(opened: &Opened) -> Result<bool, Refusal> {
    if !opened.executable {
        return Err(Refusal::new(
            Reason::NotExecutable,
            &opened.path,
            "a program that its owner may execute",
            "one without that permission",
            command("chmod u+x", &opened.path),
        ));
    }
    if is_script(opened) {
        return Ok(true);
    }
    if !elf::is_elf(opened) {
        return Err(Refusal::new(
            Reason::NotExecutable,
            &opened.path,
            "an ELF file, or a script that begins with `#!`",
            "something else",
            command("file", &opened.path),
        ));
    }
    elf::check_program(opened).map(|()| false)
}

fn is_script(opened: &Opened) -> bool {
    let mut first = [0; 2];
    pread(opened.file.as_fd(), &mut first, 0).is_ok_and(|read| read == 2 && first == *b"#!")
}

/// An ELF file that does not pass for a library.
fn is_program(opened: &Opened) -> bool {
    elf::is_elf(opened)
        && elf::check_library(opened).is_err_and(|refusal| refusal.reason == Reason::NotALibrary)
}

fn check_panic(path: &Path, manifest: &Manifest, isolation: Isolation) -> Result<(), Refusal> {
    match (manifest.panic, isolation) {
        (Panic::Unwind, _) | (Panic::Abort, Isolation::Process) => Ok(()),
        (Panic::Abort, Isolation::InProcess) => Err(Refusal::new(
            Reason::Panic,
            path,
            "a library whose panics unwind, to run in this process",
            "one built with `panic = \"abort\"`: remove its `isolation` in `config.toml`, or build it anew",
            command("alpine provider inspect", path),
        )),
    }
}

fn digest(opened: &Opened) -> Result<String, Refusal> {
    sha256(opened.file.as_fd(), |_| Ok(())).map_err(|error| {
        Refusal::new(
            Reason::Unreadable,
            &opened.path,
            "a file that can be read",
            error.to_string(),
            command("ls -l", &opened.path),
        )
    })
}

fn check_digest(path: &Path, expected: &Expectation, found: &str) -> Result<(), Refusal> {
    match (&expected.sha256, expected.kind) {
        (Some(pinned), _) if pinned.eq_ignore_ascii_case(found) => Ok(()),
        (Some(pinned), _) => Err(Refusal::new(
            Reason::Digest,
            path,
            format!("the pinned sha256 {pinned}"),
            format!("{found}: pin that one where you know why it is another"),
            command("alpine provider inspect", path),
        )),
        (None, Kind::Exec) => Ok(()),
        (None, Kind::Dylib) => Err(Refusal::new(
            Reason::NotPinned,
            path,
            "a pinned `sha256`",
            format!("none; its own is {found}"),
            command("alpine provider inspect", path),
        )),
    }
}
