//! The provider dies, the caller dies, and everything goes on.

use crate::bench::Bench;
use crate::called::{Checking, broken, said, skip};
use crate::catalogue::{Check, check};
use crate::groups::life::{Life, steps};
use alpine_provider_api::{ErrorKind, Method};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

pub(crate) const CHECKS: &[Check] = &[
    check!(
        Crash,
        "crash.fresh",
        "every call works in a fresh process, given configuration and ids",
        fresh
    ),
    check!(
        Crash,
        "crash.killed",
        "a provider that is killed at any moment answers `crashed`, and a repeat in a fresh process converges",
        killed
    ),
    check!(
        Crash,
        "crash.dropped",
        "a call that is dropped at any moment is converged upon by a repeat",
        dropped
    ),
];

async fn fresh(bench: &Bench<'_>) -> Checking {
    bench.always_fresh();
    let mut life = Life::begin(bench).await?;
    for step in steps(&bench.shared.describe) {
        life.finish(step, "in a fresh process").await?;
    }
    Ok(())
}

/// How long each step takes when it is left alone.
async fn rehearsed(bench: &Bench<'_>) -> Checking<BTreeMap<Method, Duration>> {
    let mut spans = BTreeMap::new();
    let mut life = Life::begin(bench).await?;
    for step in steps(&bench.shared.describe) {
        let begun = Instant::now();
        let told = life.attempt(step).await?;
        spans.insert(step, begun.elapsed());
        told.ok(&format!("`{step}` that is left alone succeeds"))?;
        life.finish(step, "again").await?;
    }
    Ok(spans)
}

/// A moment within a step, or a little after it.
fn moment(bench: &Bench<'_>, spans: &BTreeMap<Method, Duration>, step: Method) -> Duration {
    let span = spans.get(&step).copied().unwrap_or_default();
    let most = u64::try_from(span.as_micros()).unwrap_or(0) * 11 / 10 + 200;
    Duration::from_micros(bench.random(most))
}

async fn killed(bench: &Bench<'_>) -> Checking {
    // A first kill, of an instance that does nothing, tells whether there is a process at all.
    // It may be started with its first call only.
    let _ = bench.provider().await?.describe().await;
    if !bench.shared.subject.kill().await {
        let reach = bench.shared.subject.reach().as_str();
        return skip(format!("there is no process to kill: it is {reach}"));
    }
    bench.reopen().await;
    let spans = rehearsed(bench).await?;
    let (mut left, mut hits) = (points(bench)?, 0);
    while left > 0 {
        let mut life = Life::begin(bench).await?;
        for step in steps(&bench.shared.describe) {
            if left > 0 {
                left -= 1;
                let after = moment(bench, &spans, step);
                hits += u32::from(kill_in(bench, &life, step, after).await?);
            }
            life.finish(step, "after its process was killed").await?;
        }
        bench.clean_up().await;
    }
    if hits == 0 {
        let points = bench.shared.options.points;
        return skip(format!(
            "none of {points} kills struck a call: ask for more points"
        ));
    }
    Ok(())
}

/// How many moments are drawn.
fn points(bench: &Bench<'_>) -> Checking<u32> {
    match bench.shared.options.points {
        0 => skip("no moments are asked for: `points` is 0"),
        points => Ok(points),
    }
}

/// Kills the process so long after a call of it began, and tells whether that struck the call.
async fn kill_in(
    bench: &Bench<'_>,
    life: &Life<'_>,
    step: Method,
    after: Duration,
) -> Checking<bool> {
    let killing = async {
        tokio::time::sleep(after).await;
        bench.trace.add(format!("(killed after {after:?})"));
        bench.shared.subject.kill().await
    };
    let (told, killed) = tokio::join!(life.attempt(step), killing);
    bench.reopen().await;
    match told?.reply {
        Ok(_) => Ok(false),
        Err(error) if error.kind == ErrorKind::Crashed => Ok(killed),
        Err(error) => broken(
            format!("`{step}` whose process is killed answers, or is `crashed`"),
            said(&error),
        ),
    }
}

async fn dropped(bench: &Bench<'_>) -> Checking {
    let mut left = points(bench)?;
    let spans = rehearsed(bench).await?;
    while left > 0 {
        let mut life = Life::begin(bench).await?;
        for step in steps(&bench.shared.describe) {
            if left > 0 {
                left -= 1;
                let after = moment(bench, &spans, step);
                let told = tokio::time::timeout(after, life.attempt(step)).await;
                bench.trace.add(match told {
                    Ok(_) => format!("({step} ended within {after:?})"),
                    Err(_) => format!("✗ {step} dropped after {after:?}"),
                });
            }
            life.finish(step, "after it was dropped").await?;
        }
        bench.clean_up().await;
    }
    Ok(())
}
