//! One file per command.

pub(crate) mod audit;
pub(crate) mod completions;
pub(crate) mod config;
pub(crate) mod down;
pub(crate) mod events;
pub(crate) mod exec;
pub(crate) mod ledger;
pub(crate) mod list;
pub(crate) mod logs;
pub(crate) mod open;
pub(crate) mod ops;
pub(crate) mod provider;
pub(crate) mod reconcile;
pub(crate) mod stats;
pub(crate) mod status;
pub(crate) mod up;
