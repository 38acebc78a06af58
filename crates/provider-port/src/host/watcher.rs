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
    wire: Arc<Wire>,
    closing: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
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
        let wire = Arc::new(wire);
        session.connect(Arc::new(Link(Arc::clone(&wire))));
        let closing = Arc::new(AtomicBool::new(false));
        let thread = std::thread::Builder::new().name("provider-watch".to_owned());
        let thread = thread.spawn({
            let (config, wire, closing) =
                (Arc::clone(config), Arc::clone(&wire), Arc::clone(&closing));
            move || watch(&config, &session, wire, &closing, theirs)
        });
        let thread =
            thread.map_err(|error| ProviderError::io("a thread can't be started", &error))?;
        Ok(Self {
            wire,
            closing,
            thread: Some(thread),
        })
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.closing.store(true, Ordering::Release);
        self.wire.wake();
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has ended, too.
            let _ = thread.join();
        }
    }
}

/// Sends to the process, and has the thread look at its deadlines anew.
struct Link(Arc<Wire>);

impl Takes for Link {
    fn take(&self, frame: &Frame<'_>) -> Sent {
        let sent = self.0.send(frame);
        if frame.kind == Kind::Cancel {
            self.0.wake();
        }
        sent
    }
}
