//! The program is killed at every step, before, in and after it: nothing is stuck, lost or orphaned.

use crate::support::{World, text, with_json};
use alpine_ledger::{OperationState, SessionId};
use alpine_testkit::{Fault, KillPoint};
use std::os::unix::fs::PermissionsExt;

const UP: [&str; 5] = [
    "provision",
    "sync_repo",
    "install",
    "start_agent",
    "inspect",
];
const DOWN: [&str; 5] = ["stop", "capture", "persist", "read_object", "destroy"];

/// Every method and every point at which its caller is killed.
fn points(methods: &[&'static str]) -> Vec<(&'static str, KillPoint)> {
    let each = |method: &&'static str| KillPoint::ALL.map(|point| (*method, point));
    methods.iter().flat_map(each).collect()
}

/// Kills the program in its next call of a method.
fn kill(world: &World, (method, point): (&str, KillPoint), arguments: &[&str]) {
    world
        .fake()
        .fault_in_up(method, Fault::KillCaller(point), 1);
    let output = world.run(&with_json(arguments));
    assert_eq!(output.code(), None, "{method} {point:?}: {output:#?}");
}

/// Nothing runs, nothing is allocated, no operation is open, and no request is done twice.
fn assert_settled(world: &World, session: &str, what: &str) {
    assert_eq!(world.fake().sandboxes(), [], "{what}");
    let id = SessionId::from_recorded(session);
    let operations = world.ledger(|snapshot| snapshot.operations(&id));
    for operation in &operations {
        assert!(
            matches!(
                operation.state,
                OperationState::Succeeded | OperationState::Failed
            ),
            "{what}: {operation:#?}"
        );
    }
    let open = world.ledger(|snapshot| snapshot.open_operations());
    assert_eq!(open, [], "{what}");
    assert_eq!(world.status(session)["lease"], serde_json::Value::Null);
}

fn session_of(id: &str) -> String {
    SessionId::derive("tester", id).to_string()
}

#[test]
fn the_same_request_finishes_an_up_that_was_killed() {
    let world = World::new();
    for point in points(&UP) {
        let id = format!("up-{}-{:?}", point.0, point.1);
        kill(&world, point, &world.up(&id));
        let session = session_of(&id);
        let stuck = text(&world.status(&session), "operation_id");
        let up = world.done(&world.up(&id));
        assert_eq!(up["state"], "ready", "{point:?}: {up:#}");
        assert_eq!(text(&up, "operation_id"), stuck, "{point:?}: the same one");
        let down = world.done(&["down", &session]);
        assert_eq!(down["state"], "stopped", "{point:?}: {down:#}");
        assert_settled(&world, &session, &id);
    }
}

#[test]
fn down_ends_an_up_that_was_killed() {
    let world = World::new();
    for point in points(&UP) {
        let id = format!("up-{}-{:?}", point.0, point.1);
        kill(&world, point, &world.up(&id));
        let session = session_of(&id);
        let down = world.done(&["down", &session]);
        assert_eq!(down["state"], "failed", "{point:?}: {down:#}");
        assert_settled(&world, &session, &id);
        // The request id is used up, and says so for ever.
        let failure = world.fails(&world.up(&id), "ERR_INTERRUPTED", 1);
        assert_eq!(failure["retryable"], false, "{failure:#}");
    }
}

#[test]
fn a_down_that_was_killed_is_finished_without_losing_a_byte() {
    let world = World::new();
    for point in points(&DOWN) {
        let id = format!("down-{}-{:?}", point.0, point.1);
        let session = world.ready(&id);
        let sandbox = world.fake().sandboxes().remove(0).id;
        let work = format!("the work of {id}");
        world
            .fake()
            .workspace_write(&sandbox, "src/work.txt", work.as_bytes());
        kill(&world, point, &["down", &session]);
        let down = world.done(&["down", &session]);
        assert_eq!(down["state"], "stopped", "{point:?}: {down:#}");
        assert_eq!(down["persistence_verified"], true, "{point:?}: {down:#}");
        let object = text(&down, "durable_object_id");
        let objects = world.fake().objects();
        let object = objects.iter().find(|one| one.id == object).expect("it");
        let files = object.files.as_ref().expect("its workspace");
        assert_eq!(files["src/work.txt"], work.as_bytes(), "{point:?}");
        assert_settled(&world, &session, &id);
        assert_eq!(world.done(&["down", &session]), down, "{point:?}");
    }
}

#[test]
fn a_program_that_is_killed_again_and_again_gets_there_in_the_end() {
    let world = World::new();
    for point in points(&UP) {
        kill(&world, point, &world.up("unlucky"));
    }
    let session = world.ready("unlucky");
    for point in points(&DOWN) {
        kill(&world, point, &["down", &session]);
    }
    let down = world.done(&["down", &session]);
    assert_eq!(down["state"], "stopped", "{down:#}");
    assert_eq!(world.fake().objects().len(), 1, "one object: {down:#}");
    assert_settled(&world, &session, "unlucky");
}

#[test]
fn a_program_that_ends_by_itself_leaves_nothing_to_be_repaired() {
    let world = World::new();
    // What has to be repaired can't be read without being written.
    let assert_whole = |what: &str| {
        let mode = |mode| {
            let mode = std::fs::Permissions::from_mode(mode);
            std::fs::set_permissions(world.ledger_path(), mode).expect("a mode");
        };
        mode(0o400);
        let listed = world.run(&["list", "--json"]);
        assert_eq!(listed.code(), Some(0), "{what}: {listed:#?}");
        mode(0o600);
    };
    for id in ["one", "two", "three", "four", "five", "six"] {
        let session = world.ready(id);
        assert_whole("up");
        world.done(&["down", &session]);
        assert_whole("down");
    }
}
