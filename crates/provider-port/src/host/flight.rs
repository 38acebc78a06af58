//! A call in flight: what has come of it, and what may still be sent.

use crate::abi::Sent;
use crate::frame::{
    CREDIT, EVENT_PROGRESS, EVENT_STDERR, EVENT_STDOUT, EVENT_WARNING, Frame, charge,
};
use crate::message::{ProgressPayload, shorten};
use crate::wire::locked;
use alpine_provider_api::{CallEvent, ProviderError};
use std::collections::VecDeque;
use std::sync::Mutex;
use std::time::Instant;
use tokio::sync::Notify;

/// How many warnings wait for a caller that is busy.
const WARNINGS: usize = 64;

/// How long a warning may be, and what a progress says: they are shown and recorded.
const TEXT: usize = 4096;

/// A call in flight.
#[derive(Debug)]
pub(super) struct Flight {
    pub(super) id: u64,
    inbox: Mutex<Inbox>,
    /// Told when there is an event or the answer.
    pub(super) news: Notify,
    /// Told when more input may be sent.
    pub(super) granted: Notify,
}

#[derive(Debug)]
struct Inbox {
    events: VecDeque<CallEvent>,
    warnings: usize,
    answer: Option<Result<Vec<u8>, ProviderError>>,
    /// What the provider may still send.
    credit: u32,
    /// What we may still send.
    allowance: u64,
    cancelled: Option<Instant>,
}

/// What a caller finds.
#[derive(Debug)]
pub(super) enum News {
    /// Something was said.
    Event(CallEvent),
    /// The end.
    Answer(Result<Vec<u8>, ProviderError>),
}

impl Flight {
    pub(super) fn new(id: u64) -> Self {
        Self {
            id,
            inbox: Mutex::new(Inbox {
                events: VecDeque::new(),
                warnings: 0,
                answer: None,
                credit: CREDIT,
                allowance: CREDIT.into(),
                cancelled: None,
            }),
            news: Notify::new(),
            granted: Notify::new(),
        }
    }

    /// The next event, or the answer when there is none left.
    pub(super) fn next(&self) -> Option<News> {
        let mut inbox = locked(&self.inbox);
        match inbox.events.pop_front() {
            Some(event) => {
                inbox.warnings -= usize::from(matches!(event, CallEvent::Warning(_)));
                Some(News::Event(event))
            }
            None => inbox.answer.take().map(News::Answer),
        }
    }

    /// Whether there is something to find.
    pub(super) fn has_news(&self) -> bool {
        let inbox = locked(&self.inbox);
        inbox.answer.is_some() || !inbox.events.is_empty()
    }

    /// Takes the provider's EVENT: a stream's within its credit; of the rest, what a busy caller still wants to know.
    pub(super) fn event(&self, frame: &Frame<'_>) -> Sent {
        let mut inbox = locked(&self.inbox);
        match frame.code {
            EVENT_STDOUT | EVENT_STDERR => {
                let cost = charge(frame.payload.len());
                let Some(left) = inbox.credit.checked_sub(cost) else {
                    return Sent::WouldBlock;
                };
                inbox.credit = left;
                if inbox.cancelled.is_none() {
                    let bytes = frame.payload.to_vec();
                    inbox.events.push_back(if frame.code == EVENT_STDOUT {
                        CallEvent::Stdout(bytes)
                    } else {
                        CallEvent::Stderr(bytes)
                    });
                }
            }
            EVENT_PROGRESS => {
                let Ok(mut progress) = serde_json::from_slice::<ProgressPayload>(frame.payload)
                else {
                    return Sent::Bad;
                };
                shorten(&mut progress.what, TEXT);
                // The next tells more than one that still waits, wherever that is.
                let is_progress = |event: &CallEvent| matches!(event, CallEvent::Progress { .. });
                if let Some(earlier) = inbox.events.iter().rposition(is_progress) {
                    inbox.events.remove(earlier);
                }
                inbox.events.push_back(CallEvent::Progress {
                    what: progress.what,
                    done: progress.done,
                    total: progress.total,
                });
            }
            EVENT_WARNING if inbox.warnings < WARNINGS => {
                inbox.warnings += 1;
                let mut text = String::from_utf8_lossy(frame.payload).into_owned();
                shorten(&mut text, TEXT);
                inbox.events.push_back(CallEvent::Warning(text));
            }
            // One warning too many, or what a later version says.
            _ => return Sent::Ok,
        }
        drop(inbox);
        self.news.notify_one();
        Sent::Ok
    }

    pub(super) fn answer(&self, answer: Result<Vec<u8>, ProviderError>) {
        locked(&self.inbox).answer.get_or_insert(answer);
        self.news.notify_one();
    }

    /// The provider may send so much more.
    pub(super) fn grant(&self, more: u32) {
        let mut inbox = locked(&self.inbox);
        inbox.credit = inbox.credit.saturating_add(more);
    }

    /// We may send so much more.
    pub(super) fn allow(&self, more: u32) {
        locked(&self.inbox).allowance += u64::from(more);
        self.granted.notify_one();
    }

    /// Takes this from what we may send, where it is there.
    pub(super) fn spend(&self, cost: u32) -> bool {
        let mut inbox = locked(&self.inbox);
        let left = inbox.allowance.checked_sub(cost.into());
        inbox.allowance = left.unwrap_or(inbox.allowance);
        left.is_some()
    }

    /// The caller gave up: nothing of it is kept any more.
    pub(super) fn cancel(&self) {
        let mut inbox = locked(&self.inbox);
        inbox.cancelled = Some(Instant::now());
        inbox.events.clear();
    }

    pub(super) fn cancelled(&self) -> Option<Instant> {
        locked(&self.inbox).cancelled
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{Kind, MAX_CONTROL};
    use serde_json::json;

    #[test]
    fn what_waits_for_a_caller_that_does_not_read_is_bounded() {
        let flight = Flight::new(1);
        let event = |code, payload: &[u8]| {
            flight.event(&Frame {
                call_id: 1,
                kind: Kind::Event,
                code,
                payload,
            })
        };
        let (what, warning) = ("x".repeat(TEXT + 1000), vec![b'w'; MAX_CONTROL / 8]);
        let mut last = 0;
        while event(EVENT_STDOUT, b"a little") == Sent::Ok {
            last += 1;
            let progress = json!({ "what": what, "done": last }).to_string();
            assert_eq!(event(EVENT_PROGRESS, progress.as_bytes()), Sent::Ok);
            assert_eq!(event(EVENT_WARNING, &warning), Sent::Ok);
        }
        let (mut bytes, mut progress) = (0, Vec::new());
        for event in &locked(&flight.inbox).events {
            bytes += match event {
                CallEvent::Stdout(data) | CallEvent::Stderr(data) => data.capacity(),
                CallEvent::Warning(text) => text.capacity(),
                CallEvent::Progress { what, done, .. } => {
                    progress.push(*done);
                    what.capacity()
                }
            };
        }
        assert!(bytes < 1024 * 1024, "{bytes} bytes");
        assert_eq!(progress, [last], "only the latest is worth telling");
    }
}
