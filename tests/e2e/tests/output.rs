//! What goes where: results, logs, help, completions, configuration.

use crate::support::{World, document, text, with_json};
use alpine_ledger::SessionId;
use alpine_provider_api::ErrorKind;
use alpine_testkit::Fault;
use rustix::process::Signal;
use serde_json::Value;
use std::process::Stdio;

const COMMANDS: [&str; 9] = [
    "up",
    "down",
    "list",
    "status",
    "exec",
    "logs",
    "open",
    "config",
    "completions",
];

#[test]
fn the_log_goes_to_standard_error_alone() {
    let world = World::new();
    for (id, format) in [("text", "text"), ("json", "json")] {
        let run = |arguments: &[&str]| {
            let mut command = world.command(&with_json(arguments));
            command
                .env("ALPINE_LOG", "debug")
                .env("ALPINE_LOG_FORMAT", format);
            let output = world.env.run(&mut command);
            assert_eq!(output.code(), Some(0), "{output:#?}");
            let document = alpine_testkit::json(&output);
            assert_eq!(output.stdout.lines().count(), 1, "{output:#?}");
            (document, output.stderr)
        };
        let (up, said) = run(&world.up(id));
        let session = text(&up, "session_id");
        let operation = text(&up, "operation_id");
        assert!(
            said.contains(&session) && said.contains(&operation),
            "{said}"
        );
        assert!(
            said.contains("provision") && said.contains("transition"),
            "{said}"
        );
        assert!(!said.contains('\u{1b}'), "no colours: {said}");
        if format == "json" {
            for line in said.lines() {
                let line: Value = serde_json::from_str(line).expect("a document a line");
                assert!(
                    line["level"].is_string() && line["timestamp"].is_string(),
                    "{line:#}"
                );
            }
        }
        let (down, said) = run(&["down", &session]);
        assert_eq!(down["state"], "stopped", "{down:#}");
        assert!(said.contains("persist"), "{said}");
        let (_, quiet) = run(&["list"]);
        assert!(!quiet.contains("ERROR"), "{quiet}");
    }
    let silent = world.run(&["list", "--json"]);
    assert_eq!(silent.stderr, "");
}

#[test]
fn every_event_of_a_session_is_in_the_ledger() {
    let world = World::new();
    let session = world.ready("events");
    world.done(&["down", &session]);
    let id = SessionId::from_recorded(session);
    let events = world.ledger(|snapshot| snapshot.session_events(&id));
    let states: Vec<&str> = events
        .iter()
        .filter_map(|event| event.state.filter(|_| event.kind.contains("transition")))
        .map(alpine_ledger::State::as_str)
        .collect();
    let expected = [
        "provisioning",
        "repo_syncing",
        "installing",
        "ready",
        "stopping",
        "persisting",
        "stopped",
    ];
    assert!(states.ends_with(&expected), "{events:#?}");
    for event in &events {
        assert_eq!(event.session_id.as_ref(), Some(&id), "{event:#?}");
        assert!(event.operation_id.is_some(), "{event:#?}");
    }
}

#[test]
fn help_of_every_command_has_examples() {
    let world = World::new();
    for command in COMMANDS {
        let long = world.run(&[command, "--help"]).success();
        assert_eq!(long.stderr, "");
        assert!(
            long.stdout.contains("Examples:\n  alpine "),
            "{}",
            long.stdout
        );
        assert!(
            long.stdout.contains(&format!("Usage: alpine {command}")),
            "{}",
            long.stdout
        );
        let short = world.run(&[command, "-h"]).success();
        assert!(short.stdout.contains("Examples:"), "{}", short.stdout);
        let json = world.done(&[command, "--help"]);
        assert_eq!(text(&json, "text"), long.stdout);
    }
    let all = world.run(&["--help"]).success().stdout;
    for command in COMMANDS {
        assert!(all.contains(&format!("\n  {command}")), "{command}: {all}");
    }
    assert!(!world.ledger_path().exists(), "nothing was made");
}

