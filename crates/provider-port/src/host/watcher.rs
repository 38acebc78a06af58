//! A provider's process, as its session holds it.

use super::config::PortConfig;
use super::process::watch;
use super::session::Session;
use crate::abi::Sent;
use crate::frame::{Frame, Kind, Takes};
use crate::wire::Wire;
use alpine_provider_api::ProviderError;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

/// Ends the process when it is dropped, and waits until it is gone.
#[derive(Debug)]
pub(super) struct Watcher {
    link: Arc<Link>,
    thread: Option<JoinHandle<()>>,
}

/// What the session and the thread that watches share.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) wire: Wire,
    /// Whether the process is to end.
    pub(super) closing: AtomicBool,
    /// Whether the thread waits without a limit, so that a call that begins has to wake it. Calls that follow each other find
    /// it waiting for its next look, and cost no such turn.
    pub(super) idle: AtomicBool,
}

impl Watcher {
    /// Starts the process, and the thread that watches it.
    pub(super) fn start(
        config: &Arc<PortConfig>,
        session: Arc<Session>,
    ) -> Result<Self, ProviderError> {
        let pair = socketpair(
            AddressFamily::UNIX,
            SocketType::STREAM,
            SocketFlags::CLOEXEC,
            None,
        );
        let (ours, theirs) =
            pair.map_err(|error| ProviderError::io("a socket can't be made", &error.into()))?;
        let wire = Wire::new(ours)
            .map_err(|error| ProviderError::io("a socket can't be watched", &error))?;
        let link = Arc::new(Link {
            wire,
            closing: AtomicBool::new(false),
            idle: AtomicBool::new(false),
        });
        session.connect(Arc::clone(&link) as Arc<dyn Takes>);
        let thread = std::thread::Builder::new().name("provider-watch".to_owned());
        let thread = thread.spawn({
            let (config, link) = (Arc::clone(config), Arc::clone(&link));
            move || watch(&config, &session, &link, theirs)
        });
        let thread =
            thread.map_err(|error| ProviderError::io("a thread can't be started", &error))?;
        Ok(Self {
            link,
            thread: Some(thread),
        })
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.link.closing.store(true, Ordering::Release);
        self.link.wire.wake();
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has ended, too.
            let _ = thread.join();
        }
    }
}

/// Sends to the process, and has the thread look at its deadlines anew where they may have changed.
impl Takes for Link {
    fn take(&self, frame: &Frame<'_>) -> Sent {
        let sent = self.wire.send(frame);
        let begins = frame.kind == Kind::Call;
        if frame.kind == Kind::Cancel || begins && self.idle.swap(false, Ordering::AcqRel) {
            self.wire.wake();
        }
        sent
    }
}
