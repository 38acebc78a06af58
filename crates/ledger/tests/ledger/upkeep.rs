//! Check, repair, backup and compaction, on ledgers that are damaged row by row.

use crate::world::{World, kind, named, names, options_of, request};
use alpine_ledger::{
    AuditRecord, Checked, Depth, Ledger, LedgerError, ListQuery, Options, PersistAttempt,
    QuarantineRecord, Receipt, Retention, SessionId, State, check, compact, is_large, repair,
};
use redb::{Builder, ConcurrencyMode, ReadableTable, TableDefinition};
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

type Rows = TableDefinition<'static, &'static [u8], &'static [u8]>;

const TABLES: [&str; 17] = [
    "meta",
    "sessions",
    "by_owner",
    "names",
    "pending_destroys",
    "requests",
    "operations",
    "session_operations",
    "open_operations",
    "leases",
    "transitions",
    "events",
    "events_by_session",
    "persist_attempts",
    "receipts",
    "audit",
    "quarantine",
];

/// A ledger that has rows in every table.
pub(crate) fn full() -> World {
    filled(World::new())
}

/// The same, of a world that has none.
pub(crate) fn filled(world: World) -> World {
    for (number, state) in State::ALL.into_iter().skip(1).enumerate() {
        let request = format!("r{number}");
        world.session_in(&named("me", &request, &format!("name-{number}")), state);
    }
    world.up(&request("you", "open"));
    let stopped = world.up(&request("me", "stored"));
    let id = stopped.session.session_id.clone();
    let way = [
        State::Provisioning,
        State::RepoSyncing,
        State::Installing,
        State::Ready,
        State::Stopping,
        State::Persisting,
    ];
    world.go(&stopped, &way);
    let now = stopped.session.started_at;
    let (attempt, receipt) = (attempt(now), receipt(now));
    world
        .ledger
        .write(|tx| {
            tx.put_persist_attempt(&stopped.token, &attempt)?;
            tx.put_receipt(&stopped.token, &receipt)?;
            tx.transition(&stopped.token, State::Stopped, "test", |session| {
                session.destroy_pending = true;
            })?;
            tx.put_audit(&AuditRecord {
                actor: "admin".to_owned(),
                session_id: id.clone(),
                action: "down".to_owned(),
                reason: "test".to_owned(),
                at: now,
            })?;
            tx.put_audit(&AuditRecord {
                actor: "admin".to_owned(),
                session_id: id.clone(),
                action: "down".to_owned(),
                reason: "again".to_owned(),
                at: now,
            })?;
            tx.put_quarantine(&QuarantineRecord {
                sandbox_id: "sbx_stray".to_owned(),
                provider: "local".to_owned(),
                session_id: "ses_gone".to_owned(),
                found_at: now,
                grace_since: None,
                durable_object_id: None,
                reaped_at: None,
            })
        })
        .unwrap();
    world
}

fn attempt(at: alpine_ledger::Timestamp) -> PersistAttempt {
    PersistAttempt {
        generation: 1,
        persisted_at: at,
        payload: "{}".to_owned(),
        staged: None,
    }
}

fn receipt(at: alpine_ledger::Timestamp) -> Receipt {
    Receipt {
        generation: 1,
        durable_object_id: "obj_1".to_owned(),
        persisted_at: at,
        payload_digest: "d".to_owned(),
        snapshot_digest: None,
        verified_at: at,
    }
}

fn checked(world: &World, depth: Depth) -> Checked {
    check(&world.path(), options_of(&world.clock), depth).unwrap()
}

pub(crate) fn exported(ledger: &Ledger) -> String {
    let mut text = Vec::new();
    ledger.export(&mut text).unwrap();
    String::from_utf8(text).unwrap()
}

