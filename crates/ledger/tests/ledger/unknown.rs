//! Fields that a newer version wrote: whatever this version does with their records, it keeps them.

use crate::upkeep::{damage, exported, full};
use crate::world::{World, as_it_is, error, options_of, succeeded};
use alpine_ledger::{
    Acquired, Action, Imported, Ledger, LedgerError, SessionId, StepRecord, Timestamp, import,
    repair,
};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;

/// The field that is not known here.
const LATER: &str = "written_by_a_later_version";

/// The tables whose rows are records.
const RECORDS: [&str; 9] = [
    "sessions",
    "requests",
    "operations",
    "leases",
    "transitions",
    "persist_attempts",
    "receipts",
    "audit",
    "quarantine",
];

/// Gives a record, and all records in it, the field.
fn mark(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.values_mut().for_each(mark);
            fields.insert(LATER.to_owned(), "blue".into());
        }
        Value::Array(items) => items.iter_mut().for_each(mark),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// What is left without the field.
fn known(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let fields = fields.iter().filter(|(name, _)| *name != LATER);
            let fields = fields.map(|(name, value)| (name.clone(), known(value)));
            Value::Object(fields.collect())
        }
        Value::Array(items) => items.iter().map(known).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.clone(),
    }
}

/// Whether the record, and each record in it that is the same as before, has the field still.
fn is_kept(before: &Value, after: &Value) -> bool {
    match (before, after) {
        _ if known(before) == known(after) => before == after,
        (Value::Object(old), Value::Object(new)) => old
            .iter()
            .all(|(name, old)| new.get(name).is_some_and(|new| is_kept_in(old, new))),
        _ => false,
    }
}

/// The same of what is in a record: one that was put in another's place is not the same any more.
fn is_kept_in(before: &Value, after: &Value) -> bool {
    match (before, after) {
        _ if known(before) == known(after) => before == after,
        (Value::Array(old), Value::Array(new)) => {
            old.iter().zip(new).all(|(old, new)| is_kept_in(old, new))
        }
        _ => true,
    }
}

/// The records of an export by their table and key.
fn records(text: &str) -> BTreeMap<String, Value> {
    let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
    let rows = lines.filter(|line: &Value| {
        let table = line["table"].as_str();
        table.is_some_and(|table| RECORDS.contains(&table))
    });
    rows.map(|row| {
        (
            format!("{} {}", row["table"], row["key"]),
            row["value"].clone(),
        )
    })
    .collect()
}

#[track_caller]
fn all_are_kept(before: &str, after: &str) {
    let (before, after) = (records(before), records(after));
    for table in RECORDS {
        let of_it = |key: &&String| key.contains(&format!("\"{table}\""));
        assert!(before.keys().any(|key| of_it(&key)), "{table}");
    }
    let lost: Vec<_> = before
        .iter()
        .filter(|(key, before)| !after.get(*key).is_some_and(|after| is_kept(before, after)))
        .map(|(key, before)| format!("{key}\n  {before}\n  {:?}", after.get(key)))
        .collect();
    assert!(lost.is_empty(), "{}", lost.join("\n"));
}

/// A full ledger as a later version exports it: all operations have a step, and all records the field.
fn later_export(world: &World) -> String {
    let text = exported(&world.ledger);
    let mut lines: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let trailer = lines.pop().unwrap();
    for line in &mut lines {
        if line["table"] == "operations" {
            line["value"]["steps"] = serde_json::to_value([step("provision")]).unwrap();
        }
        if line["table"]
            .as_str()
            .is_some_and(|table| RECORDS.contains(&table))
        {
            mark(&mut line["value"]);
        }
    }
    let body: String = lines.iter().map(|line| format!("{line}\n")).collect();
    let blake3 = blake3::hash(body.as_bytes()).to_hex();
    let trailer = json!({"rows": trailer["rows"], "blake3": blake3.as_str()});
    format!("{body}{trailer}\n")
}

fn step(name: &str) -> StepRecord {
    StepRecord {
        step: name.to_owned(),
        at: Timestamp(5),
        duration_ms: 12,
        attempts: 1,
        error_code: None,
    }
}

/// A ledger that was imported from it, and what it was imported from.
fn imported() -> (World, String) {
    let world = full();
    let text = later_export(&world);
    let file = world.dir.path().join("export.jsonl");
    fs::write(&file, &text).unwrap();
    let path = world.dir.path().join("imported.redb");
    let done = import(
        &path,
        options_of(&world.clock),
        &file,
        &str::to_owned,
        &as_it_is,
    )
    .unwrap();
    assert!(matches!(done, Imported::Done { .. }), "{done:?}");
    world.ledger.close();
    fs::rename(&path, world.path()).unwrap();
    let ledger = Ledger::open(&world.path(), options_of(&world.clock)).unwrap();
    (World { ledger, ..world }, text)
}

/// Writes all records of a session again that are ever written twice.
fn work(ledger: &Ledger, id: &SessionId, last: bool) -> Result<(), LedgerError> {
    let error = error("ERR_INTERRUPTED");
    let acquired = ledger.write(|tx| tx.acquire(id, Action::Down, "me", &error))?;
    let (Acquired::Run(grant) | Acquired::Resume(grant)) = acquired else {
        panic!("{acquired:?}")
    };
    let token = &grant.token;
    ledger.write(|tx| {
        tx.update(token, |session| session.browser_opened = Some(true))?;
        tx.record_step(token, &step("stop"))?;
        tx.request_cancel(id, "me")?;
        tx.renew(token)?;
        if let Some(attempt) = tx.persist_attempt(id)? {
            tx.put_persist_attempt(token, &attempt)?;
        }
        if let Some(receipt) = tx.receipt(id)? {
            tx.put_receipt(token, &receipt)?;
        }
        if last {
            tx.finish(token, &succeeded()).map(drop)
        } else {
            tx.interrupt(token, &error)
        }
    })
}

#[test]
fn whatever_is_written_again_keeps_the_fields_of_a_later_version() {
    let (world, before) = imported();
    all_are_kept(&before, &exported(&world.ledger));
    let sessions = records(&before)
        .into_iter()
        .filter(|(key, _)| key.starts_with("\"sessions\""));
    for (_, session) in sessions {
        let id = SessionId::from_recorded(session["session_id"].as_str().unwrap());
        for last in [false, true] {
            work(&world.ledger, &id, last).unwrap();
        }
    }
    world
        .ledger
        .write(|tx| {
            let mut stray = tx.quarantined("sbx_stray")?.unwrap();
            stray.reaped_at = Some(Timestamp(9));
            tx.put_quarantine(&stray)
        })
        .unwrap();
    let after = exported(&world.ledger);
    assert!(after.contains("\"reaped_at\":9"), "{after}");
    all_are_kept(&before, &after);
}

#[test]
fn a_repair_keeps_the_fields_of_a_later_version() {
    let (world, before) = imported();
    damage(&world, "names", |_| None);
    let repaired = repair(&world.path(), options_of(&world.clock)).unwrap();
    assert_eq!(repaired.lost, 0);
    all_are_kept(&before, &exported(&world.other(|_| {})));
}
