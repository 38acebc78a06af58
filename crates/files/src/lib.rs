//! Private files: whole or not there, for the user alone, and never through a link.

use alpine_provider_api::{ErrorKind, ProviderError};
use rustix::fs::OFlags;
use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Whether a file has to outlive a loss of power.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flush {
    /// It is flushed to disk, and so is its directory.
    Yes,
    /// It tells of processes that would not outlive it either.
    No,
}

/// Makes a directory of mode 0700, and those above it, where they are missing.
///
/// # Errors
/// Those of the system.
pub fn private_dir(path: &Path) -> Result<(), ProviderError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|source| io_error(path, &source))
}

/// Replaces a file by a record, in one step.
///
/// # Errors
/// Those of the system.
pub fn write_json<T: Serialize>(
    path: &Path,
    record: &T,
    flush: Flush,
) -> Result<(), ProviderError> {
    let text = serde_json::to_vec_pretty(record)
        .map_err(|source| ProviderError::new(ErrorKind::Internal, source.to_string()))?;
    replace(path, &text, flush).map_err(|source| io_error(path, &source))
}

/// Replaces a file, in one step.
///
/// # Errors
/// Those of the system.
pub fn write(path: &Path, text: &[u8]) -> Result<(), ProviderError> {
    replace(path, text, Flush::No).map_err(|source| io_error(path, &source))
}

/// Replaces a file that has one writer at a time, in one step. What a writer that was killed left is replaced too.
///
/// # Errors
/// Those of the system.
pub fn write_alone(path: &Path, text: &[u8]) -> Result<(), ProviderError> {
    remove(&part_of(path))?;
    replace_by(&part_of(path), path, text, Flush::Yes).map_err(|source| io_error(path, &source))
}

/// Where [`write_alone`] writes first.
#[must_use]
pub fn part_of(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".part");
    path.with_file_name(name)
}

/// Makes a file of random text, whole and flushed; one that is there already stays.
///
/// # Errors
/// Those of the system.
pub fn draw(path: &Path) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{:08x}.part", random_u32()));
    let part = path.with_file_name(name);
    let text: String = (0..4).map(|_| format!("{:08x}", random_u32())).collect();
    let made = write_new(&part, text.as_bytes(), Flush::Yes)
        .and_then(|()| std::fs::hard_link(&part, path));
    // The name that stays is the other one.
    let _ = std::fs::remove_file(&part);
    match made {
        Err(source) if source.kind() != io::ErrorKind::AlreadyExists => Err(source),
        Ok(()) | Err(_) => flush_names(path),
    }
}

/// Flushes the directory that a file is in.
fn flush_names(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(directory) => File::open(directory)?.sync_all(),
        None => Ok(()),
    }
}

/// Removes a file, if it is there.
///
/// # Errors
/// Those of the system.
pub fn remove(path: &Path) -> Result<(), ProviderError> {
    match std::fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(io_error(path, &source)),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Removes a directory with all that is in it, if it is there, also where its own modes forbid that. Nobody may change it
/// meanwhile.
///
/// # Errors
/// Those of the system.
pub fn remove_tree(path: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(source) if source.kind() == io::ErrorKind::PermissionDenied => {
            unlock(path)?;
            std::fs::remove_dir_all(path)
        }
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(source),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Gives the user every right to the directories of a tree.
fn unlock(path: &Path) -> io::Result<()> {
    let mut open = vec![path.to_owned()];
    while let Some(directory) = open.pop() {
        std::fs::set_permissions(&directory, Permissions::from_mode(0o700))?;
        for entry in std::fs::read_dir(&directory)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                open.push(entry.path());
            }
        }
    }
    Ok(())
}

/// Whether a directory is there. That it can't be told is an error: it proves nothing.
///
/// # Errors
/// Those of the system.
pub fn is_dir(path: &Path) -> Result<bool, ProviderError> {
    match std::fs::metadata(path) {
        Ok(found) => Ok(found.is_dir()),
        Err(source) if source.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(io_error(path, &source)),
    }
}

