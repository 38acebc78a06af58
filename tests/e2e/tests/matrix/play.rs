//! One point: the blow, the recovery, the retry, and what must be so in the end.

use super::hosted::Fake;
use super::invariants::{self, Answers};
use super::plan::{Blow, Operation, Place, Point};
use super::stage::{Stage, session_id};
use crate::support::Running;
use alpine_e2e::commits::Strike;
use alpine_testkit::Output;
use std::time::{Duration, Instant};

/// How long a recovery may take, from the end of the lease.
const RECOVERY: Duration = Duration::from_secs(2);

/// What came of a point.
#[derive(Debug)]
pub(super) struct Played {
    pub(super) point: Point,
    /// What is not as it must be.
    problems: Vec<String>,
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
        let point = &self.point;
        (!self.problems.is_empty()).then(|| format!("{point}\n  {}", self.problems.join("\n  ")))
    }
}

/// Strikes, recovers, tries again, and looks.
pub(super) fn play(point: &Point) -> Played {
    let mut stage = Stage::new(&point.fake, point.stand);
    stage.arm(point);
    let calls = stage.env.fake().calls().len();
    let (struck, reads) = strike(&mut stage, point);
    let mut problems = Vec::new();
    problems.extend(was_not_struck(&stage, point, calls, &struck));
    problems.extend(did_not_cope(point, &struck));
    let went_on = struck.code() == Some(0);
    stage.disarm(point);
    stage.work();
    let begun = Instant::now();
    let recovered = stage.run(Operation::Reconcile);
    let recovery = begun.elapsed();
    if recovered.code() != Some(0) {
        problems.push(format!("reconcile failed: {recovered:#?}"));
    }
    if recovery > RECOVERY {
        problems.push(format!("the recovery took {recovery:?}"));
    }
    problems.extend(invariants::left_by_recovery(&stage));
    let retried = stage.run(point.operation);
    let answers = match point.operation {
        Operation::Up | Operation::TakeOver | Operation::Down | Operation::RetryPersist => {
            Answers {
                struck: Some(struck),
                again: stage.run(point.operation),
                retried,
            }
        }
        // It has no outcome of its own: the session's request has.
        Operation::Reconcile => Answers {
            struck: None,
            retried: stage.run(Operation::Up),
            again: stage.run(Operation::Up),
        },
    };
    problems.extend(invariants::broken(&mut stage, &answers, &reads));
    Played {
        point: point.clone(),
        problems,
        went_on,
        recovery,
        reads: reads.into_iter().map(|(_, took)| took).collect(),
    }
}

/// Runs the operation into the blow, and looks at the session meanwhile.
fn strike(stage: &mut Stage, point: &Point) -> (Output, Vec<(Output, Duration)>) {
    let mut command = stage.operation(point.operation);
    if let (Place::Commit(at), Blow::Commit(strike)) = (&point.place, point.blow) {
        command.env("ALPINE_TEST_STRIKE", format!("{at} {}", strike.name()));
    }
    let running = Running::start(command);
    let session = session_id().to_string();
    // What `status` observes is a call too, as is what it asks of a provider that it has started; a blow for the operation's
    // own would strike it.
    let looks: &[&[&str]] = match &point.place {
        Place::Call(method, _) if method == "inspect" || method == "describe" => &[&["list"]],
        Place::Commit(_) | Place::Call(..) => &[&["list"], &["status", &session]],
    };
    let mut reads = Vec::new();
    for arguments in looks {
        let begun = Instant::now();
        let output = Running::start(stage.command(arguments)).wait();
        stage.said.push(output.clone());
        reads.push((output, begun.elapsed()));
    }
    let output = running.wait();
    stage.said.push(output.clone());
    (output, reads)
}

/// A command whose provider dies goes on: it has got it anew and converged, or says that the outcome is unknown.
fn did_not_cope(point: &Point, struck: &Output) -> Option<String> {
    let coped = match point.fake {
        Fake::CompiledIn => true,
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
    let hit = match point.blow {
        Blow::Commit(Strike::Full) => stage.commits() == "refused",
        Blow::Commit(Strike::Before | Strike::During | Strike::After) => dead,
        Blow::Killed(_) if matches!(point.fake, Fake::CompiledIn) => dead,
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
