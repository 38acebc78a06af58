//! What was said to the provider and what it answered, for the report of a failure.

use serde::Serialize;
use serde_json::Value;
use std::sync::{Mutex, PoisonError};

/// The last of these many lines are kept.
const MOST_LINES: usize = 60;
const LONGEST_LINE: usize = 600;

/// The lines of one check.
#[derive(Debug, Default)]
pub(crate) struct Trace(Mutex<Vec<String>>);

impl Trace {
    pub(crate) fn add(&self, line: impl Into<String>) {
        let mut line = line.into();
        if line.len() > LONGEST_LINE {
            let end = (0..=LONGEST_LINE)
                .rev()
                .find(|&at| line.is_char_boundary(at));
            line.truncate(end.unwrap_or(0));
            line.push('…');
        }
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() == MOST_LINES {
            lines.remove(0);
        }
        lines.push(line);
    }

    pub(crate) fn add_all(&self, lines: Vec<String>) {
        lines.into_iter().for_each(|line| self.add(line));
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        let lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lines.clone()
    }
}

/// The value as JSON without its secret fields.
pub(crate) fn public(value: &impl Serialize) -> String {
    let mut value = serde_json::to_value(value).unwrap_or(Value::Null);
    for secret in ["/credential/token", "/open_url", "/password"] {
        if let Some(field) = value.pointer_mut(secret) {
            *field = Value::from("…");
        }
    }
    if let Some(Value::Object(env)) = value.get_mut("env") {
        env.values_mut().for_each(|field| *field = Value::from("…"));
    }
    value.to_string()
}
