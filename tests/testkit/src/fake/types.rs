//! What the fake is told from outside, and what it tells: faults, calls, violations, sandboxes, objects.

use alpine_provider_api::{CommitId, ErrorKind, SandboxState};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// What goes wrong in a call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// Nothing is done; the answer is an error that repeating won't mend.
    Error(ErrorKind),
    /// Nothing is done; the answer is an error that may pass.
    Transient(ErrorKind),
    /// Nothing is done, and there is no answer until the future is dropped.
    Hang,
    /// The work is done, but the answer is a transient `Unreachable`.
    LostReply,
    /// The work is done, and there is no answer until the future is dropped.
    LostReplyHang,
    /// A plausible answer that is not true. `stop` and `destroy` claim success and do nothing; the others do their work
    /// and misreport it: another head, another digest, another payload, another state.
    WrongAnswer,
    /// As `WrongAnswer`, but `read_object` gives the true payload and another snapshot digest.
    WrongSnapshot,
    /// Half of the work is done, then a transient `Io` is answered.
    Partial,
    /// The work is done after this long.
    Delay {
        /// How long, in milliseconds.
        ms: u64,
    },
    /// Somebody sets the wall clock on by so many milliseconds, or back; then the work is done.
    ClockJump {
        /// How far.
        ms: i64,
    },
    /// The calling process kills itself.
    KillCaller(KillPoint),
}

/// When a process kills itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KillPoint {
    /// Before anything was done.
    Before,
    /// With half of the work done.
    During,
    /// When the work was done and the answer was not yet given.
    After,
}

impl KillPoint {
    /// Every point.
    pub const ALL: [KillPoint; 3] = [KillPoint::Before, KillPoint::During, KillPoint::After];
}

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It was answered.
    Done,
    /// It was answered with an error.
    Failed(ErrorKind),
    /// It has not ended: it runs, was dropped, or its process died.
    Unfinished,
}

/// A call as it came in. Secret fields are left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordedCall {
    /// The trait's method.
    pub method: String,
    /// The sandbox, where the method takes one.
    pub sandbox_id: Option<String>,
    /// The operation that asked.
    pub operation_id: String,
    /// Its fence.
    pub fence: u64,
    /// Which try it was.
    pub attempt: u32,
    /// The process that asked.
    pub pid: u32,
    /// The request without its secrets, long texts cut.
    pub request: Value,
    /// The fault that struck it.
    pub fault: Option<Fault>,
    /// How it ended.
    pub outcome: Outcome,
}

/// What kind of promise was broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ViolationKind {
    /// The trait's contract.
    Contract,
    /// Work would have been lost.
    LostWork,
    /// A workspace would have been deleted before its object was read back.
    Unverified,
    /// A secret is where none may be.
    Secret,
    /// The fake itself answered the same request in another way.
    Again,
}

/// A promise that the caller broke.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Violation {
    /// What kind of promise.
    pub kind: ViolationKind,
    /// The method that was called.
    pub method: String,
    /// The operation that called.
    pub operation_id: String,
    /// The sandbox.
    pub sandbox_id: Option<String>,
    /// What was wrong.
    pub text: String,
}

/// A sandbox of the fake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FakeSandbox {
    /// Its id.
    pub id: String,
    /// The ledger that owns it.
    pub ledger_id: String,
    /// The session it belongs to.
    pub session_id: String,
    /// Whether it runs.
    pub state: SandboxState,
    /// The highest fence it has seen.
    pub fence: u64,
    /// What its `HEAD` file says.
    pub head: Option<CommitId>,
    /// The name of the agent that was started.
    pub agent: Option<String>,
    /// Its workspace.
    pub files: BTreeMap<String, Vec<u8>>,
}

/// A durable object of the fake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FakeObject {
    /// Its id.
    pub id: String,
    /// The sandbox it was made from.
    pub sandbox_id: String,
    /// The session it belongs to.
    pub session_id: String,
    /// Which attempt made it.
    pub generation: u64,
    /// Its metadata payload.
    pub payload: String,
    /// Whether it was read back after it was written.
    pub read_back: bool,
    /// The digest that its snapshot was written with.
    pub digest: Option<String>,
    /// The workspace in its snapshot; none where the snapshot is none or can't be read.
    pub files: Option<BTreeMap<String, Vec<u8>>>,
}
