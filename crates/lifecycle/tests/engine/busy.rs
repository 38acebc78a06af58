//! A ledger that another process keeps locked, and a lease that another takes.

use crate::common::{COMMIT, World, down_request, id, up_request, world};
use alpine_ledger::{Clock, Ledger, Options, State, SystemClock, Timestamp};
use alpine_lifecycle::*;
use alpine_provider_api::*;
use alpine_testkit::Fault;
use async_trait::async_trait;
use std::io::{BufRead, BufReader, Lines};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{Notify, mpsc};

const LEDGER: &str = "ALPINE_LIFECYCLE_TEST_LEDGER";

/// A process that is stopped while it writes to the ledger: this test binary runs itself again.
struct Writer {
    child: Child,
    /// Kept, so that the test runner in there can go on to say how it went.
    _said: Lines<BufReader<ChildStdout>>,
}

impl Writer {
    fn stopped(ledger: &Path) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "busy::what_the_writer_does", "--nocapture"])
            .env(LEDGER, ledger)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(said.any(|line| line.unwrap().ends_with("@writing")));
        let stdin = child.stdin.take();
        let writer = Self { child, _said: said };
        writer.signal("STOP");
        // The end of its input ends its transaction, as soon as it may go on.
        drop(stdin);
        writer
    }

    fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args(["-s", name, &pid]).status();
        assert!(sent.unwrap().success());
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
#[expect(
    clippy::disallowed_methods,
    reason = "it is told by a variable which ledger to lock"
)]
fn what_the_writer_does() {
    let Some(path) = std::env::var_os(LEDGER) else {
        // Not the writer: the test itself.
        return;
    };
    let ledger = Ledger::open(&PathBuf::from(path), Options::new()).unwrap();
    let written = ledger.write(|_| {
        println!("@writing");
        let _ = std::io::stdin().lines().count();
        Ok(())
    });
    written.unwrap();
    ledger.close();
}

/// An engine that waits a tenth of a second for the ledger at a time, and its news.
fn impatient() -> (World, mpsc::UnboundedReceiver<Progress>) {
    let mut world = world();
    let options = Options {
        lock_timeout: Duration::from_millis(100),
        ..Options::new()
    };
    world.engine.ledger = Ledger::open(&world.ledger_path(), options).unwrap();
    let (sender, news) = mpsc::unbounded_channel();
    world.engine.watch = Watch::new(sender);
    (world, news)
}

