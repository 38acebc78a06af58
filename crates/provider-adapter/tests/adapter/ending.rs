//! How a sandbox ends, and that its workspace is never lost on the way.

use crate::bent::{Bent, Fails};
use crate::world::{World, call, dropped_after, id, stop_request, world};
use alpine_plugin_template::{Config, Directories};
use alpine_provider_adapter::Adapted;
use alpine_provider_api::*;
use std::fs;

fn bent(world: &World, fails: Fails) -> Adapted<Bent> {
    let inner = Directories::new(Config::default(), &world.place);
    Adapted::new(Bent { inner, fails }, &world.place)
}

#[tokio::test]
async fn a_stop_stages_the_workspace_and_later_attempts_get_it() {
    let world = world(&[("a.txt", "one\n")]);
    assert!(world.provider().describe().await.unwrap().captures_in_stop);
    world.provision("sbx_a").await;
    world.sync("sbx_a").await.unwrap();
    world.sh("sbx_a", "echo work > mine").await;
    for _ in 0..2 {
        assert_eq!(
            world.stop("sbx_a", 1).await.unwrap(),
            StopReply { forced: false }
        );
    }
    assert_eq!(world.state("sbx_a").await, SandboxState::Exited);
    let first = world.capture("sbx_a", 1).await.unwrap();
    assert_eq!(world.capture("sbx_a", 1).await.unwrap(), first);
    // A later attempt gets what was staged, since nothing else can be had any more.
    assert_eq!(
        world.capture("sbx_a", 2).await.unwrap().digest,
        first.digest
    );
    world.stop("sbx_a", 1).await.unwrap();
    let object = world.persist("sbx_a", first.clone()).await;
    assert_eq!(world.persist("sbx_a", first.clone()).await, object);
    let request = ReadObjectRequest {
        durable_object_id: object.clone(),
    };
    let read = world
        .provider()
        .read_object(&call(1), request)
        .await
        .unwrap();
    assert_eq!(read.payload, r#"{"schema_version":"v1"}"#);
    assert_eq!(read.snapshot.unwrap().digest, first.digest);
    // It was stopped by a call: nothing starts it again.
    world.provision("sbx_a").await;
    assert_eq!(world.state("sbx_a").await, SandboxState::Exited);
    world.provision("sbx_b").await;
    world.restore("sbx_b", &object).await.unwrap();
    assert_eq!(world.sh("sbx_b", "cat mine a.txt").await.1, "work\none\n");
    for name in ["sbx_a", "sbx_a", "sbx_b"] {
        world.destroy(name).await.unwrap();
        assert_eq!(world.state(name).await, SandboxState::Missing);
    }
    assert!(!world.workspace("sbx_a").exists());
}

#[tokio::test]
async fn processes_are_asked_first_and_what_they_write_then_is_kept() {
    let world = world(&[]);
    world.provision("sbx_a").await;
    let script = "(trap 'echo last > last; exit' TERM; touch on; while :; do sleep 0.01; done) >/dev/null 2>&1 & \
        while ! [ -e on ]; do :; done";
    world.sh("sbx_a", script).await;
    world
        .sh("sbx_a", "(trap '' TERM; exec sleep 600) >/dev/null 2>&1 &")
        .await;
    world.stop("sbx_a", 1).await.unwrap();
    world.env.assert_no_processes(std::time::Duration::ZERO);
    let staged = world.capture("sbx_a", 1).await.unwrap();
    let object = world.persist("sbx_a", staged).await;
    world.provision("sbx_b").await;
    world.restore("sbx_b", &object).await.unwrap();
    assert_eq!(world.sh("sbx_b", "cat last").await.1, "last\n");
    world.destroy("sbx_a").await.unwrap();
    world.destroy("sbx_b").await.unwrap();
}

#[tokio::test]
async fn a_stop_that_is_dropped_anywhere_is_done_again_and_loses_nothing() {
    let world = world(&[("a.txt", "one\n")]);
    for steps in (0..12).chain([24, 48, 96]) {
        let name = format!("sbx_{steps}");
        world.provision(&name).await;
        world.sync(&name).await.unwrap();
        let provider = world.provider();
        let _ = dropped_after(steps, provider.stop(&call(1), stop_request(&name))).await;
        world.stop(&name, 1).await.unwrap();
        let staged = world.capture(&name, 1).await.unwrap();
        assert!(staged.entries > 3, "after {steps} steps: {staged:?}");
        world.destroy(&name).await.unwrap();
    }
}

#[tokio::test]
async fn a_workspace_that_cannot_be_staged_keeps_its_sandbox_and_what_was_staged_before() {
    let world = world(&[("a.txt", "one\n")]);
    world.provision("sbx_a").await;
    world.sync("sbx_a").await.unwrap();
    let first = world.capture("sbx_a", 1).await.unwrap();
    for fails in [Fails::TakeOut, Fails::TakeOutFindsNone, Fails::TakesOutHalf] {
        let error = bent(&world, fails)
            .stop(&call(1), stop_request("sbx_a"))
            .await
            .unwrap_err();
        assert_eq!(error.message, "it was told to fail");
        // Nothing that fails in a sandbox proves that it is gone.
        assert_eq!(error.kind, ErrorKind::Io);
        assert_eq!(world.state("sbx_a").await, SandboxState::Running);
        assert_eq!(world.capture("sbx_a", 1).await.unwrap(), first);
    }
    world.sh("sbx_a", "rm a.txt").await;
    world.stop("sbx_a", 1).await.unwrap();
    let later = world.capture("sbx_a", 2).await.unwrap();
    assert_eq!(later.entries, first.entries - 1);
    world.destroy("sbx_a").await.unwrap();
}

#[tokio::test]
async fn a_sandbox_that_died_is_started_for_its_workspace_or_it_is_an_error_and_not_a_loss() {
    let world = world(&[("a.txt", "one\n")]);
    for name in ["sbx_a", "sbx_b"] {
        world.provision(name).await;
        world.sync(name).await.unwrap();
        fs::remove_file(world.workspace(name).parent().unwrap().join("running")).unwrap();
        assert_eq!(world.state(name).await, SandboxState::Exited);
    }
    world.stop("sbx_a", 1).await.unwrap();
    assert!(world.capture("sbx_a", 1).await.unwrap().entries > 3);

    let broken = bent(&world, Fails::Provision);
    broken.stop(&call(1), stop_request("sbx_b")).await.unwrap();
    let request = CaptureRequest {
        sandbox_id: id("sbx_b"),
        generation: 1,
    };
    let error = broken.capture(&call(1), request).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Io);
    assert!(
        error
            .message
            .contains("ended before its workspace was read"),
        "{error}"
    );
    // Only what is provably gone is lost.
    fs::remove_dir_all(world.workspace("sbx_b").parent().unwrap()).unwrap();
    let error = world.capture("sbx_b", 1).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::WorkspaceLost);
    assert_eq!(
        world.stop("sbx_b", 1).await.unwrap_err().kind,
        ErrorKind::NotFound
    );
    // What is staged outlives its sandbox.
    fs::remove_dir_all(world.workspace("sbx_a").parent().unwrap()).unwrap();
    assert_eq!(world.state("sbx_a").await, SandboxState::Exited);
    assert!(world.capture("sbx_a", 2).await.unwrap().entries > 3);
    world.destroy("sbx_a").await.unwrap();
    world.destroy("sbx_b").await.unwrap();
}

