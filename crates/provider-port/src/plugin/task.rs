//! One call: its work, its events, its input, its end.

use super::dispatch::{Asked, dispatch};
use super::panics;
use crate::frame::{
    CREDIT, EVENT_PROGRESS, EVENT_STDERR, EVENT_STDOUT, EVENT_WARNING, Frame, Kind, MAX_CHUNK,
    Takes, charge,
};
use crate::message::{ProgressPayload, shorten};
use alpine_provider_api::{
    Call, CallEvent, ExecInput, Meta, Method, ProviderError, SandboxProvider,
};
use std::fmt;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::{Notify, Semaphore, mpsc};

/// How many events of the provider wait for credit.
const EVENTS: usize = 16;
/// How many bytes of input are used before the host is granted so many again.
const GRANT_AFTER: u32 = CREDIT / 4;

/// A call that runs, as the host's frames reach it.
pub(super) struct Running {
    pub(super) id: u64,
    host: Arc<dyn Takes>,
    credit: Semaphore,
    cancelled: AtomicBool,
    cancel: Notify,
    /// What it costs is bounded by the host's credit.
    input: mpsc::UnboundedSender<ExecInput>,
}

impl fmt::Debug for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Running({})", self.id)
    }
}

/// What a call is sent.
pub(super) type Inbox = mpsc::UnboundedReceiver<ExecInput>;

impl Running {
    pub(super) fn new(id: u64, host: Arc<dyn Takes>) -> (Arc<Self>, Inbox) {
        let (input, inbox) = mpsc::unbounded_channel();
        let running = Self {
            id,
            host,
            credit: Semaphore::new(CREDIT as usize),
            cancelled: AtomicBool::new(false),
            cancel: Notify::new(),
            input,
        };
        (Arc::new(running), inbox)
    }

    /// The caller gave up.
    pub(super) fn cancel(&self) {
        self.cancelled.store(true, Ordering::Release);
        self.cancel.notify_one();
    }

    /// So much more may be sent.
    pub(super) fn grant(&self, more: u32) {
        let room = Semaphore::MAX_PERMITS - self.credit.available_permits();
        self.credit.add_permits((more as usize).min(room));
    }

    /// Standard input, or a signal.
    pub(super) fn feed(&self, input: ExecInput) {
        // A call that is over needs no input.
        let _ = self.input.send(input);
    }

    async fn until_cancelled(&self) {
        while !self.cancelled.load(Ordering::Acquire) {
            self.cancel.notified().await;
        }
    }

    fn send(&self, kind: Kind, code: u32, payload: &[u8]) {
        // What the host does not take (it has given the call up) is not wanted.
        let _ = self.host.take(&Frame {
            call_id: self.id,
            kind,
            code,
            payload,
        });
    }

    async fn event(&self, event: CallEvent) {
        match event {
            CallEvent::Stdout(bytes) => self.stream(EVENT_STDOUT, &bytes).await,
            CallEvent::Stderr(bytes) => self.stream(EVENT_STDERR, &bytes).await,
            CallEvent::Warning(mut text) => {
                shorten(&mut text, MAX_CHUNK);
                self.send(Kind::Event, EVENT_WARNING, text.as_bytes());
            }
            CallEvent::Progress {
                mut what,
                done,
                total,
            } => {
                shorten(&mut what, MAX_CHUNK);
                let json = serde_json::to_vec(&ProgressPayload { what, done, total });
                self.send(Kind::Event, EVENT_PROGRESS, &json.unwrap_or_default());
            }
        }
    }

    async fn stream(&self, code: u32, bytes: &[u8]) {
        for chunk in bytes.chunks(MAX_CHUNK) {
            if let Ok(credit) = self.credit.acquire_many(charge(chunk.len())).await {
                credit.forget();
                self.send(Kind::Event, code, chunk);
            }
        }
    }
}

/// Runs a call to its end: its events go before its answer.
pub(super) async fn run(
    provider: &dyn SandboxProvider,
    running: &Running,
    inbox: Inbox,
    method: Method,
    meta: Meta,
    payload: &[u8],
) -> Result<Vec<u8>, ProviderError> {
    let (events, news) = mpsc::channel(EVENTS);
    let (to_command, input) = mpsc::channel(EVENTS);
    let call = Call::new(meta, events);
    let asked = Asked {
        method,
        payload,
        input,
    };
    let done = Notify::new();
    let mut tell = pin!(tell(running, news, &done));
    let mut feed = pin!(feed(running, inbox, to_command));
    let mut work = pin!(panics::caught_in(dispatch(provider, &call, asked)));
    let gave_up = || Err(ProviderError::cancelled("the caller gave up"));
    let (mut told, mut fed) = (false, false);
    let reply = loop {
        tokio::select! {
            biased;
            () = running.until_cancelled() => return gave_up(),
            reply = &mut work => break reply,
            () = &mut tell, if !told => told = true,
            () = &mut feed, if !fed => fed = true,
        }
    };
    done.notify_one();
    if !told {
        tokio::select! {
            biased;
            () = running.until_cancelled() => return gave_up(),
            () = tell => {}
        }
    }
    reply
}

/// Sends the call's events, and after its end those that are still there.
async fn tell(running: &Running, mut news: mpsc::Receiver<CallEvent>, done: &Notify) {
    loop {
        let event = tokio::select! {
            biased;
            event = news.recv() => event,
            () = done.notified() => {
                news.close();
                continue;
            }
        };
        match event {
            Some(event) => running.event(event).await,
            None => return,
        }
    }
}

/// Hands a command its input, and grants the host what was used.
async fn feed(running: &Running, mut inbox: Inbox, to: mpsc::Sender<ExecInput>) {
    let mut used = 0;
    while let Some(input) = inbox.recv().await {
        used += match &input {
            ExecInput::Data(bytes) => charge(bytes.len()),
            ExecInput::Eof | ExecInput::Signal(_) => 0,
        };
        // What nobody takes is used as well.
        let _ = to.send(input).await;
        if used >= GRANT_AFTER {
            running.send(Kind::Grant, used, &[]);
            used = 0;
        }
    }
}
