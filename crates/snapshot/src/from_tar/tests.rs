//! Streams of `tar` programs, and of attackers.

use super::from_tar;
use crate::error::SnapshotError;
use crate::{Captured, restore, to_tar};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use tar::{EntryType, Header};
use tempfile::TempDir;

/// A stream that is written block by block.
#[derive(Default)]
struct Stream(Vec<u8>);

impl Stream {
    fn entry(mut self, entry_type: EntryType, path: &str, link: &str, content: &[u8]) -> Self {
        let mut header = Header::new_gnu();
        let old = header.as_old_mut();
        old.name[..path.len()].copy_from_slice(path.as_bytes());
        old.linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(entry_type);
        let is_directory = entry_type == EntryType::Directory;
        header.set_mode(if is_directory { 0o755 } else { 0o644 });
        header.set_size(content.len() as u64);
        header.set_cksum();
        self.0.extend(header.as_bytes());
        self.0.extend(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    fn end(mut self) -> Vec<u8> {
        self.0.extend([0; 1024]);
        self.0
    }
}

fn take(stream: &[u8], at: &Path) -> Result<Captured, SnapshotError> {
    from_tar(
        stream,
        "workspace",
        &[],
        &at.join("it.tar.zst"),
        &mut |_| {},
    )
}

fn brought_back(at: &Path) -> std::path::PathBuf {
    let archive = fs::File::open(at.join("it.tar.zst")).unwrap();
    restore(archive, &at.join("back"), &mut |_| {}).unwrap();
    at.join("back/workspace")
}

fn tar(program: &str, arguments: &[&str], tree: &Path) -> Vec<u8> {
    let output = Command::new(program)
        .args(arguments)
        .arg(".")
        .current_dir(tree)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    output.stdout
}

/// What `ls -R` would show: path → mode, size, link's target.
fn listing(tree: &Path) -> Vec<String> {
    listing_with(tree, true)
}

/// With all times, or with those of files alone: BusyBox sets no others when it unpacks.
fn listing_with(tree: &Path, all_times: bool) -> Vec<String> {
    let mut all = Vec::new();
    let mut pending = vec![tree.to_owned()];
    while let Some(next) = pending.pop() {
        let meta = next.symlink_metadata().unwrap();
        let target = fs::read_link(&next).unwrap_or_default();
        let content = match meta.is_file() {
            true => blake3::hash(&fs::read(&next).unwrap()).to_string(),
            false => String::new(),
        };
        let timed = all_times || meta.is_file();
        let time = if timed { meta.mtime() } else { 0 };
        all.push(format!(
            "{:?} {:o} {} {time} {target:?} {content}",
            next.strip_prefix(tree).unwrap(),
            meta.mode(),
            meta.nlink(),
        ));
        if meta.is_dir() {
            let entries = fs::read_dir(&next).unwrap();
            pending.extend(entries.map(|entry| entry.unwrap().path()));
        }
    }
    all.sort();
    all
}

fn varied_tree(at: &Path) {
    fs::create_dir_all(at.join("a/b")).unwrap();
    fs::write(at.join("a/plain"), b"text\n").unwrap();
    fs::write(at.join("a/large"), vec![7; 3_000_001]).unwrap();
    fs::write(at.join("empty"), b"").unwrap();
    fs::write(at.join("new\nline"), b"x").unwrap();
    let raw = std::ffi::OsStr::from_bytes(b"not \xff utf8");
    fs::write(at.join(raw), b"x").unwrap();
    let long = format!("a/b/{}", "long".repeat(50));
    fs::write(at.join(&long), b"deep").unwrap();
    fs::write(at.join("run"), b"#!/bin/sh\n").unwrap();
    fs::set_permissions(at.join("run"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::hard_link(at.join("run"), at.join("run again")).unwrap();
    symlink("/nowhere/../x", at.join("dangling")).unwrap();
    symlink("y".repeat(300), at.join("a/longlink")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        at.join("fifo"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RWXU,
        0,
    )
    .unwrap();
}

#[test]
fn what_tar_programs_write_comes_back_and_goes_out_again() {
    let ways: [(&str, &[&str]); 3] = [
        ("tar", &["-c", "-f", "-"]),
        ("tar", &["--format=pax", "-c", "-f", "-"]),
        ("busybox", &["tar", "-c", "-f", "-"]),
    ];
    for (program, arguments) in ways {
        let at = TempDir::new().unwrap();
        let tree = at.path().join("tree");
        varied_tree(&tree);
        let captured = take(&tar(program, arguments, &tree), at.path()).unwrap();
        assert_eq!(captured.left_out, [], "{program}");
        let back = brought_back(at.path());
        assert_eq!(listing(&back), listing(&tree), "{program} {arguments:?}");
        for unpacker in ["tar", "busybox"] {
            let again = at.path().join(unpacker);
            fs::create_dir(&again).unwrap();
            let archive = fs::File::open(at.path().join("it.tar.zst")).unwrap();
            let mut child = Command::new(unpacker)
                .args(
                    ["tar", "-x", "-o", "-f", "-"]
                        .iter()
                        .skip(usize::from(unpacker == "tar")),
                )
                .current_dir(&again)
                .stdin(std::process::Stdio::piped())
                .spawn()
                .unwrap();
            let stdin = child.stdin.take().unwrap();
            let entries = to_tar(archive, "workspace", stdin, &mut |_| {}).unwrap();
            assert!(child.wait().unwrap().success());
            assert_eq!(entries, captured.entries);
            let listing = |tree: &Path| listing_with(tree, unpacker == "tar");
            assert_eq!(listing(&again), listing(&tree), "{unpacker}");
        }
    }
}

#[test]
fn hostile_entries_are_left_out_and_told_and_the_rest_comes_back() {
    let at = TempDir::new().unwrap();
    let stream = Stream::default()
        .entry(EntryType::Directory, "./", "", b"")
        .entry(EntryType::Regular, "./../up", "", b"out")
        .entry(EntryType::Regular, "/etc/passwd", "", b"out")
        .entry(EntryType::Symlink, "./link", "/etc", b"")
        .entry(EntryType::Regular, "./link/passwd", "", b"out")
        .entry(EntryType::Block, "./disk", "", b"")
        .entry(EntryType::Char, "./null", "", b"")
        .entry(EntryType::Link, "./other", "/etc/passwd", b"")
        .entry(EntryType::Link, "./early", "./kept", b"")
        .entry(EntryType::Regular, "./kept", "", b"kept")
        .entry(EntryType::Regular, "./kept", "", b"again")
        .entry(EntryType::Symlink, "./none", "", b"")
        .entry(EntryType::new(b'S'), "./sparse", "", b"")
        .entry(EntryType::Regular, "./no/such/dir", "", b"deep")
        .end();
    let captured = take(&stream, at.path()).unwrap();
    let told: Vec<_> = captured
        .left_out
        .iter()
        .map(|it| it.path.as_str())
        .collect();
    assert_eq!(
        told,
        [
            "./../up",
            "/etc/passwd",
            "workspace/link/passwd",
            "workspace/disk",
            "workspace/null",
            "workspace/other",
            "workspace/early",
            "workspace/kept",
            "workspace/none",
            "workspace/sparse",
        ]
    );
    let back = brought_back(at.path());
    assert_eq!(fs::read(back.join("kept")).unwrap(), b"kept");
    assert_eq!(fs::read(back.join("no/such/dir")).unwrap(), b"deep");
    assert_eq!(listing(&back).len() as u64, captured.entries);
}

#[test]
fn a_torn_stream_is_an_error_and_leaves_nothing() {
    let at = TempDir::new().unwrap();
    let whole = Stream::default()
        .entry(EntryType::Directory, "./", "", b"")
        .entry(EntryType::Regular, "./a", "", &[1; 1000])
        .end();
    for length in 0..whole.len() - 512 {
        let error = take(&whole[..length], at.path()).unwrap_err();
        assert!(
            matches!(error, SnapshotError::Damaged { .. }),
            "{length}: {error:?}"
        );
    }
    assert_eq!(fs::read_dir(at.path()).unwrap().count(), 0);
}

#[test]
fn an_empty_stream_is_an_empty_workspace() {
    let at = TempDir::new().unwrap();
    assert_eq!(
        take(&Stream::default().end(), at.path()).unwrap().entries,
        1
    );
    assert_eq!(fs::read_dir(brought_back(at.path())).unwrap().count(), 0);
}

#[test]
fn a_name_that_would_fill_the_memory_is_refused() {
    let at = TempDir::new().unwrap();
    let mut header = Header::new_gnu();
    header.set_entry_type(EntryType::GNULongName);
    header.set_size(1 << 40);
    header.set_cksum();
    let error = take(header.as_bytes(), at.path()).unwrap_err();
    assert!(error.to_string().contains("a name is too long"), "{error}");
}
