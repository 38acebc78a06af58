//! The contract's table of `up`: a test for each row, and every step's failures.

use crate::common::*;
use alpine_ledger::{OperationState, State};
use alpine_lifecycle::*;
use alpine_provider_api::{BranchName, ErrorKind, ProviderError, RepoUrl, Secret};
use alpine_testkit::Fault;
use std::sync::Arc;
use std::time::Duration;

#[tokio::test]
async fn a_session_becomes_ready() {
    let world = world();
    let outcome = world.ready("one").await;
    assert_eq!(outcome.session.state, State::Ready);
    assert_eq!(outcome.session.session_id, id("one"));
    assert_eq!(outcome.session.target_commit_sha.as_deref(), Some(COMMIT));
    assert!(!outcome.reused && outcome.open_url.is_some() && outcome.session.ready_at.is_some());
    let steps: Vec<_> = outcome.step_ms.keys().map(String::as_str).collect();
    assert_eq!(
        steps,
        [
            "install",
            "probe",
            "provision",
            "resolve",
            "start_agent",
            "sync_repo"
        ]
    );
    world.assert_sound("one");
}

#[tokio::test]
async fn what_a_step_says_last_is_heard() {
    let mut world = world();
    let (sender, mut news) = tokio::sync::mpsc::unbounded_channel();
    world.engine.watch = Watch::new(sender);
    world.ready("one").await;
    let mut told = Vec::new();
    while let Ok(one) = news.try_recv() {
        told.push(one);
    }
    for step in [
        Step::Provision,
        Step::SyncRepo,
        Step::Install,
        Step::StartAgent,
    ] {
        let last = |one: &Progress| matches!(one, Progress::Moved { step: of, done: 1, .. } if *of == step);
        assert!(told.iter().any(last), "{step}: {told:?}");
    }
}

#[tokio::test]
async fn an_up_takes_at_most_twelve_commits() {
    let world = world();
    let before = world.engine.ledger.commits();
    world.ready("one").await;
    let commits = world.engine.ledger.commits() - before;
    assert!(commits <= 12, "{commits} commits");
}

#[tokio::test]
async fn another_repository_branch_provider_or_public_conflicts() {
    let world = world();
    world.ready("one").await;
    let repo = UpRequest {
        repo: RepoUrl::parse("/srv/other", std::path::Path::new("/")).unwrap(),
        ..up_request("one")
    };
    let branch = UpRequest {
        branch: BranchName::new("other").unwrap(),
        ..up_request("one")
    };
    let provider = UpRequest {
        provider: "other".to_owned(),
        ..up_request("one")
    };
    let public = UpRequest {
        public: true,
        ..up_request("one")
    };
    for request in [repo, branch, provider, public] {
        let failure = world.engine.up(request).await.unwrap_err();
        assert_eq!(
            (failure.code, failure.exit_code, failure.retryable),
            (ErrorCode::OperationConflict, 1, false)
        );
    }
    assert_eq!(world.fake.count("provision"), 1);
}

#[tokio::test]
async fn a_ready_session_is_answered_again_without_side_effects() {
    let world = world();
    let first = world.ready("one").await;
    let calls = world.fake.calls().len();
    let commits = world.engine.ledger.commits();
    let again = world.ready("one").await;
    assert!(again.reused);
    assert_eq!(
        (again.session, again.operation_id, again.step_ms),
        (first.session, first.operation_id, first.step_ms)
    );
    let new: Vec<_> = world
        .fake
        .calls()
        .into_iter()
        .skip(calls)
        .map(|call| call.method)
        .collect();
    assert_eq!(new, ["open_agent"], "a fresh link and nothing else");
    assert!(world.engine.ledger.commits() - commits <= 1);
}

