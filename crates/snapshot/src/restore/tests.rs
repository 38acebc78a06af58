//! Archives that nobody but an attacker writes, sealed as if they were ours.

use super::{restore, restore_within};
use crate::archive::Limits;
use crate::entry::{Entry, Kind, padding};
use crate::error::SnapshotError;
use crate::pax;
use crate::seal::SealWriter;
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use tar::{EntryType, Header};

#[derive(Default)]
struct Forged(Vec<u8>);

impl Forged {
    fn add(mut self, path: &str, kind: Kind) -> Self {
        self.0.extend(entry(path, kind).blocks());
        self
    }

    fn file(self, path: &str, content: &[u8]) -> Self {
        let mut forged = self.add(path, Kind::File(content.len() as u64));
        forged.0.extend(content);
        let length = forged.0.len() + padding(content.len() as u64);
        forged.0.resize(length, 0);
        forged
    }

    fn raw(mut self, header: &Header, content: &[u8]) -> Self {
        self.0.extend(header.as_bytes());
        self.0.extend(content);
        let length = self.0.len() + padding(content.len() as u64);
        self.0.resize(length, 0);
        self
    }

    fn sealed(mut self) -> Vec<u8> {
        self.0.extend([0; 1024]);
        let mut encoder = zstd::Encoder::new(SealWriter::new(Vec::new()), 1).unwrap();
        encoder.write_all(&self.0).unwrap();
        encoder.finish().unwrap().finish().unwrap().0
    }
}

fn entry(path: &str, kind: Kind) -> Entry {
    Entry {
        path: path.into(),
        kind,
        mode: 0o6755,
        owner: (0, 0),
        modified: (1, 2),
        attributes: Vec::new(),
    }
}

fn header(entry_type: EntryType, size: u64) -> Header {
    let mut header = Header::new_ustar();
    header.as_old_mut().name[..1].copy_from_slice(b"x");
    header.set_entry_type(entry_type);
    header.set_size(size);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_cksum();
    header
}

fn symlink(to: &str) -> Kind {
    Kind::Symlink(to.into())
}

fn hard_link(to: &str) -> Kind {
    Kind::HardLink(to.into())
}

/// Restores beside a canary that must stay as it is.
fn refused(what: &str, forged: Forged) {
    let place = tempfile::tempdir().unwrap();
    let canary = place.path().join("canary");
    fs::write(&canary, b"alive").unwrap();
    let into = place.path().join("into");
    let error = restore(forged.sealed().as_slice(), &into, &mut |_| {}).unwrap_err();
    assert!(
        matches!(error, SnapshotError::Damaged { .. }),
        "{what}: {error:?}"
    );
    assert_eq!(fs::read(&canary).unwrap(), b"alive", "{what}");
    assert_eq!(fs::read_dir(&into).unwrap().count(), 0, "{what}");
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 2, "{what}");
}

#[test]
fn no_path_leaves_the_place() {
    for path in [
        "../canary",
        "/canary",
        "w/../../canary",
        "w/./x",
        "w//x",
        "",
        "w/",
        "..",
    ] {
        refused(
            path,
            Forged::default()
                .add("w", Kind::Directory)
                .file(path, b"dead"),
        );
    }
    let zero = {
        let mut forged = Forged::default();
        let mut records = Vec::new();
        pax::push(&mut records, b"path", b"a\0b");
        forged = forged.raw(&header(EntryType::XHeader, records.len() as u64), &records);
        forged.raw(&header(EntryType::Regular, 0), b"")
    };
    refused("a zero byte", zero);
}

