//! The provider itself: each call is one function of a module that is named for it.

use crate::config::LocalConfig;
use crate::intent::{self, Purpose};
use crate::isolation::isolation;
use crate::layout::{Home, Sandbox};
use crate::{
    agent, doomed, exec, file, inspect, install, keep, launch, logs, provision, record, remove,
};
use crate::{stop, sync};
use alpine_git::Git;
use alpine_provider_api::*;
use async_trait::async_trait;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::mpsc;

/// The built-in provider.
#[derive(Clone, Debug)]
pub struct LocalProvider {
    local: Arc<Local>,
}

/// What every call works with.
#[derive(Debug)]
pub(crate) struct Local {
    pub(crate) config: LocalConfig,
    pub(crate) home: Home,
    pub(crate) git: Git,
}

impl LocalProvider {
    /// A provider that works in these directories; makes none of them until it is asked for a sandbox.
    #[must_use]
    pub fn new(config: LocalConfig) -> Self {
        let home = Home::new(&config.home, &config.run_dir);
        let git = Git::new(config.git.clone());
        let local = Arc::new(Local { config, home, git });
        Self { local }
    }

    pub(crate) fn local(&self) -> &Arc<Local> {
        &self.local
    }
}

impl Local {
    /// Admits a call that changes a sandbox.
    pub(crate) async fn admit(
        self: &Arc<Self>,
        id: &SandboxId,
        fence: u64,
        purpose: Purpose,
    ) -> Result<Sandbox, ProviderError> {
        let (local, id) = (Arc::clone(self), id.clone());
        blocking(move || intent::admit(&local.home, &id, fence, purpose)).await
    }

    /// A sandbox that has to be there, for a call that changes nothing a lease guards.
    pub(crate) fn there(&self, id: &SandboxId) -> Result<Sandbox, ProviderError> {
        let sandbox = self.home.sandbox(id);
        intent::must_be_there(&self.home, &sandbox)?;
        Ok(sandbox)
    }

    /// A sandbox that has to run.
    pub(crate) fn running(&self, id: &SandboxId) -> Result<Sandbox, ProviderError> {
        let sandbox = self.there(id)?;
        match record::lock_is_held(&sandbox)? {
            true => Ok(sandbox),
            false => Err(ProviderError::new(
                ErrorKind::NotFound,
                format!("sandbox `{id}` does not run"),
            )),
        }
    }

    /// Starts the supervisor again where it died, unless the sandbox was stopped.
    pub(crate) async fn revive(self: &Arc<Self>, sandbox: &Sandbox) -> Result<(), ProviderError> {
        if record::lock_is_held(sandbox)? {
            return Ok(());
        }
        let (local, sandbox) = (Arc::clone(self), sandbox.clone());
        blocking(move || {
            let intent: Option<intent::Intent> = file::read_json(&sandbox.intent())?;
            let session = intent.map(|intent| intent.session_id).unwrap_or_default();
            let _held = intent::lock(&local.home, &sandbox.id)?;
            launch::ensure_running(&local.config, &sandbox, &session)?;
            local.running(&sandbox.id).map(drop)
        })
        .await
    }

    /// The variables that every process starts with, and these.
    pub(crate) fn env(
        &self,
        more: &BTreeMap<String, Secret<String>>,
    ) -> BTreeMap<String, Secret<String>> {
        let own = self.config.env.iter();
        let mut env: BTreeMap<_, _> = own
            .map(|(name, value)| (name.clone(), Secret::new(value.clone())))
            .collect();
        env.extend(
            more.iter()
                .map(|(name, value)| (name.clone(), value.clone())),
        );
        env
    }
}

/// Does what would keep the runtime's thread waiting on a thread made for that.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ProviderError> + Send + 'static,
) -> Result<T, ProviderError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(source) => Err(ProviderError::new(ErrorKind::Internal, source.to_string())),
    }
}

#[async_trait]
impl SandboxProvider for LocalProvider {
    async fn describe(&self) -> Result<DescribeReply, ProviderError> {
        let version = env!("CARGO_PKG_VERSION");
        Ok(DescribeReply::new("local", version, isolation()))
    }

    async fn provision(
        &self,
        call: &Call,
        request: ProvisionRequest,
    ) -> Result<ProvisionReply, ProviderError> {
        let (local, fence) = (Arc::clone(&self.local), call.meta.fence);
        let made = blocking(move || provision::provision(&local, fence, request)).await;
        doomed::tidy(&self.local, call).await;
        made
    }

    async fn sync_repo(
        &self,
        call: &Call,
        request: SyncRepoRequest,
    ) -> Result<SyncRepoReply, ProviderError> {
        sync::sync_repo(&self.local, call, request).await
    }

    async fn install(
        &self,
        call: &Call,
        request: InstallRequest,
    ) -> Result<InstallReply, ProviderError> {
        install::install(&self.local, call, request).await
    }

    async fn start_agent(
        &self,
        call: &Call,
        request: StartAgentRequest,
    ) -> Result<StartAgentReply, ProviderError> {
        agent::start_agent(&self.local, call, request).await
    }

    async fn open_agent(
        &self,
        _call: &Call,
        request: OpenAgentRequest,
    ) -> Result<OpenAgentReply, ProviderError> {
        agent::open_agent(&self.local, request).await
    }

    async fn inspect(
        &self,
        _call: &Call,
        request: InspectRequest,
    ) -> Result<InspectReply, ProviderError> {
        inspect::inspect(&self.local, request).await
    }

    async fn list(&self, call: &Call, request: ListRequest) -> Result<ListReply, ProviderError> {
        doomed::tidy(&self.local, call).await;
        let local = Arc::clone(&self.local);
        blocking(move || inspect::list(&local, &request)).await
    }

    async fn exec(
        &self,
        call: &Call,
        request: ExecRequest,
        input: mpsc::Receiver<ExecInput>,
    ) -> Result<ExecReply, ProviderError> {
        exec::exec(&self.local, call, request, input).await
    }

    async fn logs(&self, call: &Call, request: LogsRequest) -> Result<LogsReply, ProviderError> {
        logs::logs(&self.local, call, request).await
    }

    async fn stop(&self, call: &Call, request: StopRequest) -> Result<StopReply, ProviderError> {
        stop::stop(&self.local, call, request).await
    }

    async fn capture(
        &self,
        call: &Call,
        request: CaptureRequest,
    ) -> Result<StagedSnapshot, ProviderError> {
        keep::capture(&self.local, call, request).await
    }

    async fn persist(
        &self,
        call: &Call,
        request: PersistRequest,
    ) -> Result<PersistReply, ProviderError> {
        keep::persist(&self.local, call, request).await
    }

    async fn read_object(
        &self,
        call: &Call,
        request: ReadObjectRequest,
    ) -> Result<ReadObjectReply, ProviderError> {
        keep::read_object(&self.local, call, request).await
    }

    async fn restore(
        &self,
        call: &Call,
        request: RestoreRequest,
    ) -> Result<RestoreReply, ProviderError> {
        keep::restore(&self.local, call, request).await
    }

    async fn destroy(
        &self,
        call: &Call,
        request: DestroyRequest,
    ) -> Result<DestroyReply, ProviderError> {
        remove::destroy(&self.local, call, request).await
    }
}
