//! Recovery: each thing that may be left, and what is done about it.

use crate::common::*;
use alpine_ledger::{Clock, Event, Ledger, Options, State, SystemClock, Timestamp};
use alpine_lifecycle::*;
use alpine_provider_api::*;
use alpine_testkit::{FakeObject, FakeProvider, Fault, TestClock};
use std::sync::Arc;
use std::time::Duration;

fn all_mine() -> ReconcileRequest {
    ReconcileRequest {
        caller: me(),
        session: None,
        all: false,
        dry_run: false,
    }
}

fn dry() -> ReconcileRequest {
    ReconcileRequest {
        dry_run: true,
        ..all_mine()
    }
}

/// The one thing that is found, after a dry run that finds the same and changes nothing.
async fn only(world: &World) -> Reconciled {
    let commits = world.engine.ledger.commits();
    let planned = world.engine.reconcile(dry()).await.unwrap();
    assert_eq!(
        world.engine.ledger.commits(),
        commits,
        "a dry run writes nothing"
    );
    let mut report = world.engine.reconcile(all_mine()).await.unwrap();
    assert_eq!(
        (planned.len(), report.len()),
        (1, 1),
        "{planned:?} {report:?}"
    );
    assert_eq!(planned[0].finding, report[0].finding);
    assert!(!planned[0].done);
    report.remove(0)
}

async fn crashed_down(world: &World, method: &str) {
    world.fake.fault(method, Fault::Hang, 1);
    let before = world.fake.count(method);
    let engine = world.engine.clone();
    let task = tokio::spawn(async move { engine.down(down_request(id("one").as_str())).await });
    world.until(|| world.fake.count(method) > before).await;
    task.abort();
    let _ = task.await;
}

#[tokio::test]
async fn nothing_is_found_where_all_is_well() {
    let world = world();
    world.ready("one").await;
    world.ready("two").await;
    world.down("two").await.unwrap();
    assert_eq!(world.engine.reconcile(all_mine()).await.unwrap(), []);
    assert_eq!(world.state("one"), Some(State::Ready));
}

#[tokio::test]
async fn a_destroy_that_fails_again_is_not_called_done() {
    let world = world();
    world.ready("one").await;
    crashed_down(&world, "destroy").await;
    world.fake.fault("destroy", Fault::Error(ErrorKind::Io), 1);
    let found = only(&world).await;
    assert_eq!(
        (found.finding, found.done, found.state),
        (Finding::DestroyPending, false, Some(State::Stopped)),
        "{found:?}"
    );
    let error = found.error.unwrap();
    assert!(error.starts_with("destroy: "), "{error}");
    let found = only(&world).await;
    assert_eq!((found.done, found.error), (true, None));
    world.assert_sound("one");
}

#[tokio::test]
async fn an_interrupted_down_is_finished() {
    for method in ["stop", "capture", "persist", "read_object", "destroy"] {
        let world = world();
        world.ready("one").await;
        crashed_down(&world, method).await;
        let found = only(&world).await;
        let expected = if method == "destroy" {
            Finding::DestroyPending
        } else {
            Finding::UnfinishedDown
        };
        assert_eq!(
            (found.finding, found.done, found.state),
            (expected, true, Some(State::Stopped)),
            "{method}"
        );
        assert!(!world.session("one").destroy_pending);
        world.assert_sound("one");
    }
}

#[tokio::test]
async fn sessions_of_a_provider_that_is_not_there_are_noted_and_left() {
    let mut world = world();
    world.ready("one").await;
    world.ready("two").await;
    crashed_down(&world, "capture").await;
    let providers = std::mem::take(&mut world.engine.providers);
    let report = world.engine.reconcile(all_mine()).await.unwrap();
    let mut told: Vec<_> = report
        .iter()
        .map(|found| {
            (
                found.finding,
                found.done,
                found.error.is_some(),
                found.state,
            )
        })
        .collect();
    told.sort_by_key(|(.., state)| state.map(State::as_str));
    assert_eq!(
        told,
        [
            (
                Finding::ProviderMissing,
                false,
                false,
                Some(State::Persisting)
            ),
            (Finding::ProviderMissing, false, false, Some(State::Ready)),
        ]
    );
    world.engine.providers = providers;
    assert_eq!(only(&world).await.finding, Finding::UnfinishedDown);
    world.assert_sound("one");
}

#[tokio::test]
async fn what_is_held_is_left_alone() {
    let world = world();
    world.fake.fault("install", Fault::Hang, 1);
    let up = world
        .background_up("one", State::Installing, "install")
        .await;
    assert_eq!(world.engine.reconcile(all_mine()).await.unwrap(), []);
    up.abort();
}

