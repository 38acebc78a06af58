//! `exec` and `logs` on real processes.

use crate::local::faults::supervisor;
use crate::local::program::Program;
use crate::local::whole::repository;
use crate::support::{Running, text, wait_until};
use alpine_testkit::Output;
use rustix::process::{Signal, kill_process};
use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

fn said(output: &Output) -> (&str, &str, Option<i32>) {
    (&output.stdout, &output.stderr, output.code())
}

#[test]
fn a_command_has_its_own_streams_status_and_signals() {
    let program = Program::new();
    let up = program.up(&repository(&program), &["--agent", "none", "--name", "it"]);
    let workspace = PathBuf::from(text(&up, "workspace_path"));
    let sh = |script: &str| program.run(&["exec", "it", "--", "sh", "-c", script]);
    assert_eq!(
        said(&sh("echo out; echo err >&2; exit 7")),
        ("out\n", "err\n", Some(7))
    );
    assert_eq!(said(&sh("kill -9 $$")), ("", "", Some(137)));
    assert_eq!(said(&sh("kill -TERM $$")), ("", "", Some(143)));
    assert_eq!(sh("pwd").stdout.trim_end(), workspace.to_str().unwrap());
    // Everything after `--` is the command's, what looks like alpine's own flags included.
    let own = program.run(&["exec", "it", "--", "printf", "%s.", "--json", "--help", ""]);
    assert_eq!(said(&own), ("--json.--help..", "", Some(0)));
    assert_eq!(sh("cat").stdout, "", "an empty standard input has an end");

    let mut command = program.command(&["exec", "it", "--", "sh", "-c", "wc -c; echo done"]);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(&vec![b'x'; 3_000_000])
        .unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(
        String::from_utf8_lossy(&output.stdout)
            .split_whitespace()
            .collect::<Vec<_>>(),
        ["3000000", "done"]
    );

    // A signal to alpine is the command's, and so is what it does about it.
    let script = "trap 'echo caught; exit 9' INT; touch started; while :; do sleep 0.05; done";
    let running = Running::start(program.command(&["exec", "it", "--", "sh", "-c", script]));
    wait_until("the command", || workspace.join("started").exists());
    running.signal(Signal::INT);
    assert_eq!(said(&running.wait()), ("caught\n", "", Some(9)));

    // A command whose alpine was killed does not stay.
    let script = "touch again; exec sleep 1000";
    let running = Running::start(program.command(&["exec", "it", "--", "sh", "-c", script]));
    wait_until("the command", || workspace.join("again").exists());
    running.kill();
    let is_there = || {
        program
            .env
            .processes()
            .iter()
            .any(|process| process.command == "sleep 1000")
    };
    wait_until("its end", || !is_there());
    program.down("it");
    program.assert_nothing_left();
}

#[test]
fn an_interrupt_is_never_stuck() {
    let program = Program::new();
    let up = program.up(&repository(&program), &["--agent", "none", "--name", "it"]);
    let workspace = PathBuf::from(text(&up, "workspace_path"));
    let exec = |script: &str| program.command(&["exec", "it", "--", "sh", "-c", script]);
    let begin = |running: &Running, name: &str| {
        wait_until("the command", || workspace.join(name).exists());
        running.signal(Signal::INT);
    };

    // More input than anybody takes does not keep it from the command.
    let input = workspace.parent().unwrap().join("much");
    fs::write(&input, vec![b'x'; 8 << 20]).unwrap();
    let script = "trap 'sleep 3; exit 9' INT; touch fed; while :; do sleep 0.05; done";
    let mut command = exec(script);
    command.stdin(fs::File::open(&input).unwrap());
    let running = Running::start_fed(command);
    wait_until("the input to be held up", || input_stands(&running));
    begin(&running, "fed");
    assert_eq!(running.wait().code(), Some(9));
    fs::remove_file(&input).unwrap();

    // A second one ends alpine where the first does not end the command, and the command with it.
    let script = "trap 'touch told' INT; touch deaf; while :; do sleep 0.05; done";
    let running = Running::start(exec(script));
    begin(&running, "deaf");
    begin(&running, "told");
    assert_eq!(running.wait().code(), Some(130));

    // So does the first where nobody takes it.
    let running = Running::start(exec("touch still; while :; do sleep 0.05; done"));
    wait_until("the command", || workspace.join("still").exists());
    let supervisor = supervisor(&program);
    kill_process(supervisor, Signal::STOP).unwrap();
    running.signal(Signal::TERM);
    assert_eq!(running.wait().code(), Some(143));
    kill_process(supervisor, Signal::CONT).unwrap();
    program.down("it");
    program.assert_nothing_left();
}

/// Whether a program has stopped reading its standard input: its position in the file stays where it is, past the start.
fn input_stands(running: &Running) -> bool {
    let position = || fs::read_to_string(format!("/proc/{}/fdinfo/0", running.pid())).unwrap();
    let before = position();
    std::thread::sleep(Duration::from_millis(300));
    !before.starts_with("pos:\t0\n") && position() == before
}

