//! The strict fake provider, the test environment, and the servers that tests talk to.

mod clock;
mod env;
mod fake;
mod fault_proxy;
mod git_server;
mod http;
mod listener;
mod model_server;
mod next_step;
mod processes;
mod repo;
mod run;
mod whole;

pub use clock::{TEST_EPOCH_MS, TestClock};
pub use env::{RUN_LIMIT, TestEnv};
pub use fake::{
    FakeControl, FakeObject, FakeProvider, FakeSandbox, Fault, KillPoint, Outcome, RecordedCall,
    Violation, ViolationKind,
};
pub use fault_proxy::{FaultProxy, ProxyMode};
pub use git_server::{GitMode, GitRequest, GitServer};
pub use http::basic;
pub use model_server::{ModelServer, opencode};
pub use next_step::is_command;
pub use processes::{Leftover, end_all_of};
pub use repo::TestRepo;
pub use run::{Output, json};
pub use whole::is_whole;