#[tokio::test]
async fn an_interrupted_up_is_left_to_its_own_request_for_a_while() {
    let mut world = world();
    world.fake.fault("install", Fault::Hang, 1);
    world.crashed_up("one", State::Installing, "install").await;
    let found = only(&world).await;
    assert_eq!((found.finding, found.done), (Finding::InterruptedUp, false));
    assert_eq!(world.state("one"), Some(State::Installing));
    world.engine.limits.abandon = Duration::ZERO;
    let found = only(&world).await;
    assert_eq!(
        (found.finding, found.done, found.state),
        (Finding::AbandonedUp, true, Some(State::Failed))
    );
    let replayed = world.engine.up(up_request("one")).await.unwrap_err();
    assert_eq!(
        (replayed.code, replayed.exit_code),
        (ErrorCode::Interrupted, 1)
    );
    world.assert_sound("one");
}

#[tokio::test]
async fn an_interrupted_clean_up_is_finished() {
    let world = world();
    world
        .fake
        .fault("install", Fault::Error(ErrorKind::InstallFailed), 1);
    world.fake.fault("destroy", Fault::Hang, 1);
    let up = world.background_up("one", State::Failing, "destroy").await;
    up.abort();
    let _ = up.await;
    let found = only(&world).await;
    assert_eq!(
        (found.finding, found.done, found.state),
        (Finding::UnfinishedCleanUp, true, Some(State::Failed))
    );
    world.assert_sound("one");
}

#[tokio::test]
async fn a_pending_destroy_is_done() {
    let world = world();
    world.ready("one").await;
    world.fake.fault("destroy", Fault::Error(ErrorKind::Io), 1);
    world.down("one").await.unwrap();
    let found = only(&world).await;
    assert_eq!((found.finding, found.done), (Finding::DestroyPending, true));
    world.assert_sound("one");
}

#[tokio::test]
async fn a_ready_session_whose_sandbox_is_gone_is_advanced_with_the_reason() {
    let world = world();
    world.ready("one").await;
    world.fake.lose_sandbox(&world.session("one").sandbox_id);
    let found = only(&world).await;
    assert_eq!(
        (found.finding, found.state),
        (Finding::SandboxGone, Some(State::Stopped))
    );
    let transitions = world
        .engine
        .ledger
        .read(|snapshot| snapshot.transitions(&id("one")))
        .unwrap();
    assert!(
        transitions
            .iter()
            .any(|transition| transition.reason == "reconcile: the sandbox is gone")
    );
}

#[tokio::test]
async fn what_waits_for_its_user_is_left_to_them() {
    let world = world();
    world.ready("one").await;
    world.fake.fault("persist", Fault::Error(ErrorKind::Io), 1);
    world.down("one").await.unwrap_err();
    assert_eq!(world.engine.reconcile(all_mine()).await.unwrap(), []);
    assert_eq!(world.state("one"), Some(State::StoppedUnpersisted));
}

#[tokio::test]
async fn a_failure_is_reported_and_the_rest_goes_on() {
    let world = world();
    world.ready("one").await;
    world.ready("two").await;
    crashed_down(&world, "capture").await;
    world.fake.lose_sandbox(&world.session("two").sandbox_id);
    world.fake.fault("persist", Fault::Error(ErrorKind::Io), 1);
    let report = world.engine.reconcile(all_mine()).await.unwrap();
    let errors = report.iter().filter(|found| found.error.is_some()).count();
    assert_eq!((report.len(), errors), (2, 1), "{report:?}");
}

#[tokio::test]
async fn anothers_sessions_are_for_admins() {
    let world = world();
    world.ready("one").await;
    crashed_down(&world, "stop").await;
    let other = Caller {
        principal: "other".to_owned(),
        admin: false,
    };
    let report = world
        .engine
        .reconcile(ReconcileRequest {
            caller: other.clone(),
            ..all_mine()
        })
        .await
        .unwrap();
    assert_eq!(report, []);
    let refused = world
        .engine
        .reconcile(ReconcileRequest {
            caller: other,
            all: true,
            ..all_mine()
        })
        .await
        .unwrap_err();
    assert_eq!(refused.code, ErrorCode::SessionForbidden);
    let admin = Caller {
        principal: "root".to_owned(),
        admin: true,
    };
    let report = world
        .engine
        .reconcile(ReconcileRequest {
            caller: admin,
            all: true,
            ..all_mine()
        })
        .await
        .unwrap();
    assert_eq!(report[0].state, Some(State::Stopped));
    assert_eq!(
        world
            .engine
            .ledger
            .read(|snapshot| snapshot.audit())
            .unwrap()
            .len(),
        1
    );
}

