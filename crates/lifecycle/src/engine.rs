//! The engine: what it works with, and how it reaches the ledger.

use crate::{Env, ErrorCode, Failure, Interrupt, Limits, Providers, Watch};
use alpine_ledger::{Ledger, LedgerError, Snapshot, Timestamp, Tx};
use alpine_provider_api::{
    AgentSpec, BranchName, CommitId, GitCredential, ProviderError, Redactor, RepoUrl,
};
use async_trait::async_trait;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

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
        let ledger = self.ledger.clone();
        blocking(move || ledger.write(change)).await
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

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, LedgerError> + Send + 'static,
) -> Result<T, Failure> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result.map_err(Failure::from),
        Err(died) => Err(Failure::new(
            ErrorCode::Internal,
            format!("a ledger transaction died: {died}"),
        )),
    }
}
