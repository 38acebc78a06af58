//! Whether the tables agree with each other.

use super::Checked;
use crate::find::name_key;
use crate::list::owner_key;
use crate::session::is_pending;
use crate::snapshot::{IMPORTED, RequestRow};
use crate::store::Order;
use crate::tables::{
    ATTEMPTS, AUDIT, BY_OWNER, EVENTS, Key, LEASES, META, NAMES, OPEN_OPERATIONS, OPERATIONS,
    PENDING_DESTROYS, QUARANTINE, RECEIPTS, REQUESTS, SESSION_EVENTS, SESSION_OPERATIONS, SESSIONS,
    TRANSITIONS, last_number, split_text,
};
use crate::{
    Event, OperationId, OperationRecord, QuarantineRecord, SessionId, SessionRecord,
    SessionSummary, Snapshot, TransitionRecord, codec,
};
use serde::de::{DeserializeOwned, IgnoredAny};

/// A look at all tables. A row that is not sound was told of before: here it counts as being there.
pub(super) struct Agreement<'a> {
    snapshot: &'a Snapshot<'a>,
    checked: &'a mut Checked,
}

/// The session and the number at the start and end of a key of a list.
fn place(key: &[u8]) -> Option<(&str, u64)> {
    let (session, rest) = split_text(key)?;
    Some((session, last_number(rest)?))
}

impl<'a> Agreement<'a> {
    pub(super) fn new(snapshot: &'a Snapshot<'a>, checked: &'a mut Checked) -> Self {
        Self { snapshot, checked }
    }

    pub(super) fn look(&mut self) {
        self.meta();
        self.each(SESSIONS, Self::session);
        self.each(BY_OWNER, Self::by_owner);
        self.each(NAMES, Self::name);
        self.each(PENDING_DESTROYS, Self::pending);
        self.each(REQUESTS, Self::request);
        self.each(OPERATIONS, Self::operation);
        self.each(OPEN_OPERATIONS, Self::open_operation);
        self.each(LEASES, Self::of_session);
        self.list(SESSION_OPERATIONS, Some(0), Self::listed_operation);
        self.list(TRANSITIONS, Some(0), |_, _, _: TransitionRecord| {});
        self.list(ATTEMPTS, None, |_, _, _: IgnoredAny| {});
        self.list(RECEIPTS, None, |_, _, _: IgnoredAny| {});
        self.numbers(EVENTS, self.trimmed() + 1);
        self.numbers(AUDIT, 1);
        self.each(EVENTS, Self::event);
        self.each(SESSION_EVENTS, Self::session_event);
        self.each(QUARANTINE, Self::quarantined);
    }

    fn wrong(&mut self, table: &str, what: impl Into<String>) {
        self.checked.wrong(Some(table), what);
    }

    /// Visits the sound rows of a table.
    fn each<T: DeserializeOwned>(
        &mut self,
        table: &'static str,
        mut visit: impl FnMut(&mut Self, &[u8], T),
    ) {
        // A table that can't be read to its end was told of before.
        let snapshot = self.snapshot;
        let _ = snapshot.store.walk(table, Order::Forward, |key, value| {
            if let Ok(row) = codec::decode(table, key, value) {
                visit(self, key, row);
            }
        });
    }

    /// Visits the rows of a table of lists, one for each session, whose numbers have no gap.
    fn list<T: DeserializeOwned>(
        &mut self,
        table: &'static str,
        first: Option<u64>,
        mut visit: impl FnMut(&mut Self, &str, T),
    ) {
        let mut before: Option<(String, u64)> = None;
        let snapshot = self.snapshot;
        let _ = snapshot.store.walk(table, Order::Forward, |key, value| {
            let Some((session, number)) = place(key) else {
                return;
            };
            let same = before.as_ref().filter(|(before, _)| before == session);
            let expected = same.map_or(first, |(_, before)| before.checked_add(1));
            if same.is_none() && !self.there(SESSIONS, session.as_bytes()) {
                self.wrong(table, format!("session `{session}` is missing"));
            }
            if expected.is_some_and(|expected| expected != number) {
                self.wrong(
                    table,
                    format!("row {number} of session `{session}` follows a gap"),
                );
            }
            before = Some((session.to_owned(), number));
            if let Ok(row) = codec::decode(table, key, value) {
                visit(self, session, row);
            }
        });
    }

