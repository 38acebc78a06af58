//! Destroys a sandbox, and removes directories whatever is in them.

use crate::file::{self, io_error};
use crate::intent::{self, Guard};
use crate::layout::{Home, Sandbox};
use crate::provider::{Local, blocking};
use crate::{made, record, stop};
use alpine_provider_api::{Call, DestroyReply, DestroyRequest, ProviderError, SandboxId};
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;
use std::ffi::{CStr, CString};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

/// Remembers the id as destroyed, ends what runs, and removes all that the sandbox stored.
pub(crate) async fn destroy(
    local: &Arc<Local>,
    call: &Call,
    request: DestroyRequest,
) -> Result<DestroyReply, ProviderError> {
    let fence = call.meta.fence;
    let sandbox = local.home.sandbox(&request.sandbox_id);
    {
        let (local, sandbox) = (Arc::clone(local), sandbox.clone());
        blocking(move || bury(&local.home, &sandbox, fence)).await?;
    }
    // Buried first: nobody starts it again meanwhile.
    stop::end(call, &sandbox, Duration::ZERO).await?;
    let local = Arc::clone(local);
    blocking(move || dispose(&local.home, &sandbox)).await?;
    Ok(DestroyReply {})
}

fn bury(home: &Home, sandbox: &Sandbox, fence: u64) -> Result<(), ProviderError> {
    home.make()?;
    let held = intent::lock(home, &sandbox.id)?;
    if let Some(seen) = intent::tombstone(home, &sandbox.id)? {
        return match fence < seen {
            true => Err(intent::fenced(&sandbox.id, fence, seen)),
            false => Ok(()),
        };
    }
    if file::is_dir(&sandbox.dir)? {
        intent::raise_fence(&held, sandbox, fence)?;
    }
    intent::bury(home, &sandbox.id, fence)
}

/// Takes the directory away in one step, so that nothing that comes late finds its place, and removes it then.
fn dispose(home: &Home, sandbox: &Sandbox) -> Result<(), ProviderError> {
    let held = intent::lock(home, &sandbox.id)?;
    // A supervisor that was killed leaves its socket; where that is, the sandbox's own record says.
    record::remove_socket(sandbox)?;
    let doomed = home.doomed().join(sandbox.id.as_str());
    remove_tree(&doomed)?;
    match std::fs::rename(&sandbox.dir, &doomed) {
        Ok(()) => remove_tree(&doomed)?,
        Err(source) if source.kind() == std::io::ErrorKind::NotFound => {}
        Err(source) => return Err(io_error(&sandbox.dir, &source)),
    }
    sweep(&held, home, &sandbox.id)?;
    made::forget(&held, home, &sandbox.id)
}

/// Removes what an earlier call for this id left when it was killed.
pub(crate) fn sweep(_held: &Guard, home: &Home, id: &SandboxId) -> Result<(), ProviderError> {
    remove_tree(&home.unborn(id))?;
    for of in [home.tombstones(), home.notes()] {
        file::remove(&file::part_of(&of.join(id.as_str())))?;
    }
    Ok(())
}

/// Removes a directory and all below it, whatever the modes are and however deep it goes, and follows no link. One that is
/// not there is removed already.
pub(crate) fn remove_tree(path: &Path) -> Result<(), ProviderError> {
    let failed = |source: Errno| io_error(path, &source.into());
    let root = match open_dir(CWD, path) {
        Ok(root) => root,
        Err(Errno::NOENT) => return Ok(()),
        Err(Errno::NOTDIR | Errno::LOOP) => {
            return std::fs::remove_file(path).map_err(|source| io_error(path, &source));
        }
        Err(source) => return Err(failed(source)),
    };
    let moved = AtomicU64::new(0);
    let tree = Tree { root, moved };
    tree.empty().map_err(failed)?;
    std::fs::remove_dir(path).map_err(|source| io_error(path, &source))
}

/// How many directories are emptied at once: where each removal waits for the disk, waiting together is what helps.
const HANDS: usize = 4;

/// A directory that is being emptied.
struct Tree {
    root: OwnedFd,
    moved: AtomicU64,
}

impl Tree {
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
                rustix::fs::unlinkat(&self.root, &*name, AtFlags::empty())?;
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
                rustix::fs::unlinkat(&child, &*name, AtFlags::empty())?;
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
    use super::remove_tree;
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt, symlink};

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
