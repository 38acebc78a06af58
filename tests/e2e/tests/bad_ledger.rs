//! Ledgers that can't be used: each has its code, nothing is overwritten, and what the failure says to do, pasted into a
//! shell, mends it.

use crate::support::{World, document, program, text, with_json};
use alpine_ledger::{Ledger, Options, Retention, SessionId};
use alpine_testkit::Output;
use serde_json::Value;
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

/// How many commands a person pastes one after the other before they give up.
const PASTES: usize = 3;

/// A home whose ledger holds a session that was brought up and down.
struct Recorded {
    world: World,
    session: String,
}

impl Recorded {
    fn new() -> Self {
        let world = World::new();
        let session = world.ready("recorded");
        world.done(&["down", &session]);
        // What a failure says to type is typed by its name.
        let bin = world.env.root().join("bin");
        fs::create_dir(&bin).expect("a folder");
        symlink(program(), bin.join("alpine")).expect("the program by its name");
        Self { world, session }
    }

    fn path(&self) -> PathBuf {
        self.world.ledger_path()
    }

    fn put(&self, bytes: &[u8], mode: u32) {
        fs::write(self.path(), bytes).expect("a file");
        self.mode(mode);
    }

    fn mode(&self, mode: u32) {
        fs::set_permissions(self.path(), Permissions::from_mode(mode)).expect("its mode");
    }

    /// Runs lines of a shell, as somebody types them.
    fn shell(&self, lines: &str) -> Output {
        let mut command = self.world.env.command(Path::new("/bin/sh"));
        let bin = self.world.env.root().join("bin");
        let path = std::env::var("PATH").unwrap_or_default();
        command
            .args(["-c", lines])
            .env("PATH", format!("{}:{path}", bin.display()));
        self.world.env.run(&mut command)
    }

    /// Fails with this code and leaves the file as it is; what to do is pasted, and what comes of that, until the same
    /// command succeeds. Its document, and everything that was pasted.
    #[track_caller]
    fn mended(&self, arguments: &[&str], code: &str) -> (Value, String) {
        let before = fs::read(self.path()).ok();
        let output = self.world.run(&with_json(arguments));
        let failure = document(&output);
        assert_eq!(text(&failure, "error_code"), code, "{failure:#}");
        assert_eq!(output.code(), Some(2), "{failure:#}");
        assert_eq!(fs::read(self.path()).ok(), before, "it was written");
        let again: Vec<String> = with_json(arguments)
            .iter()
            .map(|word| alpine_lifecycle::quoted(word))
            .collect();
        let again = format!("alpine {}", again.join(" "));
        let mut next = text(&failure, "next_step");
        let mut pasted = String::new();
        for _ in 0..PASTES {
            pasted += &format!("{next}\n");
            // In one shell: what was exported before is still there.
            let said = self.shell(&format!("{pasted}{again}"));
            let last = said.stdout.lines().last().unwrap_or_default();
            let told: Value = serde_json::from_str(last).expect("one document");
            if said.code() == Some(0) {
                return (told, pasted);
            }
            let hint = said
                .stderr
                .lines()
                .find_map(|line| line.trim().strip_prefix("hint: "));
            next = hint.map_or_else(|| text(&told, "next_step"), str::to_owned);
        }
        panic!("not mended by:\n{pasted}")
    }

    fn listed(document: &Value) -> usize {
        document["sessions"].as_array().map_or(0, Vec::len)
    }
}

const LIST: [&str; 2] = ["list", "--all"];

#[test]
fn what_is_only_in_the_way_is_put_right_and_nothing_is_lost() {
    let recorded = Recorded::new();
    let path = recorded.path();
    let home = recorded.world.env.alpine_home();
    for mode in [0o644, 0o660, 0o666] {
        recorded.mode(mode);
        let (list, pasted) = recorded.mended(&LIST, "ERR_LEDGER_UNAVAILABLE");
        assert_eq!(Recorded::listed(&list), 1, "{pasted}");
        assert_eq!(pasted, format!("chmod 600 {}\n", path.display()));
    }
    recorded.mode(0o400);
    let up = recorded.world.up("after-it-was-read-only");
    recorded.mended(&up, "ERR_LEDGER_UNAVAILABLE");
    fs::hard_link(&path, home.join("alias")).expect("a link");
    let (list, _) = recorded.mended(&LIST, "ERR_LEDGER_UNAVAILABLE");
    assert_eq!(Recorded::listed(&list), 2);
    fs::remove_file(home.join("alias")).expect("the link");
    let aside = home.join("a side");
    fs::rename(&path, &aside).expect("a ledger elsewhere");
    symlink(&aside, &path).expect("a link");
    let (list, pasted) = recorded.mended(&LIST, "ERR_LEDGER_UNAVAILABLE");
    assert_eq!(Recorded::listed(&list), 2, "{pasted}");
    assert!(path.is_symlink(), "it is left as it is");
}