#[tokio::test]
async fn an_up_that_is_carried_on_while_others_are_recovered_is_left_alone() {
    let mut world = world();
    for request in ["one", "two"] {
        world.fake.fault("install", Fault::Hang, 1);
        world
            .crashed_up(request, State::Installing, "install")
            .await;
    }
    world.engine.limits.abandon = Duration::ZERO;
    world.fake.fault("destroy", Fault::Delay { ms: 300 }, 1);
    let engine = world.engine.clone();
    let recovery = tokio::spawn(async move { engine.reconcile(all_mine()).await });
    world.until(|| world.fake.count("destroy") > 0).await;
    let other = ["one", "two"]
        .into_iter()
        .find(|request| world.state(request) == Some(State::Installing));
    let other = other.expect("one is recovered after the other");
    world.ready(other).await;
    let report = recovery.await.unwrap().unwrap();
    assert_eq!(report.len(), 1, "{report:?}");
    assert_eq!(world.state(other), Some(State::Ready));
}

#[tokio::test]
async fn a_signal_ends_a_recovery_where_it_stands() {
    for stray_too in [false, true] {
        let mut world = world();
        let (sender, receiver) = tokio::sync::watch::channel(None);
        world.engine.interrupt = Interrupt::new(receiver);
        if stray_too {
            let own = world.engine.ledger.id().to_owned();
            stray(&world, &own, "sbx_stray").await;
        } else {
            world.ready("one").await;
            crashed_down(&world, "stop").await;
        }
        world.fake.fault("capture", Fault::Hang, 1);
        let engine = world.engine.clone();
        let recovery = tokio::spawn(async move { engine.reconcile(all_mine()).await });
        world.until(|| world.fake.count("capture") > 0).await;
        sender.send(Some(Signal::Term)).unwrap();
        let failure = recovery.await.unwrap().unwrap_err();
        assert_eq!(
            (failure.code, failure.exit_code),
            (ErrorCode::Interrupted, 143)
        );
        world.engine.interrupt = Interrupt::never();
        assert_eq!(only(&world).await.error, None);
        world.fake.assert_no_violations();
    }
}

#[tokio::test]
async fn a_provider_that_does_not_answer_is_reported() {
    let mut world = world();
    world.engine.limits.probe = Duration::from_millis(50);
    world.ready("one").await;
    world.ready("two").await;
    for (method, fault, code, session) in [
        ("inspect", Fault::Hang, "ERR_TIMEOUT", true),
        (
            "inspect",
            Fault::Error(ErrorKind::Io),
            "ERR_SANDBOX_UNAVAILABLE",
            true,
        ),
        ("list", Fault::Hang, "ERR_TIMEOUT", false),
        (
            "list",
            Fault::Error(ErrorKind::Io),
            "ERR_SANDBOX_UNAVAILABLE",
            false,
        ),
    ] {
        world.fake.fault(method, fault, 1);
        let report = world.engine.reconcile(all_mine()).await.unwrap();
        let [found] = &report[..] else {
            panic!("{method}: {report:?}")
        };
        assert_eq!((found.finding, found.done), (Finding::NotAnswered, false));
        assert_eq!(found.session_id.is_some(), session, "{method}");
        let error = found.error.as_deref().unwrap();
        assert!(error.starts_with(code), "{method}: {error}");
        assert!(session || error.contains("`fake`"), "{error}");
    }
    assert_eq!(world.engine.reconcile(all_mine()).await.unwrap(), []);
}

#[tokio::test]
async fn sandboxes_are_looked_at_all_at_once_and_a_signal_ends_that() {
    for method in ["inspect", "list"] {
        let mut world = world();
        let (sender, receiver) = tokio::sync::watch::channel(None);
        world.engine.interrupt = Interrupt::new(receiver);
        world.engine.limits.probe = Duration::from_secs(600);
        let mut asked = world.fake.count(method) + 1;
        if method == "inspect" {
            for request in ["one", "two", "three", "four"] {
                world.ready(request).await;
            }
            asked = world.fake.count(method) + 4;
        }
        world.fake.fault(method, Fault::Hang, 4);
        let engine = world.engine.clone();
        let recovery = tokio::spawn(async move { engine.reconcile(all_mine()).await });
        world.until(|| world.fake.count(method) >= asked).await;
        sender.send(Some(Signal::Int)).unwrap();
        let failure = recovery.await.unwrap().unwrap_err();
        assert_eq!(
            (failure.code, failure.exit_code),
            (ErrorCode::Interrupted, 130)
        );
    }
}

