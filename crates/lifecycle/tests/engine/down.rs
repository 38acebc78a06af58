//! The contract's table of `down`: a test for each row, and every step's failures.

use crate::common::*;
use alpine_ledger::{OperationState, State};
use alpine_lifecycle::*;
use alpine_provider_api::ErrorKind;
use alpine_testkit::Fault;
use std::time::Duration;

fn retry(request: &str) -> DownRequest {
    DownRequest {
        retry_persist: true,
        ..down_request(id(request).as_str())
    }
}

fn payload(world: &World) -> serde_json::Value {
    let latest = world
        .fake
        .objects()
        .into_iter()
        .max_by_key(|object| object.generation)
        .unwrap();
    serde_json::from_str(&latest.payload).unwrap()
}

#[tokio::test]
async fn a_ready_session_is_stopped_captured_persisted_verified_and_destroyed() {
    let world = world();
    world.ready("one").await;
    let sandbox = world.session("one").sandbox_id;
    world
        .fake
        .workspace_write(&sandbox, "work.txt", b"precious");
    let outcome = world.down("one").await.unwrap();
    assert_eq!(
        (
            outcome.state,
            outcome.persistence_verified,
            &outcome.next_step
        ),
        (State::Stopped, true, &None)
    );
    let object = world.fake.objects().into_iter().next().unwrap();
    assert_eq!(
        outcome.durable_object_id.as_deref(),
        Some(object.id.as_str())
    );
    assert_eq!(object.files.unwrap()["work.txt"], b"precious");
    let order: Vec<_> = world
        .fake
        .calls()
        .into_iter()
        .map(|call| call.method)
        .filter(|method| method != "inspect" && method != "open_agent")
        .collect();
    assert_eq!(
        order,
        [
            "describe",
            "provision",
            "sync_repo",
            "install",
            "start_agent",
            "stop",
            "capture",
            "persist",
            "read_object",
            "destroy"
        ]
    );
    world.assert_sound("one");
}

#[tokio::test]
async fn payload_receipt_session_and_output_bear_one_persisted_at() {
    let world = world();
    world.ready("one").await;
    let outcome = world.down("one").await.unwrap();
    let receipt = world
        .engine
        .ledger
        .read(|snapshot| snapshot.receipt(&id("one")))
        .unwrap()
        .unwrap();
    let at = outcome.persisted_at.unwrap();
    assert_eq!(
        (world.session("one").persisted_at, receipt.persisted_at),
        (Some(at), at)
    );
    let payload = payload(&world);
    assert_eq!(payload["persisted_at"], at.to_string());
    assert_eq!(
        (
            payload["state"].as_str(),
            payload["schema_version"].as_str()
        ),
        (Some("stopped"), Some("v1"))
    );
    assert_eq!(payload["session_id"], id("one").as_str());
}

#[tokio::test]
async fn a_stopped_session_gives_the_first_answer_again() {
    let world = world();
    world.ready("one").await;
    let first = world.down("one").await.unwrap();
    let calls = world.fake.calls().len();
    assert_eq!(world.down("one").await.unwrap(), first);
    assert_only_looked(&world, calls);
}

#[tokio::test]
async fn another_down_is_waited_for_and_its_outcome_given() {
    let world = world();
    world.ready("one").await;
    world.fake.fault("capture", Fault::Delay { ms: 200 }, 1);
    let engine = world.engine.clone();
    let first = tokio::spawn(async move { engine.down(down_request(id("one").as_str())).await });
    world.until(|| world.fake.count("capture") > 0).await;
    let second = world.down("one").await.unwrap();
    assert_eq!(first.await.unwrap().unwrap(), second);
    assert_eq!(world.fake.count("persist"), 1);
}