#[tokio::test]
async fn a_running_request_is_waited_for_and_its_outcome_given() {
    let world = world();
    world.fake.fault("install", Fault::Delay { ms: 200 }, 1);
    let first = world
        .background_up("one", State::Installing, "install")
        .await;
    let second = world.engine.up(up_request("one")).await.unwrap();
    assert!(second.reused);
    assert_eq!(
        first.await.unwrap().unwrap().operation_id,
        second.operation_id
    );
    assert_eq!(world.fake.count("provision"), 1);
}

#[tokio::test]
async fn at_the_time_limit_a_waiting_request_conflicts_and_may_be_retried() {
    let world = world();
    world.fake.fault("install", Fault::Hang, 0);
    let first = world
        .background_up("one", State::Installing, "install")
        .await;
    let request = UpRequest {
        timeout: Some(Duration::from_millis(80)),
        ..up_request("one")
    };
    let failure = world.engine.up(request).await.unwrap_err();
    assert_eq!(
        (failure.code, failure.exit_code, failure.retryable),
        (ErrorCode::OperationConflict, 2, true)
    );
    assert!(failure.operation_id.is_some());
    first.abort();
}

#[tokio::test]
async fn a_dead_holders_operation_is_taken_over_from_its_last_step() {
    for (method, state) in [
        ("provision", State::Provisioning),
        ("sync_repo", State::RepoSyncing),
        ("install", State::Installing),
        ("start_agent", State::Installing),
    ] {
        let world = world();
        world.fake.fault(method, Fault::LostReplyHang, 1);
        world.crashed_up("one", state, method).await;
        let dead = world.operations("one")[0].clone();
        assert_eq!(dead.state, OperationState::Running, "{method}");
        let outcome = world.ready("one").await;
        assert_eq!(outcome.operation_id, dead.operation_id.as_str(), "{method}");
        assert!(!outcome.reused);
        let repeated = ["provision", "sync_repo", "install"].map(|name| world.fake.count(name));
        let expected = match method {
            "provision" => [2, 1, 1],
            "sync_repo" => [1, 2, 1],
            "install" => [1, 1, 2],
            _ => [1, 1, 1],
        };
        assert_eq!(
            repeated, expected,
            "{method}: steps that were recorded are not repeated"
        );
        world.assert_sound("one");
    }
}

#[tokio::test]
async fn a_sandbox_that_died_with_its_holder_is_made_again() {
    let world = world();
    world.fake.fault("start_agent", Fault::Hang, 1);
    world
        .crashed_up("one", State::Installing, "start_agent")
        .await;
    let sandbox = world.fake.sandboxes()[0].id.clone();
    world.fake.lose_sandbox(&sandbox);
    world.ready("one").await;
    assert_eq!(world.fake.count("sync_repo"), 2);
    world.assert_sound("one");
}

#[tokio::test]
async fn an_interrupted_request_is_carried_on_by_its_id() {
    for (signal, exit) in [(Signal::Int, 130), (Signal::Term, 143)] {
        let mut world = world();
        let (raise, receiver) = tokio::sync::watch::channel(None);
        world.fake.fault("install", Fault::Hang, 1);
        world.engine.interrupt = Interrupt::new(receiver);
        let task = world
            .background_up("one", State::Installing, "install")
            .await;
        raise.send(Some(signal)).unwrap();
        let failure = task.await.unwrap().unwrap_err();
        assert_eq!(
            (failure.code, failure.exit_code, failure.retryable),
            (ErrorCode::Interrupted, exit, true)
        );
        assert!(
            failure.next_step.contains("--client-request-id one"),
            "{}",
            failure.next_step
        );
        assert_eq!(world.session("one").state, State::Installing);
        assert_eq!(
            world.operations("one")[0].state,
            OperationState::Interrupted
        );
        world.engine.interrupt = Interrupt::never();
        let outcome = world.ready("one").await;
        assert_eq!(Some(outcome.operation_id), failure.operation_id);
        world.assert_sound("one");
    }
}

