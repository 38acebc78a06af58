//! Makes trees of files and tells everything that a restore must bring back.

use proptest::prelude::*;
use rustix::fs::{
    AtFlags, CWD, FileType, Mode, Timespec, Timestamps, XattrFlags, lgetxattr, linkat, llistxattr,
    lsetxattr, mknodat, utimensat,
};
use rustix::process::Uid;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

/// One thing to make; its name may be taken already, and then it is not made.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    directory: prop::sample::Index,
    name: Vec<u8>,
    what: What,
    mode: u32,
    time: (i64, i64),
    attribute: Option<Vec<u8>>,
}

#[derive(Clone, Debug)]
enum What {
    Directory,
    File(Vec<u8>),
    Symlink(Vec<u8>),
    Link(prop::sample::Index),
    Fifo,
}

impl Arbitrary for Node {
    type Parameters = ();
    type Strategy = BoxedStrategy<Node>;

    fn arbitrary_with((): ()) -> Self::Strategy {
        let byte =
            prop::sample::select((1..=255u8).filter(|byte| *byte != b'/').collect::<Vec<_>>());
        let name = prop::collection::vec(byte, 1..120)
            .prop_filter("a name", |name| name != b"." && name != b"..");
        let what = prop_oneof![
            Just(What::Directory),
            prop::collection::vec(any::<u8>(), 0..3000).prop_map(What::File),
            name.clone().prop_map(What::Symlink),
            any::<prop::sample::Index>().prop_map(What::Link),
            Just(What::Fifo),
        ];
        let time = (-1_000_000_000i64..9_000_000_000, 0i64..1_000_000_000);
        let attribute = prop::option::of(prop::collection::vec(any::<u8>(), 0..300));
        (
            any::<prop::sample::Index>(),
            name,
            what,
            0u32..0o1000,
            time,
            attribute,
        )
            .prop_map(|(directory, name, what, mode, time, attribute)| Node {
                directory,
                name,
                what,
                mode,
                time,
                attribute,
            })
            .boxed()
    }
}

/// Makes the nodes below a directory.
pub(crate) fn grow(root: &Path, nodes: &[Node]) {
    let mut directories = vec![root.to_owned()];
    let mut files: Vec<PathBuf> = Vec::new();
    let mut made = Vec::new();
    for node in nodes {
        let path = node
            .directory
            .get(&directories)
            .join(OsStr::from_bytes(&node.name));
        if path.symlink_metadata().is_ok() {
            continue;
        }
        match &node.what {
            What::Directory => {
                fs::create_dir(&path).unwrap();
                directories.push(path.clone());
            }
            What::File(content) => {
                fs::write(&path, content).unwrap();
                files.push(path.clone());
            }
            What::Symlink(target) => symlink(OsStr::from_bytes(target), &path).unwrap(),
            What::Link(_) if files.is_empty() => continue,
            What::Link(first) => hard_link(first.get::<PathBuf>(&files), &path),
            What::Fifo => fifo(&path),
        }
        made.push((path, node));
    }
    for (path, node) in made.iter().rev() {
        let owner_may = 0o500;
        match node.what {
            What::Directory | What::File(_) => {
                if let Some(value) = &node.attribute {
                    set_attribute(path, "user.some", value);
                }
                fs::set_permissions(path, Permissions::from_mode(node.mode | owner_may)).unwrap();
            }
            What::Fifo => fs::set_permissions(path, Permissions::from_mode(node.mode)).unwrap(),
            What::Symlink(_) | What::Link(_) => {}
        }
        set_times(path, node.time.0, node.time.1);
    }
}

/// Every entry, and everything about it that counts.
pub(crate) fn describe(root: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut inodes = BTreeMap::new();
    tell(root, Path::new(""), &mut inodes, &mut found);
    found
}

fn tell(
    root: &Path,
    path: &Path,
    inodes: &mut BTreeMap<u64, PathBuf>,
    found: &mut BTreeMap<PathBuf, String>,
) {
    let full = root.join(path);
    let metadata = fs::symlink_metadata(&full).unwrap();
    let kind = metadata.file_type();
    let content = if kind.is_file() {
        blake3::hash(&fs::read(&full).unwrap()).to_hex().to_string()
    } else if kind.is_symlink() {
        format!("→ {:?}", fs::read_link(&full).unwrap())
    } else if kind.is_dir() {
        "directory".to_owned()
    } else {
        assert!(kind.is_fifo());
        "fifo".to_owned()
    };
    let first = inodes
        .entry(metadata.ino())
        .or_insert_with(|| path.to_owned())
        .clone();
    let links = if kind.is_dir() { 0 } else { metadata.nlink() };
    let mode = metadata.mode();
    let time = (metadata.mtime(), metadata.mtime_nsec());
    let text = format!(
        "{mode:o} {time:?} {content} {links} {first:?} {:?}",
        attributes(&full)
    );
    found.insert(path.to_owned(), text);
    if kind.is_dir() {
        let mut names: Vec<_> = fs::read_dir(&full)
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        names.sort();
        for name in names {
            tell(root, &path.join(name), inodes, found);
        }
    }
}

fn attributes(path: &Path) -> Vec<(String, Vec<u8>)> {
    let mut names = vec![0; 65536];
    let length = llistxattr(path, names.as_mut_slice()).unwrap_or(0);
    let mut found = Vec::new();
    for name in names[..length].split(|byte| *byte == 0) {
        let name = std::str::from_utf8(name).unwrap();
        if name.starts_with("user.") {
            let mut value = vec![0; 65536];
            let length = lgetxattr(path, name, value.as_mut_slice()).unwrap();
            found.push((name.to_owned(), value[..length].to_vec()));
        }
    }
    found.sort();
    found
}

pub(crate) fn set_attribute(path: &Path, name: &str, value: &[u8]) {
    lsetxattr(path, name, value, XattrFlags::empty()).unwrap();
}

pub(crate) fn set_times(path: &Path, seconds: i64, nanoseconds: i64) {
    let time = Timespec {
        tv_sec: seconds,
        tv_nsec: nanoseconds,
    };
    let times = Timestamps {
        last_access: time,
        last_modification: time,
    };
    utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

pub(crate) fn hard_link(first: &Path, second: &Path) {
    linkat(CWD, first, CWD, second, AtFlags::empty()).unwrap();
}

pub(crate) fn fifo(path: &Path) {
    mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
}

/// Makes every directory writable, so that a temporary directory can go.
pub(crate) fn open_up(root: &Path) {
    fs::set_permissions(root, Permissions::from_mode(0o700)).unwrap();
    for entry in fs::read_dir(root).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            open_up(&entry.path());
        }
    }
}

/// Who [`as_a_user`] is where the test is a superuser.
fn user() -> Uid {
    Uid::from_raw(65_534)
}

/// Gives everything to the one who [`as_a_user`] is.
pub(crate) fn give(path: &Path) {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    std::os::unix::fs::lchown(path, Some(user().as_raw()), None).unwrap();
    if fs::symlink_metadata(path).unwrap().is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            give(&entry.unwrap().path());
        }
    }
}

/// Does something in a thread that is no superuser.
pub(crate) fn as_a_user<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    if !rustix::process::geteuid().is_root() {
        return work();
    }
    std::thread::scope(|scope| {
        let worker = scope.spawn(move || {
            // The system call changes this thread alone.
            rustix::thread::set_thread_res_uid(user(), user(), user()).unwrap();
            work()
        });
        worker.join().unwrap()
    })
}