#[test]
fn a_directory_that_others_may_write_is_put_right() {
    let recorded = Recorded::new();
    let elsewhere = recorded.world.env.root().join("shared");
    fs::create_dir(&elsewhere).expect("a directory");
    fs::set_permissions(&elsewhere, Permissions::from_mode(0o777)).expect("its mode");
    let run = |lines: &str| {
        let path = elsewhere.join("ledger.redb");
        recorded.shell(&format!(
            "export ALPINE_LEDGER_PATH={}\n{lines}\nalpine list --json",
            path.display()
        ))
    };
    let refused = run("");
    let failure: Value = serde_json::from_str(&refused.stdout).expect("a document");
    assert_eq!(failure["error_code"], "ERR_LEDGER_UNAVAILABLE");
    let mended = run(&text(&failure, "next_step"));
    assert_eq!(mended.code(), Some(0), "{mended:#?}");
}

#[test]
fn what_is_no_ledger_goes_aside_and_a_new_one_begins() {
    let recorded = Recorded::new();
    let foreign = "ERR_LEDGER_INCOMPATIBLE";
    let cases = [
        (&b"garbage"[..], foreign),
        (b"SQLite format 3\0 and so on", foreign),
        (b"{\"colour\": \"blue\"}", foreign),
        (b"redb", foreign),
        (b"", "ERR_LEDGER_CORRUPT"),
    ];
    for (number, (bytes, code)) in cases.into_iter().enumerate() {
        recorded.put(bytes, 0o600);
        let id = format!("beginning-{number}");
        let up = recorded.world.up(&id);
        let (up, pasted) = recorded.mended(&up, code);
        assert_eq!(up["state"], "ready", "{pasted}");
        let kept = fs::read_dir(recorded.world.env.alpine_home())
            .expect("the home")
            .flatten()
            .filter(|entry| fs::read(entry.path()).is_ok_and(|found| found == bytes))
            .map(|entry| entry.path())
            .next()
            .unwrap_or_else(|| panic!("nothing has its bytes after {pasted}"));
        fs::remove_file(kept).expect("the kept file");
        recorded.world.done(&["down", &text(&up, "session_id")]);
        fs::remove_file(recorded.path()).expect("the new ledger");
    }
}

#[test]
fn what_is_damaged_is_repaired_or_goes_aside() {
    let recorded = Recorded::new();
    let whole = fs::read(recorded.path()).expect("the ledger");
    let session = recorded.session.as_bytes();
    let mut flipped = whole.clone();
    let places: Vec<usize> = (0..whole.len() - session.len())
        .filter(|at| whole[*at..].starts_with(session))
        .collect();
    for at in places {
        flipped[at + 8] ^= 1;
    }
    let mut zeroed = whole.clone();
    zeroed[4096..12 * 4096].fill(0);
    let mut unlisted = whole.clone();
    for page in unlisted.chunks_mut(4096) {
        // The owner, and that the session has ended: so begins its key in the list.
        if page.windows(7).any(|bytes| bytes == b"tester\x01") {
            page.fill(0);
        }
    }
    for (bytes, left, what) in [
        (flipped, 0, "a flipped bit wherever the session is named"),
        (zeroed, 1, "zeroed pages, that of its id too"),
        (whole[..whole.len() / 2].to_vec(), 0, "half of it"),
        (whole[..4096].to_vec(), 0, "its first page"),
        (unlisted, 1, "a zeroed page of an index"),
    ] {
        recorded.put(&bytes, 0o600);
        let (list, pasted) = recorded.mended(&LIST, "ERR_LEDGER_CORRUPT");
        assert!(pasted.contains("repair"), "{what}: {pasted}");
        assert_eq!(Recorded::listed(&list), left, "{what}");
        let names = fs::read_dir(recorded.world.env.alpine_home()).expect("the home");
        let kept = names.flatten().find(|entry| {
            entry.file_name().to_string_lossy().contains(".damaged")
                && fs::metadata(entry.path()).is_ok_and(|file| file.len() == bytes.len() as u64)
        });
        assert!(kept.is_some(), "{what}: it was not kept");
        let sound = recorded.world.done(&["ledger", "check", "--deep"]);
        assert_eq!(sound["sound"], true, "{what}");
        if recorded.path().exists() {
            fs::remove_file(recorded.path()).expect("the new ledger");
        }
    }
}

