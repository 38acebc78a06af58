//! Frames: their kinds and limits, and their form on a wire.

use crate::abi::Sent;

/// The bytes of a frame's header on a wire: `u64 call_id, u32 kind, u32 code, u32 len`, all little-endian.
pub const HEADER: usize = 20;
/// The most bytes of a control payload.
pub const MAX_CONTROL: usize = 1024 * 1024;
/// The most bytes of a chunk of a stream.
pub const MAX_CHUNK: usize = 64 * 1024;
/// The most bytes of a LOG.
pub const MAX_LOG: usize = 8 * 1024;
/// The most LOGs a second; further ones are dropped and counted.
pub const LOGS_PER_SECOND: u32 = 1000;
/// What each side may send of a call's stream before the first GRANT.
pub const CREDIT: u32 = 256 * 1024;
/// The least that a chunk of a stream costs, however short it is.
pub const MIN_CHARGE: u32 = 64;

/// EVENT's code of progress.
pub const EVENT_PROGRESS: u32 = 1;
/// EVENT's code of output.
pub const EVENT_STDOUT: u32 = 2;
/// EVENT's code of error output.
pub const EVENT_STDERR: u32 = 3;
/// EVENT's code of a warning.
pub const EVENT_WARNING: u32 = 4;
/// INPUT's code of bytes.
pub const INPUT_DATA: u32 = 0;
/// INPUT's code of the end of bytes.
pub const INPUT_EOF: u32 = 1;
/// INPUT's code of a terminal's new size: `{"rows":…,"columns":…}`.
pub const INPUT_RESIZE: u32 = 2;
/// INPUT's code of a signal: `{"signal":…}`.
pub const INPUT_SIGNAL: u32 = 3;
/// CANCEL's code: the caller has gone.
pub const CANCEL_GONE: u32 = 1;
/// CANCEL's code: the deadline has passed.
pub const CANCEL_DEADLINE: u32 = 2;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Kind {
    /// Host → provider: a call; `code` is the method's number.
    Call = 1,
    /// Host → provider: the caller gave up; the call is still answered once.
    Cancel = 2,
    /// Both: `code` more bytes of the call's stream may be sent.
    Grant = 3,
    /// Host → provider: standard input and signals of a call.
    Input = 4,
    /// Both: are you there?
    Ping = 5,
    /// Both: I am; `code` is the ping's.
    Pong = 6,
    /// Provider → host: the call's reply.
    Ok = 16,
    /// Provider → host: the call's failure; of call 0, why it can't be opened.
    Err = 17,
    /// Provider → host: what a call says before it answers.
    Event = 18,
    /// Provider → host: a line of its log; `code` is the level, 1 (error) to 5 (trace).
    Log = 19,
    /// Both, on a wire only: who I am.
    Hello = 32,
    /// Host → provider, on a wire only: the configuration.
    Open = 33,
    /// Provider → host, on a wire only: calls may come.
    Ready = 34,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Kind; 13] = [
        Kind::Call,
        Kind::Cancel,
        Kind::Grant,
        Kind::Input,
        Kind::Ping,
        Kind::Pong,
        Kind::Ok,
        Kind::Err,
        Kind::Event,
        Kind::Log,
        Kind::Hello,
        Kind::Open,
        Kind::Ready,
    ];

    /// The number in the header.
    #[must_use]
    pub const fn number(self) -> u32 {
        self as u32
    }

    /// The kind of that number, if this version knows it.
    #[must_use]
    pub fn of(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.number() == number)
    }

    /// The name in the header file and in documents.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Kind::Call => "CALL",
            Kind::Cancel => "CANCEL",
            Kind::Grant => "GRANT",
            Kind::Input => "INPUT",
            Kind::Ping => "PING",
            Kind::Pong => "PONG",
            Kind::Ok => "OK",
            Kind::Err => "ERR",
            Kind::Event => "EVENT",
            Kind::Log => "LOG",
            Kind::Hello => "HELLO",
            Kind::Open => "OPEN",
            Kind::Ready => "READY",
        }
    }

    /// The most bytes of its payload.
    #[must_use]
    pub const fn limit(self, code: u32) -> usize {
        match self {
            Kind::Event if is_stream(code) => MAX_CHUNK,
            Kind::Input if code == INPUT_DATA => MAX_CHUNK,
            Kind::Log => MAX_LOG,
            Kind::Call
            | Kind::Cancel
            | Kind::Grant
            | Kind::Input
            | Kind::Ping
            | Kind::Pong
            | Kind::Ok
            | Kind::Err
            | Kind::Event
            | Kind::Hello
            | Kind::Open
            | Kind::Ready => MAX_CONTROL,
        }
    }
}

