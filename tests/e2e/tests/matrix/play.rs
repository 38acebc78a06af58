//! One point: the blow, the recovery, the retry, and what must be so in the end.

use super::hosted::Fake;
use super::invariants::{self, Answers};
use super::plan::{Blow, Operation, Place, Point};
use super::reader::Readers;
use super::stage::{Stage, session_id};
use alpine_e2e::commits::Strike;
use alpine_ledger::{OperationState, State};
use alpine_testkit::Output;
use std::process::Command;
use std::time::{Duration, Instant};

/// How long a recovery may take, from the end of the lease.
const RECOVERY: Duration = Duration::from_secs(2);

/// What came of a point.
#[derive(Debug)]
pub(super) struct Played {
    pub(super) point: Point,
    /// What is not as it must be.
    problems: Vec<String>,
    /// What took longer than it may.
    late: Vec<String>,
    /// Whether the operation was done in spite of the blow.
    pub(super) went_on: bool,
    /// How long the one `reconcile` took that came right after the lease's end.
    pub(super) recovery: Duration,
    /// How long each `list` and `status` took that ran meanwhile.
    pub(super) reads: Vec<Duration>,
}

impl Played {
    /// What is wrong with it, if anything is.
    pub(super) fn broken(&self) -> Option<String> {
        let problems = [self.problems.as_slice(), &self.late].concat();
        (!problems.is_empty()).then(|| format!("{}\n  {}", self.point, problems.join("\n  ")))
    }

    /// Whether only its time is wrong with it, as it is on a machine that has far more to do than it can.
    pub(super) fn is_only_late(&self) -> bool {
        self.problems.is_empty() && !self.late.is_empty()
    }
}

/// Strikes, recovers, tries again, and looks.
pub(super) fn play(point: &Point) -> Played {
    let mut stage = Stage::new(&point.scene);
    let readers = Readers::start(looks(&stage, point));
    let calls = stage.env.fake().calls().len();
    let struck = strike(&mut stage, point);
    let mut problems = Vec::new();
    problems.extend(was_not_struck(&stage, point, calls, &struck));
    problems.extend(did_not_cope(point, &struck));
    stage.said.push(struck.clone());
    let operation = point.scene.operation;
    if operation == Operation::CancelledUp {
        problems.extend(was_not_cancelled(&mut stage, operation));
    }
    let answers_for_ever = answers_for_ever(&stage, point, &struck);
    stage.disarm(point);
    stage.work();
    let begun = Instant::now();
    let recovered = stage.run(Operation::Reconcile);
    let recovery = begun.elapsed();
    if recovered.code() != Some(0) {
        problems.push(format!("reconcile failed: {recovered:#?}"));
    }
    problems.extend(invariants::left_by_recovery(&stage));
    let reads = readers.end();
    let slow = (recovery > RECOVERY).then(|| format!("the recovery took {recovery:?}"));
    let late = slow.into_iter().chain(invariants::late(&reads)).collect();
    stage
        .said
        .extend(reads.iter().map(|read| read.output.clone()));
    // `reconcile` has no outcome of its own: the session's request has.
    let request = match operation {
        Operation::Reconcile => Operation::Up,
        Operation::Up
        | Operation::TakeOver
        | Operation::CancelledUp
        | Operation::Down
        | Operation::RetryPersist
        | Operation::Discard
        | Operation::Cancel => operation,
    };
    let retried = stage.run(operation);
    let answers = Answers {
        retried: if request == operation {
            retried
        } else {
            stage.run(request)
        },
        again: stage.run(request),
        struck: answers_for_ever.then_some(struck.clone()),
    };
    problems.extend(was_not_cancelled(&mut stage, operation));
    problems.extend(invariants::broken(&mut stage, &answers, &reads));
    problems.extend(has_no_way_out(&mut stage));
    Played {
        point: point.clone(),
        problems,
        late,
        went_on: struck.code() == Some(0),
        recovery,
        reads: reads.into_iter().map(|read| read.took).collect(),
    }
}

/// Who looks meanwhile. What `status` observes is a call too, as is what it asks of a provider that it has started: something
/// that goes wrong in the operation's own would go wrong in these.
fn looks(stage: &Stage, point: &Point) -> Vec<Command> {
    let blow = match &point.place {
        Place::Call(call) => Some(call),
        Place::Commit(_) => None,
    };
    let troubles = point.scene.troubles.iter().map(|trouble| &trouble.call);
    let mut wrong = troubles.chain(blow);
    let hangs = point.scene.operation == Operation::CancelledUp;
    let mut looks = vec![stage.command(&["list"])];
    if !hangs && !wrong.any(|call| call.method == "inspect" || call.method == "describe") {
        looks.push(stage.command(&["status", session_id().as_str()]));
    }
    looks
}

