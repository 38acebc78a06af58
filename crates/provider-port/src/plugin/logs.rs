//! The provider's tracing goes to the host as LOG.

use crate::frame::{Frame, Kind, LOGS_PER_SECOND, MAX_LOG, Takes};
use crate::message::{LogPayload, shorten};
use crate::rate::{Passed, Rate};
use crate::wire::locked;
use serde_json::{Map, Value};
use std::cell::Cell;
use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, OnceLock, Weak};
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

/// A host, where it is still there.
type LastHost = Option<Weak<dyn Takes>>;

/// Where to what is said outside of calls goes: the host of the instance that was opened last.
static LAST: Mutex<LastHost> = Mutex::new(None);

tokio::task_local! {
    /// The call that this task is part of.
    static CALL: (Arc<dyn Takes>, u64);
}

thread_local! {
    /// Whether this thread is sending a LOG: what that says itself is not sent.
    static SENDING: Cell<bool> = const { Cell::new(false) };
}

/// From now on, tracing goes to this host.
pub(super) fn forward(host: &Arc<dyn Takes>, level: u32) {
    *locked(&LAST) = Some(Arc::downgrade(host));
    let level = match level {
        1 => LevelFilter::ERROR,
        2 => LevelFilter::WARN,
        4 => LevelFilter::DEBUG,
        5 => LevelFilter::TRACE,
        _ => LevelFilter::INFO,
    };
    let subscriber = tracing_subscriber::registry().with(level).with(Forward);
    // A provider that set one up itself keeps it.
    let _ = tracing::subscriber::set_global_default(subscriber);
}

/// The same future; what it says is said of this call.
pub(super) fn of_call<F: Future>(
    host: &Arc<dyn Takes>,
    id: u64,
    work: F,
) -> impl Future<Output = F::Output> + use<F> {
    CALL.scope((Arc::clone(host), id), work)
}

#[derive(Debug)]
struct Forward;

impl<S: Subscriber> Layer<S> for Forward {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        if SENDING.replace(true) {
            return;
        }
        let here = CALL.try_with(|(host, id)| (Arc::clone(host), *id)).ok();
        let outside = || Some((locked(&LAST).as_ref()?.upgrade()?, 0));
        if let Some((host, id)) = here.or_else(outside) {
            send(&*host, id, event);
        }
        SENDING.set(false);
    }
}

fn send(host: &dyn Takes, id: u64, event: &Event<'_>) {
    static RATE: OnceLock<Mutex<Rate>> = OnceLock::new();
    let rate = RATE.get_or_init(|| Mutex::new(Rate::new(LOGS_PER_SECOND)));
    let Passed::After(dropped) = locked(rate).pass() else {
        return;
    };
    let mut said = Said::default();
    event.record(&mut said);
    if dropped > 0 {
        said.fields
            .insert("dropped_before".to_owned(), dropped.into());
    }
    let target = event.metadata().target().to_owned();
    // A host that has gone needs no log.
    let _ = host.take(&Frame {
        call_id: id,
        kind: Kind::Log,
        code: number(*event.metadata().level()),
        payload: &said.payload(target),
    });
}

fn number(level: Level) -> u32 {
    match level {
        Level::ERROR => 1,
        Level::WARN => 2,
        Level::INFO => 3,
        Level::DEBUG => 4,
        Level::TRACE => 5,
    }
}

/// What an event says.
#[derive(Default)]
struct Said {
    message: String,
    fields: Map<String, Value>,
}

impl Said {
    /// As JSON that keeps the limit: the fields go first, then the end of the message.
    fn payload(self, target: String) -> Vec<u8> {
        let mut payload = LogPayload {
            target,
            message: self.message,
            fields: self.fields,
        };
        loop {
            let json = serde_json::to_vec(&payload).unwrap_or_default();
            if json.len() <= MAX_LOG {
                return json;
            }
            if payload.fields.is_empty() {
                let half = payload.message.len() / 2;
                shorten(&mut payload.message, half.min(MAX_LOG - 1024));
                shorten(&mut payload.target, 256);
            }
            payload.fields.clear();
        }
    }

    fn put(&mut self, field: &Field, value: Value) {
        match (field.name(), value) {
            ("message", Value::String(text)) => self.message = text,
            (name, value) => {
                self.fields.insert(name.to_owned(), value);
            }
        }
    }
}

impl Visit for Said {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, Value::String(format!("{value:?}")));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value.into());
    }
}
