//! Turns a workspace into a verified archive, and back.
//!
//! The archive is a PAX tar in one zstd frame, which stock `tar --zstd` reads, and after it a skippable frame with the BLAKE3
//! digest of all that precedes it, so that no byte can change unseen. [`capture`] leaves the workspace as it is (a
//! mode that keeps even its owner out is lifted for a moment) and never follows a link; [`restore`] takes the archive for
//! hostile. [`from_tar`] and [`to_tar`] do the same with a workspace that only comes and goes as the stream of a `tar` that
//! runs elsewhere.

mod archive;
mod capture;
mod entry;
mod error;
mod foreign;
mod from_tar;
mod pax;
mod restore;
mod seal;
mod tick;
mod to_tar;
mod types;
mod unlock;
mod verify;
mod walk;
mod writer;

pub use capture::capture;
pub use error::SnapshotError;
pub use from_tar::{Beside, from_tar};
pub use restore::restore;
pub use to_tar::to_tar;
pub use types::{Captured, LeftOut, Root, Verified};
pub use verify::verify;
