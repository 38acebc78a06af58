//! The durable record of sessions, operations and events; refuses an illegal change.
//!
//! One redb file that several processes read and write at once. A write is one atomic transaction in a
//! synchronous closure, so nothing can be awaited under its lock; a read gives owned values and waits for
//! no writer. Indexes, events and versions are kept inside, never by callers.

mod admission;
mod backend;
mod backup;
mod check;
mod codec;
mod compact;
mod create;
mod error;
mod export;
mod fence;
mod file;
mod find;
mod fresh;
mod handle;
mod holder;
mod id;
mod identity;
mod import;
mod index;
mod lease;
mod ledger;
mod list;
mod migrate;
mod options;
mod predecessor;
mod private;
mod queue;
mod raw;
mod repair;
mod retention;
mod rows;
mod session;
mod site;
mod snapshot;
mod state;
mod store;
mod tables;
mod time;
mod tx;
mod types;
mod unknown;

pub use admission::{Acquired, Admission, Conflict, Grant};
pub use backup::Saved;
pub use check::{Checked, Depth, Problem, check};
pub use compact::{Compacted, compact, is_large};
pub use error::{Hindrance, LedgerError};
pub use export::Exported;
pub use find::Found;
pub use holder::{LeaseToken, Liveness, OperationLock};
pub use id::{NAMESPACE, OperationId, SessionId};
pub use import::{Ask, Imported, Redact, import};
pub use lease::Outcome;
pub use ledger::Ledger;
pub use list::{ListQuery, Page, SessionSummary};
pub use options::{Options, WrapFile};
pub use redb::{BackendError, StorageBackend};
pub use repair::{Repaired, repair};
pub use retention::{Retained, Retention};
pub use snapshot::Snapshot;
pub use state::State;
pub use time::{Clock, Moment, SystemClock, Timestamp};
pub use tx::Tx;
pub use types::{
    Action, AuditRecord, ErrorRecord, Event, Holder, LeaseRecord, NewSession, OperationRecord,
    OperationState, PersistAttempt, QuarantineRecord, Receipt, SessionRecord, StepRecord,
    TransitionRecord,
};
