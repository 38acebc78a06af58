//! `reconcile`: lets the engine recover, and says what it found and did.

use crate::args::ReconcileArgs;
use crate::progress::Display;
use crate::setup::ProviderSetup;
use crate::signals;
use crate::view::ReconcileDocument;
use crate::work::{Work, drive, runtime};
use alpine_ledger::SessionId;
use alpine_lifecycle::{
    Engine, ErrorCode, Failure, Finding, Interrupt, ReconcileRequest, Reconciled,
};
use std::collections::BTreeMap;
use std::time::Duration;

/// The exit status when something could not be recovered.
const LEFT: u8 = 2;

pub(crate) fn run(work: &Work, args: ReconcileArgs) -> Result<u8, Failure> {
    let config = work.config()?;
    let request = ReconcileRequest {
        caller: config.caller()?,
        session: args.session,
        all: args.all,
        dry_run: args.dry_run,
    };
    let mut with = work.provider_setup(&config)?;
    let interrupt = signals::interrupt()?;
    // Who only looks writes nothing, and may look where nothing may be written.
    let ledger = if args.dry_run {
        work.ledger_to_read(&config)?
    } else {
        work.ledger(&config)?
    };
    let only = match &request.session {
        Some(given) => Some(work.session(&config, &request.caller, given)?.new.provider),
        None => None,
    };
    let runtime = runtime()?;
    let limit = config.limits.probe;
    let unstarted = take_out(&mut with, only.as_deref(), limit, &interrupt);
    let unstarted = runtime.block_on(unstarted)?;
    let providers = work.setup.providers(&with)?;
    let (watch, display) = Display::start(&work.output);
    let engine = work.engine(&config, ledger, providers, &with, watch, interrupt);
    let ended = drive(runtime, engine.reconcile(request));
    let ended = ended.and_then(|report| with_unstarted(work, &engine, report, unstarted));
    engine.ledger.close();
    drop(engine);
    display.finish();
    let document = ReconcileDocument::new(&ended?);
    if work.output.json {
        work.output.document(&document);
    } else {
        work.output.text(&document.told(args.dry_run));
    }
    Ok(if document.has_errors() { LEFT } else { 0 })
}

/// Takes out the providers that do not start, so that none of their sessions is changed; says why of each.
async fn take_out(
    with: &mut ProviderSetup,
    only: Option<&str>,
    limit: Duration,
    interrupt: &Interrupt,
) -> Result<BTreeMap<String, Failure>, Failure> {
    let mut unstarted = BTreeMap::new();
    let asked = |name: &str| only.is_none_or(|only| only == name);
    for (name, plugin) in with.plugins.iter().filter(|(name, _)| asked(name)) {
        match plugin.start(limit, interrupt, "alpine reconcile").await {
            Ok(()) => {}
            Err(failure) if failure.code == ErrorCode::Interrupted => return Err(failure),
            Err(failure) => {
                unstarted.insert(name.clone(), failure);
            }
        }
    }
    with.plugins.retain(|name, _| !unstarted.contains_key(name));
    Ok(unstarted)
}

/// The report, with why those providers were not asked: for each of their sessions, and by itself.
fn with_unstarted(
    work: &Work,
    engine: &Engine,
    mut report: Vec<Reconciled>,
    unstarted: BTreeMap<String, Failure>,
) -> Result<Vec<Reconciled>, Failure> {
    let told = |failure: &Failure| {
        let text = format!("{}: {}", failure.code, failure.cause);
        work.redactor().redact(&text)
    };
    let missing = |found: &&mut Reconciled| found.finding == Finding::ProviderMissing;
    for found in report.iter_mut().filter(missing) {
        let id = found.session_id.clone().map(SessionId::from_recorded);
        let session = engine.ledger.read(|snapshot| match &id {
            Some(id) => snapshot.session(id),
            None => Ok(None),
        })?;
        let failure = session.and_then(|session| unstarted.get(&session.new.provider));
        if let Some(failure) = failure {
            found.finding = Finding::NotAnswered;
            found.error = Some(told(failure));
        }
    }
    report.extend(unstarted.values().map(|failure| Reconciled {
        session_id: None,
        sandbox_id: None,
        finding: Finding::NotAnswered,
        state: None,
        done: false,
        error: Some(told(failure)),
        durable_object_id: None,
    }));
    Ok(report)
}
