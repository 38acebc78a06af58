//! Runs the machine's git so that nothing of a repository is ever executed.
//!
//! Every git process gets an environment of its own: no configuration of the system or the user (but for
//! the repositories that a user calls safe), no hooks, no prompts, no
//! transport but the address's own. A token reaches git by a credential helper that reads it from git's environment. A
//! workspace that somebody else could have written since is only ever read as plain files ([`head`]).

mod asking;
mod checkout;
mod child;
mod classify;
mod environment;
mod git;
mod head;
mod left_out;
mod mirror;
mod skeleton;
mod trust;

pub use git::{Git, GitConfig};
pub use head::head;
pub use left_out::left_out;
