//! `up`: from a request to a session that is ready.

use crate::again::{again, anew};
use crate::call::StepEnd;
use crate::engine::Engine;
use crate::held::Held;
use crate::next::COMING_UP;
use crate::place::Place;
use crate::{Caller, ErrorCode, Failure};
use alpine_ledger::{Admission, NewSession, SessionId, SessionRecord, State};
use alpine_provider_api::{AgentSpec, BranchName, GitCredential, RepoUrl, Secret};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
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
    /// The names of those whose values were spelled out, and are nowhere to be found again.
    pub spelled: BTreeSet<String>,
    /// Whether the install step is left out.
    pub no_install: bool,
    /// Whether weak isolation is acceptable.
    pub allow_unsandboxed: bool,
    /// Whether no browser is wanted.
    pub no_browser: bool,
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
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Kept {
    pub(crate) no_install: bool,
    pub(crate) allow_unsandboxed: bool,
    pub(crate) no_browser: bool,
    pub(crate) timeout_ms: Option<u64>,
    /// The names of the agent's variables; their values are never kept.
    pub(crate) env: Vec<String>,
    /// Those of them whose values were spelled out.
    pub(crate) spelled: BTreeSet<String>,
}

impl Kept {
    /// What was kept of the request for a session.
    pub(crate) fn of(new: &NewSession) -> Self {
        serde_json::from_value(new.request.clone()).unwrap_or_default()
    }
}

impl UpRequest {
    /// What is recorded of it.
    /// The command that asks for the same, under the same id.
    #[must_use]
    pub fn again(&self) -> String {
        again(&self.recorded())
    }

    pub(crate) fn recorded(&self) -> NewSession {
        NewSession {
            owner: self.caller.principal.clone(),
            client_request_id: self.client_request_id.clone(),
            repo_url: self.repo.to_string(),
            branch: self.branch.to_string(),
            public: self.public,
            provider: self.provider.clone(),
            agent: self.agent.clone(),
            name: self.name.clone(),
            request: serde_json::json!(Kept {
                no_install: self.no_install,
                allow_unsandboxed: self.allow_unsandboxed,
                no_browser: self.no_browser,
                timeout_ms: self
                    .timeout
                    .map(|limit| { u64::try_from(limit.as_millis()).unwrap_or(u64::MAX).max(1) }),
                env: self.env.keys().cloned().collect(),
                spelled: self.spelled.clone(),
            }),
        }
    }
}

impl Engine {
    /// Brings a session up, or answers as before.
    ///
    /// # Errors
    /// As the contract's table of `up` has it.
    pub async fn up(&self, request: UpRequest) -> Result<UpOutcome, Failure> {
        self.providers.get(&request.provider)?;
        self.agent(&request.agent)?;
        let (owner, id) = (
            request.caller.principal.clone(),
            request.client_request_id.clone(),
        );
        let session = SessionId::derive(&owner, &id);
        // One that was imported has another id than that.
        let known = self.read(move |snapshot| {
            let known = snapshot.request(&owner, &id)?;
            known.map_or(Ok(None), |known| snapshot.session(&known))
        });
        let known = known.await?;
        let place = match &known {
            Some(known) => {
                must_bring_variables(known, &request)?;
                Place::new(known.sandbox_id.clone())
            }
            None => self.free_place(&request.provider, &session).await?,
        };
        let limit = request.timeout.unwrap_or(self.limits.up);
        let deadline = Instant::now() + limit;
        loop {
            let admission = self.admit(&request, &place, deadline).await;
            match admission.map_err(|failure| failure.carried_on(|| request.again()))? {
                Admission::Run(grant) => {
                    let mut held = Held::new(self, grant, false, limit);
                    if let Some(warning) = place.warning() {
                        self.warn(&mut held, warning);
                    }
                    return self.carry_up(held, &request).await;
                }
                Admission::Resume(grant) => {
                    let held = Held::new(self, grant, true, limit);
                    return self.carry_up(held, &request).await;
                }
                Admission::Replay(session, operation) => {
                    return self.replay_up(session, operation, &request).await;
                }
                Admission::Wait(session, lease) => {
                    self.wait_for(&session.session_id, &lease.operation_id, deadline)
                        .await?;
                }
                Admission::Conflict(conflict) => {
                    return Err(self.refuse_up(conflict, &request).await);
                }
            }
        }
    }

    async fn admit(
        &self,
        request: &UpRequest,
        place: &Place,
        deadline: Instant,
    ) -> Result<Admission, Failure> {
        let new = request.recorded();
        let parts = serde_json::json!([new.repo_url, new.branch, new.provider, new.public]);
        let fingerprint = blake3::hash(parts.to_string().as_bytes())
            .to_hex()
            .to_string();
        let (actor, place) = (request.caller.principal.clone(), place.clone());
        self.write_until(deadline, move |tx| {
            let admission = tx.admit(&new, &fingerprint, &place.sandbox_id, &actor)?;
            if let (Admission::Run(grant), Some(stray)) = (&admission, &place.stray) {
                let (session, operation) = (&grant.token.session_id, &grant.token.operation_id);
                tx.append_event(Some(session), Some(operation), "stray_found", Some(stray))?;
            }
            Ok(admission)
        })
        .await
    }

    async fn carry_up(&self, mut held: Held, request: &UpRequest) -> Result<UpOutcome, Failure> {
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
                // What was cancelled can't be carried on; everything else can, by its own id.
                let next = if !failure.retryable {
                    anew(&request.recorded())
                } else if failure.code == ErrorCode::Timeout {
                    // The same limit might pass again.
                    let unlimited = UpRequest {
                        timeout: None,
                        ..request.clone()
                    };
                    again(&unlimited.recorded())
                } else {
                    again(&request.recorded())
                };
                let failure = failure.next(next);
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

/// A request that carries an interrupted one on has to bring the variables that one had: their values are not kept.
fn must_bring_variables(session: &SessionRecord, request: &UpRequest) -> Result<(), Failure> {
    if !COMING_UP.contains(&session.state) {
        return Ok(());
    }
    let kept = Kept::of(&session.new).env;
    let missing = kept.iter().find(|name| !request.env.contains_key(*name));
    let Some(missing) = missing else {
        return Ok(());
    };
    let cause = format!(
        "this request was begun with a variable `{missing}`, whose value is not kept; give it again"
    );
    Err(Failure::new(ErrorCode::Usage, cause).next(again(&session.new)))
}
