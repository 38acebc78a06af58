//! Whole sessions with a provider that is not compiled in: in a process of its own, in this one, and as a program.

use super::*;
use crate::support::{Running, World, document, failed, text, wait_until, with_json};
use alpine_testkit::Fault;
use rustix::process::Signal;
use serde_json::Value;

/// The three ways to a provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Hosted,
    InProcess,
    Program,
}

const WAYS: [Way; 3] = [Way::Hosted, Way::InProcess, Way::Program];

/// A home in which the fake provider was added under another name.
fn world(way: Way) -> World {
    let world = World::new();
    let source = match way {
        Way::Hosted | Way::InProcess => alpine_fake_plugin::library(),
        Way::Program => env!("CARGO_BIN_EXE_alpine-fake-program").into(),
    };
    // Where it was built, others may write.
    let file = world.env.root().join("provider");
    fs::copy(source, &file).expect("a copy");
    protect(&file, 0o755);
    world.done(&["provider", "add", shown(&file), "--name", "acme"]);
    set(&world, way, "");
    world
}

/// Configures it: its state is where the fake's is looked for.
fn set(world: &World, way: Way, lines: &str) {
    let isolation = match way {
        Way::InProcess => "in-process",
        Way::Hosted | Way::Program => "process",
    };
    let state = world.env.fake_directory();
    let config = format!("[providers.acme.config]\nstate = '{}'", shown(&state));
    configured(
        world,
        &format!("isolation = '{isolation}'\n{lines}\n{config}"),
    );
}

/// Takes the settings and the file away.
fn forget(world: &World) {
    world.configure("[agent]\ndefault = 'page'\n");
    let pins = world.env.alpine_home().join("plugins/providers.toml");
    fs::rename(&pins, pins.with_extension("kept")).expect("the pins");
}

fn remember(world: &World, way: Way) {
    let pins = world.env.alpine_home().join("plugins/providers.toml");
    fs::rename(pins.with_extension("kept"), &pins).expect("the pins");
    set(world, way, "");
}

#[test]
fn an_agent_that_nobody_chose_is_the_page_whatever_is_installed_here() {
    let world = world(Way::Program);
    // Its own `default` goes first.
    let text = fs::read_to_string(world.env.alpine_home().join("config.toml")).expect("a file");
    world.configure(&text.replace("[agent]\ndefault = 'page'\n", ""));
    let up = world.done(&world.up("one"));
    assert_eq!(up["agent"], "page");
    let warnings = up["warnings"].to_string();
    assert!(warnings.contains("--agent opencode"), "{warnings}");
}

#[test]
fn a_session_is_brought_up_used_and_brought_down() {
    for way in WAYS {
        let world = world(way);
        let up = world.done(&world.up("one"));
        assert_eq!(
            (&up["provider"], &up["state"]),
            (&"acme".into(), &"ready".into()),
            "{way:?}"
        );
        let id = text(&up, "session_id");
        let status = world.status(&id);
        assert_eq!(status["provider"], "acme");
        assert!(status["provider_version"].is_string(), "{status:#}");
        let said = world.run(&["status", &id]).stdout;
        let version = text(&status, "provider_version");
        assert!(
            said.contains(&format!("provider     acme {version}\n")),
            "{said}"
        );
        let output = world.run(&["exec", &id, "--", "exit", "7"]);
        assert_eq!(output.code(), Some(7), "{way:?}: {output:#?}");
        // The same request again is answered again, by a fresh process of it.
        assert_eq!(world.done(&world.up("one"))["reused"], true);
        let down = world.done(&["down", &id]);
        assert_eq!(
            (&down["state"], &down["persistence_verified"]),
            (&"stopped".into(), &true.into())
        );
        assert_eq!(world.done(&["down", &id]), down);
        world.assert_nothing_left();
    }
}

