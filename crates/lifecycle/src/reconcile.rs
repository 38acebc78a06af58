//! Recovery: what was interrupted and nobody carries on is finished, and ledger and provider are made to agree.

use crate::engine::Engine;
use crate::quarantine::Stray;
use crate::turn::Turn;
use crate::{Caller, DownRequest, ErrorCode, Failure, Progress, lookup};
use alpine_ledger::{
    Action, LedgerError, Liveness, OperationRecord, SessionId, SessionRecord, Snapshot, State,
};
use alpine_provider_api::SandboxState;
use serde::{Deserialize, Serialize};

/// What `reconcile` is asked for.
#[derive(Clone, Debug)]
pub struct ReconcileRequest {
    /// Who asks.
    pub caller: Caller,
    /// The one session; none for all that the caller may act on.
    pub session: Option<String>,
    /// Every owner's sessions; for admins.
    pub all: bool,
    /// Only say what would be done.
    pub dry_run: bool,
}

/// What was found of one session, and what was done about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reconciled {
    /// The session; none for a sandbox that no session owns.
    pub session_id: Option<String>,
    /// Its sandbox; none for a provider that could not say which it has.
    pub sandbox_id: Option<String>,
    /// What was found.
    pub finding: Finding,
    /// Where the session stands now.
    pub state: Option<State>,
    /// Whether something was done.
    pub done: bool,
    /// What kept it from being done.
    pub error: Option<String>,
    /// Where the work of a sandbox that should not be there was saved.
    pub durable_object_id: Option<String>,
}

/// Why a session needs recovery.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Finding {
    /// A `down` without a live holder.
    UnfinishedDown,
    /// A clean-up without a live holder.
    UnfinishedCleanUp,
    /// An `up` that was left too long ago to be carried on by its own request.
    AbandonedUp,
    /// An `up` that its own request may still carry on.
    InterruptedUp,
    /// The state is final and the sandbox is still there.
    DestroyPending,
    /// The session is not final and its sandbox is provably gone.
    SandboxGone,
    /// The session is final, nothing was left to destroy, and its sandbox is there all the same.
    SandboxLeft,
    /// The provider is not configured any more: nothing can be done, or even looked at.
    ProviderMissing,
    /// A sandbox that bears our ledger's id and that no session owns.
    Orphan,
    /// The provider did not say how the sandbox is, or which it has: there may be more to recover.
    NotAnswered,
}

/// What is wrong with a session that nobody works on.
#[derive(Debug)]
pub(crate) struct Diagnosis {
    session: SessionRecord,
    finding: Finding,
    /// Why no more is known.
    unknown: Option<Failure>,
}

impl Engine {
    /// Finishes what was interrupted and makes ledger and provider agree. Reports what it found and did.
    ///
    /// # Errors
    /// When the ledger can't be read, or the caller may not ask for this.
    pub async fn reconcile(&self, request: ReconcileRequest) -> Result<Vec<Reconciled>, Failure> {
        if request.all && !request.caller.admin {
            return Err(Failure::new(
                ErrorCode::SessionForbidden,
                "only admins reconcile every owner's sessions",
            )
            .next("alpine reconcile"));
        }
        // Taken before they are listed: who had it may have saved or destroyed one since.
        let turn = self.turn_to_save(request.dry_run).await?;
        // Listed before the ledger is read: a sandbox is made after its session was recorded, so each has its row by then.
        let (listed, mut report) = if request.session.is_none() {
            self.listed().await?
        } else {
            Default::default()
        };
        let mut sessions = self.to_reconcile(&request).await?;
        let mut strays = Vec::new();
        for (provider, sandbox) in listed {
            match self.owner_of(&sandbox).await? {
                None => strays.push((provider, sandbox)),
                Some(owner) if concerns(&request, &owner) && !sessions.contains(&owner) => {
                    sessions.push(owner);
                }
                Some(_) => {}
            }
        }
        report.append(&mut self.recover_all(&request, sessions, &turn).await?);
        for (provider, sandbox) in strays {
            let stray = Stray {
                provider,
                sandbox,
                owner: None,
            };
            report.push(self.quarantine(stray, &turn).await?);
        }
        Ok(report)
    }

    async fn recover_all(
        &self,
        request: &ReconcileRequest,
        sessions: Vec<SessionRecord>,
        turn: &Turn,
    ) -> Result<Vec<Reconciled>, Failure> {
        let mut report = Vec::new();
        let ids = sessions.into_iter().map(|session| session.session_id);
        let diagnose = |engine: Engine, id| async move { engine.diagnose(&id).await };
        for found in self
            .each(ids.collect(), diagnose)
            .await?
            .into_iter()
            .flatten()
        {
            // While others were recovered, somebody may have gone on with it.
            if !self.is_as_found(&found.session).await? {
                continue;
            }
            report.push(if found.finding == Finding::SandboxLeft {
                self.save_left(found.session, turn).await?
            } else {
                self.recover(request, found).await?
            });
        }
        Ok(report)
    }

