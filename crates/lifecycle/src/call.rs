//! Runs one step: its tries, its limits, its news, and what may end it early.

use crate::engine::Engine;
use crate::held::Held;
use crate::{Ending, ErrorCode, Failure, Progress, Step, shortened};
use alpine_ledger::StepRecord;
use alpine_provider_api::{
    Call, CallEvent, ErrorKind, Meta, ProviderError, Retry, SandboxProvider, SandboxState,
};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// How long a dropped call gets to let go of what it held.
const LET_GO: Duration = Duration::from_secs(2);

/// How many of a provider's warnings are recorded between two transactions.
const MOST_WARNINGS: usize = 20;

/// Why a step did not end well.
#[derive(Debug)]
pub(crate) enum StepEnd {
    /// The provider can't; the plan for failures goes on from here.
    Failed(Failure, ErrorKind),
    /// It was cut short: nothing is unwound, and the same request carries on.
    Stopped(Failure),
}

impl From<Failure> for StepEnd {
    /// What can't be recorded stops the operation where it is.
    fn from(failure: Failure) -> Self {
        StepEnd::Stopped(failure)
    }
}

/// The failure of a step whose provider says that all is well, or has said all there is.
pub(crate) fn fail(held: &Held, code: ErrorCode, cause: String, kind: ErrorKind) -> StepEnd {
    StepEnd::Failed(
        Failure::new(code, cause).in_operation(&held.operation.operation_id),
        kind,
    )
}

/// The work of a step: each try asks the provider the same.
pub(crate) fn asking<A: Clone, F>(
    provider: &Arc<dyn SandboxProvider>,
    ask: &A,
    call: impl Fn(Arc<dyn SandboxProvider>, Call, A) -> F,
) -> impl Fn(Call) -> F {
    let (provider, ask) = (provider.clone(), ask.clone());
    move |meta| call(provider.clone(), meta, ask.clone())
}

impl Engine {
    /// Does a step: at most `tries` times, each within `limit`, all within the operation's deadline.
    pub(crate) async fn step<T, W, F>(
        &self,
        held: &mut Held,
        step: Step,
        limit: Duration,
        work: W,
    ) -> Result<T, StepEnd>
    where
        T: Send + 'static,
        W: Fn(Call) -> F,
        F: Future<Output = Result<T, ProviderError>> + Send + 'static,
    {
        self.watch.tell(Progress::Started(step));
        let (begun, started) = (self.env.clock.boot_ms(), Instant::now());
        let mut attempt = 1;
        let ended = loop {
            match self.attempt(held, step, limit, attempt, &work).await {
                Ok(Err(error)) if may_pass(&error) && attempt < self.limits.tries => {
                    match self.again(held, step, attempt, &error).await {
                        Ok(true) => attempt += 1,
                        Ok(false) => break Ok(Err(error)),
                        Err(stopped) => break Err(stopped),
                    }
                }
                other => break other,
            }
        };
        let duration_ms = self.env.clock.boot_ms().saturating_sub(begun);
        if step.moves_bytes() {
            held.deadline += started.elapsed();
        }
        let ending = match &ended {
            Ok(Ok(_)) => Ending::Done,
            Ok(Err(_)) => Ending::Failed,
            Err(cut) if cut.code == ErrorCode::Timeout => Ending::TimedOut,
            Err(_) => Ending::Interrupted,
        };
        self.watch.tell(Progress::Finished {
            step,
            took: Duration::from_millis(duration_ms),
            ending,
        });
        let ended = match ended {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(self.failed(held, step, &error)),
            Err(failure) => Err(StepEnd::Stopped(failure)),
        };
        let error_code = match &ended {
            Ok(_) => None,
            Err(StepEnd::Failed(failure, _) | StepEnd::Stopped(failure)) => {
                Some(failure.code.as_str().to_owned())
            }
        };
        tracing::info!(session_id = %held.session.session_id, operation_id = %held.operation.operation_id, %step, duration_ms, ok = ended.is_ok(), "step");
        held.steps.push(StepRecord {
            step: step.as_str().to_owned(),
            at: self.now(),
            duration_ms,
            attempts: attempt,
            error_code,
        });
        ended
    }

    fn failed(&self, held: &Held, step: Step, error: &ProviderError) -> StepEnd {
        if error.kind == ErrorKind::Fenced {
            let cause = format!(
                "{step}: another process has taken this operation over: {}",
                shortened(error).message
            );
            return StepEnd::Stopped(Failure::new(ErrorCode::OperationConflict, cause));
        }
        let failure = Failure::provider(step.code_of(error.kind), step, error)
            .in_operation(&held.operation.operation_id);
        StepEnd::Failed(failure, error.kind)
    }