async fn until_busy(news: &mut mpsc::UnboundedReceiver<Progress>, times: usize) {
    for _ in 0..times {
        while !matches!(news.recv().await.unwrap(), Progress::Busy { .. }) {}
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_writer_that_is_stopped_for_a_while_fails_nothing() {
    let (world, mut news) = impatient();
    let writer = Writer::stopped(&world.ledger_path());
    let engine = world.engine.clone();
    let up = tokio::spawn(async move { engine.up(up_request("one")).await });
    until_busy(&mut news, 3).await;
    writer.signal("CONT");
    let up = up.await.unwrap().unwrap();
    assert_eq!(up.session.state, State::Ready);
    drop(writer);

    let writer = Writer::stopped(&world.ledger_path());
    let engine = world.engine.clone();
    let down = tokio::spawn(async move { engine.down(down_request(id("one").as_str())).await });
    until_busy(&mut news, 3).await;
    writer.signal("CONT");
    assert_eq!(down.await.unwrap().unwrap().state, State::Stopped);
    world.assert_sound("one");
}

/// A remote that answers when it is told to.
#[derive(Debug, Default)]
struct Gate(Notify);

#[async_trait]
impl Tips for Gate {
    async fn tip(
        &self,
        _: &RepoUrl,
        _: &BranchName,
        _: Option<&GitCredential>,
    ) -> Result<CommitId, ProviderError> {
        self.0.notified().await;
        Ok(CommitId::new(COMMIT).unwrap())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_that_is_done_is_recorded_when_the_ledger_is_free_again() {
    let (mut world, mut news) = impatient();
    let gate = Arc::new(Gate::default());
    world.engine.tips = gate.clone();
    world.engine.limits.sync = Duration::from_secs(20);
    let up = world.background_up("one", State::Requested, "").await;
    let writer = Writer::stopped(&world.ledger_path());
    gate.0.notify_one();
    until_busy(&mut news, 2).await;
    writer.signal("CONT");
    assert_eq!(up.await.unwrap().unwrap().session.state, State::Ready);
    assert_eq!(world.operations("one").len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_the_deadline_a_busy_ledger_is_unavailable() {
    let (world, _news) = impatient();
    let writer = Writer::stopped(&world.ledger_path());
    let request = UpRequest {
        timeout: Some(Duration::from_millis(350)),
        ..up_request("one")
    };
    let failure = world.engine.up(request).await.unwrap_err();
    assert_eq!(
        (failure.code, failure.exit_code, failure.retryable),
        (ErrorCode::LedgerUnavailable, 2, true)
    );
    assert!(failure.cause.contains("busy"), "{failure}");
    drop(writer);
    let calls = world.fake.calls();
    assert!(calls.iter().all(|call| call.method == "inspect"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signal_ends_the_wait_for_a_busy_ledger() {
    let (mut world, mut news) = impatient();
    let (raise, raised) = tokio::sync::watch::channel(None);
    world.engine.interrupt = Interrupt::new(raised);
    let writer = Writer::stopped(&world.ledger_path());
    let engine = world.engine.clone();
    let up = tokio::spawn(async move { engine.up(up_request("one")).await });
    until_busy(&mut news, 1).await;
    raise.send(Some(Signal::Term)).unwrap();
    let failure = up.await.unwrap().unwrap_err();
    assert_eq!(
        (failure.code, failure.exit_code),
        (ErrorCode::Interrupted, 143)
    );
    let next = &failure.next_step;
    assert!(next.starts_with("alpine up "), "{next}");
    assert!(next.contains(" --client-request-id one "), "{next}");
    let request = DownRequest {
        discard: Some("d1".to_owned()),
        reason: Some("for good".to_owned()),
        ..down_request("a-name")
    };
    // The wish to stop is there already.
    let failure = world.engine.down(request).await.unwrap_err();
    assert_eq!(failure.code, ErrorCode::Interrupted);
    let next = "alpine down a-name --discard d1 --reason 'for good'";
    assert_eq!(failure.next_step, next);
    drop(writer);
}

/// The clock of a machine that slept: every lease has expired.
#[derive(Debug)]
struct Later;

impl Clock for Later {
    fn now(&self) -> Timestamp {
        SystemClock.now().plus(Duration::from_secs(3600))
    }

    fn boot_ms(&self) -> u64 {
        SystemClock.boot_ms() + 3_600_000
    }
}

#[tokio::test]
async fn a_holder_that_lost_its_lease_ends_its_step_at_once() {
    let mut world = world();
    world.engine.limits.install = Duration::from_secs(20);
    world.fake.fault("install", Fault::Hang, 1);
    let up = world
        .background_up("one", State::Installing, "install")
        .await;
    let options = Options {
        clock: Arc::new(Later),
        ..Options::new()
    };
    let other = Engine {
        ledger: Ledger::open(&world.ledger_path(), options).unwrap(),
        ..world.engine.clone()
    };
    let begun = Instant::now();
    let down = other.down(down_request(id("one").as_str()));
    assert_eq!(down.await.unwrap().state, State::Failed);
    let failure = up.await.unwrap().unwrap_err();
    assert!(
        begun.elapsed() < Duration::from_secs(8),
        "long before a renewal is due"
    );
    assert_eq!(failure.code, ErrorCode::OperationConflict);
    assert!(
        failure.cause.contains("taken this operation over"),
        "{failure}"
    );
    world.assert_sound("one");
}
