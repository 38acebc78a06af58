//! The local provider for real: its processes, its addresses, and what it leaves behind.

pub(crate) mod http;
pub(crate) mod object;
pub(crate) mod program;

mod agents;
mod commands;
mod faults;
mod readme;
pub(crate) mod whole;
