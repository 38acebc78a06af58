//! The contract's tables of `up` and `down`: a test for every row.

use crate::support::{Running, World, document, failed, text, wait_until, with_json};
use alpine_ledger::SessionId;
use alpine_provider_api::ErrorKind;
use alpine_testkit::{Fault, KillPoint, json};
use rustix::process::Signal;
use serde_json::Value;

/// The session of a request id.
fn session_of(id: &str) -> String {
    SessionId::derive("tester", id).to_string()
}

/// An `up` that was killed while this method ran; the fault is gone afterwards.
fn killed_up(world: &World, id: &str, method: &str) -> String {
    world
        .fake()
        .fault(method, Fault::KillCaller(KillPoint::During), 1);
    let output = world.run(&with_json(&world.up(id)));
    assert_eq!(output.code(), None, "killed: {output:#?}");
    assert_eq!(output.stdout, "", "a killed process says nothing");
    session_of(id)
}

/// The program with these arguments, once it waits for another process.
fn waiting(world: &World, arguments: &[&str]) -> Running {
    let mut command = world.command(&with_json(arguments));
    command.env("ALPINE_LOG", "info");
    let running = Running::start(command);
    running.wait_for("waiting for another process");
    running
}

// `up`: "other repository, branch, provider or `--public`" and "`ready`" are tested in `main_job`; "interrupted, timed out,
// or its process died" in `crash` and `processes`.

#[test]
fn up_waits_for_the_same_request_that_runs_elsewhere() {
    let world = World::new();
    world.fake().fault("install", Fault::Delay { ms: 100 }, 1);
    let first = world.start(&with_json(&world.up("twice")));
    world.wait_for_call("install");
    first.signal(Signal::STOP);
    let mut impatient = world.up("twice");
    impatient.extend(["--timeout", "100ms"]);
    let failure = world.fails(&impatient, "ERR_OPERATION_CONFLICT", 2);
    assert_eq!(failure["retryable"], true, "{failure:#}");
    let second = waiting(&world, &world.up("twice"));
    first.signal(Signal::CONT);
    let first = document(&first.wait());
    let second = json(&second.wait());
    assert_eq!(first["reused"], false, "{first:#}");
    assert_eq!(second["reused"], true, "{second:#}");
    assert_eq!(failure["operation_id"], first["operation_id"]);
    for field in ["session_id", "operation_id", "ready_at", "opencode_url"] {
        assert_eq!(first[field], second[field], "{field}");
    }
    assert_eq!(world.fake().count("install"), 1);
    world.done(&["down", &text(&first, "session_id")]);
}

#[test]
fn up_takes_over_what_timed_out() {
    let world = World::new();
    world.fake().fault("install", Fault::Hang, 1);
    let mut hurried = world.up("late");
    hurried.extend(["--timeout", "2s"]);
    let failure = world.fails(&hurried, "ERR_TIMEOUT", 2);
    assert_eq!(failure["retryable"], true, "{failure:#}");
    assert_eq!(world.state(&session_of("late")), "installing");
    assert_eq!(world.status(&session_of("late"))["lease"], Value::Null);
    let up = world.done(&world.up("late"));
    assert_eq!(up["operation_id"], failure["operation_id"], "the same one");
    assert_eq!(world.fake().count("provision"), 1, "from the last step on");
    world.done(&["down", &session_of("late")]);
    world.assert_nothing_left();
}

#[test]
fn up_finishes_the_clean_up_of_a_failing_session_and_fails_as_before() {
    let world = World::new();
    let fault = Fault::Error(ErrorKind::InstallFailed);
    world.fake().fault("install", fault, 1);
    let session = killed_up(&world, "failing", "destroy");
    assert_eq!(world.state(&session), "failing");
    let failure = world.fails(&world.up("failing"), "ERR_INSTALL_FAILED", 2);
    assert!(
        text(&failure, "cause").contains("the last line"),
        "{failure:#}"
    );
    assert_eq!(world.state(&session), "failed");
    world.fails(&world.up("failing"), "ERR_INSTALL_FAILED", 2);
    world.assert_nothing_left();
}

