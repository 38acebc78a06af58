//! Each wrong file and each wrong table has a message of its own, exit status 1, and leaves nothing behind.

use super::*;
use crate::support::{World, text};
use std::os::unix::fs::symlink;

/// Asks for a session, which has to be refused before there is one. Gives the cause.
#[track_caller]
fn refused(world: &World, code: &str, next: &str) -> String {
    let failure = world.fails(&world.up("one"), code, 1);
    assert_eq!(failure["retryable"], false, "{failure:#}");
    assert!(text(&failure, "next_step").contains(next), "{failure:#}");
    let sessions = world.done(&["list", "--all"]);
    assert_eq!(sessions["sessions"].as_array().map(Vec::len), Some(0));
    let listed = world.done(&["provider", "list"]);
    let acme = &listed["providers"][2];
    assert_eq!(
        (acme["name"].as_str(), acme["state"].as_str()),
        (Some("acme"), Some("refused"))
    );
    assert_eq!(acme["cause"], failure["cause"]);
    text(&failure, "cause")
}

/// The table of a library at that path, pinned to a digest.
fn table(path: &Path, digest: &str) -> String {
    format!(
        "kind = 'dylib'\npath = '{}'\nsha256 = '{digest}'",
        shown(path)
    )
}

const ANY: &str = "0000000000000000000000000000000000000000000000000000000000000000";

#[test]
fn files_that_are_no_library() {
    let world = World::new();
    let root = world.env.root();
    fs::create_dir(root.join("directory")).unwrap();
    let fifo = root.join("fifo");
    rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::RUSR).unwrap();
    fs::write(root.join("text"), "a text that is no library").unwrap();
    symlink(library(&world, MANIFEST), root.join("link.so")).unwrap();
    for (name, code, wanted, next) in [
        (
            "none.so",
            "ERR_PROVIDER_NOT_FOUND",
            "found nothing: build or copy it anew",
            "ls -ld",
        ),
        (
            "directory",
            "ERR_PROVIDER_INCOMPATIBLE",
            "found a directory: give the path of the file itself",
            "ls -ld",
        ),
        (
            "fifo",
            "ERR_PROVIDER_INCOMPATIBLE",
            "found a named pipe",
            "ls -ld",
        ),
        (
            "text",
            "ERR_PROVIDER_INCOMPATIBLE",
            "expected an ELF file",
            "file ",
        ),
        (
            "link.so",
            "ERR_PROVIDER_INCOMPATIBLE",
            "found a link to",
            "realpath",
        ),
    ] {
        configured(&world, &table(&root.join(name), ANY));
        let cause = refused(&world, code, next);
        assert!(cause.contains(wanted) && cause.contains(name), "{cause}");
    }
}

#[test]
fn libraries_that_can_not_be_loaded() {
    let world = World::new();
    let path = library(&world, MANIFEST);
    let good = fs::read(&path).unwrap();
    let digest = sha256(&world, &path);
    let mut other = good.clone();
    other[18] = 243;
    let mut longer = good.clone();
    longer.push(0);
    for (bytes, wanted) in [
        (&good[..good.len() / 2], "its end at byte"),
        (&other, "one for 64-bit little-endian riscv"),
        (&longer, "expected the pinned sha256"),
    ] {
        fs::write(&path, bytes).unwrap();
        configured(&world, &table(&path, &digest));
        let cause = refused(&world, "ERR_PROVIDER_INCOMPATIBLE", "");
        assert!(cause.contains(wanted), "{cause}");
    }
    for (manifest, wanted) in [
        (
            MANIFEST.replace("_max\":1", "_max\":0"),
            "expected boundary version 1",
        ),
        ("{".to_owned(), "one that can't be read"),
        (MANIFEST.replace("unwind", "abort"), "panic = \"abort\""),
    ] {
        let path = library(&world, &manifest);
        let lines = format!("{}\nisolation = 'in-process'", table(&path, ANY));
        configured(&world, &lines);
        let cause = refused(&world, "ERR_PROVIDER_INCOMPATIBLE", "");
        assert!(cause.contains(wanted), "{cause}");
    }
}

#[test]
fn libraries_whose_entry_point_gives_the_wrong_thing() {
    let of = |fields: &str| {
        format!(
            "&(const alpine_provider) {{ .magic = ALPINE_MAGIC, .struct_size = sizeof(alpine_provider), .abi_min = 1, .abi_max = 1, .name = \"acme\", .version = \"1\", .build = \"\", .open = open, {fields} }}"
        )
    };
    for (given, wanted) in [
        ("0".to_owned(), "returned NULL"),
        (of(".magic = 7"), "magic is 0x0000000000000007"),
        (of(".struct_size = 48"), "takes 48 bytes"),
        (of(".abi_min = 2, .abi_max = 3"), "2"),
        (of(".open = 0"), "`open` is NULL"),
        (of(".flags = 1"), "panic=abort"),
        (
            "({ extern void nowhere(void); nowhere(); (const alpine_provider *)0; })".to_owned(),
            "undefined symbol: nowhere: link it",
        ),
    ] {
        let world = World::new();
        // A compound literal goes with its block; what is given has to stay.
        let provider = format!("({{ static alpine_provider given; given = *({given}); &given; }})");
        let is_plain = given == "0" || given.contains("nowhere");
        let provider = if is_plain { given } else { provider };
        let path = compiled(&world, MANIFEST, &provider);
        let digest = sha256(&world, &path);
        for isolation in ["process", "in-process"] {
            if wanted == "panic=abort" && isolation == "process" {
                continue;
            }
            let lines = format!("{}\nisolation = '{isolation}'", table(&path, &digest));
            configured(&world, &lines);
            let failure = world.fails(&world.up("one"), "ERR_PROVIDER_INCOMPATIBLE", 1);
            let cause = text(&failure, "cause");
            assert!(cause.contains(wanted), "{isolation}: {cause}");
            assert!(!cause.contains("/proc/self/fd"), "{isolation}: {cause}");
            let is_told = ["build it anew", "link it", "set `isolation"];
            assert!(is_told.iter().any(|it| cause.contains(it)), "{cause}");
            let sessions = world.done(&["list", "--all"]);
            assert_eq!(sessions["sessions"].as_array().map(Vec::len), Some(0));
        }
    }
}

