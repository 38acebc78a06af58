//! A provider behind the trait that has the six methods and lacks others, as its `describe` tells: in C, in Python, in a
//! few lines of anything.

use crate::provider::Adapted;
use crate::sandboxes::{Facts, Network, Sandboxes, Storage};
use alpine_provider_api::*;
use async_trait::async_trait;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// The methods that a provider needs to be adapted.
const SIX: [Method; 6] = [
    Method::Provision,
    Method::Exec,
    Method::Inspect,
    Method::List,
    Method::Stop,
    Method::Destroy,
];
/// The methods without which no session comes up, or goes down.
const NEEDED: [Method; 7] = [
    Method::SyncRepo,
    Method::Install,
    Method::StartAgent,
    Method::Capture,
    Method::Persist,
    Method::ReadObject,
    Method::Restore,
];

/// The six methods of a provider.
#[derive(Clone, Debug)]
struct Six {
    provider: Arc<dyn SandboxProvider>,
    facts: Facts,
}

/// The provider itself where it is whole, and otherwise the adapter over its six methods, which keeps what it has to keep
/// in this place. What such a provider has beyond the six is not used.
///
/// # Errors
/// Those of `describe`; and `Unsupported` for one that lacks some of the six, with which no session could be brought to its end.
pub async fn whole(
    provider: Arc<dyn SandboxProvider>,
    place: &Place,
) -> Result<Arc<dyn SandboxProvider>, ProviderError> {
    let says = provider.describe().await?;
    let has = |method: &Method| says.has(*method);
    let lacks: Vec<_> = SIX.iter().filter(|method| !has(method)).collect();
    if !lacks.is_empty() {
        let names: Vec<_> = lacks.iter().map(|method| format!("`{method}`")).collect();
        let message = format!(
            "its `describe` does not announce {}, which every provider has",
            names.join(", ")
        );
        return Err(ProviderError::new(ErrorKind::Unsupported, message));
    }
    if NEEDED.iter().all(has) {
        return Ok(provider);
    }
    let facts = Facts {
        // Its `exec` is the only way in, and may end with the sandbox.
        storage: Storage::WhileRunning,
        network: match says.announces(Feature::HostNetwork) {
            true => Network::Shared,
            false => Network::Closed,
        },
        exec_signals: says.announces(Feature::ExecSignals),
        name: says.name,
        version: says.version,
        isolation: says.isolation,
        limits: says.limits,
        config_schema: says.config_schema,
    };
    Ok(Arc::new(Adapted::new(Six { provider, facts }, place)))
}

/// A call of the adapter's own, of a method that checks no fence.
fn unfenced() -> Call {
    Call::quiet(Meta {
        operation_id: String::new(),
        fence: 0,
        attempt: 1,
        deadline_ms: 0,
        traceparent: None,
    })
}

#[async_trait]
impl Sandboxes for Six {
    fn facts(&self) -> Facts {
        self.facts.clone()
    }

    async fn provision(
        &self,
        call: &Call,
        request: &ProvisionRequest,
    ) -> Result<ProvisionReply, ProviderError> {
        self.provider.provision(call, request.clone()).await
    }

    async fn exec(
        &self,
        call: &Call,
        request: ExecRequest,
        input: mpsc::Receiver<ExecInput>,
    ) -> Result<ExecReply, ProviderError> {
        self.provider.exec(call, request, input).await
    }

    async fn inspect(&self, id: &SandboxId) -> Result<SandboxState, ProviderError> {
        let request = InspectRequest {
            sandbox_id: id.clone(),
            probe: false,
        };
        let found = self.provider.inspect(&unfenced(), request).await?;
        Ok(found.state)
    }

    async fn list(&self, ledger_id: &str) -> Result<Vec<ListedSandbox>, ProviderError> {
        let request = ListRequest {
            ledger_id: ledger_id.to_owned(),
        };
        let found = self.provider.list(&unfenced(), request).await?;
        Ok(found.sandboxes)
    }

    async fn stop(
        &self,
        call: &Call,
        id: &SandboxId,
        grace: Duration,
    ) -> Result<StopReply, ProviderError> {
        let request = StopRequest {
            sandbox_id: id.clone(),
            grace_ms: u64::try_from(grace.as_millis()).unwrap_or(u64::MAX),
        };
        self.provider.stop(call, request).await
    }

    async fn destroy(&self, call: &Call, id: &SandboxId) -> Result<(), ProviderError> {
        let request = DestroyRequest {
            sandbox_id: id.clone(),
        };
        self.provider.destroy(call, request).await.map(drop)
    }
}
