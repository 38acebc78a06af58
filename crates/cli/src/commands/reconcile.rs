//! `reconcile`: lets the engine recover, and says what it found and did.

use crate::args::ReconcileArgs;
use crate::progress::Display;
use crate::signals;
use crate::view::ReconcileDocument;
use crate::work::{Work, drive, runtime};
use alpine_lifecycle::{Failure, ReconcileRequest};

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
    let with = work.provider_setup(&config)?;
    let providers = work.setup.providers(&with)?;
    let interrupt = signals::interrupt()?;
    // Who only looks writes nothing, and may look where nothing may be written.
    let ledger = if args.dry_run {
        work.ledger_to_read(&config)?
    } else {
        work.ledger(&config)?
    };
    let (watch, display) = Display::start(&work.output);
    let engine = work.engine(&config, ledger, providers, &with, watch, interrupt);
    let ended = drive(runtime()?, engine.reconcile(request));
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