/// Whether an EVENT of that code is part of a stream, so that it costs credit.
#[must_use]
pub const fn is_stream(code: u32) -> bool {
    code == EVENT_STDOUT || code == EVENT_STDERR
}

/// What a chunk of a stream costs: its bytes, and never less than [`MIN_CHARGE`].
#[must_use]
pub fn charge(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX).max(MIN_CHARGE)
}

/// What no frame of this version may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// A kind that this version does not know.
    #[error("a frame of kind {0}, which this version does not know")]
    Kind(u32),
    /// Over the limit of its kind.
    #[error("a frame {} of {len} bytes, of at most {most}", kind.as_str())]
    TooLarge {
        /// The kind.
        kind: Kind,
        /// Its length.
        len: usize,
        /// The limit.
        most: usize,
    },
}

impl FrameError {
    /// What `send` answers to it.
    #[must_use]
    pub const fn sent(self) -> Sent {
        match self {
            FrameError::Kind(_) => Sent::Unsupported,
            FrameError::TooLarge { .. } => Sent::TooBig,
        }
    }
}

/// A frame, its payload borrowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// The call, or 0.
    pub call_id: u64,
    /// What it is.
    pub kind: Kind,
    /// What that means depends on the kind.
    pub code: u32,
    /// The payload.
    pub payload: &'a [u8],
}

impl<'a> Frame<'a> {
    /// A frame that keeps the limits.
    ///
    /// # Errors
    /// Says which it does not keep.
    pub fn checked(
        call_id: u64,
        kind: u32,
        code: u32,
        payload: &'a [u8],
    ) -> Result<Self, FrameError> {
        let kind = check(kind, code, payload.len())?;
        Ok(Self {
            call_id,
            kind,
            code,
            payload,
        })
    }

    /// Its header on a wire.
    #[must_use]
    pub fn header(&self) -> [u8; HEADER] {
        let mut header = [0; HEADER];
        header[0..8].copy_from_slice(&self.call_id.to_le_bytes());
        header[8..12].copy_from_slice(&self.kind.number().to_le_bytes());
        header[12..16].copy_from_slice(&self.code.to_le_bytes());
        let len = u32::try_from(self.payload.len()).unwrap_or(u32::MAX);
        header[16..20].copy_from_slice(&len.to_le_bytes());
        header
    }

    /// The first frame of these bytes and how many of them it takes; none where more bytes are needed.
    ///
    /// # Errors
    /// Says what no frame may be, as soon as the header is there.
    pub fn parse(bytes: &'a [u8]) -> Result<Option<(Self, usize)>, FrameError> {
        let Some((header, rest)) = bytes.split_first_chunk::<HEADER>() else {
            return Ok(None);
        };
        let word = |at: usize| {
            u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
        };
        let call_id = u64::from(word(0)) | (u64::from(word(4)) << 32);
        let (code, len) = (word(12), word(16) as usize);
        let kind = check(word(8), code, len)?;
        let Some(payload) = rest.get(..len) else {
            return Ok(None);
        };
        let frame = Self {
            call_id,
            kind,
            code,
            payload,
        };
        Ok(Some((frame, HEADER + len)))
    }
}

/// The kind of a frame with a payload so long.
///
/// # Errors
/// As [`Frame::checked`].
pub(crate) fn check(kind: u32, code: u32, len: usize) -> Result<Kind, FrameError> {
    let kind = Kind::of(kind).ok_or(FrameError::Kind(kind))?;
    let most = kind.limit(code);
    if len > most {
        return Err(FrameError::TooLarge { kind, len, most });
    }
    Ok(kind)
}

/// An end of the port that frames go to.
pub trait Takes: Send + Sync {
    /// Takes a frame, from any thread; never blocks.
    fn take(&self, frame: &Frame<'_>) -> Sent;
}
