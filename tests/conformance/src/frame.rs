//! A frame, and what is said of it in a report.

use alpine_provider_api::{ErrorKind, Method};
use serde_json::Value;
use std::fmt;

/// A frame as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) call: u64,
    pub(crate) kind: u32,
    pub(crate) code: u32,
    pub(crate) payload: Vec<u8>,
}

pub(crate) const CALL: u32 = 1;
pub(crate) const CANCEL: u32 = 2;
pub(crate) const GRANT: u32 = 3;
pub(crate) const PING: u32 = 5;
pub(crate) const PONG: u32 = 6;
pub(crate) const OK: u32 = 16;
pub(crate) const ERR: u32 = 17;
pub(crate) const EVENT: u32 = 18;
pub(crate) const LOG: u32 = 19;
pub(crate) const HELLO: u32 = 32;
pub(crate) const OPEN: u32 = 33;
pub(crate) const READY: u32 = 34;

/// What was heard.
#[derive(Debug)]
pub(crate) enum Heard {
    Frame(Frame),
    Nothing,
    End,
}

/// A frame or the end, in words.
pub(crate) fn heard(frame: Option<Frame>) -> String {
    frame.map_or(Heard::End, Heard::Frame).to_string()
}

pub(crate) fn header(call: u64, kind: u32, code: u32, len: u32) -> Vec<u8> {
    let mut bytes = call.to_le_bytes().to_vec();
    for word in [kind, code, len] {
        bytes.extend_from_slice(&word.to_le_bytes());
    }
    bytes
}

impl Frame {
    /// What kind of failure an ERR tells: its text says so, or its code.
    pub(crate) fn error(&self) -> String {
        let value: Value = serde_json::from_slice(&self.payload).unwrap_or_default();
        let at = usize::try_from(self.code).unwrap_or(usize::MAX);
        let by_code = at.checked_sub(1).and_then(|at| ErrorKind::ALL.get(at));
        let by_code = by_code.copied().unwrap_or(ErrorKind::Unknown);
        value["kind"]
            .as_str()
            .unwrap_or(by_code.as_str())
            .to_owned()
    }

    /// The payload's beginning, and how long it is where that is not all of it.
    fn shown(&self) -> String {
        match self.payload.get(..300) {
            None => String::from_utf8_lossy(&self.payload).into_owned(),
            Some(begin) => {
                let begin = String::from_utf8_lossy(begin);
                format!("{begin}… ({} bytes)", self.payload.len())
            }
        }
    }

    fn method(&self) -> String {
        let known = Method::ALL.into_iter().find(|it| it.id() == self.code);
        known.map_or_else(|| format!("method {}", self.code), |it| it.to_string())
    }
}

impl fmt::Display for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (code, text) = (self.code, self.shown());
        match self.kind {
            CALL => write!(f, "CALL {}", self.method())?,
            CANCEL => write!(f, "CANCEL {code}")?,
            GRANT => write!(f, "GRANT {code}")?,
            PING => write!(f, "PING {code}")?,
            PONG => write!(f, "PONG {code}")?,
            OK => f.write_str("OK")?,
            ERR => write!(f, "ERR `{}`", self.error())?,
            EVENT => write!(f, "EVENT {code}")?,
            LOG => write!(f, "LOG {code}")?,
            HELLO => f.write_str("HELLO")?,
            OPEN => f.write_str("OPEN")?,
            READY => f.write_str("READY")?,
            kind => write!(f, "a frame of kind {kind}, code {code}")?,
        }
        if self.call != 0 {
            write!(f, " of call {}", self.call)?;
        }
        let message: Value = serde_json::from_slice(&self.payload).unwrap_or_default();
        match message["message"].as_str().filter(|_| self.kind == ERR) {
            Some(message) => write!(f, ": {message}"),
            None if text.is_empty() => Ok(()),
            None => write!(f, ": {text}"),
        }
    }
}

impl fmt::Display for Heard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Heard::Frame(frame) => frame.fmt(f),
            Heard::Nothing => f.write_str("nothing"),
            Heard::End => f.write_str("the end of the wire"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_told_in_words() {
        let told = |call, kind, code, payload: &[u8]| {
            let payload = payload.to_vec();
            Frame {
                call,
                kind,
                code,
                payload,
            }
            .to_string()
        };
        let refused = br#"{"kind":"invalid_argument","message":"`argv` is empty"}"#;
        assert_eq!(
            told(4, ERR, 0, refused),
            "ERR `invalid_argument` of call 4: `argv` is empty"
        );
        assert_eq!(
            told(0, ERR, 6, b"not this version"),
            "ERR `unsupported`: not this version"
        );
        assert_eq!(told(4, OK, 0, b"{}"), "OK of call 4: {}");
        assert_eq!(told(4, CALL, 9, b""), "CALL exec of call 4");
        assert_eq!(told(4, CALL, 9999, b""), "CALL method 9999 of call 4");
        assert_eq!(told(0, 77, 5, b""), "a frame of kind 77, code 5");
        let long = told(4, EVENT, 2, &[b'x'; 4096]);
        assert!(
            long.ends_with("xxx… (4096 bytes)") && long.len() < 350,
            "{long}"
        );
    }
}
