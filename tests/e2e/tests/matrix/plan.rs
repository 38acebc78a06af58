//! What is played: scenes, and the points at which each of them is struck.

use super::hosted::Fake;
use super::stage::Stage;
use alpine_e2e::commits::Strike;
use alpine_provider_api::ErrorKind;
use alpine_testkit::{Fault, KillPoint};
use std::fmt;

/// What is run, and struck.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Operation {
    Up,
    TakeOver,
    Down,
    RetryPersist,
    Reconcile,
}

impl Operation {
    pub(super) const ALL: [Operation; 5] = [
        Operation::Up,
        Operation::TakeOver,
        Operation::Down,
        Operation::RetryPersist,
        Operation::Reconcile,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Operation::Up => "`up`",
            Operation::TakeOver => "`up` that takes over",
            Operation::Down => "`down`",
            Operation::RetryPersist => "`down --retry-persist`",
            Operation::Reconcile => "`reconcile`",
        }
    }
}

/// Where the session stands when the operation begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stand {
    /// There is none.
    Nothing,
    Ready,
    /// Its `up` was killed in this call, which had done its work.
    UpDied(usize),
    /// Its `down` was.
    DownDied(usize),
    /// Its sandbox could not be stopped.
    CloseFailed,
    /// Its `up` failed, and what that left could not be destroyed.
    CleanupFailed,
    /// Its workspace could not be stored.
    Unpersisted,
    /// It is stopped, and its sandbox could not be destroyed.
    DestroyPending,
    /// It is ready, and its sandbox is provably gone.
    Gone,
    /// It is stopped, and its sandbox is there again.
    Left,
    /// A sandbox that no session owns.
    Stray,
    /// One that was saved more than the grace period ago.
    SavedStray,
}

/// What strikes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Blow {
    Commit(Strike),
    Error,
    Transient,
    Hang,
    LostReply,
    /// The process that works on the call is killed.
    Killed(KillPoint),
    NoSpace,
    /// Somebody sets the wall clock on, or back.
    Jump(i64),
}

const DAY_MS: i64 = 24 * 60 * 60 * 1000;

impl Blow {
    /// What ends the process that works on a call.
    pub(super) const KILLS: [Blow; 3] = [
        Blow::Killed(KillPoint::Before),
        Blow::Killed(KillPoint::During),
        Blow::Killed(KillPoint::After),
    ];

    pub(super) const ALL: [Blow; 14] = [
        Blow::Commit(Strike::Before),
        Blow::Commit(Strike::During),
        Blow::Commit(Strike::After),
        Blow::Commit(Strike::Full),
        Blow::Error,
        Blow::Transient,
        Blow::Hang,
        Blow::LostReply,
        Blow::Killed(KillPoint::Before),
        Blow::Killed(KillPoint::During),
        Blow::Killed(KillPoint::After),
        Blow::NoSpace,
        Blow::Jump(DAY_MS),
        Blow::Jump(-DAY_MS),
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Blow::Commit(strike) => strike.name(),
            Blow::Error => "error",
            Blow::Transient => "transient error",
            Blow::Hang => "hang",
            Blow::LostReply => "lost reply",
            Blow::Killed(KillPoint::Before) => "killed before",
            Blow::Killed(KillPoint::During) => "killed during",
            Blow::Killed(KillPoint::After) => "killed after",
            Blow::NoSpace => "disk full",
            Blow::Jump(ms) if ms > 0 => "clock forward",
            Blow::Jump(_) => "clock back",
        }
    }

    /// The same as a fault of the fake's.
    pub(super) fn fault(self) -> Option<Fault> {
        match self {
            Blow::Commit(_) => None,
            Blow::Error => Some(Fault::Error(ErrorKind::Io)),
            Blow::Transient => Some(Fault::Transient(ErrorKind::Unreachable)),
            Blow::Hang => Some(Fault::Hang),
            Blow::LostReply => Some(Fault::LostReply),
            Blow::Killed(point) => Some(Fault::KillCaller(point)),
            Blow::NoSpace => Some(Fault::Error(ErrorKind::NoSpace)),
            Blow::Jump(ms) => Some(Fault::ClockJump { ms }),
        }
    }
}

/// Where a blow falls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// The nth commit, from 1.
    Commit(u64),
    /// A call of this method, after so many others of it.
    Call(String, u32),
}

