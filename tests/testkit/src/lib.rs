//! The strict fake provider, the test environment, and the servers that tests talk to.

mod fake;

pub use fake::{
    FakeControl, FakeObject, FakeProvider, FakeSandbox, Fault, KillPoint, Outcome, RecordedCall,
    Violation, ViolationKind,
};
