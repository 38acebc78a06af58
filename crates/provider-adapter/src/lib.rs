//! Makes a whole provider of one that can only make sandboxes and run commands in them.
//!
//! Who implements the six methods of [`Sandboxes`] gets all of
//! [`SandboxProvider`](alpine_provider_api::SandboxProvider) by wrapping it in [`Adapted`]: the repository is checked out on
//! this machine and streamed in as a tar, so that no credential enters a sandbox; the workspace is streamed out as a tar and
//! becomes a snapshot here; fences, destroyed ids and what was done are kept in files of this machine, the same for every
//! such provider. A sandbox needs `sh`, `tar` and the usual small tools (`cat`, `dd`, `head`, `mkdir`, `mv`, `rm`); BusyBox will do.

mod agent;
mod agent_log;
mod install;
mod keep;
mod look;
mod pipe;
pub mod plain;
mod provider;
mod provision;
mod record;
mod run;
mod sandboxes;
mod server;
mod six;
mod stage;
mod stop;
mod sync;

pub use provider::Adapted;
pub use sandboxes::{Facts, Network, Sandboxes, Storage};
pub use six::whole;
