//! The gateway's own answers: short texts that say what to run.

use http_body_util::BodyExt;
use http_body_util::Full;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Bytes;
use hyper::header::{
    ACCEPT, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderMap, HeaderName,
    HeaderValue, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use hyper::{Response, StatusCode};
use std::error::Error;
use std::fmt::Write as _;

/// What every body of an answer is.
pub(crate) type Body = UnsyncBoxBody<Bytes, Box<dyn Error + Send + Sync>>;

/// What every answer is.
pub(crate) type Answer = Response<Body>;

/// The policy of a page that needs nothing.
const NOTHING: &str =
    "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// A whole body.
pub(crate) fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into())
        .map_err(|never| match never {})
        .boxed_unsync()
}

/// An answer of the gateway's own: never cached, never framed, never a referrer.
pub(crate) fn own(status: StatusCode, kind: &'static str, body: Body) -> Answer {
    let mut answer = Response::new(body);
    *answer.status_mut() = status;
    for (name, value) in [
        (CONTENT_TYPE, kind),
        (CACHE_CONTROL, "no-store"),
        (REFERRER_POLICY, "no-referrer"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (X_FRAME_OPTIONS, "DENY"),
        (CONTENT_SECURITY_POLICY, NOTHING),
    ] {
        set(&mut answer, name, value);
    }
    answer
}

/// Sets a header to a text that is known to fit.
pub(crate) fn set(answer: &mut Answer, name: HeaderName, value: &'static str) {
    answer
        .headers_mut()
        .insert(name, HeaderValue::from_static(value));
}

/// A sentence and a command to paste, for a browser or for a terminal, whichever asks.
pub(crate) fn notice(asked: &HeaderMap, status: StatusCode, said: &str, run: &str) -> Answer {
    let wants_html = asked
        .get(ACCEPT)
        .is_some_and(|kinds| contains(kinds.as_bytes(), b"text/html"));
    if wants_html {
        let page = format!(
            "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\">\
             <meta name=\"viewport\" content=\"width=device-width\">\
             <meta name=\"color-scheme\" content=\"light dark\"><title>alpine</title>\
             <h1>{}</h1><p>Run <code>{}</code>.</p></html>\n",
            escape(said),
            escape(run)
        );
        own(status, "text/html; charset=utf-8", full(page))
    } else {
        let text = format!("{said}\nhint: run `{run}`\n");
        own(status, "text/plain; charset=utf-8", full(text))
    }
}

/// Text as HTML shows it, in elements and in quoted attributes.
pub(crate) fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' | '<' | '>' | '"' | '\'' => {
                // Writing to a string does not fail.
                let _ = write!(safe, "&#{};", u32::from(letter));
            }
            other => safe.push(other),
        }
    }
    safe
}

/// Whether bytes hold a text, in any case of letters.
pub(crate) fn contains(bytes: &[u8], text: &[u8]) -> bool {
    bytes
        .windows(text.len())
        .any(|window| window.eq_ignore_ascii_case(text))
}
