//! The requests and replies that keep a workspace: captured, persisted, read back, restored.

use crate::SandboxId;
use serde::{Deserialize, Serialize};

/// Asks for the workspace as a file that can be persisted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaptureRequest {
    /// The sandbox.
    pub sandbox_id: SandboxId,
    /// Which attempt to persist it is for.
    pub generation: u64,
}

/// A workspace that was captured and waits to be persisted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StagedSnapshot {
    /// How the provider finds it again.
    pub staging_id: String,
    /// BLAKE3 of its bytes, in hex.
    pub digest: String,
    /// Its size in bytes.
    pub size: u64,
    /// How many files, directories and links it holds.
    pub entries: u64,
    /// What was left out, and why.
    #[serde(default)]
    pub left_out: Vec<LeftOut>,
}

/// Something that is not in a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOut {
    /// Which path.
    pub path: String,
    /// Why.
    pub reason: String,
}

/// Asks for a durable object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PersistRequest {
    /// The sandbox.
    pub sandbox_id: SandboxId,
    /// The session.
    pub session_id: String,
    /// Which attempt it is.
    pub generation: u64,
    /// The metadata payload, byte for byte.
    pub payload: String,
    /// The captured workspace; none when it is lost.
    pub snapshot: Option<StagedSnapshot>,
}

/// A durable object was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PersistReply {
    /// Its id.
    pub durable_object_id: String,
}

/// Asks for a durable object, read from the store itself and not from any cache.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadObjectRequest {
    /// The object.
    pub durable_object_id: String,
}

/// What the store holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadObjectReply {
    /// The metadata payload, byte for byte.
    pub payload: String,
    /// The snapshot's digest and size, computed from every byte of it.
    pub snapshot: Option<ReadSnapshot>,
}

/// A snapshot as it was read back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadSnapshot {
    /// BLAKE3 of its bytes, in hex.
    pub digest: String,
    /// Its size in bytes.
    pub size: u64,
}

/// Asks for a durable object's workspace in a sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoreRequest {
    /// The sandbox.
    pub sandbox_id: SandboxId,
    /// The object.
    pub durable_object_id: String,
}

/// The workspace is back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoreReply {
    /// How many files, directories and links it holds.
    pub entries: u64,
}
