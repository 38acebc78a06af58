//! What a cold process does once its input has ended: it reads or writes one session, in the ledger or in one JSON file.
//! It tells how long that took.

use crate::predecessor::File;
use crate::records::OWNER;
use alpine_ledger::{Ledger, LedgerError, ListQuery, Options, SessionId};
use serde::de::IgnoredAny;
use serde_json::Value;
use std::fs;
use std::io::{Read, Write};
use std::path::Path;
use std::time::{Duration, Instant};

/// Patience with a machine that has far more to do than it can.
fn options() -> Options {
    Options {
        lock_timeout: Duration::from_secs(60),
        ..Options::new()
    }
}

/// Waits until the input ends, does it, and tells how many nanoseconds that took.
///
/// # Panics
/// When it fails.
pub fn run(kind: &str, path: &Path, number: u64) {
    println!("waiting");
    let mut rest = Vec::new();
    std::io::stdin().read_to_end(&mut rest).expect("an input");
    let start = Instant::now();
    match kind {
        "read-ledger" => read_ledger(path),
        "write-ledger" => write_ledger(&Ledger::open(path, options()).expect("a ledger"), number),
        "read-json" => read_json(path),
        "write-json" => write_json(path, number),
        kind => panic!("{kind}"),
    }
    println!("{}", start.elapsed().as_nanos());
}

/// Writes to the ledger again and again, with a pause in between, until it is killed.
///
/// # Panics
/// When it fails.
pub fn write_on(path: &Path, number: u64, pause: Duration) {
    let ledger = Ledger::open(path, options()).expect("a ledger");
    write_ledger(&ledger, number);
    println!("writing");
    loop {
        std::thread::sleep(pause);
        write_ledger(&ledger, number);
    }
}

fn session(number: u64) -> SessionId {
    SessionId::derive(OWNER, &format!("active-{number}"))
}

fn read_ledger(path: &Path) {
    let query = ListQuery {
        owner: Some(OWNER.to_owned()),
        states: Vec::new(),
        ended_since: None,
        limit: 1_000,
    };
    let ledger = Ledger::open_read(path, options()).expect("a ledger");
    let page = ledger.read(|snapshot| snapshot.list(&query));
    assert!(!page.expect("a list").sessions.is_empty());
}

/// A change of one session and an event, in one transaction.
fn write_ledger(ledger: &Ledger, number: u64) {
    let id = session(number);
    let write = ledger.write(|tx| {
        let missing = || LedgerError::NotFound { id: id.to_string() };
        let version = tx.session(&id)?.ok_or_else(missing)?.version;
        tx.compare_and_swap(&id, version, |session| session.persist_generation += 1)?;
        tx.append_event(Some(&id), None, "changed", None)
    });
    write.expect("a write");
}

fn read_json(path: &Path) {
    let text = fs::read(path).expect("the file of sessions");
    let file: File<IgnoredAny> = serde_json::from_slice(&text).expect("sessions");
    assert!(!file.sessions.is_empty());
}

/// The whole file is read and written under a lock; the new one takes the old one's name once it is on the disk.
fn write_json(path: &Path, number: u64) {
    let lock = fs::File::create(path.with_extension("lock")).expect("a lock");
    lock.lock().expect("the lock");
    let text = fs::read(path).expect("the file of sessions");
    let mut file: File<Value> = serde_json::from_slice(&text).expect("sessions");
    let id = session(number).to_string();
    let session = file.sessions.get_mut(&id).expect("a session");
    session.persist_attempt = Some(session.persist_attempt.unwrap_or(0) + 1);
    let new = path.with_extension("new");
    let mut out = fs::File::create(&new).expect("a new file");
    let text = serde_json::to_vec(&file).expect("a document");
    out.write_all(&text).expect("the new file");
    out.sync_data().expect("the new file on the disk");
    fs::rename(&new, path).expect("its name");
}
