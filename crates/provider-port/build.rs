//! Tells the crate which compiler builds it: a provider's manifest says so.

use std::process::Command;

fn main() {
    #[expect(
        clippy::disallowed_methods,
        reason = "a build script is told its compiler by a variable"
    )]
    let compiler = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let version = Command::new(compiler).arg("--version").output();
    let version = version.map_or_else(|_| Vec::new(), |output| output.stdout);
    let version = String::from_utf8_lossy(&version);
    println!("cargo::rustc-env=ALPINE_COMPILER={}", version.trim());
    println!("cargo::rerun-if-changed=build.rs");
}
