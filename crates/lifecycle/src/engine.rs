//! The engine: what it works with, and how it reaches the ledger.

use crate::{Env, ErrorCode, Failure, Interrupt, Limits, Progress, Providers, Watch};
use alpine_ledger::{Ledger, LedgerError, Snapshot, Timestamp, Tx};
use alpine_provider_api::{
    AgentSpec, BranchName, CommitId, GitCredential, ProviderError, Redactor, RepoUrl,
};
use async_trait::async_trait;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use tokio::time::Instant;

/// Who knows what a branch points at: asked once, when an `up` begins.
#[async_trait]
pub trait Tips: Send + Sync + fmt::Debug {
    /// The commit at the branch's tip.
    async fn tip(
        &self,
        repo: &RepoUrl,
        branch: &BranchName,
        credential: Option<&GitCredential>,
    ) -> Result<CommitId, ProviderError>;
}

/// Brings sessions up and down.
#[derive(Clone, Debug)]
pub struct Engine {
    /// What is true.
    pub ledger: Ledger,
    /// Who does it.
    pub providers: Providers,
    /// Who knows the branches' tips.
    pub tips: Arc<dyn Tips>,
    /// The agents that are configured.
    pub agents: BTreeMap<String, AgentSpec>,
    /// Time and chance.
    pub env: Env,
    /// How long things may take.
    pub limits: Limits,
    /// Takes secrets out of what is recorded.
    pub redactor: Redactor,
    /// Where news goes.
    pub watch: Watch,
    /// The caller's wish to stop.
    pub interrupt: Interrupt,
}

impl Engine {
    /// One transaction. The closure is synchronous, so that nothing can be awaited under the ledger's lock.
    pub(crate) async fn write<T: Send + 'static>(
        &self,
        change: impl FnOnce(&mut Tx<'_>) -> Result<T, LedgerError> + Send + 'static,
    ) -> Result<T, Failure> {
        self.write_until(Instant::now(), change).await
    }

    /// The same; a ledger that others keep busy is tried again until the deadline, or until the caller wishes to stop.
    pub(crate) async fn write_until<T: Send + 'static>(
        &self,
        deadline: Instant,
        change: impl FnOnce(&mut Tx<'_>) -> Result<T, LedgerError> + Send + 'static,
    ) -> Result<T, Failure> {
        let mut change = change;
        loop {
            let ledger = self.ledger.clone();
            let (busy, unused) = match blocking(move || attempt(&ledger, change)).await? {
                Attempt::Done(value) => {
                    return value.ok_or_else(|| unmade("the ledger left it out"));
                }
                Attempt::Busy(busy, unused) => (busy, unused),
            };
            if let Some(signal) = self.interrupt.is_raised() {
                return Err(Failure {
                    code: ErrorCode::Interrupted,
                    ..Failure::from(busy)
                }
                .exit(signal.exit_code()));
            }
            if Instant::now() >= deadline {
                return Err(busy.into());
            }
            tracing::warn!(%busy, "tried again");
            self.watch.tell(Progress::Busy {
                cause: busy.to_string(),
            });
            change = unused;
        }
    }

    /// One consistent look.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Snapshot<'_>) -> Result<T, LedgerError> + Send + 'static,
    ) -> Result<T, Failure> {
        let ledger = self.ledger.clone();
        blocking(move || ledger.read(look)).await
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.env.clock.now()
    }
}

/// What came of one try of a transaction.
enum Attempt<T, F> {
    Done(Option<T>),
    /// Others kept the ledger busy: the change was not begun.
    Busy(LedgerError, F),
}

fn attempt<T, F>(ledger: &Ledger, change: F) -> Result<Attempt<T, F>, LedgerError>
where
    F: FnOnce(&mut Tx<'_>) -> Result<T, LedgerError>,
{
    let mut unused = Some(change);
    let result = ledger.write(|tx| unused.take().map(|change| change(tx)).transpose());
    match (result, unused) {
        (Err(busy @ LedgerError::Busy { .. }), Some(change)) => Ok(Attempt::Busy(busy, change)),
        (result, _) => result.map(Attempt::Done),
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, LedgerError> + Send + 'static,
) -> Result<T, Failure> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result.map_err(Failure::from),
        Err(died) => Err(unmade(died)),
    }
}

fn unmade(why: impl fmt::Display) -> Failure {
    Failure::new(
        ErrorCode::Internal,
        format!("a ledger transaction died: {why}"),
    )
}