#[test]
fn up_tells_a_failed_clean_up_again_until_down_has_mended_it() {
    let world = World::new();
    world
        .fake()
        .fault("sync_repo", Fault::Error(ErrorKind::Io), 1);
    world
        .fake()
        .fault("destroy", Fault::Error(ErrorKind::Io), 2);
    let first = world.fails(&world.up("uncleaned"), "ERR_REPO_SYNC_FAILED", 2);
    let session = session_of("uncleaned");
    assert_eq!(world.state(&session), "cleanup_failed");
    let again = world.fails(&world.up("uncleaned"), "ERR_REPO_SYNC_FAILED", 2);
    assert_eq!(again["operation_id"], first["operation_id"]);
    let next = text(&again, "next_step");
    assert!(
        next.starts_with(&format!("alpine down {session}")),
        "{next}"
    );
    world.fails(&["down", &session], "ERR_CLEANUP_FAILED", 2);
    assert_eq!(world.state(&session), "cleanup_failed");
    assert_eq!(world.done(&["down", &session])["state"], "failed");
    world.assert_nothing_left();
}

#[test]
fn up_refuses_a_request_whose_session_is_or_was_brought_down_and_names_a_new_one() {
    let error = |kind| Fault::Error(kind);
    let killed = || Fault::KillCaller(KillPoint::During);
    for (state, method, fault) in [
        ("stopping", "stop", Some(killed())),
        ("persisting", "persist", Some(killed())),
        ("stopped", "", None),
        ("stopped_unpersisted", "persist", Some(error(ErrorKind::Io))),
        (
            "persist_failed",
            "persist",
            Some(error(ErrorKind::TooLarge)),
        ),
        ("close_failed", "stop", Some(error(ErrorKind::Io))),
    ] {
        let world = World::new();
        let named = [&world.up(state)[..], &["--name", "mine"]].concat();
        let up = world.done(&named);
        let session = text(&up, "session_id");
        if let Some(fault) = fault {
            world.fake().fault(method, fault, 1);
        }
        world.run(&["down", &session]);
        assert_eq!(world.state(&session), state);
        let failure = world.fails(&named, "ERR_OPERATION_CONFLICT", 1);
        assert_eq!(failure["retryable"], false, "{failure:#}");
        assert!(failure["operation_id"].is_string(), "{failure:#}");
        let cause = text(&failure, "cause");
        assert!(cause.contains(&format!("`{state}`")), "{cause}");
        // An unfinished session keeps its name.
        let name = if state == "stopped" {
            " --name mine"
        } else {
            ""
        };
        let repo = world.repo_path();
        let next = format!(
            "alpine up {repo} --branch main --agent page --provider fake{name} --no-browser"
        );
        assert_eq!(text(&failure, "next_step"), next, "{state}");
        let output = world.paste(&format!("{next} --json"));
        let other = document(&output);
        assert_eq!(
            (&other["state"], &other["reused"]),
            (&"ready".into(), &false.into())
        );
        assert_eq!(world.state(&session), state, "nothing was touched");
        world.done(&["down", &text(&other, "session_id")]);
        world.done(&["down", &session, "--retry-persist"]);
        world.assert_nothing_left();
    }
}

// `down`: "`ready`, lease free or expired" is tested in `main_job`, "`stopping`, `persisting`" in `faults`.

#[test]
fn down_waits_for_another_down_and_gives_its_outcome() {
    let world = World::new();
    let session = world.ready("raced");
    world.fake().fault("capture", Fault::Delay { ms: 100 }, 1);
    let first = world.start(&["down", &session, "--json"]);
    world.wait_for_call("capture");
    first.signal(Signal::STOP);
    let impatient = ["down", &session, "--timeout", "100ms"];
    let failure = world.fails(&impatient, "ERR_OPERATION_CONFLICT", 2);
    assert_eq!(failure["retryable"], true, "{failure:#}");
    let second = waiting(&world, &["down", &session]);
    first.signal(Signal::CONT);
    assert_eq!(document(&first.wait()), json(&second.wait()));
    assert_eq!(world.fake().count("persist"), 1);
    world.assert_nothing_left();
}

