//! The provider dies, the caller dies, and everything goes on.

use crate::bench::Bench;
use crate::called::{Checking, broken, said, skip};
use crate::catalogue::{Check, check};
use crate::groups::life::{Life, steps};
use alpine_provider_api::{ErrorKind, Method};
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;

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
    bench.fresh(true);
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

async fn killed(bench: &Bench<'_>) -> Checking {
    // So that the process that a call is made to can be aimed at before.
    bench.fresh(false);
    // It may be started with its first call only.
    let _ = bench.provider().await?.describe().await;
    if bench.shared.subject.aim().is_none() {
        let reach = bench.shared.subject.reach().as_str();
        return skip(format!("there is no process to kill: it is {reach}"));
    }
    interrupted(bench, Interruption::Kill).await
}

async fn dropped(bench: &Bench<'_>) -> Checking {
    interrupted(bench, Interruption::Drop).await
}

/// What ends a call before its answer.
#[derive(Clone, Copy, Debug)]
enum Interruption {
    /// Its process is killed.
    Kill,
    /// Its caller gives it up.
    Drop,
}

/// How many interruptions are tried at least before too few have struck a call.
const TRIES: u32 = 200;

/// Leads lives whose every step is interrupted once and then repeated, until as many interruptions as are asked for struck
/// a call that was under way.
async fn interrupted(bench: &Bench<'_>, how: Interruption) -> Checking {
    let wanted = bench.shared.options.points;
    if wanted == 0 {
        return skip("no moments are asked for: `points` is 0");
    }
    let mut spans = rehearsed(bench).await?;
    let end = Instant::now() + bench.shared.options.check_limit / 2;
    let mut tried: BTreeMap<_, _> = spans.keys().map(|&step| (step, 0)).collect();
    let mut strikes = BTreeMap::new();
    let (mut tries, mut struck) = (0, 0);
    while struck < wanted && tries < wanted.saturating_mul(10).max(TRIES) && Instant::now() < end {
        let mut life = Life::begin(bench).await?;
        let chosen = chosen(bench, &tried, wanted - struck);
        let mut missed = 0;
        for step in steps(&bench.shared.describe) {
            // A later step stands in for one that was over before the blow.
            let stands_in = !chosen.contains(&step);
            if !stands_in || missed > 0 {
                tries += 1;
                *tried.entry(step).or_default() += 1;
                let span = spans.entry(step).or_default();
                let micros = u64::try_from(span.as_micros()).unwrap_or(u64::MAX);
                let after = Duration::from_micros(bench.random(micros.max(1)));
                let is_struck = u32::from(match how {
                    Interruption::Kill => kill_in(bench, &life, step, after).await?,
                    Interruption::Drop => drop_in(bench, &life, step, after).await?,
                });
                if is_struck == 0 {
                    // It took less than that; but the latest moments are not to be lost to one quick call.
                    *span = (*span + after) / 2;
                }
                missed = missed + 1 - is_struck - u32::from(stands_in);
                struck += is_struck;
                *strikes.entry(step).or_default() += is_struck;
                bench.note(told(&strikes));
            }
            life.finish(step, "after it was interrupted").await?;
        }
        bench.clean_up().await;
    }
    if struck < wanted {
        return skip(format!(
            "{struck} of {tries} interruptions struck a call, and {wanted} are asked for"
        ));
    }
    Ok(())
}

/// The steps of the next life that are interrupted, where not all are wanted: those first that were tried least, and of
/// these, other ones in each run.
fn chosen(bench: &Bench<'_>, tried: &BTreeMap<Method, u32>, wanted: u32) -> BTreeSet<Method> {
    let draw = |step: &Method| {
        let mut hasher = DefaultHasher::new();
        (&bench.shared.run, step.id()).hash(&mut hasher);
        hasher.finish()
    };
    let mut steps: Vec<_> = tried
        .iter()
        .map(|(step, count)| (count, draw(step), step))
        .collect();
    steps.sort_unstable();
    let wanted = usize::try_from(wanted).unwrap_or(usize::MAX);
    let steps = steps.into_iter().take(wanted);
    steps.map(|(_, _, step)| *step).collect()
}

/// Which steps were struck, and how often.
fn told(strikes: &BTreeMap<Method, u32>) -> String {
    let struck = strikes.iter().filter(|(_, count)| **count > 0);
    let words: Vec<_> = struck
        .map(|(step, count)| format!("{step} {count}"))
        .collect();
    format!("struck {}", words.join(", "))
}

/// Does this so long after now. The timers of a runtime are too coarse: many calls take less than a millisecond.
pub(crate) fn after(time: Duration, then: impl FnOnce() + Send + 'static) -> JoinHandle<()> {
    let moment = Instant::now() + time;
    tokio::task::spawn_blocking(move || {
        // A sleep takes some longer than it is asked to.
        let spun = Duration::from_micros(100);
        std::thread::sleep((moment - spun).saturating_duration_since(Instant::now()));
        while Instant::now() < moment {
            std::hint::spin_loop();
        }
        then();
    })
}

/// Kills the process so long after a call of it began, and tells whether that struck the call.
async fn kill_in(
    bench: &Bench<'_>,
    life: &Life<'_>,
    step: Method,
    time: Duration,
) -> Checking<bool> {
    // One that was killed is started by this.
    let _ = bench.provider().await?.describe().await;
    let Some(kill) = bench.shared.subject.aim() else {
        return broken("its process is there", "none");
    };
    let killing = after(time, kill);
    let told = life.attempt(step).await;
    let _ = killing.await;
    bench
        .trace
        .add(format!("(killed {time:?} after `{step}` began)"));
    bench.reopen().await;
    match told?.reply {
        Ok(_) => Ok(false),
        Err(error) if error.kind == ErrorKind::Crashed => Ok(true),
        Err(error) => broken(
            format!("`{step}` whose process is killed answers, or is `crashed`"),
            said(&error),
        ),
    }
}

/// Drops a call so long after it began, and tells whether that struck it.
async fn drop_in(
    bench: &Bench<'_>,
    life: &Life<'_>,
    step: Method,
    time: Duration,
) -> Checking<bool> {
    let moment = after(time, || ());
    let is_dropped = tokio::select! {
        told = life.attempt(step) => told.map(|_| false)?,
        _ = moment => true,
    };
    bench.trace.add(match is_dropped {
        false => format!("({step} ended within {time:?})"),
        true => format!("✗ {step} dropped after {time:?}"),
    });
    Ok(is_dropped)
}