#[test]
fn whatever_it_prints_standard_output_is_the_results() {
    for way in WAYS {
        let world = world(way);
        let id = world.ready("one");
        let output = world.run(&["exec", &id, "--", "odd", "print", "hello"]);
        assert_eq!(
            (output.code(), &*output.stdout),
            (Some(0), ""),
            "{way:?}: {output:#?}"
        );
        let mut command = world.command(&["exec", &id, "--", "odd", "print", "hello"]);
        let output = world.env.run(command.env("ALPINE_LOG", "info"));
        assert_eq!(output.stdout, "");
        assert!(output.stderr.contains("hello"), "{way:?}: {output:#?}");
        world.done(&["down", &id]);
    }
    // With a document on it, too.
    let provider = |into: &Path| alpine_plugin_tests::build(into, "misbehaving/provider.c", &[]);
    let world = World::new();
    let file = world.env.root().join("provider");
    fs::copy(provider(world.env.root()), &file).expect("a copy");
    protect(&file, 0o755);
    world.done(&["provider", "add", shown(&file), "--name", "acme"]);
    configured(&world, "isolation = 'in-process'\nconfig.fault = 'print'");
    let output = world.run(&with_json(&world.up("one")));
    let failure = alpine_testkit::json(&output);
    let code = text(&failure, "error_code");
    assert_eq!(code, "ERR_SANDBOX_PROVISION_FAILED", "{output:#?}");
    assert_eq!(output.stdout.lines().count(), 1, "{output:#?}");
    let said = "{\"schema_version\":\"v1\",\"state\":\"ready\"}\n";
    assert!(output.stderr.contains(said), "{output:#?}");
}

#[test]
fn it_gets_the_variables_that_it_is_allowed_and_no_others() {
    for way in [Way::Hosted, Way::Program] {
        let world = world(way);
        set(&world, way, "env_allow = ['ACME_AUTH', 'ABSENT']");
        let id = world.ready("one");
        let run = |words: &[&str]| {
            let mut command = world.command(&[&["exec", &id, "--", "odd"], words].concat());
            command
                .env("ACME_AUTH", "allowed-and-secret")
                .env("OTHER", "not-allowed");
            world.env.run(&mut command)
        };
        let output = run(&["env"]);
        let names: Vec<_> = output
            .stdout
            .lines()
            .filter_map(|line| line.split_once('='))
            .map(|(name, _)| name)
            .collect();
        assert!(
            names.contains(&"ACME_AUTH") && names.contains(&"PATH"),
            "{way:?}: {output:#?}"
        );
        for name in ["OTHER", "ABSENT", "ALPINE_HOME", "ALPINE_PRINCIPAL_ID"] {
            assert!(!names.contains(&name), "{way:?}: {output:#?}");
        }
        let output = run(&["fail", "allowed-and-secret"]);
        assert_eq!(output.code(), Some(125));
        assert!(output.stderr.contains("[redacted]"), "{way:?}: {output:#?}");
        assert!(
            !output.stderr.contains("allowed-and-secret"),
            "{way:?}: {output:#?}"
        );
        world.done(&["down", &id]);
    }
}

#[test]
fn one_that_dies_is_told_and_the_session_is_still_brought_down() {
    for way in [Way::Hosted, Way::Program] {
        let world = world(way);
        let id = world.ready("one");
        for odd in [&["abort"][..], &["exit", "0"], &["kill", "9"]] {
            let arguments = [&["exec", &id, "--", "odd"], odd].concat();
            let output = world.run(&arguments);
            assert_eq!(output.code(), Some(125), "{way:?} {odd:?}: {output:#?}");
            assert!(
                output.stderr.contains("ERR_PROVIDER_CRASHED"),
                "{way:?} {odd:?}: {output:#?}"
            );
        }
        assert_eq!(world.done(&["down", &id])["state"], "stopped");
        world.assert_nothing_left();
    }
}

#[test]
fn one_that_panics_has_crashed_and_says_where() {
    for way in WAYS {
        let world = world(way);
        let id = world.ready("one");
        let output = world.run(&["exec", &id, "--", "odd", "panic"]);
        assert_eq!(output.code(), Some(125), "{way:?}: {output:#?}");
        for said in ["ERR_PROVIDER_CRASHED", "tests/fake-plugin/src/odd.rs:"] {
            assert!(output.stderr.contains(said), "{way:?}: {output:#?}");
        }
        assert_eq!(world.done(&["down", &id])["state"], "stopped");
        world.assert_nothing_left();
    }
}

