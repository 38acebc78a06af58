//! What is in a durable object, and what is in a directory.

use crate::local::program::Program;
use alpine_objects::Store;
use alpine_provider_api::ReadSnapshot;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// A file as a workspace has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    Directory(u32),
    File(u32, Vec<u8>),
    Link(PathBuf),
    Other(u32),
}

/// Everything below a directory, by its path in it.
pub(crate) fn tree(root: &Path) -> BTreeMap<Vec<u8>, Found> {
    let mut found = BTreeMap::new();
    let mut open = vec![root.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(&directory).expect("a directory") {
            let path = entry.expect("an entry").path();
            let meta = path.symlink_metadata().expect("its kind");
            let mode = meta.permissions().mode() & 0o7777;
            let it = if meta.is_dir() {
                open.push(path.clone());
                Found::Directory(mode)
            } else if meta.is_symlink() {
                Found::Link(fs::read_link(&path).expect("a link"))
            } else if !meta.is_file() {
                // A pipe has nobody at its other end.
                Found::Other(mode)
            } else {
                Found::File(mode, fs::read(&path).expect("a file"))
            };
            let name = path.strip_prefix(root).expect("a path below").as_os_str();
            found.insert(name.as_bytes().to_vec(), it);
        }
    }
    found
}

/// A durable object: its payload, and its snapshot as it was brought back below a directory of its own.
pub(crate) struct Object {
    pub(crate) payload: Value,
    pub(crate) restored: PathBuf,
}

/// Reads the object that a `down` named, and brings its snapshot back.
#[track_caller]
pub(crate) fn restore(program: &Program, down: &Value) -> Object {
    let id = down["durable_object_id"].as_str().expect("an object's id");
    let (object, snapshot) = restore_object(program, id);
    assert_eq!(down["workspace_snapshot"]["digest"], snapshot.digest);
    assert_eq!(down["workspace_snapshot"]["size"], snapshot.size);
    object
}

/// The object of that id, and what its snapshot is.
pub(crate) fn restore_object(program: &Program, id: &str) -> (Object, ReadSnapshot) {
    let store = Store::file(&program.env.alpine_home().join("objects")).expect("the store");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let (read, archive) = runtime.block_on(async {
        let read = store.read(id, &|_, _| {}).await.expect("the object");
        let archive = store.snapshot_file(id).await.expect("its snapshot");
        (read, archive)
    });
    let restored = program.env.root().join("restored");
    let archive = File::open(archive).expect("the archive");
    alpine_snapshot::restore(archive, &restored, &mut |_| {}).expect("the snapshot");
    let object = Object {
        payload: serde_json::from_str(&read.payload).expect("the payload"),
        restored,
    };
    (object, read.snapshot.expect("a snapshot"))
}
