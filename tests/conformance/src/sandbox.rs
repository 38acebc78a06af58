//! A sandbox as a check sees it: each call of the trait, with the arguments that most checks want.

use crate::bench::{Bench, Calling};
use crate::called::{Called, Checking, broken, shortened};
use crate::repository::Pinned;
use crate::trace::public;
use alpine_provider_api::*;
use std::collections::BTreeMap;
use tokio::sync::mpsc;

/// A sandbox, made or not.
#[derive(Clone, Debug)]
pub(crate) struct Sandbox<'b> {
    pub(crate) bench: &'b Bench<'b>,
    pub(crate) id: SandboxId,
    pub(crate) session: String,
    /// The fence of its calls.
    pub(crate) fence: u64,
}

/// What a call comes to, unless the check ends.
pub(crate) type Answer<R> = Checking<Called<R>>;

impl<'b> Sandbox<'b> {
    pub(crate) fn new(bench: &'b Bench<'b>, id: SandboxId, session: String) -> Self {
        Self {
            bench,
            id,
            session,
            fence: 7,
        }
    }

    /// The same sandbox under another fence.
    pub(crate) fn under(&self, fence: u64) -> Self {
        Self {
            fence,
            ..self.clone()
        }
    }

    pub(crate) async fn begin(
        &self,
        method: Method,
        request: &impl serde::Serialize,
    ) -> Checking<Calling<'b>> {
        self.bench.begin(method, self.fence, request).await
    }

    pub(crate) fn provision_request(&self) -> ProvisionRequest {
        ProvisionRequest {
            sandbox_id: self.id.clone(),
            ledger_id: self.bench.ledger(),
            session_id: self.session.clone(),
            allow_unsandboxed: true,
        }
    }

    pub(crate) async fn provision(&self) -> Answer<ProvisionReply> {
        self.provision_as(self.provision_request()).await
    }

    pub(crate) async fn provision_as(&self, request: ProvisionRequest) -> Answer<ProvisionReply> {
        let at = self.begin(Method::Provision, &request).await?;
        at.end(at.provider.provision(&at.call, request)).await
    }

    /// A sandbox that is made, or the check ends.
    pub(crate) async fn made(self) -> Checking<Self> {
        self.provision().await?.ok("provision makes the sandbox")?;
        Ok(self)
    }

    /// A sandbox that is made and holds this commit, or the check ends.
    pub(crate) async fn filled(self, from: &Pinned) -> Checking<Self> {
        let sandbox = self.made().await?;
        let synced = sandbox.sync(from).await?;
        synced.ok("sync_repo brings the repository in")?;
        Ok(sandbox)
    }

    pub(crate) fn sync_request(&self, from: &Pinned) -> SyncRepoRequest {
        SyncRepoRequest {
            sandbox_id: self.id.clone(),
            repo: from.repo.clone(),
            branch: from.branch.clone(),
            commit: from.commit.clone(),
            credential: None,
        }
    }

    pub(crate) async fn sync(&self, from: &Pinned) -> Answer<SyncRepoReply> {
        self.sync_as(self.sync_request(from)).await
    }

    pub(crate) async fn sync_as(&self, request: SyncRepoRequest) -> Answer<SyncRepoReply> {
        let at = self.begin(Method::SyncRepo, &request).await?;
        at.end(at.provider.sync_repo(&at.call, request)).await
    }

    pub(crate) async fn install(&self) -> Answer<InstallReply> {
        let sandbox_id = self.id.clone();
        let request = InstallRequest { sandbox_id };
        let at = self.begin(Method::Install, &request).await?;
        at.end(at.provider.install(&at.call, request)).await
    }

    pub(crate) async fn start(&self, agent: AgentSpec, ready_ms: u64) -> Answer<StartAgentReply> {
        let request = StartAgentRequest {
            sandbox_id: self.id.clone(),
            agent,
            env: BTreeMap::new(),
            ready_ms,
            page: PageFacts::default(),
        };
        let at = self.begin(Method::StartAgent, &request).await?;
        at.end(at.provider.start_agent(&at.call, request)).await
    }

    pub(crate) async fn open(&self) -> Answer<OpenAgentReply> {
        let request = OpenAgentRequest {
            sandbox_id: self.id.clone(),
            link_ms: 60_000,
        };
        let at = self.begin(Method::OpenAgent, &request).await?;
        at.end(at.provider.open_agent(&at.call, request)).await
    }

    pub(crate) async fn inspect(&self, probe: bool) -> Checking<InspectReply> {
        let request = InspectRequest {
            sandbox_id: self.id.clone(),
            probe,
        };
        let at = self.begin(Method::Inspect, &request).await?;
        let told = at.end(at.provider.inspect(&at.call, request)).await?;
        told.ok("inspect says how the sandbox is")
    }

    /// It has to be in this state.
    pub(crate) async fn is(&self, state: SandboxState, when: &str) -> Checking {
        let found = self.inspect(false).await?.state;
        if found == state {
            return Ok(());
        }
        broken(
            format!("inspect says `{}` {when}", state.as_str()),
            format!("`{}`", found.as_str()),
        )
    }

    pub(crate) async fn listed(&self, ledger_id: &str) -> Checking<Vec<ListedSandbox>> {
        let request = ListRequest {
            ledger_id: ledger_id.to_owned(),
        };
        let at = self.begin(Method::List, &request).await?;
        let told = at.end(at.provider.list(&at.call, request)).await?;
        Ok(told.ok("list lists the sandboxes")?.sandboxes)
    }

    /// How often it is in the list, and there with its session.
    pub(crate) async fn times_listed(&self) -> Checking<usize> {
        let listed = self.listed(&self.bench.ledger()).await?;
        let mine = listed.iter().filter(|one| one.sandbox_id == self.id);
        Ok(mine.filter(|one| one.session_id == self.session).count())
    }

    pub(crate) fn exec_request(&self, argv: &[&str]) -> ExecRequest {
        ExecRequest {
            sandbox_id: self.id.clone(),
            argv: argv.iter().map(|&word| word.to_owned()).collect(),
            env: BTreeMap::new(),
        }
    }

    pub(crate) async fn exec(&self, argv: &[&str]) -> Answer<ExecReply> {
        self.exec_as(self.exec_request(argv), no_input()).await
    }

    pub(crate) async fn exec_as(
        &self,
        request: ExecRequest,
        input: mpsc::Receiver<ExecInput>,
    ) -> Answer<ExecReply> {
        let at = self.begin(Method::Exec, &request).await?;
        at.end(at.provider.exec(&at.call, request, input)).await
    }

    /// The output of a shell script, which has to exit 0.
    pub(crate) async fn sh(&self, script: &str) -> Checking<String> {
        let mut told = self.exec(&["sh", "-c", script]).await?;
        let out = String::from_utf8_lossy(&std::mem::take(&mut told.stdout)).into_owned();
        let errors = String::from_utf8_lossy(&std::mem::take(&mut told.stderr)).into_owned();
        match told.ok("exec runs `sh` in the sandbox")? {
            ExecReply::Exited(0) => Ok(out),
            other @ (ExecReply::Exited(_) | ExecReply::Signalled(_)) => broken(
                format!("`{}` exits 0 in the sandbox", shortened(script)),
                format!("{}: {}", public(&other), shortened(&errors)),
            ),
        }
    }

    pub(crate) async fn log(&self, log: LogName) -> Answer<LogsReply> {
        let request = LogsRequest {
            sandbox_id: self.id.clone(),
            log,
            follow: false,
        };
        let at = self.begin(Method::Logs, &request).await?;
        at.end(at.provider.logs(&at.call, request)).await
    }

    pub(crate) async fn stop(&self, grace_ms: u64) -> Answer<StopReply> {
        let request = StopRequest {
            sandbox_id: self.id.clone(),
            grace_ms,
        };
        let at = self.begin(Method::Stop, &request).await?;
        at.end(at.provider.stop(&at.call, request)).await
    }

    pub(crate) async fn capture(&self, generation: u64) -> Answer<StagedSnapshot> {
        let request = CaptureRequest {
            sandbox_id: self.id.clone(),
            generation,
        };
        let at = self.begin(Method::Capture, &request).await?;
        at.end(at.provider.capture(&at.call, request)).await
    }

    pub(crate) fn persist_request(
        &self,
        generation: u64,
        snapshot: Option<StagedSnapshot>,
    ) -> PersistRequest {
        let payload = serde_json::json!({
            "schema_version": "v1",
            "session_id": self.session,
            "note": "a line\nand \"quotes\", é, 漢, \u{1f3d4}",
        });
        PersistRequest {
            sandbox_id: self.id.clone(),
            session_id: self.session.clone(),
            generation,
            payload: payload.to_string(),
            snapshot,
        }
    }

    pub(crate) async fn persist_as(&self, request: PersistRequest) -> Answer<PersistReply> {
        let at = self.begin(Method::Persist, &request).await?;
        at.end(at.provider.persist(&at.call, request)).await
    }

    pub(crate) async fn read(&self, object: &str) -> Answer<ReadObjectReply> {
        let request = ReadObjectRequest {
            durable_object_id: object.to_owned(),
        };
        let at = self.begin(Method::ReadObject, &request).await?;
        at.end(at.provider.read_object(&at.call, request)).await
    }

    pub(crate) async fn restore(&self, object: &str) -> Answer<RestoreReply> {
        let request = RestoreRequest {
            sandbox_id: self.id.clone(),
            durable_object_id: object.to_owned(),
        };
        let at = self.begin(Method::Restore, &request).await?;
        at.end(at.provider.restore(&at.call, request)).await
    }

    pub(crate) async fn destroy(&self) -> Answer<DestroyReply> {
        let sandbox_id = self.id.clone();
        let request = DestroyRequest { sandbox_id };
        let at = self.begin(Method::Destroy, &request).await?;
        at.end(at.provider.destroy(&at.call, request)).await
    }

    /// Stops it and writes its workspace to a durable object; gives the object and what was staged.
    pub(crate) async fn kept(&self, generation: u64) -> Checking<(String, StagedSnapshot)> {
        self.stop(1000).await?.ok("stop ends every process")?;
        let staged = self.capture(generation).await?;
        let staged = staged.ok("capture stages the workspace of a stopped sandbox")?;
        let request = self.persist_request(generation, Some(staged.clone()));
        let told = self.persist_as(request).await?;
        let reply = told.ok("persist writes the durable object")?;
        Ok((reply.durable_object_id, staged))
    }
}

/// The input of a command that gets none: it has ended already.
pub(crate) fn no_input() -> mpsc::Receiver<ExecInput> {
    mpsc::channel(1).1
}