#[test]
fn a_down_that_waits_fails_as_the_other_does() {
    let world = World::new();
    let session = world.ready("both-fail");
    world.fake().fault("stop", Fault::Delay { ms: 100 }, 1);
    world
        .fake()
        .fault("persist", Fault::Error(ErrorKind::Io), 1);
    let first = world.start(&["down", &session, "--json"]);
    world.wait_for_call("stop");
    first.signal(Signal::STOP);
    let second = waiting(&world, &["down", &session]);
    first.signal(Signal::CONT);
    let first = failed(&first.wait(), "ERR_PERSISTENCE_VERIFICATION_FAILED", 2);
    let second = second.wait();
    assert_eq!((json(&second), second.code()), (first, Some(2)));
    world.done(&["down", &session, "--retry-persist"]);
}

#[test]
fn down_refuses_to_touch_a_running_up_unless_it_cancels() {
    for method in ["provision", "sync_repo", "install", "start_agent"] {
        let world = World::new();
        world.fake().fault(method, Fault::Hang, 1);
        let up = world.start(&with_json(&world.up("held")));
        world.wait_for_call(method);
        let session = session_of("held");
        let failure = world.fails(&["down", &session], "ERR_OPERATION_CONFLICT", 2);
        let status = world.status(&session);
        assert_eq!(status["lease"]["operation_id"], failure["operation_id"]);
        assert_eq!(
            text(&failure, "next_step"),
            format!("alpine down {session} --cancel")
        );
        let down = world.done(&["down", &session, "--cancel"]);
        assert_eq!(down["state"], "failed", "{method}: {down:#}");
        let up = failed(&up.wait(), "ERR_INTERRUPTED", 1);
        assert_eq!(up["retryable"], false, "{up:#}");
        world.assert_nothing_left();
    }
}

#[test]
fn down_goes_on_when_ready_has_won_against_the_cancellation() {
    let world = World::new();
    let session = world.ready("won");
    let down = world.done(&["down", &session, "--cancel", "--discard", "nonsense"]);
    assert_eq!(
        down["state"], "stopped",
        "flags that do not apply: {down:#}"
    );
    world.assert_nothing_left();
}

#[test]
fn down_cleans_up_what_an_up_left_when_it_died() {
    for method in ["provision", "sync_repo", "install", "start_agent"] {
        let world = World::new();
        let session = killed_up(&world, "died", method);
        let down = world.done(&["down", &session]);
        assert_eq!(down["state"], "failed", "{method}: {down:#}");
        let again = world.done(&["down", &session]);
        assert_eq!(again["state"], "failed", "{method}: {again:#}");
        world.assert_nothing_left();
    }
}

#[test]
fn work_of_an_agent_is_saved_before_an_up_that_died_is_cleaned_up() {
    let world = World::with_limits("[agents.command]\nargv = ['an-agent']");
    let fault = Fault::KillCaller(KillPoint::Before);
    // In the probe: the agent has been started by then.
    world.fake().fault_in_up("inspect", fault, 1);
    let up = [&world.up("worked")[..], &["--agent", "command", "--json"]].concat();
    let output = world.run(&up);
    assert_eq!(output.code(), None, "{output:#?}");
    let sandbox = world.fake().sandboxes().remove(0);
    assert_eq!(sandbox.agent.as_deref(), Some("command"));
    world
        .fake()
        .workspace_write(&sandbox.id, "work.txt", b"an hour of work");
    let down = world.done(&["down", &session_of("worked")]);
    assert_eq!(down["state"], "failed", "{down:#}");
    assert_eq!(down["persistence_verified"], true, "{down:#}");
    let object = world.fake().objects().remove(0);
    let files = object.files.expect("a workspace");
    assert_eq!(files["work.txt"], b"an hour of work");
    world.assert_nothing_left();
}

#[test]
fn down_finishes_the_clean_up_of_a_failing_session() {
    let world = World::new();
    world
        .fake()
        .fault("install", Fault::Error(ErrorKind::InstallFailed), 1);
    let session = killed_up(&world, "failing", "destroy");
    let down = world.done(&["down", &session]);
    assert_eq!(down["state"], "failed", "{down:#}");
    world.assert_nothing_left();
}

