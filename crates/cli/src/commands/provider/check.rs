//! `provider check`: runs the conformance kit on a provider, in a temporary place of its own.

use crate::args::CheckArgs;
use crate::config::{Config, Origin, ProviderTable, is_name};
use crate::parse::usage;
use crate::plugin::{Checkable, refused};
use crate::setup::ProviderSetup;
use crate::signals;
use crate::work::{Work, drive, runtime};
use alpine_conformance::{
    Checked, CompiledIn, Options, Report, Subject, Verdict, check_until, picked,
};
use alpine_lifecycle::{ErrorCode, Failure, Signal, quoted};
use alpine_provider_store::{Pin, inspect, open_named};
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

/// A check may take as long as so many calls.
const CALLS: u32 = 5;
/// The exit status when a sentence of the contract is broken.
const BROKEN: u8 = 1;

pub(super) fn run(work: &Work, args: &CheckArgs) -> Result<u8, Failure> {
    picked(&args.only).map_err(|cause| usage(cause, "alpine provider check --help"))?;
    let interrupt = signals::interrupt()?;
    let place = tempfile::Builder::new()
        .prefix("alpine-check-")
        .tempdir()
        .map_err(|error| failed(&format!("no temporary directory can be made: {error}")))?;
    let mut config = Config::load(&work.variables)?;
    // Nothing of the user's own is touched: state, objects and caches are there.
    config.home.value = place.path().join("home");
    let subject = subject(work, &config, &args.provider)?;
    let options = Options {
        temporary: Some(place.path().to_owned()),
        ..options(args)
    };
    // Before the checks, which take long and would be lost.
    let junit = args.junit.as_deref().map(create).transpose()?;
    let mut wish = interrupt.clone();
    let stop = async {
        wish.raised().await;
    };
    let report = drive(
        runtime()?,
        check_until(&*subject, &options, stop, |checked| progress(work, checked)),
    );
    let report = report.map_err(|error| failed(&format!("the checks can't be made: {error}")))?;
    if let Some(signal) = interrupt.is_raised() {
        return Err(interrupted(signal, &report, &args.provider));
    }
    if let Some((path, mut file)) = junit {
        let written = file.write_all(report.junit().as_bytes());
        written.map_err(|error| unwritten(path, &error))?;
    }
    tell(work, &report);
    Ok(if report.is_success() { 0 } else { BROKEN })
}

fn options(args: &CheckArgs) -> Options {
    let usual = Options::default();
    let call_limit = args.call_limit.unwrap_or(usual.call_limit);
    Options {
        only: args.only.clone(),
        fresh: args.fresh,
        seed: args.seed,
        points: args.points,
        call_limit,
        check_limit: usual.check_limit.max(call_limit * CALLS),
        ..usual
    }
}

/// A line for a check that has ended, for who waits; what there is to know of it is in the report.
fn progress(work: &Work, checked: &Checked) {
    if work.output.json {
        return;
    }
    let word = match checked.verdict {
        Verdict::Pass => "ok",
        Verdict::Skipped { .. } => "skipped",
        Verdict::Fail { .. } => "FAIL",
    };
    let line = format!("{}: {word} ({} ms)", checked.name, checked.ms);
    work.output.note(&line);
}

fn tell(work: &Work, report: &Report) {
    if work.output.json {
        work.output.document(&report.json());
    } else {
        work.output.text(report.text().trim_end());
    }
}

/// What was to be checked is not known to hold; what could not be removed is told.
fn interrupted(signal: Signal, report: &Report, given: &str) -> Failure {
    let mut failure = Failure::signalled(signal);
    failure.cause = format!("interrupted after {} checks", report.checks.len());
    for left in &report.left {
        failure.cause.push_str(&format!("\nleft behind: {left}"));
    }
    failure.next(format!("alpine provider check {}", quoted(given)))
}

fn failed(cause: &str) -> Failure {
    Failure::new(ErrorCode::Internal, cause).next("alpine provider check --help")
}

fn create(path: &Path) -> Result<(&Path, File), Failure> {
    let file = File::create(path).map_err(|error| unwritten(path, &error))?;
    Ok((path, file))
}

fn unwritten(path: &Path, error: &io::Error) -> Failure {
    let cause = format!("`{}` can't be written: {error}", path.display());
    usage(cause, "alpine provider check --help")
}

/// What is checked: a provider by its name, or a file that was not added.
fn subject(work: &Work, config: &Config, given: &str) -> Result<Box<dyn Subject>, Failure> {
    let with = work.provider_setup(config)?;
    let known = work.setup.names().any(|name| name == given);
    if known {
        return compiled_in(work, given, with);
    }
    let mark = uuid::Builder::from_random_bytes((work.setup.env().random)().to_be_bytes())
        .into_uuid()
        .to_string();
    let (name, table) = match config.providers.get(given) {
        Some(table) => (given.to_owned(), table.clone()),
        None if is_name(given) && !Path::new(given).exists() => {
            let cause = format!("there is neither a provider nor a file `{given}`");
            let failure = Failure::new(ErrorCode::ProviderNotFound, cause);
            return Err(failure.next("alpine provider list"));
        }
        None => file(given)?,
    };
    let setup = with.plugin_setup(&name, &table, &work.variables)?;
    Ok(Box::new(Checkable::new(setup, mark)?))
}

fn compiled_in(work: &Work, name: &str, with: ProviderSetup) -> Result<Box<dyn Subject>, Failure> {
    let missing = || failed(&format!("provider `{name}` can't be made"));
    // What it can't be made for now is told now.
    let first = work.setup.provider(name, &with)?.ok_or_else(missing)?;
    let (setup, name, objects) = (work.setup.clone(), name.to_owned(), with.objects.clone());
    let subject = CompiledIn::new(move || {
        let made = setup.provider(&name, &with).ok().flatten();
        made.unwrap_or_else(|| Arc::clone(&first))
    });
    Ok(Box::new(subject.with_objects(objects)))
}

/// A table for a file: pinned to what it is now.
fn file(given: &str) -> Result<(String, ProviderTable), Failure> {
    let told = |refusal| refused(None, &refusal);
    let opened = open_named(Path::new(given)).map_err(told)?;
    let (kind, manifest, sha256) = inspect(&opened).map_err(told)?;
    let name = manifest
        .map(|manifest| manifest.name)
        .filter(|name| is_name(name))
        .unwrap_or_else(|| "checked".to_owned());
    let pin = Pin {
        name: name.clone(),
        kind,
        path: opened.path,
        sha256,
    };
    let table = ProviderTable::default().with_pin(&pin);
    // Not one that was added: its refusals say nothing of adding it again.
    Ok((name, table.from(Origin::File)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Cli, Command, ProviderCommand};
    use clap::Parser;
    use std::time::Duration;

    fn limits(more: &[&str]) -> (Duration, Duration) {
        let words = ["alpine", "provider", "check", "acme"];
        let cli = Cli::try_parse_from(words.iter().chain(more)).unwrap();
        let Command::Provider(args) = cli.command else {
            unreachable!("it is `provider`")
        };
        let ProviderCommand::Check(args) = args.command else {
            unreachable!("it is `check`")
        };
        let options = options(&args);
        (options.call_limit, options.check_limit)
    }

    #[test]
    fn a_check_may_take_several_calls() {
        let seconds = Duration::from_secs;
        assert_eq!(limits(&[]), (seconds(60), seconds(300)));
        assert_eq!(limits(&["--call-limit", "5s"]), (seconds(5), seconds(300)));
        assert_eq!(
            limits(&["--call-limit", "10m"]),
            (seconds(600), seconds(3000))
        );
    }
}
