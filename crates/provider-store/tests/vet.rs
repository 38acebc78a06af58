//! Every check: with libraries that a compiler made, and with bytes of them that were changed.

use alpine_provider_store::*;
use proptest::prelude::*;
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// What a library that is refused for nothing says of itself.
const MANIFEST: &str = r#"{"name":"acme","version":"1.2.3","abi_min":1,"abi_max":1,"sdk":"none","compiler":"cc","panic":"unwind","later":true}"#;

/// A directory of one's own.
struct World(tempfile::TempDir);

impl World {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a directory"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().canonicalize().expect("a path").join(name)
    }

    fn file(&self, name: &str, bytes: &[u8], mode: u32) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, bytes).expect("a file");
        fs::set_permissions(&path, Permissions::from_mode(mode)).expect("its mode");
        path
    }

    /// Compiles C to a library.
    fn library(&self, manifest: Option<&str>, symbol: &str, flags: &[&str]) -> PathBuf {
        let manifest = manifest.map_or(String::new(), |manifest| {
            let text = format!("{manifest:?}");
            format!("__attribute__((section(\".alpine.provider\"), used)) static const char manifest[] = {text};\n")
        });
        let source = self.file(
            "source.c",
            format!("{manifest}const void *{symbol}(const void *host) {{ return host; }}\n")
                .as_bytes(),
            0o600,
        );
        let path = self.path("library.so");
        let made = Command::new("cc")
            .args(["-shared", "-fPIC", "-o"])
            .args([&path, &source])
            .args(flags)
            .output()
            .expect("a compiler");
        assert!(made.status.success(), "{made:?}");
        fs::set_permissions(&path, Permissions::from_mode(0o644)).expect("its mode");
        path
    }

    /// Compiles C to a program.
    fn program(&self, flags: &[&str]) -> PathBuf {
        let text = b"#include <stdlib.h>\nint main(int n, char **_) { return !malloc(n); }\n";
        let source = self.file("main.c", text, 0o600);
        let path = self.path("program");
        let made = Command::new("cc")
            .arg("-o")
            .args([&path, &source])
            .args(flags)
            .output()
            .expect("a compiler");
        assert!(made.status.success(), "{made:?}");
        fs::set_permissions(&path, Permissions::from_mode(0o755)).expect("its mode");
        path
    }

    fn good(&self) -> PathBuf {
        self.file("good.so", good(), 0o644)
    }
}

/// The bytes of a library that passes.
fn good() -> &'static [u8] {
    static GOOD: OnceLock<Vec<u8>> = OnceLock::new();
    GOOD.get_or_init(|| {
        let world = World::new();
        fs::read(world.library(Some(MANIFEST), "alpine_provider_v1", &[])).expect("a library")
    })
}

fn expecting(kind: Kind) -> Expectation {
    Expectation {
        kind,
        isolation: Isolation::Process,
        abi: 1..=1,
        sha256: None,
    }
}

/// What a library is refused for, where its digest is not.
#[track_caller]
fn refusal(path: &Path) -> Refusal {
    vet(path, &expecting(Kind::Dylib)).expect_err("a refusal")
}

/// What a file is refused for whose digest is the pinned one, told as people see it.
#[track_caller]
fn refused(path: &Path, reason: Reason, found: &str) {
    let refusal = refusal(path);
    assert_eq!(refusal.reason, reason, "{refusal}");
    assert!(refusal.found.contains(found), "{refusal}");
    assert!(!refusal.expected.is_empty() && !refusal.remedy.is_empty());
}

fn pinned(path: &Path) -> Expectation {
    let (kind, _, sha256) = inspect(&open(path).expect("a file")).expect("a provider");
    Expectation {
        sha256: Some(sha256),
        ..expecting(kind)
    }
}

#[test]
fn a_library_is_kept_without_the_permission_to_be_run() {
    let world = World::new();
    // As cargo and most linkers leave it.
    let path = world.file("good.so", good(), 0o755);
    let locked = Store::new(world.path("plugins")).lock(|| false).unwrap();
    let kept = locked.keep(&open(&path).unwrap(), || false).unwrap();
    assert_eq!(kept.kind, Kind::Dylib);
    let mode = fs::metadata(&kept.path).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o444);
}

