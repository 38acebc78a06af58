//! What providers say of their sandboxes: many are asked at once, in limited time, and never past the caller's wish to stop.

use crate::engine::Engine;
use crate::reconcile::{Finding, Reconciled};
use crate::{ErrorCode, Failure, shortened};
use alpine_ledger::SessionRecord;
use alpine_provider_api::*;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// How many are asked at once.
const AT_ONCE: usize = 16;

/// Sandboxes, each with its provider's name; and what there is to say of providers that did not answer.
type Listed = (Vec<(String, ListedSandbox)>, Vec<Reconciled>);

impl Engine {
    /// What the providers say they have of this ledger's.
    pub(crate) async fn listed(&self) -> Result<Listed, Failure> {
        let names: Vec<_> = self.providers.names().map(str::to_owned).collect();
        let list = |engine: Engine, name: String| async move { engine.listed_by(name).await };
        let mut listed = Listed::default();
        for answer in self.each(names, list).await? {
            match answer {
                Ok(mut sandboxes) => listed.0.append(&mut sandboxes),
                Err(unanswered) => listed.1.push(unanswered),
            }
        }
        Ok(listed)
    }

    async fn listed_by(
        &self,
        name: String,
    ) -> Result<Result<Vec<(String, ListedSandbox)>, Reconciled>, Failure> {
        let provider = self.providers.get(&name)?;
        let call = self.quiet("op_reconcile");
        let request = ListRequest {
            // A dry run makes no ledger where it was lost.
            ledger_id: self.ledger.id_or_kept()?,
        };
        let asked = provider.list(&call, request);
        let step = format!("list of provider `{name}`");
        let (limit, code) = (self.limits.probe, ErrorCode::SandboxUnavailable);
        match self.answer(&step, limit, code, asked).await {
            Ok(reply) => {
                let sandboxes = reply.sandboxes.into_iter();
                Ok(Ok(sandboxes
                    .map(|sandbox| (name.clone(), sandbox))
                    .collect()))
            }
            Err(failure) if failure.code == ErrorCode::Interrupted => Err(failure),
            Err(failure) => Ok(Err(Reconciled {
                session_id: None,
                sandbox_id: None,
                finding: Finding::NotAnswered,
                state: None,
                done: false,
                error: Some(self.told(&failure)),
                durable_object_id: None,
            })),
        }
    }

    /// What the provider says of a session's sandbox.
    pub(crate) async fn seen(&self, session: &SessionRecord) -> Result<SandboxState, Failure> {
        let (provider, sandbox) = (&session.new.provider, &session.sandbox_id);
        let operation = session.operation_id.as_str();
        self.look_at(provider, sandbox, operation, self.limits.probe)
            .await
    }

    /// What the provider says of a sandbox, within the limit.
    pub(crate) async fn look_at(
        &self,
        provider: &str,
        sandbox: &str,
        operation: &str,
        limit: Duration,
    ) -> Result<SandboxState, Failure> {
        let provider = self.providers.get(provider)?;
        let Some(sandbox_id) = SandboxId::new(sandbox) else {
            return Ok(SandboxState::Unknown);
        };
        let request = InspectRequest {
            sandbox_id,
            probe: false,
        };
        let call = self.quiet(operation);
        let asked = provider.inspect(&call, request);
        let code = ErrorCode::SandboxUnavailable;
        Ok(self.answer("inspect", limit, code, asked).await?.state)
    }

    /// Asks the same of each, of several at once; the answers are in their order.
    pub(crate) async fn each<I, T, F>(
        &self,
        all: Vec<I>,
        ask: impl Fn(Engine, I) -> F,
    ) -> Result<Vec<T>, Failure>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Failure>> + Send + 'static,
    {
        let turns = Arc::new(Semaphore::new(AT_ONCE));
        // Those that still run end with it.
        let mut tasks = JoinSet::new();
        for (at, one) in all.into_iter().enumerate() {
            let (asked, turns) = (ask(self.clone(), one), turns.clone());
            tasks.spawn(async move {
                let _turn = turns.acquire().await;
                (at, asked.await)
            });
        }
        let mut answers = Vec::new();
        while let Some(done) = tasks.join_next().await {
            let (at, answer) = done.map_err(|died| {
                Failure::new(
                    ErrorCode::Internal,
                    format!("the provider panicked: {died}"),
                )
            })?;
            answers.push((at, answer?));
        }
        answers.sort_by_key(|(at, _)| *at);
        Ok(answers.into_iter().map(|(_, answer)| answer).collect())
    }

    /// A provider's answer, if it comes in time.
    pub(crate) async fn answer<T>(
        &self,
        step: &str,
        limit: Duration,
        code: ErrorCode,
        asked: impl Future<Output = Result<T, ProviderError>>,
    ) -> Result<T, Failure> {
        let mut interrupt = self.interrupt.clone();
        let answer = tokio::select! {
            signal = interrupt.raised() => return Err(Failure::signalled(signal)),
            answer = tokio::time::timeout(limit, asked) => answer,
        };
        match answer {
            Ok(Ok(reply)) => Ok(reply),
            Ok(Err(error)) => {
                let code = if error.kind.has_crashed() {
                    ErrorCode::ProviderCrashed
                } else {
                    code
                };
                Err(Failure::new(
                    code,
                    format!("{step}: {}", shortened(&error).message),
                ))
            }
            Err(_) => Err(Failure::new(
                ErrorCode::Timeout,
                format!("{step}: not answered in time"),
            )),
        }
    }

    /// A call outside of any operation, which changes nothing.
    pub(crate) fn quiet(&self, operation: &str) -> Call {
        Call::quiet(Meta {
            operation_id: operation.to_owned(),
            fence: 0,
            attempt: 1,
            deadline_ms: u64::try_from(self.limits.probe.as_millis()).unwrap_or(u64::MAX),
            traceparent: None,
        })
    }

    /// A failure as a report tells it.
    pub(crate) fn told(&self, failure: &Failure) -> String {
        self.redactor
            .redact(&format!("{}: {}", failure.code, failure.cause))
    }
}
