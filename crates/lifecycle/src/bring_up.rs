//! The plan of `up`, step by step; each step is recorded before the next begins.

use crate::call::{StepEnd, asking, fail};
use crate::engine::Engine;
use crate::gone::identity;
use crate::held::Held;
use crate::up::Kept;
use crate::{ErrorCode, Failure, Progress, Step, UpRequest};
use alpine_ledger::{Outcome, SessionRecord, State};
use alpine_provider_api::*;
use std::sync::Arc;
use std::time::Duration;

impl Engine {
    pub(crate) async fn bring_up(
        &self,
        held: &mut Held,
        request: &UpRequest,
    ) -> Result<(), StepEnd> {
        let provider = self.providers.get(&held.session.new.provider)?;
        let mut revive = held.resumed && self.must_revive(held, &provider).await?;
        let mut left = self.limits.tries;
        loop {
            left = left.saturating_sub(1);
            match self.make_ready(held, request, &provider, revive).await {
                // A sandbox that died with its provider is made anew, or started again.
                Err(StepEnd::Failed(_, kind))
                    if kind.has_crashed()
                        && left > 0
                        && self.must_revive(held, &provider).await? =>
                {
                    revive = true;
                }
                ended => return ended,
            }
        }
    }

    async fn make_ready(
        &self,
        held: &mut Held,
        request: &UpRequest,
        provider: &Arc<dyn SandboxProvider>,
        revive: bool,
    ) -> Result<(), StepEnd> {
        let kept = Kept::of(&held.session.new);
        if held.session.state == State::Requested {
            self.resolve(held, request).await?;
        }
        if held.session.state == State::Provisioning || revive {
            self.provision(held, provider, &kept, request).await?;
        }
        if held.session.state == State::RepoSyncing || revive {
            self.sync_repo(held, provider, request).await?;
        }
        let installed = !revive
            && held
                .operation
                .steps
                .iter()
                .any(|step| step.step == Step::Install.as_str() && step.error_code.is_none());
        if !kept.no_install && !installed {
            self.install(held, provider).await?;
        }
        let url = self.start_agent(held, provider, request).await?;
        self.probe(held, provider).await?;
        let now = self.now();
        self.record(held, move |tx, token| {
            tx.transition(token, State::Ready, "all checks passed", |session| {
                session.ready_at = Some(now);
                session.opencode_url = url;
                session.last_error = None;
            })?;
            tx.finish(
                token,
                &Outcome::Succeeded(serde_json::json!({"state": "ready"})),
            )
            .map(|_| ())
        })
        .await?;
        Ok(())
    }

    async fn resolve(&self, held: &mut Held, request: &UpRequest) -> Result<(), StepEnd> {
        let work = |_| {
            let (tips, request) = (self.tips.clone(), request.clone());
            async move {
                tips.tip(&request.repo, &request.branch, request.credential.as_ref())
                    .await
            }
        };
        let commit = self
            .step(held, Step::Resolve, self.limits.sync, work)
            .await?;
        let commit = commit.as_str().to_owned();
        let warnings: Vec<_> = request
            .warnings
            .iter()
            .map(|warning| self.redactor.redact(warning))
            .collect();
        self.advance(
            held,
            State::Provisioning,
            "the branch's tip is known",
            move |session| {
                session.target_commit_sha = Some(commit);
                session.warnings.extend(warnings);
            },
        )
        .await?;
        Ok(())
    }

    /// Whether the sandbox has died, with the holder of an interrupted `up` or with its provider.
    async fn must_revive(
        &self,
        held: &mut Held,
        provider: &Arc<dyn SandboxProvider>,
    ) -> Result<bool, StepEnd> {
        if !matches!(held.session.state, State::RepoSyncing | State::Installing) {
            return Ok(false);
        }
        let found = self.inspect(held, provider, false).await?;
        Ok(found.state != SandboxState::Running)
    }

    /// Looks at the sandbox; with `probe`, inside too.
    async fn inspect(
        &self,
        held: &mut Held,
        provider: &Arc<dyn SandboxProvider>,
        probe: bool,
    ) -> Result<InspectReply, StepEnd> {
        let sandbox_id = sandbox(held)?;
        let ask = InspectRequest { sandbox_id, probe };
        let work = asking(provider, &ask, |provider, call, ask| async move {
            provider.inspect(&call, ask).await
        });
        self.step(held, Step::Probe, self.limits.probe, work).await
    }

    async fn provision(
        &self,
        held: &mut Held,
        provider: &Arc<dyn SandboxProvider>,
        kept: &Kept,
        request: &UpRequest,
    ) -> Result<(), StepEnd> {
        let ask = ProvisionRequest {
            sandbox_id: sandbox(held)?,
            ledger_id: self.ledger.id().to_owned(),
            session_id: held.session.session_id.to_string(),
            allow_unsandboxed: kept.allow_unsandboxed || request.allow_unsandboxed,
        };
        let work = asking(provider, &ask, |provider, call, ask| async move {
            let described = provider.describe().await?;
            Ok((described, provider.provision(&call, ask).await?))
        });
        let (described, made) = self
            .step(held, Step::Provision, self.limits.provision, work)
            .await?;
        let weak = (made.isolation.tier == "process").then(|| {
            "isolation is `process`: the install step and the agent run as you, with your files and your network".to_owned()
        });
        if let Some(weak) = &weak {
            self.watch.tell(Progress::Warning(weak.clone()));
        }
        let configuration = self.providers.configuration(&held.session.new.provider);
        let identity = identity(&described.name, configuration);
        let change = move |session: &mut SessionRecord| {
            session.provider_version = Some(described.version);
            session.provider_identity = Some(identity);
            session.workspace_path = made
                .workspace_path
                .map(|path| path.to_string_lossy().into_owned());
            session.isolation = serde_json::to_value(&made.isolation).ok();
            if let Some(weak) = weak.filter(|weak| !session.warnings.contains(weak)) {
                session.warnings.push(weak);
            }
        };
        if held.session.state == State::Provisioning {
            self.advance(held, State::RepoSyncing, "the sandbox is there", change)
                .await?;
        } else {
            self.record(held, move |tx, token| tx.update(token, change).map(|_| ()))
                .await?;
        }
        Ok(())
    }

