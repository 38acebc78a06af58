//! The install step.

use crate::support::{PLANTED, until, world};
use alpine_provider_api::*;
use std::fs;

fn setup(command: &str) -> String {
    format!("[setup]\ninstall = '''{command}'''\n")
}

#[tokio::test]
async fn nothing_to_install_is_no_failure() {
    let world = world();
    world.filled(&[("a.txt", "one")]).await;
    let reply = world.install().await.unwrap();
    assert_eq!((reply.command, reply.found_by), (None, None));
}

#[tokio::test]
async fn an_install_that_was_done_is_not_done_again() {
    let world = world();
    let command = "echo out; echo err >&2; echo x >> done";
    world.filled(&[(".alpine.toml", &setup(command))]).await;
    for _ in 0..2 {
        let reply = world.install().await.unwrap();
        assert_eq!(reply.command.as_deref(), Some(command));
        assert_eq!(reply.found_by.as_deref(), Some(".alpine.toml"));
    }
    assert_eq!(
        fs::read_to_string(world.workspace().join("done")).unwrap(),
        "x\n"
    );
    let log = world.log("install.log");
    assert!(log.contains("Z out\n") && log.contains("Z err\n"), "{log}");
    // A supervisor that was started again knows it too.
    world.kill_supervisor();
    world.install().await.unwrap();
    assert_eq!(
        fs::read_to_string(world.workspace().join("done")).unwrap(),
        "x\n"
    );
}

#[tokio::test]
async fn a_failed_install_gives_its_last_lines_and_no_secret() {
    let world = world();
    let command = format!("seq 1 30; echo key {PLANTED}; exit 3");
    world.filled(&[(".alpine.toml", &setup(&command))]).await;
    let error = world.install().await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::InstallFailed);
    assert!(error.message.contains("exited with status 3"), "{error}");
    assert_eq!(error.log_tail.len(), 20);
    assert_eq!(error.log_tail[18], "30");
    assert_eq!(error.log_tail[19], "key [redacted]");
    assert!(!world.log("install.log").contains(PLANTED));
    // It is tried again, not remembered.
    fs::write(world.workspace().join(".alpine.toml"), setup("true")).unwrap();
    world.install().await.unwrap();
}

#[tokio::test]
async fn a_tool_that_is_missing_is_named() {
    let world = world();
    world
        .filled(&[(
            ".alpine.toml",
            "setup.install = ['alpine-no-such-tool', 'x']",
        )])
        .await;
    let error = world.install().await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::InstallFailed);
    assert!(
        error
            .message
            .contains("`alpine-no-such-tool` is not installed here"),
        "{error}"
    );
}

#[tokio::test]
async fn a_malformed_file_is_the_repositorys_fault() {
    let world = world();
    world
        .filled(&[(".alpine.toml", "[network]\nmode = 'full'\n")])
        .await;
    let error = world.install().await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::ConfigInvalid);
    assert!(error.message.contains("line 1"), "{error}");
}

#[tokio::test]
async fn a_run_that_is_under_way_is_joined() {
    let world = world();
    let command = "echo x >> runs; while ! test -e go; do sleep 0.01; done";
    world.filled(&[(".alpine.toml", &setup(command))]).await;
    let release = async {
        let runs = world.workspace().join("runs");
        while !runs.exists() {
            tokio::task::yield_now().await;
        }
        // The second caller has certainly asked by the time this command has run.
        world.sh("touch go").await.reply.unwrap();
    };
    let (one, two, ()) = tokio::join!(world.install(), world.install(), release);
    assert_eq!(one.unwrap(), two.unwrap());
    assert_eq!(
        fs::read_to_string(world.workspace().join("runs")).unwrap(),
        "x\n"
    );
}

#[tokio::test]
async fn an_install_that_nobody_waits_for_is_ended_and_begins_anew() {
    let world = world();
    let command = "echo $$ > pid; test -e go || sleep 1000";
    world.filled(&[(".alpine.toml", &setup(command))]).await;
    let pid = world.workspace().join("pid");
    let begun = async {
        while fs::read_to_string(&pid).unwrap_or_default().is_empty() {
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
    };
    tokio::select! {
        _ = world.install() => panic!("it can't end"),
        () = begun => {}
    }
    let first: u32 = fs::read_to_string(&pid).unwrap().trim().parse().unwrap();
    until("the install step ends", || !crate::support::lives(first));
    fs::write(world.workspace().join("go"), "").unwrap();
    world.install().await.unwrap();
    assert_ne!(fs::read_to_string(&pid).unwrap().trim(), first.to_string());
}
