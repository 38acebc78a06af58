//! A session's life against the fake, call by call.

use alpine_provider_api::*;
use alpine_testkit::{FakeControl, FakeProvider};
use std::collections::BTreeMap;
use std::path::Path;
use tempfile::TempDir;

pub(crate) const COMMIT: &str = "0123456789012345678901234567890123456789";
pub(crate) const PAYLOAD: &str = r#"{"session_id":"ses_1"}"#;

pub(crate) struct Life {
    pub(crate) provider: FakeProvider,
    pub(crate) control: FakeControl,
    pub(crate) fence: u64,
    directory: TempDir,
}

type Reply<T> = Result<T, ProviderError>;

pub(crate) fn id() -> SandboxId {
    SandboxId::new("sbx_1").unwrap()
}

impl Life {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        Self {
            provider: FakeProvider::new(directory.path().join("fake")),
            control: FakeControl::new(directory.path().join("fake")),
            fence: 1,
            directory,
        }
    }

    pub(crate) fn root(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn call(&self) -> Call {
        Call::quiet(Meta {
            operation_id: "op_1".to_owned(),
            fence: self.fence,
            attempt: 1,
            deadline_ms: 0,
            traceparent: None,
        })
    }

    pub(crate) async fn provision(&self) -> Reply<ProvisionReply> {
        let request = ProvisionRequest {
            sandbox_id: id(),
            ledger_id: "ledger".to_owned(),
            session_id: "ses_1".to_owned(),
            allow_unsandboxed: false,
        };
        self.provider.provision(&self.call(), request).await
    }

    pub(crate) async fn sync_repo(
        &self,
        credential: Option<GitCredential>,
    ) -> Reply<SyncRepoReply> {
        let request = SyncRepoRequest {
            sandbox_id: id(),
            repo: RepoUrl::parse("/repo", Path::new("/")).unwrap(),
            branch: BranchName::new("main").unwrap(),
            commit: CommitId::new(COMMIT).unwrap(),
            credential,
        };
        self.provider.sync_repo(&self.call(), request).await
    }

    pub(crate) async fn install(&self) -> Reply<InstallReply> {
        let request = InstallRequest { sandbox_id: id() };
        self.provider.install(&self.call(), request).await
    }

    pub(crate) async fn start_agent(&self) -> Reply<StartAgentReply> {
        let token = Secret::new("planted-in-the-environment".to_owned());
        let request = StartAgentRequest {
            sandbox_id: id(),
            agent: AgentSpec {
                name: "page".to_owned(),
                serve: Serve::Page,
            },
            env: BTreeMap::from([("TOKEN".to_owned(), token)]),
            ready_ms: 1000,
            page: PageFacts::default(),
        };
        self.provider.start_agent(&self.call(), request).await
    }

    /// From nothing to an agent that runs.
    pub(crate) async fn up(&self) {
        self.provision().await.unwrap();
        self.sync_repo(None).await.unwrap();
        self.install().await.unwrap();
        self.start_agent().await.unwrap();
    }

    pub(crate) async fn inspect(&self) -> InspectReply {
        let request = InspectRequest {
            sandbox_id: id(),
            probe: true,
        };
        self.provider.inspect(&self.call(), request).await.unwrap()
    }

    pub(crate) async fn exec(&self, argv: &[&str]) -> Reply<(ExecReply, Vec<CallEvent>)> {
        let (events, mut said) = tokio::sync::mpsc::channel(64);
        let (_input, none) = tokio::sync::mpsc::channel(1);
        let call = Call::new(self.call().meta, events);
        let request = ExecRequest {
            sandbox_id: id(),
            argv: argv.iter().map(|&word| word.to_owned()).collect(),
            env: BTreeMap::new(),
        };
        let reply = self.provider.exec(&call, request, none).await?;
        drop(call);
        let mut events = Vec::new();
        while let Some(event) = said.recv().await {
            events.push(event);
        }
        Ok((reply, events))
    }

    pub(crate) async fn stop(&self) -> Reply<StopReply> {
        let request = StopRequest {
            sandbox_id: id(),
            grace_ms: 10,
        };
        self.provider.stop(&self.call(), request).await
    }

    pub(crate) async fn capture(&self) -> Reply<StagedSnapshot> {
        let request = CaptureRequest {
            sandbox_id: id(),
            generation: 1,
        };
        self.provider.capture(&self.call(), request).await
    }

    pub(crate) async fn persist(&self, snapshot: Option<StagedSnapshot>) -> Reply<PersistReply> {
        self.persist_payload(snapshot, PAYLOAD).await
    }

    pub(crate) async fn persist_payload(
        &self,
        snapshot: Option<StagedSnapshot>,
        payload: &str,
    ) -> Reply<PersistReply> {
        let request = PersistRequest {
            sandbox_id: id(),
            session_id: "ses_1".to_owned(),
            generation: 1,
            payload: payload.to_owned(),
            snapshot,
        };
        self.provider.persist(&self.call(), request).await
    }

    pub(crate) async fn read_object(&self, object: &str) -> Reply<ReadObjectReply> {
        let request = ReadObjectRequest {
            durable_object_id: object.to_owned(),
        };
        self.provider.read_object(&self.call(), request).await
    }

    pub(crate) async fn restore(&self, object: &str) -> Reply<RestoreReply> {
        let request = RestoreRequest {
            sandbox_id: id(),
            durable_object_id: object.to_owned(),
        };
        self.provider.restore(&self.call(), request).await
    }

    pub(crate) async fn destroy(&self) -> Reply<DestroyReply> {
        let request = DestroyRequest { sandbox_id: id() };
        self.provider.destroy(&self.call(), request).await
    }

    /// From an agent that runs to an object that was read back; gives its id.
    pub(crate) async fn keep(&self) -> String {
        self.stop().await.unwrap();
        let staged = self.capture().await.unwrap();
        let object = self.persist(Some(staged)).await.unwrap().durable_object_id;
        self.read_object(&object).await.unwrap();
        object
    }
}
