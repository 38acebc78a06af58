//! What a whole object consists of. It is written last and says that the rest is there.

use serde::{Deserialize, Serialize};

pub(crate) const PAYLOAD: &str = "payload.json";
pub(crate) const SNAPSHOT: &str = "workspace.tar.zst";
pub(crate) const MANIFEST: &str = "manifest.json";
pub(crate) const VERSION: &str = "v1";

/// The files of an object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Manifest {
    pub(crate) schema_version: String,
    pub(crate) durable_object_id: String,
    pub(crate) payload: Part,
    pub(crate) snapshot: Option<Part>,
}

/// One file: its digest (BLAKE3, in hex) and its size.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Part {
    pub(crate) digest: String,
    pub(crate) size: u64,
}

impl Part {
    pub(crate) fn of(bytes: &[u8]) -> Self {
        Self {
            digest: blake3::hash(bytes).to_hex().to_string(),
            size: bytes.len() as u64,
        }
    }
}
