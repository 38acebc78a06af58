//! The one redactor: takes secrets out of free text at the edges, where text leaves for a log, a record or a screen.
//!
//! It is given the values it must find; beside them it knows the shapes of credentials in URLs, in HTTP headers, and of
//! private keys. It never touches alpine's own ids.

use crate::Secret;
use std::fmt;

const MARK: &[u8] = b"[redacted]";
const SHORTEST: usize = 8;
const LONGEST_LINE: usize = 16 * 1024;

/// Takes secrets out of text.
#[derive(Clone, Default)]
pub struct Redactor {
    values: Vec<Vec<u8>>,
}

impl Redactor {
    /// A redactor that looks for these values (those of 8 bytes or more), their single lines, and their percent-encoded forms.
    #[must_use]
    pub fn new<'a>(secrets: impl IntoIterator<Item = &'a Secret<String>>) -> Self {
        let mut redactor = Self::default();
        for secret in secrets {
            redactor.learn(secret);
        }
        redactor
    }

    /// Looks for one more value.
    pub fn learn(&mut self, secret: &Secret<String>) {
        let value = secret.expose();
        for part in std::iter::once(value.as_str()).chain(value.lines()) {
            let part = part.trim();
            for form in [part.to_owned(), percent_encoded(part)] {
                if form.len() >= SHORTEST
                    && !self.values.iter().any(|known| known == form.as_bytes())
                {
                    self.values.push(form.into_bytes());
                }
            }
        }
        self.values
            .sort_by_key(|value| std::cmp::Reverse(value.len()));
    }

    /// Whether one of the values is in the text.
    #[must_use]
    pub fn finds(&self, text: &str) -> bool {
        self.values
            .iter()
            .any(|value| contains(text.as_bytes(), value))
    }

    /// The text without secrets.
    #[must_use]
    pub fn redact(&self, text: &str) -> String {
        String::from_utf8_lossy(&self.redact_bytes(text.as_bytes())).into_owned()
    }

    /// The bytes without secrets.
    #[must_use]
    pub fn redact_bytes(&self, text: &[u8]) -> Vec<u8> {
        let begins = self.beginnings();
        let mut out = Vec::with_capacity(text.len());
        let mut at = 0;
        while at < text.len() {
            if !begins[usize::from(text[at])] {
                out.push(text[at]);
                at += 1;
            } else if let Some(length) = id_at(text, at) {
                out.extend_from_slice(&text[at..at + length]);
                at += length;
            } else if let Some((kept, dropped)) = self.secret_at(text, at) {
                out.extend_from_slice(&text[at..at + kept]);
                out.extend_from_slice(MARK);
                at += kept + dropped;
            } else {
                out.push(text[at]);
                at += 1;
            }
        }
        out
    }

    /// The bytes that an id, a shape or a value can begin with: most of a text is passed by without a closer look.
    fn beginnings(&self) -> [bool; 256] {
        let mut begins = [false; 256];
        let shapes = b"so:bB-".iter();
        let values = self.values.iter().filter_map(|value| value.first());
        for &byte in shapes.chain(values) {
            begins[usize::from(byte)] = true;
        }
        begins
    }

    /// A secret that starts here: how many bytes before it stay, and how many go.
    fn secret_at(&self, text: &[u8], at: usize) -> Option<(usize, usize)> {
        let rest = &text[at..];
        let known = self
            .values
            .iter()
            .find(|value| rest.starts_with(value))
            .map(|value| (0, value.len()));
        known
            .or_else(|| user_info(rest))
            .or_else(|| header(text, at))
            .or_else(|| private_key(rest))
    }

    fn longest(&self) -> usize {
        self.values.first().map_or(0, Vec::len)
    }
}

impl fmt::Debug for Redactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Redactor({} values)", self.values.len())
    }
}

/// Redacts a stream that comes in chunks of any size: holds back the line it is in.
#[derive(Debug)]
pub struct StreamRedactor {
    redactor: Redactor,
    held: Vec<u8>,
    in_key: bool,
}

impl StreamRedactor {
    /// Starts at the beginning of a stream.
    #[must_use]
    pub fn new(redactor: Redactor) -> Self {
        Self {
            redactor,
            held: Vec::new(),
            in_key: false,
        }
    }

    /// Takes a chunk and gives what is safe to write.
    #[must_use]
    pub fn push(&mut self, chunk: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        self.held.extend_from_slice(chunk);
        while let Some(end) = self.held.iter().position(|&byte| byte == b'\n') {
            let line: Vec<u8> = self.held.drain(..=end).collect();
            self.line(&line, &mut out);
        }
        if self.held.len() > LONGEST_LINE {
            // A line without end: all but its tail, in which a secret may still be growing, is written.
            let redacted = self.redactor.redact_bytes(&self.held);
            let keep = self.redactor.longest().max(256).min(redacted.len());
            let cut = redacted.len() - keep;
            out.extend_from_slice(&redacted[..cut]);
            self.held = redacted[cut..].to_vec();
        }
        out
    }

    /// The stream has ended: what was held back.
    #[must_use]
    pub fn finish(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        let line = std::mem::take(&mut self.held);
        if !line.is_empty() {
            self.line(&line, &mut out);
        }
        out
    }

    fn line(&mut self, line: &[u8], out: &mut Vec<u8>) {
        if self.in_key {
            self.in_key = !contains(line, b"-----END");
        } else if contains(line, b"-----BEGIN") && contains(line, b"PRIVATE KEY-----") {
            self.in_key = !contains(line, b"-----END");
            out.extend_from_slice(MARK);
            out.push(b'\n');
        } else {
            out.extend_from_slice(&self.redactor.redact_bytes(line));
        }
    }
}

