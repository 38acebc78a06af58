//! Captures real trees and brings them back.
#![expect(clippy::unwrap_used, reason = "a test that can't go on fails")]

mod tree;

use alpine_snapshot::{Captured, Root, SnapshotError, capture, restore, verify};
use proptest::prelude::*;
use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use tree::{Node, describe, grow, hard_link, set_attribute, set_times};

struct Place {
    root: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let place = Self {
            root: tempfile::tempdir().unwrap(),
        };
        fs::create_dir(place.source()).unwrap();
        place
    }

    fn source(&self) -> PathBuf {
        self.root.path().join("source")
    }

    fn archive(&self) -> PathBuf {
        self.root.path().join("a.tar.zst")
    }

    fn back(&self) -> PathBuf {
        self.root.path().join("back")
    }

    fn capture(&self) -> Result<Captured, SnapshotError> {
        let source = self.source();
        let roots = [Root {
            name: "workspace",
            path: &source,
        }];
        capture(&roots, &self.archive(), &mut |_| {})
    }

    fn restore(&self) -> Result<u64, SnapshotError> {
        restore(
            File::open(self.archive()).unwrap(),
            &self.back(),
            &mut |_| {},
        )
    }

    fn names(&self) -> Vec<String> {
        let listing = fs::read_dir(self.root.path()).unwrap();
        let mut names: Vec<_> = listing
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

/// One of each kind, and the names that break archives.
fn zoo(root: &Path) {
    for directory in ["empty", "a/b/c", "closed"] {
        fs::create_dir_all(root.join(directory)).unwrap();
    }
    fs::write(root.join("a/file"), b"content").unwrap();
    fs::write(root.join("a/empty"), b"").unwrap();
    fs::write(root.join("a/block"), [7; 512]).unwrap();
    fs::write(root.join("closed/large"), vec![9; 700_001]).unwrap();
    fs::write(
        root.join(OsStr::from_bytes(b"a/\xff\xfe\n=\"")),
        b"odd name",
    )
    .unwrap();
    let long = "n".repeat(250);
    fs::create_dir_all(root.join(&long).join(&long)).unwrap();
    fs::write(root.join(&long).join(&long).join(&long), b"deep").unwrap();
    fs::write(root.join("n".repeat(90)), b"not quite too long").unwrap();
    symlink("../../../etc/passwd", root.join("out")).unwrap();
    symlink("x".repeat(300), root.join("long-link")).unwrap();
    symlink(OsStr::from_bytes(b"\xff"), root.join("odd-link")).unwrap();
    hard_link(&root.join("a/file"), &root.join("second"));
    hard_link(
        &root.join(&long).join(&long).join(&long),
        &root.join("z-third"),
    );
    hard_link(&root.join("out"), &root.join("out-again"));
    tree::fifo(&root.join("fifo"));
    for (path, name, value) in [
        ("a/file", "user.one", &b"a\0b\nc=d"[..]),
        ("a/file", "user.empty", b""),
        ("a", "user.long", &[0xfe; 2000]),
    ] {
        set_attribute(&root.join(path), name, value);
    }
    fs::set_permissions(root.join("a/empty"), Permissions::from_mode(0o400)).unwrap();
    fs::set_permissions(root.join("a/block"), Permissions::from_mode(0o755)).unwrap();
    set_times(&root.join("a/file"), 1_234_567_890, 123_456_789);
    set_times(&root.join("a/empty"), -5, 250_000_000);
    set_times(&root.join("out"), 99_999_999_999 % 9_999_999_999, 1);
    set_times(&root.join("fifo"), 0, 0);
    fs::set_permissions(root.join("closed"), Permissions::from_mode(0o500)).unwrap();
    set_times(&root.join("closed"), 77, 88);
    set_times(&root.join("empty"), 1, 999_999_999);
}

#[test]
fn what_comes_back_differs_in_nothing() {
    let place = Place::new();
    zoo(&place.source());
    let before = describe(&place.source());
    let captured = place.capture().unwrap();
    assert_eq!(describe(&place.source()), before, "capture changes nothing");
    assert_eq!(captured.left_out, []);
    assert_eq!(captured.entries, before.len() as u64);
    assert_eq!(captured.size, fs::metadata(place.archive()).unwrap().len());
    let bytes = fs::read(place.archive()).unwrap();
    assert_eq!(captured.digest, blake3::hash(&bytes).to_hex().to_string());
    let verified = verify(&place.archive(), &mut |_| {}).unwrap();
    assert_eq!(
        (verified.digest, verified.size),
        (captured.digest, captured.size)
    );
    assert_eq!(place.restore().unwrap(), captured.entries);
    assert_eq!(describe(&place.back().join("workspace")), before);
    assert_eq!(place.names(), ["a.tar.zst", "back", "source"]);
    tree::open_up(place.root.path());
}

#[test]
fn stock_tar_reads_it() {
    let place = Place::new();
    zoo(&place.source());
    place.capture().unwrap();
    fs::create_dir(place.back()).unwrap();
    let output = Command::new("tar")
        .args(["--zstd", "--xattrs", "-xpf"])
        .arg(place.archive())
        .arg("-C")
        .arg(place.back())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    let wrong = said
        .lines()
        .find(|line| !line.contains("implausibly old time stamp"));
    assert_eq!(wrong, None);
    assert!(output.status.success());
    assert_eq!(
        describe(&place.back().join("workspace")),
        describe(&place.source())
    );
    tree::open_up(place.root.path());
}

/// Progress is told of each piece that is read.
#[test]
fn a_hole_is_not_read() {
    let place = Place::new();
    let file = File::create(place.source().join("sparse")).unwrap();
    file.set_len(1 << 33).unwrap();
    let (mut pieces, mut last) = (0, 0);
    let source = place.source();
    let roots = [Root {
        name: "workspace",
        path: &source,
    }];
    let captured = capture(&roots, &place.archive(), &mut |done| {
        pieces += 1;
        last = done;
    });
    assert!(captured.unwrap().size < 1 << 20);
    assert!(last >= 1 << 33 && pieces < 1000, "{last} in {pieces}");
}

#[test]
fn what_is_around_holes_comes_back() {
    let place = Place::new();
    let path = place.source().join("sparse");
    let file = File::create(&path).unwrap();
    for at in [0, 5 << 20, (40 << 20) + 7] {
        file.write_all_at(b"some text", at).unwrap();
    }
    file.set_len((60 << 20) + 3).unwrap();
    place.capture().unwrap();
    place.restore().unwrap();
    let back = |from: &str| fs::read(place.back().join(from)).unwrap();
    assert!(back("workspace/sparse") == fs::read(&path).unwrap());
    fs::create_dir(place.back().join("tar")).unwrap();
    let status = Command::new("tar")
        .args(["--zstd", "-xf"])
        .arg(place.archive())
        .arg("-C")
        .arg(place.back().join("tar"))
        .status();
    assert!(status.unwrap().success());
    assert!(back("tar/workspace/sparse") == fs::read(&path).unwrap());
}

#[test]
fn several_roots_and_the_same_bytes_each_time() {
    let place = Place::new();
    let other = place.root.path().join("other");
    fs::create_dir(&other).unwrap();
    fs::write(other.join("f"), b"1").unwrap();
    let source = place.source();
    let roots = [
        Root {
            name: "workspace",
            path: &source,
        },
        Root {
            name: "transcript",
            path: &other,
        },
    ];
    let mut seen = Vec::new();
    let first = capture(&roots, &place.archive(), &mut |done| seen.push(done)).unwrap();
    let second = capture(&roots, &place.archive(), &mut |_| {}).unwrap();
    assert_eq!(first, second);
    assert!(seen.is_sorted(), "{seen:?}");
    place.restore().unwrap();
    assert_eq!(fs::read(place.back().join("transcript/f")).unwrap(), b"1");
    assert!(matches!(
        place.restore(),
        Err(SnapshotError::NotEmpty { .. })
    ));
    for name in ["", ".", "..", "a/b"] {
        let roots = [Root {
            name,
            path: &source,
        }];
        let refused = capture(&roots, &place.archive(), &mut |_| {});
        assert!(matches!(refused, Err(SnapshotError::Name { .. })), "{name}");
    }
}

#[test]
fn a_missing_or_linked_root_is_an_error() {
    let place = Place::new();
    fs::remove_dir(place.source()).unwrap();
    assert!(matches!(
        place.capture(),
        Err(SnapshotError::Missing { .. })
    ));
    symlink("/", place.source()).unwrap();
    assert!(matches!(place.capture(), Err(SnapshotError::Io { .. })));
    assert_eq!(place.names(), ["source"]);
}

#[test]
fn sockets_are_left_out_and_said_to_be() {
    let place = Place::new();
    let _listener = UnixListener::bind(place.source().join("s")).unwrap();
    let captured = place.capture().unwrap();
    let left_out = &captured.left_out[0];
    assert_eq!(left_out.path, "workspace/s");
    assert_eq!(left_out.reason, "a socket can't be kept");
    assert_eq!(captured.entries, 1);
}

#[test]
fn what_changes_or_vanishes_meanwhile_is_said_and_the_archive_is_whole() {
    let place = Place::new();
    let source = place.source();
    for name in ["a-shrinks", "b-grows"] {
        fs::write(source.join(name), vec![b'x'; 1_000_000]).unwrap();
    }
    fs::write(source.join("c-vanishes"), b"c").unwrap();
    fs::create_dir(source.join("d-vanishes")).unwrap();
    let (mut shrunk, mut grown) = (false, false);
    let roots = [Root {
        name: "workspace",
        path: &source,
    }];
    let captured = capture(&roots, &place.archive(), &mut |done| {
        if !shrunk && done > 100_000 {
            shrunk = true;
            File::options()
                .write(true)
                .open(source.join("a-shrinks"))
                .unwrap()
                .set_len(300_000)
                .unwrap();
        }
        if !grown && done > 1_100_000 {
            grown = true;
            let mut file = File::options()
                .append(true)
                .open(source.join("b-grows"))
                .unwrap();
            file.write_all(b"more").unwrap();
            fs::remove_file(source.join("c-vanishes")).unwrap();
            fs::remove_dir(source.join("d-vanishes")).unwrap();
        }
    })
    .unwrap();
    let mut paths: Vec<_> = captured
        .left_out
        .iter()
        .map(|left| left.path.as_str())
        .collect();
    paths.sort_unstable();
    assert_eq!(
        paths,
        [
            "workspace/a-shrinks",
            "workspace/b-grows",
            "workspace/c-vanishes",
            "workspace/d-vanishes"
        ]
    );
    place.restore().unwrap();
    let size = |name| {
        fs::metadata(place.back().join("workspace").join(name))
            .unwrap()
            .len()
    };
    assert_eq!((size("a-shrinks"), size("b-grows")), (1_000_000, 1_000_000));
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// What an owner may lock to themself, outer before inner.
const LOCKED: [(&str, u32); 7] = [
    ("", 0o000),
    ("unread", 0o000),
    ("written", 0o200),
    ("closed", 0o000),
    ("closed/inner", 0o100),
    ("closed/inner/f", 0o004),
    ("unsearched", 0o600),
];

fn lock(root: &Path) {
    for (path, mode) in LOCKED.iter().rev() {
        set_mode(&root.join(path), *mode);
    }
}

/// Unlocks everything, and tells what the modes were.
fn unlock(root: &Path) -> Vec<(&'static str, u32)> {
    let mut modes = Vec::new();
    for (path, _) in LOCKED {
        let full = root.join(path);
        modes.push((path, mode(&full)));
        set_mode(&full, 0o700);
    }
    modes
}

#[test]
fn what_its_owner_has_locked_is_kept_with_its_mode() {
    let place = Place::new();
    let source = place.source();
    fs::create_dir_all(source.join("closed/inner")).unwrap();
    fs::create_dir(source.join("unsearched")).unwrap();
    for name in [
        "unread",
        "written",
        "closed/f",
        "closed/inner/f",
        "unsearched/f",
    ] {
        fs::write(source.join(name), name).unwrap();
    }
    set_attribute(&source.join("unread"), "user.one", b"1");
    set_attribute(&source.join("closed"), "user.two", b"2");
    hard_link(&source.join("unread"), &source.join("closed/same"));
    let unlocked = |root: &Path| {
        let modes = unlock(root);
        (modes, describe(root))
    };
    lock(&source);
    tree::give(place.root.path());
    let captured = tree::as_a_user(|| {
        let captured = place.capture();
        place.restore().unwrap();
        captured
    })
    .unwrap();
    assert_eq!(captured.left_out, []);
    let (modes, before) = unlocked(&source);
    assert_eq!(modes, LOCKED, "the workspace is as it was");
    assert_eq!(captured.entries, before.len() as u64);
    let (modes, back) = unlocked(&place.back().join("workspace"));
    assert_eq!(modes, LOCKED, "the modes are kept");
    assert_eq!(back, before);
}

#[test]
fn what_is_not_ours_is_an_error_that_says_what_to_run() {
    let place = Place::new();
    let closed = place.source().join("closed");
    let secret = closed.join("secret");
    fs::create_dir(&closed).unwrap();
    fs::write(place.archive(), b"the one before").unwrap();
    // A user can't make what belongs to another, but there is always some.
    let (root, foreign) = if rustix::process::geteuid().is_root() {
        fs::write(&secret, b"1").unwrap();
        tree::give(place.root.path());
        std::os::unix::fs::chown(&secret, Some(0), None).unwrap();
        set_mode(&secret, 0o600);
        (place.source(), secret)
    } else {
        (PathBuf::from("/proc/1/fd"), PathBuf::from("/proc/1/fd"))
    };
    set_mode(&closed, 0o000);
    let captured = tree::as_a_user(|| {
        let roots = [Root {
            name: "workspace",
            path: &root,
        }];
        capture(&roots, &place.archive(), &mut |_| {})
    });
    let error = captured.unwrap_err();
    let text = format!("{error}: {}", std::error::Error::source(&error).unwrap());
    let foreign = foreign.display();
    assert!(text.contains(&format!("`{foreign}`")), "{text}");
    // One command for all of it, however much there is.
    let advice = format!("`sudo chown -R \"$(id -u)\" {}`", root.display());
    assert!(text.ends_with(&advice), "{text}");
    assert_eq!(mode(&closed), 0, "a failure leaves modes as they were");
    assert_eq!(fs::read(place.archive()).unwrap(), b"the one before");
    assert_eq!(place.names(), ["a.tar.zst", "source"]);
    tree::open_up(place.root.path());
}

#[test]
fn every_entry_is_progress() {
    let place = Place::new();
    let mut told = Vec::new();
    for name in 0..50 {
        fs::write(place.source().join(format!("f{name}")), b"").unwrap();
        fs::create_dir(place.source().join(format!("d{name}"))).unwrap();
        symlink("x", place.source().join(format!("l{name}"))).unwrap();
    }
    let source = place.source();
    let roots = [Root {
        name: "workspace",
        path: &source,
    }];
    let entries = capture(&roots, &place.archive(), &mut |done| told.push(done))
        .unwrap()
        .entries;
    let grows = |told: &mut Vec<u64>, what: &str| {
        assert!(told.is_sorted(), "{what}: {told:?}");
        told.dedup();
        assert!(told.len() as u64 >= entries, "{what}: {told:?}");
        told.clear();
    };
    grows(&mut told, "capture");
    verify(&place.archive(), &mut |done| told.push(done)).unwrap();
    grows(&mut told, "verify");
    let archive = File::open(place.archive()).unwrap();
    restore(archive, &place.back(), &mut |done| told.push(done)).unwrap();
    grows(&mut told, "restore");
}

#[test]
fn a_tree_is_walked_however_deep_it_is() {
    let place = Place::new();
    let mut path = place.source();
    for depth in 0..300 {
        path.push("d");
        fs::create_dir(&path).unwrap();
        fs::write(path.join("a"), depth.to_string()).unwrap();
        fs::create_dir(path.join("z")).unwrap();
    }
    let captured = place.capture().unwrap();
    assert_eq!(captured.entries, 1 + 300 * 3);
    place.restore().unwrap();
    assert_eq!(
        describe(&place.back().join("workspace")),
        describe(&place.source())
    );
}

#[test]
fn every_flipped_bit_and_every_cut_is_found() {
    let place = Place::new();
    fs::write(place.source().join("file"), b"some content").unwrap();
    symlink("file", place.source().join("link")).unwrap();
    place.capture().unwrap();
    let whole = fs::read(place.archive()).unwrap();
    let refused = |bytes: &[u8], what: String| {
        let error = restore(bytes, &place.back(), &mut |_| {}).unwrap_err();
        assert!(
            matches!(error, SnapshotError::Damaged { .. }),
            "{what}: {error:?}"
        );
        assert_eq!(fs::read_dir(place.back()).unwrap().count(), 0, "{what}");
    };
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << (at % 8);
        refused(&bytes, format!("bit {} of byte {at}", at % 8));
        refused(&whole[..at], format!("cut at {at}"));
    }
    let doubled = [whole.as_slice(), &whole].concat();
    refused(&doubled, "twice".to_owned());
    refused(&[whole.as_slice(), b"x"].concat(), "more".to_owned());
    assert_eq!(place.names(), ["a.tar.zst", "back", "source"]);
    fs::write(place.archive(), &whole[..whole.len() - 1]).unwrap();
    assert!(matches!(
        verify(&place.archive(), &mut |_| {}),
        Err(SnapshotError::Damaged { .. })
    ));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn any_tree_comes_back(nodes in prop::collection::vec(any::<Node>(), 0..30)) {
        let place = Place::new();
        grow(&place.source(), &nodes);
        let before = describe(&place.source());
        let captured = place.capture().unwrap();
        prop_assert_eq!(captured.entries, before.len() as u64);
        place.restore().unwrap();
        prop_assert_eq!(describe(&place.back().join("workspace")), before);
        tree::open_up(place.root.path());
    }

    #[test]
    fn any_damage_to_any_tree_is_found(nodes in prop::collection::vec(any::<Node>(), 0..10), at in any::<prop::sample::Index>(), change in 1u8..) {
        let place = Place::new();
        grow(&place.source(), &nodes);
        place.capture().unwrap();
        let mut bytes = fs::read(place.archive()).unwrap();
        let at = at.index(bytes.len());
        bytes[at] ^= change;
        let restored = restore(bytes.as_slice(), &place.back(), &mut |_| {});
        prop_assert!(restored.is_err());
        prop_assert_eq!(fs::read_dir(place.back()).unwrap().count(), 0);
        tree::open_up(place.root.path());
    }
}
