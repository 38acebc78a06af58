//! `local` keeps the contract.
//!
//! This program is its own supervisor: `local` executes it anew for each sandbox.

#![expect(
    clippy::print_stdout,
    reason = "a test without a harness reports itself"
)]

use alpine_conformance::{CompiledIn, Options, Report, check};
use alpine_git::GitConfig;
use alpine_provider_api::{Redactor, Secret};
use alpine_provider_local::{LocalConfig, LocalProvider};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use tempfile::TempDir;

#[expect(
    clippy::disallowed_methods,
    reason = "tests find their tools where the user does"
)]
fn search_path() -> String {
    std::env::var("PATH").unwrap_or_default()
}

/// What cargo has told this program.
#[expect(
    clippy::disallowed_methods,
    reason = "what is in this process must not be in a sandbox"
)]
fn own_env() -> BTreeMap<String, Secret<String>> {
    let given = std::env::vars().filter(|(name, _)| name.starts_with("CARGO_"));
    given
        .map(|(name, value)| (name, Secret::new(value)))
        .collect()
}

fn local(at: &Path) -> CompiledIn {
    let user = at.join("user").display().to_string();
    let config = LocalConfig {
        home: at.join("home"),
        run_dir: at.join("run"),
        executable: std::env::current_exe().expect("this program"),
        env: BTreeMap::from([
            ("PATH".to_owned(), search_path()),
            ("HOME".to_owned(), user),
        ]),
        git: GitConfig {
            cache: at.join("home/cache"),
            path: search_path().into(),
            home: None,
            extra_env: BTreeMap::new(),
            redactor: Redactor::new(&[]),
        },
        objects: at.join("objects"),
        secrets: Vec::new(),
    };
    let objects = config.objects.clone();
    CompiledIn::new(move || Arc::new(LocalProvider::new(config.clone())))
        .with_objects(objects)
        .with_own_env(own_env())
}

fn run(options: &Options) -> Report {
    // Short, since the path of a socket is.
    let directory = TempDir::with_prefix("al").expect("a directory");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    let report = runtime.block_on(check(&local(directory.path()), options));
    report.expect("a kit that can work")
}

fn main() -> ExitCode {
    if let Some(code) = alpine_provider_local::reexecuted() {
        return code;
    }
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|argument| argument == "--list") {
        println!("local_keeps_the_contract: test");
        return ExitCode::SUCCESS;
    }
    let only = arguments.into_iter().filter(|word| !word.starts_with('-'));
    let options = Options {
        only: only.collect(),
        ..Options::default()
    };
    let fresh = Options {
        fresh: true,
        points: 11,
        ..options.clone()
    };
    for options in [options, fresh] {
        let report = run(&options);
        println!("{}", report.text());
        if !report.is_success() {
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
