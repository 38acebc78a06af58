//! Checks a provider's file before anything of it is loaded, and keeps those that were added.
//!
//! [`vet`] stops accidents and planted files: a provider that passed is trusted code.

mod digest;
mod elf;
mod glibc;
mod manifest;
mod needs;
mod open;
mod refusal;
mod store;
mod vet;

pub use manifest::{Manifest, Panic};
pub use open::{Opened, open, open_named};
pub use refusal::{Reason, Refusal};
pub use store::{Kept, Locked, Pin, Store, StoreError};
pub use vet::{Expectation, Isolation, Kind, LARGEST, Vetted, inspect, vet};