    /// Whether the numbers of a table have no gap.
    fn numbers(&mut self, table: &'static str, first: u64) {
        let mut expected = first;
        let snapshot = self.snapshot;
        let _ = snapshot.store.walk(table, Order::Forward, |key, _| {
            let number = last_number(key).unwrap_or_default();
            if number != expected {
                self.wrong(table, format!("number {number} follows a gap"));
            }
            expected = number.saturating_add(1);
        });
    }

    /// Whether a row is there, sound or not.
    fn there(&self, table: &'static str, key: &[u8]) -> bool {
        let found = self.snapshot.store.get::<IgnoredAny>(table, key);
        !matches!(found, Ok(None))
    }

    /// A row, if it is there and sound.
    fn row<T: DeserializeOwned>(&self, table: &'static str, key: &[u8]) -> Option<T> {
        self.snapshot.store.get(table, key).ok().flatten()
    }

    fn session_row(&self, id: &str) -> Option<SessionRecord> {
        self.row(SESSIONS, id.as_bytes())
    }

    fn trimmed(&self) -> u64 {
        self.row(META, b"trimmed").unwrap_or(0)
    }

    fn meta(&mut self) {
        self.checked.ledger_id = self.row(META, b"id");
        if self.checked.ledger_id.is_none() {
            self.wrong(META, "its id is missing");
        }
        if self.row::<u64>(META, b"schema").is_none() {
            self.wrong(META, "its version is missing");
        }
    }

    fn session(&mut self, key: &[u8], session: SessionRecord) {
        let id = session.session_id.as_str();
        let say = |what: &str| format!("session `{id}`: {what}");
        if id.as_bytes() != key {
            self.wrong(SESSIONS, say("it stands under another id"));
        }
        let listed: Option<SessionSummary> = self.row(BY_OWNER, owner_key(&session).as_bytes());
        if listed.is_some_and(|listed| listed != session.summary())
            || !self.there(BY_OWNER, owner_key(&session).as_bytes())
        {
            self.wrong(BY_OWNER, say("it is not listed as it is"));
        }
        if let Some(name) = &session.new.name
            && !self.there(NAMES, name_key(&session, name).as_bytes())
        {
            self.wrong(NAMES, say("it can't be found by its name"));
        }
        if is_pending(&session) != self.there(PENDING_DESTROYS, key) {
            self.wrong(PENDING_DESTROYS, say("the pending destroy is not listed"));
        }
        let request = Key::text(&session.new.owner).and_last(&session.new.client_request_id);
        if !self.there(REQUESTS, request.as_bytes()) {
            self.wrong(REQUESTS, say("its request is missing"));
        }
        if !self.there(LEASES, key) {
            self.wrong(LEASES, say("its lease is missing"));
        }
        if !self.there(OPERATIONS, session.operation_id.as_str().as_bytes()) {
            self.wrong(OPERATIONS, say("its latest operation is missing"));
        }
        // A history that can't be read was told of before.
        if let Ok(transitions) = self.snapshot.transitions(&session.session_id)
            && transitions.last() != Some(&session.last_transition)
        {
            self.wrong(TRANSITIONS, say("its latest transition is not the last"));
        }
    }

    fn by_owner(&mut self, key: &[u8], listed: SessionSummary) {
        let id = listed.session_id.as_str();
        let agrees = match self.session_row(id) {
            Some(session) => owner_key(&session).as_bytes() == key,
            None => self.there(SESSIONS, id.as_bytes()),
        };
        if !agrees {
            self.wrong(
                BY_OWNER,
                format!("session `{id}` is listed but is not there"),
            );
        }
    }

    fn name(&mut self, key: &[u8], id: SessionId) {
        let agrees = match self.session_row(id.as_str()) {
            Some(session) => session
                .new
                .name
                .as_ref()
                .is_some_and(|name| name_key(&session, name).as_bytes() == key),
            None => self.there(SESSIONS, id.as_str().as_bytes()),
        };
        if !agrees {
            self.wrong(NAMES, format!("session `{id}` does not have that name"));
        }
    }

    fn pending(&mut self, _: &[u8], id: SessionId) {
        let known = self.session_row(id.as_str());
        if known.is_none_or(|session| !is_pending(&session)) {
            self.wrong(
                PENDING_DESTROYS,
                format!("session `{id}` has nothing to be destroyed"),
            );
        }
    }