#[test]
fn a_sound_library_passes_and_its_descriptor_is_handed_over() {
    let world = World::new();
    let path = world.good();
    let vetted = vet(&path, &pinned(&path)).unwrap();
    let manifest = vetted.manifest.clone().unwrap();
    assert_eq!((&*manifest.name, &*manifest.version), ("acme", "1.2.3"));
    // What is loaded is what was checked, whatever the path stands for by then.
    fs::remove_file(&path).unwrap();
    assert_eq!(fs::read(vetted.program()).unwrap(), good());
}

#[test]
fn the_path_is_absolute() {
    for path in [
        "lib.so",
        "./lib.so",
        "",
        "/",
        "/tmp/../lib.so",
        "/tmp/lib.so/",
    ] {
        refused(Path::new(path), Reason::Path, "");
    }
}

#[test]
fn what_is_no_file_is_refused_without_waiting_for_it() {
    let world = World::new();
    refused(&world.path("none.so"), Reason::NotThere, "nothing");
    refused(&world.good().join("x"), Reason::NotThere, "nothing");
    fs::create_dir(world.path("directory")).unwrap();
    refused(&world.path("directory"), Reason::NotAFile, "a directory");
    let fifo = world.path("fifo");
    rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::RUSR).unwrap();
    refused(&fifo, Reason::NotAFile, "a named pipe");
    let socket = world.path("socket");
    let _listener = UnixListener::bind(&socket).unwrap();
    refused(&socket, Reason::NotAFile, "a socket");
    refused(Path::new("/dev/null"), Reason::NotAFile, "a device");
}

#[test]
fn no_component_is_a_link() {
    let world = World::new();
    symlink(world.good(), world.path("link.so")).unwrap();
    refused(&world.path("link.so"), Reason::Link, "good.so");
    symlink(world.path(""), world.path("above")).unwrap();
    refused(
        &world.path("above").join("good.so"),
        Reason::Link,
        "a link to",
    );
    assert_eq!(
        refusal(&world.path("above").join("good.so")).path,
        world.path("above")
    );
    symlink("nowhere", world.path("broken")).unwrap();
    refused(&world.path("broken"), Reason::Link, "nowhere");
    // Who names a file from where they are may have come there by a link; the file itself is none.
    assert!(open_named(&world.path("above").join("good.so")).is_ok());
    assert_eq!(
        open_named(&world.path("link.so")).unwrap_err().reason,
        Reason::Link
    );
}

#[test]
fn nobody_else_may_write_the_file_or_a_directory_above_it() {
    let world = World::new();
    for mode in [0o666, 0o664, 0o646] {
        let path = world.file("open.so", good(), mode);
        refused(&path, Reason::Writable, &format!("mode {mode:04o}"));
    }
    for mode in [0o777, 0o770] {
        let directory = world.path(&format!("d{mode:o}"));
        fs::create_dir_all(directory.join("below")).unwrap();
        fs::set_permissions(&directory, Permissions::from_mode(mode)).unwrap();
        let path = directory.join("below/library.so");
        fs::write(&path, good()).unwrap();
        refused(&path, Reason::Writable, &format!("mode {mode:04o}"));
        assert_eq!(refusal(&path).path, directory);
    }
}

#[test]
fn another_users_file_is_refused_and_roots_is_not() {
    if !rustix::process::geteuid().is_root() {
        // Without root nobody can give a file away; root's own files are there to look at.
        refused(Path::new("/etc/passwd"), Reason::NotElf, "something else");
        return;
    }
    let world = World::new();
    let path = world.good();
    std::os::unix::fs::chown(&path, Some(12345), None).unwrap();
    refused(&path, Reason::Owner, "12345");
    std::os::unix::fs::chown(&path, Some(0), None).unwrap();
    std::os::unix::fs::chown(world.path(""), Some(12345), None).unwrap();
    refused(&path, Reason::Owner, "12345");
    // Sticky or not: what is shared has to be root's.
    fs::set_permissions(world.path(""), Permissions::from_mode(0o1777)).unwrap();
    refused(&path, Reason::Owner, "12345");
    std::os::unix::fs::chown(world.path(""), Some(0), None).unwrap();
    assert!(vet(&path, &pinned(&path)).is_ok());
}

