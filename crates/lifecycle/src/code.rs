//! The taxonomy of failures: one table of codes.

use std::fmt;

/// The codes of the contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the table below says when each is used")]
pub enum ErrorCode {
    Usage,
    ConfigInvalid,
    CallerIdentityRequired,
    CommandReplaced,
    BranchRequired,
    InvalidBranch,
    InvalidRepoUrl,
    RepoAuthMissing,
    RepoAuthRejected,
    BranchNotFound,
    RepoUnreachable,
    SessionNotFound,
    SessionForbidden,
    OperationConflict,
    ProviderNotFound,
    ProviderIncompatible,
    ProviderCrashed,
    SandboxProvisionFailed,
    SandboxUnavailable,
    RepoSyncFailed,
    InstallFailed,
    AgentNotReady,
    CleanupFailed,
    CloseFailed,
    PersistenceVerificationFailed,
    PersistPayloadTooLarge,
    Timeout,
    Interrupted,
    LedgerUnavailable,
    LedgerCorrupt,
    LedgerIncompatible,
    Internal,
}

/// One row of the table: code, name, exit status, whether a retry may help, when it is used.
type Row = (ErrorCode, &'static str, u8, bool, &'static str);

impl ErrorCode {
    /// The taxonomy. Exit status and retry are the usual ones; some failures say otherwise.
    pub const TABLE: [Row; 32] = [
        (
            ErrorCode::Usage,
            "ERR_USAGE",
            1,
            false,
            "flags or arguments",
        ),
        (
            ErrorCode::ConfigInvalid,
            "ERR_CONFIG_INVALID",
            1,
            false,
            "a configuration file or variable",
        ),
        (
            ErrorCode::CallerIdentityRequired,
            "ERR_CALLER_IDENTITY_REQUIRED",
            1,
            false,
            "no principal is known",
        ),
        (
            ErrorCode::CommandReplaced,
            "ERR_COMMAND_REPLACED",
            1,
            false,
            "`create` and `teardown`",
        ),
        (
            ErrorCode::BranchRequired,
            "ERR_BRANCH_REQUIRED",
            1,
            false,
            "`up` without `--branch`",
        ),
        (
            ErrorCode::InvalidBranch,
            "ERR_INVALID_BRANCH",
            1,
            false,
            "git would not take it as a branch's name",
        ),
        (
            ErrorCode::InvalidRepoUrl,
            "ERR_INVALID_REPO_URL",
            1,
            false,
            "not a repository's address, or not a safe one",
        ),
        (
            ErrorCode::RepoAuthMissing,
            "ERR_REPO_AUTH_MISSING",
            1,
            false,
            "no credential for a remote repository",
        ),
        (
            ErrorCode::RepoAuthRejected,
            "ERR_REPO_AUTH_REJECTED",
            1,
            false,
            "the remote refused the credential",
        ),
        (
            ErrorCode::BranchNotFound,
            "ERR_BRANCH_NOT_FOUND",
            1,
            false,
            "the remote has no such branch",
        ),
        (
            ErrorCode::RepoUnreachable,
            "ERR_REPO_UNREACHABLE",
            2,
            true,
            "DNS, connection, timeout, or a server's error",
        ),
        (
            ErrorCode::SessionNotFound,
            "ERR_SESSION_NOT_FOUND",
            1,
            false,
            "no such session",
        ),
        (
            ErrorCode::SessionForbidden,
            "ERR_SESSION_FORBIDDEN",
            1,
            false,
            "another's session",
        ),
        (
            ErrorCode::OperationConflict,
            "ERR_OPERATION_CONFLICT",
            2,
            true,
            "another operation has the session; exit 1 and no retry when the request itself conflicts",
        ),
        (
            ErrorCode::ProviderNotFound,
            "ERR_PROVIDER_NOT_FOUND",
            1,
            false,
            "no such provider is configured",
        ),
        (
            ErrorCode::ProviderIncompatible,
            "ERR_PROVIDER_INCOMPATIBLE",
            1,
            false,
            "the provider can't do what is needed",
        ),
        (
            ErrorCode::ProviderCrashed,
            "ERR_PROVIDER_CRASHED",
            2,
            true,
            "the provider died or panicked: the outcome is unknown",
        ),
        (
            ErrorCode::SandboxProvisionFailed,
            "ERR_SANDBOX_PROVISION_FAILED",
            2,
            false,
            "the sandbox could not be made; retryable as the provider says",
        ),
        (
            ErrorCode::SandboxUnavailable,
            "ERR_SANDBOX_UNAVAILABLE",
            1,
            false,
            "the isolation asked for can't be had here",
        ),
        (
            ErrorCode::RepoSyncFailed,
            "ERR_REPO_SYNC_FAILED",
            2,
            false,
            "the repository could not be brought in; retryable as found",
        ),
        (
            ErrorCode::InstallFailed,
            "ERR_INSTALL_FAILED",
            2,
            false,
            "the install step failed; retryable as found",
        ),
        (
            ErrorCode::AgentNotReady,
            "ERR_AGENT_NOT_READY",
            2,
            false,
            "the agent did not become ready; retryable as found",
        ),
        (
            ErrorCode::CleanupFailed,
            "ERR_CLEANUP_FAILED",
            2,
            true,
            "a failed `up` left something allocated",
        ),
        (
            ErrorCode::CloseFailed,
            "ERR_CLOSE_FAILED",
            2,
            true,
            "the sandbox could not be stopped",
        ),
        (
            ErrorCode::PersistenceVerificationFailed,
            "ERR_PERSISTENCE_VERIFICATION_FAILED",
            2,
            true,
            "not stored or not verified; exit 1 when a retry has to be asked for",
        ),
        (
            ErrorCode::PersistPayloadTooLarge,
            "ERR_PERSIST_PAYLOAD_TOO_LARGE",
            2,
            false,
            "the payload is over 512 KiB even compacted",
        ),
        (
            ErrorCode::Timeout,
            "ERR_TIMEOUT",
            2,
            true,
            "a time limit passed; the same request carries on",
        ),
        (
            ErrorCode::Interrupted,
            "ERR_INTERRUPTED",
            130,
            true,
            "SIGINT 130, SIGTERM 143; 1 and no retry when cancelled by `down --cancel`",
        ),
        (
            ErrorCode::LedgerUnavailable,
            "ERR_LEDGER_UNAVAILABLE",
            2,
            true,
            "the ledger can't be opened or written now",
        ),
        (
            ErrorCode::LedgerCorrupt,
            "ERR_LEDGER_CORRUPT",
            2,
            false,
            "the ledger is damaged; it is never overwritten",
        ),
        (
            ErrorCode::LedgerIncompatible,
            "ERR_LEDGER_INCOMPATIBLE",
            2,
            false,
            "not a ledger, or one of another version; it is never overwritten",
        ),
        (ErrorCode::Internal, "ERR_INTERNAL", 2, false, "a bug"),
    ];

    pub(crate) fn row(self) -> &'static Row {
        // The table is in the order of the enum; a test holds it there.
        &Self::TABLE[self as usize]
    }

    /// The name in output.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.row().1
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::ErrorCode;

    #[test]
    fn the_table_is_in_the_order_of_the_enum() {
        for (index, row) in ErrorCode::TABLE.iter().enumerate() {
            assert_eq!(row.0 as usize, index, "{}", row.1);
        }
    }
}
