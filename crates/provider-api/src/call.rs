//! What goes with every call: who asks, under which fence, until when, and where its events go.

use crate::ProviderError;
use serde::{Deserialize, Serialize};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;

/// The plain part of a call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meta {
    /// The operation that asks.
    pub operation_id: String,
    /// The fence of its lease. A provider keeps the highest it has seen of a sandbox and refuses lower ones.
    pub fence: u64,
    /// Which try of this step it is, from 1.
    pub attempt: u32,
    /// How long the caller will wait from now, in milliseconds; 0 for no limit.
    pub deadline_ms: u64,
    /// W3C trace context, if there is one.
    #[serde(default)]
    pub traceparent: Option<String>,
}

/// A call: its plain part, and the channel of what it says while it runs.
#[derive(Clone, Debug)]
pub struct Call {
    /// Who asks, under which fence, until when.
    pub meta: Meta,
    events: Option<mpsc::Sender<CallEvent>>,
}

/// What a call says before it answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CallEvent {
    /// Work has moved on; each of these starts the time limit for work without progress anew.
    Progress {
        /// What is being done.
        what: String,
        /// How much is done: bytes or items.
        done: u64,
        /// How much there is, where that is known.
        total: Option<u64>,
    },
    /// Output of a command, or of a log.
    Stdout(Vec<u8>),
    /// Error output of a command.
    Stderr(Vec<u8>),
    /// Something the user should know though the call goes on.
    Warning(String),
}

/// What a running `exec` is sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExecInput {
    /// Standard input.
    Data(Vec<u8>),
    /// The end of standard input.
    Eof,
    /// The number of a signal to deliver.
    Signal(i32),
}

impl Call {
    /// A call whose events are received by the other end of `events`.
    #[must_use]
    pub fn new(meta: Meta, events: mpsc::Sender<CallEvent>) -> Self {
        Self {
            meta,
            events: Some(events),
        }
    }

    /// A call whose events nobody wants.
    #[must_use]
    pub fn quiet(meta: Meta) -> Self {
        Self { meta, events: None }
    }

    /// How long the caller will wait.
    #[must_use]
    pub fn deadline(&self) -> Option<Duration> {
        (self.meta.deadline_ms > 0).then(|| Duration::from_millis(self.meta.deadline_ms))
    }

    /// Sends output, waiting while the receiver is slow.
    ///
    /// # Errors
    /// `Cancelled` when the receiver is gone.
    pub async fn send(&self, event: CallEvent) -> Result<(), ProviderError> {
        match &self.events {
            None => Ok(()),
            Some(events) => events
                .send(event)
                .await
                .map_err(|_| ProviderError::cancelled("the caller has gone")),
        }
    }

    /// Reports progress, unless the receiver is busy: half of the room for what it has not read yet is left to warnings.
    pub fn progress(&self, what: &str, done: u64, total: Option<u64>) {
        if let Some(events) = &self.events
            && events.capacity() > events.max_capacity() / 2
        {
            // The next piece tells more than this one.
            let _ = events.try_send(CallEvent::Progress {
                what: what.to_owned(),
                done,
                total,
            });
        }
    }

    /// Does the work, and reports how far work on another thread is until it is done.
    pub async fn watched<T>(
        &self,
        what: &str,
        done: &AtomicU64,
        work: impl Future<Output = T>,
    ) -> T {
        let mut work = std::pin::pin!(work);
        let mut ticks = tokio::time::interval(Duration::from_millis(200));
        let mut before = 0;
        loop {
            tokio::select! {
                result = &mut work => return result,
                _ = ticks.tick() => {
                    let now = done.load(Ordering::Relaxed);
                    if now != before {
                        before = now;
                        self.progress(what, now, None);
                    }
                }
            }
        }
    }

    /// Says something the user should know.
    pub fn warn(&self, text: impl Into<String>) {
        if let Some(events) = &self.events {
            // Progress never fills the channel: only where all of it is unread warnings or output is this one lost.
            let _ = events.try_send(CallEvent::Warning(text.into()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Call, CallEvent, Meta};
    use tokio::sync::mpsc;

    #[test]
    fn no_progress_is_in_the_way_of_a_warning() {
        let (sender, mut events) = mpsc::channel(64);
        let meta = Meta {
            operation_id: "op".to_owned(),
            fence: 1,
            attempt: 1,
            deadline_ms: 0,
            traceparent: None,
        };
        let call = Call::new(meta, sender);
        for done in 0..1000 {
            call.progress("much", done, None);
        }
        for number in 0..20 {
            call.warn(format!("warning {number}"));
        }
        drop(call);
        let mut warnings = 0;
        while let Ok(event) = events.try_recv() {
            warnings += u32::from(matches!(event, CallEvent::Warning(_)));
        }
        assert_eq!(warnings, 20);
    }
}
