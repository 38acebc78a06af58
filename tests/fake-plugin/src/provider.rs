//! The fake, but for the commands that begin with `odd`.

use crate::odd;
use alpine_provider_api::*;
use alpine_testkit::{FakeProvider, TestClock};
use async_trait::async_trait;
use std::path::PathBuf;
use tokio::sync::mpsc;

type Reply<R> = Result<R, ProviderError>;

/// The fake, as a provider that is loaded.
#[derive(Debug)]
pub struct FakePlugin(FakeProvider);

impl FakePlugin {
    /// A provider whose state is in that directory, and whose work is real or only told.
    #[must_use]
    pub fn new(state: PathBuf, real: bool) -> Self {
        Self(match real {
            true => FakeProvider::real(state),
            false => FakeProvider::new(state),
        })
    }

    /// The same, with the time of that clock.
    #[must_use]
    pub fn with_clock(self, clock: TestClock) -> Self {
        Self(self.0.with_clock(clock))
    }
}

#[async_trait]
impl SandboxProvider for FakePlugin {
    async fn describe(&self) -> Reply<DescribeReply> {
        self.0.describe().await
    }

    async fn provision(&self, call: &Call, request: ProvisionRequest) -> Reply<ProvisionReply> {
        self.0.provision(call, request).await
    }

    async fn sync_repo(&self, call: &Call, request: SyncRepoRequest) -> Reply<SyncRepoReply> {
        self.0.sync_repo(call, request).await
    }

    async fn install(&self, call: &Call, request: InstallRequest) -> Reply<InstallReply> {
        self.0.install(call, request).await
    }

    async fn start_agent(&self, call: &Call, request: StartAgentRequest) -> Reply<StartAgentReply> {
        self.0.start_agent(call, request).await
    }

    async fn open_agent(&self, call: &Call, request: OpenAgentRequest) -> Reply<OpenAgentReply> {
        self.0.open_agent(call, request).await
    }

    async fn inspect(&self, call: &Call, request: InspectRequest) -> Reply<InspectReply> {
        self.0.inspect(call, request).await
    }

    async fn list(&self, call: &Call, request: ListRequest) -> Reply<ListReply> {
        self.0.list(call, request).await
    }

    async fn exec(
        &self,
        call: &Call,
        request: ExecRequest,
        input: mpsc::Receiver<ExecInput>,
    ) -> Reply<ExecReply> {
        match request.argv.split_first() {
            Some((odd, rest)) if odd == "odd" => odd::run(call, rest, input).await,
            Some(_) | None => self.0.exec(call, request, input).await,
        }
    }

    async fn logs(&self, call: &Call, request: LogsRequest) -> Reply<LogsReply> {
        self.0.logs(call, request).await
    }

    async fn stop(&self, call: &Call, request: StopRequest) -> Reply<StopReply> {
        self.0.stop(call, request).await
    }

    async fn capture(&self, call: &Call, request: CaptureRequest) -> Reply<StagedSnapshot> {
        self.0.capture(call, request).await
    }

    async fn persist(&self, call: &Call, request: PersistRequest) -> Reply<PersistReply> {
        self.0.persist(call, request).await
    }

    async fn read_object(&self, call: &Call, request: ReadObjectRequest) -> Reply<ReadObjectReply> {
        self.0.read_object(call, request).await
    }

    async fn restore(&self, call: &Call, request: RestoreRequest) -> Reply<RestoreReply> {
        self.0.restore(call, request).await
    }

    async fn destroy(&self, call: &Call, request: DestroyRequest) -> Reply<DestroyReply> {
        self.0.destroy(call, request).await
    }
}