#[tokio::test]
async fn a_time_limit_records_where_it_stands() {
    for method in [
        "provision",
        "sync_repo",
        "install",
        "start_agent",
        "inspect",
    ] {
        let mut world = world();
        world.engine.limits.provision = Duration::from_millis(50);
        world.engine.limits.sync = Duration::from_millis(50);
        world.engine.limits.install = Duration::from_millis(50);
        world.engine.limits.probe = Duration::from_millis(50);
        world.fake.fault_in_up(method, Fault::Hang, 1);
        let request = if method == "start_agent" {
            UpRequest {
                timeout: Some(Duration::from_millis(400)),
                ..up_request("one")
            }
        } else {
            up_request("one")
        };
        let failure = world.engine.up(request).await.unwrap_err();
        assert_eq!(
            (failure.code, failure.exit_code, failure.retryable),
            (ErrorCode::Timeout, 2, true),
            "{method}: {failure:?}"
        );
        assert!(failure.operation_id.is_some());
        let limits = &mut world.engine.limits;
        for limit in [
            &mut limits.provision,
            &mut limits.sync,
            &mut limits.install,
            &mut limits.probe,
        ] {
            *limit = Duration::from_secs(5);
        }
        assert_eq!(
            Some(world.ready("one").await.operation_id),
            failure.operation_id,
            "{method}"
        );
        world.assert_sound("one");
    }
}

#[tokio::test]
async fn a_remote_that_never_answers_is_a_time_limit() {
    let mut world = world();
    world.engine.limits.sync = Duration::from_millis(50);
    world.remote.failures.lock().unwrap().push_back(None);
    assert_eq!(
        world.engine.up(up_request("one")).await.unwrap_err().code,
        ErrorCode::Timeout
    );
    assert_eq!(world.session("one").state, State::Requested);
    world.engine.limits.sync = Duration::from_secs(5);
    world.ready("one").await;
}

#[tokio::test]
async fn failing_is_finished_then_answered_as_failed() {
    let world = world();
    world
        .fake
        .fault("install", Fault::Error(ErrorKind::InstallFailed), 0);
    world.fake.fault("destroy", Fault::Hang, 1);
    let task = world.background_up("one", State::Failing, "destroy").await;
    task.abort();
    let _ = task.await;
    let failure = world.engine.up(up_request("one")).await.unwrap_err();
    assert_eq!(
        (failure.code, failure.exit_code),
        (ErrorCode::InstallFailed, 2)
    );
    assert_eq!(world.session("one").state, State::Failed);
    world.assert_sound("one");
}

#[tokio::test]
async fn a_failed_request_answers_its_recorded_error_and_never_exits_zero() {
    let world = world();
    world
        .fake
        .fault("install", Fault::Error(ErrorKind::InstallFailed), 1);
    let first = world.engine.up(up_request("one")).await.unwrap_err();
    let calls = world.fake.calls().len();
    let again = world.engine.up(up_request("one")).await.unwrap_err();
    assert_eq!(
        (again.code, again.exit_code, &again.cause),
        (first.code, 2, &first.cause)
    );
    assert_eq!(again.operation_id, first.operation_id);
    assert_eq!(again.next_step, ANEW);
    assert!(first.settled && again.settled);
    assert_eq!(world.fake.calls().len(), calls, "a replay calls nothing");
    world.assert_sound("one");
}

#[tokio::test]
async fn a_failed_clean_up_answers_the_error_and_names_down() {
    let world = world();
    world
        .fake
        .fault("install", Fault::Error(ErrorKind::InstallFailed), 1);
    world.fake.fault("destroy", Fault::Error(ErrorKind::Io), 1);
    let first = world.engine.up(up_request("one")).await.unwrap_err();
    assert_eq!(
        (first.code, world.session("one").state),
        (ErrorCode::InstallFailed, State::CleanupFailed)
    );
    let again = world.engine.up(up_request("one")).await.unwrap_err();
    assert_eq!((again.code, again.exit_code), (ErrorCode::InstallFailed, 2));
    assert!(
        again
            .next_step
            .starts_with(&format!("alpine down {} && alpine up ", id("one"))),
        "{}",
        again.next_step
    );
    assert_eq!(world.down("one").await.unwrap().state, State::Failed);
    world.assert_sound("one");
}