#[test]
fn completions_are_scripts_that_their_shell_takes() {
    let world = World::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = world.run(&["completions", shell]).success();
        assert_eq!(script.stderr, "");
        for word in COMMANDS
            .iter()
            .chain(&["--retry-persist", "--client-request-id"])
        {
            let word = word.trim_start_matches('-');
            assert!(script.stdout.contains(word), "{shell}: {word}");
        }
        let document = world.done(&["completions", shell]);
        assert_eq!(text(&document, "text"), script.stdout);
    }
    let script = world.run(&["completions", "bash"]).success().stdout;
    let file = world.env.root().join("completions.bash");
    std::fs::write(&file, script).expect("a file");
    let mut bash = world.env.command(std::path::Path::new("bash"));
    bash.arg("-n").arg(&file);
    let checked = world.env.run(&mut bash);
    assert_eq!((checked.code(), checked.stderr.as_str()), (Some(0), ""));
}

#[test]
fn a_reader_that_has_gone_is_no_failure_of_ours() {
    let world = World::new();
    let session = world.ready("reader");
    for arguments in [
        &["list"][..],
        &["status", &session],
        &["logs", &session],
        &["config"],
    ] {
        let mut command = world.command(arguments);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program");
        drop(child.stdout.take());
        let output = child.wait_with_output().expect("its end");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!said.contains("panicked"), "{arguments:?}: {said}");
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {said}");
    }
    world.done(&["down", &session]);
}

#[test]
fn what_is_in_force_is_shown_with_its_origin() {
    let world = World::new();
    let mut command = world.command(&["config", "--json"]);
    command.env("GITHUB_TOKEN", "a-token-that-nobody-sees");
    let output = world.env.run(&mut command);
    assert!(!output.stdout.contains("nobody-sees"), "{output:#?}");
    let config = document(&output);
    let settings = config["settings"].as_array().expect("a list");
    let of = |key: &str| {
        let found = settings.iter().find(|setting| setting["key"] == key);
        let found = found.unwrap_or_else(|| panic!("no `{key}`: {config:#}"));
        let value = found["value"]
            .as_str()
            .map_or_else(|| found["value"].to_string(), str::to_owned);
        (value, text(found, "origin"))
    };
    let pair = |value: &str, origin: &str| (value.to_owned(), origin.to_owned());
    assert_eq!(of("provider.default"), pair("fake", "file"));
    assert_eq!(of("agent.default"), pair("page", "file"));
    assert_eq!(of("limits.backoff"), pair("5ms", "file"));
    assert_eq!(of("limits.up"), pair("12m", "default"));
    assert_eq!(of("principal"), pair("tester", "variable"));
    assert_eq!(of("GITHUB_TOKEN"), pair("set", "variable"));
    assert_eq!(of("GH_TOKEN"), pair("not set", "variable"));
    // Every time limit of the contract.
    for (limit, value) in [
        ("provision", "1m 30s"),
        ("sync", "5m"),
        ("install", "10m"),
        ("persist", "1m"),
        ("up", "12m"),
        ("down", "3m"),
        ("grace", "30s"),
        ("browser", "3s"),
        ("probe", "10s"),
        ("link", "1m"),
        ("lease", "30s"),
    ] {
        assert_eq!(of(&format!("limits.{limit}")), pair(value, "default"));
    }
    assert_eq!(of("limits.tries"), pair("3", "default"));
}

#[test]
fn a_step_that_was_cut_short_and_may_be_carried_on_has_not_failed() {
    let world = World::new();
    world.fake().fault("install", Fault::Hang, 2);
    let up = world.start(&world.up("cut"));
    world.wait_for_call("install");
    up.signal(Signal::INT);
    let said = up.wait().stderr;
    assert!(said.contains("\ninstall: interrupted after "), "{said}");
    let hurried = [&world.up("cut")[..], &["--timeout", "1s"]].concat();
    let said = world.run(&hurried).stderr;
    assert!(said.contains("\ninstall: timed out after "), "{said}");
    let session = SessionId::derive("tester", "cut").to_string();
    let down = world.run(&["down", &session]).stdout;
    assert!(
        down.ends_with("\ncleaned up: nothing of it is left\n"),
        "{down}"
    );
    let down = world.run(&["down", &session]).stdout;
    assert!(down.ends_with("\nnothing is left to do\n"), "{down}");
    let fault = Fault::Error(ErrorKind::InstallFailed);
    world.fake().fault("install", fault, 1);
    let said = world.run(&world.up("failed")).stderr;
    assert!(said.contains("\ninstall: failed in "), "{said}");
    world.assert_nothing_left();
}