    /// The sessions that may need recovery: those that are not final, and those whose sandbox is to be destroyed.
    async fn to_reconcile(
        &self,
        request: &ReconcileRequest,
    ) -> Result<Vec<SessionRecord>, Failure> {
        let request = request.clone();
        self.read(move |snapshot| {
            if let Some(given) = &request.session {
                return Ok(lookup(snapshot, &request.caller, given)?.map(|session| vec![session]));
            }
            let owner = (!request.all).then_some(request.caller.principal.as_str());
            unsettled(snapshot, owner).map(Ok)
        })
        .await?
    }

    /// What is wrong with a session that nobody works on, if anything is; and the record that shows it.
    async fn diagnose(&self, id: &SessionId) -> Result<Option<Diagnosis>, Failure> {
        let (id, now, abandon) = (id.clone(), self.now(), self.limits.abandon);
        let found = self
            .read(move |snapshot| {
                let Some(session) = snapshot.session(&id)? else {
                    return Ok(None);
                };
                if is_held(snapshot, &id)? {
                    return Ok(None);
                }
                let open = snapshot.open_operations_of(&id)?;
                let idle = match snapshot.lease(&id)? {
                    Some(lease) => snapshot.idle(&lease),
                    None => now.since(session.updated_at),
                };
                let finding = left(&session, &open, idle >= abandon);
                Ok(Some((session, finding)))
            })
            .await?;
        let Some((session, finding)) = found else {
            return Ok(None);
        };
        let is_known = self.providers.get(&session.new.provider).is_ok();
        let is_over = session.state.is_terminal() && !session.destroy_pending;
        let mut unknown = None;
        let finding = match finding {
            _ if !is_known => (!is_over).then_some(Finding::ProviderMissing),
            Some(finding) => Some(finding),
            None => match self.seen(&session).await {
                Ok(state) => disagreement(&session, state),
                Err(failure) if failure.code == ErrorCode::Interrupted => return Err(failure),
                Err(failure) => {
                    unknown = Some(failure);
                    Some(Finding::NotAnswered)
                }
            },
        };
        Ok(finding.map(|finding| Diagnosis {
            session,
            finding,
            unknown,
        }))
    }

    /// Whether nobody has changed the session, and nobody works on it.
    async fn is_as_found(&self, found: &SessionRecord) -> Result<bool, Failure> {
        let (id, version) = (found.session_id.clone(), found.version);
        self.read(move |snapshot| {
            let now = snapshot.session(&id)?;
            Ok(now.is_some_and(|now| now.version == version) && !is_held(snapshot, &id)?)
        })
        .await
    }

    /// Saves what is in the sandbox of a session that is final, where it is there all the same.
    pub(crate) async fn look_again(&self, session: &SessionRecord) -> Result<(), Failure> {
        let found = self.diagnose(&session.session_id).await?;
        let Some(found) = found.filter(|found| found.finding == Finding::SandboxLeft) else {
            return Ok(());
        };
        let turn = self.turn_to_save(false).await?;
        let saved = self.save_left(found.session, &turn).await?;
        let object = saved.durable_object_id.as_deref();
        self.watch.tell(Progress::Warning(match (saved.error, object) {
            (Some(error), _) => format!("the sandbox is there again, and can't be saved: {error}; try: alpine reconcile"),
            (None, _) if saved.done => "the sandbox was there again, and was destroyed".to_owned(),
            (None, object) => format!(
                "the sandbox is there again: its workspace is saved in `{}`, and `alpine reconcile` destroys it after a grace period",
                object.unwrap_or_default()
            ),
        }));
        Ok(())
    }

    async fn recover(
        &self,
        request: &ReconcileRequest,
        found: Diagnosis,
    ) -> Result<Reconciled, Failure> {
        let Diagnosis {
            session, finding, ..
        } = found;
        let mut done = Reconciled {
            session_id: Some(session.session_id.to_string()),
            sandbox_id: Some(session.sandbox_id.clone()),
            finding,
            state: Some(session.state),
            done: false,
            error: found.unknown.map(|failure| self.told(&failure)),
            durable_object_id: None,
        };
        let is_left = matches!(
            finding,
            Finding::InterruptedUp | Finding::ProviderMissing | Finding::NotAnswered
        );
        if request.dry_run || is_left {
            return Ok(done);
        }
        let down = DownRequest {
            caller: request.caller.clone(),
            session: session.session_id.to_string(),
            // Where the sandbox is gone there is nothing left that a user could save.
            retry_persist: finding == Finding::SandboxGone,
            cancel: false,
            discard: None,
            reason: Some(reason(finding).to_owned()),
            timeout: None,
        };
        // What was found is true of this version.
        match self.down_at(down, Some(session.version)).await {
            Ok(outcome) => {
                done.state = Some(outcome.state);
                done.error = self.undestroyed(&session.session_id).await?;
                done.done = done.error.is_none();
            }
            Err(failure) if failure.code == ErrorCode::Interrupted => return Err(failure),
            // Somebody else has gone on with it meanwhile.
            Err(failure)
                if failure.code == ErrorCode::OperationConflict
                    && self.is_gone_on_with(&session.session_id).await? => {}
            Err(failure) => done.error = Some(self.told(&failure)),
        }
        Ok(done)
    }