/// A sandbox with a file in it that bears the ledger's id and that no session owns.
async fn stray(world: &World, ledger_id: &str, name: &str) -> String {
    appear(world, ledger_id, name, "ses_unknown").await
}

/// A sandbox with a file in it, made behind the ledger's back.
async fn appear(world: &World, ledger_id: &str, name: &str, session_id: &str) -> String {
    let provider: &dyn SandboxProvider = &FakeProvider::new(world.fake_directory());
    let meta = Meta {
        operation_id: "op_1".to_owned(),
        fence: 1,
        attempt: 1,
        deadline_ms: 0,
        traceparent: None,
    };
    let call = Call::quiet(meta);
    let sandbox_id = SandboxId::new(name).unwrap();
    let provision = ProvisionRequest {
        sandbox_id: sandbox_id.clone(),
        ledger_id: ledger_id.to_owned(),
        session_id: session_id.to_owned(),
        allow_unsandboxed: true,
    };
    provider.provision(&call, provision).await.unwrap();
    let sync = SyncRepoRequest {
        sandbox_id,
        repo: RepoUrl::parse("/srv/repo", std::path::Path::new("/")).unwrap(),
        branch: BranchName::new("main").unwrap(),
        commit: CommitId::new(COMMIT).unwrap(),
        credential: None,
    };
    provider.sync_repo(&call, sync).await.unwrap();
    world.fake.workspace_write(name, "work.txt", b"precious");
    name.to_owned()
}

#[tokio::test]
async fn a_stray_sandbox_is_saved_and_destroyed_only_at_a_second_look() {
    let mut world = world();
    let own = world.engine.ledger.id().to_owned();
    let ours = stray(&world, &own, "sbx_stray").await;
    let theirs = stray(&world, "another-ledger", "sbx_theirs").await;
    let there = |world: &World, name: &str| {
        world
            .fake
            .sandboxes()
            .iter()
            .any(|sandbox| sandbox.id == name)
    };

    let found = only(&world).await;
    assert_eq!(
        (found.finding, found.sandbox_id.as_deref(), found.done),
        (Finding::Orphan, Some(ours.as_str()), false)
    );
    assert_eq!(
        world.fake.objects()[0].files.as_ref().unwrap()["work.txt"],
        b"precious"
    );
    assert!(there(&world, &ours), "the first look deletes nothing");

    assert!(!only(&world).await.done, "the grace period is not over");
    world.engine.limits.quarantine = Duration::ZERO;
    assert!(only(&world).await.done);
    assert!(!there(&world, &ours) && there(&world, &theirs));
    assert_eq!(world.engine.reconcile(all_mine()).await.unwrap(), []);
    world.fake.assert_no_violations();
}

#[tokio::test]
async fn a_stray_sandbox_in_which_nothing_is_left_to_save_is_destroyed() {
    for is_saved in [true, false] {
        let mut world = world();
        let own = world.engine.ledger.id().to_owned();
        let name = stray(&world, &own, "sbx_stray").await;
        if is_saved {
            assert_eq!(only(&world).await.error, None);
            world.engine.limits.quarantine = Duration::ZERO;
            world.fake.fault("destroy", Fault::Partial, 1);
            assert!(only(&world).await.error.is_some());
        } else {
            world.fake.lose_workspace(&name);
            let found = only(&world).await;
            assert_eq!((found.done, found.error), (false, None), "not yet");
            world.engine.limits.quarantine = Duration::ZERO;
        }
        let found = only(&world).await;
        assert_eq!((found.done, found.error), (true, None), "{is_saved}");
        assert!(world.fake.sandboxes().is_empty());
        assert_eq!(world.engine.reconcile(all_mine()).await.unwrap(), []);
        world.fake.assert_no_violations();
    }
}

