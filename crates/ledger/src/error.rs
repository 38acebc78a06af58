//! What can go wrong with the ledger, and how redb's errors become ours.

use crate::site::Site;
use crate::{OperationId, SessionId, State};
use std::error::Error;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// A failure of the ledger.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// It can't be opened, read or written: permissions, owner, disk full, read-only.
    #[error("the ledger `{}` can't be used: {reason}", path.display())]
    Unavailable {
        /// The ledger's file.
        path: PathBuf,
        /// Why.
        reason: String,
        /// What kind of thing is in the way.
        hindrance: Hindrance,
        /// What the system said.
        source: Option<Box<dyn Error + Send + Sync>>,
    },
    /// Another process kept it locked for longer than the limit.
    #[error("the ledger `{}` was busy for {} ms, open in {}", path.display(), waited.as_millis(), Pids(pids))]
    Busy {
        /// The ledger's file.
        path: PathBuf,
        /// How long it was waited for.
        waited: Duration,
        /// The other processes that have the file open.
        pids: Vec<u32>,
    },
    /// What is stored can't be right.
    #[error("the ledger `{}` is damaged: {what}", path.display())]
    Corrupt {
        /// The ledger's file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// The file is not a ledger.
    #[error("`{}` is not a ledger that this version can use: {what}", path.display())]
    Incompatible {
        /// The file.
        path: PathBuf,
        /// What it is.
        what: String,
    },
    /// A newer version wrote it: it can only be read.
    #[error("a newer version wrote the ledger `{}` (schema {schema}): this one can only read it", path.display())]
    Newer {
        /// The ledger's file.
        path: PathBuf,
        /// The version of its tables.
        schema: u64,
    },
    /// The file is the predecessor's `sessions.json`.
    #[error("`{}` is the predecessor's `sessions.json`, not a ledger", path.display())]
    Predecessor {
        /// The file.
        path: PathBuf,
    },
    /// The lease was taken by another in the meantime, or was given up.
    #[error(
        "operation `{operation}` no longer holds the lease of session `{session}` (fence {fence})"
    )]
    Fenced {
        /// The session.
        session: SessionId,
        /// The operation that thought it held the lease.
        operation: OperationId,
        /// The fence it came with.
        fence: u64,
    },
    /// No such edge in the table of transitions.
    #[error("a session may not go from `{from}` to `{to}`")]
    IllegalTransition {
        /// The state it is in.
        from: State,
        /// The state that was asked for.
        to: State,
    },
    /// No such row.
    #[error("`{id}` is not in the ledger")]
    NotFound {
        /// What was looked for.
        id: String,
    },
    /// The session was changed by another in the meantime.
    #[error("session `{id}` is at version {found}, not {expected}")]
    VersionMismatch {
        /// The session.
        id: SessionId,
        /// The version the caller had read.
        expected: u64,
        /// The version that is stored.
        found: u64,
    },
    /// A change touched what only the ledger may set.
    #[error("a change of session `{id}` may not touch `{field}`")]
    Protected {
        /// The session.
        id: SessionId,
        /// The field.
        field: &'static str,
    },
    /// A commit failed: the transaction may or may not have happened. Look it up by its operation, in a write: the
    /// next one decides.
    #[error("whether the change of the ledger was written is unknown: {source}")]
    OutcomeUnknown {
        /// What the commit said.
        source: Box<LedgerError>,
    },
}

/// What is in the way of a ledger that can't be used, as far as somebody can mend it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hindrance {
    /// Others may read or write the file.
    Exposed,
    /// Others may write its directory.
    DirectoryExposed,
    /// Its directory is made to be shared, as `/tmp` is.
    DirectoryShared,
    /// Its mode says that nobody writes it.
    ReadOnly,
    /// Its path is a symbolic link.
    SymbolicLink,
    /// The file has another name.
    HardLinks,
    /// The disk, or a quota, is full.
    NoSpace,
    /// The process may not write a file of that size.
    FileLimit,
    /// The file system is mounted to be read.
    ReadOnlyFileSystem,
    /// The file or its directory may not be opened.
    Permissions,
    /// The file that keeps the ledger's id is not fit to be read.
    KeptId,
    /// Something else.
    Other,
}

/// The pids of a `Busy`, for people.
struct Pids<'a>(&'a [u32]);

impl fmt::Display for Pids<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            [] => f.write_str("another process"),
            [pid] => write!(f, "process {pid}"),
            pids => {
                f.write_str("processes ")?;
                for (index, pid) in pids.iter().enumerate() {
                    let separator = if index == 0 { "" } else { ", " };
                    write!(f, "{separator}{pid}")?;
                }
                Ok(())
            }
        }
    }
}

/// What a lock of our storage backend says when its time is over.
#[derive(Debug)]
pub(crate) struct LockTimeout {
    /// How long it was waited for.
    pub(crate) waited: Duration,
}

impl fmt::Display for LockTimeout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "locked for {} ms", self.waited.as_millis())
    }
}

impl Error for LockTimeout {}

/// Our error for one of redb's, whichever of its types it came as.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "another crate's errors; what is not known needs no name"
)]
pub(crate) fn from_redb(site: &Site, error: impl Into<redb::Error>) -> LedgerError {
    match error.into() {
        redb::Error::Io(error) => from_io(site, error),
        redb::Error::Corrupted(what) => site.corrupt(what),
        redb::Error::UpgradeRequired(version) => {
            site.incompatible(format!("redb file format {version}"))
        }
        error @ redb::Error::LockProtocolMismatch => site.incompatible(error.to_string()),
        error @ (redb::Error::TableTypeMismatch { .. }
        | redb::Error::TypeDefinitionChanged { .. }
        | redb::Error::TableIsMultimap(_)
        | redb::Error::TableDoesNotExist(_)) => site.corrupt(error.to_string()),
        error => {
            let reason = error.to_string();
            site.unavailable(reason, Some(Box::new(error)))
        }
    }
}

/// Our error for one of the file system's.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the system's errors; what is not known needs no name"
)]
pub(crate) fn from_io(site: &Site, error: io::Error) -> LedgerError {
    let timeout = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<LockTimeout>());
    if let Some(LockTimeout { waited }) = timeout {
        return site.busy(*waited);
    }
    let hindrance = match error.kind() {
        io::ErrorKind::UnexpectedEof => return site.corrupt("it is shorter than it should be"),
        io::ErrorKind::InvalidData => return site.corrupt(error.to_string()),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Hindrance::NoSpace,
        io::ErrorKind::FileTooLarge => Hindrance::FileLimit,
        io::ErrorKind::ReadOnlyFilesystem => Hindrance::ReadOnlyFileSystem,
        // Its owner may not read or write it: for the superuser that is only what the mode says.
        io::ErrorKind::PermissionDenied if crate::file::is_closed_to_its_owner(site) => {
            Hindrance::ReadOnly
        }
        io::ErrorKind::PermissionDenied => Hindrance::Permissions,
        _ => Hindrance::Other,
    };
    site.hindered(hindrance, error.to_string(), Some(Box::new(error)))
}
