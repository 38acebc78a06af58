//! The child process that a library is loaded in.

use super::library::{Hosts, Loaded, Opened, load};
use crate::abi::Sent;
use crate::child::{self, LAST_WORDS, SOCKET_FD, Serving};
use crate::frame::{CREDIT, Frame, Kind, Takes, charge, is_stream};
use crate::message::Hello;
use crate::wire::{Wire, locked};
use alpine_provider_api::{ErrorKind, ProviderError};
use rustix::process::{Signal, getpid, kill_process};
use std::collections::HashMap;
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

/// What this process is called when it is to be a provider's.
pub(super) const ARGV0: &str = "alpine-provider";
/// Where it finds the library.
pub(super) const LIBRARY_FD: i32 = 4;

/// Whether this process was started to run a provider, and if so, how that ended. A `main` calls it before anything else
/// is started.
#[must_use]
pub fn hosted() -> Option<ExitCode> {
    let mut args = std::env::args_os();
    if args.next().is_none_or(|name| name != ARGV0) {
        return None;
    }
    let level = args.next().and_then(|level| level.to_str()?.parse().ok());
    let wire = child::inherited(SOCKET_FD).and_then(|socket| Wire::new(socket).ok());
    let Some(wire) = wire.map(Arc::new) else {
        return Some(ExitCode::FAILURE);
    };
    Some(match run(&wire, level.unwrap_or(0)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            child::refuse(&wire, &error);
            ExitCode::FAILURE
        }
    })
}

fn run(wire: &Arc<Wire>, level: u32) -> Result<(), ProviderError> {
    end_with_host(wire)?;
    let missing = || ProviderError::new(ErrorKind::Internal, "its library was not handed over");
    let library = child::inherited(LIBRARY_FD).ok_or_else(missing)?;
    let loaded = load(library.as_fd(), true, level)?;
    let hello = Hello::new(&loaded.name, &loaded.version);
    let gate = Arc::new(Gate {
        wire: Arc::clone(wire),
        credit: Mutex::default(),
        over: AtomicBool::new(false),
    });
    let mut hosting = Hosting {
        loaded,
        gate,
        opened: OnceLock::new(),
    };
    child::serve(wire, &hello, &mut hosting)
}

/// Ends this process soon after its host, also where the library hangs while it is loaded, or in a call.
fn end_with_host(wire: &Arc<Wire>) -> Result<(), ProviderError> {
    let wire = Arc::clone(wire);
    let thread = std::thread::Builder::new().name("provider-host".to_owned());
    let spawned = thread.spawn(move || {
        wire.until_peer_has_gone();
        std::thread::sleep(LAST_WORDS * 2);
        // This runs nothing more of the library's.
        let _ = kill_process(getpid(), Signal::KILL);
    });
    spawned
        .map(drop)
        .map_err(|error| ProviderError::io("a thread can't be started", &error))
}

struct Hosting {
    loaded: Loaded,
    gate: Arc<Gate>,
    opened: OnceLock<Opened>,
}

impl Serving for Hosting {
    fn open(&mut self, _: &Hello, json: &[u8]) -> Result<(), ProviderError> {
        let gate = Arc::clone(&self.gate) as Arc<dyn Hosts>;
        let opened = self.loaded.open(json, gate)?;
        self.opened
            .set(opened)
            .map_err(|_| ProviderError::new(ErrorKind::InvalidArgument, "OPEN came twice"))
    }

    fn take(&self, frame: &Frame<'_>) -> Sent {
        self.gate.before(frame);
        let opened = self.opened.get();
        let sent = opened.map_or(Sent::Closed, |opened| opened.take(frame));
        if frame.kind == Kind::Call && sent != Sent::Ok {
            locked(&self.gate.credit).remove(&frame.call_id);
        }
        sent
    }

    fn is_over(&self) -> bool {
        self.gate.over.load(Ordering::Acquire)
    }

    fn close(&self, _: Duration) {
        if let Some(opened) = self.opened.get() {
            opened.close();
        }
    }
}

/// Lets out what the boundary allows, and tells the library at once of what it does not.
struct Gate {
    wire: Arc<Wire>,
    /// The calls that are not answered, and what each may still send.
    credit: Mutex<HashMap<u64, u32>>,
    /// Whether the library has ended by itself.
    over: AtomicBool,
}

impl Gate {
    fn before(&self, frame: &Frame<'_>) {
        let mut credit = locked(&self.credit);
        if frame.kind == Kind::Call {
            credit.insert(frame.call_id, CREDIT);
        } else if frame.kind == Kind::Grant
            && let Some(credit) = credit.get_mut(&frame.call_id)
        {
            *credit = credit.saturating_add(frame.code);
        }
    }
}

impl Takes for Gate {
    fn take(&self, frame: &Frame<'_>) -> Sent {
        let mut calls = locked(&self.credit);
        match frame.kind {
            Kind::Ok | Kind::Err | Kind::Event | Kind::Grant => {
                let Some(credit) = calls.get_mut(&frame.call_id) else {
                    return Sent::Gone;
                };
                if frame.kind == Kind::Event && is_stream(frame.code) {
                    match credit.checked_sub(charge(frame.payload.len())) {
                        Some(left) => *credit = left,
                        None => return Sent::WouldBlock,
                    }
                }
            }
            Kind::Ping | Kind::Pong | Kind::Log => {}
            Kind::Call | Kind::Cancel | Kind::Input | Kind::Hello | Kind::Open | Kind::Ready => {
                return Sent::Unsupported;
            }
        }
        // Under the lock, so that what follows an answer does not overtake it.
        let sent = self.wire.send(frame);
        // A call is over when its answer is on its way, and not before.
        if sent == Sent::Ok && matches!(frame.kind, Kind::Ok | Kind::Err) {
            calls.remove(&frame.call_id);
        }
        sent
    }
}

impl Hosts for Gate {
    /// The host is told at once, and this process ends as soon as the library lets it.
    fn over(&self, why: ProviderError) {
        child::refuse(&self.wire, &why);
        self.over.store(true, Ordering::Release);
        self.wire.wake();
    }
}
