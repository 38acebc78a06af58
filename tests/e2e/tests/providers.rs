//! Providers that are not compiled in: what is refused, what is kept, and whole sessions with them.

mod foreign;
mod guide;
mod refused;
mod sessions;
mod store;

use crate::support::World;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where the boundary's header is.
const HEADERS: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../crates/provider-port/include"
);

/// What a library says of itself.
pub(crate) const MANIFEST: &str = r#"{"name":"acme","version":"1.2.3","abi_min":1,"abi_max":1,"sdk":"none","compiler":"cc","panic":"unwind"}"#;

/// Compiles a library with this manifest, whose entry point gives nothing.
pub(crate) fn library(world: &World, manifest: &str) -> PathBuf {
    compiled(world, manifest, "0")
}

/// The same, whose entry point gives this.
pub(crate) fn compiled(world: &World, manifest: &str, given: &str) -> PathBuf {
    let source = world.env.root().join("acme.c");
    let text = format!(
        "__attribute__((section(\".alpine.provider\"), used)) static const char manifest[] = {manifest:?};\n\
         #include \"alpine_provider.h\"\n\
         static int32_t open(uint32_t abi, const alpine_port *host, const uint8_t *json, size_t len, alpine_port *out) {{ return 7; }}\n\
         const alpine_provider *alpine_provider_v1(const alpine_host_info *host) {{ return {given}; }}\n"
    );
    fs::write(&source, text).expect("a source");
    let path = world.env.root().join("libacme.so");
    let made = Command::new("cc")
        .args(["-shared", "-fPIC", "-I", HEADERS, "-o"])
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