    /// Whether somebody works on the session, or has brought it to its end.
    async fn is_gone_on_with(&self, id: &SessionId) -> Result<bool, Failure> {
        let id = id.clone();
        self.read(move |snapshot| {
            let session = snapshot.session(&id)?;
            let is_over = session.is_none_or(|session| session.state.is_terminal());
            Ok(is_over || is_held(snapshot, &id)?)
        })
        .await
    }

    /// What keeps the sandbox of a session whose work is safe from being destroyed.
    async fn undestroyed(&self, id: &SessionId) -> Result<Option<String>, Failure> {
        let id = id.clone();
        let session = self.read(move |snapshot| snapshot.session(&id)).await?;
        let left = session.filter(|session| session.destroy_pending);
        Ok(left.map(|session| {
            session.last_error.map_or_else(
                || "the sandbox is still there".to_owned(),
                |error| error.cause,
            )
        }))
    }
}

/// The sessions that are not final, and those whose sandbox is still to be destroyed.
fn unsettled(
    snapshot: &Snapshot<'_>,
    owner: Option<&str>,
) -> Result<Vec<SessionRecord>, LedgerError> {
    let mut sessions = snapshot.unfinished(owner)?;
    for id in snapshot.pending_destroys()? {
        let pending = snapshot.session(&id)?;
        sessions
            .extend(pending.filter(|session| owner.is_none_or(|owner| session.new.owner == owner)));
    }
    Ok(sessions)
}

/// Whether the caller asked for this session too.
fn concerns(request: &ReconcileRequest, session: &SessionRecord) -> bool {
    request.all || session.new.owner == request.caller.principal
}

fn is_held(snapshot: &Snapshot<'_>, session: &SessionId) -> Result<bool, LedgerError> {
    let lease = snapshot.lease(session)?;
    Ok(lease.is_some_and(|lease| snapshot.holder_is_live(&lease) == Liveness::Live))
}

/// How the provider disagrees with what the ledger says of a session, if it does.
fn disagreement(session: &SessionRecord, state: SandboxState) -> Option<Finding> {
    let is_final = session.state.is_terminal();
    match state {
        SandboxState::Missing => (!is_final).then_some(Finding::SandboxGone),
        SandboxState::Running | SandboxState::Exited => is_final.then_some(Finding::SandboxLeft),
        SandboxState::Unknown => None,
    }
}

/// What a session was left in whose lease is free.
fn left(session: &SessionRecord, open: &[OperationRecord], abandoned: bool) -> Option<Finding> {
    let unfinished = |action| open.iter().any(|operation| operation.action == action);
    match session.state {
        State::Stopping | State::Persisting => Some(Finding::UnfinishedDown),
        State::Failing => Some(Finding::UnfinishedCleanUp),
        State::Requested | State::Provisioning | State::RepoSyncing | State::Installing => {
            Some(if abandoned {
                Finding::AbandonedUp
            } else {
                Finding::InterruptedUp
            })
        }
        State::Stopped | State::Failed if session.destroy_pending => Some(Finding::DestroyPending),
        // A session that waits for its user is left to them, unless what they asked for was cut short.
        State::CleanupFailed
        | State::CloseFailed
        | State::StoppedUnpersisted
        | State::PersistFailed => unfinished(Action::Down).then_some(Finding::UnfinishedDown),
        State::Ready | State::Stopped | State::Failed => None,
    }
}

/// What is recorded as the reason of what is done.
fn reason(finding: Finding) -> &'static str {
    match finding {
        Finding::UnfinishedDown => "reconcile: an interrupted `down`",
        Finding::UnfinishedCleanUp => "reconcile: an interrupted clean-up",
        Finding::AbandonedUp => "reconcile: an `up` that nobody carried on",
        Finding::InterruptedUp => "reconcile: an interrupted `up`",
        Finding::DestroyPending => "reconcile: a pending destroy",
        Finding::SandboxGone => "reconcile: the sandbox is gone",
        Finding::SandboxLeft => "reconcile: the sandbox is still there",
        Finding::ProviderMissing => "reconcile: its provider is missing",
        Finding::Orphan => "reconcile: a sandbox that no session owns",
        Finding::NotAnswered => "reconcile: its provider did not answer",
    }
}
