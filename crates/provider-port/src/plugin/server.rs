//! One opened instance of a provider: takes the host's frames, runs each call in a task of its own, answers each once.

use super::lanes::Lanes;
use super::logs;
use super::task::{self, Running};
use crate::abi::Sent;
use crate::frame::{Frame, INPUT_DATA, INPUT_EOF, INPUT_RESIZE, INPUT_SIGNAL, Kind, Takes};
use crate::message::{OnlyMeta, SignalPayload, error_code, write_error};
use crate::wire::locked;
use alpine_provider_api::{ErrorKind, ExecInput, Method, ProviderError, SandboxProvider};
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

/// One opened instance.
pub(super) struct Server {
    provider: Arc<dyn SandboxProvider>,
    host: Arc<dyn Takes>,
    calls: Mutex<Calls>,
    /// Told when the last call was answered.
    idle: Condvar,
    lanes: Mutex<Option<Lanes>>,
}

#[derive(Default)]
struct Calls {
    open: HashMap<u64, Arc<Running>>,
    closed: bool,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Server({:?})", self.provider)
    }
}

impl Server {
    /// Opens a provider: `make` runs with the runtime of its own that its calls will have.
    pub(super) fn open(
        host: Arc<dyn Takes>,
        log_level: u32,
        make: impl FnOnce() -> Result<Arc<dyn SandboxProvider>, ProviderError>,
    ) -> Result<Arc<Self>, ProviderError> {
        super::panics::watch();
        logs::forward(&host, log_level);
        let lanes = Lanes::new()?;
        let provider = lanes.enter(|| super::panics::caught(make));
        match provider {
            Ok(provider) => Ok(Arc::new(Self {
                provider,
                host,
                calls: Mutex::default(),
                idle: Condvar::new(),
                lanes: Mutex::new(Some(lanes)),
            })),
            Err(error) => {
                lanes.end(Duration::ZERO);
                Err(error)
            }
        }
    }

    /// Takes a frame of the host.
    pub(super) fn accept(self: &Arc<Self>, frame: &Frame<'_>) -> Sent {
        match frame.kind {
            Kind::Call => self.call(frame),
            Kind::Cancel => self.with(frame.call_id, Running::cancel),
            Kind::Grant => self.with(frame.call_id, |running| running.grant(frame.code)),
            Kind::Input => self.input(frame),
            Kind::Ping => self.host.take(&Frame {
                kind: Kind::Pong,
                ..*frame
            }),
            Kind::Pong | Kind::Hello | Kind::Open => Sent::Ok,
            Kind::Ok | Kind::Err | Kind::Event | Kind::Log | Kind::Ready => Sent::Unsupported,
        }
    }

    fn call(self: &Arc<Self>, frame: &Frame<'_>) -> Sent {
        let Some(method) = Method::of(frame.code) else {
            return Sent::Unsupported;
        };
        let Ok(OnlyMeta { meta }) = serde_json::from_slice(frame.payload) else {
            return Sent::Bad;
        };
        let mut lanes = locked(&self.lanes);
        let Some(lanes) = lanes.as_mut() else {
            return Sent::Closed;
        };
        let (running, inbox) = Running::new(frame.call_id, Arc::clone(&self.host));
        {
            let mut calls = locked(&self.calls);
            if calls.closed {
                return Sent::Closed;
            }
            if calls.open.contains_key(&frame.call_id) {
                return Sent::Bad;
            }
            calls.open.insert(frame.call_id, Arc::clone(&running));
        }
        let (server, payload) = (Arc::clone(self), frame.payload.to_vec());
        lanes.spawn(logs::of_call(&self.host, frame.call_id, async move {
            let provider = Arc::clone(&server.provider);
            let reply = task::run(&*provider, &running, inbox, method, meta, &payload).await;
            server.answer(running.id, reply);
        }));
        Sent::Ok
    }

