//! `up`: from a request to a session that is ready.

use crate::call::StepEnd;
use crate::engine::Engine;
use crate::held::Held;
use crate::{Caller, ErrorCode, Failure};
use alpine_ledger::{Admission, Grant, NewSession, SessionId, SessionRecord, State};
use alpine_provider_api::{AgentSpec, BranchName, GitCredential, RepoUrl, Secret};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;

/// What `up` is asked for; everything in it has been checked.
#[derive(Clone, Debug)]
pub struct UpRequest {
    /// Who asks.
    pub caller: Caller,
    /// The caller's id of the request.
    pub client_request_id: String,
    /// The repository.
    pub repo: RepoUrl,
    /// The branch.
    pub branch: BranchName,
    /// Whether the credential preflight was skipped.
    pub public: bool,
    /// What opens the repository.
    pub credential: Option<GitCredential>,
    /// The provider's name.
    pub provider: String,
    /// The agent's name.
    pub agent: String,
    /// The session's name.
    pub name: Option<String>,
    /// Variables for the agent alone.
    pub env: BTreeMap<String, Secret<String>>,
    /// Whether the install step is left out.
    pub no_install: bool,
    /// Whether weak isolation is acceptable.
    pub allow_unsandboxed: bool,
    /// The time limit in all, if not the usual one.
    pub timeout: Option<Duration>,
    /// What the user should know already.
    pub warnings: Vec<String>,
}

/// A session that is ready.
#[derive(Clone, Debug)]
pub struct UpOutcome {
    /// Its record.
    pub session: SessionRecord,
    /// The operation that made it.
    pub operation_id: String,
    /// A fresh one-time link to the agent.
    pub open_url: Option<Secret<String>>,
    /// Whether an earlier request with the same id is answered again.
    pub reused: bool,
    /// Step → milliseconds.
    pub step_ms: BTreeMap<String, u64>,
    /// What the user should know.
    pub warnings: Vec<String>,
}

/// What is kept of a request beside what identifies it, so that another process can carry it on.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Kept {
    pub(crate) no_install: bool,
    pub(crate) allow_unsandboxed: bool,
}

impl Engine {
    /// Brings a session up, or answers as before.
    ///
    /// # Errors
    /// As the contract's table of `up` has it.
    pub async fn up(&self, request: UpRequest) -> Result<UpOutcome, Failure> {
        self.providers.get(&request.provider)?;
        self.agent(&request.agent)?;
        let limit = request.timeout.unwrap_or(self.limits.up);
        let deadline = Instant::now() + limit;
        loop {
            match self.admit(&request).await? {
                Admission::Run(grant) => return self.carry_up(grant, false, limit, &request).await,
                Admission::Resume(grant) => {
                    return self.carry_up(grant, true, limit, &request).await;
                }
                Admission::Replay(session, operation) => {
                    return self.replay_up(session, operation, &request).await;
                }
                Admission::Wait(session, lease) => {
                    self.wait_for(&session.session_id, &lease.operation_id, deadline)
                        .await?;
                }
                Admission::Conflict(conflict) => return Err(self.refuse_up(conflict, &request)),
            }
        }
    }

    async fn admit(&self, request: &UpRequest) -> Result<Admission, Failure> {
        let new = NewSession {
            owner: request.caller.principal.clone(),
            client_request_id: request.client_request_id.clone(),
            repo_url: request.repo.to_string(),
            branch: request.branch.to_string(),
            public: request.public,
            provider: request.provider.clone(),
            agent: request.agent.clone(),
            name: request.name.clone(),
            request: serde_json::json!(Kept {
                no_install: request.no_install,
                allow_unsandboxed: request.allow_unsandboxed
            }),
        };
        let parts = serde_json::json!([new.repo_url, new.branch, new.provider, new.public]);
        let fingerprint = blake3::hash(parts.to_string().as_bytes())
            .to_hex()
            .to_string();
        let session = SessionId::derive(&new.owner, &new.client_request_id);
        let sandbox = sandbox_id(&session);
        let actor = request.caller.principal.clone();
        self.write(move |tx| tx.admit(&new, &fingerprint, &sandbox, &actor))
            .await
    }

    async fn carry_up(
        &self,
        grant: Grant,
        resumed: bool,
        limit: Duration,
        request: &UpRequest,
    ) -> Result<UpOutcome, Failure> {
        let mut held = Held::new(self, grant, resumed, limit);
        if held.session.state == State::Failing {
            let failure = held.session.last_error.as_ref().map_or_else(
                || {
                    Failure::new(
                        ErrorCode::Interrupted,
                        "interrupted while it was cleaned up",
                    )
                },
                Failure::from_record,
            );
            return Err(self.end_failed_up(held, failure).await);
        }
        match self.bring_up(&mut held, request).await {
            Ok(()) => {
                let (session, operation) = (held.session.clone(), held.operation.clone());
                drop(held);
                self.outcome(session, &operation, false).await
            }
            Err(StepEnd::Stopped(failure)) => {
                let failure = failure.next(again(request));
                Err(self.leave(held, failure).await)
            }
            Err(StepEnd::Failed(failure, _)) => Err(self.fail_up(held, failure).await),
        }
    }

    pub(crate) fn agent(&self, name: &str) -> Result<AgentSpec, Failure> {
        self.agents.get(name).cloned().ok_or_else(|| {
            let names: Vec<_> = self.agents.keys().map(String::as_str).collect();
            Failure::new(
                ErrorCode::Usage,
                format!(
                    "there is no agent `{name}`; configured: {}",
                    names.join(", ")
                ),
            )
            .next("alpine config")
        })
    }
}

/// The sandbox's id is the session's, with another prefix: known before anything is made.
fn sandbox_id(session: &SessionId) -> String {
    format!("sbx_{}", session.as_str().trim_start_matches("ses_"))
}

/// The command that carries an interrupted `up` on.
fn again(request: &UpRequest) -> String {
    let words = [
        request.repo.as_str(),
        request.branch.as_str(),
        request.client_request_id.as_str(),
    ]
    .map(crate::caller::quoted);
    let [repo, branch, id] = words;
    format!(
        "alpine up {repo} --branch {branch} --client-request-id {id}{}",
        if request.public { " --public" } else { "" }
    )
}