#[tokio::test]
async fn another_downs_failure_is_its_outcome_too() {
    let world = world();
    world.ready("one").await;
    world.fake.fault("capture", Fault::Delay { ms: 200 }, 1);
    world.fake.fault("persist", Fault::Error(ErrorKind::Io), 1);
    let engine = world.engine.clone();
    let first = tokio::spawn(async move { engine.down(down_request(id("one").as_str())).await });
    world.until(|| world.fake.count("capture") > 0).await;
    let second = world.down("one").await.unwrap_err();
    let first = first.await.unwrap().unwrap_err();
    assert_eq!(
        (first.code, &first.cause, first.exit_code),
        (second.code, &second.cause, second.exit_code)
    );
}

#[tokio::test]
async fn at_the_time_limit_a_waiting_down_conflicts_and_may_be_retried() {
    let world = world();
    world.ready("one").await;
    world.fake.fault("stop", Fault::Hang, 0);
    let engine = world.engine.clone();
    let first = tokio::spawn(async move { engine.down(down_request(id("one").as_str())).await });
    world.until(|| world.fake.count("stop") > 0).await;
    let request = DownRequest {
        timeout: Some(Duration::from_millis(50)),
        ..down_request(id("one").as_str())
    };
    let failure = world.engine.down(request).await.unwrap_err();
    assert_eq!(
        (failure.code, failure.exit_code, failure.retryable),
        (ErrorCode::OperationConflict, 2, true)
    );
    first.abort();
}

#[tokio::test]
async fn a_down_that_was_killed_anywhere_is_carried_on() {
    for (method, state) in [
        ("stop", State::Stopping),
        ("capture", State::Persisting),
        ("persist", State::Persisting),
        ("read_object", State::Persisting),
        ("destroy", State::Stopped),
    ] {
        for fault in [Fault::Hang, Fault::LostReplyHang] {
            let world = world();
            world.ready("one").await;
            world.fake.fault(method, fault.clone(), 1);
            let engine = world.engine.clone();
            let task =
                tokio::spawn(async move { engine.down(down_request(id("one").as_str())).await });
            world
                .until(|| world.fake.count(method) > 0 && world.state("one") == Some(state))
                .await;
            task.abort();
            let _ = task.await;
            let recorded = world
                .engine
                .ledger
                .read(|snapshot| snapshot.persist_attempt(&id("one")))
                .unwrap();
            let outcome = world.down("one").await.unwrap();
            assert_eq!(
                (outcome.state, outcome.persistence_verified),
                (State::Stopped, true),
                "{method} {fault:?}"
            );
            if let Some(recorded) = recorded {
                assert_eq!(
                    outcome.persisted_at,
                    Some(recorded.persisted_at),
                    "{method}: the time of the attempt stays"
                );
                assert_eq!(
                    world.fake.objects().len(),
                    1,
                    "{method}: a repeat sends the same bytes"
                );
            }
            let downs = world
                .operations("one")
                .into_iter()
                .filter(|operation| operation.action == alpine_ledger::Action::Down);
            assert_eq!(downs.count(), 1, "{method}: it is the same operation");
            world.assert_sound("one");
        }
    }
}

#[tokio::test]
async fn an_up_that_is_held_is_left_alone_without_cancel() {
    let world = world();
    world.fake.fault("install", Fault::Hang, 1);
    let up = world
        .background_up("one", State::Installing, "install")
        .await;
    let failure = world.down("one").await.unwrap_err();
    assert_eq!(
        (failure.code, failure.exit_code, failure.retryable),
        (ErrorCode::OperationConflict, 2, true)
    );
    assert_eq!(
        failure.operation_id.as_deref(),
        Some(world.operations("one")[0].operation_id.as_str())
    );
    assert_eq!(
        failure.next_step,
        format!("alpine down {} --cancel", id("one"))
    );
    up.abort();
}

