//! What a failure says to do next, pasted into a shell: it asks for what was asked for before.

use crate::support::{Running, World, document, failed, text};
use alpine_ledger::{NewSession, SessionId};
use alpine_provider_api::ErrorKind;
use alpine_testkit::Fault;
use serde_json::Value;

/// All that an `up` can choose of its session, beside repository and branch; nothing of it is the default here.
const CHOICES: [&str; 16] = [
    "--provider",
    "fake",
    "--agent",
    "none",
    "--name",
    "chosen",
    "--env",
    "CHOSEN",
    "--env",
    "SPELLED=out",
    "--timeout",
    "10m",
    "--public",
    "--no-install",
    "--allow-unsandboxed",
    "--json",
];

/// What was asked for when this session was made.
fn asked(world: &World, session: &str) -> NewSession {
    let id = SessionId::from_recorded(session);
    let session = world.ledger(|snapshot| snapshot.session(&id));
    session.expect("a session").new
}

/// Pastes what a failed `up` said; the session that is ready then, and what was asked for, but for its id.
#[track_caller]
fn pasted(world: &World, failure: &Value) -> (String, NewSession) {
    let told = text(failure, "next_step");
    assert!(told.contains(" --no-browser "), "{told}");
    // A value that was spelled out is kept nowhere: the command says so, rather than to take another.
    let unkept = world.paste(&format!("export CHOSEN=value SPELLED=other\n{told} --json"));
    let refused = failed(&unkept, "ERR_USAGE", 1);
    assert!(text(&refused, "cause").contains("SPELLED"), "{refused:#}");
    let next = told.replace("SPELLED=…", "SPELLED=out");
    let output = world.paste(&format!("export CHOSEN=value\n{next} --json"));
    assert_eq!(output.code(), Some(0), "{next}: {output:#?}");
    let up = document(&output);
    assert_eq!(up["reused"], false, "{next}: {up:#}");
    let session = text(&up, "session_id");
    let asked = NewSession {
        client_request_id: String::new(),
        ..asked(world, &session)
    };
    (session, asked)
}

#[test]
fn the_same_up_under_a_new_id_keeps_every_choice() {
    let world = World::configured("[ledger]\nlock_timeout = '60s'\n");
    world.repo.git(&["branch", "side"]);
    let run = |arguments: &[&str]| {
        let mut command = world.command(arguments);
        command.env("CHOSEN", "value");
        command
    };
    let up = [&world.up("first")[..], &CHOICES].concat();
    let fails = |up: &[&str], code: &str| failed(&world.env.run(&mut run(up)), code, 1);

    let fault = Fault::Error(ErrorKind::IsolationUnavailable);
    world.fake().fault("provision", fault, 1);
    let failure = fails(&up, "ERR_SANDBOX_UNAVAILABLE");
    let first = SessionId::derive("tester", "first");
    let wanted = NewSession {
        client_request_id: String::new(),
        ..asked(&world, first.as_str())
    };
    let (session, found) = pasted(&world, &failure);
    assert_eq!(found, wanted, "after a step that failed");
    world.done(&["down", &session]);

    let (named, found) = pasted(&world, &fails(&up, "ERR_SANDBOX_UNAVAILABLE"));
    assert_eq!(found, wanted, "after the same failure again");

    let mut other = up.clone();
    other[3] = "side";
    let side = NewSession {
        branch: "side".to_owned(),
        ..wanted.clone()
    };
    let nameless = NewSession {
        name: None,
        ..side.clone()
    };
    let (session, found) = pasted(&world, &fails(&other, "ERR_OPERATION_CONFLICT"));
    assert_eq!(found, nameless, "an unfinished session bears the name");
    world.done(&["down", &session]);
    world.done(&["down", &named]);
    let (session, found) = pasted(&world, &fails(&other, "ERR_OPERATION_CONFLICT"));
    assert_eq!(found, side, "after another request with the id");
    world.done(&["down", &session]);

    world.fake().fault("sync_repo", Fault::Hang, 1);
    let calls = world.fake().count("sync_repo");
    let cancelled = [&world.up("second")[..], &CHOICES].concat();
    let running = Running::start(run(&cancelled));
    world.wait_for_calls("sync_repo", calls + 1);
    world.done(&["down", "chosen", "--cancel"]);
    let failure = failed(&running.wait(), "ERR_INTERRUPTED", 1);
    let (session, found) = pasted(&world, &failure);
    assert_eq!(found, wanted, "after `down --cancel`");
    world.done(&["down", &session]);
    world.assert_nothing_left();
}

#[test]
fn what_needs_a_sandbox_says_the_same_of_a_session_that_has_none() {
    let world = World::new();
    let fault = Fault::Error(ErrorKind::InstallFailed);
    world.fake().fault("install", fault, 1);
    world.fails(&world.up("failed"), "ERR_INSTALL_FAILED", 2);
    let failed = SessionId::derive("tester", "failed").to_string();
    let stopped = world.ready("stopped");
    world.done(&["down", &stopped]);
    for (session, state) in [(&failed, "failed"), (&stopped, "stopped")] {
        let wanted = format!("session `{session}` is `{state}`, not `ready`");
        for command in [
            &["logs", session][..],
            &["logs", session, "--step", "install"],
            &["logs", session, "--follow"],
            &["open", session],
        ] {
            let failure = world.fails(command, "ERR_OPERATION_CONFLICT", 1);
            let cause = text(&failure, "cause");
            assert!(cause.starts_with(&wanted), "{command:?}: {cause}");
            let operation = &world.status(session)["operation_id"];
            assert_eq!(&failure["operation_id"], operation, "{command:?}");
            let next = format!("alpine status {session}");
            assert_eq!(text(&failure, "next_step"), next, "{command:?}");
        }
        let exec = world.run(&["exec", session, "--", "true"]);
        assert!(exec.stderr.contains(&wanted), "{exec:#?}");
    }
    let failure = world.fails(&["logs", &failed], "ERR_OPERATION_CONFLICT", 1);
    let told = text(&failure, "cause");
    assert!(told.contains("last lines of the install step"), "{told}");
    let status = world.paste(&text(&failure, "next_step"));
    assert!(status.stdout.contains("the last line"), "{status:#?}");
    let failure = world.fails(&["logs", &stopped], "ERR_OPERATION_CONFLICT", 1);
    let told = text(&failure, "cause");
    assert!(!told.contains("install step"), "{told}");
}