#[test]
fn a_file_may_be_large_but_not_too_large() {
    let world = World::new();
    let path = world.good();
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.set_len(LARGEST + 1).unwrap();
    refused(&path, Reason::TooLarge, "268435457 bytes");
    file.set_len(LARGEST).unwrap();
    assert!(vet(&path, &pinned(&path)).is_ok());
}

#[test]
fn texts_and_files_for_other_machines_are_refused() {
    let world = World::new();
    for text in [
        &b""[..],
        b"\x7fEL",
        b"#!/bin/sh\n",
        b"a text that is long enough",
    ] {
        refused(
            &world.file("text.so", text, 0o644),
            Reason::NotElf,
            "something else",
        );
    }
    let patched = |at: usize, byte: u8| {
        let mut bytes = good().to_vec();
        bytes[at] = byte;
        world.file("patched.so", &bytes, 0o644)
    };
    refused(&patched(18, 243), Reason::Machine, "little-endian riscv");
    refused(&patched(4, 1), Reason::Machine, "32-bit");
    refused(&patched(5, 2), Reason::Machine, "big-endian");
    // ET_REL, ET_EXEC, ET_CORE
    for kind in [1, 2, 4] {
        refused(&patched(16, kind), Reason::NotALibrary, "another type");
    }
}

#[test]
fn a_program_is_no_library() {
    let world = World::new();
    let path = world.program(&["-pie"]);
    refused(&path, Reason::NotALibrary, "a program");
    assert_eq!(inspect(&open(&path).unwrap()).unwrap().0, Kind::Exec);
}

#[test]
fn a_shared_library_is_no_program() {
    let world = World::new();
    let path = world.library(Some(MANIFEST), "alpine_provider_v1", &[]);
    fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
    let refusal = vet(&path, &expecting(Kind::Exec)).unwrap_err();
    assert_eq!(refusal.reason, Reason::NotExecutable);
    let found = "a shared library: its `kind` is \"dylib\"";
    assert_eq!(refusal.found, found);
    // Programs of every form are.
    for flags in [&["-pie"][..], &["-no-pie"], &["-static"], &["-static-pie"]] {
        let path = world.program(flags);
        assert!(vet(&path, &expecting(Kind::Exec)).is_ok(), "{flags:?}");
    }
}

#[test]
fn a_file_that_ends_early_is_refused_at_every_length() {
    let world = World::new();
    let step = good().len() / 97;
    for length in (1..good().len()).step_by(step).chain([good().len() - 1]) {
        let path = world.file("short.so", &good()[..length], 0o644);
        let refusal = refusal(&path);
        let known = [Reason::NotElf, Reason::Truncated, Reason::Damaged];
        assert!(known.contains(&refusal.reason), "{length}: {refusal}");
    }
    let path = world.file("short.so", &good()[..good().len() / 2], 0o644);
    refused(&path, Reason::Truncated, "its end at byte");
}

/// The need of `malloc`, GLIBC_2.2.5 or GLIBC_2.17, becomes one of a version that is not out.
fn newer(mut bytes: Vec<u8>) -> Vec<u8> {
    for need in [&b"GLIBC_2.2.5\0"[..], b"GLIBC_2.17\0"] {
        while let Some(at) = bytes.windows(need.len()).position(|window| window == need) {
            let mut newer = b"GLIBC_9.9".to_vec();
            newer.resize(need.len(), 0);
            bytes[at..at + need.len()].copy_from_slice(&newer);
        }
    }
    bytes
}

#[test]
fn a_newer_c_library_is_needed() {
    let world = World::new();
    let path = world.library(Some(MANIFEST), "alpine_provider_v1", &[]);
    fs::write(
        world.path("source.c"),
        format!(
            "#include <stdlib.h>\n__attribute__((section(\".alpine.provider\"), used)) static const char m[] = {MANIFEST:?};\n\
             void *alpine_provider_v1(void *host) {{ return host ? malloc(1) : 0; }}\n"
        ),
    )
    .unwrap();
    let made = Command::new("cc")
        .args(["-shared", "-fPIC", "-o"])
        .args([&path, &world.path("source.c")])
        .status();
    assert!(made.unwrap().success());
    assert!(vet(&path, &pinned(&path)).is_ok());
    let bytes = newer(fs::read(&path).unwrap());
    let path = world.file("newer.so", &bytes, 0o644);
    refused(&path, Reason::Glibc, "a need of GLIBC 9.9");
}

