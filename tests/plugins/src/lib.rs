//! The providers of `plugins/`: built with the machine's compiler, opened over the port, and as subjects of the conformance
//! kit.

mod build;
mod ported;

pub use build::{build, library, plugins, python};
pub use ported::{By, Ported};
