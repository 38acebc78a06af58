//! The built-in provider: sandboxes on this machine.
//!
//! A sandbox is a directory under `ALPINE_HOME/sandboxes` and a supervisor: the same executable, re-executed, that outlives
//! the command line, holds the sandbox's lock for life, starts its processes, keeps their logs, and ends them. Whether a
//! sandbox runs is read from its lock, so that nothing has to ask a supervisor in order to list.

mod agent;
mod clock;
mod config;
mod dial;
mod doomed;
mod exec;
mod front;
mod inspect;
mod install;
mod intent;
mod isolation;
mod keep;
mod launch;
mod layout;
mod logs;
mod made;
mod processes;
mod protocol;
mod provider;
mod provision;
mod record;
mod remove;
mod shim;
mod stop;
mod sync;
mod tree;

use alpine_files as file;
pub use config::LocalConfig;
pub use front::{Address, Front};
pub use processes::{Process, belonging, kill_marked, marked_by};
pub use provider::LocalProvider;
pub use shim::reexecuted;
