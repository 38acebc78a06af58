//! The boundary to a provider that is not compiled in: what it makes of frames, good and bad.

pub(crate) mod calls;
mod opening;
mod streams;

use crate::Reach;
use crate::bench::Bench;
use crate::called::{Checking, broken, same, skip};
use crate::catalogue::{Check, check};
use crate::frame::*;
use crate::wire::{PATIENCE, Talk};
use alpine_provider_api::ErrorKind;
use serde::Serialize;
use serde_json::{Value, json};
use std::time::Duration;

/// Where this is broken, nothing else can be checked.
pub(crate) const OPENS: Check = check!(
    Boundary,
    "boundary.opens",
    "a provider opens, and says what it is",
    crate::groups::describe::opens
);

pub(crate) const CHECKS: &[Check] = &[
    OPENS,
    check!(
        Boundary,
        "boundary.hello",
        "a provider answers HELLO with its own, whose magic and range of versions fit, and OPEN with READY",
        opening::hello
    ),
    check!(
        Boundary,
        "boundary.range",
        "a host whose range of versions, or whose magic, does not fit is refused with an error, and nothing is opened",
        opening::range
    ),
    check!(
        Boundary,
        "boundary.configuration",
        "a configuration that is no JSON is refused with an error",
        opening::configuration
    ),
    check!(
        Boundary,
        "boundary.second_open",
        "a second OPEN is refused with an error",
        opening::second_open
    ),
    check!(
        Boundary,
        "boundary.unknown_method",
        "a method that it does not know answers `unsupported`, once, and the provider goes on",
        calls::unknown_method
    ),
    check!(
        Boundary,
        "boundary.unknown_kind",
        "a frame of a kind that it does not know does no harm: it is left out, or the wire ends with an error",
        calls::unknown_kind
    ),
    check!(
        Boundary,
        "boundary.garbage",
        "a call that is no JSON answers `invalid_argument`, once, and the provider goes on",
        calls::garbage
    ),
    check!(
        Boundary,
        "boundary.too_large",
        "a frame over the limit is refused with an error, before its bytes are there",
        calls::too_large
    ),
    check!(
        Boundary,
        "boundary.events_first",
        "the events of a call are in order and precede its answer, and nothing follows it",
        streams::events_first
    ),
    check!(
        Boundary,
        "boundary.cancel",
        "a call is answered exactly once, also after CANCEL",
        streams::cancel
    ),
    check!(
        Boundary,
        "boundary.ping",
        "PING is answered with PONG, also while a call runs",
        streams::ping
    ),
    check!(
        Boundary,
        "boundary.credit",
        "a stream stops where its credit ends and goes on when more is granted; it stalls itself alone",
        streams::credit
    ),
    check!(
        Boundary,
        "boundary.stdout",
        "nothing but descriptor 3 speaks: standard output stays empty",
        streams::stdout
    ),
    check!(
        Boundary,
        "boundary.end",
        "a provider's process ends with its host's end of the wire, also while a call runs",
        streams::end
    ),
];

async fn talk<'b>(bench: &'b Bench<'_>) -> Checking<Talk<'b>> {
    let Some(wire) = bench.shared.subject.wire().await else {
        return match bench.shared.subject.reach() {
            reach @ (Reach::CompiledIn | Reach::InProcess) => {
                skip(format!("there is no wire: it is {}", reach.as_str()))
            }
            Reach::Hosted | Reach::Exec => skip("its wire is checked without what is added"),
        };
    };
    Talk::begin(wire, &bench.trace).or_else(|error| broken("a wire", error.to_string()))
}

async fn ready<'b>(bench: &'b Bench<'_>) -> Checking<Talk<'b>> {
    let mut talk = talk(bench).await?;
    talk.ready().await?;
    Ok(talk)
}

fn request(bench: &Bench<'_>, request: &impl Serialize) -> Vec<u8> {
    let meta = json!({
        "operation_id": format!("op_{}", bench.shared.run),
        "fence": 7, "attempt": 1, "deadline_ms": bench.deadline_ms(),
    });
    json!({ "meta": meta, "request": request })
        .to_string()
        .into_bytes()
}

/// The answer to a call, which has to come within this time: its OK, or its ERR.
async fn answer(talk: &mut Talk<'_>, call: u64, limit: Duration) -> Checking<Frame> {
    let what = format!("an answer to call {call}");
    loop {
        match talk.hear(&what, limit).await? {
            Some(frame) if frame.kind == EVENT => {}
            Some(frame) if frame.call == call && matches!(frame.kind, OK | ERR) => {
                return Ok(frame);
            }
            other => return broken(what, heard(other)),
        }
    }
}

/// A call has to succeed, as soon as any call has to.
async fn replied(bench: &Bench<'_>, talk: &mut Talk<'_>, call: u64, what: &str) -> Checking<Value> {
    let frame = answer(talk, call, bench.shared.options.call_limit).await?;
    match frame.kind {
        OK => Ok(serde_json::from_slice(&frame.payload).unwrap_or_default()),
        _ => broken(what, frame.to_string()),
    }
}

/// A call has to be refused.
async fn refused(talk: &mut Talk<'_>, call: u64, kind: ErrorKind, what: &str) -> Checking {
    let frame = answer(talk, call, PATIENCE).await?;
    match frame.kind == ERR && frame.error() == kind.as_str() {
        true => Ok(()),
        false => broken(
            format!("{what}: ERR `{}`", kind.as_str()),
            frame.to_string(),
        ),
    }
}

/// The provider still answers, and nothing else came before that.
async fn goes_on(talk: &mut Talk<'_>, code: u32) -> Checking {
    talk.say(0, PING, code, &[]).await;
    let pong = talk
        .expect(PONG, "PING is answered with PONG, and nothing precedes it")
        .await?;
    same("the code of PONG", &code, &pong.code)
}

/// A field that is a text, or nothing.
fn text<'v>(value: &'v Value, field: &str) -> &'v str {
    value[field].as_str().unwrap_or_default()
}