#[test]
fn what_it_needs_is_not_looked_for_where_anybody_may_have_put_it() {
    let world = World::new();
    let entry = "alpine_provider_v1";
    for (path, found) in [
        (".", "`.` in its RUNPATH"),
        ("/usr/lib:lib/deps", "`lib/deps` in its RUNPATH"),
        ("/usr/lib::/lib", "`` in its RUNPATH"),
        ("/usr/lib:", "`` in its RUNPATH"),
        // It is opened by its descriptor, so that this is `/proc/self/fd`.
        ("$ORIGIN", "`$ORIGIN` in its RUNPATH"),
        ("/lib:${ORIGIN}/../lib", "`${ORIGIN}/../lib` in its RUNPATH"),
    ] {
        let flag = format!("-Wl,--enable-new-dtags,-rpath,{path}");
        let library = world.library(Some(MANIFEST), entry, &[&flag]);
        refused(&library, Reason::Search, found);
        assert!(refusal(&library).remedy.starts_with("readelf -d /"));
    }
    let old = "-Wl,--disable-new-dtags,-rpath,.";
    let library = world.library(Some(MANIFEST), entry, &[old]);
    refused(&library, Reason::Search, "`.` in its RPATH");
    let absolute = "-Wl,-rpath,/usr/lib:/opt/$ORIGIN";
    let library = world.library(Some(MANIFEST), entry, &[absolute]);
    assert!(vet(&library, &pinned(&library)).is_ok());

    let source = world.file("needed.c", b"int needed;\n", 0o600);
    let needed = world.path("needed.so");
    for (name, is_fixed) in [
        ("needed.so", true),
        ("/opt/needed.so", true),
        ("./needed.so", false),
        ("lib/needed.so", false),
        ("$ORIGIN/needed.so", false),
    ] {
        let made = Command::new("cc")
            .args(["-shared", "-fPIC", "-o"])
            .args([&needed, &source])
            .arg(format!("-Wl,-soname,{name}"))
            .status();
        assert!(made.unwrap().success());
        let flags = ["-Wl,--no-as-needed", needed.to_str().unwrap()];
        let library = world.library(Some(MANIFEST), entry, &flags);
        if is_fixed {
            assert!(vet(&library, &pinned(&library)).is_ok(), "{name}");
        } else {
            refused(&library, Reason::Search, &format!("a need of `{name}`"));
        }
    }
}

