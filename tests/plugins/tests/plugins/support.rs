//! What the tests share.

use alpine_plugin_tests::{By, Ported};
use std::path::Path;
use tempfile::TempDir;

/// A directory of its own, and a provider in it.
pub(crate) fn ported(by: By, file: impl FnOnce(&Path) -> std::path::PathBuf) -> (TempDir, Ported) {
    let directory = TempDir::with_prefix("alp-").unwrap();
    let file = file(directory.path());
    let host = Path::new(env!("CARGO_BIN_EXE_plugin-host"));
    let ported = Ported::new(by, &file, host, directory.path());
    (directory, ported)
}
