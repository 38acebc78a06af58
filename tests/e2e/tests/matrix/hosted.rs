//! The fake in a process of its own, so that a kill of what calls it is one of the provider's process and of nothing else.

use crate::providers::{protect, sha256, shown};
use crate::support::World;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use tempfile::TempDir;

/// How the program reaches the fake, which decides whose process a kill in one of its calls ends.
#[derive(Clone, Debug)]
pub(super) enum Fake {
    /// It is compiled in: the command that the user runs dies.
    CompiledIn,
    /// It is a library in a child process, which dies while the command goes on.
    Hosted(Arc<Library>),
}

/// The fake as a library. It lies outside of every home, which is searched for secrets byte by byte.
#[derive(Debug)]
pub(super) struct Library {
    _directory: TempDir,
    file: PathBuf,
    sha256: String,
}

impl Library {
    /// Without what debuggers need: every command reads all of it.
    pub(super) fn new() -> Self {
        let directory = TempDir::with_prefix("alp-").expect("a temporary directory");
        let file = directory.path().join("provider.so");
        let mut strip = Command::new("strip");
        strip.args(["--strip-debug", "-o"]).arg(&file);
        let stripped = strip.arg(alpine_fake_plugin::library()).status();
        assert!(stripped.expect("`strip` of binutils").success());
        protect(&file, 0o755);
        let sha256 = sha256(&World::new(), &file);
        Self {
            _directory: directory,
            file,
            sha256,
        }
    }

    /// The name it is configured by.
    pub(super) const NAME: &str = "acme";

    /// Its table, where its state is in that directory.
    pub(super) fn table(&self, isolation: &str, state: &std::path::Path) -> String {
        format!(
            "[providers.{}]\nkind = 'dylib'\npath = '{}'\nsha256 = '{}'\nisolation = '{isolation}'\nconfig = {{ state = '{}' }}\n",
            Self::NAME,
            shown(&self.file),
            self.sha256,
            shown(state)
        )
    }
}
