//! Durable objects: writes payload and snapshot to a store and reads them back.
//!
//! An object is three files under a key of its own: the payload, the snapshot, and last the manifest with the digests of
//! both. Without its manifest an object does not exist, so none is ever seen half-written. Keys are derived from what the
//! object holds: the same request gives the same id, and nothing is ever changed under an id.

mod directory;
mod error;
mod id;
mod manifest;
mod read;
mod store;
mod write;

pub use store::Store;