#[tokio::test]
async fn what_was_written_to_a_stray_sandbox_since_it_was_saved_is_saved_too() {
    for lost in [false, true] {
        let mut world = world();
        let own = world.engine.ledger.id().to_owned();
        let name = stray(&world, &own, "sbx_stray").await;
        assert_eq!(only(&world).await.error, None);
        world.engine.limits.quarantine = Duration::ZERO;
        let late = if lost { "work.txt" } else { "late.txt" };
        if lost {
            // Nothing has changed, but what was saved can't be read any more.
            world
                .fake
                .fault("read_object", Fault::Error(ErrorKind::NotFound), 1);
        } else {
            world.fake.workspace_write(&name, late, b"precious");
        }
        assert!(only(&world).await.done);
        assert!(world.fake.sandboxes().is_empty());
        let objects = world.fake.objects();
        assert_eq!(objects.len(), 2);
        let has_it = |object: &FakeObject| {
            let files = object.files.as_ref().unwrap();
            files.get(late).is_some_and(|text| text == b"precious")
        };
        assert!(objects.iter().any(has_it));
        let saved = world
            .engine
            .ledger
            .read(|snapshot| snapshot.quarantined(&name));
        let saved = saved.unwrap().unwrap().durable_object_id;
        let newest = objects.iter().max_by_key(|object| object.generation);
        assert_eq!(saved, newest.map(|object| object.id.clone()));
        world.fake.assert_no_violations();
    }
}

#[tokio::test]
async fn many_at_once_save_a_stray_sandbox_once_and_destroy_it_once() {
    let mut world = world();
    let own = world.engine.ledger.id().to_owned();
    stray(&world, &own, "sbx_stray").await;
    for looks in [("capture", false), ("destroy", true)] {
        let (method, reaps) = looks;
        if reaps {
            world.engine.limits.quarantine = Duration::ZERO;
        }
        world.fake.fault(method, Fault::Delay { ms: 300 }, 1);
        let all = (0..4).map(|_| {
            let engine = world.engine.clone();
            tokio::spawn(async move { engine.reconcile(all_mine()).await })
        });
        let mut done = 0;
        for one in all.collect::<Vec<_>>() {
            let report = one.await.unwrap().unwrap();
            assert!(
                report.iter().all(|found| found.error.is_none()),
                "{report:?}"
            );
            done += report.iter().filter(|found| found.done).count();
        }
        assert_eq!(done, usize::from(reaps));
        assert_eq!(world.fake.count(method), 1, "{method}");
    }
    assert_eq!(world.fake.objects().len(), 1);
    world.fake.assert_no_violations();
}

#[tokio::test]
async fn a_stray_sandbox_that_cannot_be_saved_is_never_destroyed() {
    let mut world = world();
    world.engine.limits.quarantine = Duration::ZERO;
    let own = world.engine.ledger.id().to_owned();
    stray(&world, &own, "sbx_stray").await;
    for (method, fault) in [
        ("capture", Fault::Error(ErrorKind::Io)),
        ("persist", Fault::Error(ErrorKind::Io)),
        ("read_object", Fault::WrongSnapshot),
    ] {
        world.fake.fault(method, fault, 1);
        let found = only(&world).await;
        assert!(found.error.is_some() && !found.done, "{method}");
        assert_eq!(world.fake.sandboxes().len(), 1, "{method}");
    }
}

#[tokio::test]
async fn a_saved_stray_sandbox_whose_record_was_cut_off_is_saved_with_the_same_bytes() {
    let world = world();
    let own = world.engine.ledger.id().to_owned();
    stray(&world, &own, "sbx_stray").await;
    // Written, but not read back: the next look has to send the same again.
    world
        .fake
        .fault("read_object", Fault::Error(ErrorKind::Io), 1);
    assert!(only(&world).await.error.is_some());
    assert_eq!(only(&world).await.error, None);
    assert_eq!(world.fake.objects().len(), 1);
    world.fake.assert_no_violations();
}

/// Puts what a backup holds in the ledger's place.
fn import_backup(world: &mut World, backup: &std::path::Path) {
    let path = world.ledger_path();
    std::fs::remove_file(&path).unwrap();
    alpine_ledger::import(&path, Options::new(), backup, &str::to_owned, &|repo, _| {
        (repo.to_owned(), String::new())
    })
    .unwrap();
    world.engine.ledger = Ledger::open(&path, Options::new()).unwrap();
}

/// An older backup knows nothing of the session whose sandbox it finds; a newer one has it again.
#[tokio::test]
async fn a_session_whose_sandbox_was_a_stray_of_an_older_backup_can_be_brought_down() {
    let mut world = world();
    let (older, newer) = (
        world.fake_directory().with_file_name("older"),
        world.fake_directory().with_file_name("newer"),
    );
    world.engine.ledger.backup(&older).unwrap();
    world.ready("one").await;
    world.engine.ledger.backup(&newer).unwrap();
    import_backup(&mut world, &older);
    let found = only(&world).await;
    assert_eq!((found.finding, found.error), (Finding::Orphan, None));
    import_backup(&mut world, &newer);
    assert_eq!(world.down("one").await.unwrap().state, State::Stopped);
    world.assert_sound("one");
}

