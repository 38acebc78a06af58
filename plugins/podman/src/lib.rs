//! Sandboxes as containers of podman, or of what else speaks Docker's API.
//!
//! A container's name is its sandbox's id, and its labels say whose it is, so that a call that was killed anywhere is found
//! and carried on. The workspace is in the container's own layer: it can be read when the container is stopped, and is, by
//! the engine itself, when nothing in it can change it any more.

mod answer;
mod command;
mod config;
mod containers;
mod ending;

use alpine_provider_adapter::{Adapted, Facts, Sandboxes};
use alpine_provider_api::*;
use alpine_provider_port::export_provider;
use async_trait::async_trait;
pub use config::Config;
pub use containers::Containers;
use std::time::Duration;
use tokio::sync::mpsc;

/// The whole provider.
#[must_use]
pub fn open(config: Config, place: &Place) -> Adapted<Containers> {
    Adapted::new(Containers::new(config), place)
}

export_provider!("podman", |request: OpenRequest| {
    Ok(open(request.table()?, &request.place))
});

#[async_trait]
impl Sandboxes for Containers {
    fn facts(&self) -> Facts {
        self.config.facts()
    }

    async fn provision(
        &self,
        call: &Call,
        request: &ProvisionRequest,
    ) -> Result<ProvisionReply, ProviderError> {
        self.make(request).await?;
        let made = self.find(&request.sandbox_id).await?;
        let made = made.and_then(|made| made.host_config).unwrap_or_default();
        let isolation = self.config.isolation_of(&made);
        for missing in &isolation.missing {
            call.warn(format!("{} is not kept: {}", missing.what, missing.why));
        }
        Ok(ProvisionReply {
            workspace_path: None,
            isolation,
        })
    }

    async fn exec(
        &self,
        call: &Call,
        request: ExecRequest,
        input: mpsc::Receiver<ExecInput>,
    ) -> Result<ExecReply, ProviderError> {
        self.run(call, request, input).await
    }

    async fn inspect(&self, id: &SandboxId) -> Result<SandboxState, ProviderError> {
        self.state(id).await
    }

    async fn list(&self, ledger_id: &str) -> Result<Vec<ListedSandbox>, ProviderError> {
        self.all_of(ledger_id).await
    }

    async fn stop(
        &self,
        call: &Call,
        id: &SandboxId,
        grace: Duration,
    ) -> Result<StopReply, ProviderError> {
        self.end(call, id, grace).await
    }

    async fn destroy(&self, _call: &Call, id: &SandboxId) -> Result<(), ProviderError> {
        self.remove(id).await
    }

    async fn published(&self, id: &SandboxId, port: u16) -> Result<Option<u16>, ProviderError> {
        self.published_port(id, port).await
    }

    /// By the engine itself, from a container that is stopped.
    async fn take_out(&self, call: &Call, id: &SandboxId) -> Result<(), ProviderError> {
        self.archive(call, id).await
    }
}
