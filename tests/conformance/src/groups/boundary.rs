//! The boundary to a provider that is not compiled in: what it makes of frames, good and bad.

use crate::Reach;
use crate::bench::Bench;
use crate::called::{Checking, broken, same, skip};
use crate::catalogue::{Check, check};
use crate::frame::*;
use crate::sandbox::Sandbox;
use crate::wire::{PATIENCE, Talk};
use alpine_provider_api::{ErrorKind, Method};
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
        hello
    ),
    check!(
        Boundary,
        "boundary.range",
        "a host whose range of versions, or whose magic, does not fit is refused with an error, and nothing is opened",
        range
    ),
    check!(
        Boundary,
        "boundary.configuration",
        "a configuration that is no JSON is refused with an error",
        configuration
    ),
    check!(
        Boundary,
        "boundary.second_open",
        "a second OPEN is refused with an error",
        second_open
    ),
    check!(
        Boundary,
        "boundary.unknown_method",
        "a method that it does not know answers `unsupported`, once, and the provider goes on",
        unknown_method
    ),
    check!(
        Boundary,
        "boundary.unknown_kind",
        "a frame of a kind that it does not know does no harm: it is left out, or the wire ends with an error",
        unknown_kind
    ),
    check!(
        Boundary,
        "boundary.garbage",
        "a call that is no JSON answers `invalid_argument`, once, and the provider goes on",
        garbage
    ),
    check!(
        Boundary,
        "boundary.too_large",
        "a frame over the limit is refused with an error, before its bytes are there",
        too_large
    ),
    check!(
        Boundary,
        "boundary.events_first",
        "the events of a call are in order and precede its answer, and nothing follows it",
        events_first
    ),
    check!(
        Boundary,
        "boundary.cancel",
        "a call is answered exactly once, also after CANCEL",
        cancel
    ),
    check!(
        Boundary,
        "boundary.ping",
        "PING is answered with PONG, also while a call runs",
        ping
    ),
    check!(
        Boundary,
        "boundary.credit",
        "a stream stops where its credit ends and goes on when more is granted; it stalls itself alone",
        credit
    ),
    check!(
        Boundary,
        "boundary.stdout",
        "nothing but descriptor 3 speaks: standard output stays empty",
        stdout
    ),
    check!(
        Boundary,
        "boundary.end",
        "a provider's process ends with its host's end of the wire, also while a call runs",
        end
    ),
];

const CREDIT: usize = 256 * 1024;
const CHUNK: usize = 64 * 1024;

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

/// The wire ends with an error of call 0, or ends.
async fn refuses(talk: &mut Talk<'_>, what: &str) -> Checking {
    loop {
        match talk.hear(what, PATIENCE).await? {
            Some(frame) if frame.kind == HELLO => {}
            Some(frame) if frame.kind == ERR && frame.call == 0 => return Ok(()),
            other => return broken(what, heard(other)),
        }
    }
}

/// A field that is a text, or nothing.
fn text<'v>(value: &'v Value, field: &str) -> &'v str {
    value[field].as_str().unwrap_or_default()
}

async fn hello(bench: &Bench<'_>) -> Checking {
    let mut talk = talk(bench).await?;
    talk.greet("ALPNPRV1", 1, 1).await;
    let hello = talk.expect(HELLO, "HELLO is answered with HELLO").await?;
    let hello: Value = serde_json::from_slice(&hello.payload).unwrap_or_default();
    same("the magic", &"ALPNPRV1", &text(&hello, "magic"))?;
    match (hello["abi_min"].as_u64(), hello["abi_max"].as_u64()) {
        (Some(0..=1), Some(1..)) => {}
        _ => {
            let found = format!(
                "`abi_min` {}, `abi_max` {}",
                hello["abi_min"], hello["abi_max"]
            );
            return broken("a range of versions that holds 1", found);
        }
    }
    talk.open().await;
    talk.expect(READY, "OPEN is answered with READY").await?;
    goes_on(&mut talk, 3).await
}

async fn range(bench: &Bench<'_>) -> Checking {
    for (magic, min, max) in [("ALPNPRV1", 900, 901), ("SOMEBODY", 1, 1)] {
        let mut talk = talk(bench).await?;
        talk.greet(magic, min, max).await;
        talk.open().await;
        refuses(
            &mut talk,
            "a greeting that does not fit is refused with an error",
        )
        .await?;
    }
    Ok(())
}

async fn configuration(bench: &Bench<'_>) -> Checking {
    let mut talk = talk(bench).await?;
    talk.greet("ALPNPRV1", 1, 1).await;
    talk.say(0, OPEN, 0, b"{\"config\": ").await;
    refuses(&mut talk, "it is refused with an error").await
}

async fn second_open(bench: &Bench<'_>) -> Checking {
    let mut talk = ready(bench).await?;
    talk.open().await;
    refuses(&mut talk, "it is refused with an error").await
}

