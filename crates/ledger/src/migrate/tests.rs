//! No version has an older schema yet: these files and steps are invented, the mechanism is the shipped one.

use super::{STEPS, Step, migrate};
use crate::site::Site;
use crate::store::{Store, guard};
use crate::tables::{AUDIT, META, SCHEMA};
use crate::{AuditRecord, Ledger, LedgerError, Options, SessionId, Timestamp};
use redb::ReadableDatabase;
use rustix::process::{Signal, getpid, kill_process};
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Barrier;
use tempfile::TempDir;

/// Set for the process that is to die in a step.
const DIE: &str = "ALPINE_LEDGER_TEST_MIGRATE";

fn note(store: &Store<'_>, name: &'static [u8]) -> Result<(), LedgerError> {
    let before: u64 = store.get(META, name)?.unwrap_or(0);
    store.put(META, name, &(before + 1))
}

/// From 1 to 2: counts the audit records; and it counts itself.
fn first(store: &Store<'_>) -> Result<(), LedgerError> {
    let records: Vec<AuditRecord> = store.all(AUDIT, &[])?;
    store.put(META, b"audits", &records.len())?;
    note(store, b"first")
}

fn second(store: &Store<'_>) -> Result<(), LedgerError> {
    note(store, b"second")
}

fn fails(store: &Store<'_>) -> Result<(), LedgerError> {
    note(store, b"second")?;
    Err(store.site.unavailable("the step failed", None))
}

fn panics(store: &Store<'_>) -> Result<(), LedgerError> {
    note(store, b"second")?;
    panic!("in the step")
}

fn dies(store: &Store<'_>) -> Result<(), LedgerError> {
    note(store, b"second")?;
    kill_process(getpid(), Signal::KILL).unwrap();
    Ok(())
}

/// A file of schema 1 with one audit record.
fn older() -> (TempDir, Site) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ledger.redb");
    let ledger = Ledger::open(&path, Options::new()).unwrap();
    let record = AuditRecord {
        actor: "admin".to_owned(),
        session_id: SessionId::derive("me", "r1"),
        action: "down".to_owned(),
        reason: "test".to_owned(),
        at: Timestamp(1),
    };
    ledger.write(|tx| tx.put_audit(&record)).unwrap();
    ledger.close();
    assert_eq!(SCHEMA, 1, "the steps below begin at schema 1");
    (dir, Site::new(&path, Options::new()).unwrap())
}

fn fact_of(path: &Path, name: &[u8]) -> Option<u64> {
    let site = Site::new(path, Options::new()).unwrap();
    let reader = crate::handle::open_reader(&site).unwrap().unwrap();
    let transaction = guard(&site, || Ok(reader.database.begin_read()?)).unwrap();
    Store::reading(&site, &transaction).get(META, name).unwrap()
}

fn backups(site: &Site) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(&site.dir).unwrap();
    let mut paths: Vec<PathBuf> = entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.to_string_lossy().contains(".schema-"))
        .collect();
    paths.sort();
    paths
}

#[test]
fn there_is_a_step_to_every_schema() {
    assert_eq!(STEPS.len() as u64 + 1, SCHEMA);
}

#[test]
fn an_older_file_is_saved_then_migrated_and_never_twice() {
    let (_dir, site) = older();
    let whole = std::fs::read(&site.path).unwrap();
    migrate(&site, &[first, second]).unwrap();
    migrate(&site, &[first, second]).unwrap();
    let fact = |name: &str| fact_of(&site.path, name.as_bytes());
    assert_eq!(fact("schema"), Some(3));
    assert_eq!((fact("first"), fact("second")), (Some(1), Some(1)));
    assert_eq!(fact("audits"), Some(1));
    let [saved] = backups(&site)
        .try_into()
        .expect("one backup, made before the first step");
    assert!(saved.to_string_lossy().contains("ledger.redb.schema-1-"));
    assert_eq!(std::fs::read(&saved).unwrap().len(), whole.len());
    assert_eq!(fact_of(&saved, b"first"), None);
    // It is whole, and a version that knows no other schema opens it.
    let old = Ledger::open(&saved, Options::new()).unwrap();
    assert_eq!(old.read(|snapshot| snapshot.audit()).unwrap().len(), 1);
    // This version, which is the older one now, reads what was migrated and does not write it.
    let newer = Ledger::open(&site.path, Options::new()).unwrap();
    assert_eq!(newer.read(|snapshot| snapshot.audit()).unwrap().len(), 1);
    let refused = newer.write(|tx| tx.append_event(None, None, "note", None));
    assert!(matches!(refused, Err(LedgerError::Newer { schema: 3, .. })));
}

#[test]
fn a_step_that_fails_leaves_the_schema_before_it_and_is_tried_again() {
    for broken in [fails as Step, panics] {
        let (_dir, site) = older();
        let attempt = AssertUnwindSafe(|| migrate(&site, &[first, broken]));
        let tried = std::panic::catch_unwind(attempt);
        assert!(!matches!(tried, Ok(Ok(()))));
        let fact = |name: &str| fact_of(&site.path, name.as_bytes());
        assert_eq!((fact("schema"), fact("second")), (Some(2), None));
        migrate(&site, &[first, second]).unwrap();
        assert_eq!(fact("schema"), Some(3));
        assert_eq!((fact("first"), fact("second")), (Some(1), Some(1)));
        assert_eq!(backups(&site).len(), 2, "each attempt saves what it finds");
    }
}

#[test]
#[expect(
    clippy::disallowed_methods,
    reason = "the process that dies is told so by its environment"
)]
fn a_process_that_is_killed_in_a_step_is_carried_on() {
    if let Ok(path) = std::env::var(DIE) {
        let site = Site::new(Path::new(&path), Options::new()).unwrap();
        migrate(&site, &[first, dies]).unwrap();
        return;
    }
    let (_dir, site) = older();
    let status = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "migrate::tests::a_process_that_is_killed_in_a_step_is_carried_on",
        ])
        .env(DIE, &site.path)
        .output()
        .unwrap()
        .status;
    assert_eq!(
        std::os::unix::process::ExitStatusExt::signal(&status),
        Some(9)
    );
    let fact = |name: &str| fact_of(&site.path, name.as_bytes());
    assert_eq!((fact("schema"), fact("second")), (Some(2), None));
    migrate(&site, &[first, second]).unwrap();
    assert_eq!((fact("first"), fact("second")), (Some(1), Some(1)));
}

#[test]
fn of_several_that_migrate_at_once_each_step_is_done_by_one() {
    let (_dir, site) = older();
    let start = Barrier::new(4);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                start.wait();
                migrate(&site, &[first, second, second]).unwrap();
            });
        }
    });
    let fact = |name: &str| fact_of(&site.path, name.as_bytes());
    assert_eq!(fact("schema"), Some(4));
    assert_eq!((fact("first"), fact("second")), (Some(1), Some(2)));
}

#[test]
fn a_schema_that_no_version_wrote_is_refused() {
    let (_dir, site) = older();
    let open = crate::handle::open_writer(&site).unwrap();
    super::in_transaction(&site, &open.database, |store| {
        store.put(META, b"schema", &0)
    })
    .unwrap();
    drop(open);
    let refused = Ledger::open(&site.path, Options::new()).unwrap_err();
    assert!(matches!(refused, LedgerError::Corrupt { .. }), "{refused}");
    assert_eq!(fact_of(&site.path, b"schema"), Some(0));
}