#[tokio::test]
async fn what_cannot_be_kept_is_told() {
    let world = world(&[]);
    world.provision("sbx_a").await;
    let script = "python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind(\"sock\")' && mkfifo fifo && ln -s /etc out";
    assert_eq!(world.sh("sbx_a", script).await.0, ExecReply::Exited(0));
    world.stop("sbx_a", 1).await.unwrap();
    let staged = world.capture("sbx_a", 1).await.unwrap();
    let told: Vec<_> = staged.left_out.iter().map(|it| it.path.as_str()).collect();
    assert_eq!((told, staged.entries), (vec!["workspace/sock"], 3));
    world.destroy("sbx_a").await.unwrap();
}

#[tokio::test]
async fn a_damaged_staged_snapshot_is_found_out() {
    let world = world(&[("a.txt", "one\n")]);
    world.provision("sbx_a").await;
    world.sync("sbx_a").await.unwrap();
    world.stop("sbx_a", 1).await.unwrap();
    let staged = world.capture("sbx_a", 1).await.unwrap();
    let record = world.place.state.join("records/sbx_a/staged");
    let path = record.join(format!("{}.tar.zst", staged.staging_id));
    let mut text = fs::read(&path).unwrap();
    text[100] ^= 1;
    fs::write(&path, text).unwrap();
    let error = world.capture("sbx_a", 1).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Io);
    assert!(error.message.contains("is damaged"), "{error}");
    world.destroy("sbx_a").await.unwrap();
}