#[tokio::test]
async fn a_session_that_is_being_or_was_brought_down_conflicts() {
    let world = world();
    world.ready("one").await;
    world.fake.fault("persist", Fault::Error(ErrorKind::Io), 1);
    world.down("one").await.unwrap_err();
    assert_eq!(world.session("one").state, State::StoppedUnpersisted);
    let refused = |failure: Failure| {
        assert_eq!(
            (failure.code, failure.exit_code, failure.retryable),
            (ErrorCode::OperationConflict, 1, false)
        );
        assert_eq!(failure.next_step, ANEW);
    };
    refused(world.engine.up(up_request("one")).await.unwrap_err());
    world
        .engine
        .down(DownRequest {
            retry_persist: true,
            ..down_request(id("one").as_str())
        })
        .await
        .unwrap();
    assert_eq!(world.session("one").state, State::Stopped);
    refused(world.engine.up(up_request("one")).await.unwrap_err());
}

#[tokio::test]
async fn transient_failures_are_tried_again_three_times_at_most_and_others_never() {
    for (method, code) in [
        ("provision", ErrorCode::SandboxProvisionFailed),
        ("sync_repo", ErrorCode::RepoUnreachable),
        ("install", ErrorCode::InstallFailed),
        ("start_agent", ErrorCode::AgentNotReady),
        ("inspect", ErrorCode::AgentNotReady),
    ] {
        let passing = world();
        passing
            .fake
            .fault_in_up(method, Fault::Transient(ErrorKind::Unreachable), 2);
        passing.ready("one").await;
        passing.assert_sound("one");

        let lasting = world();
        lasting
            .fake
            .fault_in_up(method, Fault::Transient(ErrorKind::Unreachable), 3);
        let failure = lasting.engine.up(up_request("one")).await.unwrap_err();
        assert_eq!((failure.code, failure.retryable), (code, true), "{method}");
        lasting.assert_sound("one");

        let hopeless = world();
        hopeless
            .fake
            .fault_in_up(method, Fault::Error(ErrorKind::Io), 1);
        let failure = hopeless.engine.up(up_request("one")).await.unwrap_err();
        assert!(!failure.retryable, "{method}");
        assert_eq!(hopeless.session("one").state, State::Failed, "{method}");
        hopeless.assert_sound("one");
    }
}

#[tokio::test]
async fn a_provider_that_died_or_panicked_is_asked_again_and_believed_after_a_few_times() {
    for method in [
        "provision",
        "sync_repo",
        "install",
        "start_agent",
        "inspect",
    ] {
        for kind in [ErrorKind::Crashed, ErrorKind::Internal] {
            let crashed = Fault::Error(kind);
            let passing = world();
            passing.fake.fault_in_up(method, crashed.clone(), 2);
            passing.ready("one").await;
            passing.assert_sound("one");

            let lasting = world();
            // Each look at what became of a try that died is an `inspect` too.
            let times = if method == "inspect" { 5 } else { 3 };
            lasting.fake.fault_in_up(method, crashed, times);
            let failure = lasting.engine.up(up_request("one")).await.unwrap_err();
            assert_eq!(
                (failure.code, failure.exit_code, failure.retryable),
                (ErrorCode::ProviderCrashed, 2, true),
                "{method} {kind:?}"
            );
            lasting.assert_sound("one");
        }
    }
}

