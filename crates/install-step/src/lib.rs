//! Finds out how a repository's dependencies are installed.
//!
//! Nothing of the repository is run for that, and no link is followed.

mod detect;
mod setup;

pub use detect::{LOCK_FILES, Plan, YARN_HEAD, detect};
pub use setup::{EXAMPLE, LARGEST, NAME};
