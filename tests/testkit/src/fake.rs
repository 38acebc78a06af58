//! The strict fake provider and the test's hand in it.

mod command;
mod control;
mod ending;
mod judge;
mod look;
mod process;
mod provider;
mod real;
mod store;
mod tree;
mod types;
mod work;
mod wrong;

pub use control::FakeControl;
pub use provider::FakeProvider;
pub use types::{
    FakeObject, FakeSandbox, Fault, KillPoint, Outcome, RecordedCall, Violation, ViolationKind,
};
