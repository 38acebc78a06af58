//! The payloads that are JSON: additive, so that each side reads what the other of another version wrote.

use crate::abi::{ABI_MAX, ABI_MIN, MAGIC_TEXT};
use alpine_provider_api::{ErrorKind, Meta, ProviderError};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// HELLO, both ways.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// [`MAGIC_TEXT`].
    pub magic: String,
    /// The oldest version of the boundary that it speaks.
    pub abi_min: u32,
    /// The newest.
    pub abi_max: u32,
    /// Who speaks.
    #[serde(default)]
    pub name: String,
    /// Its version.
    #[serde(default)]
    pub version: String,
    /// What it can do beyond the frames of its version: [`FEATURE_PING`].
    #[serde(default)]
    pub features: Vec<String>,
    /// The most verbose level of LOG that the host wants, 1 to 5; 0 stands for 3.
    #[serde(default)]
    pub log_level: u32,
}

/// A provider that answers PING even while calls run: one that does not is taken for stuck.
pub const FEATURE_PING: &str = "ping";

impl Hello {
    /// The greeting of this version.
    #[must_use]
    pub fn new(name: &str, version: &str) -> Self {
        Self {
            magic: MAGIC_TEXT.to_owned(),
            abi_min: ABI_MIN,
            abi_max: ABI_MAX,
            name: name.to_owned(),
            version: version.to_owned(),
            features: vec![FEATURE_PING.to_owned()],
            log_level: 0,
        }
    }

    /// Refuses what is no provider, and one that shares no version with us.
    ///
    /// # Errors
    /// `Unsupported`, saying what was expected and what was found.
    pub fn check(&self) -> Result<(), ProviderError> {
        if self.magic != MAGIC_TEXT {
            let found: String = self.magic.chars().take(32).collect();
            let message =
                format!("its greeting's magic is `{found}`, where `{MAGIC_TEXT}` is expected");
            return Err(ProviderError::new(ErrorKind::Unsupported, message));
        }
        check_range(self.abi_min, self.abi_max).map(|_| ())
    }
}

/// The newest version of the boundary that both sides speak.
///
/// # Errors
/// `Unsupported`, saying which versions each of them speaks.
pub fn check_range(min: u32, max: u32) -> Result<u32, ProviderError> {
    if min.max(ABI_MIN) <= max.min(ABI_MAX) {
        return Ok(max.min(ABI_MAX));
    }
    let message = format!(
        "it speaks versions {min} to {max} of the boundary, where {ABI_MIN} to {ABI_MAX} are expected: \
         a build of the provider for this version of alpine is needed"
    );
    Err(ProviderError::new(ErrorKind::Unsupported, message))
}

/// CALL, as it is written.
#[derive(Debug, Serialize)]
pub struct CallPayload<'a, Q> {
    /// Who asks, under which fence, until when.
    pub meta: &'a Meta,
    /// The request.
    pub request: &'a Q,
}

/// CALL's first half, as it is read.
#[derive(Debug, Deserialize)]
pub struct OnlyMeta {
    /// Who asks, under which fence, until when.
    pub meta: Meta,
}

/// CALL's other half, as it is read.
#[derive(Debug, Deserialize)]
pub struct OnlyRequest<Q> {
    /// The request.
    pub request: Q,
}

/// EVENT's progress.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProgressPayload {
    /// What is being done.
    pub what: String,
    /// How much is done.
    #[serde(default)]
    pub done: u64,
    /// How much there is.
    #[serde(default)]
    pub total: Option<u64>,
}

/// INPUT's signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignalPayload {
    /// Its number.
    pub signal: i32,
}

/// LOG.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogPayload {
    /// Which part of the provider speaks.
    #[serde(default)]
    pub target: String,
    /// What it says.
    pub message: String,
    /// What goes with it.
    #[serde(default)]
    pub fields: Map<String, Value>,
}

/// The numbers of the kinds of failures in ERR's `code`. They are only ever added; 0 stands for a kind that has none.
pub const ERROR_KINDS: [(u32, ErrorKind); 23] = [
    (1, ErrorKind::InvalidArgument),
    (2, ErrorKind::NotFound),
    (3, ErrorKind::Conflict),
    (4, ErrorKind::Fenced),
    (5, ErrorKind::Destroyed),
    (6, ErrorKind::Unsupported),
    (7, ErrorKind::IsolationUnavailable),
    (8, ErrorKind::AuthRejected),
    (9, ErrorKind::BranchNotFound),
    (10, ErrorKind::CommitNotFound),
    (11, ErrorKind::Unreachable),
    (12, ErrorKind::ConfigInvalid),
    (13, ErrorKind::InstallFailed),
    (14, ErrorKind::AgentNotReady),
    (15, ErrorKind::WorkspaceLost),
    (16, ErrorKind::TooLarge),
    (17, ErrorKind::Corrupt),
    (18, ErrorKind::NoSpace),
    (19, ErrorKind::Cancelled),
    (20, ErrorKind::Timeout),
    (21, ErrorKind::Crashed),
    (22, ErrorKind::Io),
    (23, ErrorKind::Internal),
];

/// ERR's code of a kind.
#[must_use]
pub fn error_code(kind: ErrorKind) -> u32 {
    let row = ERROR_KINDS.iter().find(|(_, known)| *known == kind);
    row.map_or(0, |(code, _)| *code)
}

/// Reads an ERR: JSON whose `kind` may be left to the code, or plain text.
#[must_use]
pub fn read_error(code: u32, payload: &[u8]) -> ProviderError {
    let row = ERROR_KINDS.iter().find(|(known, _)| *known == code);
    let kind = row.map_or(ErrorKind::Unknown, |(_, kind)| *kind);
    let text = || String::from_utf8_lossy(payload).trim().to_owned();
    let mut error = match serde_json::from_slice::<Value>(payload) {
        Ok(Value::Object(mut fields)) => {
            fields.entry("kind").or_insert(kind.as_str().into());
            let whole = serde_json::from_value(Value::Object(fields));
            whole.unwrap_or_else(|_| ProviderError::new(kind, text()))
        }
        Ok(_) | Err(_) => ProviderError::new(kind, text()),
    };
    if error.message.is_empty() {
        error.message = format!("it answered `{}` and said no more", error.kind.as_str());
    }
    error
}

/// Writes an ERR, without what would make it too large.
#[must_use]
pub fn write_error(error: &ProviderError) -> Vec<u8> {
    const LONGEST: usize = 32 * 1024;
    let mut error = error.clone();
    shorten(&mut error.message, LONGEST);
    if let Some(hint) = &mut error.hint {
        shorten(hint, LONGEST);
    }
    let first = error.log_tail.len().saturating_sub(100);
    error.log_tail.drain(..first);
    for line in &mut error.log_tail {
        shorten(line, 1024);
    }
    serde_json::to_vec(&error).unwrap_or_default()
}

/// Cuts a text so that it takes at most `most` bytes.
pub fn shorten(text: &mut String, most: usize) {
    if text.len() > most {
        let end = (0..=most).rev().find(|&end| text.is_char_boundary(end));
        text.truncate(end.unwrap_or(0));
        // What was cut off is given back.
        text.shrink_to_fit();
    }
}
