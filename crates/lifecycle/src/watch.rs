//! What runs both ways while an operation goes on: news to the caller, the wish to stop from it.

use crate::{Signal, Step};
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// News of an operation, for whoever shows progress.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The session is known now.
    Admitted {
        /// Its id.
        session_id: String,
        /// The operation's.
        operation_id: String,
    },
    /// Another process has the session; this one waits for it.
    Waiting {
        /// The operation that is waited for.
        operation_id: String,
    },
    /// Others keep the ledger busy; it is tried again.
    Busy {
        /// Who, and for how long.
        cause: String,
    },
    /// A step has begun.
    Started(Step),
    /// A step has moved on.
    Moved {
        /// Which.
        step: Step,
        /// What is done.
        what: String,
        /// How much of it is done.
        done: u64,
        /// How much there is.
        total: Option<u64>,
    },
    /// A try of a step failed and there will be another.
    Retrying {
        /// Which.
        step: Step,
        /// The failure.
        cause: String,
    },
    /// A step has ended.
    Finished {
        /// Which.
        step: Step,
        /// How long it took.
        took: Duration,
        /// How it ended.
        ending: Ending,
    },
    /// Something the user should know.
    Warning(String),
}

/// How a step ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It went well.
    Done,
    /// It can't be done.
    Failed,
    /// It was cut short, and may be carried on.
    Interrupted,
    /// A time limit cut it short, and it may be carried on.
    TimedOut,
}

/// Where news goes; nobody has to listen.
#[derive(Clone, Debug, Default)]
pub struct Watch(Option<mpsc::UnboundedSender<Progress>>);

impl Watch {
    /// News goes to the other end of `sender`.
    #[must_use]
    pub fn new(sender: mpsc::UnboundedSender<Progress>) -> Self {
        Self(Some(sender))
    }

    /// Tells.
    pub fn tell(&self, news: Progress) {
        if let Some(sender) = &self.0 {
            // A listener that has gone wants no news.
            let _ = sender.send(news);
        }
    }
}

/// The caller's wish to stop: the signal that it got.
#[derive(Clone, Debug)]
pub struct Interrupt(watch::Receiver<Option<Signal>>);

impl Interrupt {
    /// Wishes come from the other end of `receiver`.
    #[must_use]
    pub fn new(receiver: watch::Receiver<Option<Signal>>) -> Self {
        Self(receiver)
    }

    /// Nobody ever wishes to stop.
    #[must_use]
    pub fn never() -> Self {
        Self(watch::channel(None).1)
    }

    /// The wish, if there is one by now.
    #[must_use]
    pub fn is_raised(&self) -> Option<Signal> {
        *self.0.borrow()
    }

    /// Waits for the wish.
    pub async fn raised(&mut self) -> Signal {
        loop {
            if let Some(signal) = *self.0.borrow_and_update() {
                return signal;
            }
            if self.0.changed().await.is_err() {
                // The sender has gone without a wish: there will be none.
                std::future::pending::<()>().await;
            }
        }
    }
}
