//! What is played: an operation from where its session stands, and the point at which it is struck.

use super::hosted::Fake;
use alpine_e2e::commits::Strike;
use alpine_provider_api::ErrorKind;
use alpine_testkit::{Fault, KillPoint};
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};

/// What is run, and struck.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Operation {
    Up,
    TakeOver,
    /// An `up` that a `down --cancel` ends.
    CancelledUp,
    Down,
    RetryPersist,
    Discard,
    Cancel,
    Reconcile,
}

impl Operation {
    pub(super) const ALL: [Operation; 8] = [
        Operation::Up,
        Operation::TakeOver,
        Operation::CancelledUp,
        Operation::Down,
        Operation::RetryPersist,
        Operation::Discard,
        Operation::Cancel,
        Operation::Reconcile,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Operation::Up => "`up`",
            Operation::TakeOver => "`up` that takes over",
            Operation::CancelledUp => "`up` that is cancelled",
            Operation::Down => "`down`",
            Operation::RetryPersist => "`down --retry-persist`",
            Operation::Discard => "`down --discard`",
            Operation::Cancel => "`down --cancel`",
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
    /// Its `up` hangs in this call.
    UpHangs(usize),
    /// Its `up` will hang in this call.
    UpWillHang(usize),
    /// Its `up` could not start its agent again, and was killed in this call of its clean-up.
    CleanUpDied(usize),
    /// What its agent had written could not be stored in the clean-up.
    RescueFailed,
    /// Its payload was too large.
    PersistFailed,
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
    /// It is stopped, and its ledger is from before that.
    Restored,
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

/// A call that fails whatever else happens, so that what comes after it is what is done about a failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Trouble {
    pub(super) call: Call,
    pub(super) kind: ErrorKind,
}

/// A call of a method, after so many others of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Call {
    pub(super) method: String,
    pub(super) before: u32,
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.method, self.before + 1)
    }
}

/// Where a blow falls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// The nth commit, from 1.
    Commit(u64),
    Call(Call),
}

/// An operation, where it begins, and what goes wrong in it anyway.
#[derive(Clone, Debug)]
pub(super) struct Scene {
    pub(super) fake: Fake,
    pub(super) operation: Operation,
    pub(super) stand: Stand,
    pub(super) troubles: Vec<Trouble>,
}

impl Scene {
    pub(super) fn new(fake: &Fake, operation: Operation, stand: Stand) -> Self {
        Self {
            fake: fake.clone(),
            operation,
            stand,
            troubles: Vec::new(),
        }
    }

    /// Whether the operation fails though nothing goes wrong in it.
    pub(super) fn fails(&self) -> bool {
        let is_cleaned_up = matches!(self.stand, Stand::CleanUpDied(_));
        match self.operation {
            Operation::CancelledUp => true,
            Operation::TakeOver => is_cleaned_up,
            Operation::Up
            | Operation::Down
            | Operation::RetryPersist
            | Operation::Discard
            | Operation::Cancel
            | Operation::Reconcile => false,
        }
    }
}

impl fmt::Display for Scene {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {:?}", self.operation.name(), self.stand)?;
        for Trouble { call, kind } in &self.troubles {
            write!(f, ", {call} fails with `{}`", kind.as_str())?;
        }
        Ok(())
    }
}

/// One blow.
#[derive(Clone, Debug)]
pub(super) struct Point {
    pub(super) scene: Scene,
    pub(super) place: Place,
    pub(super) blow: Blow,
}

impl Point {
    /// Whether a clock that jumped stays wrong while all else is well again: at half of the points, by their names.
    pub(super) fn clock_stays_wrong(&self) -> bool {
        let mut hasher = DefaultHasher::new();
        self.to_string().hash(&mut hasher);
        hasher.finish().is_multiple_of(2)
    }
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scene, blow) = (&self.scene, self.blow.name());
        match &self.place {
            Place::Commit(at) => write!(f, "{scene}: commit {at}: {blow}"),
            Place::Call(call) => write!(f, "{scene}: {call}: {blow}"),
        }
    }
}
