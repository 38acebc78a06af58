//! What was added is kept as it was looked at.

use alpine_provider_store::*;
use expect_test::expect;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

fn script(directory: &Path, text: &str) -> PathBuf {
    let path = directory.join("script");
    fs::write(&path, text).expect("a file");
    fs::set_permissions(&path, Permissions::from_mode(0o755)).expect("its mode");
    path
}

/// Nobody has asked it to stop.
fn on() -> bool {
    false
}

fn pin(name: &str, kept: &Kept) -> Pin {
    Pin {
        name: name.to_owned(),
        kind: kept.kind,
        path: kept.path.clone(),
        sha256: kept.sha256.clone(),
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("a file").permissions().mode() & 0o7777
}

#[test]
fn files_are_kept_by_their_digest_and_swept_when_nothing_names_them() {
    let place = tempfile::tempdir().unwrap();
    let root = place.path().canonicalize().unwrap();
    let store = Store::new(root.join("plugins"));
    let source = script(&root, "#!/bin/sh\nexit 0\n");
    let locked = store.lock(on).unwrap();
    let kept = locked.keep(&open(&source).unwrap(), on).unwrap();
    assert_eq!(kept.kind, Kind::Exec);
    assert_eq!(kept.path, root.join("plugins").join(&kept.sha256));
    assert_eq!(
        (mode(&root.join("plugins")), mode(&kept.path)),
        (0o700, 0o555)
    );
    // The same again is the same file.
    assert_eq!(
        locked.keep(&open(&source).unwrap(), on).unwrap().path,
        kept.path
    );
    locked.pin(&[pin("acme", &kept)]).unwrap();
    assert_eq!(mode(&store.pins()), 0o600);
    let text = fs::read_to_string(store.pins()).unwrap();
    expect![[r#"
        # Written by `alpine provider add` and `alpine provider remove`. Settings of your own belong into config.toml.

        [providers.acme]
        kind = "exec"
        path = "$ROOT/plugins/306c6ca7407560340797866e077e053627ad409277d1b9da58106fce4cf717cb"
        sha256 = "306c6ca7407560340797866e077e053627ad409277d1b9da58106fce4cf717cb"
    "#]]
    .assert_eq(&text.replace(root.to_str().unwrap(), "$ROOT"));

    let source = script(&root, "#!/bin/sh\nexit 1\n");
    let other = locked.keep(&open(&source).unwrap(), on).unwrap();
    locked.pin(&[pin("acme", &other)]).unwrap();
    assert!(kept.path.exists(), "it may be wanted back");
    fs::write(root.join("plugins/partial"), "of one that was killed").unwrap();
    locked.sweep(&[pin("acme", &other)]);
    assert!(!kept.path.exists() && other.path.exists());
    locked.pin(&[]).unwrap();
    locked.sweep(&[]);
    let left: Vec<_> = fs::read_dir(root.join("plugins")).unwrap().collect();
    assert_eq!(left.len(), 1, "only the file of pins: {left:?}");
}

#[test]
fn what_is_refused_leaves_nothing_behind() {
    let place = tempfile::tempdir().unwrap();
    let root = place.path().canonicalize().unwrap();
    let locked = Store::new(root.join("plugins")).lock(on).unwrap();
    let source = script(&root, "no program, and no library");
    let StoreError::Refused(refusal) = locked.keep(&open(&source).unwrap(), on).unwrap_err() else {
        panic!("refused for what it is");
    };
    assert_eq!((refusal.reason, &refusal.path), (Reason::NotElf, &source));
    assert_eq!(refusal.remedy, format!("file {}", source.display()));
    assert_eq!(fs::read_dir(root.join("plugins")).unwrap().count(), 0);
}

#[test]
fn what_is_too_large_is_not_copied_first() {
    let place = tempfile::tempdir().unwrap();
    let root = place.path().canonicalize().unwrap();
    let locked = Store::new(root.join("plugins")).lock(on).unwrap();
    let source = script(&root, "#!/bin/sh\n");
    let file = fs::OpenOptions::new().write(true).open(&source).unwrap();
    file.set_len(LARGEST + 1).unwrap();
    let copying = || panic!("it is copied");
    let StoreError::Refused(refusal) = locked.keep(&open(&source).unwrap(), copying).unwrap_err()
    else {
        panic!("refused for its size");
    };
    assert_eq!(refusal.reason, Reason::TooLarge);
}

#[test]
fn a_copy_that_is_stopped_leaves_nothing_behind() {
    let place = tempfile::tempdir().unwrap();
    let root = place.path().canonicalize().unwrap();
    let locked = Store::new(root.join("plugins")).lock(on).unwrap();
    let source = script(&root, "#!/bin/sh\n");
    let stopped = locked.keep(&open(&source).unwrap(), || true).unwrap_err();
    assert!(matches!(stopped, StoreError::Io { .. }), "{stopped}");
    assert_eq!(fs::read_dir(root.join("plugins")).unwrap().count(), 0);
}

#[test]
fn one_process_changes_it_at_a_time() {
    let place = tempfile::tempdir().unwrap();
    let store = Store::new(place.path().join("plugins"));
    let locked = store.lock(on).unwrap();
    let (sender, receiver) = std::sync::mpsc::channel();
    let waiting = std::thread::spawn(move || {
        let _locked = store.lock(on).unwrap();
        sender.send(()).unwrap();
    });
    let patience = std::time::Duration::from_millis(100);
    assert!(receiver.recv_timeout(patience).is_err());
    drop(locked);
    receiver.recv().unwrap();
    waiting.join().unwrap();
}
