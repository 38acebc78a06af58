//! Real git with real repositories, and remotes that misbehave.
#![expect(clippy::unwrap_used, reason = "a test that can't go on fails")]

mod local;
mod place;
mod remote;
