//! The lines of `events`.

use super::VERSION;
use crate::clean;
use crate::time;
use alpine_ledger::Event;
use alpine_provider_api::Redactor;
use serde::Serialize;
use std::time::Duration;

/// One event.
#[derive(Debug, Serialize)]
pub(crate) struct EventDocument {
    schema_version: &'static str,
    seq: u64,
    at: String,
    kind: String,
    session_id: Option<String>,
    operation_id: Option<String>,
    state: Option<&'static str>,
    actor: Option<String>,
    reason: Option<String>,
    duration_ms: Option<u64>,
}

/// Events that are no longer kept.
#[derive(Debug, Serialize)]
pub(crate) struct GapDocument {
    schema_version: &'static str,
    gap: Gap,
}

/// From which number to which.
#[derive(Debug, Serialize)]
struct Gap {
    from: u64,
    to: u64,
}

impl EventDocument {
    pub(crate) fn new(event: &Event, redactor: &Redactor) -> Self {
        Self {
            schema_version: VERSION,
            seq: event.seq,
            at: event.at.to_string(),
            kind: event.kind.clone(),
            session_id: event.session_id.as_ref().map(ToString::to_string),
            operation_id: event.operation_id.as_ref().map(ToString::to_string),
            state: event.state.map(|state| state.as_str()),
            actor: event.actor.clone(),
            reason: event.reason.as_ref().map(|text| redactor.redact(text)),
            duration_ms: event.duration_ms,
        }
    }

    /// The same for people: one line, whatever is in it.
    pub(crate) fn told(&self) -> String {
        let mut line = format!("{:<6}  {}  {:<20}", self.seq, self.at, self.kind);
        let parts = [
            self.session_id.clone(),
            self.state.map(str::to_owned),
            self.reason.clone(),
            self.duration_ms
                .map(|ms| format!("({})", time::span(Duration::from_millis(ms)))),
            self.actor.as_ref().map(|actor| format!("by {actor}")),
        ];
        for part in parts.into_iter().flatten() {
            line.push_str("  ");
            line.push_str(&part);
        }
        clean::line(&line.replace('\n', " ")).trim_end().to_owned()
    }
}

impl GapDocument {
    pub(crate) fn new(from: u64, to: u64) -> Self {
        Self {
            schema_version: VERSION,
            gap: Gap { from, to },
        }
    }

    /// The same for people.
    pub(crate) fn told(&self) -> String {
        format!(
            "events {} to {} are no longer kept",
            self.gap.from, self.gap.to
        )
    }
}