#[test]
fn the_predecessors_file_is_imported_whoever_may_read_it() {
    for mode in [0o600, 0o644] {
        let recorded = Recorded::new();
        let old = r#"{"schema_version": "v1", "sessions": {"ses_00000000000000aa": {"schema_version": "v1",
            "session_id": "ses_00000000000000aa", "principal_id": "tester", "state": "ready", "branch": "main",
            "repo_url": "https://example.com/repo.git", "updated_at": "2025-01-02T03:04:05Z"}}}"#;
        recorded.put(old.as_bytes(), mode);
        let (list, pasted) = recorded.mended(&LIST, "ERR_LEDGER_INCOMPATIBLE");
        assert_eq!(list["sessions"][0]["session_id"], "ses_00000000000000aa");
        assert_eq!(
            pasted,
            format!("alpine ledger import {}\n", recorded.path().display())
        );
    }
}

#[test]
fn a_pipe_is_not_imported() {
    let world = World::new();
    let pipe = world.env.root().join("pipe");
    rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RUSR).expect("a pipe");
    let pipe = pipe.to_str().expect("its name");
    world.fails(&["ledger", "import", pipe], "ERR_USAGE", 1);
}

/// The row as a newer version would write it.
fn make_newer(path: &Path) {
    const META: redb::TableDefinition<'_, &[u8], &[u8]> = redb::TableDefinition::new("meta");
    let mut sum = crc32fast::Hasher::new();
    for part in [b"meta".as_slice(), &6_u64.to_le_bytes(), b"schema", b"9"] {
        sum.update(part);
    }
    let row = [&[1], sum.finalize().to_le_bytes().as_slice(), b"9"].concat();
    let mut builder = redb::Builder::new();
    builder.set_concurrency_mode(redb::ConcurrencyMode::MultiWriter);
    let database = builder.open(path).expect("the ledger");
    let transaction = database.begin_write().expect("a transaction");
    transaction
        .open_table(META)
        .expect("its facts")
        .insert(b"schema".as_slice(), row.as_slice())
        .expect("a row");
    transaction.commit().expect("a commit");
    database.close().expect("the end");
}

#[test]
fn a_newer_ledger_is_read_never_written_and_can_be_backed_up() {
    let recorded = Recorded::new();
    make_newer(&recorded.path());
    let world = &recorded.world;
    for reading in [
        &LIST[..],
        &["status", &recorded.session],
        &["events"],
        &["ops", &recorded.session],
        &["stats"],
    ] {
        let output = world.run(&with_json(reading));
        assert_eq!(output.code(), Some(0), "{reading:?}: {output:#?}");
    }
    let before = fs::read(recorded.path()).expect("the ledger");
    let failure = world.fails(&world.up("new"), "ERR_LEDGER_INCOMPATIBLE", 2);
    let said = text(&failure, "cause");
    assert!(
        said.contains("newer version") && said.contains("schema 9"),
        "{said}"
    );
    for writing in [
        &["ledger", "compact", "--force"][..],
        &["ledger", "repair"],
        &["ledger", "check"],
    ] {
        world.fails(writing, "ERR_LEDGER_INCOMPATIBLE", 2);
    }
    let pasted = recorded.shell(&text(&failure, "next_step"));
    assert_eq!(pasted.code(), Some(0), "{pasted:#?}");
    assert_eq!(
        fs::read(recorded.path()).expect("the ledger").len(),
        before.len()
    );
    let saved = fs::read_dir(world.env.alpine_home())
        .expect("the home")
        .flatten()
        .find(|entry| entry.file_name().to_string_lossy().ends_with(".backup"))
        .expect("a backup");
    let saved = Ledger::open_read(&saved.path(), Options::new());
    let session = SessionId::from_recorded(&recorded.session);
    let session = saved
        .expect("a ledger")
        .read(|snapshot| snapshot.session(&session));
    assert!(session.expect("a snapshot").is_some());
    world.assert_nothing_left();
}

