//! What `up` answers without doing anything: recorded outcomes and refusals.

use crate::again::anew;
use crate::engine::Engine;
use crate::{ErrorCode, Failure, UpOutcome, UpRequest, shortened};
use alpine_ledger::{Conflict, OperationRecord, SessionRecord, State};
use alpine_provider_api::{Call, Meta, OpenAgentRequest, SandboxId, Secret};
use std::collections::BTreeMap;

impl Engine {
    /// The recorded outcome of an earlier request with the same id.
    pub(crate) async fn replay_up(
        &self,
        session: SessionRecord,
        operation: OperationRecord,
        request: &UpRequest,
    ) -> Result<UpOutcome, Failure> {
        if session.state == State::Ready {
            return self.outcome(session, &operation, true).await;
        }
        let recorded = operation.error.as_ref().or(session.last_error.as_ref());
        let failure = recorded.map_or_else(
            || {
                Failure::new(
                    ErrorCode::Interrupted,
                    "the session was brought down before it was ready",
                )
                .must_change()
            },
            Failure::from_record,
        );
        let up = anew(&request.recorded());
        let next = match session.state {
            State::CleanupFailed => format!("alpine down {} && {up}", session.session_id),
            State::Requested
            | State::Provisioning
            | State::RepoSyncing
            | State::Installing
            | State::Ready
            | State::Failing
            | State::Stopping
            | State::Persisting
            | State::StoppedUnpersisted
            | State::PersistFailed
            | State::CloseFailed
            | State::Stopped
            | State::Failed => up,
        };
        Err(failure
            .next(next)
            .in_operation(&operation.operation_id)
            .settled(true))
    }

    /// The answer for a session that is ready, with a link of its own.
    pub(crate) async fn outcome(
        &self,
        session: SessionRecord,
        operation: &OperationRecord,
        reused: bool,
    ) -> Result<UpOutcome, Failure> {
        let mut warnings = session.warnings.clone();
        let open_url = match self.open_link(&session).await {
            Ok(link) => link,
            Err(failure) => {
                warnings.push(format!(
                    "no link to the agent could be made: {}; try `alpine open {}`",
                    failure.cause, session.session_id
                ));
                None
            }
        };
        let mut step_ms = BTreeMap::new();
        for step in operation
            .steps
            .iter()
            .filter(|step| step.error_code.is_none())
        {
            *step_ms.entry(step.step.clone()).or_default() += step.duration_ms;
        }
        Ok(UpOutcome {
            operation_id: operation.operation_id.to_string(),
            session,
            open_url,
            reused,
            step_ms,
            warnings,
        })
    }

    /// A fresh one-time link to the session's agent; none where it serves nothing.
    async fn open_link(&self, session: &SessionRecord) -> Result<Option<Secret<String>>, Failure> {
        if session.opencode_url.is_none() {
            return Ok(None);
        }
        let provider = self.providers.get(&session.new.provider)?;
        let sandbox_id = SandboxId::new(&session.sandbox_id).ok_or_else(|| {
            Failure::new(
                ErrorCode::LedgerCorrupt,
                "the recorded sandbox id is malformed",
            )
        })?;
        let limit = self.limits.probe;
        let call = Call::quiet(Meta {
            operation_id: session.operation_id.to_string(),
            fence: 0,
            attempt: 1,
            deadline_ms: u64::try_from(limit.as_millis()).unwrap_or(u64::MAX),
            traceparent: None,
        });
        let link_ms = u64::try_from(self.limits.link.as_millis()).unwrap_or(u64::MAX);
        let asked = tokio::time::timeout(
            limit,
            provider.open_agent(
                &call,
                OpenAgentRequest {
                    sandbox_id,
                    link_ms,
                },
            ),
        )
        .await;
        match asked {
            Ok(Ok(reply)) => Ok(Some(reply.open_url)),
            Ok(Err(error)) => Err(Failure::new(
                ErrorCode::AgentNotReady,
                self.redactor.redact(&shortened(&error).message),
            )),
            Err(_) => Err(Failure::new(
                ErrorCode::Timeout,
                format!("the provider did not answer within {} s", limit.as_secs()),
            )),
        }
    }

    pub(crate) async fn refuse_up(&self, conflict: Conflict, request: &UpRequest) -> Failure {
        match conflict {
            Conflict::OtherRequest(session) => Failure::conflict(format!(
                "client request id `{}` was used for another repository, branch, provider or `--public`, in session `{session}`",
                request.client_request_id
            ))
            .next(self.anew(request).await),
            Conflict::Ended(session) => Failure::conflict(format!(
                "session `{}` of this client request id is `{}`; a new session needs a new id",
                session.session_id, session.state
            ))
            .next(self.anew(request).await)
            .in_operation(&session.operation_id),
            Conflict::NameTaken(session) => Failure::new(
                ErrorCode::Usage,
                format!("the name `{}` is that of unfinished session `{session}`", request.name.as_deref().unwrap_or_default()),
            )
            .next(format!("alpine status {session}")),
        }
    }
}
