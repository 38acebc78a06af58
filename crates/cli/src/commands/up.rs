//! `up`: checks what was asked for, lets the engine do it, opens the browser, and says what came of it.

mod ask;

pub(crate) use ask::timeout;

use crate::args::UpArgs;
use crate::commands::open::{link, offer};
use crate::config::Config;
use crate::output::Output;
use crate::parse::repeated;
use crate::plugin::vet_provider;
use crate::progress::Display;
use crate::setup::ProviderSetup;
use crate::view::UpDocument;
use crate::work::{Work, drive, runtime};
use crate::{browser, signals};
use alpine_ledger::{SessionId, State};
use alpine_lifecycle::{Engine, ErrorCode, Failure, UpOutcome, UpRequest};
use std::time::Duration;

pub(crate) fn run(mut work: Work, args: UpArgs) -> Result<u8, Failure> {
    if args.branch.as_deref().unwrap_or_default().is_empty() {
        let next = format!("alpine up {} --branch main", repeated(&args.repo));
        return Err(Failure::new(ErrorCode::BranchRequired, "`up` needs `--branch`").next(next));
    }
    let config = work.config()?;
    let by_id = args.client_request_id.is_some();
    let by_default = args.provider.is_none();
    let request = ask::request(&mut work, &config, args)?;
    let with = work.provider_setup(&config)?;
    let providers = work.setup.providers(&with)?;
    if let Err(unknown) = providers.get(&request.provider) {
        // There may be settings for it, and no file.
        let table = config.providers.get(&request.provider);
        let why = table.and_then(|table| vet_provider(&request.provider, table).err());
        let unknown = why.unwrap_or(unknown);
        return Err(match &config.provider_refused {
            Some(refused) if by_default => Failure {
                cause: format!("{}: {}", refused.cause, unknown.cause),
                ..refused.clone()
            },
            Some(_) | None => unknown,
        });
    }
    config.agents.check(&request.agent)?;
    let interrupt = signals::interrupt()?;
    let ledger = work.ledger(&config)?;
    let (owner, id) = (&request.caller.principal, &request.client_request_id);
    // A session that is there already is answered for, whatever this caller's path finds.
    if ledger
        .read(|snapshot| snapshot.request(owner, id))?
        .is_none()
    {
        ask::startable(&config, &work.variables, &request)?;
    }
    let (watch, display) = Display::start(&work.output);
    let engine = work.engine(&config, ledger, providers, &with, watch, interrupt);
    let ended = bring_up(&work, &config, &with, &engine, request);
    tracing::debug!(commits = engine.ledger.commits(), "done with the ledger");
    // What is left of the engine on other threads may outlive this process's last moment.
    engine.ledger.close();
    drop(engine);
    let told = display.finish();
    // Without an id that was given, the same command is another request.
    let mut outcome = ended.map_err(|failure| {
        let settled = failure.settled && by_id;
        failure.settled(settled)
    })?;
    let known = outcome.warnings.len();
    outcome.warnings.extend(
        told.iter()
            .filter(|warning| !outcome.warnings.contains(warning))
            .cloned()
            .collect::<Vec<_>>(),
    );
    let document = UpDocument::new(&outcome, work.redactor());
    if work.output.json {
        work.output.document(&document);
    } else {
        for warning in outcome.warnings[..known]
            .iter()
            .filter(|warning| !told.contains(warning))
        {
            work.output.warning(warning);
        }
        work.output
            .text(&shown(&document, config.limits.link, &work.output));
    }
    Ok(0)
}

fn bring_up(
    work: &Work,
    config: &Config,
    with: &ProviderSetup,
    engine: &Engine,
    request: UpRequest,
) -> Result<UpOutcome, Failure> {
    drive(runtime()?, async {
        // A provider that can't be used is told before there is a session that only it could end.
        if let Some(plugin) = with.plugins.get(&request.provider) {
            let limit = request.timeout.unwrap_or(engine.limits.up);
            let again = request.again();
            plugin.start(limit, &engine.interrupt, &again).await?;
        }
        let no_browser = request.no_browser;
        let mut outcome = engine.up(request).await?;
        if !outcome.reused {
            let opened = browse(work, config, with, &outcome, no_browser).await;
            note_browser(engine, &mut outcome, opened);
        }
        Ok(outcome)
    })
}

/// Opens the browser with a link of its own, so that the one that is printed still works.
async fn browse(
    work: &Work,
    config: &Config,
    with: &ProviderSetup,
    outcome: &UpOutcome,
    no_browser: bool,
) -> Result<(), String> {
    if no_browser {
        return Err("`--no-browser` was given".to_owned());
    }
    if outcome.open_url.is_none() {
        return Err("there is no link to open".to_owned());
    }
    let opener = browser::opener(config, &work.variables)?;
    let told = |failure: Failure| failure.cause;
    let reached = work.reached(outcome.session.clone(), with).map_err(told)?;
    let own = link(&reached, config).await.map_err(told)?;
    offer(&opener, own.open_url, config).await
}

/// Records whether the browser opened, so that a repeat of the request answers the same.
fn note_browser(engine: &Engine, outcome: &mut UpOutcome, opened: Result<(), String>) {
    let warning = opened.err().map(|why| {
        engine
            .redactor
            .redact(&format!("the browser was not opened: {why}"))
    });
    let id: SessionId = outcome.session.session_id.clone();
    let noted = warning.clone();
    outcome.session.browser_opened = Some(warning.is_none());
    outcome.warnings.extend(warning);
    let recorded = engine.ledger.write(move |tx| {
        if let Some(session) = tx
            .session(&id)?
            .filter(|session| session.state == State::Ready)
        {
            tx.compare_and_swap(&id, session.version, |session| {
                session.browser_opened = Some(noted.is_none());
                session.warnings.extend(noted);
            })?;
        }
        Ok(())
    });
    if let Err(error) = recorded {
        // The session is ready; that its browser is not on record harms nobody.
        tracing::warn!(%error, "whether the browser opened could not be recorded");
    }
}

/// The result, for people.
fn shown(document: &UpDocument, good_for: Duration, output: &Output) -> String {
    let good_for = humantime::format_duration(good_for);
    let id = &document.session_id;
    let again = if document.reused { ", as before" } else { "" };
    let isolation = document
        .isolation
        .as_ref()
        .and_then(|isolation| isolation["tier"].as_str());
    let rows = [
        ("session", Some(format!("{id} ({}{again})", document.state))),
        ("url", document.opencode_url.clone()),
        (
            "open",
            document
                .open_url
                .as_ref()
                .map(|link| format!("{link}  (works once, for {good_for})")),
        ),
        ("workspace", document.workspace_path.clone()),
        ("commit", document.target_commit_sha.clone()),
        ("agent", Some(document.agent.clone())),
        (
            "provider",
            Some(format!(
                "{} (isolation: {})",
                document.provider,
                isolation.unwrap_or("unknown")
            )),
        ),
        ("request id", Some(document.client_request_id.clone())),
    ];
    let mut lines: Vec<_> = rows
        .into_iter()
        .filter_map(|(name, value)| Some(format!("{name:<11} {}", value?)))
        .collect();
    lines.push(String::new());
    if document.opencode_url.is_some() {
        lines.push(format!(
            "another link:  {}",
            output.command(&format!("alpine open {id}"))
        ));
    }
    lines.push(format!(
        "run a command: {}",
        output.command(&format!("alpine exec {id} -- git status"))
    ));
    lines.push(format!(
        "bring it down: {}",
        output.command(&format!("alpine down {id}"))
    ));
    lines.join("\n")
}
