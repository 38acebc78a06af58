//! The checks, one file for each group.

pub(crate) mod arguments;
pub(crate) mod boundary;
pub(crate) mod crash;
pub(crate) mod describe;
pub(crate) mod ending;
pub(crate) mod exec;
pub(crate) mod fencing;
pub(crate) mod keep;
pub(crate) mod life;
pub(crate) mod provision;
pub(crate) mod repository;
pub(crate) mod start;
