//! What is said before the first call.

use super::{goes_on, ready, talk, text};
use crate::bench::Bench;
use crate::called::{Checking, broken, same};
use crate::frame::*;
use crate::wire::{PATIENCE, Talk};
use serde_json::Value;

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

pub(super) async fn hello(bench: &Bench<'_>) -> Checking {
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

pub(super) async fn range(bench: &Bench<'_>) -> Checking {
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

pub(super) async fn configuration(bench: &Bench<'_>) -> Checking {
    let mut talk = talk(bench).await?;
    talk.greet("ALPNPRV1", 1, 1).await;
    talk.say(0, OPEN, 0, b"{\"config\": ").await;
    refuses(&mut talk, "it is refused with an error").await
}

pub(super) async fn second_open(bench: &Bench<'_>) -> Checking {
    let mut talk = ready(bench).await?;
    talk.open().await;
    refuses(&mut talk, "it is refused with an error").await
}
