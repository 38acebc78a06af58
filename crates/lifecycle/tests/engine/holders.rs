//! Who holds a session: another host, an earlier boot, a holder that comes back too late.

use crate::common::*;
use alpine_ledger::{Holder, Ledger, Options, State};
use alpine_lifecycle::*;
use alpine_testkit::{Fault, TestClock};
use std::sync::Arc;
use std::time::Duration;

/// The same world as a process on that host, since that boot, sees it.
fn seen_from(world: &World, host: &str, boot_id: &str, clock: &TestClock) -> Engine {
    let options = Options {
        lease: world.engine.limits.lease,
        clock: Arc::new(clock.clone()),
        holder: Holder {
            host: host.to_owned(),
            boot_id: boot_id.to_owned(),
            ..Holder::this_process()
        },
        ..Options::new()
    };
    let path = world.fake_directory().with_file_name("ledger.redb");
    let mut engine = world.engine.clone();
    engine.ledger = Ledger::open(&path, options).unwrap();
    engine.env.clock = Arc::new(clock.clone());
    // The late holder is still at it when the other has done all.
    engine.limits.install = Duration::from_secs(20);
    engine
}

/// An `up` of that engine, whose install step takes a second.
async fn slow_up(
    world: &World,
    engine: &Engine,
) -> tokio::task::JoinHandle<Result<UpOutcome, Failure>> {
    world.fake.fault("install", Fault::Delay { ms: 1000 }, 1);
    let engine = engine.clone();
    let up = tokio::spawn(async move { engine.up(up_request("one")).await });
    world.until(|| world.fake.count("install") > 0).await;
    up
}

fn down_one() -> DownRequest {
    down_request(id("one").as_str())
}

/// The late holder ends, and all is as the other has left it.
async fn changes_nothing(world: &World, late: tokio::task::JoinHandle<Result<UpOutcome, Failure>>) {
    let before = (world.session("one"), world.operations("one"));
    let failure = late.await.unwrap().unwrap_err();
    assert_eq!(failure.code, ErrorCode::OperationConflict, "{failure}");
    assert_eq!(before, (world.session("one"), world.operations("one")));
    assert_eq!(world.fake.count("start_agent"), 0);
    world.assert_sound("one");
}

#[tokio::test]
async fn another_hosts_session_is_taken_over_when_its_lease_has_expired_by_the_wall_clock() {
    let (world, clock) = (world(), TestClock::in_memory());
    let (here, there) = (
        seen_from(&world, "here", "boot-1", &clock),
        seen_from(&world, "there", "boot-2", &clock),
    );
    let late = slow_up(&world, &there).await;
    let refused = here.down(down_one()).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::OperationConflict);
    assert_eq!(here.reconcile(mine()).await.unwrap(), []);
    clock.advance(world.engine.limits.lease + Duration::from_secs(1));
    let outcome = here.down(down_one()).await.unwrap();
    assert_eq!(outcome.state, State::Failed);
    changes_nothing(&world, late).await;
}

#[tokio::test]
async fn a_session_of_an_earlier_boot_is_taken_over_at_once() {
    let (world, clock) = (world(), TestClock::in_memory());
    let (before, now) = (
        seen_from(&world, "here", "boot-1", &clock),
        seen_from(&world, "here", "boot-2", &clock),
    );
    let late = slow_up(&world, &before).await;
    let outcome = now.down(down_one()).await.unwrap();
    assert_eq!(outcome.state, State::Failed);
    changes_nothing(&world, late).await;
}

#[tokio::test]
async fn a_jump_of_the_wall_clock_takes_nothing_from_a_holder_of_this_boot() {
    let (world, clock) = (world(), TestClock::in_memory());
    let here = seen_from(&world, "here", "boot-1", &clock);
    let up = slow_up(&world, &here).await;
    for jump in [365, -2 * 365] {
        clock.jump(jump * 24 * 60 * 60 * 1000);
        let refused = here.down(down_one()).await.unwrap_err();
        assert_eq!(refused.code, ErrorCode::OperationConflict);
        assert_eq!(here.reconcile(mine()).await.unwrap(), []);
    }
    up.await.unwrap().unwrap();
    assert_eq!(here.down(down_one()).await.unwrap().state, State::Stopped);
    world.assert_sound("one");
}

fn mine() -> ReconcileRequest {
    ReconcileRequest {
        caller: me(),
        session: None,
        all: false,
        dry_run: false,
    }
}

/// However long it took until then, and whatever the wall clock says.
#[tokio::test]
async fn the_time_that_an_up_is_left_to_its_request_begins_when_nobody_works_on_it_any_more() {
    for is_killed in [false, true] {
        let (world, clock) = (world(), TestClock::in_memory());
        let mut here = seen_from(&world, "here", "boot-1", &clock);
        let (raise, raised) = tokio::sync::watch::channel(None);
        here.interrupt = Interrupt::new(raised);
        let up = slow_up(&world, &here).await;
        here.interrupt = Interrupt::never();
        let (abandon, second) = (here.limits.abandon, Duration::from_secs(1));
        if is_killed {
            up.abort();
            let _ = up.await;
            clock.jump(i64::try_from(2 * abandon.as_millis()).unwrap());
        } else {
            clock.advance(2 * abandon);
            raise.send(Some(Signal::Term)).unwrap();
            up.await.unwrap().unwrap_err();
        }
        let found = |report: Vec<Reconciled>| report[0].finding;
        let report = here.reconcile(mine()).await.unwrap();
        assert_eq!(found(report), Finding::InterruptedUp, "{is_killed}");
        clock.advance(abandon + second);
        let report = here.reconcile(mine()).await.unwrap();
        assert_eq!(found(report), Finding::AbandonedUp, "{is_killed}");
        world.assert_sound("one");
    }
}