/// One blow.
#[derive(Clone, Debug)]
pub(super) struct Point {
    pub(super) fake: Fake,
    pub(super) operation: Operation,
    pub(super) stand: Stand,
    pub(super) place: Place,
    pub(super) blow: Blow,
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (operation, blow) = (self.operation.name(), self.blow.name());
        match &self.place {
            Place::Commit(at) => {
                write!(f, "{operation}, {:?}: commit {at}: {blow}", self.stand)
            }
            Place::Call(method, after) => {
                let number = after + 1;
                write!(
                    f,
                    "{operation}, {:?}: {method} {number}: {blow}",
                    self.stand
                )
            }
        }
    }
}

/// An operation and where it begins; once it was traced, what an undisturbed run of it does.
#[derive(Clone, Debug)]
pub(super) struct Scene {
    fake: Fake,
    pub(super) operation: Operation,
    pub(super) stand: Stand,
    commits: u64,
    calls: Vec<String>,
    steps: Vec<String>,
}

impl Scene {
    fn new(fake: &Fake, operation: Operation, stand: Stand) -> Self {
        Self {
            fake: fake.clone(),
            operation,
            stand,
            commits: 0,
            calls: Vec::new(),
            steps: Vec::new(),
        }
    }

    /// The same, with what an undisturbed run does.
    pub(super) fn traced(&self) -> Self {
        let mut stage = Stage::new(&self.fake, self.stand);
        let before = stage.env.fake().calls().len();
        let commits = stage.count_commits(self.operation);
        let calls = stage.env.fake().calls().split_off(before);
        Self {
            commits,
            calls: calls.into_iter().map(|call| call.method).collect(),
            steps: stage.steps(),
            ..self.clone()
        }
    }

    pub(super) fn steps(&self) -> impl Iterator<Item = &str> {
        self.steps.iter().map(String::as_str)
    }

    pub(super) fn methods(&self) -> impl Iterator<Item = &str> {
        self.calls.iter().map(String::as_str)
    }

    /// Every blow at every commit and in every call; where only the provider dies, it dies in every call.
    pub(super) fn points(&self) -> Vec<Point> {
        let at = |place: &Place, blow: Blow| Point {
            fake: self.fake.clone(),
            operation: self.operation,
            stand: self.stand,
            place: place.clone(),
            blow,
        };
        let (commits, blows): (u64, &[Blow]) = match self.fake {
            Fake::CompiledIn => (self.commits, &Blow::ALL),
            Fake::Hosted(_) => (0, &Blow::KILLS),
        };
        let mut points = Vec::new();
        for number in 1..=commits {
            let place = Place::Commit(number);
            points.extend(Strike::ALL.map(|strike| at(&place, Blow::Commit(strike))));
        }
        for (index, method) in self.calls.iter().enumerate() {
            let before = self.calls[..index].iter().filter(|other| *other == method);
            let place = Place::Call(method.clone(), u32::try_from(before.count()).expect("few"));
            let blows = blows.iter().filter(|blow| blow.fault().is_some());
            points.extend(blows.map(|blow| at(&place, *blow)));
        }
        points
    }
}

/// Every operation, from everywhere it may have to begin.
pub(super) fn scenes(fake: &Fake) -> Vec<Scene> {
    let scene = |operation, stand| Scene::new(fake, operation, stand);
    let up = scene(Operation::Up, Stand::Nothing).traced();
    let down = scene(Operation::Down, Stand::Ready).traced();
    // What is asked before anything is recorded leaves nothing: that is where `up` begins anyway.
    let ups: Vec<Stand> = (0..up.calls.len()).map(Stand::UpDied).collect();
    let recorded = |stand: &Stand| Stage::new(fake, *stand).session().is_some();
    let ups: Vec<Stand> = ups.into_iter().filter(recorded).collect();
    let ups = || ups.iter().copied();
    let downs = || (0..down.calls.len()).map(Stand::DownDied);
    let take_over = ups().map(|stand| scene(Operation::TakeOver, stand));
    let own = [
        Stand::Ready,
        Stand::CloseFailed,
        Stand::CleanupFailed,
        Stand::DestroyPending,
        Stand::Gone,
        Stand::Left,
    ];
    let brought_down = own.into_iter().chain(ups()).chain(downs());
    let found = [
        Stand::DestroyPending,
        Stand::Gone,
        Stand::Left,
        Stand::Stray,
        Stand::SavedStray,
    ];
    let reconciled = found.into_iter().chain(ups()).chain(downs());
    let mut scenes = vec![
        scene(Operation::Up, Stand::Nothing),
        scene(Operation::RetryPersist, Stand::Unpersisted),
    ];
    scenes.extend(take_over);
    scenes.extend(brought_down.map(|stand| scene(Operation::Down, stand)));
    scenes.extend(reconciled.map(|stand| scene(Operation::Reconcile, stand)));
    scenes
}
