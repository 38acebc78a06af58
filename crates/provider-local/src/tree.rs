//! Removes directories whatever is in them.

use crate::file::{self, io_error};
use alpine_provider_api::ProviderError;
use rustix::fs::{AtFlags, CWD, Dir, FileType, FlockOperation, Mode, OFlags, flock};
use rustix::io::Errno;
use std::ffi::{CStr, CString};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

/// What became of a tree that was to be removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Removal {
    /// It is gone.
    Done,
    /// Part of it is left: the time was over.
    OutOfTime,
    /// Another process is removing it.
    Elsewhere,
}

/// Removes a directory and all below it, whatever the modes are and however deep it goes, and follows no link. One that is
/// not there is removed already.
pub(crate) fn remove_tree(path: &Path) -> Result<(), ProviderError> {
    remove(path, None).map(|_| ())
}

/// The same, but stops at a time, and leaves to others what they are removing.
pub(crate) fn remove_alone(path: &Path, until: Option<Instant>) -> Result<Removal, ProviderError> {
    let locked = match open_dir(CWD, path) {
        Ok(root) => flock(&root, FlockOperation::NonBlockingLockExclusive).map(|()| Some(root)),
        // What is no directory is removed in one step.
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
        Err(source) => Err(source),
    };
    match locked {
        Ok(_held) => remove(path, until),
        Err(Errno::WOULDBLOCK) => Ok(Removal::Elsewhere),
        Err(source) => Err(io_error(path, &source.into())),
    }
}

/// Whether no process is removing a tree that is there.
pub(crate) fn is_left_alone(path: &Path) -> bool {
    match open_dir(CWD, path) {
        Ok(root) => flock(&root, FlockOperation::NonBlockingLockShared) != Err(Errno::WOULDBLOCK),
        Err(source) => source != Errno::NOENT,
    }
}

fn remove(path: &Path, until: Option<Instant>) -> Result<Removal, ProviderError> {
    let failed = |source: Errno| io_error(path, &source.into());
    let root = match open_dir(CWD, path) {
        Ok(root) => root,
        Err(Errno::NOENT) => return Ok(Removal::Done),
        Err(Errno::NOTDIR | Errno::LOOP) => {
            return file::remove(path).map(|()| Removal::Done);
        }
        Err(source) => return Err(failed(source)),
    };
    let moved = AtomicU64::new(0);
    let tree = Tree { root, moved, until };
    match tree.empty() {
        Ok(()) => {}
        Err(Errno::TIMEDOUT) if tree.is_late() => return Ok(Removal::OutOfTime),
        Err(source) => return Err(failed(source)),
    }
    match std::fs::remove_dir(path) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            Err(io_error(path, &source))
        }
        Ok(()) | Err(_) => Ok(Removal::Done),
    }
}

/// How many directories are emptied at once: where each removal waits for the disk, waiting together is what helps.
const HANDS: usize = 4;

/// A directory that is being emptied.
struct Tree {
    root: OwnedFd,
    moved: AtomicU64,
    until: Option<Instant>,
}

impl Tree {
    fn is_late(&self) -> bool {
        self.until.is_some_and(|until| Instant::now() >= until)
    }

    /// Removes one name, unless the time is over.
    fn unlink(&self, parent: &OwnedFd, name: &CStr) -> Result<(), Errno> {
        match self.is_late() {
            true => Err(Errno::TIMEDOUT),
            false => rustix::fs::unlinkat(parent, name, AtFlags::empty()),
        }
    }

    /// Each directory that is found below is moved up to the root first, so that however deep the tree is, few descriptors
    /// and no recursion do.
    fn empty(&self) -> Result<(), Errno> {
        loop {
            let (mut files, mut directories) = (Vec::new(), Vec::new());
            for entry in Dir::read_from(&self.root)? {
                let entry = entry?;
                let name = entry.file_name();
                if matches!(name.to_bytes(), b"." | b"..") {
                    continue;
                }
                match is_dir(&self.root, name, entry.file_type())? {
                    true => directories.push(name.to_owned()),
                    false => files.push(name.to_owned()),
                }
            }
            if files.is_empty() && directories.is_empty() {
                return Ok(());
            }
            for name in files {
                self.unlink(&self.root, &name)?;
            }
            self.empty_children(&directories)?;
        }
    }

    /// Removes directories that are directly below the root, several at once.
    fn empty_children(&self, names: &[CString]) -> Result<(), Errno> {
        let next = AtomicUsize::new(0);
        let hand = || {
            while let Some(name) = names.get(next.fetch_add(1, Ordering::Relaxed)) {
                self.empty_child(name)?;
            }
            Ok(())
        };
        std::thread::scope(|scope| {
            // Where no thread can be had, fewer hands do it.
            let others: Vec<_> = (1..HANDS.min(names.len()))
                .map_while(|_| std::thread::Builder::new().spawn_scoped(scope, hand).ok())
                .collect();
            others.into_iter().fold(hand(), |done, other| {
                done.and(other.join().unwrap_or(Err(Errno::CANCELED)))
            })
        })
    }

