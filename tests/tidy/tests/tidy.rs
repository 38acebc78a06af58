//! The rules of ARCHITECTURE.md and of the house that a machine can check.

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The most packages `Cargo.lock` may hold.
const MOST_PACKAGES: usize = 250;
/// The most lines a source file may have, without its tests.
const MOST_LINES: usize = 400;

/// Where the project's code is.
const CODE: [&str; 4] = ["crates", "plugins", "tests", "benches"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(2)
        .unwrap()
        .to_owned()
}

/// Every Rust file under a directory of the workspace.
fn sources(directory: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut pending = vec![root().join(directory)];
    while let Some(next) = pending.pop() {
        for entry in
            std::fs::read_dir(&next).unwrap_or_else(|error| panic!("{}: {error}", next.display()))
        {
            let path = entry.unwrap().path();
            if path.is_dir() && path.file_name().is_some_and(|name| name != "target") {
                pending.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// The part of a file that is not a test.
fn code(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap();
    let end = text.find("#[cfg(test)]").unwrap_or(text.len());
    text[..end].to_owned()
}

fn is_test(path: &Path) -> bool {
    let relative = path.strip_prefix(root()).unwrap();
    // Packages that are for tests are code as any other.
    relative
        .components()
        .skip(1)
        .any(|part| part.as_os_str() == "tests")
        || path.file_name().is_some_and(|name| name == "tests.rs")
}

/// Package → the packages of this workspace that it uses when it is built, not tested.
fn arrows() -> BTreeMap<String, BTreeSet<String>> {
    let output = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--format-version=1",
            "--no-deps",
            "--offline",
            "--locked",
        ])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let uses = |package: &Value| {
        let dependencies = package["dependencies"].as_array().unwrap().iter();
        dependencies
            .filter(|dependency| dependency["kind"].is_null())
            .filter_map(|dependency| dependency["name"].as_str())
            .filter(|name| name.starts_with("alpine-"))
            .map(str::to_owned)
            .collect()
    };
    packages
        .iter()
        .map(|package| (package["name"].as_str().unwrap().to_owned(), uses(package)))
        .collect()
}

#[test]
fn arrows_only_run_down() {
    let allowed: &[(&str, &[&str])] = &[
        ("alpine-ledger", &[]),
        ("alpine-provider-api", &[]),
        ("alpine-snapshot", &[]),
        ("alpine-files", &["alpine-provider-api"]),
        ("alpine-git", &["alpine-files", "alpine-provider-api"]),
        (
            "alpine-install-step",
            &["alpine-files", "alpine-provider-api"],
        ),
        ("alpine-objects", &["alpine-provider-api"]),
        ("alpine-gateway", &["alpine-provider-api"]),
        (
            "alpine-lifecycle",
            &["alpine-ledger", "alpine-provider-api"],
        ),
        ("alpine-provider-port", &["alpine-provider-api"]),
        ("alpine-provider-store", &["alpine-provider-api"]),
        (
            "alpine-provider-adapter",
            &[
                "alpine-files",
                "alpine-gateway",
                "alpine-git",
                "alpine-install-step",
                "alpine-objects",
                "alpine-provider-api",
                // For the supervisor that serves a session's address on this machine.
                "alpine-provider-local",
                "alpine-snapshot",
            ],
        ),
        (
            "alpine-provider-local",
            &[
                "alpine-files",
                "alpine-gateway",
                "alpine-git",
                "alpine-install-step",
                "alpine-objects",
                "alpine-provider-api",
                "alpine-snapshot",
            ],
        ),
    ];
    let arrows = arrows();
    for (package, may_use) in allowed {
        let uses = &arrows[*package];
        let wrong: Vec<_> = uses
            .iter()
            .filter(|name| !may_use.contains(&name.as_str()))
            .collect();
        assert!(wrong.is_empty(), "{package} may not use {wrong:?}");
    }
    for (package, uses) in &arrows {
        assert!(
            !uses.contains("alpine-cli") || package == "alpine-e2e" || package == "alpine-benches",
            "{package} may not use alpine-cli"
        );
    }
}

#[test]
fn what_teams_copy_is_short() {
    let template = root().join("plugins/template/src/lib.rs");
    assert!(std::fs::read_to_string(template).unwrap().lines().count() <= 150);
}

#[test]
fn files_are_short() {
    let too_long: Vec<_> = CODE
        .into_iter()
        .flat_map(sources)
        .filter(|path| !is_test(path))
        .map(|path| (code(&path).lines().count(), path))
        .filter(|(lines, _)| *lines > MOST_LINES)
        .collect();
    assert!(
        too_long.is_empty(),
        "over {MOST_LINES} lines without tests: {too_long:#?}"
    );
}

#[test]
fn the_ledger_is_synchronous_and_silent() {
    let sources = sources("crates/ledger/src").into_iter();
    for path in sources.filter(|path| !is_test(path)) {
        let code = code(&path);
        for word in [
            "async ",
            ".await",
            "tokio",
            "println!",
            "std::env::",
            "Command::new",
        ] {
            assert!(!code.contains(word), "{} holds `{word}`", path.display());
        }
    }
}

#[test]
fn the_engine_neither_prints_nor_reads_the_environment() {
    for path in sources("crates/lifecycle/src") {
        let code = code(&path);
        for word in [
            "println!",
            "std::env",
            "clap",
            "unsafe",
            "std::process",
            "SystemTime",
        ] {
            assert!(!code.contains(word), "{} holds `{word}`", path.display());
        }
    }
}

#[test]
fn unsafe_is_only_where_the_sandbox_must() {
    for path in sources("crates") {
        let relative = path
            .strip_prefix(root())
            .unwrap()
            .to_string_lossy()
            .into_owned();
        if !relative.starts_with("crates/provider-local/")
            && !relative.starts_with("crates/provider-port/")
            && relative != "crates/provider-store/src/glibc.rs"
        {
            assert!(
                !code(&path).contains("unsafe {"),
                "{relative} holds unsafe code"
            );
        }
    }
}

#[test]
fn nothing_is_silenced_postponed_or_left_to_chance() {
    let forbidden = [
        concat!("#[", "allow("),
        concat!("#![", "allow("),
        concat!("#[", "ignore"),
        concat!("to", "do!("),
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("unimple", "mented!("),
    ];
    for path in CODE.into_iter().flat_map(sources) {
        let text = std::fs::read_to_string(&path).unwrap();
        for word in forbidden {
            assert!(!text.contains(word), "{} holds `{word}`", path.display());
        }
    }
}

/// The texts that are written where a next step is given.
fn next_steps(code: &str) -> impl Iterator<Item = &str> {
    [".next(", ".hint("].into_iter().flat_map(move |call| {
        code.match_indices(call).filter_map(move |(at, _)| {
            let given = code[at + call.len()..].trim_start();
            let given = given.strip_prefix("format!(").unwrap_or(given).trim_start();
            given.strip_prefix('"')?.split('"').next()
        })
    })
}

#[test]
fn a_next_step_is_a_command_to_paste() {
    let mut seen = 0;
    for path in sources("crates").into_iter().filter(|path| !is_test(path)) {
        let code = code(&path).replace("{{", "{").replace("}}", "}");
        for text in next_steps(&code) {
            seen += 1;
            // What is put in front of it, or is all of it, is checked where it is made.
            assert!(
                text.starts_with('{') || alpine_testkit::is_command(text),
                "{}: `{text}` is no command",
                path.display()
            );
        }
    }
    assert!(seen > 40, "only {seen} were found");
}

#[test]
fn names_say_what_things_are() {
    let vague = [
        "Manager", "Handler", "Helper", "Util", "Service", "Context", "Data", "Info", "Base",
        "Impl",
    ];
    for path in CODE.into_iter().flat_map(sources) {
        for line in code(&path).lines() {
            let mut words = line
                .split_whitespace()
                .skip_while(|word| !matches!(*word, "struct" | "enum" | "trait"));
            let (Some(_), Some(name)) = (words.next(), words.next()) else {
                continue;
            };
            if line.trim_start().starts_with("//") {
                continue;
            }
            let name: String = name.chars().take_while(|c| c.is_alphanumeric()).collect();
            let found = vague.iter().find(|word| name.ends_with(*word));
            assert!(found.is_none(), "{}: `{name}`", path.display());
        }
    }
}

#[test]
fn dependencies_stay_few() {
    let lock = std::fs::read_to_string(root().join("Cargo.lock")).unwrap();
    let packages = lock.lines().filter(|line| *line == "[[package]]").count();
    assert!(
        packages <= MOST_PACKAGES,
        "{packages} packages in Cargo.lock, at most {MOST_PACKAGES}"
    );
    assert!(
        lock.contains("name = \"redb\"\nversion = \"4.6."),
        "redb is pinned to 4.6"
    );
}

#[test]
fn every_crate_is_on_the_map() {
    let map = std::fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    for package in arrows().keys() {
        assert!(
            map.contains(&format!("`{package}`")),
            "ARCHITECTURE.md does not name `{package}`"
        );
    }
}