    /// Answers a call; the first answer counts.
    fn answer(&self, id: u64, reply: Result<Vec<u8>, ProviderError>) {
        let mut calls = locked(&self.calls);
        if calls.open.remove(&id).is_none() {
            return;
        }
        let reply = reply.and_then(|reply| {
            let most = Kind::Ok.limit(0);
            if reply.len() <= most {
                return Ok(reply);
            }
            let message = format!("the reply takes {} bytes, of at most {most}", reply.len());
            Err(ProviderError::new(ErrorKind::Internal, message))
        });
        // Under the lock, so that the port is not closed before the last answer is out.
        send_answer(&*self.host, id, &reply);
        if calls.open.is_empty() {
            self.idle.notify_all();
        }
    }

    fn input(&self, frame: &Frame<'_>) -> Sent {
        let input = match frame.code {
            INPUT_DATA => ExecInput::Data(frame.payload.to_vec()),
            INPUT_EOF => ExecInput::Eof,
            INPUT_SIGNAL => match serde_json::from_slice::<SignalPayload>(frame.payload) {
                Ok(payload) => ExecInput::Signal(payload.signal),
                Err(_) => return Sent::Bad,
            },
            // No method of this version has a terminal.
            INPUT_RESIZE => return Sent::Ok,
            _ => return Sent::Unsupported,
        };
        self.with(frame.call_id, |running| running.feed(input))
    }

    fn with(&self, id: u64, then: impl FnOnce(&Running)) -> Sent {
        let running = locked(&self.calls).open.get(&id).cloned();
        running.map_or(Sent::Gone, |running| {
            then(&running);
            Sent::Ok
        })
    }

    /// Cancels what still runs, waits until it is answered, and ends the runtime.
    pub(super) fn close(&self, limit: Duration) {
        let until = Instant::now() + limit;
        let mut calls = locked(&self.calls);
        calls.closed = true;
        for running in calls.open.values() {
            running.cancel();
        }
        let waited = self
            .idle
            .wait_timeout_while(calls, limit, |calls| !calls.open.is_empty());
        drop(waited);
        for id in locked(&self.calls).open.drain().map(|(id, _)| id) {
            let stuck = ProviderError::cancelled("the provider was closed while the call hung");
            send_answer(&*self.host, id, &Err(stuck));
        }
        if let Some(lanes) = locked(&self.lanes).take() {
            lanes.end(until.saturating_duration_since(Instant::now()));
        }
    }
}

fn send_answer(host: &dyn Takes, id: u64, reply: &Result<Vec<u8>, ProviderError>) {
    let failure = reply.as_ref().map_err(write_error);
    let frame = match (reply, &failure) {
        (Ok(reply), _) => (Kind::Ok, 0, reply),
        (Err(error), Err(json)) => (Kind::Err, error_code(error.kind), json),
        (Err(_), Ok(_)) => return,
    };
    let sent = host.take(&Frame {
        call_id: id,
        kind: frame.0,
        code: frame.1,
        payload: frame.2,
    });
    // A host that is not there any more needs no answer. One that refuses the reply still waits for one.
    let over = matches!(sent, Sent::Ok | Sent::Gone | Sent::Closed);
    if !over && reply.is_ok() {
        let message = format!("the host did not take the reply: {sent:?}");
        let refused = ProviderError::new(ErrorKind::Internal, message);
        send_answer(host, id, &Err(refused));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A host that takes no reply.
    #[derive(Default)]
    struct Refuses(Mutex<Vec<Kind>>);

    impl Takes for Refuses {
        fn take(&self, frame: &Frame<'_>) -> Sent {
            locked(&self.0).push(frame.kind);
            if frame.kind == Kind::Ok {
                Sent::TooBig
            } else {
                Sent::Ok
            }
        }
    }

    #[test]
    fn a_call_whose_reply_is_refused_is_answered_all_the_same() {
        let host = Refuses::default();
        send_answer(&host, 1, &Ok(b"{}".to_vec()));
        assert_eq!(*locked(&host.0), [Kind::Ok, Kind::Err]);
    }
}