/// Changes a table behind the ledger's back: its first row is given to `change`, which gives the value back.
pub(crate) fn damage(
    world: &World,
    table: &'static str,
    change: impl FnOnce(Vec<u8>) -> Option<Vec<u8>>,
) {
    world.ledger.close();
    let mut builder = Builder::new();
    builder.set_concurrency_mode(ConcurrencyMode::MultiWriter);
    let database = builder.open(world.path()).unwrap();
    let transaction = database.begin_write().unwrap();
    {
        let mut rows = transaction.open_table(Rows::new(table)).unwrap();
        let (key, value) = {
            let (key, value) = rows.first().unwrap().unwrap();
            (key.value().to_vec(), value.value().to_vec())
        };
        match change(value) {
            Some(value) => drop(rows.insert(key.as_slice(), value.as_slice()).unwrap()),
            None => drop(rows.remove(key.as_slice()).unwrap()),
        }
    }
    transaction.commit().unwrap();
}

fn flip(mut value: Vec<u8>) -> Option<Vec<u8>> {
    let last = value.len() - 1;
    value[last] ^= 1;
    Some(value)
}

#[test]
fn a_ledger_with_rows_in_every_table_is_sound() {
    let world = full();
    for depth in [Depth::Rows, Depth::Pages] {
        let found = checked(&world, depth);
        assert_eq!(found.problems, []);
        assert_eq!(found.ledger_id.as_deref(), Some(world.ledger.id()));
        for table in TABLES {
            assert!(found.rows[table] > 0, "{table}");
        }
    }
    let names = names(world.dir.path());
    assert_eq!(names, ["ledger.redb", "ledger.redb.id", "ops"]);
}

#[test]
fn no_ledger_is_a_sound_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ledger.redb");
    let found = check(&path, alpine_ledger::Options::new(), Depth::Pages).unwrap();
    assert!(found.is_sound() && found.ledger_id.is_none());
    assert!(!path.exists());
}

