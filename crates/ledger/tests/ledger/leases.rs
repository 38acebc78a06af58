//! Who may take a lease, and when.

use crate::world::{BEGUN, World, error, kind, request};
use alpine_ledger::{Admission, Grant, Holder, Ledger, Liveness, SessionId, State};
use rustix::fs::FlockOperation;
use std::fs::File;
use std::process::{Command, Stdio};
use std::time::Duration;

fn liveness(ledger: &Ledger, id: &SessionId) -> Liveness {
    ledger
        .read(|snapshot| Ok(snapshot.holder_is_live(&snapshot.lease(id)?.unwrap())))
        .unwrap()
}

fn up_by(ledger: &Ledger) -> Grant {
    match ledger
        .write(|tx| tx.admit(&request("me", "r1"), "fingerprint", "sbx_1", "me"))
        .unwrap()
    {
        Admission::Run(grant) | Admission::Resume(grant) => grant,
        other @ (Admission::Replay(..) | Admission::Wait(..) | Admission::Conflict(_)) => {
            panic!("{other:?}")
        }
    }
}

#[test]
fn a_holder_is_live_until_its_lease_expires_by_boot_time() {
    let world = World::new();
    let grant = up_by(&world.ledger);
    let id = grant.session.session_id.clone();
    let other = world.other(|_| {});
    world.clock.advance(Duration::from_millis(29_999));
    assert_eq!(liveness(&other, &id), Liveness::Live);
    world.clock.advance(Duration::from_millis(1));
    assert_eq!(liveness(&other, &id), Liveness::Expired);
    world.ledger.write(|tx| tx.renew(&grant.token)).unwrap();
    assert_eq!(liveness(&other, &id), Liveness::Live);
}

#[test]
fn a_jump_of_the_wall_clock_evicts_nobody_on_the_same_boot() {
    let world = World::new();
    let grant = up_by(&world.ledger);
    world.clock.advance_wall(Duration::from_secs(86_400));
    assert_eq!(
        liveness(&world.other(|_| {}), &grant.session.session_id),
        Liveness::Live
    );
}

#[test]
fn an_expired_holder_is_fenced_when_it_wakes_up() {
    let world = World::new();
    let stopped = up_by(&world.ledger);
    world.clock.advance(Duration::from_secs(31));
    let taker = up_by(&world.other(|_| {}));
    assert_eq!(taker.token.fence, stopped.token.fence + 1);
    for error in [
        world
            .ledger
            .write(|tx| tx.renew(&stopped.token))
            .unwrap_err(),
        world
            .ledger
            .write(|tx| tx.release(&stopped.token))
            .unwrap_err(),
        world
            .ledger
            .write(|tx| tx.interrupt(&stopped.token, &error("ERR_TIMEOUT")))
            .unwrap_err(),
        world
            .ledger
            .write(|tx| tx.update(&stopped.token, |_| {}))
            .unwrap_err(),
        world
            .ledger
            .write(|tx| tx.transition(&stopped.token, State::Provisioning, "late", |_| {}))
            .unwrap_err(),
        world
            .ledger
            .write(|tx| tx.finish(&stopped.token, &crate::world::succeeded()))
            .unwrap_err(),
    ] {
        assert_eq!(kind(&error), "fenced");
    }
    // What the late holder lets go of is its own lock, not that of the taker.
    drop(stopped.lock);
    assert_eq!(
        liveness(&world.ledger, &taker.session.session_id),
        Liveness::Live
    );
    assert_eq!(
        world.locks(),
        [format!(
            "{}.{}.lock",
            taker.operation.operation_id, taker.token.fence
        )]
    );
}

#[test]
fn a_released_lease_is_free_and_its_operation_stays_open() {
    let world = World::new();
    let grant = up_by(&world.ledger);
    let id = grant.session.session_id.clone();
    world.ledger.write(|tx| tx.release(&grant.token)).unwrap();
    assert_eq!(liveness(&world.ledger, &id), Liveness::Released);
    assert_eq!(
        world
            .ledger
            .read(|snapshot| snapshot.open_operations_of(&id))
            .unwrap()
            .len(),
        1
    );
    assert_eq!(
        kind(&world.ledger.write(|tx| tx.renew(&grant.token)).unwrap_err()),
        "fenced"
    );
    assert!(matches!(
        world.admit(&request("me", "r1")),
        Admission::Resume(_)
    ));
}