#[test]
fn files_that_others_may_write() {
    let world = World::new();
    let below = world.env.root().join("shared");
    fs::create_dir(&below).unwrap();
    let path = below.join("libacme.so");
    fs::copy(library(&world, MANIFEST), &path).unwrap();
    configured(&world, &table(&path, &sha256(&world, &path)));
    protect(&path, 0o777);
    let cause = refused(&world, "ERR_PROVIDER_INCOMPATIBLE", "chmod go-w");
    assert!(
        cause.contains("libacme.so`") && cause.contains("mode 0777"),
        "{cause}"
    );
    protect(&path, 0o755);
    protect(&below, 0o777);
    let cause = refused(&world, "ERR_PROVIDER_INCOMPATIBLE", "chmod go-w");
    assert!(cause.contains("shared`"), "{cause}");
    // What is not to be used is not to be added or looked into either.
    for command in ["inspect", "add"] {
        let arguments = ["provider", command, shown(&path)];
        let failure = world.fails(&arguments, "ERR_PROVIDER_INCOMPATIBLE", 1);
        assert!(text(&failure, "cause").contains("mode 0777"), "{failure:#}");
    }
}

#[test]
fn tables_of_the_wrong_shape() {
    let world = World::new();
    for (lines, wanted) in [
        (
            "kind = 'so'\npath = '/x'",
            "`providers.acme.kind` has to be \"dylib\" or \"exec\"",
        ),
        (
            "kind = 'exec'\npath = 'acme'",
            "`providers.acme.path` has to be an absolute path",
        ),
        (
            "kind = 'dylib'\npath = '/x'",
            "`alpine provider inspect /x` prints it",
        ),
        (
            "later = 1",
            "`providers.acme.later` is not a key of this version",
        ),
        ("config = 1", "`providers.acme.config` has to be a table"),
    ] {
        configured(&world, lines);
        let failure = world.fails(&["config"], "ERR_CONFIG_INVALID", 1);
        assert!(text(&failure, "cause").contains(wanted), "{failure:#}");
        assert!(text(&failure, "next_step").starts_with("${EDITOR:-vi} +"));
    }
    // The names of those that are compiled in are taken.
    world.configure("[providers.fake]\nkind = 'exec'\npath = '/x'\n");
    let failure = world.fails(&world.up("one"), "ERR_CONFIG_INVALID", 1);
    assert!(
        text(&failure, "cause").contains("compiled in"),
        "{failure:#}"
    );
}

#[test]
fn no_repository_and_no_working_directory_names_a_provider() {
    let world = World::new();
    let path = library(&world, MANIFEST);
    let digest = sha256(&world, &path);
    let lines = format!("[providers.acme]\n{}\n", table(&path, &digest));
    for place in [world.repo.path.clone(), world.env.root().join("home")] {
        fs::write(place.join("config.toml"), &lines).unwrap();
        fs::create_dir_all(place.join(".alpine")).unwrap();
        fs::write(place.join(".alpine/config.toml"), &lines).unwrap();
    }
    let with = |provider| [&world.up("one")[..], &["--provider", provider]].concat();
    // Settings alone are no provider either, and told as `provider list` tells them.
    world.configure("[providers.zz]\nisolation = 'process'\n");
    let failure = world.fails(&with("zz"), "ERR_PROVIDER_NOT_FOUND", 1);
    let cause = text(&failure, "cause");
    assert!(cause.contains("has settings, but no file"), "{cause}");
    for name in ["acme", shown(&path), "libacme.so", "./libacme.so"] {
        let failure = world.fails(&with(name), "ERR_PROVIDER_NOT_FOUND", 1);
        assert_eq!(text(&failure, "next_step"), "alpine provider list");
    }
}

#[test]
fn a_default_that_names_no_provider_is_refused_where_it_is_used_with_file_and_line() {
    let world = World::new();
    world.configure("\n[provider]\ndefault = 'zz'\n");
    let up = ["up", world.repo_path(), "--branch", "main"];
    let failure = world.fails(&up, "ERR_CONFIG_INVALID", 1);
    let cause = text(&failure, "cause");
    let wanted = "config.toml`, line 3: `provider.default` can't be used: there is no provider `zz`; configured: ";
    assert!(cause.contains(wanted), "{cause}");
    // What does not use it works; what is asked for by name is another matter.
    world.done(&["list"]);
    let named = [&up[..], &["--provider", "yy"]].concat();
    world.fails(&named, "ERR_PROVIDER_NOT_FOUND", 1);
    world.done(&[&up[..], &["--provider", "fake"]].concat());
}
