//! Builds what is in C, as the guide says to.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The flags that warn.
const STRICT: [&str; 5] = ["-std=c11", "-O2", "-Wall", "-Wextra", "-Werror"];
/// The flags of a library.
const LIBRARY: [&str; 4] = ["-fPIC", "-shared", "-fvisibility=hidden", "-pthread"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The directory `plugins` of this checkout.
#[must_use]
pub fn plugins() -> PathBuf {
    root().join("plugins")
}

/// The provider in Python.
#[must_use]
pub fn python() -> PathBuf {
    plugins().join("python/provider.py")
}

/// Builds a file of `plugins/` with the machine's compiler and the variable `CFLAGS` into this directory, and gives what was
/// built: a library, or, where it is called `wire.c`, a program.
///
/// # Panics
/// When the compiler is missing, or complains.
#[must_use]
pub fn build(into: &Path, source: &str, more: &[&str]) -> PathBuf {
    let is_program = source.ends_with("wire.c");
    let name = source.replace(['/', '.'], "-") + &more.concat();
    let built = into.join(if is_program { name } else { name + ".so" });
    let mut compiler = Command::new("cc");
    compiler.args(STRICT);
    if !is_program {
        compiler.args(LIBRARY);
    }
    let flags = std::env::var("CFLAGS").unwrap_or_default();
    let include = root().join("crates/provider-port/include");
    let output = compiler
        .args(more)
        .args(flags.split_whitespace())
        .arg("-I")
        .arg(include)
        .arg("-o")
        .args([&built, &plugins().join(source)])
        .output()
        .expect("a compiler `cc`");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{source}: {said}");
    built
}

/// The library of a package of this workspace, which cargo has built beside the test that runs.
///
/// # Panics
/// When it is not there.
#[must_use]
pub fn library(package: &str) -> PathBuf {
    let name = format!("lib{}.so", package.replace('-', "_"));
    let program = std::env::current_exe().expect("a program");
    let beside = program.with_file_name(&name);
    assert!(beside.is_file(), "`{}` is not there", beside.display());
    beside
}
