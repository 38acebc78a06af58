//! The child's end of a wire: greets, opens, hands frames on, and ends with its host.

use crate::abi::Sent;
use crate::frame::{Frame, Kind, Takes};
use crate::message::{Hello, error_code, write_error};
use crate::wire::{Filled, Reader, Wire};
use alpine_provider_api::{ErrorKind, ProviderError};
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

/// Where a child finds its socket.
pub(crate) const SOCKET_FD: i32 = 3;

/// How long a provider gets to end when its host has gone.
pub(crate) const LAST_WORDS: Duration = Duration::from_millis(500);

/// What is at the child's end: a provider, or a library that holds one.
pub(crate) trait Serving {
    /// Makes the instance.
    fn open(&mut self, host: &Hello, json: &[u8]) -> Result<(), ProviderError>;
    /// Takes a frame for it.
    fn take(&self, frame: &Frame<'_>) -> Sent;
    /// Whether it has ended by itself.
    fn is_over(&self) -> bool;
    /// Ends it.
    fn close(&self, limit: Duration);
}

/// A file descriptor that this process was started with; none where it is not open.
#[expect(unsafe_code, reason = "it is known by its number only")]
pub(crate) fn inherited(number: i32) -> Option<OwnedFd> {
    // SAFETY: the process that started this one put it there for this use, and nothing else here knows the number; where it
    // is not open, it is given up again before anything could be opened there.
    let fd = unsafe { OwnedFd::from_raw_fd(number) };
    match rustix::io::fcntl_setfd(&fd, rustix::io::FdFlags::CLOEXEC) {
        Ok(()) => Some(fd),
        Err(_) => {
            std::mem::forget(fd);
            None
        }
    }
}

impl Takes for Wire {
    fn take(&self, frame: &Frame<'_>) -> Sent {
        self.send(frame)
    }
}

/// Tells the host why there is nothing to call.
pub(crate) fn refuse(wire: &Wire, error: &ProviderError) {
    wire.send(&Frame {
        call_id: 0,
        kind: Kind::Err,
        code: error_code(error.kind),
        payload: &write_error(error),
    });
}

/// Serves until the host has gone, or an error says why that is not possible.
pub(crate) fn serve(
    wire: &Arc<Wire>,
    hello: &Hello,
    serving: &mut dyn Serving,
) -> Result<(), ProviderError> {
    let json = serde_json::to_vec(hello).unwrap_or_default();
    wire.send(&Frame {
        call_id: 0,
        kind: Kind::Hello,
        code: 0,
        payload: &json,
    });
    let mut host = None;
    let mut reader = Reader::default();
    while !serving.is_over() {
        match reader.fill(wire.as_fd()) {
            Filled::More => {}
            Filled::End => break,
            Filled::Nothing => {
                wire.wait(&[], None)
                    .map_err(|error| ProviderError::io("its socket", &error))?;
                continue;
            }
        }
        while let Some(frame) = reader.next().map_err(|error| broken(&error))? {
            match frame.kind {
                Kind::Hello => host = Some(greeted(frame.payload)?),
                Kind::Open => {
                    let host = host.as_ref().ok_or_else(|| broken(&"OPEN before HELLO"))?;
                    serving.open(host, frame.payload)?;
                    wire.send(&Frame {
                        call_id: 0,
                        kind: Kind::Ready,
                        code: 0,
                        payload: &[],
                    });
                }
                Kind::Ping => {
                    wire.send(&Frame {
                        kind: Kind::Pong,
                        ..frame
                    });
                }
                Kind::Call => {
                    if let Some(error) = not_taken(serving.take(&frame)) {
                        answer(wire, frame.call_id, &error);
                    }
                }
                Kind::Cancel
                | Kind::Grant
                | Kind::Input
                | Kind::Pong
                | Kind::Ok
                | Kind::Err
                | Kind::Event
                | Kind::Log
                | Kind::Ready => {
                    // A call that was answered meanwhile takes no more.
                    serving.take(&frame);
                }
            }
        }
    }
    // A provider that hangs in its end does not outlive its host by more than this.
    std::thread::spawn(|| {
        std::thread::sleep(LAST_WORDS * 2);
        std::process::exit(0);
    });
    serving.close(LAST_WORDS);
    Ok(())
}

fn answer(wire: &Wire, call_id: u64, error: &ProviderError) {
    wire.send(&Frame {
        call_id,
        kind: Kind::Err,
        code: error_code(error.kind),
        payload: &write_error(error),
    });
}

fn greeted(payload: &[u8]) -> Result<Hello, ProviderError> {
    let hello: Hello = serde_json::from_slice(payload).map_err(|error| broken(&error))?;
    hello.check()?;
    Ok(hello)
}

fn broken(error: &dyn std::fmt::Display) -> ProviderError {
    let message = format!("what the host sent breaks the protocol: {error}");
    ProviderError::new(ErrorKind::Unsupported, message)
}

/// Why a call was not taken, where it was not.
pub(crate) fn not_taken(sent: Sent) -> Option<ProviderError> {
    let (kind, message) = match sent {
        Sent::Ok => return None,
        Sent::WouldBlock => (ErrorKind::Io, "the provider takes no more calls for now"),
        Sent::Gone | Sent::Closed => (ErrorKind::Crashed, "the provider is closed"),
        Sent::Unsupported => (
            ErrorKind::Unsupported,
            "the provider does not have this method",
        ),
        Sent::Panic => (
            ErrorKind::Internal,
            "the provider panicked as it took the call",
        ),
        Sent::TooBig => (ErrorKind::TooLarge, "the request is too large"),
        Sent::Bad => (
            ErrorKind::InvalidArgument,
            "the provider could not read the call",
        ),
    };
    let passes = matches!(sent, Sent::WouldBlock | Sent::Gone | Sent::Closed);
    Some(if passes {
        ProviderError::transient(kind, message)
    } else {
        ProviderError::new(kind, message)
    })
}
