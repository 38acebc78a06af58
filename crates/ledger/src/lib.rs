//! The durable record of sessions, operations and events; refuses an illegal change.
//!
//! One redb file that several processes read and write at once. A write is one atomic transaction in a
//! synchronous closure, so nothing can be awaited under its lock; a read gives owned values and waits for
//! no writer. Indexes, events and versions are kept inside, never by callers.

mod admission;
mod backend;
mod codec;
mod create;
mod error;
mod file;
mod find;
mod handle;
mod holder;
mod id;
mod lease;
mod ledger;
mod list;
mod options;
mod session;
mod site;
mod snapshot;
mod state;
mod store;
mod tables;
mod time;
mod tx;
mod types;

pub use admission::{Acquired, Admission, Conflict, Grant};
pub use error::LedgerError;
pub use find::Found;
pub use holder::{LeaseToken, Liveness, OperationLock};
pub use id::{NAMESPACE, OperationId, SessionId};
pub use lease::Outcome;
pub use ledger::Ledger;
pub use list::{ListQuery, Page};
pub use options::Options;
pub use snapshot::Snapshot;
pub use state::State;
pub use time::{Clock, SystemClock, Timestamp};
pub use tx::Tx;
pub use types::{
    Action, AuditRecord, ErrorRecord, Event, Holder, LeaseRecord, NewSession, OperationRecord,
    OperationState, PersistAttempt, QuarantineRecord, Receipt, SessionRecord, SessionSummary,
    StepRecord, TransitionRecord,
};
