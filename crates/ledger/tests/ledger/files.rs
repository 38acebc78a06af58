//! Which files are accepted as a ledger, and which are left alone.

use crate::full_disk::hindrance;
use crate::world::{World, as_it_is, kind, names, request};
use alpine_ledger::{
    Admission, Hindrance, Imported, Ledger, LedgerError, ListQuery, Options, SessionId,
};
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// Opens it in both ways, wants the same refusal, and wants the file as it was.
fn refused(path: &Path, expected: &str, says: &str) {
    let before = fs::read(path).ok();
    for opened in [
        Ledger::open(path, Options::new()),
        Ledger::open_read(path, Options::new()),
    ] {
        let error = opened.unwrap_err();
        assert_eq!(kind(&error), expected, "{error}");
        assert!(error.to_string().contains(says), "{error}");
        assert!(
            error.to_string().contains(path.to_str().unwrap()),
            "{error}"
        );
    }
    assert_eq!(fs::read(path).ok(), before);
}

fn file(dir: &Path, name: &str, content: &[u8]) -> std::path::PathBuf {
    let path = dir.join(name);
    fs::write(&path, content).unwrap();
    mode(&path, 0o600);
    path
}

#[test]
fn a_new_ledger_is_private_and_keeps_its_id() {
    let world = World::new();
    let metadata = fs::metadata(world.path()).unwrap();
    assert_eq!(metadata.mode() & 0o777, 0o600);
    let id = world.ledger.id().to_owned();
    assert!(id.starts_with("led_") && id.len() == 36, "{id}");
    assert_eq!(world.other(|_| {}).id(), id);
    assert_eq!(
        Ledger::open_read(&world.path(), Options::new())
            .unwrap()
            .id(),
        id
    );
    assert_ne!(World::new().ledger.id(), id);
    assert_eq!(names(world.dir.path()), ["ledger.redb", "ledger.redb.id"]);
    let _grant = world.up(&request("me", "r1"));
    assert_eq!(
        fs::metadata(world.dir.path().join("ops")).unwrap().mode() & 0o777,
        0o700
    );
}

#[test]
fn a_missing_ledger_reads_as_empty_and_is_not_made() {
    let dir = tempfile::tempdir().unwrap();
    for path in [
        dir.path().join("ledger.redb"),
        dir.path().join("no/such/ledger.redb"),
    ] {
        let ledger = Ledger::open_read(&path, Options::new()).unwrap();
        assert_eq!(ledger.id(), "");
        let query = ListQuery {
            owner: None,
            states: Vec::new(),
            ended_since: None,
            limit: 10,
        };
        assert!(
            ledger
                .read(|snapshot| snapshot.list(&query))
                .unwrap()
                .sessions
                .is_empty()
        );
        assert!(
            ledger
                .read(|snapshot| snapshot.events_after(0, 10))
                .unwrap()
                .is_empty()
        );
        let refused = ledger
            .write(|tx| tx.append_event(None, None, "note", None))
            .unwrap_err();
        assert_eq!(kind(&refused), "unavailable");
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn a_ledger_that_comes_later_is_seen() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ledger.redb");
    let reader = Ledger::open_read(&path, Options::new()).unwrap();
    let writer = Ledger::open(&path, Options::new()).unwrap();
    writer
        .write(|tx| tx.append_event(None, None, "note", None))
        .unwrap();
    assert_eq!(
        reader
            .read(|snapshot| snapshot.events_after(0, 10))
            .unwrap()
            .len(),
        1
    );
    assert_eq!(reader.id(), writer.id());
    assert_eq!((writer.commits(), reader.commits()), (1, 0));
}

#[test]
fn a_missing_directory_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let error = Ledger::open(&dir.path().join("no/ledger.redb"), Options::new()).unwrap_err();
    assert_eq!(kind(&error), "unavailable");
    assert!(error.to_string().contains("/no`"), "{error}");
}

#[test]
fn a_directory_that_others_may_write_is_refused() {
    let world = World::new();
    for open in [0o720, 0o702, 0o777, 0o1777] {
        mode(world.dir.path(), open);
        refused(
            &world.path(),
            "unavailable",
            "others may write its directory",
        );
    }
    mode(world.dir.path(), 0o755);
    Ledger::open(&world.path(), Options::new()).unwrap();
}

#[test]
fn what_others_may_read_or_write_is_refused_with_the_remedy() {
    let world = World::new();
    for open in [0o644, 0o620, 0o602, 0o666, 0o640] {
        mode(&world.path(), open);
        refused(&world.path(), "unavailable", "others may read or write it");
    }
}