    async fn sync_repo(
        &self,
        held: &mut Held,
        provider: &Arc<dyn SandboxProvider>,
        request: &UpRequest,
    ) -> Result<(), StepEnd> {
        let ask = SyncRepoRequest {
            sandbox_id: sandbox(held)?,
            repo: request.repo.clone(),
            branch: request.branch.clone(),
            commit: target(held)?,
            credential: request.credential.clone(),
        };
        let work = asking(provider, &ask, |provider, call, ask| async move {
            provider.sync_repo(&call, ask).await
        });
        let synced = self
            .step(held, Step::SyncRepo, self.limits.sync, work)
            .await?;
        if synced.head != ask.commit {
            let cause = format!(
                "sync_repo: the workspace is at {}, not at the pinned commit {}",
                synced.head, ask.commit
            );
            return Err(fail(
                held,
                ErrorCode::RepoSyncFailed,
                cause,
                ErrorKind::Unknown,
            ));
        }
        if held.session.state == State::RepoSyncing {
            self.advance(
                held,
                State::Installing,
                "the repository is at the pinned commit",
                |_| {},
            )
            .await?;
        }
        Ok(())
    }

    async fn install(
        &self,
        held: &mut Held,
        provider: &Arc<dyn SandboxProvider>,
    ) -> Result<(), StepEnd> {
        let ask = InstallRequest {
            sandbox_id: sandbox(held)?,
        };
        let work = asking(provider, &ask, |provider, call, ask| async move {
            provider.install(&call, ask).await
        });
        self.step(held, Step::Install, self.limits.install, work)
            .await
            .map(|_| ())
    }

    async fn start_agent(
        &self,
        held: &mut Held,
        provider: &Arc<dyn SandboxProvider>,
        request: &UpRequest,
    ) -> Result<Option<String>, StepEnd> {
        let agent = self.agent(&held.session.new.agent)?;
        // From here on the workspace may hold work: recorded before the agent is started.
        let works = matches!(agent.serve, Serve::Process(_));
        self.record(held, move |tx, token| {
            if works {
                tx.update(token, |session| session.agent_started = true)?;
            }
            Ok(())
        })
        .await?;
        let ask = StartAgentRequest {
            sandbox_id: sandbox(held)?,
            agent,
            env: request.env.clone(),
            ready_ms: u64::try_from(self.limits.agent.as_millis()).unwrap_or(u64::MAX),
            page: PageFacts {
                session_id: held.session.session_id.to_string(),
                repo_url: held.session.new.repo_url.clone(),
                branch: held.session.new.branch.clone(),
                commit: held.session.target_commit_sha.clone().unwrap_or_default(),
            },
        };
        let work = asking(provider, &ask, |provider, call, ask| async move {
            provider.start_agent(&call, ask).await
        });
        // The provider keeps the limit itself, so that it can tell what the agent said; ours is a little longer.
        let limit = self.limits.agent + Duration::from_secs(5);
        Ok(self.step(held, Step::StartAgent, limit, work).await?.url)
    }

    /// The five checks of `ready`; the install step's is that it went before.
    async fn probe(
        &self,
        held: &mut Held,
        provider: &Arc<dyn SandboxProvider>,
    ) -> Result<(), StepEnd> {
        let found = self.inspect(held, provider, true).await?;
        let wants_agent = self.agent(&held.session.new.agent)?.serve != Serve::None;
        let commit = target(held)?;
        let (code, cause) = match found.probe {
            _ if found.state != SandboxState::Running => (
                ErrorCode::SandboxProvisionFailed,
                format!(
                    "probe: the sandbox is `{}`, not `running`",
                    found.state.as_str()
                ),
            ),
            None => (
                ErrorCode::SandboxProvisionFailed,
                "probe: the provider did not look into the sandbox".to_owned(),
            ),
            Some(probe) if probe.head.as_ref() != Some(&commit) => {
                let head = probe
                    .head
                    .map_or_else(|| "no commit".to_owned(), |head| head.to_string());
                (
                    ErrorCode::RepoSyncFailed,
                    format!("probe: the workspace is at {head}, not at the pinned commit {commit}"),
                )
            }
            Some(probe) if !probe.writable => (
                ErrorCode::SandboxProvisionFailed,
                "probe: a file could not be written to the workspace".to_owned(),
            ),
            Some(probe) if wants_agent && probe.agent_ready != Some(true) => (
                ErrorCode::AgentNotReady,
                "probe: the agent did not answer 200–399".to_owned(),
            ),
            Some(_) => return Ok(()),
        };
        Err(fail(held, code, cause, ErrorKind::Unknown))
    }
}

/// The recorded id of the session's sandbox.
pub(crate) fn sandbox(held: &Held) -> Result<SandboxId, Failure> {
    let id = &held.session.sandbox_id;
    SandboxId::new(id).ok_or_else(|| {
        Failure::new(
            ErrorCode::LedgerCorrupt,
            format!("the recorded sandbox id `{id}` is malformed"),
        )
    })
}

fn target(held: &Held) -> Result<CommitId, Failure> {
    let recorded = held.session.target_commit_sha.as_deref();
    recorded
        .and_then(CommitId::new)
        .ok_or_else(|| Failure::new(ErrorCode::LedgerCorrupt, "the recorded commit is malformed"))
}
