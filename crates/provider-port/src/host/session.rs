//! One instance of a provider, as long as it lives: its calls, and what it says.

use super::config::Source;
use super::flight::Flight;
use super::library::Hosts;
use crate::abi::Sent;
use crate::child::not_taken;
use crate::frame::{Frame, Kind, LOGS_PER_SECOND, Takes};
use crate::message::{LogPayload, read_error};
use crate::rate::{Passed, Rate};
use crate::wire::locked;
use alpine_provider_api::{ErrorKind, Method, ProviderError, Redactor};
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Instant;
use tokio::sync::watch;

/// How far an instance is.
#[derive(Clone, Debug)]
pub(super) enum Stage {
    /// Calls have to wait.
    Starting,
    /// Calls may come.
    Ready,
    /// It was told to end: no more calls.
    Ending,
    /// It is gone, and this is why.
    Ended(ProviderError),
}

/// One instance of a provider.
pub(super) struct Session {
    pub(super) name: String,
    pub(super) redactor: Redactor,
    /// Whether the provider is in this process.
    pub(super) in_process: bool,
    link: OnceLock<Arc<dyn Takes>>,
    stage: watch::Sender<Stage>,
    calls: Mutex<Calls>,
    logs: Mutex<Rate>,
}

#[derive(Debug, Default)]
struct Calls {
    open: HashMap<u64, Arc<Flight>>,
    last: u64,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Session({}, {:?})", self.name, *self.stage.borrow())
    }
}

impl Session {
    pub(super) fn new(name: &str, redactor: &Redactor, source: &Source) -> Self {
        Self {
            name: name.to_owned(),
            redactor: redactor.clone(),
            in_process: matches!(source, Source::InProcess { .. }),
            link: OnceLock::new(),
            stage: watch::Sender::new(Stage::Starting),
            calls: Mutex::default(),
            logs: Mutex::new(Rate::new(LOGS_PER_SECOND)),
        }
    }

    /// Where frames to the provider go from now on.
    pub(super) fn connect(&self, link: Arc<dyn Takes>) {
        // There is one link for life.
        let _ = self.link.set(link);
    }

    pub(super) fn stage(&self) -> Stage {
        self.stage.borrow().clone()
    }

    /// Waits until calls may come, or never will.
    pub(super) async fn settled(&self) -> Result<(), ProviderError> {
        let mut stage = self.stage.subscribe();
        let settled = |stage: &Stage| matches!(stage, Stage::Ready | Stage::Ended(_));
        match stage.wait_for(settled).await.as_deref() {
            Ok(Stage::Ended(error)) => Err(error.clone()),
            Ok(Stage::Ready | Stage::Starting | Stage::Ending) | Err(_) => Ok(()),
        }
    }

    /// Calls may come.
    pub(super) fn ready(&self) {
        self.turn(Stage::Ready);
    }

    /// No more calls; those in flight may still be answered.
    pub(super) fn ending(&self) {
        self.turn(Stage::Ending);
    }

    /// It is gone: this is what every call gets, now and later.
    pub(super) fn ended(&self, error: ProviderError) {
        self.turn(Stage::Ended(error.clone()));
        let open = std::mem::take(&mut locked(&self.calls).open);
        for flight in open.into_values() {
            flight.answer(Err(error.clone()));
        }
    }

    fn turn(&self, next: Stage) {
        self.stage.send_if_modified(|stage| {
            let over = matches!(stage, Stage::Ended(_));
            if !over {
                *stage = next;
            }
            !over
        });
    }

    /// Sends a call.
    pub(super) fn begin(
        &self,
        method: Method,
        payload: &[u8],
    ) -> Result<Arc<Flight>, ProviderError> {
        let most = Kind::Call.limit(0);
        if payload.len() > most {
            let message = format!(
                "the request of `{method}` takes {} bytes, of at most {most}",
                payload.len()
            );
            return Err(ProviderError::new(ErrorKind::TooLarge, message));
        }
        let flight = {
            let mut calls = locked(&self.calls);
            calls.last += 1;
            let flight = Arc::new(Flight::new(calls.last));
            calls.open.insert(flight.id, Arc::clone(&flight));
            flight
        };
        // Looked at after the call is in the list: what ends from now on answers it.
        if let Stage::Ended(error) = self.stage() {
            locked(&self.calls).open.remove(&flight.id);
            return Err(error);
        }
        let sent = self.send(flight.id, Kind::Call, method.id(), payload);
        // A port that was closed this moment says itself why.
        let closed = matches!(sent, Sent::Closed);
        if let Some(error) = not_taken(sent).filter(|_| !closed) {
            locked(&self.calls).open.remove(&flight.id);
            return Err(self.named(error));
        }
        Ok(flight)
    }

    /// Sends a frame of a call.
    pub(super) fn send(&self, call_id: u64, kind: Kind, code: u32, payload: &[u8]) -> Sent {
        let frame = Frame {
            call_id,
            kind,
            code,
            payload,
        };
        let link = self.link.get();
        link.map_or(Sent::Closed, |link| link.take(&frame))
    }

    /// The caller gave up.
    pub(super) fn cancel(&self, flight: &Flight, reason: u32) {
        if locked(&self.calls).open.contains_key(&flight.id) {
            flight.cancel();
            self.send(flight.id, Kind::Cancel, reason, &[]);
        }
    }

    /// Since when a call waits for the answer to its CANCEL.
    pub(super) fn cancelled(&self) -> Option<Instant> {
        let calls = locked(&self.calls);
        let cancelled = calls.open.values().filter_map(|flight| flight.cancelled());
        cancelled.min()
    }