#[test]
fn a_holder_of_an_earlier_boot_is_dead() {
    let world = World::new();
    let before = world.other(|options| options.holder.boot_id = "earlier".to_owned());
    let grant = up_by(&before);
    assert_eq!(
        liveness(&world.ledger, &grant.session.session_id),
        Liveness::Dead
    );
    assert!(matches!(
        world.admit(&request("me", "r1")),
        Admission::Resume(_)
    ));
}

#[test]
fn a_holder_on_another_host_expires_by_the_wall_clock() {
    let world = World::new();
    let there = world.other(|options| {
        options.holder = Holder {
            host: "there".to_owned(),
            boot_id: "b".to_owned(),
            pid: 1,
            start_time: 1,
        };
    });
    let grant = up_by(&there);
    let id = grant.session.session_id.clone();
    drop(grant.lock);
    assert_eq!(liveness(&world.ledger, &id), Liveness::Live);
    world.clock.advance_wall(Duration::from_secs(30));
    assert_eq!(liveness(&world.ledger, &id), Liveness::Expired);
}

#[test]
fn a_recycled_pid_holds_nothing() {
    let world = World::new();
    // The pid is alive (it is ours) but the process that took the lease is gone, and so is its lock.
    let earlier = world.other(|options| options.holder.start_time += 1);
    let grant = up_by(&earlier);
    drop(grant.lock);
    assert_eq!(
        liveness(&world.ledger, &grant.session.session_id),
        Liveness::Dead
    );
}

#[test]
fn a_lock_file_that_was_left_behind_holds_nothing() {
    let world = World::new();
    let grant = up_by(&world.ledger);
    let id = grant.session.session_id.clone();
    let path = world.dir.path().join("ops").join(world.locks().remove(0));
    drop(grant.lock);
    let left = File::create(&path).unwrap();
    assert_eq!(liveness(&world.ledger, &id), Liveness::Dead);
    rustix::fs::flock(&left, FlockOperation::NonBlockingLockExclusive).unwrap();
    assert_eq!(liveness(&world.ledger, &id), Liveness::Live);
    drop(left);
    assert_eq!(liveness(&world.ledger, &id), Liveness::Dead);
    let again = up_by(&world.ledger);
    assert_eq!(
        world.locks(),
        [format!(
            "{}.{}.lock",
            again.operation.operation_id, again.token.fence
        )]
    );
}

#[test]
fn an_aborted_admission_leaves_no_lease_and_no_lock() {
    let world = World::new();
    let aborted = world.ledger.write(|tx| {
        let admission = tx.admit(&request("me", "r1"), "fingerprint", "sbx_1", "me")?;
        assert!(matches!(admission, Admission::Run(_)));
        Err::<(), _>(alpine_ledger::LedgerError::NotFound {
            id: "a reason to stop".to_owned(),
        })
    });
    assert_eq!(kind(&aborted.unwrap_err()), "not_found");
    assert!(world.locks().is_empty());
    assert_eq!(
        world
            .ledger
            .read(|snapshot| snapshot.events_after(0, 10))
            .unwrap(),
        []
    );
    assert!(up_by(&world.ledger).token.fence > BEGUN);
}

#[test]
fn child_processes_inherit_neither_lock_nor_ledger() {
    let world = World::new();
    let grant = up_by(&world.ledger);
    let mut child = Command::new("cat")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let open: Vec<_> = std::fs::read_dir(format!("/proc/{}/fd", child.id()))
        .unwrap()
        .filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok())
        .filter(|path| path.starts_with(world.dir.path()))
        .collect();
    drop(child.stdin.take());
    child.wait().unwrap();
    assert!(open.is_empty(), "{open:?}");
    drop(grant);
}