    /// Removes a directory that is directly below the root, after moving the directories that are in it beside it.
    fn empty_child(&self, name: &CStr) -> Result<(), Errno> {
        let child = open_dir(&self.root, name)?;
        let mut found = Vec::new();
        for entry in Dir::read_from(&child)? {
            let entry = entry?;
            let name = entry.file_name();
            if !matches!(name.to_bytes(), b"." | b"..") {
                found.push((name.to_owned(), is_dir(&child, name, entry.file_type())?));
            }
        }
        for (name, is_dir) in found {
            if !is_dir {
                self.unlink(&child, &name)?;
                continue;
            }
            // A directory that changes its parent has to be writable itself.
            rustix::fs::chmodat(&child, &*name, Mode::RWXU, AtFlags::empty())?;
            loop {
                let number = self.moved.fetch_add(1, Ordering::Relaxed);
                let beside = format!(".alpine-removing-{number}");
                let flags = rustix::fs::RenameFlags::NOREPLACE;
                match rustix::fs::renameat_with(&child, &*name, &self.root, beside, flags) {
                    Ok(()) => break,
                    Err(Errno::EXIST) => {}
                    Err(source) => return Err(source),
                }
            }
        }
        rustix::fs::unlinkat(&self.root, name, AtFlags::REMOVEDIR)
    }
}

fn is_dir(parent: &OwnedFd, name: &CStr, kind: FileType) -> Result<bool, Errno> {
    if kind != FileType::Unknown {
        return Ok(kind == FileType::Directory);
    }
    let stat = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
}

/// Opens a directory that can then be read and written; its mode is mended where it forbids that.
fn open_dir<P: rustix::path::Arg + Copy>(
    parent: impl std::os::fd::AsFd,
    name: P,
) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = match rustix::fs::openat(&parent, name, flags, Mode::empty()) {
        Err(Errno::ACCESS) => {
            let stat = rustix::fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
            if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
                return Err(Errno::NOTDIR);
            }
            rustix::fs::chmodat(&parent, name, Mode::RWXU, AtFlags::empty())?;
            rustix::fs::openat(&parent, name, flags, Mode::empty())
        }
        opened => opened,
    }?;
    rustix::fs::fchmod(&opened, Mode::RWXU)?;
    Ok(opened)
}

#[cfg(test)]
mod tests {
    use super::{Removal, is_left_alone, remove_alone, remove_tree};
    use rustix::fs::{FlockOperation, flock};
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::time::Instant;

    #[test]
    fn a_hostile_tree_goes_and_nothing_beside_it() {
        let directory = tempfile::tempdir().unwrap();
        let beside = directory.path().join("beside");
        fs::create_dir(&beside).unwrap();
        fs::write(beside.join("kept"), "x").unwrap();
        let tree = directory.path().join("tree");
        fs::create_dir_all(tree.join("locked/inner/.alpine-removing-1")).unwrap();
        fs::write(tree.join("locked/inner/file"), "x").unwrap();
        symlink(&beside, tree.join("locked/link")).unwrap();
        symlink("nowhere", tree.join("dangling")).unwrap();
        fs::set_permissions(tree.join("locked/inner"), Permissions::from_mode(0o0)).unwrap();
        fs::set_permissions(tree.join("locked"), Permissions::from_mode(0o0)).unwrap();
        fs::set_permissions(&tree, Permissions::from_mode(0o500)).unwrap();
        remove_tree(&tree).unwrap();
        remove_tree(&tree).unwrap();
        assert!(tree.symlink_metadata().is_err());
        assert!(beside.join("kept").exists());
    }

    #[test]
    fn one_that_is_late_stops_and_the_next_goes_on() {
        let directory = tempfile::tempdir().unwrap();
        let tree = directory.path().join("tree");
        fs::create_dir_all(tree.join("some/where")).unwrap();
        fs::write(tree.join("some/where/file"), "x").unwrap();
        let now = Some(Instant::now());
        assert_eq!(remove_alone(&tree, now).unwrap(), Removal::OutOfTime);
        assert!(tree.exists() && is_left_alone(&tree));
        assert_eq!(remove_alone(&tree, None).unwrap(), Removal::Done);
        assert_eq!(remove_alone(&tree, None).unwrap(), Removal::Done);
        assert!(!tree.exists() && !is_left_alone(&tree));
    }

    #[test]
    fn what_another_removes_is_left_to_it() {
        let directory = tempfile::tempdir().unwrap();
        let tree = directory.path().join("tree");
        fs::create_dir(&tree).unwrap();
        let other = fs::File::open(&tree).unwrap();
        flock(&other, FlockOperation::LockExclusive).unwrap();
        assert_eq!(remove_alone(&tree, None).unwrap(), Removal::Elsewhere);
        assert!(tree.exists() && !is_left_alone(&tree));
        drop(other);
        assert!(is_left_alone(&tree));
    }

    #[test]
    fn many_directories_go_at_once() {
        let directory = tempfile::tempdir().unwrap();
        let tree = directory.path().join("tree");
        for number in 0..60 {
            let inner = tree.join(format!("part{number}/same/.alpine-removing-{number}"));
            fs::create_dir_all(&inner).unwrap();
            fs::write(inner.join("file"), "x").unwrap();
            fs::write(tree.join(format!("part{number}/file")), "x").unwrap();
        }
        remove_tree(&tree).unwrap();
        assert!(!tree.exists());
    }

    #[test]
    fn depth_does_not_matter() {
        let directory = tempfile::tempdir().unwrap();
        let tree = directory.path().join("tree");
        fs::create_dir(&tree).unwrap();
        let mut at = std::fs::File::open(&tree).unwrap().into();
        for _ in 0..3000 {
            let mode = rustix::fs::Mode::RWXU;
            rustix::fs::mkdirat(&at, "d", mode).unwrap();
            at = super::open_dir(&at, c"d").unwrap();
        }
        remove_tree(&tree).unwrap();
        assert!(!tree.exists());
    }
}
