//! The tables and their keys.
//!
//! Keys are byte strings that sort as their parts do: numbers are big-endian, and a text that is followed by
//! another part has its length before it, so that all rows of one text stand together.

/// The version of the tables; a newer one is read but not written.
pub(crate) const SCHEMA: u64 = 1;

/// What is true of the ledger itself: `id`, `schema`, `created_at`; once it applies, `trimmed` (the last event
/// that is no longer kept) and `imported` (what was imported into it).
pub(crate) const META: &str = "meta";
/// session → record.
pub(crate) const SESSIONS: &str = "sessions";
/// (owner, class, newest first, session) → summary: covering, so that `list` is contiguous scans.
pub(crate) const BY_OWNER: &str = "by_owner";
/// (owner, name, class, newest first, session) → nothing.
pub(crate) const NAMES: &str = "names";
/// session → nothing, while its state is final but its sandbox is not destroyed.
pub(crate) const PENDING_DESTROYS: &str = "pending_destroys";
/// (owner, client request id) → request.
pub(crate) const REQUESTS: &str = "requests";
/// operation → record.
pub(crate) const OPERATIONS: &str = "operations";
/// (session, number) → operation, in the order in which they were admitted.
pub(crate) const SESSION_OPERATIONS: &str = "session_operations";
/// (session, operation) → nothing, until the operation has finished.
pub(crate) const OPEN_OPERATIONS: &str = "open_operations";
/// session → lease.
pub(crate) const LEASES: &str = "leases";
/// (session, number) → transition.
pub(crate) const TRANSITIONS: &str = "transitions";
/// seq → event.
pub(crate) const EVENTS: &str = "events";
/// (session, seq) → nothing.
pub(crate) const SESSION_EVENTS: &str = "events_by_session";
/// (session, generation) → attempt to persist.
pub(crate) const ATTEMPTS: &str = "persist_attempts";
/// (session, generation) → receipt.
pub(crate) const RECEIPTS: &str = "receipts";
/// number → audit record.
pub(crate) const AUDIT: &str = "audit";

/// sandbox → what was found of it, where no session owns it.
pub(crate) const QUARANTINE: &str = "quarantine";

/// All tables; made when the ledger is.
pub(crate) const TABLES: [&str; 17] = [
    META,
    SESSIONS,
    BY_OWNER,
    NAMES,
    PENDING_DESTROYS,
    REQUESTS,
    OPERATIONS,
    SESSION_OPERATIONS,
    OPEN_OPERATIONS,
    LEASES,
    TRANSITIONS,
    EVENTS,
    SESSION_EVENTS,
    ATTEMPTS,
    RECEIPTS,
    AUDIT,
    QUARANTINE,
];

/// A key, or the common start of several.
#[derive(Clone, Debug, Default)]
pub(crate) struct Key(Vec<u8>);

impl Key {
    /// A key that starts with `text`; more may follow.
    pub(crate) fn text(text: &str) -> Self {
        Self::default().and_text(text)
    }

    /// A key that starts with `number`.
    pub(crate) fn number(number: u64) -> Self {
        Self::default().and_number(number)
    }

    pub(crate) fn and_text(mut self, text: &str) -> Self {
        let length = u32::try_from(text.len()).unwrap_or(u32::MAX);
        self.0.extend_from_slice(&length.to_be_bytes());
        self.0.extend_from_slice(text.as_bytes());
        self
    }

    pub(crate) fn and_number(mut self, number: u64) -> Self {
        self.0.extend_from_slice(&number.to_be_bytes());
        self
    }

    pub(crate) fn and_byte(mut self, byte: u8) -> Self {
        self.0.push(byte);
        self
    }

    /// Ends the key with a text that nothing follows.
    pub(crate) fn and_last(mut self, text: &str) -> Self {
        self.0.extend_from_slice(text.as_bytes());
        self
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// The text at the start of a key, and the rest.
pub(crate) fn split_text(key: &[u8]) -> Option<(&str, &[u8])> {
    let (length, rest) = key.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
    let (text, rest) = rest.split_at_checked(length)?;
    Some((std::str::from_utf8(text).ok()?, rest))
}

/// The number at the end of a key.
pub(crate) fn last_number(key: &[u8]) -> Option<u64> {
    key.last_chunk::<8>()
        .map(|bytes| u64::from_be_bytes(*bytes))
}

/// The first byte string after all that start with `prefix`; none when there is no such.
pub(crate) fn end_of(prefix: &[u8]) -> Option<Vec<u8>> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return Some(end);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::{Key, end_of, last_number, split_text};

    #[test]
    fn numbers_sort_as_numbers() {
        let numbers = [0, 1, 255, 256, 65_536, u64::MAX];
        let keys: Vec<Key> = numbers
            .iter()
            .map(|number| Key::text("s").and_number(*number))
            .collect();
        assert!(
            keys.windows(2)
                .all(|pair| pair[0].as_bytes() < pair[1].as_bytes())
        );
        let back: Vec<Option<u64>> = keys.iter().map(|key| last_number(key.as_bytes())).collect();
        assert_eq!(back, numbers.map(Some));
    }

    #[test]
    fn the_rows_of_one_text_stand_together() {
        let key = Key::text("ab").and_last("c");
        assert!(!key.as_bytes().starts_with(Key::text("a").as_bytes()));
        assert_eq!(split_text(key.as_bytes()), Some(("ab", b"c".as_slice())));
        assert_eq!(split_text(&[0, 0, 0, 9, b'x']), None);
    }

    #[test]
    fn a_prefix_ends_before_the_next_one() {
        assert_eq!(end_of(b"ab"), Some(b"ac".to_vec()));
        assert_eq!(end_of(&[1, 0xFF]), Some(vec![2]));
        assert_eq!(end_of(&[0xFF, 0xFF]), None);
        assert_eq!(end_of(&[]), None);
    }
}
