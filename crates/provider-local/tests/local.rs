//! The provider with real processes, real git and real files.

#![expect(
    clippy::unwrap_used,
    reason = "a test ends where something unexpected comes"
)]

#[path = "local/agents.rs"]
mod agents;
#[path = "local/commands.rs"]
mod commands;
#[path = "local/ending.rs"]
mod ending;
#[path = "local/keeping.rs"]
mod keeping;
#[path = "local/making.rs"]
mod making;
#[path = "local/removing.rs"]
mod removing;
#[path = "local/setup.rs"]
mod setup;
#[path = "local/support.rs"]
mod support;
