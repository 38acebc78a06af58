//! What a call sends, how much of it, and when it ends.

use super::{answer, goes_on, ready, replied, request};
use crate::bench::Bench;
use crate::called::{Checking, broken, same};
use crate::frame::*;
use crate::sandbox::Sandbox;
use crate::wire::{PATIENCE, Talk};
use alpine_provider_api::Method;
use std::time::Duration;

const CREDIT: usize = 256 * 1024;

const CHUNK: usize = 64 * 1024;

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
pub(super) async fn running(talk: &mut Talk<'_>, sandbox: &Sandbox<'_>) -> Checking {
    run(talk, sandbox, 5, "echo begun; sleep 600").await;
    let limit = sandbox.bench.shared.options.call_limit;
    let what = "the output of `echo begun`";
    talk.expect_within(EVENT, what, limit).await.map(drop)
}

pub(super) async fn events_first(bench: &Bench<'_>) -> Checking {
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

pub(super) async fn cancel(bench: &Bench<'_>) -> Checking {
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

pub(super) async fn ping(bench: &Bench<'_>) -> Checking {
    let mut talk = ready(bench).await?;
    let sandbox = made(bench, &mut talk).await?;
    goes_on(&mut talk, 1).await?;
    running(&mut talk, &sandbox).await?;
    for code in [2, u32::MAX] {
        goes_on(&mut talk, code).await?;
    }
    Ok(())
}

pub(super) async fn credit(bench: &Bench<'_>) -> Checking {
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

pub(super) async fn stdout(bench: &Bench<'_>) -> Checking {
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

pub(super) async fn end(bench: &Bench<'_>) -> Checking {
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