/// Damages, checks, repairs, and checks again.
#[track_caller]
fn found_and_repaired(
    world: &World,
    whole: &[u8],
    table: &'static str,
    change: fn(Vec<u8>) -> Option<Vec<u8>>,
) {
    fs::write(world.path(), whole).unwrap();
    damage(world, table, change);
    let found = checked(world, Depth::Rows);
    assert!(!found.is_sound(), "{table}");
    let damaged = fs::read(world.path()).unwrap();
    let repaired = repair(&world.path(), options_of(&world.clock)).unwrap();
    assert_eq!(repaired.before.problem_count, found.problem_count);
    assert_eq!(repaired.after.problems, [], "{table}");
    let backup = repaired.backup.unwrap();
    assert_eq!(
        fs::metadata(&backup).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let kept = fs::read(&backup).unwrap();
    assert_eq!(kept.len(), damaged.len(), "{table}");
    assert!(checked(world, Depth::Pages).is_sound(), "{table}");
    // It can be worked with: a new session, and a new operation on each that is left.
    let after = world.other(|_| {});
    assert_eq!(after.id(), world.ledger.id());
    let ids: Vec<SessionId> = after
        .read(|snapshot| snapshot.unfinished(None))
        .unwrap()
        .into_iter()
        .map(|session| session.session_id)
        .collect();
    assert!(ids.len() >= 9, "{table}: {ids:?}");
    after
        .write(|tx| tx.admit(&request("me", "new"), "f", "sbx_2", "me"))
        .unwrap();
    after.close();
    assert_eq!(checked(world, Depth::Rows).problems, [], "{table}");
}

/// A full ledger that nobody has open, and its bytes.
fn at_rest() -> (World, Vec<u8>) {
    let world = full();
    world.ledger.close();
    let whole = fs::read(world.path()).unwrap();
    (world, whole)
}

#[test]
fn a_row_that_was_changed_is_found_and_repaired() {
    let (world, whole) = at_rest();
    for table in TABLES {
        found_and_repaired(&world, &whole, table, flip);
    }
}

#[test]
fn a_row_that_is_missing_is_found_and_repaired() {
    // Nothing says that there was an attempt, a receipt or a quarantined sandbox.
    let optional = ["meta", "persist_attempts", "receipts", "quarantine"];
    let (world, whole) = at_rest();
    for table in TABLES.into_iter().filter(|table| !optional.contains(table)) {
        found_and_repaired(&world, &whole, table, |_| None);
    }
}

#[test]
fn a_damaged_index_is_made_again_and_nothing_is_lost() {
    for table in [
        "by_owner",
        "names",
        "pending_destroys",
        "open_operations",
        "events_by_session",
    ] {
        let world = full();
        let before = exported(&world.ledger);
        damage(&world, table, |_| None);
        let repaired = repair(&world.path(), options_of(&world.clock)).unwrap();
        assert_eq!(repaired.lost, 0);
        assert!(exported(&world.other(|_| {})) == before, "{table}");
    }
}

/// The sessions that a ledger lists.
fn listed(ledger: &Ledger) -> Result<BTreeSet<SessionId>, LedgerError> {
    let query = ListQuery {
        owner: None,
        states: Vec::new(),
        ended_since: None,
        limit: 1_000,
    };
    let page = ledger.read(|snapshot| snapshot.list(&query))?;
    Ok(page
        .sessions
        .into_iter()
        .map(|row| row.session_id)
        .collect())
}

/// What is left of a ledger after its repair; none when it can't be repaired, and is as it was.
fn salvaged(world: &World, bytes: &[u8]) -> Option<BTreeSet<SessionId>> {
    fs::write(world.path(), bytes).unwrap();
    let repaired = repair(&world.path(), options_of(&world.clock)).inspect_err(|error| {
        assert_eq!(kind(error), "corrupt", "{error}");
        assert!(fs::read(world.path()).unwrap() == bytes, "{error}");
    });
    let repaired = repaired.ok()?;
    assert_eq!(repaired.after.problems, []);
    if let Some(backup) = repaired.backup {
        assert!(fs::read(&backup).unwrap() == bytes, "it was not kept");
        fs::remove_file(backup).unwrap();
    }
    let after = world.other(|_| {});
    assert_eq!(after.id(), world.ledger.id());
    let left = listed(&after).unwrap();
    after.close();
    Some(left)
}

#[test]
fn what_a_lost_page_does_not_hold_is_salvaged() {
    const PAGE: usize = 4096;
    let (world, whole) = at_rest();
    let all = listed(&world.ledger).unwrap();
    let (mut leaves, mut roots) = (0, 0);
    for page in 1..whole.len() / PAGE {
        let mut bytes = whole.clone();
        bytes[page * PAGE..(page + 1) * PAGE].fill(0);
        match salvaged(&world, &bytes) {
            Some(left) if left == all => {}
            // A page has room for some sessions.
            Some(left) if left.len() + 5 >= all.len() => leaves += 1,
            // What leads to all of them, or to all tables, is lost.
            Some(left) if left.is_empty() => roots += 1,
            Some(left) => panic!("page {page}: of {all:?} only {left:?} is left"),
            // Nothing of it can be trusted, so that nothing could be read before either.
            None => {
                let ledger = Ledger::open_read(&world.path(), options_of(&world.clock));
                assert!(ledger.is_err(), "page {page} can be read and not repaired");
            }
        }
    }
    assert!(leaves >= 3 && roots <= 2, "{leaves} and {roots}");
}

#[test]
fn what_the_end_of_a_file_does_not_hold_is_salvaged() {
    let (world, whole) = at_rest();
    let all = listed(&world.ledger).unwrap();
    for cut in [1, 100, 4096] {
        let left = salvaged(&world, &whole[..whole.len() - cut]);
        assert_eq!(left.as_ref(), Some(&all), "without its last {cut} bytes");
    }
}

#[test]
fn nothing_is_written_while_a_damaged_file_is_copied() {
    let (world, _) = at_rest();
    damage(&world, "events", flip);
    let other = world.other(|_| {});
    let options = Options {
        lock_timeout: Duration::from_millis(50),
        ..options_of(&world.clock)
    };
    let refused = other.write(|_| Ok(repair(&world.path(), options).unwrap_err()));
    assert_eq!(kind(&refused.unwrap()), "busy");
}

#[test]
fn a_sound_ledger_is_not_repaired() {
    let world = full();
    world.ledger.close();
    let before = fs::read(world.path()).unwrap();
    let repaired = repair(&world.path(), options_of(&world.clock)).unwrap();
    assert!(repaired.backup.is_none() && repaired.after.is_sound());
    assert_eq!(fs::read(world.path()).unwrap(), before);
}

#[test]
fn what_can_not_be_repaired_is_left_as_it_is() {
    let world = full();
    world.ledger.close();
    let whole = fs::read(world.path()).unwrap();
    for bytes in [&b""[..], &whole[..320], &whole[..4096]] {
        fs::write(world.path(), bytes).unwrap();
        drop(fs::remove_file(
            world.path().with_file_name("ledger.redb.id"),
        ));
        let error = repair(&world.path(), options_of(&world.clock)).unwrap_err();
        assert!(
            ["corrupt", "incompatible"].contains(&kind(&error)),
            "{error}"
        );
        assert_eq!(fs::read(world.path()).unwrap(), bytes);
        match check(&world.path(), options_of(&world.clock), Depth::Pages) {
            Ok(found) => assert!(!found.is_sound()),
            Err(error) => assert_eq!(kind(&error), "incompatible", "{error}"),
        }
    }
}

#[test]
fn an_id_that_was_lost_is_taken_from_the_file_that_keeps_it() {
    let world = full();
    let id = world.ledger.id().to_owned();
    world.ledger.close();
    let whole = fs::read(world.path()).unwrap();
    for bytes in [&whole[..4096], &whole[..]] {
        fs::write(world.path(), bytes).unwrap();
        if bytes.len() == whole.len() {
            damage(&world, "meta", |_| None);
        }
        let done = repair(&world.path(), options_of(&world.clock)).unwrap();
        assert!(done.after.is_sound(), "{done:?}");
        assert_eq!(world.other(|_| {}).id(), id);
    }
}

#[test]
fn a_damaged_page_is_found_out_by_the_deep_check() {
    let world = full();
    world.ledger.close();
    let whole = fs::read(world.path()).unwrap();
    let mut found = 0;
    for page in (4096..whole.len()).step_by(3 * 4096) {
        let bytes = &whole[page..(page + 4096).min(whole.len())];
        if bytes.iter().all(|byte| *byte == 0) {
            continue;
        }
        let mut damaged = whole.clone();
        damaged[page..(page + 64).min(whole.len())].fill(0xA5);
        fs::write(world.path(), &damaged).unwrap();
        // Pages that nothing uses any more may be anything.
        if let Ok(checked) = check(&world.path(), options_of(&world.clock), Depth::Pages) {
            found += u32::from(!checked.is_sound());
        }
    }
    assert!(found >= 3, "{found}");
}

#[test]
fn a_backup_while_others_write_is_one_state() {
    let world = full();
    let done = AtomicBool::new(false);
    let backups = std::thread::scope(|scope| {
        for writer in 0..4 {
            let (ledger, done) = (world.other(|_| {}), &done);
            scope.spawn(move || {
                let mut number = 0;
                while !done.load(Ordering::SeqCst) {
                    let new = request(&format!("w{writer}"), &format!("r{number}"));
                    ledger.write(|tx| tx.admit(&new, "f", "s", "me")).unwrap();
                    number += 1;
                }
            });
        }
        let ledger = world.other(|_| {});
        let mut backups = Vec::new();
        for number in 0..6 {
            let path = world.dir.path().join(format!("backup-{number}"));
            backups.push(ledger.backup(&path));
        }
        done.store(true, Ordering::SeqCst);
        backups
    });
    let mut events = 0;
    for backup in backups {
        let backup = backup.unwrap();
        let mode = fs::metadata(&backup.path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let found = check(&backup.path, options_of(&world.clock), Depth::Pages).unwrap();
        assert_eq!(found.problems, []);
        assert_eq!(found.rows.values().sum::<u64>(), backup.rows);
        assert!(found.rows["events"] >= events, "a later one has no less");
        events = found.rows["events"];
    }
}

#[test]
fn what_nobody_may_write_is_checked_and_backed_up() {
    let (world, whole) = at_rest();
    fs::set_permissions(world.path(), fs::Permissions::from_mode(0o400)).unwrap();
    for depth in [Depth::Rows, Depth::Pages] {
        assert_eq!(checked(&world, depth).problems, []);
    }
    let reader = Ledger::open_read(&world.path(), options_of(&world.clock)).unwrap();
    let saved = world.dir.path().join("saved");
    reader.backup(&saved).unwrap();
    let saved = Ledger::open_read(&saved, options_of(&world.clock)).unwrap();
    assert_eq!(exported(&saved), exported(&reader));
    assert!(fs::read(world.path()).unwrap() == whole);
}

#[test]
fn a_backup_overwrites_nothing() {
    let world = full();
    let path = world.dir.path().join("precious");
    fs::write(&path, "precious").unwrap();
    let error = world.ledger.backup(&path).unwrap_err();
    assert_eq!(kind(&error), "unavailable");
    assert_eq!(fs::read(&path).unwrap(), b"precious");
}

#[test]
fn a_compaction_is_seen_by_those_who_have_the_file_open() {
    let world = full();
    let other = world.other(|_| {});
    let held = other
        .write(|tx| tx.admit(&request("me", "held"), "f", "s", "me"))
        .unwrap();
    let alpine_ledger::Admission::Run(grant) = held else {
        panic!("{held:?}");
    };
    let before = exported(&other);
    let small = compact(&world.path(), options_of(&world.clock), false).unwrap();
    assert!(!small.done, "{small:?}");
    let done = compact(&world.path(), options_of(&world.clock), true).unwrap();
    assert!(done.done && done.after <= done.before, "{done:?}");
    assert!(exported(&other) == before, "fences, too, are as they were");
    // The holder goes on with its lease, on the new file, without having noticed.
    other.write(|tx| tx.renew(&grant.token)).unwrap();
    other
        .write(|tx| tx.transition(&grant.token, State::Provisioning, "test", |_| {}))
        .unwrap();
    let seen = world.session(&grant.session.session_id).state;
    assert_eq!(seen, State::Provisioning);
    assert_eq!(checked(&world, Depth::Pages).problems, []);
}

#[test]
fn writers_lose_nothing_while_the_file_is_compacted() {
    let world = World::new();
    const EACH: usize = 60;
    std::thread::scope(|scope| {
        for writer in 0..4 {
            let ledger = world.other(|_| {});
            scope.spawn(move || {
                for number in 0..EACH {
                    let new = request(&format!("w{writer}"), &format!("r{number}"));
                    ledger.write(|tx| tx.admit(&new, "f", "s", "me")).unwrap();
                }
            });
        }
        for _ in 0..8 {
            compact(&world.path(), options_of(&world.clock), true).unwrap();
        }
    });
    let sessions = world
        .ledger
        .read(|snapshot| snapshot.unfinished(None))
        .unwrap();
    assert_eq!(sessions.len(), 4 * EACH);
    assert_eq!(checked(&world, Depth::Pages).problems, []);
}

/// Lets the file grow by so many megabytes, and keeps so many of them.
fn grow(world: &World, megabytes: u64, keep: u64) {
    let reason = "x".repeat(1_000_000);
    for _ in 0..megabytes {
        world
            .ledger
            .write(|tx| tx.append_event(None, None, "large", Some(&reason)))
            .unwrap();
    }
    let keep = Retention {
        events: keep,
        ..Retention::default()
    };
    world.ledger.retain(&keep, usize::MAX).unwrap();
}

#[test]
fn a_file_is_written_anew_only_when_it_is_large_and_mostly_empty() {
    for (megabytes, keep, worth) in [(20, 1, false), (100, 60, false), (100, 8, true)] {
        let world = World::new();
        world.up(&request("me", "r1"));
        grow(&world, megabytes, keep);
        let before = exported(&world.ledger);
        assert_eq!(is_large(&world.path()), megabytes > 64, "{megabytes}");
        let done = compact(&world.path(), options_of(&world.clock), false).unwrap();
        assert_eq!(done.done, worth, "{megabytes}: {done:?}");
        assert_eq!(done.after < done.before / 4, worth, "{megabytes}: {done:?}");
        // The handle that was open goes on with the new file.
        assert!(exported(&world.ledger) == before);
        let seq = world
            .ledger
            .write(|tx| tx.append_event(None, None, "after", None));
        assert_eq!(seq.unwrap(), 1 + megabytes + 1);
    }
}