/// The same request makes a session with the id that the older backup did not know, and whose sandbox is still there.
#[tokio::test]
async fn a_request_whose_sandbox_was_a_stray_of_an_older_backup_comes_to_an_end() {
    for reaped in [false, true] {
        let mut world = world();
        let older = world.fake_directory().with_file_name("older");
        world.engine.ledger.backup(&older).unwrap();
        world.ready("one").await;
        import_backup(&mut world, &older);
        assert_eq!(only(&world).await.error, None);
        if reaped {
            world.engine.limits.quarantine = Duration::ZERO;
            assert!(only(&world).await.done);
            let failure = world.engine.up(up_request("one")).await.unwrap_err();
            assert_ne!(failure.next_step, "", "{failure:?}");
            assert_eq!(world.state("one"), Some(State::Failed), "{failure:?}");
            assert!(world.fake.sandboxes().is_empty());
        } else {
            world.ready("one").await;
            assert_eq!(world.fake.sandboxes().len(), 2);
        }
        assert_eq!(world.fake.objects().len(), 1);
    }
}

/// Whatever becomes of such a request, what was in the sandbox is still there, and is saved by `reconcile`.
#[tokio::test]
async fn work_in_a_sandbox_that_an_older_backup_does_not_know_outlives_its_request() {
    let gone = || ProviderError::new(ErrorKind::Io, "the remote is gone");
    for (fails, fault) in [
        ("", Fault::Hang),
        ("tip", Fault::Hang),
        ("provision", Fault::Error(ErrorKind::NoSpace)),
        ("sync_repo", Fault::Error(ErrorKind::Io)),
        ("install", Fault::Error(ErrorKind::InstallFailed)),
        // It can't be told whether it is there.
        ("inspect", Fault::Error(ErrorKind::Io)),
        ("inspect", Fault::Hang),
    ] {
        let mut world = world();
        let older = world.fake_directory().with_file_name("older");
        world.engine.ledger.backup(&older).unwrap();
        world.ready("one").await;
        let stray = world.session("one").sandbox_id;
        world.fake.workspace_write(&stray, "work.txt", b"precious");
        import_backup(&mut world, &older);
        match fails {
            "" => {}
            "tip" => world
                .remote
                .failures
                .lock()
                .unwrap()
                .push_back(Some(gone())),
            method => world.fake.fault(method, fault, 1),
        }
        let up = world.engine.up(up_request("one")).await;
        assert_eq!(
            up.is_ok(),
            ["", "inspect"].contains(&fails),
            "{fails}: {up:?}"
        );
        if fails != "inspect" {
            let warned = &world.session("one").warnings;
            assert!(
                warned.iter().any(|text| text.contains(&stray)),
                "{fails}: {warned:?}"
            );
            let events = world
                .engine
                .ledger
                .read(|ledger| ledger.events_after(0, 100));
            let found = |event: &Event| event.reason.as_ref() == Some(&stray);
            assert!(events.unwrap().iter().any(found), "{fails}");
        }
        world.down("one").await.unwrap();
        let there = world.fake.sandboxes();
        assert_eq!(there.len(), 1, "{fails}");
        assert_eq!(
            (&there[0].id, &there[0].files["work.txt"][..]),
            (&stray, &b"precious"[..])
        );
        assert_eq!(only(&world).await.finding, Finding::Orphan);
        let has_it = |object: &FakeObject| {
            object
                .files
                .as_ref()
                .is_some_and(|files| files.contains_key("work.txt"))
        };
        assert!(world.fake.objects().iter().any(has_it), "{fails}");
        world.fake.assert_no_violations();
    }
}

/// Brings the sandbox of a session that has ended back, with work in it.
async fn haunt(world: &World, request: &str) {
    let session = world.session(request);
    let tombs = world.fake_directory().join("tombstones");
    std::fs::remove_file(tombs.join(&session.sandbox_id)).unwrap();
    let own = world.engine.ledger.id().to_owned();
    appear(
        world,
        &own,
        &session.sandbox_id,
        session.session_id.as_str(),
    )
    .await;
}

