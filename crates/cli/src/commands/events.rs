//! `events`: the ledger's history as a stream, which can be resumed after any event.

use crate::args::EventsArgs;
use crate::output;
use crate::signals;
use crate::view::{EventDocument, GapDocument};
use crate::work::Work;
use alpine_ledger::{Event, LedgerError, SessionId, Snapshot};
use alpine_lifecycle::{Caller, Failure, lookup};
use alpine_provider_api::Redactor;
use std::collections::HashMap;
use std::time::Duration;

/// How many events are read at once: what is written meanwhile waits for no reader, and no reader holds much.
const PAGE: usize = 500;
/// How long it takes until new events are looked for.
const PAUSE: Duration = Duration::from_millis(50);

pub(crate) fn run(work: &Work, args: &EventsArgs) -> Result<u8, Failure> {
    let config = work.config()?;
    let caller = config.caller()?;
    if args.follow {
        signals::end()?;
    }
    let ledger = work.ledger_to_read(&config)?;
    let session = match &args.session {
        Some(given) => {
            let found = ledger.read(|snapshot| lookup(snapshot, &caller, given))??;
            Some(found.session_id)
        }
        None => None,
    };
    let mut watcher = Watcher {
        caller,
        session,
        own: HashMap::new(),
        cursor: args.after.unwrap_or(0),
    };
    loop {
        let page = ledger.read(|snapshot| watcher.page(snapshot, work.redactor()))?;
        if page.is_behind {
            let cursor = watcher.cursor;
            let text =
                format!("the ledger has no event {cursor}; the cursor may be another ledger's");
            work.output.warning(&text);
        }
        watcher.cursor = page.cursor;
        if !page.lines.iter().all(|line| shown(work, line)) {
            return Ok(0);
        }
        if page.more || page.is_behind {
            continue;
        }
        if !args.follow || !output::wait_while_read(PAUSE) {
            return Ok(0);
        }
    }
}

/// Shows a line. Whether somebody still reads it.
fn shown(work: &Work, line: &Line) -> bool {
    match line {
        Line::Event(event) => work.output.line(event, || event.told()),
        Line::Gap(gap) => work.output.line(gap, || gap.told()),
    }
}

/// Whose events are looked for, and after which one.
#[derive(Debug)]
struct Watcher {
    caller: Caller,
    session: Option<SessionId>,
    /// Which sessions are the caller's: owners never change.
    own: HashMap<SessionId, bool>,
    cursor: u64,
}

/// What was found after the cursor.
#[derive(Debug)]
struct Page {
    lines: Vec<Line>,
    cursor: u64,
    more: bool,
    /// Whether the ledger has not come to the event that the cursor says somebody has seen, as after it was replaced:
    /// the next page begins anew.
    is_behind: bool,
}

/// One line of the stream.
#[derive(Debug)]
enum Line {
    Event(EventDocument),
    Gap(GapDocument),
}

impl Watcher {
    fn page(&mut self, snapshot: &Snapshot<'_>, redactor: &Redactor) -> Result<Page, LedgerError> {
        // From the event at the cursor on, or of what comes after where that was trimmed: the last one never is.
        let cursor = self.cursor;
        let events = snapshot.events_after(cursor.saturating_sub(1), PAGE + 1)?;
        let is_behind = cursor > 0 && events.is_empty();
        let mut page = Page {
            lines: Vec::new(),
            cursor: if is_behind { 0 } else { cursor },
            more: events.len() > PAGE,
            is_behind,
        };
        for event in events.iter().filter(|event| event.seq > cursor) {
            if let Some((from, to)) = trimmed(page.cursor, event.seq) {
                page.lines.push(Line::Gap(GapDocument::new(from, to)));
            }
            page.cursor = event.seq;
            if self.is_wanted(snapshot, event)? {
                let document = EventDocument::new(event, redactor);
                page.lines.push(Line::Event(document));
            }
        }
        Ok(page)
    }

    /// Whether it is of the session that was asked for, and may be seen: what belongs to no session is for admins.
    fn is_wanted(&mut self, snapshot: &Snapshot<'_>, event: &Event) -> Result<bool, LedgerError> {
        if self.session.is_some() {
            return Ok(event.session_id == self.session);
        }
        if self.caller.admin {
            return Ok(true);
        }
        let Some(id) = &event.session_id else {
            return Ok(false);
        };
        if let Some(own) = self.own.get(id) {
            return Ok(*own);
        }
        let Some(session) = snapshot.session(id)? else {
            return Ok(false);
        };
        let own = session.new.owner == self.caller.principal;
        self.own.insert(id.clone(), own);
        Ok(own)
    }
}

/// The numbers between the cursor and the next event: the ledger leaves none out, so that what is missing was trimmed.
fn trimmed(cursor: u64, next: u64) -> Option<(u64, u64)> {
    let from = cursor.checked_add(1)?;
    (next > from).then(|| (from, next - 1))
}

#[cfg(test)]
mod tests {
    use super::trimmed;

    #[test]
    fn what_is_missing_was_trimmed() {
        assert_eq!(trimmed(0, 1), None);
        assert_eq!(trimmed(7, 8), None);
        assert_eq!(trimmed(0, 5), Some((1, 4)));
        assert_eq!(trimmed(7, 9), Some((8, 8)));
        assert_eq!(trimmed(u64::MAX, u64::MAX), None);
    }
}
