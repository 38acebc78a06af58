//! Runs the checks.

use crate::bench::{Bench, Shared};
use crate::called::{Halt, broken, last_lines, said, skip};
use crate::catalogue::{Check, picked};
use crate::groups::boundary::OPENS;
use crate::report::NOT_STARTED;
use crate::repository::Repository;
use crate::{Checked, Options, Reach, Report, Subject, Verdict};
use alpine_provider_api::{DescribeReply, Feature, Method};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::pin::Pin;
use std::sync::atomic::AtomicU32;
use std::task::Poll;
use std::time::{Duration, Instant};

/// Runs every check that is asked for, one after the other, and removes what they made: of the provider as it is, and then
/// with what the host adds to it.
///
/// # Errors
/// When the kit itself can't work: no temporary directory, no `git`, or nothing of that name to check. What is wrong with the provider is in the report.
pub async fn check(subject: &dyn Subject, options: &Options) -> io::Result<Report> {
    check_until(subject, options, std::future::pending(), |_| {}).await
}

/// The same, and each check is told as it ends. When `stop` ends, the running check is dropped and what it made is
/// removed; the report holds the checks that had ended by then.
///
/// # Errors
/// As `check`.
pub async fn check_until(
    subject: &dyn Subject,
    options: &Options,
    stop: impl Future<Output = ()> + Send,
    mut told: impl FnMut(&Checked) + Send,
) -> io::Result<Report> {
    let mut stop = Stop::new(stop);
    let bare = as_it_is(subject, options, &mut stop, &mut told).await?;
    if bare.provider.is_empty() || stop.is_here {
        // It could not even be asked what it has, which every check tells.
        return Ok(bare);
    }
    match tokio::time::timeout(options.call_limit, subject.adapted()).await {
        Ok(Ok(None)) => Ok(bare),
        Ok(Ok(Some(adapted))) => {
            let adapted = as_it_is(&*adapted, options, &mut stop, &mut told).await?;
            Ok(bare.with_adapted(adapted))
        }
        Ok(Err(error)) => Ok(bare.with_left(format!("nothing can be added: {}", said(&error)))),
        Err(_) => Ok(bare.with_left("nothing can be added: no answer came".to_owned())),
    }
}

async fn as_it_is(
    subject: &dyn Subject,
    options: &Options,
    stop: &mut Stop<impl Future<Output = ()> + Send>,
    told: &mut (impl FnMut(&Checked) + Send),
) -> io::Result<Report> {
    let mut temporary = tempfile::Builder::new();
    let temporary = temporary.prefix("alpine-conformance-");
    let directory = match &options.temporary {
        Some(within) => temporary.tempdir_in(within)?,
        None => temporary.tempdir()?,
    };
    let wanted = picked(&options.only).map_err(io::Error::other)?;
    let mut report = Report {
        provider: String::new(),
        version: String::new(),
        reach: subject.reach().as_str().to_owned(),
        fresh: options.fresh,
        seed: options.seed,
        checks: Vec::new(),
        left: Vec::new(),
    };
    let repository = Repository::make(directory.path())?;
    let describe = tokio::select! {
        describe = describe(subject, options) => describe,
        () = stop.came() => return Ok(report),
    };
    let describe = match describe {
        Ok(describe) => describe,
        Err(why) => {
            report.checks = not_started(subject.reach(), &wanted, why);
            report.checks.iter().take(1).for_each(told);
            return Ok(report);
        }
    };
    report.provider.clone_from(&describe.name);
    report.version.clone_from(&describe.version);
    let shared = Shared {
        subject,
        options,
        describe,
        repository,
        run: run_of(directory.path()),
        made: AtomicU32::new(0),
    };
    for (number, check) in (0..).zip(&wanted) {
        let begun = Instant::now();
        let (verdict, left, note) = one(&shared, check, number, stop).await;
        let left = left
            .into_iter()
            .map(|left| format!("{}: {left}", check.name));
        report.left.extend(left);
        let Some(verdict) = verdict else {
            return Ok(report);
        };
        let checked = Checked::new(check, subject.reach(), verdict, begun.elapsed());
        let checked = Checked { note, ..checked };
        told(&checked);
        report.checks.push(checked);
    }
    let listed = tokio::select! {
        listed = caught(still_listed(&shared)) => listed,
        () = stop.came() => return Ok(report),
    };
    report
        .left
        .extend(listed.unwrap_or_else(|panic| vec![format!("list panicked: {panic}")]));
    Ok(report)
}

/// How long what a check made may take to be removed once the run is to stop.
const LAST: Duration = Duration::from_secs(20);

/// The wish to stop, which stays once it came.
struct Stop<F> {
    wish: Pin<Box<F>>,
    is_here: bool,
}

impl<F: Future<Output = ()>> Stop<F> {
    fn new(wish: F) -> Self {
        Self {
            wish: Box::pin(wish),
            is_here: false,
        }
    }

    async fn came(&mut self) {
        if !self.is_here {
            self.wish.as_mut().await;
            self.is_here = true;
        }
    }
}