#[test]
fn one_that_does_not_start_leaves_no_session() {
    for way in WAYS {
        let world = world(way);
        set(&world, way, "");
        let config = fs::read_to_string(world.env.alpine_home().join("config.toml")).unwrap();
        let wrong = config.lines().map(|line| {
            if line.starts_with("state = ") {
                "state = 7"
            } else {
                line
            }
        });
        world.configure(&wrong.collect::<Vec<_>>().join("\n"));
        let failure = world.fails(&world.up("one"), "ERR_CONFIG_INVALID", 1);
        assert!(
            text(&failure, "cause").contains("its configuration is not what it takes at `state`: "),
            "{failure:#}"
        );
        assert_eq!(
            world.done(&["list", "--all"])["sessions"],
            Value::Array(Vec::new())
        );
        world.assert_nothing_left();
    }
    // Its entry point gives nothing.
    for isolation in ["process", "in-process"] {
        let world = World::new();
        world.done(&["provider", "add", shown(&library(&world, MANIFEST))]);
        configured(&world, &format!("isolation = '{isolation}'"));
        let failure = world.fails(&world.up("one"), "ERR_PROVIDER_INCOMPATIBLE", 1);
        assert!(!text(&failure, "next_step").is_empty());
        assert_eq!(
            world.done(&["list", "--all"])["sessions"],
            Value::Array(Vec::new())
        );
    }
}

#[test]
fn a_session_outlives_its_providers_configuration() {
    let world = world(Way::Hosted);
    let id = world.ready("one");
    let failure = world.fails(&["provider", "remove", "acme"], "ERR_OPERATION_CONFLICT", 1);
    assert!(text(&failure, "cause").contains(&id), "{failure:#}");
    assert_eq!(text(&failure, "next_step"), format!("alpine down {id}"));

    forget(&world);
    for arguments in [&["down", &id][..], &["open", &id], &["logs", &id]] {
        let failure = document(&world.run(&with_json(arguments)));
        assert_eq!(
            failure["error_code"], "ERR_PROVIDER_NOT_FOUND",
            "{failure:#}"
        );
        assert!(text(&failure, "cause").contains("`acme`"), "{failure:#}");
        assert_eq!(
            text(&failure, "next_step"),
            "alpine provider add FILE --name acme"
        );
    }
    assert_eq!(world.done(&["list"])["sessions"][0]["provider"], "acme");
    assert_eq!(world.state(&id), "ready");
    let reconciled = world.done(&["reconcile"]);
    let found = &reconciled["reconciled"][0];
    assert_eq!(found["finding"], "provider_missing", "{reconciled:#}");
    assert_eq!(
        (&found["done"], &found["error"]),
        (&false.into(), &Value::Null)
    );
    let said = world.run(&["reconcile"]).stdout;
    assert!(
        said.contains("left until `alpine provider add` brings it back"),
        "{said}"
    );

    remember(&world, Way::Hosted);
    assert_eq!(world.done(&["down", &id])["state"], "stopped");
    world.done(&["provider", "remove", "acme"]);
}

#[test]
fn a_down_with_a_refused_provider_leaves_the_session_as_it_is() {
    let world = world(Way::Hosted);
    let id = world.ready("one");
    let listed = world.done(&["provider", "list"]);
    let kept = PathBuf::from(text(&listed["providers"][2], "path"));
    protect(&kept, 0o666);
    for arguments in [&["down", &id][..], &["open", &id]] {
        let failure = world.fails(arguments, "ERR_PROVIDER_INCOMPATIBLE", 1);
        assert!(
            text(&failure, "next_step").starts_with("chmod go-w "),
            "{failure:#}"
        );
    }
    assert_eq!(world.state(&id), "ready");
    protect(&kept, 0o444);
    // Nor does one whose settings are wrong, or that does not start, make it worse.
    configured(&world, "config.state = 7");
    let failure = world.fails(&["down", &id], "ERR_CONFIG_INVALID", 1);
    let next = text(&failure, "next_step");
    assert!(next.starts_with("${EDITOR:-vi} "), "{failure:#}");
    assert_eq!(world.state(&id), "ready");
    set(&world, Way::Hosted, "");
    let dies = "(__builtin_trap(), (const alpine_provider *)0)";
    for (given, code, exit) in [
        (dies, "ERR_PROVIDER_CRASHED", 2),
        ("0", "ERR_PROVIDER_INCOMPATIBLE", 1),
    ] {
        let file = compiled(&world, MANIFEST, given);
        world.done(&["provider", "add", shown(&file), "--name", "acme"]);
        let failure = world.fails(&["down", &id], code, exit);
        let next = text(&failure, "next_step");
        assert_eq!(next, "alpine provider check acme", "{failure:#}");
        assert_eq!(world.state(&id), "ready", "{given}");
    }
    // The one that made it is still there; how it comes back is told.
    let back = format!("provider add {} --name acme", shown(&kept));
    world.done(&back.split(' ').collect::<Vec<_>>());
    let file = compiled(&world, MANIFEST, dies);
    let replaced = world.run(&["provider", "add", shown(&file), "--name", "acme"]);
    assert!(replaced.stderr.contains(&back), "{replaced:#?}");
    world.done(&back.split(' ').collect::<Vec<_>>());
    assert_eq!(world.done(&["down", &id])["state"], "stopped");
    // What is over needs no provider any more.
    fs::remove_file(&kept).unwrap();
    assert_eq!(world.done(&["down", &id])["state"], "stopped");
}