/// Makes a file that was not there.
///
/// # Errors
/// Those of the system.
pub fn create(path: &Path, text: &[u8]) -> io::Result<()> {
    write_new(path, text, Flush::No)
}

fn replace(path: &Path, text: &[u8], flush: Flush) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{:08x}.part", random_u32()));
    replace_by(&path.with_file_name(name), path, text, flush)
}

fn replace_by(part: &Path, path: &Path, text: &[u8], flush: Flush) -> io::Result<()> {
    let written = write_new(part, text, flush).and_then(|()| std::fs::rename(part, path));
    if let Err(source) = written {
        // What can't be removed now is removed with the directory, or by the next writer.
        let _ = std::fs::remove_file(part);
        return Err(source);
    }
    match flush {
        Flush::Yes => flush_names(path),
        Flush::No => Ok(()),
    }
}

fn write_new(path: &Path, text: &[u8], flush: Flush) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(text)?;
    if flush == Flush::Yes {
        file.sync_all()?;
    }
    Ok(())
}

/// Reads a record; none when there is no such file.
///
/// # Errors
/// Those of the system.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, ProviderError> {
    let Some(text) = read_small(path, 1 << 20).map_err(|source| io_error(path, &source))? else {
        return Ok(None);
    };
    serde_json::from_slice(&text).map(Some).map_err(|source| {
        ProviderError::new(
            ErrorKind::Corrupt,
            format!("`{}` is damaged: {source}", path.display()),
        )
    })
}

/// Reads a regular file of at most so many bytes without following a link; none when there is none.
///
/// # Errors
/// Those of the system.
pub fn read_small(path: &Path, limit: u64) -> io::Result<Option<Vec<u8>>> {
    // A FIFO in the file's place must not make the open wait.
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = match OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits().cast_signed())
        .open(path)
    {
        Ok(file) => file,
        Err(source) if source.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(source),
    };
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "not a regular file",
        ));
    }
    let mut text = Vec::new();
    file.take(limit + 1).read_to_end(&mut text)?;
    if text.len() as u64 > limit {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("larger than {limit} bytes"),
        ));
    }
    Ok(Some(text))
}

/// A failure that names a path.
#[must_use]
pub fn io_error(path: &Path, source: &io::Error) -> ProviderError {
    ProviderError::io(format!("`{}`", path.display()), source)
}

/// Random bits for a name that nobody else uses.
#[must_use]
pub fn random_u32() -> u32 {
    // Where the kernel has no random bits to give, the process and the time tell names apart.
    getrandom::u32().unwrap_or_else(|_| {
        let now = clock_gettime(ClockId::Monotonic);
        std::process::id() ^ (now.tv_nsec & 0xffff_ffff) as u32
    })
}

#[cfg(test)]
mod tests {
    use super::{remove_tree, unlock};
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[test]
    fn a_tree_is_removed_whatever_its_modes_and_nothing_that_it_leads_to() {
        let directory = tempfile::tempdir().unwrap();
        let (tree, outside) = (
            directory.path().join("tree"),
            directory.path().join("outside"),
        );
        for path in [&tree.join("closed/deep"), &outside] {
            fs::create_dir_all(path).unwrap();
            fs::set_permissions(path, Permissions::from_mode(0o500)).unwrap();
        }
        symlink(&outside, tree.join("closed/out")).unwrap();
        fs::set_permissions(tree.join("closed"), Permissions::from_mode(0o000)).unwrap();
        // For the superuser, who needs none of it.
        unlock(&tree).unwrap();
        let mode = |path: &str| {
            fs::metadata(directory.path().join(path))
                .unwrap()
                .permissions()
        };
        assert_eq!(mode("tree/closed").mode() & 0o777, 0o700);
        assert_eq!(mode("tree/closed/deep").mode() & 0o777, 0o700);
        assert_eq!(mode("outside").mode() & 0o777, 0o500);
        for _ in 0..2 {
            remove_tree(&tree).unwrap();
        }
        assert!(!tree.exists() && outside.exists());
    }
}
