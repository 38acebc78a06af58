//! What can go wrong, as users see it: one type of failure.

use crate::ErrorCode;
use crate::mend;
use alpine_ledger::{ErrorRecord, LedgerError, OperationId};
use alpine_provider_api::{ProviderError, Redactor, Retry};

/// A signal that asks the tool to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Ctrl-C.
    Int,
    /// A polite kill.
    Term,
}

impl Signal {
    /// The exit status that tells of it.
    #[must_use]
    pub const fn exit_code(self) -> u8 {
        match self {
            Signal::Int => 130,
            Signal::Term => 143,
        }
    }
}

/// The most characters of a provider's message and hint, of a line of a log, and of all its last lines, that a failure repeats.
const MOST_MESSAGE: usize = 4000;
const MOST_HINT: usize = 1000;
const MOST_LINE: usize = 300;
const MOST_LINES: usize = 4000;

/// A failure as the user sees it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{cause}")]
pub struct Failure {
    /// The code.
    pub code: ErrorCode,
    /// The name of a recorded code that is not in the table, as of what was imported.
    pub foreign_code: Option<String>,
    /// What happened.
    pub cause: String,
    /// What to do: a command wherever one exists.
    pub next_step: String,
    /// Whether the same request may succeed later.
    pub retryable: bool,
    /// The exit status.
    pub exit_code: u8,
    /// The operation.
    pub operation_id: Option<String>,
    /// Whether the same request answers this from now on, so that only the next step tries anew. Not recorded.
    pub settled: bool,
}

impl Failure {
    /// A failure with the code's usual exit status and retry.
    #[must_use]
    pub fn new(code: ErrorCode, cause: impl Into<String>) -> Self {
        let (_, _, exit_code, retryable, _) = *code.row();
        Self {
            code,
            foreign_code: None,
            cause: cause.into(),
            next_step: String::new(),
            retryable,
            exit_code,
            operation_id: None,
            settled: false,
        }
    }

    /// The code's name: that of the record, where there is one.
    #[must_use]
    pub fn code_name(&self) -> &str {
        self.foreign_code
            .as_deref()
            .unwrap_or_else(|| self.code.as_str())
    }

    /// The same, with what to do.
    #[must_use]
    pub fn next(mut self, next_step: impl Into<String>) -> Self {
        self.next_step = next_step.into();
        self
    }

    /// The same; the caller must change something.
    #[must_use]
    pub fn must_change(mut self) -> Self {
        self.retryable = false;
        self.exit_code = 1;
        self
    }

    /// The same, with another exit status.
    #[must_use]
    pub fn exit(mut self, exit_code: u8) -> Self {
        self.exit_code = exit_code;
        self
    }

    /// The same, in an operation.
    #[must_use]
    pub fn in_operation(mut self, id: &OperationId) -> Self {
        self.operation_id = Some(id.as_str().to_owned());
        self
    }

    /// The same; a repeat of the request answers it again.
    #[must_use]
    pub fn settled(mut self, settled: bool) -> Self {
        self.settled = settled;
        self
    }

    /// The request conflicts with what is recorded; repeating it won't help.
    #[must_use]
    pub fn conflict(cause: impl Into<String>) -> Self {
        Self::new(ErrorCode::OperationConflict, cause).must_change()
    }

    /// A signal ended it; the same request carries on.
    #[must_use]
    pub fn signalled(signal: Signal) -> Self {
        let name = match signal {
            Signal::Int => "SIGINT",
            Signal::Term => "SIGTERM",
        };
        Self::new(
            ErrorCode::Interrupted,
            format!("interrupted by {name}; where it stands is recorded"),
        )
        .exit(signal.exit_code())
    }

    /// The same; what a signal ended before it was begun is carried on by that command.
    #[must_use]
    pub(crate) fn carried_on(self, command: impl FnOnce() -> String) -> Self {
        if self.code == ErrorCode::Interrupted {
            self.next(command())
        } else {
            self
        }
    }

    /// A provider's failure in a step.
    #[must_use]
    pub fn provider(code: ErrorCode, step: crate::Step, error: &ProviderError) -> Self {
        let error = shortened(error);
        let mut cause = format!("{step}: {}", error.message);
        if !error.log_tail.is_empty() {
            cause.push_str("; the last lines of the log:");
            for line in &error.log_tail {
                cause.push_str("\n  ");
                cause.push_str(line);
            }
        }
        let mut failure = Self::new(code, cause).next(error.hint.unwrap_or_default());
        failure.retryable |= error.retry == Retry::Transient;
        failure
    }

    /// The record that a repeat of the request answers.
    #[must_use]
    pub fn to_record(&self, redactor: &Redactor) -> ErrorRecord {
        ErrorRecord {
            error_code: self.code_name().to_owned(),
            cause: redactor.redact(&self.cause),
            next_step: redactor.redact(&self.next_step),
            retryable: self.retryable,
            operation_id: self.operation_id.as_deref().map(OperationId::from_recorded),
            exit_code: self.exit_code,
        }
    }

    /// A failure that was recorded.
    #[must_use]
    pub fn from_record(record: &ErrorRecord) -> Self {
        let known = ErrorCode::TABLE
            .iter()
            .find(|row| row.1 == record.error_code);
        Self {
            code: known.map_or(ErrorCode::Internal, |row| row.0),
            foreign_code: known.is_none().then(|| record.error_code.clone()),
            cause: record.cause.clone(),
            next_step: record.next_step.clone(),
            retryable: record.retryable,
            // Where none was recorded, as in what was imported, the code says it: a failure never exits 0.
            exit_code: match record.exit_code {
                0 => known.map_or(1, |row| row.2),
                recorded => recorded,
            },
            operation_id: record
                .operation_id
                .as_ref()
                .map(|id| id.as_str().to_owned()),
            settled: false,
        }
    }
}

