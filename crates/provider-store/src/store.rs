//! The providers that were added: each a file named by its digest, and one file that pins them.

use crate::digest::sha256;
use crate::manifest::Manifest;
use crate::open::{Opened, open};
use crate::refusal::Refusal;
use crate::vet::{Kind, LARGEST, inspect, look};
use rustix::fd::AsFd;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

/// The file of pins, in the store.
const PINS: &str = "providers.toml";
/// What a file is called until it is whole; the lock makes its writer the only one.
const PARTIAL: &str = "partial";
/// How long it waits before it asks for the lock again.
const PAUSE: Duration = Duration::from_millis(10);

/// The directory of the providers that were added.
#[derive(Clone, Debug)]
pub struct Store {
    directory: PathBuf,
}

/// The store, while nobody else changes it.
#[derive(Debug)]
pub struct Locked {
    directory: PathBuf,
    lock: File,
}

/// A file that the store keeps.
#[derive(Clone, Debug)]
pub struct Kept {
    /// Its path in the store.
    pub path: PathBuf,
    /// SHA-256 of its bytes, in hex: its name too.
    pub sha256: String,
    /// What it is.
    pub kind: Kind,
    /// What a library says of itself.
    pub manifest: Option<Manifest>,
}

/// A name, and the file that it stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pin {
    /// The provider's name.
    pub name: String,
    /// What it is.
    pub kind: Kind,
    /// Its path in the store.
    pub path: PathBuf,
    /// SHA-256 of its bytes, in hex.
    pub sha256: String,
}

/// Why the store could not be changed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file is not taken.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// A system call failed.
    #[error("`{path}` {what}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
}

impl Store {
    /// The store in that directory, which need not be there.
    #[must_use]
    pub fn new(directory: PathBuf) -> Self {
        Self { directory }
    }

    /// The file of pins.
    #[must_use]
    pub fn pins(&self) -> PathBuf {
        self.directory.join(PINS)
    }

    /// Makes the directory, for its user alone, and keeps others from changing it meanwhile. It waits for them until
    /// `stopped` says that nobody wants it any more.
    ///
    /// # Errors
    /// When it can't be made or locked.
    pub fn lock(&self, stopped: impl Fn() -> bool) -> Result<Locked, StoreError> {
        let failed = |what| at(what, &self.directory);
        let made = DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.directory);
        made.map_err(failed("can't be made"))?;
        // Where a provider is pinned, no component of its path may be a link.
        let directory = self
            .directory
            .canonicalize()
            .map_err(failed("can't be found"))?;
        let lock = File::open(&directory).map_err(failed("can't be opened"))?;
        loop {
            match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(Locked { directory, lock }),
                Err(Errno::WOULDBLOCK | Errno::INTR) if !stopped() => thread::sleep(PAUSE),
                Err(error) => return Err(failed("can't be locked")(error.into())),
            }
        }
    }
}

impl Locked {
    /// Copies an open file that looks like a provider into the store, looks at the copy, and gives it the name of its
    /// digest. It ends early where `stopped` says that nobody wants it any more.
    ///
    /// # Errors
    /// When the file or its copy is no provider, or it can't be written.
    pub fn keep(&self, source: &Opened, stopped: impl Fn() -> bool) -> Result<Kept, StoreError> {
        look(source)?;
        let partial = self.directory.join(PARTIAL);
        let mut left = LARGEST;
        self.write(PARTIAL, 0o600, |file| {
            let copied = sha256(source.file.as_fd(), |piece| {
                // It may have grown since it was looked at.
                left = left
                    .checked_sub(piece.len() as u64)
                    .ok_or(ErrorKind::FileTooLarge)?;
                match stopped() {
                    true => Err(ErrorKind::Interrupted.into()),
                    false => file.write_all(piece),
                }
            });
            copied.map(|_| ())
        })?;
        let kept = self.take(&partial, source);
        if kept.is_err() {
            // It was refused, or is half of a file: nothing of it is kept.
            drop(fs::remove_file(&partial));
        }
        kept
    }