    /// Whether a call is in flight.
    pub(super) fn busy(&self) -> bool {
        !locked(&self.calls).open.is_empty()
    }

    /// A failure that says whose it is, without secrets.
    pub(super) fn named(&self, mut error: ProviderError) -> ProviderError {
        error.message = self
            .redactor
            .redact(&format!("provider `{}`: {}", self.name, error.message));
        self.clean(error)
    }

    fn clean(&self, mut error: ProviderError) -> ProviderError {
        error.message = self.redactor.redact(&error.message);
        error.hint = error.hint.map(|hint| self.redactor.redact(&hint));
        for line in &mut error.log_tail {
            *line = self.redactor.redact(line);
        }
        error
    }

    fn answer(&self, frame: &Frame<'_>) -> Sent {
        let Some(flight) = locked(&self.calls).open.remove(&frame.call_id) else {
            tracing::debug!(provider = %self.name, call = frame.call_id, "an answer to a call that is over");
            return Sent::Gone;
        };
        flight.answer(if frame.kind == Kind::Ok {
            Ok(frame.payload.to_vec())
        } else {
            Err(self.clean(read_error(frame.code, frame.payload)))
        });
        Sent::Ok
    }

    fn with(&self, id: u64, then: impl FnOnce(&Flight) -> Sent) -> Sent {
        let flight = locked(&self.calls).open.get(&id).cloned();
        flight.map_or(Sent::Gone, |flight| then(&flight))
    }

    fn log(&self, frame: &Frame<'_>) {
        let Passed::After(dropped) = locked(&self.logs).pass() else {
            return;
        };
        if dropped > 0 {
            tracing::warn!(provider = %self.name, dropped, "lines of its log were dropped");
        }
        let said = match serde_json::from_slice::<LogPayload>(frame.payload) {
            Ok(log) if log.fields.is_empty() => log.message,
            Ok(log) => format!("{} {}", log.message, serde_json::Value::Object(log.fields)),
            Err(_) => String::from_utf8_lossy(frame.payload).into_owned(),
        };
        let (name, said) = (&self.name, one_line(&self.redactor.redact(&said)));
        match frame.code {
            1 => tracing::error!(provider = %name, "{said}"),
            2 => tracing::warn!(provider = %name, "{said}"),
            3 => tracing::info!(provider = %name, "{said}"),
            4 => tracing::debug!(provider = %name, "{said}"),
            _ => tracing::trace!(provider = %name, "{said}"),
        }
    }
}

/// A text of a provider as a part of one line of the log: what would begin another line, or act on a terminal, is shown as its
/// escape.
pub(super) fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() && c != '\t' || matches!(c, '\u{2028}' | '\u{2029}') {
            line.extend(c.escape_default());
        } else {
            line.push(c);
        }
    }
    line
}

impl Takes for Session {
    fn take(&self, frame: &Frame<'_>) -> Sent {
        match frame.kind {
            Kind::Ok | Kind::Err if frame.call_id > 0 => self.answer(frame),
            Kind::Ok => Sent::Gone,
            Kind::Err => {
                let error = read_error(frame.code, frame.payload);
                self.ended(self.named(error));
                Sent::Ok
            }
            Kind::Event => self.with(frame.call_id, |flight| flight.event(frame)),
            Kind::Grant => self.with(frame.call_id, |flight| {
                flight.allow(frame.code);
                Sent::Ok
            }),
            Kind::Log => {
                self.log(frame);
                Sent::Ok
            }
            Kind::Ping => self.send(0, Kind::Pong, frame.code, &[]),
            Kind::Pong => Sent::Ok,
            Kind::Call | Kind::Cancel | Kind::Input | Kind::Hello | Kind::Open | Kind::Ready => {
                Sent::Unsupported
            }
        }
    }
}

impl Hosts for Session {
    fn over(&self, why: ProviderError) {
        self.ended(self.named(why));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    /// What was logged.
    #[derive(Clone, Default)]
    struct Logged(Arc<Mutex<Vec<u8>>>);

    impl Write for Logged {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            locked(&self.0).write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn no_log_of_a_provider_looks_like_another_line() {
        let session = Session::new(
            "acme",
            &Redactor::default(),
            &Source::Executable {
                program: "/bin/acme".into(),
                args: Vec::new(),
            },
        );
        let logged = Logged::default();
        let writer = logged.clone();
        let subscriber = tracing_subscriber::fmt()
            .without_time()
            .with_ansi(false)
            .with_writer(move || writer.clone());
        tracing::subscriber::with_default(subscriber.finish(), || {
            for payload in [
                r#"{"message":"a\nerror: forged\r\u001b[2K\u0085é\t\u2028end"}"#,
                r#"{"message":"b","fields":{"of":"c\nd"}}"#,
                "no JSON\nerror: forged",
            ] {
                session.take(&Frame {
                    call_id: 0,
                    kind: Kind::Log,
                    code: 3,
                    payload: payload.as_bytes(),
                });
            }
        });
        let logged = String::from_utf8(locked(&logged.0).clone()).unwrap();
        let said: Vec<_> = logged
            .lines()
            .map(|line| line.split_once("session: ").map(|(_, said)| said))
            .collect();
        assert_eq!(
            said,
            [
                Some(r"a\nerror: forged\r\u{1b}[2K\u{85}é	\u{2028}end provider=acme"),
                Some(r#"b {"of":"c\nd"} provider=acme"#),
                Some(r"no JSON\nerror: forged provider=acme"),
            ]
        );
    }
}