/// The length of one of alpine's ids (`ses_`, `op_`, `sbx_` and 32 hex digits) that starts here.
fn id_at(text: &[u8], at: usize) -> Option<usize> {
    let rest = &text[at..];
    let prefix = [&b"ses_"[..], b"op_", b"sbx_"]
        .into_iter()
        .find(|prefix| rest.starts_with(prefix))?;
    let digits = rest[prefix.len()..]
        .iter()
        .take_while(|byte| byte.is_ascii_hexdigit())
        .count();
    (digits == 32).then_some(prefix.len() + digits)
}

/// `://user:password@` or `://token@`.
fn user_info(rest: &[u8]) -> Option<(usize, usize)> {
    let authority = rest.strip_prefix(b"://")?;
    let end = authority.iter().position(|&byte| {
        matches!(byte, b'/' | b'?' | b'#' | b'"' | b'\'') || byte.is_ascii_whitespace()
    });
    let at = authority[..end.unwrap_or(authority.len())]
        .iter()
        .rposition(|&byte| byte == b'@')?;
    let info = &authority[..at];
    // `ssh://git@host` names an account, which is no secret.
    (at > 0 && info != b"git" && info != MARK).then_some((3, at))
}

/// `Bearer …` and `Basic …`, as a header's value.
fn header(text: &[u8], at: usize) -> Option<(usize, usize)> {
    if at > 0 && text[at - 1].is_ascii_alphanumeric() {
        return None;
    }
    let rest = &text[at..];
    let scheme = [&b"bearer "[..], b"basic "].into_iter().find(|scheme| {
        rest.len() > scheme.len() && rest[..scheme.len()].eq_ignore_ascii_case(scheme)
    })?;
    let token = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(byte);
    let length = rest[scheme.len()..]
        .iter()
        .take_while(|byte| token(byte))
        .count();
    (length >= SHORTEST).then_some((scheme.len(), length))
}

/// A private key, from its first line to its last, or to the end of the text.
fn private_key(rest: &[u8]) -> Option<(usize, usize)> {
    if !rest.starts_with(b"-----BEGIN") {
        return None;
    }
    let first = &rest[..rest.len().min(80)];
    if !contains(first, b"PRIVATE KEY-----") {
        return None;
    }
    let end = rest.windows(8).position(|window| window == b"-----END");
    let length = end.map_or(rest.len(), |end| {
        let tail = &rest[end..];
        end + tail
            .iter()
            .position(|&byte| byte == b'\n')
            .unwrap_or(tail.len())
    });
    Some((0, length))
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

fn percent_encoded(text: &str) -> String {
    text.bytes()
        .fold(String::with_capacity(text.len()), |mut out, byte| {
            if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                out.push(char::from(byte));
            } else {
                out.push_str(&format!("%{byte:02X}"));
            }
            out
        })
}

#[cfg(test)]
mod tests {
    use super::{Redactor, StreamRedactor};
    use crate::Secret;
    use proptest::prelude::*;

    fn redactor(values: &[&str]) -> Redactor {
        let secrets: Vec<_> = values
            .iter()
            .map(|value| Secret::new((*value).to_owned()))
            .collect();
        Redactor::new(&secrets)
    }

    #[test]
    fn values_shapes_and_ids() {
        let redactor = redactor(&[
            "hunter2hunter2",
            "short",
            "p@ss word!",
            "0123456789abcdef0123456789abcdef",
        ]);
        let id = "ses_0123456789abcdef0123456789abcdef";
        for (text, safe) in [
            ("x hunter2hunter2 y", "x [redacted] y"),
            ("short", "short"),
            ("p%40ss%20word%21", "[redacted]"),
            ("https://u:p@host/x", "https://[redacted]@host/x"),
            ("https://token@host/x", "https://[redacted]@host/x"),
            ("ssh://git@host/x", "ssh://git@host/x"),
            (
                "Authorization: Bearer abcdefgh.ij",
                "Authorization: Bearer [redacted]",
            ),
            (
                "authorization: basic dXNlcjpwYXNz",
                "authorization: basic [redacted]",
            ),
            ("a basic idea", "a basic idea"),
            (
                "-----BEGIN RSA PRIVATE KEY-----\nabc\n-----END RSA PRIVATE KEY-----\nz",
                "[redacted]\nz",
            ),
            (id, id),
            (
                "op_0123456789abcdef0123456789abcdef",
                "op_0123456789abcdef0123456789abcdef",
            ),
            ("x_0123456789abcdef0123456789abcdef", "x_[redacted]"),
        ] {
            assert_eq!(redactor.redact(text), safe, "{text}");
        }
    }

    proptest! {
        #[test]
        fn chunks_do_not_matter(cuts in prop::collection::vec(1usize..9, 0..80)) {
            let text = "one\nhunter2hunter2 and Bearer abcdefghijk\n-----BEGIN PRIVATE KEY-----\nxyz\n-----END PRIVATE KEY-----\nlast https://a:b@c/ hunter2hunter2";
            let mut stream = StreamRedactor::new(redactor(&["hunter2hunter2"]));
            let mut rest = text.as_bytes();
            let mut out = Vec::new();
            for cut in cuts {
                let (chunk, tail) = rest.split_at(cut.min(rest.len()));
                out.extend(stream.push(chunk));
                rest = tail;
            }
            out.extend(stream.push(rest));
            out.extend(stream.finish());
            let expected = "one\n[redacted] and Bearer [redacted]\n[redacted]\nlast https://[redacted]@c/ [redacted]";
            prop_assert_eq!(String::from_utf8(out).unwrap(), expected);
        }
    }
}