/// What a `down` was interrupted in is not made worse by who only looks after it.
#[test]
fn a_reconcile_with_a_provider_that_does_not_start_changes_no_session() {
    let world = world(Way::Hosted);
    let id = world.ready("one");
    world.fake().fault("stop", Fault::Hang, 1);
    let down = world.start(&["down", &id]);
    world.wait_for_call("stop");
    down.kill();
    assert_eq!(world.state(&id), "stopping");
    configured(&world, "config.state = 7");
    for words in [&["reconcile"][..], &["reconcile", &id]] {
        let output = world.run(&with_json(words));
        assert_eq!(output.code(), Some(2), "{output:#?}");
        let report = alpine_testkit::json(&output);
        let found = report["reconciled"].as_array().expect("a report");
        let found = found.iter().find(|found| found["session_id"] == *id);
        let found = found.expect("the session");
        assert_eq!(found["finding"], "not_answered", "{report:#}");
        let error = text(found, "error");
        assert!(error.starts_with("ERR_CONFIG_INVALID: "), "{report:#}");
        assert_eq!(world.state(&id), "stopping");
    }
    set(&world, Way::Hosted, "");
    assert_eq!(world.run(&["reconcile"]).code(), Some(0));
    assert_eq!(world.state(&id), "stopped");
    world.assert_nothing_left();
}

/// It dies once and then works: whoever asks does not notice.
#[test]
fn one_that_dies_at_its_start_once_is_started_again() {
    let world = world(Way::Program);
    let died = world.env.root().join("died");
    let file = world.env.root().join("provider.sh");
    let program = env!("CARGO_BIN_EXE_alpine-fake-program");
    let script = format!(
        "#!/bin/sh\nif [ ! -e '{0}' ]; then : > '{0}'; kill -9 $$; fi\nexec '{program}'\n",
        shown(&died)
    );
    fs::write(&file, script).expect("a script");
    protect(&file, 0o755);
    let id = world.ready("one");
    world.done(&["provider", "add", shown(&file), "--name", "acme"]);
    assert_eq!(world.done(&["down", &id])["state"], "stopped");
    assert!(died.exists());
    world.assert_nothing_left();
}

