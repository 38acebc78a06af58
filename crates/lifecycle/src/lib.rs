//! Drives a provider through the steps of `up` and `down`; recovers what was interrupted.
//!
//! The step rule, which everything here follows: *do the work with no ledger open, then record it; a crash in between
//! repeats the step*. So each call to a provider is idempotent in an id that was chosen and recorded first.

mod again;
mod ask;
mod bring_up;
mod call;
mod caller;
mod cleanup;
mod code;
mod down;
mod engine;
mod env;
mod error;
mod gone;
mod held;
mod limits;
mod look;
mod mend;
mod next;
mod payload;
mod persist;
mod place;
mod plan;
mod preflight;
mod providers;
mod quarantine;
mod reconcile;
mod replay;
mod step;
mod turn;
mod up;
mod wait;
mod watch;

pub use again::UNKEPT;
pub use caller::{Caller, lookup, quoted};
pub use code::ErrorCode;
pub use down::{DownOutcome, DownRequest, snapshot_or_reason};
pub use engine::{Engine, Tips};
pub use env::Env;
pub use error::{Failure, Signal, shortened};
pub use limits::{Limit, Limits};
pub use mend::move_aside;
pub use next::next_step;
pub use payload::{MAX_PAYLOAD, Payload, compact};
pub use plan::{DownFlags, DownPlan, plan_down};
pub use preflight::{Credentials, preflight};
pub use providers::{Providers, no_provider};
pub use reconcile::{Finding, ReconcileRequest, Reconciled};
pub use step::Step;
pub use up::{UpOutcome, UpRequest};
pub use watch::{Ending, Interrupt, Progress, Watch};
