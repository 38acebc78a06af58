//! The steps of the two plans.

use crate::ErrorCode;
use alpine_provider_api::ErrorKind;
use serde::{Deserialize, Serialize};
use std::fmt;

/// An idempotent part of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// Ask the remote for the branch's tip.
    Resolve,
    /// Make the sandbox.
    Provision,
    /// Bring the repository into it.
    SyncRepo,
    /// Install its dependencies.
    Install,
    /// Start the agent's server.
    StartAgent,
    /// Check that all is ready.
    Probe,
    /// End every process.
    Stop,
    /// Stage the workspace.
    Capture,
    /// Write the durable object.
    Persist,
    /// Read it back.
    Verify,
    /// Delete the sandbox.
    Destroy,
}

impl Step {
    /// Every step, in the order of `up` and then of `down`.
    pub const ALL: [Step; 11] = [
        Step::Resolve,
        Step::Provision,
        Step::SyncRepo,
        Step::Install,
        Step::StartAgent,
        Step::Probe,
        Step::Stop,
        Step::Capture,
        Step::Persist,
        Step::Verify,
        Step::Destroy,
    ];

    /// The name in records and output.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Step::Resolve => "resolve",
            Step::Provision => "provision",
            Step::SyncRepo => "sync_repo",
            Step::Install => "install",
            Step::StartAgent => "start_agent",
            Step::Probe => "probe",
            Step::Stop => "stop",
            Step::Capture => "capture",
            Step::Persist => "persist",
            Step::Verify => "verify",
            Step::Destroy => "destroy",
        }
    }

    /// Whether it moves bytes, so that only time without progress counts.
    #[must_use]
    pub const fn moves_bytes(self) -> bool {
        matches!(self, Step::Capture | Step::Persist | Step::Verify)
    }

    /// Whether it works in a sandbox that runs.
    #[must_use]
    pub const fn needs_running(self) -> bool {
        matches!(
            self,
            Step::SyncRepo | Step::Install | Step::StartAgent | Step::Probe
        )
    }

    /// The code of a provider's failure in this step.
    #[must_use]
    pub fn code_of(self, kind: ErrorKind) -> ErrorCode {
        match (kind, self) {
            (ErrorKind::AuthRejected, _) => ErrorCode::RepoAuthRejected,
            (ErrorKind::BranchNotFound, _) => ErrorCode::BranchNotFound,
            (ErrorKind::Unreachable, Step::Resolve | Step::SyncRepo) => ErrorCode::RepoUnreachable,
            (ErrorKind::InvalidArgument, Step::Resolve) => ErrorCode::InvalidRepoUrl,
            (ErrorKind::ConfigInvalid, _) => ErrorCode::ConfigInvalid,
            (ErrorKind::IsolationUnavailable, _) => ErrorCode::SandboxUnavailable,
            // Another agent is what helps.
            (ErrorKind::Unsupported, Step::StartAgent) => ErrorCode::AgentNotReady,
            (ErrorKind::Unsupported, _) => ErrorCode::ProviderIncompatible,
            (ErrorKind::Crashed | ErrorKind::Internal, _) => ErrorCode::ProviderCrashed,
            (ErrorKind::TooLarge, Step::Persist) => ErrorCode::PersistPayloadTooLarge,
            (_, Step::Resolve | Step::SyncRepo) => ErrorCode::RepoSyncFailed,
            (_, Step::Provision) => ErrorCode::SandboxProvisionFailed,
            (_, Step::Install) => ErrorCode::InstallFailed,
            (_, Step::StartAgent | Step::Probe) => ErrorCode::AgentNotReady,
            (_, Step::Stop) => ErrorCode::CloseFailed,
            (_, Step::Capture | Step::Persist | Step::Verify) => {
                ErrorCode::PersistenceVerificationFailed
            }
            (_, Step::Destroy) => ErrorCode::CleanupFailed,
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