#[tokio::test]
async fn a_provider_that_died_is_asked_how_its_sandbox_is_before_it_is_asked_again() {
    let crashed = Fault::Error(ErrorKind::Crashed);
    for method in ["provision", "sync_repo", "install", "start_agent"] {
        let world = world();
        world.fake.fault(method, crashed.clone(), 1);
        world.ready("one").await;
        world.assert_sound("one");
        let calls = world.fake.calls();
        let died = calls.iter().position(|call| call.fault.is_some()).unwrap();
        let next = &calls[died + 1..died + 3];
        let next: Vec<_> = next.iter().map(|call| call.method.as_str()).collect();
        // What `provision` is asked with comes before it.
        let again = if method == "provision" {
            "describe"
        } else {
            method
        };
        assert_eq!(next, ["inspect", again]);
    }
    for method in ["stop", "capture", "persist", "destroy"] {
        let world = world();
        world.ready("one").await;
        world.fake.fault(method, crashed.clone(), 1);
        world.down("one").await.unwrap();
        world.assert_sound("one");
        let calls = world.fake.calls();
        let died = calls.iter().position(|call| call.fault.is_some()).unwrap();
        let next = &calls[died + 1..died + 3];
        let next: Vec<_> = next.iter().map(|call| call.method.as_str()).collect();
        assert_eq!(next, ["inspect", method]);
    }
}

#[tokio::test]
async fn a_sandbox_that_died_with_its_provider_is_made_anew_within_the_same_up() {
    for method in ["sync_repo", "install", "start_agent", "inspect"] {
        let mut world = world();
        let fake = world.fake.clone();
        // Asked while the engine waits for its next try.
        world.engine.env.random = Arc::new(move || {
            for sandbox in fake.sandboxes() {
                fake.lose_sandbox(&sandbox.id);
            }
            500
        });
        let crashed = Fault::Error(ErrorKind::Crashed);
        world.fake.fault_in_up(method, crashed, 1);
        let outcome = world.engine.up(up_request("one")).await;
        let outcome = outcome.unwrap_or_else(|failure| panic!("{method}: {failure:?}"));
        assert!(outcome.session.opencode_url.is_some());
        world.assert_sound("one");
        assert_eq!(world.fake.count("provision"), 2, "{method}");
    }
}

#[tokio::test]
async fn lost_replies_partial_work_and_wrong_answers_do_no_harm() {
    for method in [
        "provision",
        "sync_repo",
        "install",
        "start_agent",
        "inspect",
    ] {
        for fault in [Fault::LostReply, Fault::Partial] {
            let world = world();
            world.fake.fault_in_up(method, fault.clone(), 1);
            world
                .engine
                .up(up_request("one"))
                .await
                .unwrap_or_else(|failure| panic!("{method} {fault:?}: {failure:?}"));
            world.assert_sound("one");
        }
    }
    for method in ["sync_repo", "inspect"] {
        let world = world();
        world.fake.fault(method, Fault::WrongAnswer, 0);
        world.engine.up(up_request("one")).await.unwrap_err();
        assert!(
            matches!(
                world.session("one").state,
                State::Failed | State::CleanupFailed
            ),
            "{method}"
        );
        world.fake.clear_faults();
        assert_eq!(world.down("one").await.unwrap().state, State::Failed);
        world.assert_sound("one");
    }
}

#[tokio::test]
async fn what_the_remote_says_becomes_the_contracts_codes() {
    for (kind, code, exit) in [
        (ErrorKind::AuthRejected, "ERR_REPO_AUTH_REJECTED", 1),
        (ErrorKind::BranchNotFound, "ERR_BRANCH_NOT_FOUND", 1),
        (ErrorKind::Unreachable, "ERR_REPO_UNREACHABLE", 2),
        (ErrorKind::InvalidArgument, "ERR_INVALID_REPO_URL", 1),
    ] {
        let world = world();
        world
            .remote
            .failures
            .lock()
            .unwrap()
            .push_back(Some(ProviderError::new(kind, "said the remote")));
        let failure = world.engine.up(up_request("one")).await.unwrap_err();
        assert_eq!((failure.code.as_str(), failure.exit_code), (code, exit));
        assert!(!failure.next_step.is_empty());
        assert_eq!(world.session("one").state, State::Failed);
    }
}

