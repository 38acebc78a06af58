//! What a check works with: the provider, a repository, and sandboxes that are destroyed afterwards.

use crate::called::{Called, Checking, Halt, answered, broken, last_lines, said};
use crate::random::Random;
use crate::repository::Repository;
use crate::sandbox::Sandbox;
use crate::trace::{Trace, public};
use crate::{Options, Subject};
use alpine_provider_api::*;
use serde::Serialize;
use std::fmt::Debug;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc;

/// The fence under which the kit itself cleans up: higher than any check's.
pub(crate) const LAST_FENCE: u64 = 1 << 40;

/// What all checks of a run share.
#[derive(Debug)]
pub(crate) struct Shared<'a> {
    pub(crate) subject: &'a dyn Subject,
    pub(crate) options: &'a Options,
    pub(crate) describe: DescribeReply,
    pub(crate) repository: Repository,
    /// Differs from run to run.
    pub(crate) run: String,
    pub(crate) made: AtomicU32,
}

/// What one check works with.
#[derive(Debug)]
pub(crate) struct Bench<'a> {
    pub(crate) shared: &'a Shared<'a>,
    pub(crate) trace: Trace,
    open: tokio::sync::Mutex<Option<Arc<dyn SandboxProvider>>>,
    ids: Mutex<Vec<SandboxId>>,
    random: Mutex<Random>,
    fresh: AtomicBool,
    note: Mutex<Option<String>>,
}

impl<'a> Bench<'a> {
    pub(crate) fn new(shared: &'a Shared<'a>, number: u64) -> Self {
        Self {
            shared,
            trace: Trace::default(),
            open: tokio::sync::Mutex::default(),
            ids: Mutex::default(),
            random: Mutex::new(Random::new(shared.options.seed ^ (number << 32))),
            fresh: AtomicBool::new(shared.options.fresh),
            note: Mutex::default(),
        }
    }

    pub(crate) fn repository(&self) -> &Repository {
        &self.shared.repository
    }

    pub(crate) fn ledger(&self) -> String {
        format!("conformance-{}", self.shared.run)
    }

    /// A sandbox that is not made yet.
    pub(crate) fn sandbox(&self) -> Checking<Sandbox<'_>> {
        let number = self.shared.made.fetch_add(1, Ordering::Relaxed);
        let text = format!("sbx{}_{number}", self.shared.run);
        let Some(id) = SandboxId::new(&text) else {
            return broken("the kit's ids are ids", text);
        };
        self.ids
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(id.clone());
        let session = format!("ses_{}_{number}", self.shared.run);
        Ok(Sandbox::new(self, id, session))
    }

    pub(crate) fn random(&self, end: u64) -> u64 {
        let mut random = self.random.lock().unwrap_or_else(PoisonError::into_inner);
        random.below(end)
    }

    /// Tells something of the check, whatever it comes to; the last word counts.
    pub(crate) fn note(&self, text: String) {
        *self.note.lock().unwrap_or_else(PoisonError::into_inner) = Some(text);
    }

    /// What was told of it.
    pub(crate) fn noted(&self) -> Option<String> {
        let note = self.note.lock().unwrap_or_else(PoisonError::into_inner);
        note.clone()
    }

    /// The instance that calls go to; a fresh one for each where that is asked for.
    pub(crate) async fn provider(&self) -> Checking<Arc<dyn SandboxProvider>> {
        let mut open = self.open.lock().await;
        match &*open {
            Some(provider) if !self.fresh.load(Ordering::Relaxed) => Ok(Arc::clone(provider)),
            Some(_) | None => {
                let fresh = self.shared.subject.open().await;
                let fresh = fresh.or_else(|error| broken("the provider opens", said(&error)))?;
                *open = Some(Arc::clone(&fresh));
                Ok(fresh)
            }
        }
    }

    /// Whether every call goes to a fresh instance from now on.
    pub(crate) fn fresh(&self, fresh: bool) {
        self.fresh.store(fresh, Ordering::Relaxed);
    }

    /// The next call goes to a fresh instance.
    pub(crate) async fn reopen(&self) {
        self.trace.add("(a fresh instance)");
        *self.open.lock().await = None;
    }

    pub(crate) fn deadline_ms(&self) -> u64 {
        u64::try_from(self.shared.options.call_limit.as_millis()).unwrap_or(0)
    }

    /// Begins a call.
    pub(crate) async fn begin(
        &self,
        method: Method,
        fence: u64,
        request: &impl Serialize,
    ) -> Checking<Calling<'_>> {
        let provider = self.provider().await?;
        self.trace
            .add(format!("→ {method} fence {fence} {}", public(request)));
        // Small, so that a provider that does not wait for its reader is found out.
        let (events, said) = mpsc::channel(16);
        let meta = Meta {
            operation_id: format!("op_{}", self.shared.run),
            fence,
            attempt: 1,
            deadline_ms: self.deadline_ms(),
            traceparent: None,
        };
        Ok(Calling {
            bench: self,
            method,
            provider,
            call: Call::new(meta, events),
            said: tokio::sync::Mutex::new(said),
        })
    }

    /// Destroys what the check made; says what could not be.
    pub(crate) async fn clean_up(&self) -> Vec<String> {
        let ids = {
            let mut ids = self.ids.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *ids)
        };
        let mut left = Vec::new();
        for id in ids {
            let mut sandbox = Sandbox::new(self, id, String::new());
            sandbox.fence = LAST_FENCE;
            let text = match sandbox.destroy().await {
                Ok(Called { reply: Ok(_), .. }) => continue,
                Ok(Called {
                    reply: Err(error), ..
                }) => said(&error),
                Err(Halt::Broken { found, .. }) => found,
                Err(Halt::Skip(why)) => why,
            };
            left.push(format!("`{}` could not be destroyed: {text}", sandbox.id));
        }
        left
    }
}