#[tokio::test]
async fn cancel_ends_the_up_and_cleans_up() {
    for (method, state) in [
        ("provision", State::Provisioning),
        ("sync_repo", State::RepoSyncing),
        ("install", State::Installing),
    ] {
        let world = world();
        world.fake.fault(method, Fault::Hang, 1);
        let up = world.background_up("one", state, method).await;
        let request = DownRequest {
            cancel: true,
            ..down_request(id("one").as_str())
        };
        let outcome = world.engine.down(request).await.unwrap();
        assert_eq!(outcome.state, State::Failed);
        let failure = up.await.unwrap().unwrap_err();
        assert_eq!(failure.next_step, ANEW);
        assert_eq!(
            (failure.code, failure.exit_code, failure.retryable),
            (ErrorCode::Interrupted, 1, false)
        );
        let replayed = world.engine.up(up_request("one")).await.unwrap_err();
        assert_eq!(
            (replayed.code, replayed.exit_code, replayed.cause),
            (ErrorCode::Interrupted, 1, failure.cause)
        );
        world.assert_sound("one");
    }
}

#[tokio::test]
async fn cancel_after_ready_goes_on_as_from_ready() {
    let world = world();
    world.ready("one").await;
    let request = DownRequest {
        cancel: true,
        ..down_request(id("one").as_str())
    };
    assert_eq!(
        world.engine.down(request).await.unwrap().state,
        State::Stopped
    );
    world.assert_sound("one");
}

#[tokio::test]
async fn an_up_that_died_is_cleaned_up() {
    for (method, state) in [
        ("provision", State::Provisioning),
        ("sync_repo", State::RepoSyncing),
        ("install", State::Installing),
    ] {
        let world = world();
        world.fake.fault(method, Fault::LostReplyHang, 1);
        world.crashed_up("one", state, method).await;
        let outcome = world.down("one").await.unwrap();
        assert_eq!(
            (outcome.state, outcome.next_step),
            (State::Failed, None),
            "{method}"
        );
        assert_eq!(world.operations("one")[0].state, OperationState::Failed);
        world.assert_sound("one");
    }
}

#[tokio::test]
async fn an_up_that_died_after_its_agent_started_is_captured_first() {
    let world = world();
    world.fake.fault("start_agent", Fault::LostReplyHang, 1);
    world
        .crashed_up("one", State::Installing, "start_agent")
        .await;
    let sandbox = world.session("one").sandbox_id;
    world
        .fake
        .workspace_write(&sandbox, "work.txt", b"precious");
    let outcome = world.down("one").await.unwrap();
    assert_eq!(
        (outcome.state, outcome.persistence_verified),
        (State::Failed, true)
    );
    assert_eq!(
        world.fake.objects()[0].files.as_ref().unwrap()["work.txt"],
        b"precious"
    );
    world.assert_sound("one");
}

#[tokio::test]
async fn failing_is_cleaned_up() {
    let world = world();
    world
        .fake
        .fault("install", Fault::Error(ErrorKind::InstallFailed), 1);
    world.fake.fault("destroy", Fault::Hang, 1);
    let up = world.background_up("one", State::Failing, "destroy").await;
    up.abort();
    let _ = up.await;
    assert_eq!(world.down("one").await.unwrap().state, State::Failed);
    world.assert_sound("one");
}

#[tokio::test]
async fn what_is_not_persisted_waits_for_an_explicit_retry() {
    for method in ["capture", "persist", "read_object"] {
        let world = world();
        world.ready("one").await;
        world.fake.fault(method, Fault::Error(ErrorKind::Io), 1);
        let failed = world.down("one").await.unwrap_err();
        assert_eq!(
            (failed.code, failed.exit_code, failed.retryable),
            (ErrorCode::PersistenceVerificationFailed, 2, true),
            "{method}"
        );
        assert_eq!(world.session("one").state, State::StoppedUnpersisted);
        let refused = world.down("one").await.unwrap_err();
        assert_eq!(
            (refused.code, refused.exit_code, refused.retryable),
            (ErrorCode::PersistenceVerificationFailed, 1, true)
        );
        assert!(failed.settled && refused.settled, "{method}");
        world.fake.fault(method, Fault::Error(ErrorKind::Io), 1);
        let tried = world.engine.down(retry("one")).await.unwrap_err();
        assert!(tried.retryable && !tried.settled, "{method}: {tried:?}");
        assert_eq!(
            refused.next_step,
            format!("alpine down {} --retry-persist", id("one"))
        );
        let outcome = world.engine.down(retry("one")).await.unwrap();
        assert_eq!(
            (outcome.state, outcome.persistence_verified),
            (State::Stopped, true)
        );
        assert_eq!(
            payload(&world)["persisted_at"],
            outcome.persisted_at.unwrap().to_string()
        );
        world.assert_sound("one");
    }
}