#[tokio::test]
async fn an_up_that_fails_after_its_agent_started_saves_the_workspace_first() {
    let world = world();
    world
        .fake
        .fault_in_up("inspect", Fault::Error(ErrorKind::Io), 1);
    world.engine.up(up_request("one")).await.unwrap_err();
    let session = world.session("one");
    assert_eq!(session.state, State::Failed);
    assert!(session.persistence_verified);
    let object = world.fake.objects().into_iter().next().unwrap();
    assert_eq!(
        session.durable_object_id.as_deref(),
        Some(object.id.as_str())
    );
    assert!(object.read_back && object.files.is_some());
    world.assert_sound("one");
}

#[tokio::test]
async fn a_thousand_requests_with_one_id_are_one_session() {
    let world = world();
    world.fake.fault("install", Fault::Delay { ms: 100 }, 1);
    let tasks: Vec<_> = (0..100)
        .map(|_| {
            let engine = world.engine.clone();
            tokio::spawn(async move { engine.up(up_request("one")).await })
        })
        .collect();
    let mut operations = std::collections::BTreeSet::new();
    for task in tasks {
        operations.insert(task.await.unwrap().unwrap().operation_id);
    }
    assert_eq!((operations.len(), world.fake.count("provision")), (1, 1));
}

#[tokio::test]
async fn a_request_that_is_carried_on_has_to_bring_its_variables_again() {
    let world = world();
    let secret = || Secret::new("hunter2hunter2".to_owned());
    let request = || UpRequest {
        env: [
            ("SPELLED".to_owned(), secret()),
            ("TOKEN".to_owned(), secret()),
        ]
        .into(),
        spelled: ["SPELLED".to_owned()].into(),
        no_browser: true,
        ..up_request("one")
    };
    let same = " --allow-unsandboxed --no-browser --env 'SPELLED=…' --env TOKEN";
    world.fake.fault("install", Fault::Hang, 1);
    let limited = UpRequest {
        timeout: Some(Duration::from_secs(1)),
        ..request()
    };
    let failure = world.engine.up(limited).await.unwrap_err();
    // Not the limit that has just passed.
    assert!(failure.next_step.ends_with(same), "{}", failure.next_step);
    let refused = world.engine.up(up_request("one")).await.unwrap_err();
    assert_eq!((refused.code, refused.exit_code), (ErrorCode::Usage, 1));
    assert!(refused.cause.contains("`SPELLED`"), "{}", refused.cause);
    let limited = same.replace("--env 'S", "--timeout 1s --env 'S");
    assert!(
        refused.next_step.ends_with(&limited),
        "{}",
        refused.next_step
    );
    assert_eq!(
        world.state("one"),
        Some(State::Installing),
        "nothing was touched"
    );
    world.engine.up(request()).await.unwrap();
    let again = world.engine.up(up_request("one")).await.unwrap();
    assert!(
        again.reused,
        "a session that is ready is answered without them"
    );
}

#[tokio::test]
async fn what_a_log_said_is_repeated_in_short() {
    let world = world();
    let lines = vec!["x\u{1b}[2J\u{7}".repeat(100_000), "last words".to_owned()];
    let error = ProviderError::new(ErrorKind::Io, "m".repeat(100_000)).log_tail(lines);
    world.remote.failures.lock().unwrap().push_back(Some(error));
    let failure = world.engine.up(up_request("one")).await.unwrap_err();
    assert!(
        failure.cause.len() < 20_000,
        "{} bytes",
        failure.cause.len()
    );
    assert!(failure.cause.ends_with("\n  last words") && !failure.cause.contains('\u{1b}'));
}
