//! Libraries that are wrong before they are called, each with its own message; and what `send` answers to a breach.

use super::support::*;
use alpine_provider_api::*;
use alpine_provider_port::PortProvider;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Builds a library of C with these definitions.
fn built(directory: &Path, defines: &[&str]) -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let path = directory.join("library.so");
    let output = Command::new("cc")
        .args([
            "-std=c11", "-Wall", "-Wextra", "-Werror", "-fPIC", "-shared", "-I",
        ])
        .arg(here.join("../../crates/provider-port/include"))
        .args(defines.iter().map(|define| format!("-D{define}")))
        .arg("-o")
        .arg(&path)
        .arg(here.join("tests/library.c"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    path
}

#[tokio::test]
async fn each_wrong_library_has_its_own_message() {
    let (anywhere, here) = (&[By::Hosted, By::InProcess][..], &[By::InProcess][..]);
    for (defines, by, message) in [
        (
            &["NO_SYMBOL"][..],
            anywhere,
            "the library does not export `alpine_provider_v1`",
        ),
        (
            &["THE_NULL"],
            anywhere,
            "the library refuses this host: `alpine_provider_v1` returned NULL",
        ),
        (
            &["THE_MAGIC=7"],
            anywhere,
            "the provider's magic is 0x0000000000000007, where 0x315652504e504c41 is expected",
        ),
        (
            &["THE_SIZE=48"],
            anywhere,
            "the provider's struct takes 48 bytes, where at least 56 are expected",
        ),
        (
            &["THE_SMALL"],
            anywhere,
            "the provider's struct takes 48 bytes, where at least 56 are expected",
        ),
        (
            &["THE_ABI=9"],
            anywhere,
            "it speaks versions 9 to 9 of the boundary, where 1 to 1 are expected: a build of the provider for this version of alpine is needed",
        ),
        (
            &["THE_OPEN=NULL"],
            anywhere,
            "the provider's `open` is NULL",
        ),
        (
            &["THE_OPEN=silent"],
            anywhere,
            "`open` returned 77 and said no more",
        ),
        (
            &["THE_OPEN=empty"],
            anywhere,
            "`open` left the port's `send` NULL",
        ),
        (
            &["THE_PORT_SIZE=8"],
            anywhere,
            "`open` filled a port of 8 bytes, where at least 32 are expected",
        ),
        (
            &["THE_PORT_ABI=77"],
            anywhere,
            "`open` filled a port of version 77 of the boundary, where it was asked for 1",
        ),
        (
            &["THE_FLAGS=1"],
            here,
            "the provider was built with `panic=abort`, so it can't run in this process: set `isolation = \"process\"`, or leave it out",
        ),
        (
            &["THE_FLAGS=2"],
            here,
            "the provider needs a process of its own, so it can't run in this process: set `isolation = \"process\"`, or leave it out",
        ),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let library = built(directory.path(), defines);
        for &by in by {
            let provider = PortProvider::new(config(by, Some(library.clone()), Value::Null));
            let error = provider.describe().await.unwrap_err();
            assert_eq!(
                error.message,
                format!("provider `acme`: {message}"),
                "{by:?}"
            );
            assert_eq!(error.kind, ErrorKind::Unsupported, "{by:?}: {error}");
        }
    }
}

#[tokio::test]
async fn a_provider_says_itself_why_it_does_not_open() {
    let directory = tempfile::tempdir().unwrap();
    let library = built(directory.path(), &["THE_OPEN=refused"]);
    for by in [By::Hosted, By::InProcess] {
        let provider = PortProvider::new(config(by, Some(library.clone()), Value::Null));
        let error = provider.describe().await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Unreachable, "{by:?}");
        assert_eq!(error.message, "provider `acme`: the region is down");
    }
}

#[tokio::test]
async fn what_is_no_library_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let text = directory.path().join("library.so");
    std::fs::write(&text, "no library at all").unwrap();
    for by in [By::Hosted, By::InProcess] {
        let provider = PortProvider::new(config(by, Some(text.clone()), Value::Null));
        let error = provider.describe().await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Unsupported, "{by:?}");
        assert!(
            error.message.contains("the library can't be loaded: "),
            "{error}"
        );
    }
}

#[tokio::test]
async fn send_tells_a_library_at_once_what_is_wrong() {
    for by in [By::Hosted, By::InProcess] {
        // One that is loaded stays loaded, with its statics: each has a file of its own.
        let directory = tempfile::tempdir().unwrap();
        let library = built(directory.path(), &[]);
        let provider = PortProvider::new(config(by, Some(library), Value::Null));
        let reply = provider.describe().await.unwrap();
        // Unknown kind, a kind of the host, too big, a chunk that is too big, no bytes, a stranger's call.
        assert_eq!(reply.name, "4 4 6 6 7 2 0", "{by:?}");
        provider.describe().await.unwrap();
    }
}

/// The manifest is read without running anything, and one symbol is all that a library shows.
#[test]
fn a_library_exports_one_symbol_and_has_a_manifest() {
    use object::{Object, ObjectSection, ObjectSymbol};
    let bytes = std::fs::read(alpine_fake_plugin::library()).unwrap();
    let file = object::File::parse(&*bytes).unwrap();
    let exported: Vec<_> = file
        .dynamic_symbols()
        .filter(|symbol| symbol.is_definition())
        .map(|symbol| symbol.name().unwrap().to_owned())
        .collect();
    assert_eq!(exported, ["alpine_provider_v1"]);
    let section = file.section_by_name(".alpine.provider").unwrap();
    let manifest: Value = serde_json::from_slice(section.data().unwrap()).unwrap();
    assert_eq!(manifest["name"], "fake");
    assert_eq!(manifest["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(
        (&manifest["abi_min"], &manifest["abi_max"]),
        (&1.into(), &1.into())
    );
    assert_eq!(manifest["panic"], "unwind");
    assert!(
        manifest["compiler"]
            .as_str()
            .unwrap()
            .starts_with("rustc 1.")
    );
    assert!(
        manifest["sdk"]
            .as_str()
            .unwrap()
            .starts_with("alpine-provider-port ")
    );
}
