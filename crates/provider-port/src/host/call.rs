//! One call, from its request to its reply: events out, input in, until its deadline.

use super::config::Timings;
use super::flight::{Flight, News};
use super::session::Session;
use crate::frame::{
    CANCEL_DEADLINE, CANCEL_GONE, CREDIT, INPUT_DATA, INPUT_EOF, INPUT_SIGNAL, Kind, MAX_CHUNK,
    charge,
};
use crate::message::SignalPayload;
use crate::wire::locked;
use alpine_provider_api::{Call, CallEvent, ErrorKind, ExecInput, Method, ProviderError};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// How many bytes are taken before the provider is granted so many again.
const GRANT_AFTER: u32 = CREDIT / 4;

/// How long a call looks for the answer of a library in this process before its thread sleeps: to sleep and be woken takes as long.
const LOOK: Duration = Duration::from_micros(20);

/// What a command is sent.
pub(super) type Input = mpsc::Receiver<ExecInput>;

/// Gives the call up when it is dropped; one that was answered is not there any more.
struct InFlight<'a> {
    session: &'a Session,
    flight: Arc<Flight>,
    reason: u32,
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.session.cancel(&self.flight, self.reason);
    }
}

/// How long a call may take. Where bytes are moved, it is the time without progress that counts.
#[derive(Debug)]
struct Deadline {
    limit: Option<Duration>,
    by_progress: bool,
    slack: Duration,
    last: Mutex<Instant>,
}

impl Deadline {
    fn new(method: Method, call: Option<&Call>, timings: &Timings) -> Self {
        let unlimited = matches!(method, Method::Exec | Method::Logs);
        let usual = (!unlimited).then_some(timings.call);
        Self {
            limit: match call {
                None => Some(timings.describe),
                Some(call) => call.deadline().or(usual),
            },
            by_progress: matches!(
                method,
                Method::Capture | Method::Persist | Method::ReadObject | Method::Restore
            ),
            slack: timings.slack,
            last: Mutex::new(Instant::now()),
        }
    }

    fn progressed(&self) {
        if self.by_progress {
            *locked(&self.last) = Instant::now();
        }
    }

    /// Waits until it has passed.
    async fn passed(&self) -> Duration {
        let Some(limit) = self.limit else {
            return std::future::pending().await;
        };
        let far = || Instant::now() + Duration::from_secs(365 * 24 * 3600);
        loop {
            let last = *locked(&self.last);
            let until = last.checked_add(limit.saturating_add(self.slack));
            tokio::time::sleep_until(until.unwrap_or_else(far)).await;
            if *locked(&self.last) == last {
                return limit;
            }
        }
    }
}

/// Makes a call, and gives its reply as JSON. `call` is none for `describe`.
pub(super) async fn run(
    session: &Session,
    timings: &Timings,
    method: Method,
    payload: &[u8],
    call: Option<&Call>,
    input: Option<Input>,
) -> Result<Vec<u8>, ProviderError> {
    let deadline = Deadline::new(method, call, timings);
    let mut here = InFlight {
        session,
        flight: session.begin(method, payload)?,
        reason: CANCEL_GONE,
    };
    let flight = Arc::clone(&here.flight);
    tokio::select! {
        biased;
        answer = listen(session, &flight, call, &deadline) => answer,
        never = feed(session, &flight, input) => match never {},
        limit = deadline.passed() => {
            here.reason = CANCEL_DEADLINE;
            let message = format!("`{method}` took longer than {} s", limit.as_secs_f32());
            Err(session.named(ProviderError::transient(ErrorKind::Timeout, message)))
        }
    }
}

/// Hands the call's events to its caller, and grants the provider what was taken, until the answer comes.
async fn listen(
    session: &Session,
    flight: &Flight,
    call: Option<&Call>,
    deadline: &Deadline,
) -> Result<Vec<u8>, ProviderError> {
    let mut taken = 0;
    if session.in_process {
        look(flight);
    }
    loop {
        let event = match flight.next() {
            None => {
                flight.news.notified().await;
                continue;
            }
            Some(News::Answer(answer)) => return answer,
            Some(News::Event(event)) => event,
        };
        let cost = match &event {
            CallEvent::Stdout(bytes) | CallEvent::Stderr(bytes) => charge(bytes.len()),
            CallEvent::Progress { .. } => {
                deadline.progressed();
                0
            }
            CallEvent::Warning(_) => 0,
        };
        if let Some(call) = call {
            tell(call, event).await?;
        }
        taken += cost;
        if taken >= GRANT_AFTER {
            flight.grant(taken);
            session.send(flight.id, Kind::Grant, taken, &[]);
            taken = 0;
        }
    }
}

/// Waits for news without sleeping, for a moment.
fn look(flight: &Flight) {
    let until = Instant::now() + LOOK;
    while !flight.has_news() && Instant::now() < until {
        std::hint::spin_loop();
    }
}

async fn tell(call: &Call, event: CallEvent) -> Result<(), ProviderError> {
    match event {
        CallEvent::Progress { what, done, total } => call.progress(&what, done, total),
        CallEvent::Warning(text) => call.warn(text),
        CallEvent::Stdout(_) | CallEvent::Stderr(_) => return call.send(event).await,
    }
    Ok(())
}

/// Sends a command its input, for as long as the call runs.
async fn feed(
    session: &Session,
    flight: &Flight,
    input: Option<Input>,
) -> std::convert::Infallible {
    if let Some(mut input) = input {
        while let Some(next) = input.recv().await {
            match next {
                ExecInput::Data(bytes) => send_data(session, flight, &bytes).await,
                ExecInput::Eof => {
                    session.send(flight.id, Kind::Input, INPUT_EOF, &[]);
                }
                ExecInput::Signal(signal) => {
                    let json = serde_json::to_vec(&SignalPayload { signal }).unwrap_or_default();
                    session.send(flight.id, Kind::Input, INPUT_SIGNAL, &json);
                }
            }
        }
        // Who sends no more has ended it.
        session.send(flight.id, Kind::Input, INPUT_EOF, &[]);
    }
    std::future::pending().await
}

async fn send_data(session: &Session, flight: &Flight, bytes: &[u8]) {
    for chunk in bytes.chunks(MAX_CHUNK) {
        while !flight.spend(charge(chunk.len())) {
            flight.granted.notified().await;
        }
        session.send(flight.id, Kind::Input, INPUT_DATA, chunk);
    }
}
