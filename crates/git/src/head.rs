//! Reads what a workspace's HEAD is without running git: whoever could write the workspace could have told git what to run.

use alpine_provider_api::{CommitId, ProviderError};
use rustix::fs::{CWD, FileType, Mode, OFlags, fstat, openat};
use rustix::io::Errno;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

const LONGEST_REF: u64 = 4096;
const LONGEST_PACKED: u64 = 64 * 1024 * 1024;
const DEEPEST: usize = 5;

/// The commit that HEAD of the workspace's own repository is; none where there is no repository, or no commit yet.
///
/// # Errors
/// `Io` when the files can't be read, are links, or are not what git would have written.
pub fn head(workspace: &Path) -> Result<Option<CommitId>, ProviderError> {
    read_head(workspace).map_err(|error| {
        ProviderError::io(
            format!("can't read HEAD of `{}`", workspace.display()),
            &error,
        )
    })
}

fn read_head(workspace: &Path) -> std::io::Result<Option<CommitId>> {
    let Some(root) = present(openat(CWD, workspace, DIRECTORY, Mode::empty()))? else {
        return Ok(None);
    };
    let Some(git) = present(openat(&root, ".git", DIRECTORY, Mode::empty()))? else {
        return Ok(None);
    };
    let mut name = String::from("HEAD");
    for _ in 0..DEEPEST {
        let Some(file) = open_inside(&git, &name)? else {
            return packed(&git, &name);
        };
        let mut text = String::new();
        file.take(LONGEST_REF).read_to_string(&mut text)?;
        let text = text.trim_end();
        match text.strip_prefix("ref:") {
            Some(target) => name = target.trim_start().to_owned(),
            None => return CommitId::new(text).map(Some).ok_or_else(|| strange(&name)),
        }
    }
    Err(strange(&name))
}

const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// Opens a regular file below a directory, part by part; a link anywhere is an error.
fn open_inside(directory: &OwnedFd, name: &str) -> std::io::Result<Option<File>> {
    let mut parts: Vec<&str> = name.split('/').collect();
    if parts.iter().any(|part| matches!(*part, "" | "." | "..")) {
        return Err(strange(name));
    }
    let Some(last) = parts.pop() else {
        return Ok(None);
    };
    let mut at: Option<OwnedFd> = None;
    for part in parts {
        let parent = at.as_ref().map_or(directory.as_fd(), AsFd::as_fd);
        match present(openat(parent, part, DIRECTORY, Mode::empty()))? {
            Some(next) => at = Some(next),
            None => return Ok(None),
        }
    }
    let parent = at.as_ref().map_or(directory.as_fd(), AsFd::as_fd);
    let flags =
        OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let Some(file) = present(openat(parent, last, flags, Mode::empty()))? else {
        return Ok(None);
    };
    match FileType::from_raw_mode(fstat(&file)?.st_mode) {
        FileType::RegularFile => Ok(Some(File::from(file))),
        // `refs/heads/a` is a directory when only `a/b` is a loose ref; `a` may be a packed one.
        FileType::Directory => Ok(None),
        FileType::Symlink
        | FileType::Fifo
        | FileType::Socket
        | FileType::CharacterDevice
        | FileType::BlockDevice
        | FileType::Unknown => Err(strange(name)),
    }
}

fn packed(git: &OwnedFd, name: &str) -> std::io::Result<Option<CommitId>> {
    let Some(file) = open_inside(git, "packed-refs")? else {
        return Ok(None);
    };
    for line in BufReader::new(file.take(LONGEST_PACKED)).split(b'\n') {
        let line = line?;
        let Ok(line) = std::str::from_utf8(&line) else {
            continue;
        };
        if let Some((id, found)) = line.split_once(' ')
            && found == name
        {
            return CommitId::new(id).map(Some).ok_or_else(|| strange(name));
        }
    }
    Ok(None)
}

fn present(opened: rustix::io::Result<OwnedFd>) -> std::io::Result<Option<OwnedFd>> {
    match opened {
        Ok(file) => Ok(Some(file)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn strange(name: &str) -> std::io::Error {
    let name: String = name.chars().filter(|c| !c.is_control()).take(200).collect();
    std::io::Error::new(
        std::io::ErrorKind::InvalidData,
        format!("`{name}` is not what git writes"),
    )
}
