//! Providers that are not compiled in: what is refused, what is kept, and whole sessions with them.

mod refused;
mod sessions;
mod store;

use crate::support::World;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What a library says of itself.
pub(crate) const MANIFEST: &str = r#"{"name":"acme","version":"1.2.3","abi_min":1,"abi_max":1,"sdk":"none","compiler":"cc","panic":"unwind"}"#;

/// Compiles a library with this manifest, whose entry point gives nothing.
pub(crate) fn library(world: &World, manifest: &str) -> PathBuf {
    let source = world.env.root().join("acme.c");
    let text = format!(
        "__attribute__((section(\".alpine.provider\"), used)) static const char manifest[] = {manifest:?};\n\
         const void *alpine_provider_v1(const void *host) {{ return 0; }}\n"
    );
    fs::write(&source, text).expect("a source");
    let path = world.env.root().join("libacme.so");
    let made = Command::new("cc")
        .args(["-shared", "-fPIC", "-o"])
        .args([&path, &source])
        .status();
    assert!(made.expect("a compiler").success());
    protect(&path, 0o755);
    path
}

pub(crate) fn protect(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).expect("its mode");
}

/// The SHA-256 of a file, as the program tells it.
pub(crate) fn sha256(world: &World, path: &Path) -> String {
    let inspected = world.done(&["provider", "inspect", shown(path)]);
    crate::support::text(&inspected, "sha256")
}

pub(crate) fn shown(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

/// The usual configuration, and a table of the provider `acme`.
pub(crate) fn configured(world: &World, lines: &str) {
    world.configure(&format!(
        "[provider]\ndefault = 'acme'\n[agent]\ndefault = 'page'\n[ledger]\nlock_timeout = '60s'\n\
         [limits]\nbackoff = '5ms'\n[providers.acme]\n{lines}\n"
    ));
}
