//! The calls to a provider that is not compiled in: each goes to the port, once the file has been checked.

use super::Plugin;
use alpine_lifecycle::Failure;
use alpine_provider_api::*;
use async_trait::async_trait;
use tokio::sync::mpsc;

/// A file that is refused stays refused: the call is not repeated.
fn refused(failure: Failure) -> ProviderError {
    ProviderError::new(ErrorKind::Unsupported, failure.cause).hint(failure.next_step)
}

#[async_trait]
impl SandboxProvider for Plugin {
    async fn describe(&self) -> Result<DescribeReply, ProviderError> {
        let port = self.port().await.map_err(refused)?;
        port.describe().await
    }

    async fn provision(
        &self,
        call: &Call,
        request: ProvisionRequest,
    ) -> Result<ProvisionReply, ProviderError> {
        let port = self.port().await.map_err(refused)?;
        port.provision(call, request).await
    }

    async fn sync_repo(
        &self,
        call: &Call,
        request: SyncRepoRequest,
    ) -> Result<SyncRepoReply, ProviderError> {
        let port = self.port().await.map_err(refused)?;
        port.sync_repo(call, request).await
    }

    async fn install(
        &self,
        call: &Call,
        request: InstallRequest,
    ) -> Result<InstallReply, ProviderError> {
        let port = self.port().await.map_err(refused)?;
        port.install(call, request).await
    }

    async fn start_agent(
        &self,
        call: &Call,
        request: StartAgentRequest,
    ) -> Result<StartAgentReply, ProviderError> {
        let port = self.port().await.map_err(refused)?;
        port.start_agent(call, request).await
    }

    async fn open_agent(
        &self,
        call: &Call,
        request: OpenAgentRequest,
    ) -> Result<OpenAgentReply, ProviderError> {
        let port = self.port().await.map_err(refused)?;
        port.open_agent(call, request).await
    }

    async fn inspect(
        &self,
        call: &Call,
        request: InspectRequest,
    ) -> Result<InspectReply, ProviderError> {
        let port = self.port().await.map_err(refused)?;
        port.inspect(call, request).await
    }

    async fn list(&self, call: &Call, request: ListRequest) -> Result<ListReply, ProviderError> {
        let port = self.port().await.map_err(refused)?;
        port.list(call, request).await
    }

    async fn exec(
        &self,
        call: &Call,
        request: ExecRequest,
        input: mpsc::Receiver<ExecInput>,
    ) -> Result<ExecReply, ProviderError> {
        let port = self.port().await.map_err(refused)?;
        port.exec(call, request, input).await
    }

    async fn logs(&self, call: &Call, request: LogsRequest) -> Result<LogsReply, ProviderError> {
        let port = self.port().await.map_err(refused)?;
        port.logs(call, request).await
    }

    async fn stop(&self, call: &Call, request: StopRequest) -> Result<StopReply, ProviderError> {
        let port = self.port().await.map_err(refused)?;
        port.stop(call, request).await
    }

    async fn capture(
        &self,
        call: &Call,
        request: CaptureRequest,
    ) -> Result<StagedSnapshot, ProviderError> {
        let port = self.port().await.map_err(refused)?;
        port.capture(call, request).await
    }

    async fn persist(
        &self,
        call: &Call,
        request: PersistRequest,
    ) -> Result<PersistReply, ProviderError> {
        let port = self.port().await.map_err(refused)?;
        port.persist(call, request).await
    }

    async fn read_object(
        &self,
        call: &Call,
        request: ReadObjectRequest,
    ) -> Result<ReadObjectReply, ProviderError> {
        let port = self.port().await.map_err(refused)?;
        port.read_object(call, request).await
    }

    async fn restore(
        &self,
        call: &Call,
        request: RestoreRequest,
    ) -> Result<RestoreReply, ProviderError> {
        let port = self.port().await.map_err(refused)?;
        port.restore(call, request).await
    }

    async fn destroy(
        &self,
        call: &Call,
        request: DestroyRequest,
    ) -> Result<DestroyReply, ProviderError> {
        let port = self.port().await.map_err(refused)?;
        port.destroy(call, request).await
    }
}