#[tokio::test]
async fn what_was_read_back_must_be_what_was_sent() {
    for (method, fault) in [
        ("read_object", Fault::WrongAnswer),
        ("read_object", Fault::WrongSnapshot),
        ("capture", Fault::WrongAnswer),
    ] {
        let world = world();
        world.ready("one").await;
        world.fake.fault(method, fault.clone(), 1);
        let failure = world.down("one").await.unwrap_err();
        assert_eq!(
            failure.code,
            ErrorCode::PersistenceVerificationFailed,
            "{method} {fault:?}"
        );
        assert_eq!(world.session("one").state, State::StoppedUnpersisted);
        assert_eq!(
            world.fake.sandboxes().len(),
            1,
            "nothing is deleted before it is verified"
        );
        assert_eq!(
            world.engine.down(retry("one")).await.unwrap().state,
            State::Stopped
        );
    }
}

#[tokio::test]
async fn a_workspace_is_given_up_only_with_its_own_digest() {
    for method in ["capture", "persist"] {
        let world = world();
        world.ready("one").await;
        world.fake.fault(method, Fault::Error(ErrorKind::Io), 0);
        world.down("one").await.unwrap_err();
        let discard = |digest: &str| DownRequest {
            discard: Some(digest.to_owned()),
            ..down_request(id("one").as_str())
        };
        let refused = world.engine.down(discard("0000")).await.unwrap_err();
        assert_eq!(refused.exit_code, 1);
        assert_eq!(world.fake.sandboxes().len(), 1);
        let digest = refused.cause.rsplit(' ').next().unwrap();
        world.fake.allow_loss(&world.session("one").sandbox_id);
        let outcome = world.engine.down(discard(digest)).await.unwrap();
        assert_eq!(outcome.state, State::Failed, "{method}");
        world.assert_sound("one");
    }
}

#[tokio::test]
async fn a_payload_that_cannot_fit_is_persist_failed() {
    let world = world();
    let reason = "r".repeat(MAX_PAYLOAD);
    world.ready("one").await;
    // An owner's name is in the payload whatever is dropped; a reason is not.
    let request = DownRequest {
        reason: Some(reason),
        ..down_request(id("one").as_str())
    };
    let outcome = world.engine.down(request).await.unwrap();
    assert!(
        outcome.history_truncated,
        "the long reason was dropped with its transition"
    );

    world.ready("two").await;
    world
        .fake
        .fault("persist", Fault::Error(ErrorKind::TooLarge), 1);
    let failure = world.down("two").await.unwrap_err();
    assert_eq!(
        (failure.code, failure.exit_code, failure.retryable),
        (ErrorCode::PersistPayloadTooLarge, 2, false)
    );
    assert_eq!(world.session("two").state, State::PersistFailed);
    assert_eq!(world.down("two").await.unwrap_err().exit_code, 1);
    assert_eq!(
        world.engine.down(retry("two")).await.unwrap().state,
        State::Stopped
    );
}