    fn request(&mut self, key: &[u8], request: RequestRow) {
        let id = request.session_id.as_str();
        let owner = split_text(key).map(|(owner, _)| owner.to_owned());
        let agrees = match self.session_row(id) {
            // The predecessor let one principal ask for a session that is another's.
            Some(session) => Some(session.new.owner) == owner || request.fingerprint == IMPORTED,
            None => self.there(SESSIONS, id.as_bytes()),
        };
        if !agrees {
            self.wrong(
                REQUESTS,
                format!("session `{id}` of a request is not there"),
            );
        }
        if !self.there(OPERATIONS, request.operation_id.as_str().as_bytes()) {
            let operation = &request.operation_id;
            self.wrong(REQUESTS, format!("operation `{operation}` is missing"));
        }
    }

    fn operation(&mut self, key: &[u8], operation: OperationRecord) {
        let (id, session) = (&operation.operation_id, &operation.session_id);
        let say = |what: &str| format!("operation `{id}`: {what}");
        if id.as_str().as_bytes() != key {
            self.wrong(OPERATIONS, say("it stands under another id"));
        }
        if !self.there(SESSIONS, session.as_str().as_bytes()) {
            self.wrong(OPERATIONS, say("its session is missing"));
        }
        let prefix = Key::text(session.as_str());
        let listed = self
            .snapshot
            .store
            .all::<OperationId>(SESSION_OPERATIONS, prefix.as_bytes());
        if listed.is_ok_and(|listed| !listed.contains(id)) {
            self.wrong(SESSION_OPERATIONS, say("it is not listed"));
        }
        let open = prefix.and_last(id.as_str());
        if operation.completed_at.is_none() != self.there(OPEN_OPERATIONS, open.as_bytes()) {
            self.wrong(OPEN_OPERATIONS, say("whether it is open is not listed"));
        }
    }

    fn open_operation(&mut self, key: &[u8], (): ()) {
        let id = split_text(key).map(|(_, id)| id).unwrap_or_default();
        if !self.there(OPERATIONS, id) {
            let id = String::from_utf8_lossy(id);
            self.wrong(OPEN_OPERATIONS, format!("operation `{id}` is missing"));
        }
    }

    fn listed_operation(&mut self, session: &str, id: OperationId) {
        let found: Option<OperationRecord> = self.row(OPERATIONS, id.as_str().as_bytes());
        let agrees = match found {
            Some(operation) => operation.session_id.as_str() == session,
            None => self.there(OPERATIONS, id.as_str().as_bytes()),
        };
        if !agrees {
            self.wrong(
                SESSION_OPERATIONS,
                format!("operation `{id}` of session `{session}` is missing"),
            );
        }
    }

    fn of_session(&mut self, key: &[u8], _: IgnoredAny) {
        if !self.there(SESSIONS, key) {
            let id = String::from_utf8_lossy(key);
            self.wrong(LEASES, format!("session `{id}` is missing"));
        }
    }

    fn event(&mut self, key: &[u8], event: Event) {
        let seq = event.seq;
        if Some(seq) != last_number(key) {
            self.wrong(EVENTS, format!("event {seq} stands under another number"));
        }
        let Some(session) = event.session_id else {
            return;
        };
        let key = Key::text(session.as_str()).and_number(seq);
        if self.there(SESSIONS, session.as_str().as_bytes())
            && !self.there(SESSION_EVENTS, key.as_bytes())
        {
            self.wrong(
                SESSION_EVENTS,
                format!("event {seq} of session `{session}` is not listed"),
            );
        }
    }

    fn session_event(&mut self, key: &[u8], (): ()) {
        let Some((session, seq)) = place(key) else {
            return self.wrong(SESSION_EVENTS, "a key can't be read");
        };
        let event: Option<Event> = self.row(EVENTS, Key::number(seq).as_bytes());
        let agrees = match event {
            Some(event) => event.session_id.is_some_and(|id| id.as_str() == session),
            None => self.there(EVENTS, Key::number(seq).as_bytes()),
        };
        if !agrees {
            self.wrong(
                SESSION_EVENTS,
                format!("event {seq} of session `{session}` is missing"),
            );
        }
    }

    fn quarantined(&mut self, key: &[u8], record: QuarantineRecord) {
        if record.sandbox_id.as_bytes() != key {
            let id = &record.sandbox_id;
            self.wrong(QUARANTINE, format!("sandbox `{id}` stands under another"));
        }
    }
}