#[test]
fn no_link_is_followed() {
    let linked = |to: &str| Forged::default().add("l", symlink(to));
    refused(
        "file through a link",
        linked("..").file("l/canary", b"dead"),
    );
    refused("file over a link", linked("../canary").file("l", b"dead"));
    refused(
        "directory through a link",
        linked("..").add("l/made", Kind::Directory),
    );
    refused(
        "link through a link",
        linked("..").add("l/made", symlink("x")),
    );
    refused(
        "fifo through a link",
        linked("..").add("l/made", Kind::Fifo),
    );
    refused(
        "hard link through a link",
        linked("..").add("h", hard_link("l/canary")),
    );
    refused(
        "hard link out",
        Forged::default().add("h", hard_link("../canary")),
    );
    refused(
        "hard link to the root",
        Forged::default().add("h", hard_link("/etc/passwd")),
    );
    refused(
        "directory over a link",
        linked("..").add("l", Kind::Directory),
    );
}

#[test]
fn a_link_is_restored_as_it_is_and_a_hard_link_to_it_is_one() {
    let place = tempfile::tempdir().unwrap();
    fs::write(place.path().join("canary"), b"alive").unwrap();
    let into = place.path().join("into");
    let forged = Forged::default()
        .add("l", symlink("../canary"))
        .add("h", hard_link("l"))
        .file("f", b"1");
    assert_eq!(
        restore(forged.sealed().as_slice(), &into, &mut |_| {}).unwrap(),
        3
    );
    assert_eq!(
        fs::read_link(into.join("h")).unwrap(),
        Path::new("../canary")
    );
    let mode = fs::metadata(into.join("f")).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o755, "set-id bits are dropped");
}

#[test]
fn only_what_a_workspace_holds_is_made() {
    for entry_type in [
        EntryType::Char,
        EntryType::Block,
        EntryType::Continuous,
        EntryType::GNULongName,
        EntryType::GNULongLink,
        EntryType::GNUSparse,
        EntryType::XGlobalHeader,
        EntryType::new(b'!'),
    ] {
        let forged = Forged::default().raw(&header(entry_type, 0), b"");
        refused(&format!("{entry_type:?}"), forged);
    }
    refused(
        "a directory with content",
        Forged::default().raw(&header(EntryType::Directory, 3), b"abc"),
    );
    for key in [
        &b"size"[..],
        b"SCHILY.xattr.security.capability",
        b"SCHILY.xattr.trusted.x",
        b"GNU.sparse.name",
    ] {
        let mut records = Vec::new();
        pax::push(&mut records, key, b"1");
        let forged = Forged::default()
            .raw(&header(EntryType::XHeader, records.len() as u64), &records)
            .raw(&header(EntryType::Regular, 0), b"");
        refused(&String::from_utf8_lossy(key), forged);
    }
    refused("twice", Forged::default().file("f", b"1").file("f", b"2"));
    refused("no parent", Forged::default().file("d/f", b"1"));
    refused(
        "a file as parent",
        Forged::default().file("d", b"").file("d/f", b"1"),
    );
    refused(
        "a record and no entry",
        Forged::default().raw(&header(EntryType::XHeader, 0), b""),
    );
    let mut wrong = header(EntryType::Regular, 0);
    wrong.as_mut_bytes()[0] ^= 1;
    refused("a checksum", Forged::default().raw(&wrong, b""));
}

#[test]
fn counts_and_sizes_are_capped() {
    let limits = Limits {
        entries: 2,
        bytes: 10,
        records: 600,
    };
    let attempt = |forged: Forged| {
        let place = tempfile::tempdir().unwrap();
        let into = place.path().join("into");
        restore_within(forged.sealed().as_slice(), &into, limits, &mut |_| {})
    };
    let two = || Forged::default().file("a", b"12345").file("b", b"12345");
    assert_eq!(attempt(two()).unwrap(), 2);
    assert!(attempt(two().add("c", Kind::Directory)).is_err());
    assert!(attempt(Forged::default().file("a", b"12345678901")).is_err());
    assert!(attempt(Forged::default().file(&"n".repeat(600), b"")).is_err());
    let huge = Forged::default().raw(&header(EntryType::XHeader, 1 << 33), b"");
    assert!(attempt(huge).is_err());
}
