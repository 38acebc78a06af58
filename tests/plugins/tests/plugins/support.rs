//! What the tests share.

use alpine_plugin_tests::{By, Ported};
use alpine_provider_api::{Meta, SandboxId};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// A directory of its own, and a provider in it.
pub(crate) fn ported(by: By, file: impl FnOnce(&Path) -> PathBuf) -> (TempDir, Ported) {
    let directory = TempDir::with_prefix("alp-").unwrap();
    let file = file(directory.path());
    let host = Path::new(env!("CARGO_BIN_EXE_plugin-host"));
    let ported = Ported::new(by, &file, host, directory.path());
    (directory, ported)
}

pub(crate) fn by_name(name: &str) -> SandboxId {
    SandboxId::new(name).unwrap()
}

/// A call that may take so long; 0 is for ever.
pub(crate) fn meta(deadline_ms: u64) -> Meta {
    Meta {
        operation_id: "op_one".to_owned(),
        fence: 1,
        attempt: 1,
        deadline_ms,
        traceparent: None,
    }
}