#[tokio::test]
async fn what_is_in_a_sandbox_that_is_there_after_its_session_has_ended_is_saved_before_it_is_destroyed()
 {
    for by_down in [false, true] {
        let mut world = world();
        world.ready("one").await;
        let first = world.down("one").await.unwrap();
        haunt(&world, "one").await;
        let found = if by_down {
            assert_eq!(world.down("one").await.unwrap(), first, "the first answer");
            world.engine.reconcile(all_mine()).await.unwrap().remove(0)
        } else {
            only(&world).await
        };
        assert_eq!(
            (found.finding, found.done, found.state, &found.error),
            (Finding::SandboxLeft, false, Some(State::Stopped), &None)
        );
        let saved = found.durable_object_id.unwrap();
        let object = |object: &FakeObject| object.id == saved && object.read_back;
        let objects = world.fake.objects();
        let files = objects.iter().find(|it| object(it)).unwrap().files.as_ref();
        assert_eq!(files.unwrap()["work.txt"], b"precious");
        world.engine.limits.quarantine = Duration::ZERO;
        let found = only(&world).await;
        assert_eq!((found.finding, found.done), (Finding::SandboxLeft, true));
        assert_eq!(found.durable_object_id, Some(saved));
        world.assert_sound("one");
        assert_eq!(world.down("one").await.unwrap(), first, "the first answer");
        assert_eq!(world.engine.reconcile(all_mine()).await.unwrap(), []);
    }
}

#[tokio::test]
async fn a_sandbox_that_is_left_with_nothing_but_what_its_session_stored_is_destroyed_at_once() {
    let world = world();
    world.ready("one").await;
    let session = world.session("one");
    let kept = world.fake_directory().with_extension("kept");
    copy(&world.fake_directory(), &kept);
    world.down("one").await.unwrap();
    for part in ["sandboxes", "workspaces"] {
        copy(&kept.join(part), &world.fake_directory().join(part));
    }
    let tombs = world.fake_directory().join("tombstones");
    std::fs::remove_file(tombs.join(&session.sandbox_id)).unwrap();
    let found = only(&world).await;
    assert_eq!((found.finding, found.done), (Finding::SandboxLeft, true));
    world.assert_sound("one");
}

/// As `cp -r` does.
fn copy(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().flatten() {
        let (here, there) = (entry.path(), to.join(entry.file_name()));
        if here.is_dir() {
            copy(&here, &there);
        } else {
            std::fs::copy(here, there).unwrap();
        }
    }
}

#[tokio::test]
async fn a_sandbox_that_can_not_be_saved_after_its_session_has_ended_is_kept() {
    let world = world();
    world.ready("one").await;
    world.down("one").await.unwrap();
    haunt(&world, "one").await;
    world.fake.fault("persist", Fault::Error(ErrorKind::Io), 2);
    world.down("one").await.unwrap();
    let found = only(&world).await;
    assert_eq!((found.finding, found.done), (Finding::SandboxLeft, false));
    assert!(found.error.unwrap().contains("persist"));
    assert_eq!(world.fake.sandboxes().len(), 1);
    world.fake.assert_no_violations();
}

/// A ledger that was restored from before a `down`.
#[tokio::test]
async fn a_session_whose_sandbox_was_destroyed_behind_its_ledgers_back_is_brought_to_its_end() {
    let world = world();
    world.ready("one").await;
    let session = world.session("one");
    world.fake.bury_sandbox(&session.sandbox_id);
    let found = only(&world).await;
    assert_eq!(
        (found.finding, found.done, found.state, found.error),
        (Finding::SandboxGone, true, Some(State::Stopped), None)
    );
    let summary = world.session("one").workspace_snapshot.unwrap();
    assert_eq!(summary["reason"], "workspace_lost");
}

#[tokio::test]
async fn a_session_that_waits_for_its_user_is_advanced_when_its_sandbox_is_gone() {
    for (method, waits, ends) in [
        ("persist", State::StoppedUnpersisted, State::Stopped),
        ("stop", State::CloseFailed, State::Stopped),
    ] {
        let world = world();
        world.ready("one").await;
        world.fake.fault(method, Fault::Error(ErrorKind::Io), 1);
        world.down("one").await.unwrap_err();
        assert_eq!(world.state("one"), Some(waits));
        world.fake.lose_sandbox(&world.session("one").sandbox_id);
        let found = only(&world).await;
        assert_eq!(
            (found.finding, found.done, found.state),
            (Finding::SandboxGone, true, Some(ends)),
            "{method}: {found:?}"
        );
        world.assert_sound("one");
    }
}

