//! The README shows what is printed.

use crate::local::program::Program;
use std::path::Path;

const README: &str = include_str!("../../../../README.md");

/// The blocks of the demo: what `up` prints, and what `down` does.
fn blocks() -> Vec<&'static str> {
    let blocks = README.split("```text\n").skip(1);
    blocks
        .map(|rest| rest.split_once("```").expect("a block's end").0)
        .collect()
}

/// What follows the name in a line of a result.
fn value<'a>(block: &'a str, name: &str) -> &'a str {
    let line = block.lines().find(|line| line.starts_with(name));
    line.expect("such a line")[name.len()..].trim_start()
}

/// A text without what is another on each machine: ports, digests, commits, and the workspace's size.
fn plain(text: &str) -> String {
    let mut plain = String::new();
    for line in text.lines() {
        let line = match line.strip_prefix("workspace   ") {
            Some(size) if size.ends_with(" files and directories") => "workspace   # files",
            Some(_) | None => line,
        };
        for piece in line.split_inclusive(|c: char| !c.is_ascii_alphanumeric()) {
            let word = piece.trim_end_matches(|c: char| !c.is_ascii_alphanumeric());
            let hex = word.bytes().all(|byte| byte.is_ascii_hexdigit());
            let varies = hex && word.len() > 4 && word.bytes().any(|byte| byte.is_ascii_digit());
            plain.push_str(if varies { "#" } else { word });
            plain.push_str(&piece[word.len()..]);
        }
        plain.push('\n');
    }
    plain
}

#[test]
fn the_readme_shows_what_is_printed() {
    let [up, down] = blocks()[..] else {
        panic!("two blocks")
    };
    let session = value(up, "session").split(' ').next().expect("an id");
    let program = Program::new().with("ALPINE_PRINCIPAL_ID", "me");
    let repo = program.env.git_repo(&[("README.md", README)]);
    let printed = program.run(&[
        "up",
        repo.path.to_str().expect("a path"),
        "--branch",
        "main",
        "--agent",
        "page",
        "--no-browser",
        "--client-request-id",
        value(up, "request id"),
    ]);
    let home = program.env.alpine_home();
    let printed = printed
        .success()
        .stdout
        .replace(home.to_str().expect("a path"), "/home/me/.alpine");
    // The README's program was built in its own clone, the one under test says that it is on the path.
    let shown = up
        .replace("target/release/alpine", "alpine")
        .replace("token=…", "token=0a1b2c");
    assert_eq!(plain(&printed), plain(&shown));
    assert!(printed.contains(session), "the session of that request");
    let work = ["exec", session, "--", "sh", "-c", "echo mine > work"];
    let _worked = program.run(&work).success();
    let printed = program.run(&["down", session]).success().stdout;
    let shown = printed.replace(home.to_str().expect("a path"), "/home/me/.alpine");
    assert_eq!(plain(&shown), plain(down));
    let unpack = value(&printed, "get it back:");
    let mut shell = program.env.command(Path::new("/bin/sh"));
    shell.args(["-c", &format!("{unpack} && cat restored/workspace/work")]);
    let unpacked = program.env.run(&mut shell);
    assert_eq!(unpacked.success().stdout, "mine\n", "{unpack}");
    program.assert_nothing_left();
}