async fn unknown_method(bench: &Bench<'_>) -> Checking {
    let mut talk = ready(bench).await?;
    for (call, method) in [(1, 9999), (2, 0)] {
        talk.say(call, CALL, method, &request(bench, &json!({})))
            .await;
        refused(
            &mut talk,
            call,
            ErrorKind::Unsupported,
            &format!("method {method}"),
        )
        .await?;
    }
    goes_on(&mut talk, 1).await
}

async fn unknown_kind(bench: &Bench<'_>) -> Checking {
    let mut talk = ready(bench).await?;
    talk.say(0, 77, 5, b"of a later version").await;
    talk.say(0, PING, 9, &[]).await;
    let what = "PONG, or ERR of the whole wire";
    match talk.hear(what, PATIENCE).await? {
        Some(frame) if frame.kind == PONG => Ok(()),
        Some(frame) if frame.kind == ERR && frame.call == 0 => Ok(()),
        other => broken(what, heard(other)),
    }
}

async fn garbage(bench: &Bench<'_>) -> Checking {
    let mut talk = ready(bench).await?;
    let calls = [
        &b""[..],
        b"\xff\xfe",
        b"[]",
        b"{\"meta\":{}}",
        b"{\"request\":{}}",
    ];
    for (call, payload) in (1..).zip(calls) {
        talk.say(call, CALL, Method::Inspect.id(), payload).await;
        let what = format!("a call that is `{}`", String::from_utf8_lossy(payload));
        refused(&mut talk, call, ErrorKind::InvalidArgument, &what).await?;
    }
    goes_on(&mut talk, 1).await
}

async fn too_large(bench: &Bench<'_>) -> Checking {
    for len in [u32::MAX, (1 << 20) + 1] {
        let mut talk = ready(bench).await?;
        let bytes = header(1, CALL, Method::Inspect.id(), len);
        talk.say_bytes(&bytes).await;
        let what = format!("a frame of {len} bytes is refused: ERR");
        match talk.hear(&what, PATIENCE).await? {
            Some(frame) if frame.kind == ERR => {}
            other => return broken(what, heard(other)),
        }
    }
    Ok(())
}

/// A sandbox that was made over this wire.
async fn made<'b>(bench: &'b Bench<'_>, talk: &mut Talk<'_>) -> Checking<Sandbox<'b>> {
    let sandbox = bench.sandbox()?;
    let payload = request(bench, &sandbox.provision_request());
    talk.say(1000, CALL, Method::Provision.id(), &payload).await;
    replied(bench, talk, 1000, "provision makes the sandbox").await?;
    Ok(sandbox)
}

async fn run(talk: &mut Talk<'_>, sandbox: &Sandbox<'_>, call: u64, script: &str) {
    let payload = request(sandbox.bench, &sandbox.exec_request(&["sh", "-c", script]));
    talk.say(call, CALL, Method::Exec.id(), &payload).await;
}

/// A command that runs for long, and has said its first word.
async fn running(talk: &mut Talk<'_>, sandbox: &Sandbox<'_>) -> Checking {
    run(talk, sandbox, 5, "echo begun; sleep 600").await;
    let limit = sandbox.bench.shared.options.call_limit;
    let what = "the output of `echo begun`";
    talk.expect_within(EVENT, what, limit).await.map(drop)
}

async fn events_first(bench: &Bench<'_>) -> Checking {
    let mut talk = ready(bench).await?;
    let sandbox = made(bench, &mut talk).await?;
    run(
        &mut talk,
        &sandbox,
        5,
        "i=0; while [ $i -lt 100 ]; do echo $i; i=$((i + 1)); done",
    )
    .await;
    let mut text = Vec::new();
    let (what, limit) = ("output, then the answer", bench.shared.options.call_limit);
    loop {
        match talk.hear(what, limit).await? {
            Some(frame) if (frame.call, frame.kind, frame.code) == (5, EVENT, 2) => {
                text.extend_from_slice(&frame.payload);
            }
            Some(frame) if (frame.call, frame.kind) == (5, OK) => break,
            other => return broken(what, heard(other)),
        }
    }
    let expected: String = (0..100).map(|i| format!("{i}\n")).collect();
    same(
        "the output",
        &expected.as_str(),
        &String::from_utf8_lossy(&text).as_ref(),
    )?;
    goes_on(&mut talk, 1).await
}

async fn cancel(bench: &Bench<'_>) -> Checking {
    let mut talk = ready(bench).await?;
    let sandbox = made(bench, &mut talk).await?;
    running(&mut talk, &sandbox).await?;
    talk.say(5, CANCEL, 1, &[]).await;
    let answer = answer(&mut talk, 5, PATIENCE).await?;
    if answer.kind != ERR {
        return broken("ERR of the call that was cancelled", answer.to_string());
    }
    // Late news of a call that was answered changes nothing.
    talk.say(5, CANCEL, 1, &[]).await;
    talk.say(5, GRANT, 4096, &[]).await;
    talk.say(6, CANCEL, 1, &[]).await;
    goes_on(&mut talk, 1).await?;
    match talk.hear_within(Duration::from_millis(200)).await? {
        Heard::Nothing => Ok(()),
        Heard::Frame(frame) if frame.kind == LOG => Ok(()),
        other @ (Heard::Frame(_) | Heard::End) => {
            broken("exactly one answer", format!("then {other}"))
        }
    }
}