#[tokio::test]
async fn what_could_not_be_cleaned_up_or_stopped_is_tried_again() {
    let world = world();
    world.ready("one").await;
    world.fake.fault("stop", Fault::Error(ErrorKind::Io), 1);
    let failure = world.down("one").await.unwrap_err();
    assert_eq!(
        (failure.code, failure.exit_code, failure.retryable),
        (ErrorCode::CloseFailed, 2, true)
    );
    assert_eq!(world.session("one").state, State::CloseFailed);
    assert_eq!(world.down("one").await.unwrap().state, State::Stopped);

    world
        .fake
        .fault("install", Fault::Error(ErrorKind::InstallFailed), 1);
    world.fake.fault("destroy", Fault::Error(ErrorKind::Io), 2);
    world.engine.up(up_request("two")).await.unwrap_err();
    let failure = world.down("two").await.unwrap_err();
    assert_eq!(
        (failure.code, failure.exit_code),
        (ErrorCode::CleanupFailed, 2)
    );
    assert_eq!(world.session("two").state, State::CleanupFailed);
    assert_eq!(world.down("two").await.unwrap().state, State::Failed);
    world.assert_sound("two");
}

#[tokio::test]
async fn a_failed_session_needs_nothing_more() {
    let world = world();
    world
        .fake
        .fault("provision", Fault::Error(ErrorKind::Io), 1);
    world.engine.up(up_request("one")).await.unwrap_err();
    let calls = world.fake.calls().len();
    let outcome = world.down("one").await.unwrap();
    assert_eq!((outcome.state, outcome.next_step), (State::Failed, None));
    assert_only_looked(&world, calls);
}

/// Since so many calls the provider was only asked whether the sandbox is gone.
fn assert_only_looked(world: &World, calls: usize) {
    let methods = world.fake.calls().into_iter().map(|call| call.method);
    assert!(methods.skip(calls).eq(["inspect"]));
}

#[tokio::test]
async fn a_pending_destroy_is_finished_and_the_first_answer_given() {
    let world = world();
    world.ready("one").await;
    world.fake.fault("destroy", Fault::Error(ErrorKind::Io), 1);
    let first = world.down("one").await.unwrap();
    assert_eq!(
        (first.state, first.persistence_verified),
        (State::Stopped, true)
    );
    assert_eq!(first.next_step, Some(format!("alpine down {}", id("one"))));
    assert!(world.session("one").destroy_pending && world.session("one").last_error.is_some());
    let why = first.last_error.map(|error| error.cause);
    assert!(why.is_some_and(|why| why.starts_with("destroy: ")));
    let again = world.down("one").await.unwrap();
    assert_eq!(
        (
            &again.operation_id,
            &again.durable_object_id,
            again.next_step
        ),
        (&first.operation_id, &first.durable_object_id, None)
    );
    assert_eq!(again.last_error, None);
    let session = world.session("one");
    assert!(!session.destroy_pending && session.last_error.is_none());
    world.assert_sound("one");
}

#[tokio::test]
async fn a_claim_that_is_not_true_is_found_out() {
    let world = world();
    world.ready("one").await;
    world.fake.fault("stop", Fault::WrongAnswer, 3);
    assert_eq!(
        world.down("one").await.unwrap_err().code,
        ErrorCode::CloseFailed
    );
    world.fake.fault("destroy", Fault::WrongAnswer, 3);
    let outcome = world.down("one").await.unwrap();
    assert!(outcome.next_step.is_some() && world.session("one").destroy_pending);
    assert_eq!(world.down("one").await.unwrap().next_step, None);
    world.assert_sound("one");
}

#[tokio::test]
async fn a_lost_workspace_is_said_and_the_payload_persisted() {
    let world = world();
    world.ready("one").await;
    world.fake.lose_workspace(&world.session("one").sandbox_id);
    let outcome = world.down("one").await.unwrap();
    assert_eq!(
        (outcome.state, outcome.workspace_snapshot),
        (State::Stopped, None)
    );
    assert_eq!(
        outcome.workspace_snapshot_reason.as_deref(),
        Some("workspace_lost")
    );
    let payload = payload(&world);
    assert!(payload["workspace_snapshot"].is_null());
    assert_eq!(payload["workspace_snapshot_reason"], "workspace_lost");

    world.ready("two").await;
    world.fake.lose_sandbox(&world.session("two").sandbox_id);
    assert_eq!(
        world
            .down("two")
            .await
            .unwrap()
            .workspace_snapshot_reason
            .as_deref(),
        Some("workspace_lost")
    );
}

