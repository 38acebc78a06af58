//! The disk is full at each write of a run in turn: an error that says so, nothing lost, and once there is room the
//! same handle goes on.

use crate::disk::{Disk, on};
use crate::world::kind;
use alpine_ledger::{Depth, Hindrance, Ledger, LedgerError, Options, StorageBackend, check};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

/// A disk with room for so many more writes; a file never grows on a full one.
#[derive(Debug)]
struct Filling(AtomicI64);

impl Filling {
    fn use_up(&self) -> io::Result<()> {
        if self.0.fetch_sub(1, Ordering::SeqCst) > 0 {
            Ok(())
        } else {
            Err(io::ErrorKind::StorageFull.into())
        }
    }

    fn is_full(&self) -> bool {
        self.0.load(Ordering::SeqCst) < 0
    }
}

impl Disk for Filling {
    fn set_len(&self, file: &dyn StorageBackend, len: u64) -> io::Result<()> {
        if len > file.len()? {
            self.use_up()?;
        }
        file.set_len(len)
    }

    fn write(&self, file: &dyn StorageBackend, offset: u64, data: &[u8]) -> io::Result<()> {
        self.use_up()?;
        file.write(offset, data)
    }
}

const ROOM: i64 = i64::MAX / 2;

fn append(ledger: &Ledger, number: u64) -> Result<u64, LedgerError> {
    let reason = "x".repeat((number * 997 % 9_000) as usize);
    ledger.write(|tx| tx.append_event(None, None, "filled", Some(&reason)))
}

pub(crate) fn hindrance(error: &LedgerError) -> Option<Hindrance> {
    if let LedgerError::OutcomeUnknown { source } = error {
        return hindrance(source);
    }
    if let LedgerError::Unavailable { hindrance, .. } = error {
        return Some(*hindrance);
    }
    None
}

#[test]
fn a_disk_that_fills_at_any_write_loses_nothing() {
    let (mut failures, mut undecided) = (0, 0);
    for room in 0.. {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ledger.redb");
        Ledger::open(&path, Options::new()).unwrap().close();
        let disk = Arc::new(Filling(AtomicI64::new(room)));
        let ledger = Ledger::open(&path, on(&disk)).unwrap();
        let (mut told, mut unknown) = (0, 0);
        for number in 0..8 {
            match append(&ledger, number) {
                Ok(seq) => told = seq,
                Err(error) => {
                    failures += 1;
                    assert!(
                        matches!(kind(&error), "unavailable" | "outcome_unknown"),
                        "room {room}: {error}"
                    );
                    assert_eq!(hindrance(&error), Some(Hindrance::NoSpace), "{error:?}");
                    unknown += u64::from(kind(&error) == "outcome_unknown");
                    break;
                }
            }
        }
        let was_full = disk.is_full();
        disk.0.store(ROOM, Ordering::SeqCst);
        let seen = ledger.read(|snapshot| snapshot.events_after(0, 100));
        let seen = seen.unwrap().len() as u64;
        assert!(
            (told..=told + unknown).contains(&seen),
            "room {room}: {told} told, {seen} there"
        );
        // Where the disk was too full even to decide about the commit, the next write does.
        let next = append(&ledger, 9).unwrap();
        assert!(
            (seen + 1..=told + unknown + 1).contains(&next),
            "room {room}: {seen} there, then {next}"
        );
        undecided += u64::from(next != seen + 1);
        ledger.close();
        let checked = check(&path, Options::new(), Depth::Pages).unwrap();
        assert_eq!(checked.problems, [], "room {room}");
        if !was_full {
            break;
        }
    }
    assert!(failures > 40, "{failures}");
    println!("{failures} failures, {undecided} undecided until there was room");
}

#[test]
fn on_a_full_disk_no_ledger_is_made_and_nothing_is_left() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ledger.redb");
    for room in [0, 1, 2, 5, 10] {
        let disk = Arc::new(Filling(AtomicI64::new(room)));
        let error = Ledger::open(&path, on(&disk)).unwrap_err();
        assert_eq!(hindrance(&error), Some(Hindrance::NoSpace), "{error:?}");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
    Ledger::open(&path, Options::new()).unwrap();
}