/// What it says of itself; or why it does not, with the last lines of its log, and when that was known.
async fn describe(
    subject: &dyn Subject,
    options: &Options,
) -> Result<DescribeReply, (Verdict, Duration)> {
    let begun = Instant::now();
    let asked = async {
        let provider = subject.open().await?;
        provider.describe().await
    };
    let (found, told) = match tokio::time::timeout(options.call_limit, asked).await {
        Ok(Ok(describe)) => return Ok(describe),
        Ok(Err(error)) => (said(&error), last_lines(&error)),
        Err(_) => ("no answer came".to_owned(), Vec::new()),
    };
    let expected = "an answer to `describe`".to_owned();
    let halt = Halt::Broken { expected, found };
    Err((verdict(Err(halt), told), begun.elapsed()))
}

/// What a provider comes to that could not be asked what it is: one sentence is broken, whether it was to be checked or not,
/// and no other can be checked.
fn not_started(reach: Reach, wanted: &[Check], why: (Verdict, Duration)) -> Vec<Checked> {
    let skipped = Verdict::Skipped {
        why: NOT_STARTED.to_owned(),
    };
    let others = wanted.iter().filter(|check| check.name != OPENS.name);
    let others = others.map(|check| (check, (skipped.clone(), Duration::ZERO)));
    let checks = std::iter::once((&OPENS, why)).chain(others);
    checks
        .map(|(check, (verdict, took))| Checked::new(check, reach, verdict, took))
        .collect()
}

/// A word that no other run has: the temporary directory's name is as unique as the system can make it.
fn run_of(directory: &Path) -> String {
    let name = directory.file_name().unwrap_or_default().to_string_lossy();
    let word = name.rsplit('-').next().unwrap_or_default();
    let word: String = word.chars().filter(char::is_ascii_alphanumeric).collect();
    format!("{word}{}", std::process::id())
}

/// Runs one check, unless the run is to stop, and says what is left of it.
async fn one(
    shared: &Shared<'_>,
    check: &Check,
    number: u64,
    stop: &mut Stop<impl Future<Output = ()> + Send>,
) -> (Option<Verdict>, Vec<String>, Option<String>) {
    if let Err(halt) = gate(shared, check) {
        return (Some(verdict(Err(halt), Vec::new())), Vec::new(), None);
    }
    let bench = Bench::new(shared, number);
    let limit = shared.options.check_limit;
    let done = tokio::select! {
        biased;
        () = stop.came() => None,
        done = tokio::time::timeout(limit, caught((check.work)(&bench))) => Some(match done {
            Ok(Ok(done)) => done,
            Ok(Err(panic)) => broken("no panic crosses to the caller", panic),
            Err(_) => broken(format!("the check ends within {limit:?}"), "it did not"),
        }),
    };
    if done.is_none() {
        // The signal may have ended the provider's process, too.
        bench.reopen().await;
    }
    // Before the cleaning up, which would push the interesting lines out.
    let verdict = done.map(|done| verdict(done, bench.trace.lines()));
    let cleaned = tokio::select! {
        cleaned = tokio::time::timeout(limit, caught(bench.clean_up())) => cleaned.ok(),
        () = async { stop.came().await; tokio::time::sleep(LAST).await } => None,
    };
    let left = match cleaned {
        Some(Ok(left)) => left,
        Some(Err(panic)) => vec![format!("cleaning up panicked: {panic}")],
        None => vec!["cleaning up took too long".to_owned()],
    };
    (verdict, left, bench.noted())
}

/// What the work comes to, or the words of its panic: a provider in this process must not end the kit.
async fn caught<T>(work: impl Future<Output = T> + Send) -> Result<T, String> {
    let mut work = std::pin::pin!(work);
    std::future::poll_fn(|context| {
        let polled = catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(context)));
        match polled {
            Ok(poll) => poll.map(Ok),
            Err(panic) => {
                let text = panic.downcast_ref::<String>().map(String::as_str);
                let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
                Poll::Ready(Err(text.unwrap_or("a panic").to_owned()))
            }
        }
    })
    .await
}

/// What is not announced is not tried, but by the checks that see to just that.
fn gate(shared: &Shared<'_>, check: &Check) -> Result<(), Halt> {
    let lacks = |method: &&Method| !shared.describe.has(**method);
    if let Some(method) = check.methods.iter().find(lacks) {
        return skip(format!("`{method}` is not announced"));
    }
    let lacks = |feature: &&Feature| !shared.describe.announces(**feature);
    if let Some(feature) = check.features.iter().find(lacks) {
        return skip(format!("`{}` is not announced", feature.as_str()));
    }
    Ok(())
}

fn verdict(done: Result<(), Halt>, trace: Vec<String>) -> Verdict {
    match done {
        Ok(()) => Verdict::Pass,
        Err(Halt::Skip(why)) => Verdict::Skipped { why },
        Err(Halt::Broken { expected, found }) => Verdict::Fail {
            expected,
            found,
            trace,
        },
    }
}

/// What the provider still lists of this run.
async fn still_listed(shared: &Shared<'_>) -> Vec<String> {
    let bench = Bench::new(shared, u64::MAX);
    bench.reopen().await;
    let listed = async { bench.sandbox()?.listed(&bench.ledger()).await };
    match listed.await {
        Ok(listed) => listed
            .into_iter()
            .map(|one| format!("`{}` is still listed", one.sandbox_id))
            .collect(),
        Err(Halt::Broken { found, .. }) => vec![format!("the list could not be read: {found}")],
        Err(Halt::Skip(_)) => Vec::new(),
    }
}
