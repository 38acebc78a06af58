//! What a destroyed sandbox held is deleted, by whom and whenever that may be.

use crate::support::{World, quiet, until, world};
use alpine_provider_api::*;
use alpine_provider_local::LocalProvider;
use std::fs;
use std::path::PathBuf;
use tokio::sync::mpsc;

/// What a remover that was killed left.
fn left(world: &World, name: &str) -> PathBuf {
    let tree = world.config.home.join("sandboxes/.removing").join(name);
    fs::create_dir_all(tree.join("workspace/inner")).unwrap();
    fs::write(tree.join("workspace/inner/file"), "x").unwrap();
    tree
}

#[tokio::test]
async fn a_large_sandbox_is_gone_at_once_and_deleted_in_the_end() {
    let world = world();
    world.provision().await;
    for folder in 0..40 {
        let folder = world.workspace().join(folder.to_string());
        fs::create_dir(&folder).unwrap();
        for file in 0..500 {
            fs::write(folder.join(file.to_string()), "x").unwrap();
        }
    }
    world.destroy(1).await.unwrap();
    assert!(!world.dir().exists());
    assert_eq!(world.state().await, SandboxState::Missing);
    until("all is deleted", || world.removing().is_empty());
}

#[tokio::test]
async fn what_a_killed_remover_left_is_deleted_by_whoever_comes() {
    let world = world();
    world.provision().await;
    left(&world, "other.00000001");
    world.provision().await;
    until("a provision has it deleted", || world.removing().is_empty());
    left(&world, "other.00000002");
    let ledger_id = "ledger-1".to_owned();
    world
        .provider
        .list(&quiet(), ListRequest { ledger_id })
        .await
        .unwrap();
    until("a list has it deleted", || world.removing().is_empty());
    left(&world, "other.00000003");
    world.destroy(1).await.unwrap();
    until("a destroy has it deleted", || world.removing().is_empty());
    let own = format!("{}.00000004", world.id);
    let own = left(&world, &own);
    world.destroy(1).await.unwrap();
    assert!(!own.exists(), "what is left of the sandbox itself");
}

#[tokio::test]
async fn without_a_remover_the_call_deletes_by_itself() {
    let world = world();
    world.provision().await;
    world.stop(0).await.unwrap();
    let tree = left(&world, "other.00000001");
    let provider = LocalProvider::new(alpine_provider_local::LocalConfig {
        executable: "/nowhere/alpine".into(),
        ..world.config.clone()
    });
    let ledger_id = "ledger-1".to_owned();
    provider
        .list(&quiet(), ListRequest { ledger_id })
        .await
        .unwrap();
    assert!(!tree.exists());
}

#[tokio::test]
async fn what_could_not_be_deleted_is_warned_of() {
    let world = world();
    world.provision().await;
    let tree = left(&world, "other.00000001");
    let held = fs::File::open(&tree).unwrap();
    rustix::fs::flock(&held, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let note = tree.with_extension("00000001.why");
    fs::write(&note, "`file`: not permitted").unwrap();
    let (events, mut said) = mpsc::channel(4);
    let call = Call::new(quiet().meta, events);
    world
        .provider
        .provision(&call, world.provision_request())
        .await
        .unwrap();
    let Some(CallEvent::Warning(text)) = said.recv().await else {
        panic!("no warning");
    };
    assert!(
        text.contains("`file`: not permitted; to delete it: sudo rm -rf '/"),
        "{text}"
    );
    drop(held);
    world.provision().await;
    until("tree and note are deleted", || world.removing().is_empty());
}

#[tokio::test]
async fn what_is_deleted_after_all_is_not_warned_of() {
    let world = world();
    world.provision().await;
    world.destroy(1).await.unwrap();
    // They are found in no order.
    for number in 0..10 {
        let tree = left(&world, &format!("{}.{number:08}", world.id));
        let note = tree.with_extension(format!("{number:08}.why"));
        fs::write(note, "`file`: not permitted").unwrap();
    }
    let (events, mut said) = mpsc::channel(20);
    let mut meta = quiet().meta;
    meta.fence = 1;
    let call = Call::new(meta, events);
    let request = DestroyRequest {
        sandbox_id: world.id.clone(),
    };
    world.provider.destroy(&call, request).await.unwrap();
    drop(call);
    assert!(said.recv().await.is_none(), "a warning");
    // What a moment was too short for is the remover's.
    until("all is deleted", || world.removing().is_empty());
}