#[test]
fn the_entry_point_and_the_manifest_are_there() {
    let world = World::new();
    let entry = "alpine_provider_v1";
    let path = world.library(None, entry, &[]);
    refused(&path, Reason::NoManifest, "none");
    let path = world.library(Some(MANIFEST), "alpine_provider_v9", &[]);
    refused(&path, Reason::NoSymbol, "no such symbol");
    let path = world.library(Some(MANIFEST), entry, &["-fvisibility=hidden"]);
    refused(&path, Reason::NoSymbol, "no such symbol");
    let path = world.library(Some(&format!("{MANIFEST}{}", " ".repeat(4096))), entry, &[]);
    refused(&path, Reason::NoManifest, "one of 42");
    for (wrong, found) in [
        ("", "EOF"),
        ("{", "EOF"),
        ("[]", "invalid"),
        (r#"{"name":"acme"}"#, "missing field `version`"),
        (
            &MANIFEST.replace("unwind", "shrug"),
            "unknown variant `shrug`",
        ),
        (
            &MANIFEST.replace("\"abi_min\":1", "\"abi_min\":-1"),
            "invalid value",
        ),
        (
            &MANIFEST.replace("1.2.3", "\\u001b[2J"),
            "a control character",
        ),
    ] {
        let path = world.library(Some(wrong), entry, &[]);
        refused(&path, Reason::Manifest, found);
    }
}

#[test]
fn the_boundary_versions_overlap() {
    let world = World::new();
    let of = |min: u32, max: u32| {
        MANIFEST.replace(
            "\"abi_min\":1,\"abi_max\":1",
            &format!("\"abi_min\":{min},\"abi_max\":{max}"),
        )
    };
    for (min, max, found) in [
        (2, 3, "version 2 to 3"),
        (0, 0, "version 0"),
        (2, 0, "version 2 to 0"),
    ] {
        let path = world.library(Some(&of(min, max)), "alpine_provider_v1", &[]);
        refused(&path, Reason::Abi, found);
    }
    let path = world.library(Some(&of(0, 7)), "alpine_provider_v1", &[]);
    assert!(vet(&path, &pinned(&path)).is_ok());
}

#[test]
fn what_aborts_on_a_panic_needs_its_own_process() {
    let world = World::new();
    let path = world.library(
        Some(&MANIFEST.replace("unwind", "abort")),
        "alpine_provider_v1",
        &[],
    );
    let mut expected = pinned(&path);
    assert!(vet(&path, &expected).is_ok());
    expected.isolation = Isolation::InProcess;
    let refusal = vet(&path, &expected).unwrap_err();
    assert_eq!(refusal.reason, Reason::Panic);
    assert!(
        refusal
            .found
            .contains("remove its `isolation` in `config.toml`"),
        "{refusal:?}"
    );
}

#[test]
fn a_library_is_the_one_that_was_pinned() {
    let world = World::new();
    let path = world.good();
    let refusal = refusal(&path);
    assert_eq!(refusal.reason, Reason::NotPinned);
    let mut expected = pinned(&path);
    assert!(refusal.found.contains(expected.sha256.as_ref().unwrap()));
    // Hex is hex, in either case.
    expected.sha256 = expected.sha256.map(|hex| hex.to_uppercase());
    assert!(vet(&path, &expected).is_ok());
    let mut bytes = good().to_vec();
    bytes.push(0);
    fs::write(&path, bytes).unwrap();
    let refusal = vet(&path, &expected).unwrap_err();
    assert_eq!(refusal.reason, Reason::Digest);
    assert!(refusal.expected.contains(expected.sha256.as_ref().unwrap()));
}

#[test]
fn programs_are_scripts_or_for_this_machine() {
    let world = World::new();
    let script = world.file("script", b"#!/bin/sh\nexit 0\n", 0o755);
    let vetted = vet(&script, &expecting(Kind::Exec)).unwrap();
    assert_eq!(vetted.program(), script);
    assert_eq!(vetted.manifest, None);
    let mut expected = pinned(&script);
    fs::write(&script, b"#!/bin/sh\nexit 1\n").unwrap();
    let changed = vet(&script, &expected).unwrap_err();
    assert_eq!(changed.reason, Reason::Digest);

    let mut program = fs::canonicalize("/bin/true").unwrap();
    if fs::metadata(&program).is_ok_and(|found| found.permissions().mode() & 0o022 != 0) {
        program = world.file("true", &fs::read(program).unwrap(), 0o755);
    }
    expected = pinned(&program);
    let vetted = vet(&program, &expected).unwrap();
    // It is started by its descriptor, which is closed when it runs.
    assert!(vetted.program().starts_with("/proc/self/fd"));
    assert!(Command::new(vetted.program()).status().unwrap().success());

    for (name, bytes, mode, reason) in [
        ("quiet", &b"#!/bin/sh\n"[..], 0o644, Reason::NotExecutable),
        (
            "text",
            b"a text that is long enough",
            0o755,
            Reason::NotExecutable,
        ),
        ("shared", b"#!/bin/sh\n", 0o777, Reason::Writable),
    ] {
        let refusal = vet(&world.file(name, bytes, mode), &expecting(Kind::Exec)).unwrap_err();
        assert_eq!(refusal.reason, reason, "{refusal}");
    }
    // Whoever asks without knowing what it should be is told the same of a script.
    let quiet = open(&world.file("quiet", b"#!/bin/sh\n", 0o644)).unwrap();
    assert_eq!(inspect(&quiet).unwrap_err().reason, Reason::NotExecutable);
    let mut other = good().to_vec();
    other[18] = 243;
    let other = world.file("other", &other, 0o755);
    assert_eq!(
        vet(&other, &expecting(Kind::Exec)).unwrap_err().reason,
        Reason::Machine
    );
}

#[test]
fn a_program_is_whole_and_can_be_run_here() {
    let world = World::new();
    let refusal = |bytes: &[u8]| {
        let path = world.file("spoilt", bytes, 0o755);
        vet(&path, &expecting(Kind::Exec)).unwrap_err()
    };
    for flags in [
        &["-pie"][..],
        &["-no-pie"],
        &["-static"],
        &["-static", "-s"],
    ] {
        let path = world.program(flags);
        assert!(vet(&path, &expecting(Kind::Exec)).is_ok(), "{flags:?}");
        assert_eq!(inspect(&open(&path).unwrap()).unwrap().0, Kind::Exec);
        let whole = fs::read(&path).unwrap();
        for length in [64, 1000, 9000, whole.len() / 2, whole.len() - 1] {
            let refusal = refusal(&whole[..length]);
            assert_eq!(refusal.reason, Reason::Truncated, "{flags:?} {length}");
            assert!(refusal.remedy.starts_with("ls -l /"), "{refusal:?}");
        }
    }
    // What its linker left of it for a debugger is not needed.
    let mut bytes = fs::read(world.program(&[])).unwrap();
    bytes[40..48].fill(0);
    bytes[60..64].fill(0);
    let path = world.file("bare", &bytes, 0o755);
    assert!(vet(&path, &expecting(Kind::Exec)).is_ok());
    assert!(Command::new(&path).status().unwrap().success());

    let refusal = refusal(&newer(fs::read(world.program(&[])).unwrap()));
    assert_eq!(refusal.reason, Reason::Glibc, "{refusal}");
    assert!(refusal.found.contains("a need of GLIBC 9.9"), "{refusal}");
    // One that brings a C library of its own may need what that has.
    let flag = "-Wl,--dynamic-linker,/opt/own/ld.so";
    let path = world.file(
        "own",
        &newer(fs::read(world.program(&[flag])).unwrap()),
        0o755,
    );
    assert!(vet(&path, &expecting(Kind::Exec)).is_ok());
    let object = fs::read(world.program(&["-c"])).unwrap();
    let path = world.file("object.o", &object, 0o755);
    let refusal = vet(&path, &expecting(Kind::Exec)).unwrap_err();
    assert_eq!(refusal.reason, Reason::NotExecutable, "{refusal}");
    assert!(refusal.found.contains("another type"), "{refusal}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn garbage_is_refused(bytes in proptest::collection::vec(any::<u8>(), 0..2048)) {
        let world = World::new();
        let path = world.file("garbage", &bytes, 0o755);
        let _ = vet(&path, &expecting(Kind::Exec));
        prop_assert!(vet(&path, &expecting(Kind::Dylib)).is_err());
    }

    #[test]
    fn changed_bytes_never_panic(changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..24), header in any::<bool>()) {
        let world = World::new();
        let mut bytes = good().to_vec();
        let within = if header { 1024 } else { bytes.len() };
        for (index, byte) in changes {
            bytes[index.index(within)] = byte;
        }
        let path = world.file("changed.so", &bytes, 0o644);
        let _ = inspect(&open(&path).unwrap());
    }

    #[test]
    fn tables_of_any_place_and_size_are_refused_or_read(field in 0usize..9, value in prop_oneof![any::<u64>(), Just(u64::MAX), 0u64..20_000]) {
        let world = World::new();
        let mut bytes = good().to_vec();
        let section = usize::try_from(u64::from_le_bytes(bytes[40..48].try_into().unwrap())).unwrap();
        // e_phoff, e_shoff, and fields of the first headers of both tables.
        let at = [32, 40, 64 + 8, 64 + 32, 64 + 40, section + 64 + 24, section + 64 + 32, section + 128 + 24, section + 128 + 32][field];
        bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
        let path = world.file("table.so", &bytes, 0o644);
        let _ = inspect(&open(&path).unwrap());
    }
}
