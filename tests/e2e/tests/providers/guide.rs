//! The commands of the guide are run as they stand there.

use super::*;
use crate::support::{World, program};
use alpine_testkit::is_whole;
use std::os::unix::fs::symlink;
use std::time::Duration;

const GUIDE: &str = include_str!("../../../../docs/providers.md");
/// How cargo finds its toolchain and its crates in another home.
fn toolchain() -> Vec<(&'static str, PathBuf)> {
    let home = PathBuf::from(std::env::var_os("HOME").unwrap_or_default());
    let of = |name: &str, usual: &str| {
        let given = std::env::var_os(name).map(PathBuf::from);
        given.unwrap_or_else(|| home.join(usual))
    };
    vec![
        ("CARGO_HOME", of("CARGO_HOME", ".cargo")),
        ("RUSTUP_HOME", of("RUSTUP_HOME", ".rustup")),
        // All that the provider needs is built anew there: as quickly as it can be.
        ("CARGO_PROFILE_DEV_DEBUG", "none".into()),
    ]
}

const MARK: &str = "<!-- run -->\n```sh\n";

/// The blocks that are marked to be run.
fn blocks() -> Vec<&'static str> {
    let blocks = GUIDE.split(MARK).skip(1);
    blocks
        .map(|rest| rest.split_once("```").expect("a block's end").0)
        .collect()
}

/// Puts the program where the commands find it first, and the system's own interpreter: another may be slow to start.
fn at_hand(checkout: &Path) {
    let bin = checkout.join(".bin");
    fs::create_dir(&bin).expect("a directory");
    symlink(program(), bin.join("alpine")).expect("a link");
    let python = Path::new("/usr/bin/python3");
    if python.exists() {
        symlink(python, bin.join("python3")).expect("a link");
    }
}

/// A copy of this checkout's sources, with the program in its `PATH`.
fn copied(world: &World) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let at = world.env.root().join("checkout");
    fs::create_dir(&at).expect("a directory");
    let sources = [
        "Cargo.toml",
        "Cargo.lock",
        "benches",
        "crates",
        "plugins",
        "tests",
    ];
    let copied = Command::new("cp")
        .arg("-r")
        .args(sources.map(|name| root.join(name)))
        .arg(&at)
        .status();
    assert!(copied.expect("cp").success());
    at_hand(&at);
    at
}

/// The same, where `cargo build` gives the library of the template, which was built beside this test: to build all that it needs
/// anew takes minutes. `ALPINE_TEST=all` has them.
fn built(world: &World) -> PathBuf {
    let at = copied(world);
    if !is_whole() {
        let library = shown(&alpine_plugin_tests::library("alpine-plugin-template")).to_owned();
        let cargo = env!("CARGO");
        let script = format!(
            "#!/bin/sh\nset -eu\n[ \"$*\" = 'build -p mine' ]\n\
             {cargo} metadata --no-deps --offline --format-version 1 | grep -q '\"name\":\"mine\"'\n\
             mkdir -p target/debug\ncp {library} target/debug/libmine.so\n"
        );
        let file = at.join(".bin/cargo");
        fs::write(&file, script).expect("a file");
        protect(&file, 0o755);
    }
    at
}

/// A directory that looks like a checkout, with the program in its `PATH`.
fn checkout(world: &World) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let at = world.env.root().join("checkout");
    fs::create_dir(&at).expect("a directory");
    for name in ["crates", "plugins"] {
        let target = root.join(name).canonicalize().expect("a checkout");
        symlink(target, at.join(name)).expect("a link");
    }
    at_hand(&at);
    at
}

/// Runs what the guide says for a language, then its session.
fn works(language: usize, checkout: impl FnOnce(&World) -> PathBuf) {
    let blocks = blocks();
    assert_eq!(blocks.len(), 4, "C, Python, Rust, and a session");
    let world = World::new();
    let at = checkout(&world);
    // As a clone is where a user's group is theirs alone.
    protect(&at, 0o775);
    for block in [blocks[language], blocks[3]] {
        let mut shell = world.env.command(Path::new("/bin/bash"));
        let script = format!("umask 002\nPATH=$PWD/.bin:$PATH\nset -eu\n{block}");
        shell.args(["-c", &script]).current_dir(&at);
        shell.env("REPOSITORY", world.repo_path());
        shell.envs(toolchain());
        let output = world.env.run_for(&mut shell, Duration::from_secs(600));
        assert_eq!(output.code(), Some(0), "{block}{output:#?}");
    }
}

#[test]
fn the_commands_for_c_work_as_they_stand_there() {
    works(0, checkout);
}

#[test]
fn the_commands_for_python_work_as_they_stand_there() {
    works(1, checkout);
}

#[test]
fn the_commands_for_rust_work_as_they_stand_there() {
    works(2, built);
}

#[test]
fn the_smallest_program_answers() {
    let (_, rest) = GUIDE
        .split_once("<!-- smallest -->\n```python\n")
        .expect("a program");
    let (text, _) = rest.split_once("```").expect("its end");
    let world = World::new();
    let file = world.env.root().join("tiny.py");
    fs::write(&file, text).expect("a file");
    protect(&file, 0o755);
    let check = [
        "provider",
        "check",
        shown(&file),
        "--only",
        "describe.again",
    ];
    // It has no sandboxes that could be looked for afterwards, which is told, too.
    let report = alpine_testkit::json(&world.run(&crate::support::with_json(&check)));
    assert_eq!(
        report["counts"],
        serde_json::json!({ "passed": 1, "failed": 0, "skipped": 0 })
    );
}