    /// What is pinned is what was checked: the copy, after which nothing is written to it.
    fn take(&self, partial: &Path, source: &Opened) -> Result<Kept, StoreError> {
        let protect = |mode| {
            fs::set_permissions(partial, Permissions::from_mode(mode))
                .map_err(at("can't be protected", partial))
        };
        protect(if source.executable { 0o555 } else { 0o444 })?;
        let (kind, manifest, sha256) = inspect(&open(partial)?).map_err(|refusal| Refusal {
            path: source.path.clone(),
            remedy: refusal
                .remedy
                .replace(&*partial.to_string_lossy(), &source.path.to_string_lossy()),
            ..refusal
        })?;
        if kind == Kind::Dylib {
            // A library is loaded and never run, whatever its file was allowed.
            protect(0o444)?;
        }
        let path = self.directory.join(&sha256);
        self.rename(partial, &path)?;
        Ok(Kept {
            path,
            sha256,
            kind,
            manifest,
        })
    }

    /// Replaces the pins. What none of them names any more stays until it is swept.
    ///
    /// # Errors
    /// When the pins can't be written.
    pub fn pin(&self, pins: &[Pin]) -> Result<(), StoreError> {
        let text = text(pins);
        self.write(PARTIAL, 0o600, |file| file.write_all(text.as_bytes()))?;
        self.rename(&self.directory.join(PARTIAL), &self.directory.join(PINS))
    }

    /// Removes what is named like a digest and is not pinned, and what is half of a file. What can't be removed harms nobody.
    pub fn sweep(&self, pins: &[Pin]) {
        let pinned: BTreeSet<&OsStr> = pins.iter().filter_map(|pin| pin.path.file_name()).collect();
        let is_digest = |name: &OsStr| {
            name.len() == 64 && name.as_encoded_bytes().iter().all(u8::is_ascii_hexdigit)
        };
        for entry in fs::read_dir(&self.directory)
            .into_iter()
            .flatten()
            .flatten()
        {
            let name = entry.file_name();
            let is_left = is_digest(&name) && !pinned.contains(name.as_os_str());
            if is_left || name == PARTIAL {
                drop(fs::remove_file(entry.path()));
            }
        }
    }

    fn write(
        &self,
        name: &str,
        mode: u32,
        fill: impl FnOnce(&mut File) -> io::Result<()>,
    ) -> Result<(), StoreError> {
        let path = self.directory.join(name);
        // What a process that died has left would not have this mode.
        drop(fs::remove_file(&path));
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&path)
            .map_err(at("can't be made", &path))?;
        let written = fill(&mut file).and_then(|()| file.sync_all());
        written.map_err(|error| {
            drop(fs::remove_file(&path));
            at("can't be written", &path)(error)
        })
    }

    /// Gives a whole file its name, on the disk too.
    fn rename(&self, from: &Path, to: &Path) -> Result<(), StoreError> {
        fs::rename(from, to).map_err(at("can't be renamed", from))?;
        self.lock
            .sync_all()
            .map_err(at("can't be flushed", &self.directory))
    }
}

fn at<'a>(what: &'static str, path: &'a Path) -> impl Fn(io::Error) -> StoreError + 'a {
    move |source| StoreError::Io {
        what,
        path: path.to_owned(),
        source,
    }
}

/// The pins as TOML. JSON's texts are TOML's too, where they hold no control character.
fn text(pins: &[Pin]) -> String {
    let mut text = "# Written by `alpine provider add` and `alpine provider remove`. Settings of your own belong into config.toml.\n".to_owned();
    for pin in pins {
        let path = serde_json::Value::from(&*pin.path.to_string_lossy());
        // Strings take every write.
        let _ = write!(
            text,
            "\n[providers.{}]\nkind = \"{}\"\npath = {path}\nsha256 = \"{}\"\n",
            pin.name,
            pin.kind.as_str(),
            pin.sha256
        );
    }
    text
}
