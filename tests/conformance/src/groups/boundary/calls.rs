//! Calls that are well, and calls and frames that are not.

use super::{goes_on, ready, refused, replied, request, text};
use crate::bench::Bench;
use crate::called::{Checking, broken, same};
use crate::frame::*;
use crate::wire::PATIENCE;
use alpine_provider_api::{ErrorKind, Method};
use serde_json::json;

pub(super) async fn unknown_method(bench: &Bench<'_>) -> Checking {
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

pub(super) async fn unknown_kind(bench: &Bench<'_>) -> Checking {
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

pub(super) async fn garbage(bench: &Bench<'_>) -> Checking {
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

pub(super) async fn too_large(bench: &Bench<'_>) -> Checking {
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