#[test]
fn a_read_only_file_is_read_and_not_written() {
    let world = World::new();
    world
        .ledger
        .write(|tx| tx.append_event(None, None, "note", None))
        .unwrap();
    let path = world.path();
    let World { dir, ledger, .. } = world;
    drop(ledger);
    mode(&path, 0o400);
    let before = fs::read(&path).unwrap();
    let error = Ledger::open(&path, Options::new()).unwrap_err();
    assert_eq!(kind(&error), "unavailable");
    let reader = Ledger::open_read(&path, Options::new()).unwrap();
    assert_eq!(
        reader
            .read(|snapshot| snapshot.events_after(0, 10))
            .unwrap()
            .len(),
        1
    );
    assert_eq!(fs::read(&path).unwrap(), before);
    drop(dir);
}

#[test]
fn links_directories_and_pipes_are_refused() {
    let world = World::new();
    let dir = world.dir.path();
    symlink(world.path(), dir.join("symbolic")).unwrap();
    refused(&dir.join("symbolic"), "unavailable", "symbolic link");
    symlink(dir.join("nowhere"), dir.join("dangling")).unwrap();
    refused(&dir.join("dangling"), "unavailable", "symbolic link");
    fs::create_dir(dir.join("directory")).unwrap();
    refused(&dir.join("directory"), "unavailable", "directory");
    fs::hard_link(world.path(), dir.join("hard")).unwrap();
    refused(&dir.join("hard"), "unavailable", "hard link");
    refused(&world.path(), "unavailable", "hard link");
    assert!(
        std::process::Command::new("mkfifo")
            .arg(dir.join("pipe"))
            .status()
            .unwrap()
            .success()
    );
    mode(&dir.join("pipe"), 0o600);
    let error = Ledger::open_read(&dir.join("pipe"), Options::new()).unwrap_err();
    assert!(error.to_string().contains("regular file"), "{error}");
}