async fn ping(bench: &Bench<'_>) -> Checking {
    let mut talk = ready(bench).await?;
    let sandbox = made(bench, &mut talk).await?;
    goes_on(&mut talk, 1).await?;
    running(&mut talk, &sandbox).await?;
    for code in [2, u32::MAX] {
        goes_on(&mut talk, code).await?;
    }
    Ok(())
}

async fn credit(bench: &Bench<'_>) -> Checking {
    const SIZE: usize = 1 << 20;
    let mut talk = ready(bench).await?;
    let sandbox = made(bench, &mut talk).await?;
    run(&mut talk, &sandbox, 5, &format!("head -c {SIZE} /dev/zero")).await;
    let (mut arrived, mut allowed) = (0, CREDIT);
    loop {
        // Silence is the end of its credit where most of that was used; before, it takes as long as an answer may.
        let patience = match arrived < allowed / 2 {
            true => bench.shared.options.call_limit,
            false => Duration::from_millis(300),
        };
        match talk.hear_within(patience).await? {
            Heard::Frame(frame) if frame.kind == LOG => {}
            Heard::Frame(frame) if (frame.call, frame.kind) == (5, EVENT) => {
                arrived += frame.payload.len();
                if frame.payload.len() > CHUNK || arrived > allowed {
                    let found =
                        format!("{arrived} bytes, the last {} of them", frame.payload.len());
                    return broken(format!("at most {allowed}, {CHUNK} at once"), found);
                }
            }
            Heard::Frame(frame) if (frame.call, frame.kind) == (5, OK) => break,
            Heard::Nothing if arrived < allowed / 2 => {
                return broken(
                    format!("about {allowed} bytes of output"),
                    format!("{arrived}"),
                );
            }
            Heard::Nothing => {
                goes_on(&mut talk, 1).await?;
                talk.say(5, GRANT, u32::try_from(CREDIT).unwrap_or(0), &[])
                    .await;
                allowed += CREDIT;
            }
            other @ (Heard::Frame(_) | Heard::End) => {
                return broken("output, then its answer", other.to_string());
            }
        }
    }
    same("how much arrives", &SIZE, &arrived)
}

async fn stdout(bench: &Bench<'_>) -> Checking {
    let mut talk = ready(bench).await?;
    let sandbox = made(bench, &mut talk).await?;
    run(&mut talk, &sandbox, 5, "echo out; echo err >&2").await;
    replied(bench, &mut talk, 5, "exec runs `sh`").await?;
    let printed = talk.printed(Duration::from_secs(5)).await;
    same(
        "what it printed",
        &"",
        &String::from_utf8_lossy(&printed).as_ref(),
    )
}

async fn end(bench: &Bench<'_>) -> Checking {
    for busy in [false, true] {
        let mut talk = ready(bench).await?;
        if busy {
            let sandbox = made(bench, &mut talk).await?;
            running(&mut talk, &sandbox).await?;
        }
        if !talk.hang_up(Duration::from_secs(5)).await {
            let state = if busy { "busy" } else { "idle" };
            return broken(
                "its process ends within 5 s",
                format!("the {state} one does not"),
            );
        }
    }
    Ok(())
}

pub(crate) async fn missing_field(bench: &Bench<'_>) -> Checking {
    let mut talk = ready(bench).await?;
    let whole = json!({ "sandbox_id": "x", "ledger_id": "l", "session_id": "s", "allow_unsandboxed": true });
    for (call, field) in (1..).zip(["sandbox_id", "ledger_id", "session_id"]) {
        let mut lacking = whole.clone();
        if let Some(fields) = lacking.as_object_mut() {
            fields.remove(field);
        }
        let payload = request(bench, &lacking);
        talk.say(call, CALL, Method::Provision.id(), &payload).await;
        let what = format!("provision without `{field}`");
        refused(&mut talk, call, ErrorKind::InvalidArgument, &what).await?;
    }
    goes_on(&mut talk, 1).await
}

pub(crate) async fn unknown_field(bench: &Bench<'_>) -> Checking {
    let mut talk = ready(bench).await?;
    let sandbox = bench.sandbox()?;
    let mut asked = serde_json::to_value(sandbox.provision_request()).unwrap_or_default();
    asked["of_a_later_version"] = json!({ "deep": [1, null] });
    talk.say(1, CALL, Method::Provision.id(), &request(bench, &asked))
        .await;
    let what = "provision ignores it and makes the sandbox";
    replied(bench, &mut talk, 1, what).await?;
    let asked = json!({ "sandbox_id": sandbox.id, "probe": false, "of_a_later_version": 1 });
    talk.say(2, CALL, Method::Inspect.id(), &request(bench, &asked))
        .await;
    let what = "inspect ignores it and answers";
    let reply = replied(bench, &mut talk, 2, what).await?;
    same("the state", &"running", &text(&reply, "state"))
}
