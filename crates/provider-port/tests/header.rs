//! The C header says what the Rust says: the machine's compiler compares them, number by number.

use alpine_provider_api::Method;
use alpine_provider_port::abi::*;
use alpine_provider_port::frame::*;
use alpine_provider_port::message::ERROR_KINDS;
use std::path::Path;
use std::process::Command;

/// Every number that both sides know, by its name in C.
fn numbers() -> Vec<(String, u64)> {
    let mut all: Vec<(String, u64)> = [
        ("MAGIC", MAGIC),
        ("ABI_MIN", ABI_MIN.into()),
        ("ABI_MAX", ABI_MAX.into()),
        ("HEADER", HEADER as u64),
        ("MAX_CONTROL", MAX_CONTROL as u64),
        ("MAX_CHUNK", MAX_CHUNK as u64),
        ("MAX_LOG", MAX_LOG as u64),
        ("LOGS_PER_SECOND", LOGS_PER_SECOND.into()),
        ("CREDIT", CREDIT.into()),
        ("MIN_CHARGE", MIN_CHARGE.into()),
        ("EVENT_PROGRESS", EVENT_PROGRESS.into()),
        ("EVENT_STDOUT", EVENT_STDOUT.into()),
        ("EVENT_STDERR", EVENT_STDERR.into()),
        ("EVENT_WARNING", EVENT_WARNING.into()),
        ("INPUT_DATA", INPUT_DATA.into()),
        ("INPUT_EOF", INPUT_EOF.into()),
        ("INPUT_RESIZE", INPUT_RESIZE.into()),
        ("INPUT_SIGNAL", INPUT_SIGNAL.into()),
        ("CANCEL_GONE", CANCEL_GONE.into()),
        ("CANCEL_DEADLINE", CANCEL_DEADLINE.into()),
        ("HOST_CHILD", HOST_CHILD.into()),
        ("HOST_LOG_SHIFT", HOST_LOG_SHIFT.into()),
        ("PROVIDER_ABORTS", PROVIDER_ABORTS.into()),
        ("PROVIDER_NEEDS_CHILD", PROVIDER_NEEDS_CHILD.into()),
    ]
    .map(|(name, number)| (name.to_owned(), number))
    .to_vec();
    all.extend(Kind::ALL.map(|kind| (kind.as_str().to_owned(), kind.number().into())));
    all.extend(Method::ALL.map(|method| (format!("METHOD_{method}"), method.id().into())));
    all.extend(
        ERROR_KINDS.map(|(number, kind)| (format!("ERROR_{}", kind.as_str()), number.into())),
    );
    let sent = [
        "OK",
        "WOULD_BLOCK",
        "GONE",
        "CLOSED",
        "UNSUPPORTED",
        "PANIC",
        "TOO_BIG",
        "BAD",
    ];
    let sent = sent.into_iter().zip(Sent::ALL);
    all.extend(sent.map(|(name, sent)| (format!("SENT_{name}"), sent.number() as u64)));
    all.into_iter()
        .map(|(name, number)| (format!("ALPINE_{}", name.to_uppercase()), number))
        .collect()
}

fn compile(compiler: &str, arguments: &[&str], source: &Path) -> Result<(), String> {
    let include = Path::new(env!("CARGO_MANIFEST_DIR")).join("include");
    let output = Command::new(compiler)
        .args(arguments)
        .args(["-Wall", "-Wextra", "-Werror", "-fsyntax-only", "-I"])
        .arg(include)
        .arg(source)
        .output()
        .expect("a compiler");
    if output.status.success() {
        return Ok(());
    }
    Err(String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn the_header_has_the_numbers_of_the_rust() {
    let directory = tempfile::tempdir().unwrap();
    let source = directory.path().join("numbers.c");
    let program = |numbers: &[(String, u64)]| {
        let lines = numbers
            .iter()
            .map(|(name, number)| format!("_Static_assert({name} == {number}ull, \"{name}\");\n"));
        format!(
            "#include \"alpine_provider.h\"\n{}",
            lines.collect::<String>()
        )
    };
    let mut numbers = numbers();
    std::fs::write(&source, program(&numbers)).unwrap();
    compile("cc", &["-std=c11"], &source).unwrap();
    // A number that differs is found.
    numbers[7].1 += 1;
    std::fs::write(&source, program(&numbers)).unwrap();
    let said = compile("cc", &["-std=c11"], &source).unwrap_err();
    assert!(said.contains(&numbers[7].0), "{said}");
}

#[test]
fn the_header_has_no_number_that_the_rust_lacks() {
    let header = include_str!("../include/alpine_provider.h");
    let known: Vec<String> = numbers().into_iter().map(|(name, _)| name).collect();
    for line in header.lines() {
        let Some(rest) = line.strip_prefix("#define ALPINE_") else {
            continue;
        };
        let name: String = rest
            .chars()
            .take_while(|c| c.is_ascii_alphanumeric() || *c == '_')
            .collect();
        let name = format!("ALPINE_{name}");
        let own = ["ALPINE_PROVIDER_H", "ALPINE_ASSERT"].contains(&name.as_str());
        assert!(own || known.contains(&name), "{name}");
    }
}
