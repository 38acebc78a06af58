//! Directories as sandboxes that fail where they are told to.

use alpine_plugin_template::Directories;
use alpine_provider_adapter::{Facts, Sandboxes};
use alpine_provider_api::*;
use async_trait::async_trait;
use std::time::Duration;
use tokio::sync::mpsc;

/// What fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fails {
    TakeOut,
    /// What takes the workspace out says that there is no such sandbox.
    TakeOutFindsNone,
    Provision,
    /// A part comes, and then the end of a whole stream.
    TakesOutHalf,
}

#[derive(Debug)]
pub(crate) struct Bent {
    pub(crate) inner: Directories,
    pub(crate) fails: Fails,
}

fn failure() -> ProviderError {
    ProviderError::new(ErrorKind::Io, "it was told to fail")
}

#[async_trait]
impl Sandboxes for Bent {
    fn facts(&self) -> Facts {
        self.inner.facts()
    }

    async fn provision(
        &self,
        call: &Call,
        request: &ProvisionRequest,
    ) -> Result<ProvisionReply, ProviderError> {
        match self.fails {
            Fails::Provision => Err(failure()),
            Fails::TakeOut | Fails::TakeOutFindsNone | Fails::TakesOutHalf => {
                self.inner.provision(call, request).await
            }
        }
    }

    async fn exec(
        &self,
        call: &Call,
        request: ExecRequest,
        input: mpsc::Receiver<ExecInput>,
    ) -> Result<ExecReply, ProviderError> {
        self.inner.exec(call, request, input).await
    }

    async fn inspect(&self, id: &SandboxId) -> Result<SandboxState, ProviderError> {
        self.inner.inspect(id).await
    }

    async fn list(&self, ledger_id: &str) -> Result<Vec<ListedSandbox>, ProviderError> {
        self.inner.list(ledger_id).await
    }

    async fn stop(
        &self,
        call: &Call,
        id: &SandboxId,
        grace: Duration,
    ) -> Result<StopReply, ProviderError> {
        self.inner.stop(call, id, grace).await
    }

    async fn destroy(&self, call: &Call, id: &SandboxId) -> Result<(), ProviderError> {
        self.inner.destroy(call, id).await
    }

    async fn take_out(&self, call: &Call, id: &SandboxId) -> Result<(), ProviderError> {
        match self.fails {
            Fails::TakeOut => Err(failure()),
            Fails::TakeOutFindsNone => Err(ProviderError {
                kind: ErrorKind::NotFound,
                ..failure()
            }),
            Fails::TakesOutHalf => {
                self.inner.take_out(call, id).await?;
                Err(failure())
            }
            Fails::Provision => self.inner.take_out(call, id).await,
        }
    }
}
