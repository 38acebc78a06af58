//! Turns a workspace into a verified archive, and back.
//!
//! The archive is a PAX tar in one zstd frame, which stock `tar --zstd` reads, and after it a skippable frame with the BLAKE3
//! digest of all that precedes it, so that no byte can change unseen. [`capture`] leaves the workspace as it is (a
//! mode that keeps even its owner out is lifted for a moment) and never follows a link; [`restore`] takes the archive for
//! hostile.

mod archive;
mod capture;
mod entry;
mod error;
mod pax;
mod restore;
mod seal;
mod tick;
mod types;
mod unlock;
mod verify;
mod walk;

pub use capture::capture;
pub use error::SnapshotError;
pub use restore::restore;
pub use types::{Captured, LeftOut, Root, Verified};
pub use verify::verify;
