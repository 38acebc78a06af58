//! The calls to a provider that is not compiled in: each goes to the port, once the file has been checked, and what its reply
//! says in words comes back clean.

use super::replies::Replies;
use super::{Plugin, PluginSetup};
use alpine_lifecycle::Failure;
use alpine_provider_api::*;
use async_trait::async_trait;
use tokio::sync::mpsc;

/// A file that is refused stays refused: the call is not repeated.
pub(super) fn refused(failure: Failure) -> ProviderError {
    ProviderError::new(ErrorKind::Unsupported, failure.cause).hint(failure.next_step)
}

impl Plugin {
    fn replies(&self) -> Replies<'_> {
        let PluginSetup { name, redactor, .. } = &self.0.setup;
        Replies { name, redactor }
    }
}

#[async_trait]
impl SandboxProvider for Plugin {
    async fn describe(&self) -> Result<DescribeReply, ProviderError> {
        let reply = self.whole().await?.describe().await?;
        Ok(self.replies().described(reply))
    }

    async fn provision(
        &self,
        call: &Call,
        request: ProvisionRequest,
    ) -> Result<ProvisionReply, ProviderError> {
        let reply = self.whole().await?.provision(call, request).await?;
        Ok(self.replies().provisioned(call, reply))
    }

    async fn sync_repo(
        &self,
        call: &Call,
        request: SyncRepoRequest,
    ) -> Result<SyncRepoReply, ProviderError> {
        self.whole().await?.sync_repo(call, request).await
    }

    async fn install(
        &self,
        call: &Call,
        request: InstallRequest,
    ) -> Result<InstallReply, ProviderError> {
        self.whole().await?.install(call, request).await
    }

    async fn start_agent(
        &self,
        call: &Call,
        request: StartAgentRequest,
    ) -> Result<StartAgentReply, ProviderError> {
        let reply = self.whole().await?.start_agent(call, request).await?;
        Ok(self.replies().started(&reply))
    }

    async fn open_agent(
        &self,
        call: &Call,
        request: OpenAgentRequest,
    ) -> Result<OpenAgentReply, ProviderError> {
        let reply = self.whole().await?.open_agent(call, request).await?;
        Ok(self.replies().opened(reply))
    }

    async fn inspect(
        &self,
        call: &Call,
        request: InspectRequest,
    ) -> Result<InspectReply, ProviderError> {
        self.whole().await?.inspect(call, request).await
    }

    async fn list(&self, call: &Call, request: ListRequest) -> Result<ListReply, ProviderError> {
        self.whole().await?.list(call, request).await
    }

    async fn exec(
        &self,
        call: &Call,
        request: ExecRequest,
        input: mpsc::Receiver<ExecInput>,
    ) -> Result<ExecReply, ProviderError> {
        self.whole().await?.exec(call, request, input).await
    }

    async fn logs(&self, call: &Call, request: LogsRequest) -> Result<LogsReply, ProviderError> {
        self.whole().await?.logs(call, request).await
    }

    async fn stop(&self, call: &Call, request: StopRequest) -> Result<StopReply, ProviderError> {
        self.whole().await?.stop(call, request).await
    }

    async fn capture(
        &self,
        call: &Call,
        request: CaptureRequest,
    ) -> Result<StagedSnapshot, ProviderError> {
        let reply = self.whole().await?.capture(call, request).await?;
        self.replies().captured(reply)
    }

    async fn persist(
        &self,
        call: &Call,
        request: PersistRequest,
    ) -> Result<PersistReply, ProviderError> {
        let reply = self.whole().await?.persist(call, request).await?;
        self.replies().persisted(reply)
    }

    async fn read_object(
        &self,
        call: &Call,
        request: ReadObjectRequest,
    ) -> Result<ReadObjectReply, ProviderError> {
        self.whole().await?.read_object(call, request).await
    }

    async fn restore(
        &self,
        call: &Call,
        request: RestoreRequest,
    ) -> Result<RestoreReply, ProviderError> {
        self.whole().await?.restore(call, request).await
    }

    async fn destroy(
        &self,
        call: &Call,
        request: DestroyRequest,
    ) -> Result<DestroyReply, ProviderError> {
        self.whole().await?.destroy(call, request).await
    }
}
