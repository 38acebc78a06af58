//! How a call was answered, and how a check ends before its end.

use crate::trace::public;
use alpine_provider_api::{ErrorKind, ProviderError};
use serde::Serialize;
use std::fmt::Debug;

/// As many lines of a log are in a trace; more would push out what led there.
const MOST_LAST_LINES: usize = 20;

/// Why a check ends before its end.
#[derive(Debug)]
pub(crate) enum Halt {
    /// The sentence is broken.
    Broken { expected: String, found: String },
    /// It can't be checked here.
    Skip(String),
}

/// What a check, or a part of it, comes to.
pub(crate) type Checking<T = ()> = Result<T, Halt>;

/// The sentence is broken: this was expected, that was found.
pub(crate) fn broken<T>(expected: impl Into<String>, found: impl Into<String>) -> Checking<T> {
    Err(Halt::Broken {
        expected: expected.into(),
        found: found.into(),
    })
}

pub(crate) fn skip<T>(why: impl Into<String>) -> Checking<T> {
    Err(Halt::Skip(why.into()))
}

/// Two values that have to be equal.
pub(crate) fn same<T: PartialEq + Debug>(what: &str, expected: &T, found: &T) -> Checking {
    if expected == found {
        return Ok(());
    }
    broken(format!("{what}: {expected:?}"), format!("{found:?}"))
}

/// An answer, and what was said before it.
#[derive(Debug)]
pub(crate) struct Called<R> {
    pub(crate) reply: Result<R, ProviderError>,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
}

impl<R: Serialize> Called<R> {
    /// The reply, which has to be one.
    pub(crate) fn ok(self, expected: &str) -> Checking<R> {
        match self.reply {
            Ok(reply) => Ok(reply),
            Err(error) => broken(expected, said(&error)),
        }
    }

    /// The error, which has to be of one of these kinds.
    pub(crate) fn refused(self, kinds: &[ErrorKind], expected: &str) -> Checking<ProviderError> {
        let wanted: Vec<_> = kinds.iter().map(|kind| kind.as_str()).collect();
        let expected = format!("{expected}: `{}`", wanted.join("` or `"));
        match self.reply {
            Ok(reply) => broken(expected, shortened(&format!("success: {}", public(&reply)))),
            Err(error) if kinds.contains(&error.kind) => Ok(error),
            Err(error) => broken(expected, said(&error)),
        }
    }
}

/// An error in words.
pub(crate) fn said(error: &ProviderError) -> String {
    format!("`{}`: {}", error.kind.as_str(), error.message)
}

/// An answer in words.
pub(crate) fn answered<R: Serialize>(reply: &Result<R, ProviderError>) -> String {
    reply.as_ref().map_or_else(said, |reply| public(reply))
}

/// The last lines of the log that tells more of an error, for a trace.
pub(crate) fn last_lines(error: &ProviderError) -> Vec<String> {
    let first = error.log_tail.len().saturating_sub(MOST_LAST_LINES);
    let lines = error.log_tail.iter().skip(first);
    lines.map(|line| format!("  | {line}")).collect()
}

/// Text for a report: its beginning.
pub(crate) fn shortened(text: &str) -> String {
    match text.char_indices().nth(300) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