#[test]
fn what_is_not_a_ledger_is_named_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    refused(&file(dir, "empty", b""), "corrupt", "empty");
    refused(&file(dir, "short", b"redb"), "incompatible", "not a ledger");
    refused(
        &file(dir, "text", b"# a diary\n"),
        "incompatible",
        "not a ledger",
    );
    refused(
        &file(dir, "noise", &[0xA5; 100_000]),
        "incompatible",
        "not a ledger",
    );
    refused(
        &file(dir, "sqlite", b"SQLite format 3\0and so on"),
        "incompatible",
        "not a ledger",
    );
    refused(
        &file(dir, "other.json", br#"{"colour": "blue"}"#),
        "incompatible",
        "not a ledger",
    );
    refused(
        &file(dir, "sessions.json", br#"{"sessions": {}}"#),
        "predecessor",
        "sessions.json",
    );
    refused(
        &file(dir, "map.json", br#" {"s1": {"session_id": "s1"}}"#),
        "incompatible",
        "not a ledger",
    );
    let exposed = file(dir, "exposed.json", br#"{"sessions": {}}"#);
    mode(&exposed, 0o644);
    refused(&exposed, "predecessor", "sessions.json");
    let mut magic = b"redb\x1A\x0A\xA9\x0D\x0A".to_vec();
    refused(&file(dir, "magic", &magic), "corrupt", "");
    magic.resize(200_000, 0xFF);
    refused(&file(dir, "magic and noise", &magic), "corrupt", "");
}

#[test]
fn a_ledger_that_was_replaced_is_not_written() {
    let world = World::new();
    let _grant = world.up(&request("me", "r1"));
    fs::rename(world.path(), world.dir.path().join("aside")).unwrap();
    let gone = world
        .ledger
        .write(|tx| tx.append_event(None, None, "note", None))
        .unwrap_err();
    assert_eq!(kind(&gone), "unavailable");
    fs::remove_file(kept(&world.path())).unwrap();
    let fresh = world.other(|_| {});
    assert_ne!(fresh.id(), world.ledger.id());
    let replaced = world
        .ledger
        .write(|tx| tx.append_event(None, None, "note", None))
        .unwrap_err();
    assert!(replaced.to_string().contains(fresh.id()), "{replaced}");
    let replaced = world
        .ledger
        .read(|snapshot| snapshot.events_after(0, 10))
        .unwrap_err();
    assert!(replaced.to_string().contains(fresh.id()), "{replaced}");
    assert_eq!(
        fresh.read(|snapshot| snapshot.events_after(0, 10)).unwrap(),
        []
    );
    fs::rename(world.dir.path().join("aside"), world.path()).unwrap();
    world
        .ledger
        .write(|tx| tx.append_event(None, None, "note", None))
        .unwrap();
}

#[test]
fn what_a_creation_that_was_killed_left_is_no_hindrance() {
    let dir = tempfile::tempdir().unwrap();
    file(dir.path(), ".ledger.redb.new", b"half of a ledger");
    Ledger::open(&dir.path().join("ledger.redb"), Options::new()).unwrap();
    assert_eq!(names(dir.path()), ["ledger.redb", "ledger.redb.id"]);
}

/// The file that keeps the id.
fn kept(ledger: &Path) -> std::path::PathBuf {
    ledger.with_file_name("ledger.redb.id")
}

/// Sandboxes bear its id: if it were another one, nobody would look for them any more.
#[test]
fn a_ledger_that_is_made_anew_has_the_id_of_the_one_before() {
    let world = World::new();
    let (path, id) = (world.path(), world.ledger.id().to_owned());
    assert_eq!(fs::metadata(kept(&path)).unwrap().mode() & 0o777, 0o600);
    fs::rename(&path, world.dir.path().join("aside")).unwrap();
    assert_eq!(world.other(|_| {}).id(), id);
    // One that was written by an older version, or brought from elsewhere, has it put there when it is opened.
    let elsewhere = World::new();
    fs::copy(elsewhere.path(), &path).unwrap();
    assert_eq!(world.other(|_| {}).id(), elsewhere.ledger.id());
    fs::remove_file(&path).unwrap();
    assert_eq!(world.other(|_| {}).id(), elsewhere.ledger.id());
}

#[test]
fn an_id_that_can_not_be_trusted_is_not_taken_and_a_ledger_puts_it_right() {
    let world = World::new();
    world.ledger.close();
    let (path, file) = (world.path(), kept(&world.path()));
    let good = fs::read(&file).unwrap();
    let aside = world.dir.path().join("aside");
    let mut flipped = good.clone();
    flipped[9] ^= 1;
    let spoil: [&dyn Fn(); 6] = [
        &|| fs::write(&file, b"").unwrap(),
        &|| fs::write(&file, &good[..20]).unwrap(),
        &|| fs::write(&file, &flipped).unwrap(),
        &|| mode(&file, 0o622),
        &|| {
            fs::rename(&file, &aside).unwrap();
            symlink(&aside, &file).unwrap();
        },
        &|| {
            fs::rename(&file, &aside).unwrap();
            fs::hard_link(&aside, &file).unwrap();
        },
    ];
    for (number, spoil) in spoil.into_iter().enumerate() {
        spoil();
        let ledger = fs::read(&path).unwrap();
        fs::remove_file(&path).unwrap();
        let error = Ledger::open(&path, Options::new()).unwrap_err();
        assert_eq!(hindrance(&error), Some(Hindrance::KeptId), "{number}");
        assert!(!path.exists(), "{number}");
        fs::write(&path, ledger).unwrap();
        mode(&path, 0o600);
        Ledger::open(&path, Options::new()).unwrap();
        assert_eq!(fs::read(&file).unwrap(), good, "{number}");
        assert!(fs::symlink_metadata(&file).unwrap().is_file(), "{number}");
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o600);
        drop(fs::remove_file(&aside));
    }
}

#[test]
fn what_belongs_to_another_user_is_refused() {
    let world = World::new();
    // Root can give its file away; everybody else can name a file of root's.
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(world.path(), Some(65_534), None).unwrap();
        refused(&world.path(), "unavailable", "belongs to another user");
        std::os::unix::fs::chown(world.dir.path(), Some(65_534), None).unwrap();
        refused(&world.path(), "unavailable", "belongs to another user");
        std::os::unix::fs::chown(world.dir.path(), Some(0), None).unwrap();
    } else {
        refused(
            Path::new("/etc/passwd"),
            "unavailable",
            "belongs to another user",
        );
    }
}

#[test]
fn a_newer_schema_is_read_and_not_written() {
    const META: redb::TableDefinition<'_, &[u8], &[u8]> = redb::TableDefinition::new("meta");
    let World { dir, ledger, .. } = World::new();
    let path = dir.path().join("ledger.redb");
    ledger
        .write(|tx| tx.append_event(None, None, "note", None))
        .unwrap();
    drop(ledger);
    // The row as a newer version would write it: format, checksum over table, key and value, then JSON.
    let mut sum = crc32fast::Hasher::new();
    for part in [b"meta".as_slice(), &6_u64.to_le_bytes(), b"schema", b"2"] {
        sum.update(part);
    }
    let mut row = vec![1];
    row.extend_from_slice(&sum.finalize().to_le_bytes());
    row.push(b'2');
    let mut builder = redb::Builder::new();
    builder.set_concurrency_mode(redb::ConcurrencyMode::MultiWriter);
    let database = builder.open(&path).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction
        .open_table(META)
        .unwrap()
        .insert(b"schema".as_slice(), row.as_slice())
        .unwrap();
    transaction.commit().unwrap();
    drop(database);

    let ledger = Ledger::open(&path, Options::new()).unwrap();
    assert_eq!(
        ledger
            .read(|snapshot| snapshot.events_after(0, 10))
            .unwrap()
            .len(),
        1
    );
    let refused = ledger
        .write(|tx| tx.append_event(None, None, "note", None))
        .unwrap_err();
    assert_eq!(kind(&refused), "newer");
    assert!(refused.to_string().contains("schema 2"), "{refused}");
    // A copy is no write, and one that knows all tables there are: it is made byte for byte.
    let saved = ledger.backup(&dir.path().join("saved")).unwrap();
    let saved = Ledger::open_read(&saved.path, Options::new()).unwrap();
    assert_eq!(saved.id(), ledger.id());
    // What a newer version knows of the rows is not known here: nothing is made of some of them.
    let other = dir.path().join("other.redb");
    let backup = dir.path().join("saved");
    let import = alpine_ledger::import(&other, Options::new(), &backup, &str::to_owned, &as_it_is);
    let what = "a newer version wrote it (schema 2)".to_owned();
    assert_eq!(import.unwrap(), Imported::Refused { what });
    let compact = alpine_ledger::compact(&path, Options::new(), true).map(|_| ());
    let repair = alpine_ledger::repair(&path, Options::new()).map(|_| ());
    for refused in [compact, repair] {
        assert_eq!(kind(&refused.unwrap_err()), "newer");
    }
    assert!(!other.exists());
    let events = |ledger: &Ledger| {
        ledger
            .read(|snapshot| snapshot.events_after(0, 10))
            .unwrap()
    };
    assert_eq!(events(&saved), events(&ledger));
}

#[test]
fn a_panic_of_the_caller_undoes_the_transaction_and_is_its_own() {
    let world = World::new();
    world
        .ledger
        .write(|tx| tx.append_event(None, None, "before", None))
        .unwrap();
    let ledger = world.ledger.clone();
    let panicked = std::thread::spawn(move || {
        ledger.write(|tx| {
            tx.append_event(None, None, "lost", None)?;
            if tx.lease(&SessionId::derive("a", "b"))?.is_none() {
                panic!("the caller's fault");
            }
            Ok(())
        })
    })
    .join();
    let said = panicked.unwrap_err();
    assert_eq!(said.downcast_ref::<&str>(), Some(&"the caller's fault"));
    let seq = world
        .ledger
        .write(|tx| tx.append_event(None, None, "after", None))
        .unwrap();
    assert_eq!(seq, 2);
    let other = Ledger::open_read(&world.path(), Options::new()).unwrap();
    assert_eq!(
        other
            .read(|snapshot| snapshot.events_after(0, 10))
            .unwrap()
            .len(),
        2
    );
}

#[test]
fn writes_of_two_threads_take_turns() {
    let world = World::new();
    let threads: Vec<_> = (0..4)
        .map(|thread| {
            let ledger = world.ledger.clone();
            std::thread::spawn(move || {
                for n in 0..10 {
                    let new = request("me", &format!("{thread}-{n}"));
                    let admission = ledger.write(|tx| tx.admit(&new, "f", "s", "me")).unwrap();
                    assert!(matches!(admission, Admission::Run(_)));
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    assert_eq!(world.ledger.commits(), 40);
    let events = world
        .ledger
        .read(|snapshot| snapshot.events_after(0, 100))
        .unwrap();
    assert_eq!(events.last().unwrap().seq, 40);
}

#[test]
fn a_write_inside_a_write_is_busy_and_not_stuck() {
    let world = World::new();
    let ledger = world.other(|options| options.lock_timeout = std::time::Duration::from_millis(50));
    let inner = ledger.clone();
    let refused = ledger
        .write(|_| inner.write(|tx| tx.append_event(None, None, "note", None)))
        .unwrap_err();
    assert!(matches!(refused, LedgerError::Busy { .. }), "{refused}");
}

#[test]
fn a_ledger_that_was_closed_is_whole_whoever_still_has_a_handle() {
    let world = World::new();
    let clone = world.ledger.clone();
    // The file as it would be if this process ended now: a reader that may write repairs what has to be.
    let is_whole = |name: &str| {
        let copy = world.dir.path().join(name);
        fs::copy(world.path(), &copy).unwrap();
        let before = fs::read(&copy).unwrap();
        Ledger::open_read(&copy, Options::new()).unwrap();
        fs::read(&copy).unwrap() == before
    };
    world.admit(&request("me", "one"));
    assert!(!is_whole("unclean"));
    world.ledger.close();
    assert!(is_whole("clean"));
    clone.write(|_| Ok(())).unwrap();
}