#[tokio::test]
async fn that_there_is_no_sandbox_is_no_proof_while_it_is_shown() {
    for kind in [ErrorKind::NotFound, ErrorKind::Destroyed] {
        for method in ["stop", "capture", "destroy"] {
            let world = world();
            world.ready("one").await;
            world.fake.fault(method, Fault::Error(kind), 1);
            let outcome = world.down("one").await.unwrap();
            assert!(outcome.workspace_snapshot.is_some(), "{method}: {kind:?}");
            assert_eq!(outcome.next_step, None, "{method}: {kind:?}");
            world.assert_sound("one");
        }
    }
}

#[tokio::test]
async fn a_provider_that_is_configured_otherwise_has_lost_nothing_it_only_looks_elsewhere() {
    let mut world = world();
    world.ready("one").await;
    let providers = world.engine.providers.clone();
    world.engine.providers = providers.clone().configured("fake", "elsewhere".to_owned());
    // Where it is there, the settings do not matter.
    assert!(
        world
            .down("one")
            .await
            .unwrap()
            .workspace_snapshot
            .is_some()
    );

    world.engine.providers = providers.clone();
    world.ready("two").await;
    world.fake.lose_sandbox(&world.session("two").sandbox_id);
    world.engine.providers = providers.configured("fake", "elsewhere".to_owned());
    let failure = world.down("two").await.unwrap_err();
    assert!(
        failure.cause.contains("configure it as it was"),
        "{failure:?}"
    );
    assert_eq!(world.state("two"), Some(State::StoppedUnpersisted));
    let refused = world.down("two").await.unwrap_err();
    let digest = refused.cause.rsplit(' ').next().unwrap().to_owned();
    let request = DownRequest {
        discard: Some(digest),
        ..down_request(id("two").as_str())
    };
    let given_up = world.engine.down(request).await.unwrap();
    assert_eq!(given_up.state, State::Failed);
}

#[tokio::test]
async fn every_steps_passing_fault_is_survived() {
    for method in ["stop", "capture", "persist", "read_object", "destroy"] {
        for fault in [
            Fault::Transient(ErrorKind::Io),
            Fault::LostReply,
            Fault::Partial,
        ] {
            let world = world();
            world.ready("one").await;
            world.fake.fault(method, fault.clone(), 2);
            let outcome = world
                .down("one")
                .await
                .unwrap_or_else(|failure| panic!("{method} {fault:?}: {failure:?}"));
            assert_eq!(
                (outcome.state, outcome.next_step),
                (State::Stopped, None),
                "{method} {fault:?}"
            );
            world.assert_sound("one");
        }
    }
}

#[tokio::test]
async fn every_step_that_hangs_is_a_time_limit_and_can_be_carried_on() {
    for method in ["stop", "capture", "persist", "read_object", "destroy"] {
        let mut world = world();
        world.ready("one").await;
        world.engine.limits.persist = Duration::from_millis(60);
        world.engine.limits.grace = Duration::from_millis(30);
        world.engine.limits.force = Duration::from_millis(30);
        world.fake.fault(method, Fault::Hang, 1);
        let failure = world.down("one").await.unwrap_err();
        assert_eq!(
            (failure.code, failure.exit_code, failure.retryable),
            (ErrorCode::Timeout, 2, true),
            "{method}"
        );
        world.engine.limits = Limits {
            backoff: Duration::from_millis(2),
            ..Limits::default()
        };
        assert_eq!(
            world.down("one").await.unwrap().state,
            State::Stopped,
            "{method}"
        );
        world.assert_sound("one");
    }
}