/// A real mount where that is allowed; else a directory that may not be written, which stops all but root.
#[test]
fn a_home_on_a_read_only_mount_is_read_and_not_written() {
    let recorded = Recorded::new();
    let world = &recorded.world;
    let home = world.env.alpine_home();
    let can_mount = Command::new("unshare")
        .args(["-m", "true"])
        .output()
        .is_ok_and(|output| output.status.success());
    let shown = home.display();
    let before = if can_mount {
        format!(
            "unshare -m sh -c 'mount --bind {shown} {shown} && mount -o remount,bind,ro {shown} && "
        )
    } else {
        assert!(
            !rustix::process::geteuid().is_root(),
            "root needs a real mount, and `unshare -m` gives none"
        );
        fs::set_permissions(&home, Permissions::from_mode(0o500)).expect("its mode");
        fs::set_permissions(recorded.path(), Permissions::from_mode(0o400)).expect("its mode");
        "sh -c '".to_owned()
    };
    let list = recorded.shell(&format!("{before}alpine list --all --json'"));
    assert_eq!(list.code(), Some(0), "{list:#?}");
    assert_eq!(Recorded::listed(&document(&list)), 1);
    let elsewhere = world.env.root().join("elsewhere");
    for looking in [
        "ledger check --deep --json",
        "ledger export -",
        &format!("ledger backup {} --json", elsewhere.display()),
        "reconcile --dry-run --json",
    ] {
        let looked = recorded.shell(&format!("{before}alpine {looking}'"));
        assert_eq!(looked.code(), Some(0), "{looking}: {looked:#?}");
    }
    let saved = Ledger::open_read(&elsewhere, Options::new()).expect("the backup");
    let session = SessionId::from_recorded(&recorded.session);
    let session = saved.read(|snapshot| snapshot.session(&session));
    assert!(session.expect("a snapshot").is_some());
    let up = world.up("on-a-read-only-mount").join(" ");
    let refused = recorded.shell(&format!("{before}alpine {up} --json'"));
    let failure = document(&refused);
    assert_eq!(
        text(&failure, "error_code"),
        "ERR_LEDGER_UNAVAILABLE",
        "{failure:#}"
    );
    assert_eq!(refused.code(), Some(2));
    // It can't be mended by alpine: what is pasted shows where it is mounted.
    let looked = recorded.shell(&text(&failure, "next_step"));
    assert_eq!(looked.code(), Some(0), "{looked:#?}");
    fs::set_permissions(&home, Permissions::from_mode(0o700)).expect("its mode");
    fs::set_permissions(recorded.path(), Permissions::from_mode(0o600)).expect("its mode");
    world.ready("on-a-read-only-mount");
}

#[test]
fn a_down_writes_a_large_and_mostly_empty_file_anew() {
    let world = World::new();
    let session = world.ready("recorded");
    let options = Options {
        clock: Arc::new(world.env.clock().clone()),
        ..Options::new()
    };
    let ledger = Ledger::open(&world.ledger_path(), options).expect("a ledger");
    let reason = "x".repeat(1_000_000);
    for _ in 0..80 {
        let written = ledger.write(|tx| tx.append_event(None, None, "large", Some(&reason)));
        written.expect("an event");
    }
    let keep = Retention {
        events: 4,
        ..Retention::default()
    };
    ledger.retain(&keep, usize::MAX).expect("a retention");
    assert!(alpine_ledger::is_large(&world.ledger_path()));
    ledger.close();
    drop(ledger);
    assert_eq!(world.done(&["down", &session])["state"], "stopped");
    let size = fs::metadata(world.ledger_path()).expect("the ledger").len();
    assert!(size < 32 << 20, "{size}");
    assert_eq!(world.done(&["ledger", "check", "--deep"])["sound"], true);
    assert_eq!(world.state(&session), "stopped");
}
