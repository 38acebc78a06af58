//! The fake, and what is broken on purpose.

#![expect(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    clippy::panic,
    reason = "a test ends where something unexpected comes, and a fault changes few of many things"
)]

#[path = "conformance/broken.rs"]
mod broken;
#[path = "conformance/fake.rs"]
mod fake;
#[path = "conformance/faults.rs"]
mod faults;
#[path = "conformance/served.rs"]
mod served;
#[path = "conformance/wire.rs"]
mod wire;
