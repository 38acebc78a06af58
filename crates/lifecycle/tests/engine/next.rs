//! What is to be done next with a session, as `list` and `status` tell it.

use crate::common::{ANEW, World, id, up_request, world};
use alpine_ledger::State;
use alpine_lifecycle::{ErrorCode, UpRequest, next_step};
use alpine_testkit::Fault;

fn next(world: &World, request: &str) -> Option<String> {
    let session = world.session(request);
    let read = world
        .engine
        .ledger
        .read(|snapshot| next_step(snapshot, &session.summary()));
    read.unwrap()
}

#[tokio::test]
async fn an_up_that_does_well_is_looked_at_and_one_that_died_is_carried_on() {
    let world = world();
    world.fake.fault("install", Fault::Hang, 1);
    let up = world
        .background_up("one", State::Installing, "install")
        .await;
    let look = format!("alpine status {}", id("one"));
    assert_eq!(next(&world, "one"), Some(look), "it is under way");
    up.abort();
    let _ = up.await;
    let again = ANEW.replace("--agent", "--client-request-id one --agent");
    assert_eq!(next(&world, "one"), Some(again), "its process died");
    let cancelled = world
        .engine
        .ledger
        .write(|tx| tx.request_cancel(&id("one"), "me"));
    assert!(cancelled.unwrap());
    let down = format!("alpine down {}", id("one"));
    assert_eq!(next(&world, "one"), Some(down), "it was cancelled");
    world.down("one").await.unwrap();
    assert_eq!(next(&world, "one"), None, "it is over");
}

#[tokio::test]
async fn a_name_that_another_session_bears_ends_nobodys_work() {
    let world = world();
    let named = |request: &str| UpRequest {
        name: Some("mine".to_owned()),
        ..up_request(request)
    };
    world.engine.up(named("one")).await.unwrap();
    let failure = world.engine.up(named("two")).await.unwrap_err();
    assert_eq!(failure.code, ErrorCode::Usage);
    assert_eq!(failure.next_step, format!("alpine status {}", id("one")));
}