impl From<LedgerError> for Failure {
    fn from(error: LedgerError) -> Self {
        let cause = error.to_string();
        match error {
            LedgerError::Unavailable {
                path, hindrance, ..
            } => Self::new(ErrorCode::LedgerUnavailable, cause)
                .next(mend::unavailable(hindrance, &path)),
            LedgerError::Busy { pids, .. } => {
                Self::new(ErrorCode::LedgerUnavailable, cause).next(mend::busy(&pids))
            }
            LedgerError::OutcomeUnknown { source } => {
                // What was recorded is there to be read.
                let next = mend::known(&source).unwrap_or_else(|| "alpine list".to_owned());
                Self::new(ErrorCode::LedgerUnavailable, cause).next(next)
            }
            LedgerError::Corrupt { .. } => {
                Self::new(ErrorCode::LedgerCorrupt, cause).next("alpine ledger repair")
            }
            LedgerError::Predecessor { path } => {
                let path = crate::caller::quoted(&path.to_string_lossy());
                Self::new(ErrorCode::LedgerIncompatible, cause)
                    .next(format!("alpine ledger import {path}"))
            }
            LedgerError::Incompatible { path, .. } => {
                Self::new(ErrorCode::LedgerIncompatible, cause)
                    .next(mend::move_aside(&path, "not-a-ledger"))
            }
            LedgerError::Newer { .. } => {
                Self::new(ErrorCode::LedgerIncompatible, cause).next("alpine ledger backup")
            }
            LedgerError::Fenced { session, .. } => Self::new(
                ErrorCode::OperationConflict,
                format!("another process has taken this operation over: {cause}"),
            )
            .next(format!("alpine status {session}")),
            LedgerError::NotFound { .. } => {
                Self::new(ErrorCode::SessionNotFound, cause).next("alpine list")
            }
            LedgerError::IllegalTransition { .. }
            | LedgerError::VersionMismatch { .. }
            | LedgerError::Protected { .. } => Self::new(ErrorCode::Internal, cause)
                .next("report this with the output of `ALPINE_LOG=debug` and the same command"),
        }
    }
}

/// What a provider's failure says, as far as anybody will read: it is recorded, and printed.
#[must_use]
pub fn shortened(error: &ProviderError) -> ProviderError {
    let mut error = error.clone();
    error.message = bounded(&error.message, MOST_MESSAGE);
    // A hint is a command to paste: another line would be another command.
    let hint = error.hint.map(|hint| hint.replace('\n', " "));
    error.hint = hint.map(|hint| bounded(&hint, MOST_HINT));
    error.log_tail = last_lines(&error.log_tail);
    error
}

/// The text without what could act on a terminal, and no longer than `most` characters.
fn bounded(text: &str, most: usize) -> String {
    let clean = |c: char| if c.is_control() && c != '\n' { ' ' } else { c };
    let mut short: String = text.chars().take(most).map(clean).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

/// The last lines that fit.
fn last_lines(lines: &[String]) -> Vec<String> {
    let mut kept = Vec::new();
    let mut length = 0;
    for line in lines.iter().rev() {
        let line = bounded(line.trim_end(), MOST_LINE);
        length += line.chars().count();
        if length > MOST_LINES {
            break;
        }
        kept.push(line);
    }
    kept.reverse();
    kept
}

#[cfg(test)]
mod tests {
    use super::{Failure, shortened};
    use crate::{ErrorCode, Step};
    use alpine_ledger::ErrorRecord;
    use alpine_provider_api::{ErrorKind, ProviderError, Redactor};

    #[test]
    fn a_provider_says_no_more_than_anybody_reads() {
        let mut error = ProviderError::new(ErrorKind::Io, "m".repeat(900_000))
            .hint(format!("h\nrm -rf ~\r\u{1b}[2J{}", "x".repeat(900_000)));
        error.log_tail = vec!["l".repeat(9000); 900];
        let failure = Failure::provider(ErrorCode::SandboxProvisionFailed, Step::Provision, &error);
        let next = &failure.next_step;
        assert!(
            next.starts_with("h rm -rf ~  [2Jxxx") && next.ends_with("x…"),
            "{next}"
        );
        assert_eq!(next.chars().count(), 1001);
        assert!(failure.cause.chars().count() < 9000);
        assert_eq!(
            shortened(&shortened(&error)).message,
            shortened(&error).message
        );
    }

    #[test]
    fn a_recorded_failure_exits_as_it_did_or_as_its_code_does() {
        let exit = |error_code: &str, exit_code| {
            let record = ErrorRecord {
                error_code: error_code.to_owned(),
                cause: String::new(),
                next_step: String::new(),
                retryable: false,
                operation_id: None,
                exit_code,
            };
            let failure = Failure::from_record(&record);
            assert_eq!(
                failure.to_record(&Redactor::default()).error_code,
                error_code
            );
            failure.exit_code
        };
        assert_eq!(exit("ERR_BRANCH_NOT_FOUND", 0), 1);
        assert_eq!(exit("ERR_INSTALL_FAILED", 0), 2);
        assert_eq!(exit("ERR_UNHEARD_OF", 0), 1);
        assert_eq!(exit("ERR_INSTALL_FAILED", 143), 143);
    }
}