#[tokio::test]
async fn anothers_session_is_forbidden_and_admins_leave_a_record() {
    let world = world();
    world.ready("one").await;
    let other = Caller {
        principal: "other".to_owned(),
        admin: false,
    };
    let admin = Caller {
        principal: "root".to_owned(),
        admin: true,
    };
    let ask = |caller: &Caller, reason: Option<&str>| DownRequest {
        caller: caller.clone(),
        reason: reason.map(str::to_owned),
        ..down_request(id("one").as_str())
    };
    assert_eq!(
        world.engine.down(ask(&other, None)).await.unwrap_err().code,
        ErrorCode::SessionForbidden
    );
    for none in [None, Some(" "), Some("…")] {
        let failure = world.engine.down(ask(&admin, none)).await.unwrap_err();
        assert_eq!(failure.code, ErrorCode::Usage, "{none:?}");
    }
    assert_eq!(world.state("one"), Some(State::Ready));
    world
        .engine
        .down(ask(&admin, Some("machine is going away")))
        .await
        .unwrap();
    let audit = world
        .engine
        .ledger
        .read(|snapshot| snapshot.audit())
        .unwrap();
    assert_eq!(
        (
            audit.len(),
            audit[0].actor.as_str(),
            audit[0].reason.as_str()
        ),
        (1, "root", "machine is going away")
    );
    assert_eq!(
        world.down("none").await.unwrap_err().code,
        ErrorCode::SessionNotFound
    );
}

#[tokio::test]
async fn a_provider_that_is_gone_from_the_configuration_is_named() {
    let mut world = world();
    world.ready("one").await;
    world.engine.providers = Providers::default();
    let failure = world.down("one").await.unwrap_err();
    assert_eq!(
        (failure.code, failure.exit_code),
        (ErrorCode::ProviderNotFound, 1)
    );
    assert_eq!(world.state("one"), Some(State::Ready));
}

#[tokio::test]
async fn a_clean_up_that_cannot_save_the_work_has_a_way_out() {
    let world = world();
    world
        .fake
        .fault_in_up("inspect", Fault::Error(ErrorKind::Io), 1);
    world.fake.fault("capture", Fault::Error(ErrorKind::Io), 2);
    world.engine.up(up_request("one")).await.unwrap_err();
    assert_eq!(world.session("one").state, State::CleanupFailed);
    let refused = world.down("one").await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::CleanupFailed);
    assert_eq!(world.fake.sandboxes().len(), 1, "the workspace is kept");
    let digest = refused.cause.rsplit(' ').next().unwrap().to_owned();
    world.fake.allow_loss(&world.session("one").sandbox_id);
    let request = DownRequest {
        discard: Some(digest),
        ..down_request(id("one").as_str())
    };
    assert_eq!(
        world.engine.down(request).await.unwrap().state,
        State::Failed
    );
    world.assert_sound("one");
}

#[tokio::test]
async fn a_rescue_whose_snapshot_was_wrong_makes_another() {
    let world = world();
    world
        .fake
        .fault_in_up("inspect", Fault::Error(ErrorKind::Io), 1);
    world.fake.fault("read_object", Fault::WrongSnapshot, 1);
    world.engine.up(up_request("one")).await.unwrap_err();
    assert_eq!(world.session("one").state, State::CleanupFailed);
    let outcome = world.down("one").await.unwrap();
    assert_eq!(
        (outcome.state, outcome.persistence_verified),
        (State::Failed, true)
    );
    world.assert_sound("one");
}

#[tokio::test]
async fn an_admins_cancel_leaves_a_record_too() {
    let world = world();
    world.fake.fault("install", Fault::Hang, 1);
    let up = world
        .background_up("one", State::Installing, "install")
        .await;
    let request = DownRequest {
        caller: Caller {
            principal: "root".to_owned(),
            admin: true,
        },
        cancel: true,
        reason: Some("it takes too long".to_owned()),
        ..down_request(id("one").as_str())
    };
    world.engine.down(request).await.unwrap();
    up.await.unwrap().unwrap_err();
    let audit = world
        .engine
        .ledger
        .read(|snapshot| snapshot.audit())
        .unwrap();
    assert!(
        !audit.is_empty()
            && audit
                .iter()
                .all(|record| record.reason == "it takes too long")
    );
}