#[test]
fn a_check_tells_what_holds_and_what_does_not_and_touches_nothing() {
    for way in WAYS {
        let world = world(way);
        let report = world.run(&with_json(&[
            "provider", "check", "acme", "--only", "describe",
        ]));
        let document: Value = serde_json::from_str(&report.stdout).unwrap();
        assert_eq!(
            (report.code(), document["success"].as_bool()),
            (Some(0), Some(true)),
            "{report:#?}"
        );
        assert_eq!(document["schema_version"], "v1");
        // The fake runs no commands, so that much of the contract is broken.
        let junit = world.env.root().join("report.xml");
        let arguments = [
            "provider",
            "check",
            "acme",
            "--only",
            "exec",
            "--junit",
            shown(&junit),
        ];
        let output = world.run(&arguments);
        assert_eq!(output.code(), Some(1), "{way:?}: {output:#?}");
        assert!(output.stdout.contains("broken:") && output.stdout.contains(" failed, "));
        // Each is told as it ends, to who does not read documents.
        let lines = output.stderr.lines();
        let told = lines.filter(|line| line.starts_with("exec.")).count();
        assert!(
            told > 5 && output.stderr.contains(": FAIL ("),
            "{output:#?}"
        );
        assert_eq!(report.stderr, "");
        assert!(fs::read_to_string(&junit).unwrap().contains("<failure"));
        assert!(
            !world.env.fake_directory().join("sandboxes").exists()
                || world.fake().sandboxes().is_empty()
        );
        assert_eq!(
            world.done(&["list", "--all"])["sessions"],
            Value::Array(Vec::new())
        );
    }
    let world = World::new();
    // A check that would look at nothing is none.
    for (flag, value, says) in [("--points", "0", "0"), ("--only", "nope", "`exec`")] {
        let call = ["provider", "check", "fake", flag, value];
        let failure = world.fails(&call, "ERR_USAGE", 1);
        let cause = text(&failure, "cause");
        assert!(cause.contains(value) && cause.contains(says), "{failure:#}");
    }
    // The report has a place before anything is checked.
    let junit = [
        "provider",
        "check",
        "fake",
        "--only",
        "describe",
        "--junit",
        "/nonexistent/x.xml",
    ];
    let failed = world.run(&junit);
    assert_eq!((failed.code(), &*failed.stdout), (Some(1), ""));
    assert!(
        failed.stderr.contains("ERR_USAGE") && !failed.stderr.contains(": ok ("),
        "{failed:#?}"
    );
    for given in ["acme", "./none.so"] {
        let failure = world.fails(&["provider", "check", given], "ERR_PROVIDER_NOT_FOUND", 1);
        assert!(
            text(&failure, "cause").contains(given.trim_start_matches("./")),
            "{failure:#}"
        );
    }
}

#[test]
fn a_check_that_gets_a_signal_leaves_nothing() {
    for (way, signal, exit) in [
        (Way::Hosted, Signal::INT, 130),
        (Way::Program, Signal::TERM, 143),
    ] {
        let world = world(way);
        let temporary = world.env.root().join("temporary");
        fs::create_dir(&temporary).unwrap();
        let words = ["provider", "check", "acme", "--only", "crash.dropped"];
        world.fake().fault("provision", Fault::Hang, 1);
        let mut command = world.command(&with_json(&words));
        command.env("TMPDIR", &temporary);
        let check = Running::start(command);
        world.wait_for_call("provision");
        check.signal(signal);
        let failure = failed(&check.wait(), "ERR_INTERRUPTED", exit);
        assert_eq!(text(&failure, "next_step"), "alpine provider check acme");
        let cause = text(&failure, "cause");
        assert_eq!(cause, "interrupted after 0 checks");
        assert_eq!(fs::read_dir(&temporary).unwrap().count(), 0);
        assert_eq!(world.fake().sandboxes(), [], "a sandbox is left");
    }
}

#[test]
fn what_is_compiled_in_and_what_was_not_added_can_be_checked() {
    let world = World::new();
    let library = world.env.root().join("provider.so");
    fs::copy(alpine_fake_plugin::library(), &library).unwrap();
    protect(&library, 0o755);
    for given in ["local", "fake", shown(&library)] {
        let output = world.run(&["provider", "check", given, "--only", "describe"]);
        assert_eq!(output.code(), Some(0), "{given}: {output:#?}");
    }
}

/// A program that is killed with alpine may end nothing; a library's process outlives alpine for as long as that takes.
#[test]
fn a_command_ends_with_its_alpine() {
    for (way, signal) in [
        (Way::Hosted, Signal::INT),
        (Way::InProcess, Signal::INT),
        (Way::Program, Signal::INT),
        (Way::Hosted, Signal::KILL),
    ] {
        let world = world(way);
        let up = world.done(&world.up("one"));
        drop(alpine_testkit::FakeProvider::real(
            world.env.fake_directory(),
        ));
        let script = "trap '' INT; echo begun >&2; while :; do sleep 1000; done";
        let id = text(&up, "session_id");
        let mut running = Running::start(world.command(&["exec", &id, "--", "sh", "-c", script]));
        running.wait_for("begun");
        // The first is the command's, which does not care; two at once are one.
        wait_until("the end of alpine", || {
            running.signal(signal);
            running.has_ended()
        });
        let is_there = || {
            world
                .env
                .processes()
                .iter()
                .any(|one| one.command == "sleep 1000")
        };
        wait_until(&format!("its end ({way:?})"), || !is_there());
        world.done(&["down", &id]);
        world.assert_nothing_left();
    }
}