/// A call that is under way.
pub(crate) struct Calling<'a> {
    bench: &'a Bench<'a>,
    method: Method,
    pub(crate) provider: Arc<dyn SandboxProvider>,
    pub(crate) call: Call,
    said: tokio::sync::Mutex<mpsc::Receiver<CallEvent>>,
}

impl Calling<'_> {
    /// Waits for the answer and takes what is said before it. What comes after it is lost, as it is for every caller.
    pub(crate) async fn end<R: Serialize + Debug>(
        &self,
        answer: impl Future<Output = Result<R, ProviderError>> + Send,
    ) -> Checking<Called<R>> {
        let limit = self.bench.shared.options.call_limit;
        let mut events = Vec::new();
        let answered = async {
            tokio::pin!(answer);
            let mut said = self.said.lock().await;
            let reply = loop {
                tokio::select! {
                    biased;
                    Some(event) = said.recv() => events.push(event),
                    reply = &mut answer => break reply,
                }
            };
            while let Ok(event) = said.try_recv() {
                events.push(event);
            }
            reply
        };
        let answered = tokio::time::timeout(limit, answered).await;
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        let count = events.len();
        for event in events {
            match event {
                CallEvent::Stdout(text) => stdout.extend(text),
                CallEvent::Stderr(text) => stderr.extend(text),
                CallEvent::Progress { .. } | CallEvent::Warning(_) => {}
            }
        }
        let Ok(reply) = answered else {
            return self.late(limit);
        };
        self.note(&reply, count, stdout.len(), stderr.len());
        Ok(Called {
            reply,
            stdout,
            stderr,
        })
    }

    /// Waits for the answer while the check itself reads the events, from [`Calling::events`].
    pub(crate) async fn end_unread<R: Serialize + Debug>(
        &self,
        answer: impl Future<Output = Result<R, ProviderError>> + Send,
    ) -> Checking<Result<R, ProviderError>> {
        let limit = self.bench.shared.options.call_limit;
        match tokio::time::timeout(limit, answer).await {
            Ok(reply) => {
                self.note(&reply, 0, 0, 0);
                Ok(reply)
            }
            Err(_) => self.late(limit),
        }
    }

    /// What the call says.
    pub(crate) async fn events(&self) -> tokio::sync::MutexGuard<'_, mpsc::Receiver<CallEvent>> {
        self.said.lock().await
    }

    /// Lets the call go on until that, then drops it; gives the answer if it came first.
    pub(crate) async fn end_dropped<R: Serialize + Debug>(
        &self,
        answer: impl Future<Output = Result<R, ProviderError>> + Send,
        until: impl Future + Send,
    ) -> Option<Result<R, ProviderError>> {
        let answered = async {
            tokio::pin!(answer);
            let mut said = self.said.lock().await;
            loop {
                tokio::select! {
                    biased;
                    Some(_) = said.recv() => {}
                    reply = &mut answer => break reply,
                }
            }
        };
        tokio::select! {
            reply = answered => {
                self.note(&reply, 0, 0, 0);
                Some(reply)
            }
            _ = until => {
                self.bench.trace.add(format!("✗ {} dropped", self.method));
                None
            }
        }
    }

    fn late<T>(&self, limit: Duration) -> Checking<T> {
        let method = self.method;
        self.bench.trace.add(format!("✗ {method} has no answer"));
        broken(
            format!("an answer to `{method}` within {} s", limit.as_secs_f32()),
            "none came",
        )
    }

    fn note<R: Serialize>(
        &self,
        reply: &Result<R, ProviderError>,
        events: usize,
        out: usize,
        err: usize,
    ) {
        let said_before = match events {
            0 => String::new(),
            _ => format!(" after {events} events ({out} bytes of output, {err} of errors)"),
        };
        let text = answered(reply);
        self.bench
            .trace
            .add(format!("← {}{said_before}: {text}", self.method));
        if let Err(error) = reply {
            self.bench.trace.add_all(last_lines(error));
        }
    }
}