#[test]
fn what_was_not_persisted_is_kept_until_it_is_or_is_given_up() {
    let world = World::new();
    let session = world.ready("unpersisted");
    let code = "ERR_PERSISTENCE_VERIFICATION_FAILED";
    for (method, fault) in [
        ("persist", Fault::Error(ErrorKind::Io)),
        ("read_object", Fault::WrongAnswer),
        ("read_object", Fault::WrongSnapshot),
    ] {
        world.fake().fault(method, fault, 1);
        let flag = ["--retry-persist"];
        let failure = world.fails(&[&["down", &session], &flag[..]].concat(), code, 2);
        assert_eq!(world.state(&session), "stopped_unpersisted", "{failure:#}");
        assert_eq!(world.fake().sandboxes().len(), 1, "its workspace is kept");
    }
    let refusal = world.fails(&["down", &session], code, 1);
    assert_eq!(refusal["retryable"], true, "{refusal:#}");
    let retry = format!("alpine down {session} --retry-persist");
    assert_eq!(text(&refusal, "next_step"), retry);
    world.fails(&["down", &session, "--discard", &"0".repeat(64)], code, 1);
    assert_eq!(world.fake().sandboxes().len(), 1, "the wrong digest");
    let down = world.done(&["down", &session, "--retry-persist"]);
    assert_eq!(down["state"], "stopped", "{down:#}");
    assert_eq!(down["persistence_verified"], true, "{down:#}");
    world.assert_nothing_left();
}

#[test]
fn a_workspace_is_given_up_only_with_its_digest() {
    let world = World::new();
    let session = world.ready("discarded");
    let code = "ERR_PERSISTENCE_VERIFICATION_FAILED";
    let sandbox = world.fake().sandboxes().remove(0);
    world.fake().workspace_write(&sandbox.id, "junk", b"junk");
    world
        .fake()
        .fault("persist", Fault::Error(ErrorKind::Io), 1);
    world.fails(&["down", &session], code, 2);
    let refusal = world.fails(&["down", &session], code, 1);
    let cause = text(&refusal, "cause");
    let (_, digest) = cause.rsplit_once("--discard ").expect("the digest");
    world.fake().allow_loss(&sandbox.id);
    let down = world.done(&["down", &session, "--discard", digest]);
    assert_eq!(down["state"], "failed", "{down:#}");
    assert_eq!(world.fake().objects(), []);
    world.assert_nothing_left();
}

#[test]
fn a_sandbox_that_could_not_be_stopped_is_tried_again() {
    let world = World::new();
    let session = world.ready("stubborn");
    world.fake().fault("stop", Fault::Error(ErrorKind::Io), 1);
    world.fails(&["down", &session], "ERR_CLOSE_FAILED", 2);
    assert_eq!(world.state(&session), "close_failed");
    let next = format!("alpine down {session}");
    assert_eq!(text(&world.status(&session), "next_step"), next);
    assert_eq!(world.done(&["down", &session])["state"], "stopped");
    world.assert_nothing_left();
}

#[test]
fn a_pending_destroy_is_finished_and_the_first_answer_given() {
    let world = World::new();
    let session = world.ready("pending");
    world
        .fake()
        .fault("destroy", Fault::Error(ErrorKind::Io), 1);
    let mut first = world.done(&["down", &session]);
    assert_eq!(first["state"], "stopped", "{first:#}");
    let status = world.status(&session);
    assert_eq!(status["destroy_pending"], true, "{status:#}");
    assert_eq!(status["last_error"]["error_code"], "ERR_CLEANUP_FAILED");
    assert_eq!(world.fake().sandboxes().len(), 1);
    assert_eq!(first["last_error"], status["last_error"], "{first:#}");
    let second = world.done(&["down", &session]);
    for field in ["last_error", "next_step"] {
        assert_eq!(second[field], Value::Null, "{second:#}");
        first[field] = Value::Null;
    }
    assert_eq!(first, second);
    let status = world.status(&session);
    assert_eq!(status["destroy_pending"], false, "{status:#}");
    assert_eq!(status["last_error"], Value::Null, "{status:#}");
    world.assert_nothing_left();
}

