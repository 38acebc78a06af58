//! Checks that a provider keeps the contract, sentence by sentence.
//!
//! [`check`] opens the [`Subject`], runs every check of [`checks`] that the subject's `describe` and its kind allow, and
//! gives a [`Report`]. A method or feature that is announced has to work; one that is not has to answer `unsupported`.
//! Sandboxes have to hold `sh`, and what is beside it in any small system: `cat`, `head`, `find`, `sort`, `stat`, `cksum`,
//! `sleep`, `env`; an agent's server is tried where they hold `python3`. The machine has to hold `git`.
//! Every sandbox that is made bears the ledger's id of this run alone, and is destroyed; durable objects stay, since a
//! provider can't remove them.

mod bench;
mod called;
mod catalogue;
mod frame;
mod groups;
mod http;
mod junit;
mod options;
mod random;
mod report;
mod repository;
mod run;
mod sandbox;
mod serve;
mod subject;
mod text;
mod trace;
mod wire;

pub use catalogue::{Check, Group, checks, picked};
pub use options::Options;
pub use report::{Checked, Report, Verdict};
pub use run::{check, check_until};
pub use subject::{CompiledIn, Kill, Reach, Subject};
pub use wire::Wire;