#[test]
fn what_alpine_itself_can_not_do_is_125_on_standard_error() {
    let program = Program::new();
    let up = program.up(&repository(&program), &["--agent", "none", "--name", "it"]);
    for (arguments, code) in [
        (
            &["exec", "nobody", "--", "true"][..],
            "ERR_SESSION_NOT_FOUND",
        ),
        (&["exec", "it", "--", "no-such-program"], "ERR_USAGE"),
        (&["exec", "it"], "ERR_USAGE"),
    ] {
        let output = program.run(arguments);
        assert_eq!(
            (output.stdout.as_str(), output.code()),
            ("", Some(125)),
            "{output:#?}"
        );
        assert!(
            output.stderr.starts_with("error: ") && output.stderr.contains(code),
            "{output:#?}"
        );
        let output = program.run(&[&["--json"], arguments].concat());
        assert_eq!(
            (output.stdout.as_str(), output.code()),
            ("", Some(125)),
            "{output:#?}"
        );
        let failure: serde_json::Value = serde_json::from_str(&output.stderr).unwrap();
        assert_eq!(
            (&failure["error_code"], &failure["exit_code"]),
            (&code.into(), &125.into())
        );
    }
    program.down(&text(&up, "session_id"));
    let output = program.run(&["exec", &text(&up, "session_id"), "--", "true"]);
    assert_eq!(output.code(), Some(125));
    assert!(
        output.stderr.contains("ERR_OPERATION_CONFLICT"),
        "{output:#?}"
    );
}

#[test]
fn the_install_step_runs_once_and_its_log_is_kept() {
    let program = Program::new();
    let repo = program.env.git_repo(&[(
        ".alpine.toml",
        "[setup]\ninstall = 'echo first; echo second >&2; echo ran >> ran; mkdir deps'\n",
    )]);
    let up = program.up(&repo, &["--agent", "none", "--client-request-id", "one"]);
    let again = program.up(&repo, &["--agent", "none", "--client-request-id", "one"]);
    assert_eq!(again["reused"], true);
    let workspace = PathBuf::from(text(&up, "workspace_path"));
    assert_eq!(fs::read_to_string(workspace.join("ran")).unwrap(), "ran\n");
    assert!(workspace.join("deps").is_dir());
    let session = text(&up, "session_id");
    for arguments in [
        &["logs", &session][..],
        &["logs", &session, "--step", "install"],
    ] {
        let log = program.run(arguments).success().stdout;
        assert!(log.contains("first\n") && log.contains("second\n"), "{log}");
    }
    let log = program.run(&["--json", "logs", &session]).success().stdout;
    let log: serde_json::Value = serde_json::from_str(&log).expect("one document");
    let lines = log["lines"].as_array().expect("its lines");
    let last = lines.last().and_then(|line| line.as_str());
    assert!(
        last.is_some_and(|line| line.ends_with(" second")),
        "{log:#}"
    );
    let follow = Running::start(program.command(&["logs", &session, "-f"]));
    let stream = Running::start(program.command(&["logs", &session, "-f", "--json"]));
    program.down(&session);
    for line in stream.wait().stdout.lines() {
        let line: serde_json::Value = serde_json::from_str(line).expect("a document a line");
        assert!(line["line"].is_string(), "{line}");
    }
    let followed = follow.wait();
    assert_eq!(followed.code(), Some(0), "{followed:#?}");
    assert!(followed.stdout.contains("first\n"), "{followed:#?}");
}

#[test]
fn an_install_step_that_fails_leaves_nothing() {
    let program = Program::new();
    let install = "[setup]\ninstall = 'echo about to fail; (setsid sleep 1000 &) ; exit 3'\n";
    let repo = program.env.git_repo(&[(".alpine.toml", install)]);
    let path = repo.path.to_str().unwrap();
    let arguments = [
        "up",
        path,
        "--branch",
        "main",
        "--agent",
        "none",
        "--client-request-id",
        "one",
    ];
    let failure = program.fails(&arguments, "ERR_INSTALL_FAILED", 2);
    let cause = text(&failure, "cause");
    assert!(
        cause.contains("status 3") && cause.contains("about to fail"),
        "{cause}"
    );
    program.assert_nothing_left();
    let again = program.fails(&arguments, "ERR_INSTALL_FAILED", 2);
    assert_eq!(
        again["operation_id"], failure["operation_id"],
        "the recorded error"
    );
    let listed = program.json(&["list"]);
    assert_eq!(listed["sessions"][0]["state"], "failed", "{listed:#}");
    let session = text(&listed["sessions"][0], "session_id");
    assert_eq!(program.json(&["down", &session])["state"], "failed");
    // Without the step, the same repository comes up.
    let up = program.up(&repo, &["--agent", "none", "--no-install"]);
    program.down(&text(&up, "session_id"));
    program.assert_nothing_left();
}

#[test]
fn a_repository_may_say_no_more_than_how_it_is_set_up() {
    let program = Program::new();
    for (text, line) in [
        (
            "[setup]\ninstall = 'true'\n[network]\nmode = 'full'\n",
            "line 3",
        ),
        ("provider = 'other'\n", "line 1"),
        ("[setup]\ninstall = 7\n", "line 2"),
        ("[setup\n", "line 1"),
    ] {
        let repo = program.env.git_repo(&[(".alpine.toml", text)]);
        let path = repo.path.to_str().unwrap();
        let failure = program.fails(
            &["up", path, "--branch", "main", "--agent", "none"],
            "ERR_CONFIG_INVALID",
            1,
        );
        let cause = failure["cause"].as_str().unwrap();
        assert!(
            cause.contains(".alpine.toml") && cause.contains(line),
            "{cause}"
        );
    }
    program.assert_nothing_left();
}