/// Runs the operation into the blow.
fn strike(stage: &mut Stage, point: &Point) -> Output {
    let troubles = &point.scene.troubles;
    let (at, call) = match (&point.place, point.blow) {
        (Place::Commit(at), Blow::Commit(strike)) => (Some((*at, strike)), None),
        (Place::Call(call), blow) => (None, blow.fault().map(|fault| (call, fault))),
        (Place::Commit(_), _) => (None, None),
    };
    stage.arm(troubles, call);
    stage.start(at).wait()
}

/// Whether what was answered is answered again from now on: a success; and the failure of an `up`, once it is recorded.
fn answers_for_ever(stage: &Stage, point: &Point, struck: &Output) -> bool {
    let operation = point.scene.operation;
    if struck.code() == Some(0) {
        return operation != Operation::Reconcile;
    }
    let is_up = [Operation::Up, Operation::TakeOver, Operation::CancelledUp].contains(&operation);
    // On a full disk it says as well that it could not record it.
    if !is_up || struck.code().is_none() || point.blow == Blow::Commit(Strike::Full) {
        return false;
    }
    let operations = stage
        .ledger(|snapshot| snapshot.operations(&session_id()))
        .1;
    operations
        .first()
        .is_some_and(|up| up.state == OperationState::Failed)
}

/// Both sides of a cancellation end as they should, whatever happened in between.
fn was_not_cancelled(stage: &mut Stage, operation: Operation) -> Option<String> {
    let beside = stage.join()?;
    let ended = match operation {
        Operation::CancelledUp => beside.code() == Some(0),
        Operation::Up
        | Operation::TakeOver
        | Operation::Down
        | Operation::RetryPersist
        | Operation::Discard
        | Operation::Cancel
        | Operation::Reconcile => {
            beside.code() == Some(1) && beside.stdout.contains("\"ERR_INTERRUPTED\"")
        }
    };
    (!ended).then(|| format!("the other side of the cancellation: {beside:#?}"))
}

/// A session that waits for its user ends with the one command that it is told of.
fn has_no_way_out(stage: &mut Stage) -> Option<String> {
    let waits = match stage.session()?.state {
        State::StoppedUnpersisted
        | State::PersistFailed
        | State::CleanupFailed
        | State::CloseFailed => true,
        State::Requested
        | State::Provisioning
        | State::RepoSyncing
        | State::Installing
        | State::Ready
        | State::Stopping
        | State::Persisting
        | State::Stopped
        | State::Failing
        | State::Failed => false,
    };
    if !waits {
        return None;
    }
    let ended = stage.run(Operation::RetryPersist);
    if ended.code() != Some(0) {
        return Some(format!("the session can't be brought down: {ended:#?}"));
    }
    invariants::is_not_over(stage)
}

/// A command whose provider dies goes on: it has got it anew and converged, or says that the outcome is unknown.
fn did_not_cope(point: &Point, struck: &Output) -> Option<String> {
    let coped = match point.scene.fake {
        Fake::CompiledIn => true,
        Fake::Hosted(_) if point.scene.fails() => true,
        Fake::Hosted(_) => {
            // `reconcile` says of each finding what went wrong, which begins with the code.
            let crashed = struck.stdout.contains("\"ERR_PROVIDER_CRASHED");
            struck.code() == Some(0) || struck.code() == Some(2) && crashed
        }
    };
    (!coped).then(|| format!("neither done nor `ERR_PROVIDER_CRASHED`: {struck:#?}"))
}

/// A blow that fell beside its mark proves nothing.
fn was_not_struck(stage: &Stage, point: &Point, calls: usize, struck: &Output) -> Option<String> {
    let dead = struck.code().is_none();
    // Whether its file is committed to once more when it is closed depends on whether another writer has it open.
    let cancelled = point.scene.operation == Operation::CancelledUp && struck.code() == Some(1);
    let hit = match point.blow {
        Blow::Commit(_) if cancelled => true,
        Blow::Commit(Strike::Full) => stage.commits() == "refused",
        Blow::Commit(Strike::Before | Strike::During | Strike::After) => dead,
        Blow::Killed(_) if matches!(point.scene.fake, Fake::CompiledIn) => dead,
        Blow::Killed(_)
        | Blow::Error
        | Blow::Transient
        | Blow::Hang
        | Blow::LostReply
        | Blow::NoSpace
        | Blow::Jump(_) => {
            let fault = point.blow.fault();
            let since = stage.env.fake().calls().split_off(calls);
            since.iter().any(|call| call.fault == fault)
        }
    };
    (!hit).then(|| format!("the blow fell beside its mark: {struck:#?}"))
}