/// A ledger that is made anew in the place of one that was lost looks after the sandboxes of that one.
#[tokio::test]
async fn the_sandboxes_of_a_ledger_that_was_lost_are_saved_and_then_destroyed() {
    let mut world = world();
    world.ready("one").await;
    let sandbox = world.session("one").sandbox_id;
    world
        .fake
        .workspace_write(&sandbox, "work.txt", b"precious");
    let path = world.ledger_path();
    std::fs::remove_file(&path).unwrap();
    world.engine.ledger = Ledger::open(&path, Options::new()).unwrap();
    assert_eq!(only(&world).await.finding, Finding::Orphan);
    let files = world.fake.objects().remove(0).files.unwrap();
    assert_eq!(files["work.txt"], b"precious");
    world.engine.limits.quarantine = Duration::ZERO;
    assert!(only(&world).await.done);
    assert!(world.fake.sandboxes().is_empty());
    world.fake.assert_no_violations();
}

#[tokio::test]
async fn a_discard_that_was_cut_short_is_finished() {
    for kind in [ErrorKind::Io, ErrorKind::TooLarge] {
        let world = world();
        world.ready("one").await;
        world.fake.fault("persist", Fault::Error(kind), 1);
        world.down("one").await.unwrap_err();
        let refused = world.down("one").await.unwrap_err();
        let request = DownRequest {
            discard: refused.cause.rsplit(' ').next().map(str::to_owned),
            ..down_request(id("one").as_str())
        };
        world.fake.allow_loss(&world.session("one").sandbox_id);
        world.fake.fault("destroy", Fault::LostReplyHang, 1);
        let engine = world.engine.clone();
        let discarding = tokio::spawn(async move { engine.down(request).await });
        world.until(|| world.fake.sandboxes().is_empty()).await;
        discarding.abort();
        let _ = discarding.await;
        let found = world.engine.reconcile(all_mine()).await.unwrap();
        assert!(found.iter().all(|one| one.done), "{found:#?}");
        assert_eq!(world.state("one"), Some(State::Failed));
        world.assert_sound("one");
    }
}

/// The clock of a machine that was set back by an hour.
#[derive(Debug)]
struct Earlier;

impl Clock for Earlier {
    fn now(&self) -> Timestamp {
        Timestamp(SystemClock.now().0 - 3_600_000)
    }

    fn boot_ms(&self) -> u64 {
        SystemClock.boot_ms()
    }
}

#[tokio::test]
async fn a_stray_sandbox_is_saved_though_the_clock_was_set_back() {
    let mut world = world();
    world.ready("one").await;
    let path = world.ledger_path();
    std::fs::remove_file(&path).unwrap();
    let clock = Arc::new(Earlier);
    world.engine.env.clock = clock.clone();
    let options = Options {
        clock,
        ..Options::new()
    };
    world.engine.ledger = Ledger::open(&path, options).unwrap();
    world.engine.limits.quarantine = Duration::ZERO;
    let first = only(&world).await;
    assert_eq!((first.finding, first.error), (Finding::Orphan, None));
    assert!(only(&world).await.done);
    world.fake.assert_no_violations();
}

/// The ledger anew, and the engine, under this clock and in this boot.
fn boot(world: &mut World, clock: &TestClock, boot_id: &str) {
    let clock = Arc::new(clock.clone());
    let mut options = Options {
        clock: clock.clone(),
        ..Options::new()
    };
    options.holder.boot_id = boot_id.to_owned();
    world.engine.ledger.close();
    world.engine.ledger = Ledger::open(&world.ledger_path(), options).unwrap();
    world.engine.env.clock = clock;
}

#[tokio::test]
async fn the_grace_period_of_a_stray_sandbox_is_one_whole_period_though_the_clock_jumps() {
    const TEN_YEARS: i64 = 10 * 365 * 24 * 60 * 60 * 1000;
    // After a boot only the wall clock tells how long it was: one that was set forward ends the period.
    for (jump, boot_id) in [
        (TEN_YEARS, "first"),
        (-TEN_YEARS, "first"),
        (-TEN_YEARS, "second"),
        (-TEN_YEARS, ""),
    ] {
        let mut world = world();
        let clock = TestClock::in_memory();
        world.engine.limits.quarantine = Duration::from_secs(3600);
        boot(
            &mut world,
            &clock,
            if boot_id.is_empty() { "" } else { "first" },
        );
        let own = world.engine.ledger.id().to_owned();
        stray(&world, &own, "sbx_stray").await;
        let found = only(&world).await;
        assert_eq!((found.done, found.error), (false, None));
        boot(&mut world, &clock, boot_id);
        clock.jump(jump);
        assert!(!only(&world).await.done, "{jump} {boot_id}: at once");
        clock.advance(Duration::from_secs(3599));
        assert!(!only(&world).await.done, "{jump} {boot_id}: too early");
        clock.advance(Duration::from_secs(1));
        assert!(only(&world).await.done, "{jump} {boot_id}: never");
        world.fake.assert_no_violations();
    }
}