    /// One try. The outer error says why it was cut short.
    async fn attempt<T, W, F>(
        &self,
        held: &mut Held,
        step: Step,
        limit: Duration,
        attempt: u32,
        work: &W,
    ) -> Result<Result<T, ProviderError>, Failure>
    where
        T: Send + 'static,
        W: Fn(Call) -> F,
        F: Future<Output = Result<T, ProviderError>> + Send + 'static,
    {
        let (sender, mut events) = mpsc::channel(64);
        let meta = Meta {
            operation_id: held.operation.operation_id.as_str().to_owned(),
            fence: held.token.fence,
            attempt,
            deadline_ms: u64::try_from(limit.as_millis()).unwrap_or(u64::MAX),
            traceparent: None,
        };
        // A task of its own: even a provider that blocks its thread can't keep the engine from its deadlines.
        let mut task = tokio::spawn(work(Call::new(meta, sender)));
        let mut interrupt = self.interrupt.clone();
        let mut until = Instant::now() + limit;
        let ended = loop {
            let overall = if step.moves_bytes() {
                until
            } else {
                held.deadline
            };
            tokio::select! {
                biased;
                done = &mut task => break Ok(done.unwrap_or_else(|died| Err(ProviderError::new(ErrorKind::Internal, format!("the provider panicked: {died}"))))),
                signal = interrupt.raised() => break Err(Failure::signalled(signal)),
                failure = held.stopped() => break Err(failure),
                Some(event) = events.recv() => {
                    if step.moves_bytes() && matches!(event, CallEvent::Progress { .. }) {
                        until = Instant::now() + limit;
                    }
                    self.news(held, step, event);
                }
                () = tokio::time::sleep_until(until) => break Err(timed_out(step, limit)),
                () = tokio::time::sleep_until(overall) => break Err(Failure::new(ErrorCode::Timeout, format!("the operation's time limit passed during `{step}`"))),
            }
        };
        if ended.is_err() {
            let_go(&mut task).await;
        }
        // What was said last may not have been heard yet.
        while let Ok(event) = events.try_recv() {
            self.news(held, step, event);
        }
        ended
    }

    fn news(&self, held: &mut Held, step: Step, event: CallEvent) {
        match event {
            CallEvent::Progress { what, done, total } => {
                self.watch.tell(Progress::Moved {
                    step,
                    what: self.redactor.redact(&what),
                    done,
                    total,
                });
            }
            CallEvent::Warning(text) => self.warn(held, text),
            CallEvent::Stdout(_) | CallEvent::Stderr(_) => {}
        }
    }

    /// Waits before the next try of a step, and says whether there is to be one.
    async fn again(
        &self,
        held: &Held,
        step: Step,
        attempt: u32,
        error: &ProviderError,
    ) -> Result<bool, Failure> {
        let cause = self.redactor.redact(&shortened(error).message);
        tracing::info!(%step, attempt, %cause, "will be tried again");
        self.watch.tell(Progress::Retrying { step, cause });
        self.pause(held, attempt).await?;
        if error.kind.has_crashed() {
            return self.goes_on(held, step).await;
        }
        Ok(true)
    }

    /// A provider that has died may have done the work or not: `inspect` of a fresh one says whether the same call can
    /// finish it. It is asked again also where `inspect` finds it done: only the call itself gives its reply, and finishes
    /// what `inspect` does not see (a staged workspace, the session's address, that an id is destroyed for ever).
    async fn goes_on(&self, held: &Held, step: Step) -> Result<bool, Failure> {
        if step == Step::Resolve {
            return Ok(true);
        }
        match self.seen(&held.session).await {
            Ok(state) => {
                tracing::info!(session_id = %held.session.session_id, %step, sandbox = state.as_str(), "the provider died");
                Ok(state == SandboxState::Running || !step.needs_running())
            }
            Err(failure) if failure.code == ErrorCode::Interrupted => Err(failure),
            // The next try finds out.
            Err(_) => Ok(true),
        }
    }

    /// Warns now, and in the record.
    pub(crate) fn warn(&self, held: &mut Held, text: String) {
        let text = self.redactor.redact(&text);
        self.watch.tell(Progress::Warning(text.clone()));
        if held.warnings.len() < MOST_WARNINGS {
            held.warnings.push(text);
        }
    }

    /// Waits before the next try: twice as long each time, with jitter, and never past what ends the operation.
    async fn pause(&self, held: &Held, attempt: u32) -> Result<(), Failure> {
        let span = self.limits.backoff * 2u32.saturating_pow(attempt - 1);
        let jitter = u32::try_from((self.env.random)() % 1000).unwrap_or(0);
        let span = span / 2 + span * jitter / 1000;
        let mut interrupt = self.interrupt.clone();
        tokio::select! {
            signal = interrupt.raised() => Err(Failure::signalled(signal)),
            failure = held.stopped() => Err(failure),
            () = tokio::time::sleep_until(held.deadline) => Err(Failure::new(ErrorCode::Timeout, "the operation's time limit passed")),
            () = tokio::time::sleep(span) => Ok(()),
        }
    }
}

/// Whether another try may end better. That of a provider that has died or panicked is looked into first.
fn may_pass(error: &ProviderError) -> bool {
    error.retry == Retry::Transient || error.kind.has_crashed()
}

fn timed_out(step: Step, limit: Duration) -> Failure {
    let without = if step.moves_bytes() {
        " without progress"
    } else {
        ""
    };
    Failure::new(
        ErrorCode::Timeout,
        format!(
            "`{step}` took longer than {} s{without}",
            limit.as_secs_f32()
        ),
    )
}

/// Drops the call and waits, for a moment, until it is gone.
async fn let_go<T>(task: &mut JoinHandle<T>) {
    task.abort();
    // A call that does not let go in time is left behind: its fence is its limit.
    let _ = tokio::time::timeout(LET_GO, task).await;
}