#[test]
fn a_workspace_that_is_gone_is_said_to_be_lost() {
    let world = World::new();
    for (id, lose_all) in [("workspace", false), ("sandbox", true)] {
        let session = world.ready(id);
        let sandbox = world.fake().sandboxes().remove(0).id;
        if lose_all {
            world.fake().lose_sandbox(&sandbox);
        } else {
            world.fake().lose_workspace(&sandbox);
        }
        let down = world.done(&["down", &session]);
        assert_eq!(down["state"], "stopped", "{id}: {down:#}");
        assert_eq!(down["workspace_snapshot"], Value::Null, "{id}: {down:#}");
        assert!(
            down.to_string().contains("workspace_lost"),
            "{id}: {down:#}"
        );
    }
    let said = world.run(&["down", &session_of("workspace")]);
    assert!(
        said.stdout
            .contains("the workspace was gone before it could be stored"),
        "{said:#?}"
    );
    world.assert_nothing_left();
}

#[test]
fn every_step_of_up_that_fails_ends_in_its_own_code_and_leaves_nothing() {
    for (method, code) in [
        ("provision", "ERR_SANDBOX_PROVISION_FAILED"),
        ("sync_repo", "ERR_REPO_SYNC_FAILED"),
        ("install", "ERR_INSTALL_FAILED"),
        ("start_agent", "ERR_AGENT_NOT_READY"),
        ("inspect", "ERR_AGENT_NOT_READY"),
    ] {
        let world = World::new();
        world
            .fake()
            .fault_in_up(method, Fault::Error(ErrorKind::Io), 1);
        let failure = world.fails(&world.up("fails"), code, 2);
        assert!(failure["operation_id"].is_string(), "{failure:#}");
        assert_eq!(world.state(&session_of("fails")), "failed", "{method}");
        world.assert_nothing_left();
    }
}

#[test]
fn what_passes_is_tried_three_times_and_no_more() {
    let world = World::new();
    let transient = || Fault::Transient(ErrorKind::Unreachable);
    world.fake().fault("install", transient(), 2);
    let session = world.ready("patient");
    assert_eq!(world.fake().count("install"), 3);
    world.fake().fault("install", transient(), 3);
    let failure = world.fails(&world.up("unlucky"), "ERR_INSTALL_FAILED", 2);
    assert_eq!(failure["retryable"], true, "{failure:#}");
    assert_eq!(world.fake().count("install"), 6);
    world.done(&["down", &session]);
    world.assert_nothing_left();
}

#[test]
fn a_lost_reply_is_no_second_side_effect() {
    for method in ["provision", "sync_repo", "install", "start_agent"] {
        let world = World::new();
        world.fake().fault(method, Fault::LostReply, 1);
        let session = world.ready("lost");
        for method in ["stop", "capture", "persist", "read_object", "destroy"] {
            world.fake().fault(method, Fault::LostReply, 1);
        }
        let down = world.done(&["down", &session]);
        assert_eq!(down["state"], "stopped", "{method}: {down:#}");
        assert_eq!(world.fake().objects().len(), 1, "{method}");
        wait_until("the sandbox is gone", || {
            world.fake().sandboxes().is_empty()
        });
    }
}

#[test]
fn lies_of_a_provider_are_found_out() {
    for (method, code) in [
        ("sync_repo", "ERR_REPO_SYNC_FAILED"),
        ("inspect", "ERR_REPO_SYNC_FAILED"),
    ] {
        let world = World::new();
        world.fake().fault_in_up(method, Fault::WrongAnswer, 1);
        let output = world.run(&with_json(&world.up("lied")));
        let failure = document(&output);
        assert_eq!(output.code(), Some(2), "{method}: {failure:#}");
        assert!(
            [code, "ERR_SANDBOX_PROVISION_FAILED"].contains(&text(&failure, "error_code").as_str()),
            "{method}: {failure:#}"
        );
        world.assert_nothing_left();
    }
    let world = World::new();
    let session = world.ready("lied-to");
    // It says that it has stopped the sandbox, or destroyed it, and has not.
    world.fake().fault("stop", Fault::WrongAnswer, 1);
    world.fake().fault("destroy", Fault::WrongAnswer, 1);
    let down = world.done(&["down", &session]);
    assert_eq!(down["state"], "stopped", "{down:#}");
    world.assert_nothing_left();
}
