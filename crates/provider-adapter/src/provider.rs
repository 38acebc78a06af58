//! The whole provider over six methods: each call is one function of a module that is named for it.

use crate::record::Records;
use crate::sandboxes::{Network, Sandboxes, Storage};
use alpine_git::{Git, GitConfig};
use alpine_provider_api::*;
use alpine_provider_local::Front;
use async_trait::async_trait;
use std::collections::BTreeMap;
use std::path::PathBuf;
use tokio::sync::mpsc;

/// Variables of [`Place::env`] that git on this machine gets too.
const FOR_GIT: [&str; 10] = [
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "all_proxy",
    "no_proxy",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
];

/// A whole provider over what can make sandboxes and run commands in them.
#[derive(Clone, Debug)]
pub struct Adapted<S> {
    pub(crate) sandboxes: S,
    pub(crate) records: Records,
    pub(crate) git: Git,
    pub(crate) objects: PathBuf,
    /// Serves sessions' addresses, where there is a program that can.
    pub(crate) front: Option<Front>,
}

impl<S: Sandboxes> Adapted<S> {
    /// A provider that keeps its records, caches and durable objects in this place; makes nothing of it yet.
    #[must_use]
    pub fn new(sandboxes: S, place: &Place) -> Self {
        let env = &place.env;
        let extra_env: BTreeMap<_, _> = FOR_GIT
            .iter()
            .filter_map(|name| Some(((*name).to_owned(), env.get(*name)?.clone())))
            .collect();
        let git = Git::new(GitConfig {
            cache: place.cache.clone(),
            path: env.get("PATH").cloned().unwrap_or_default().into(),
            home: env.get("HOME").map(PathBuf::from),
            extra_env,
            redactor: Redactor::new(&[]),
        });
        let front = Front::new(&place.state.join("front"), &place.run, &place.executable);
        Self {
            front: (!place.executable.as_os_str().is_empty()).then_some(front),
            sandboxes,
            records: Records::new(&place.state),
            git,
            objects: place.objects.clone(),
        }
    }
}

#[async_trait]
impl<S: Sandboxes> SandboxProvider for Adapted<S> {
    async fn describe(&self) -> Result<DescribeReply, ProviderError> {
        let facts = self.sandboxes.facts();
        let mut features = vec![Feature::ExecInput, Feature::FollowLogs];
        if facts.exec_signals {
            features.push(Feature::ExecSignals);
        }
        if self.front.is_some() {
            features.push(Feature::ServePage);
            if facts.network != Network::Closed {
                features.push(Feature::ServeProcess);
            }
        }
        let methods = Method::ALL.iter();
        Ok(DescribeReply {
            captures_in_stop: facts.storage == Storage::WhileRunning,
            methods: methods
                .filter(|method| **method != Method::OpenAgent || self.front.is_some())
                .map(|method| method.as_str().to_owned())
                .collect(),
            features: features.iter().map(|it| it.as_str().to_owned()).collect(),
            limits: facts.limits,
            config_schema: facts.config_schema,
            ..DescribeReply::new(&facts.name, &facts.version, facts.isolation)
        })
    }

    async fn provision(
        &self,
        call: &Call,
        request: ProvisionRequest,
    ) -> Result<ProvisionReply, ProviderError> {
        self.make(call, request).await
    }

    async fn sync_repo(
        &self,
        call: &Call,
        request: SyncRepoRequest,
    ) -> Result<SyncRepoReply, ProviderError> {
        self.sync(call, request).await
    }

    async fn install(
        &self,
        call: &Call,
        request: InstallRequest,
    ) -> Result<InstallReply, ProviderError> {
        self.install_step(call, request.sandbox_id).await
    }

    async fn start_agent(
        &self,
        call: &Call,
        request: StartAgentRequest,
    ) -> Result<StartAgentReply, ProviderError> {
        self.start(call, request).await
    }

    async fn open_agent(
        &self,
        call: &Call,
        request: OpenAgentRequest,
    ) -> Result<OpenAgentReply, ProviderError> {
        self.open(call, request).await
    }

    async fn inspect(
        &self,
        call: &Call,
        request: InspectRequest,
    ) -> Result<InspectReply, ProviderError> {
        self.look(call, request).await
    }

    async fn list(&self, _call: &Call, request: ListRequest) -> Result<ListReply, ProviderError> {
        self.all_of(&request.ledger_id).await
    }

    async fn exec(
        &self,
        call: &Call,
        request: ExecRequest,
        input: mpsc::Receiver<ExecInput>,
    ) -> Result<ExecReply, ProviderError> {
        self.records.there(&request.sandbox_id)?;
        let named = request.env.keys();
        let strange = |name: &String| name.is_empty() || name.contains(['=', '\0']);
        if request.argv.first().is_none_or(String::is_empty)
            || request.argv.iter().any(|word| word.contains('\0'))
            || named.clone().any(strange)
        {
            let message = "the command, or a variable's name, is malformed";
            return Err(ProviderError::new(ErrorKind::InvalidArgument, message));
        }
        self.sandboxes.exec(call, request, input).await
    }

    async fn logs(&self, call: &Call, request: LogsRequest) -> Result<LogsReply, ProviderError> {
        self.tell(call, request).await
    }

    async fn stop(&self, call: &Call, request: StopRequest) -> Result<StopReply, ProviderError> {
        self.end(call, request).await
    }

    async fn capture(
        &self,
        call: &Call,
        request: CaptureRequest,
    ) -> Result<StagedSnapshot, ProviderError> {
        self.keep(call, request).await
    }

    async fn persist(
        &self,
        call: &Call,
        request: PersistRequest,
    ) -> Result<PersistReply, ProviderError> {
        self.put(call, request).await
    }

    async fn read_object(
        &self,
        call: &Call,
        request: ReadObjectRequest,
    ) -> Result<ReadObjectReply, ProviderError> {
        let progress = |done, total| call.progress("reading the durable object", done, total);
        let store = self.store().await?;
        store.read(&request.durable_object_id, &progress).await
    }

    async fn restore(
        &self,
        call: &Call,
        request: RestoreRequest,
    ) -> Result<RestoreReply, ProviderError> {
        self.bring_back(call, request).await
    }

    async fn destroy(
        &self,
        call: &Call,
        request: DestroyRequest,
    ) -> Result<DestroyReply, ProviderError> {
        self.unmake(call, &request.sandbox_id).await
    }
}
