//! What the rows of each table look like, for those who go through all of them.

use crate::snapshot::RequestRow;
use crate::tables::{
    ATTEMPTS, AUDIT, BY_OWNER, EVENTS, Key, LEASES, META, NAMES, OPEN_OPERATIONS, OPERATIONS,
    PENDING_DESTROYS, QUARANTINE, RECEIPTS, REQUESTS, SESSION_EVENTS, SESSION_OPERATIONS, SESSIONS,
    TRANSITIONS, last_number, split_text,
};
use crate::{
    AuditRecord, Event, LeaseRecord, OperationId, OperationRecord, PersistAttempt,
    QuarantineRecord, Receipt, SessionRecord, TransitionRecord,
};
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::Value;

/// The tables that hold what is known; all others follow from them.
pub(crate) const KEPT: [&str; 12] = [
    META,
    SESSIONS,
    REQUESTS,
    OPERATIONS,
    SESSION_OPERATIONS,
    LEASES,
    TRANSITIONS,
    EVENTS,
    ATTEMPTS,
    RECEIPTS,
    AUDIT,
    QUARANTINE,
];

/// The tables that can be made again from the others.
pub(crate) const DERIVED: [&str; 5] = [
    BY_OWNER,
    NAMES,
    PENDING_DESTROYS,
    OPEN_OPERATIONS,
    SESSION_EVENTS,
];

/// The parts of the keys of the tables that are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    Text,
    Number,
    TextNumber,
    TextText,
}

fn shape(table: &str) -> Shape {
    match table {
        EVENTS | AUDIT => Shape::Number,
        SESSION_OPERATIONS | TRANSITIONS | ATTEMPTS | RECEIPTS => Shape::TextNumber,
        REQUESTS => Shape::TextText,
        _ => Shape::Text,
    }
}

/// The parts of a key of a table that is kept; none when it is not one of its keys.
pub(crate) fn parts(table: &str, key: &[u8]) -> Option<Vec<Value>> {
    let text = |bytes: &[u8]| Some(Value::from(std::str::from_utf8(bytes).ok()?));
    match shape(table) {
        Shape::Text => Some(vec![text(key)?]),
        Shape::Number => {
            let number = last_number(key).filter(|_| key.len() == 8)?;
            Some(vec![number.into()])
        }
        Shape::TextNumber => {
            let (first, rest) = split_text(key)?;
            let number = last_number(rest).filter(|_| rest.len() == 8)?;
            Some(vec![first.into(), number.into()])
        }
        Shape::TextText => {
            let (first, rest) = split_text(key)?;
            Some(vec![first.into(), text(rest)?])
        }
    }
}

/// The key of such parts; none when they are not those of a key of the table.
pub(crate) fn key(table: &str, parts: &[Value]) -> Option<Key> {
    match (shape(table), parts) {
        (Shape::Text, [text]) => Some(Key::default().and_last(text.as_str()?)),
        (Shape::Number, [number]) => Some(Key::number(number.as_u64()?)),
        (Shape::TextNumber, [text, number]) => {
            Some(Key::text(text.as_str()?).and_number(number.as_u64()?))
        }
        (Shape::TextText, [first, last]) => {
            Some(Key::text(first.as_str()?).and_last(last.as_str()?))
        }
        (Shape::Text | Shape::Number | Shape::TextNumber | Shape::TextText, _) => None,
    }
}

/// Whether the JSON is a row of the table, or what is wrong with it.
pub(crate) fn well_formed(table: &str, json: &[u8]) -> Result<(), String> {
    fn reads<T: DeserializeOwned>(json: &[u8]) -> Result<(), serde_json::Error> {
        serde_json::from_slice::<T>(json).map(drop)
    }
    let read = match table {
        SESSIONS => reads::<SessionRecord>(json),
        REQUESTS => reads::<RequestRow>(json),
        OPERATIONS => reads::<OperationRecord>(json),
        SESSION_OPERATIONS => reads::<OperationId>(json),
        LEASES => reads::<LeaseRecord>(json),
        TRANSITIONS => reads::<TransitionRecord>(json),
        EVENTS => reads::<Event>(json),
        ATTEMPTS => reads::<PersistAttempt>(json),
        RECEIPTS => reads::<Receipt>(json),
        AUDIT => reads::<AuditRecord>(json),
        QUARANTINE => reads::<QuarantineRecord>(json),
        _ => reads::<IgnoredAny>(json),
    };
    read.map_err(|error| format!("a row of `{table}` can't be read: {error}"))
}

#[cfg(test)]
mod tests {
    use super::{DERIVED, KEPT, key, parts};
    use crate::tables::TABLES;
    use serde_json::json;

    #[test]
    fn every_table_is_kept_or_derived() {
        let mut all: Vec<&str> = KEPT.iter().chain(&DERIVED).copied().collect();
        let mut known = TABLES.to_vec();
        all.sort_unstable();
        known.sort_unstable();
        assert_eq!(all, known);
    }

    #[test]
    fn keys_come_apart_and_together() {
        for (table, given) in [
            ("sessions", json!(["ses_1"])),
            ("events", json!([7])),
            ("transitions", json!(["ses_1", 7])),
            ("requests", json!(["me", "r\u{e9} 1"])),
        ] {
            let given = given.as_array().unwrap().clone();
            let made = key(table, &given).unwrap();
            assert_eq!(parts(table, made.as_bytes()), Some(given));
        }
        assert!(key("events", &[json!("a")]).is_none());
        assert!(key("sessions", &[json!("a"), json!(1)]).is_none());
        assert!(parts("events", b"short").is_none());
        assert!(parts("transitions", b"\0\0\0\x01a").is_none());
    }
}
