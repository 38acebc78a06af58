//! `provider`: the providers there are, and the store of those that were added. Nothing of them is run, but for `check`.

mod check;

use crate::args::ProviderCommand;
use crate::config::{Config, LOCAL, NAME_FORM, Origin, ProviderTable, home, is_name, store};
use crate::output::Output;
use crate::parse::usage;
use crate::plugin::{self, refused};
use crate::signals;
use crate::view::{
    AddedDocument, InspectedDocument, ProviderDocument, ProvidersDocument, RemovedDocument, VERSION,
};
use crate::work::Work;
use alpine_ledger::SessionRecord;
use alpine_lifecycle::{ErrorCode, Failure, Interrupt, quoted};
use alpine_provider_store::{Kept, Locked, Pin, StoreError, inspect, open_named};
use std::path::Path;

pub(crate) fn run(work: &Work, command: &ProviderCommand) -> Result<u8, Failure> {
    match command {
        ProviderCommand::List => list(work),
        ProviderCommand::Inspect { file } => show(work, file),
        ProviderCommand::Add { file, name } => add(work, file, name.as_deref()),
        ProviderCommand::Check(args) => check::run(work, args),
        ProviderCommand::Remove { name } => remove(work, name),
    }
}

fn list(work: &Work) -> Result<u8, Failure> {
    let config = work.config()?;
    let compiled_in = work.setup.names().map(|name| ProviderDocument {
        name: name.to_owned(),
        kind: Some("compiled_in"),
        isolation: None,
        version: (name == LOCAL).then(|| env!("CARGO_PKG_VERSION").to_owned()),
        path: None,
        sha256: None,
        source: "compiled_in",
        state: "ok",
        cause: None,
        next_step: None,
    });
    let configured = config
        .providers
        .iter()
        .map(|(name, table)| listed(name, table));
    let document = ProvidersDocument::new(compiled_in.chain(configured).collect());
    if work.output.json {
        work.output.document(&document);
    } else {
        show_list(&work.output, &document);
    }
    Ok(0)
}

/// A provider of the configuration, with what keeps it from being used.
fn listed(name: &str, table: &ProviderTable) -> ProviderDocument {
    let file = table.file.as_ref();
    let (version, failure) = match plugin::vet_provider(name, table) {
        Ok(vetted) => (vetted.manifest.map(|manifest| manifest.version), None),
        Err(failure) => (None, Some(failure)),
    };
    ProviderDocument {
        name: name.to_owned(),
        kind: file.map(|file| file.value.kind.as_str()),
        isolation: Some(table.isolation().as_str()),
        version,
        path: file.map(|file| file.value.path.display().to_string()),
        sha256: file.and_then(|file| file.value.sha256.clone()),
        source: match file.map(|file| file.origin) {
            Some(Origin::Added) => "added",
            Some(Origin::File | Origin::Default | Origin::Variable(_) | Origin::Flag(_)) | None => {
                "configured"
            }
        },
        state: if failure.is_none() { "ok" } else { "refused" },
        cause: failure.as_ref().map(|failure| failure.cause.clone()),
        next_step: failure.map(|failure| failure.next_step),
    }
}

fn show_list(output: &Output, document: &ProvidersDocument) {
    let text = |text: Option<&str>| text.unwrap_or("-").to_owned();
    let rows = document.providers.iter().map(|provider| {
        vec![
            provider.name.clone(),
            text(provider.kind),
            text(provider.isolation),
            text(provider.version.as_deref()),
            provider.source.to_owned(),
            provider.state.to_owned(),
            text(provider.path.as_deref()),
        ]
    });
    output.table(
        &[
            "NAME",
            "KIND",
            "ISOLATION",
            "VERSION",
            "SOURCE",
            "STATE",
            "PATH",
        ],
        rows.collect(),
    );
    for provider in &document.providers {
        if let (Some(cause), Some(next)) = (&provider.cause, &provider.next_step) {
            output.warning(cause);
            output.note(&format!("hint: {}", output.command(next)));
        }
    }
}

fn show(work: &Work, file: &Path) -> Result<u8, Failure> {
    let told = |refusal| refused(None, &refusal);
    let opened = open_named(file).map_err(told)?;
    let found = inspect(&opened).map_err(told)?;
    let document = InspectedDocument::new(&opened.path, opened.size, found);
    if work.output.json {
        work.output.document(&document);
    } else {
        work.output.text(&document.told());
    }
    Ok(0)
}

fn add(work: &Work, file: &Path, name: Option<&str>) -> Result<u8, Failure> {
    if let Some(name) = name {
        may_be_added(work, name)?;
    }
    let source = open_named(file).map_err(|refusal| refused(name, &refusal))?;
    let config = Config::load(&work.variables)?;
    home::make(&config.home.value)?;
    let interrupt = signals::interrupt()?;
    let stopped = || interrupt.is_raised().is_some();
    let again = || {
        let name = name.map_or(String::new(), |name| format!(" --name {}", quoted(name)));
        format!(
            "alpine provider add {}{name}",
            quoted(&file.to_string_lossy())
        )
    };
    let told = |error| ended(&interrupt, again, failed(name, error));
    let locked = store(&config.home.value).lock(stopped).map_err(told)?;
    // Read again: what another process pinned in the meantime stays.
    let config = Config::load(&work.variables)?;
    let before = config.providers.pins();
    let kept = locked.keep(&source, stopped).map_err(told)?;
    let added = pinned(work, &config, &kept, name, file);
    let (pin, replaced, pins) = match added {
        Ok(added) => added,
        Err(failure) => {
            sweep(work, &config, &locked, &before);
            return Err(of_source(failure, &kept.path, &source.path));
        }
    };
    locked.pin(&pins).map_err(told)?;
    if let Some(replaced) = &replaced {
        let old = kept.path.with_file_name(replaced);
        warn_of_its_sessions(work, &config, &pin.name, &old);
    }
    sweep(work, &config, &locked, &pins);
    let document = AddedDocument::new(&pin.name, &kept, replaced);
    if work.output.json {
        work.output.document(&document);
    } else {
        let command = format!("alpine up . --branch main --provider {}", pin.name);
        work.output
            .text(&document.told(&work.output.command(&command)));
    }
    Ok(0)
}

/// What is wrong with a copy that is gone again is wrong with the file that it was made of.
fn of_source(failure: Failure, copy: &Path, source: &Path) -> Failure {
    let [copy, source] = [copy, source].map(Path::to_string_lossy);
    let next = failure.next_step.replace(&*copy, &quoted(&source));
    Failure {
        cause: failure.cause.replace(&*copy, &source),
        ..failure.next(next)
    }
}

/// The new pin, the digest that it replaces, and all pins with it.
fn pinned(
    work: &Work,
    config: &Config,
    kept: &Kept,
    name: Option<&str>,
    file: &Path,
) -> Result<(Pin, Option<String>, Vec<Pin>), Failure> {
    let name = match name {
        Some(name) => name.to_owned(),
        None => own_name(kept, file)?,
    };
    may_be_added(work, &name)?;
    let table = config.providers.get(&name).cloned().unwrap_or_default();
    if table
        .file
        .as_ref()
        .is_some_and(|file| file.origin != Origin::Added)
    {
        return Err(in_file(config, &name));
    }
    let pin = Pin {
        name,
        kind: kept.kind,
        path: kept.path.clone(),
        sha256: kept.sha256.clone(),
    };
    plugin::vet_provider(&pin.name, &table.with_pin(&pin))?;
    let mut pins = config.providers.pins();
    let replaced = pins.iter().position(|known| known.name == pin.name);
    let replaced = replaced.map(|at| pins.remove(at).sha256);
    pins.push(pin.clone());
    let replaced = replaced.filter(|digest| *digest != pin.sha256);
    Ok((pin, replaced, pins))
}

/// A library's own name, or the file's without what is usual before and after it.
fn own_name(kept: &Kept, file: &Path) -> Result<String, Failure> {
    let stem = file
        .file_stem()
        .map(|stem| stem.to_string_lossy().into_owned());
    let own = kept.manifest.as_ref().map(|manifest| manifest.name.clone());
    let name = own.or(stem).unwrap_or_default();
    if is_name(&name) {
        return Ok(name);
    }
    let cause = format!("`{name}` is no name for a provider: give one with `--name`");
    let file = quoted(&file.to_string_lossy());
    Err(usage(
        cause,
        &format!("alpine provider add {file} --name my-provider"),
    ))
}

fn may_be_added(work: &Work, name: &str) -> Result<(), Failure> {
    let next = "alpine provider list";
    if !is_name(name) {
        let shown: String = name.escape_debug().take(80).collect();
        let cause = format!("`{shown}` is no name for a provider: {NAME_FORM}");
        return Err(usage(cause, next));
    }
    if work.setup.names().any(|known| known == name) {
        let cause = format!("provider `{name}` is compiled in: choose another name");
        return Err(usage(cause, next));
    }
    Ok(())
}

/// The user's own file is the user's to change.
fn in_file(config: &Config, name: &str) -> Failure {
    let path = config.home.value.join("config.toml");
    let path = path.to_string_lossy();
    let cause = format!(
        "`[providers.{name}]` in `{path}` names a file: remove its `kind`, `path` and `sha256` there"
    );
    usage(cause, &format!("${{EDITOR:-vi}} {}", quoted(&path)))
}

fn remove(work: &Work, name: &str) -> Result<u8, Failure> {
    let config = Config::load(&work.variables)?;
    if work.setup.names().any(|known| known == name) {
        let cause = format!("provider `{name}` is compiled in: it can't be removed");
        return Err(usage(cause, "alpine provider list"));
    }
    let missing = || {
        let cause = format!("there is no provider `{name}` that was added");
        Failure::new(ErrorCode::ProviderNotFound, cause).next("alpine provider list")
    };
    let Some(table) = config.providers.get(name) else {
        return Err(missing());
    };
    if table
        .file
        .as_ref()
        .is_some_and(|file| file.origin != Origin::Added)
    {
        return Err(in_file(&config, name));
    }
    let interrupt = signals::interrupt()?;
    let again = || format!("alpine provider remove {}", quoted(name));
    let told = |error| ended(&interrupt, again, failed(Some(name), error));
    let stopped = || interrupt.is_raised().is_some();
    let locked = store(&config.home.value).lock(stopped).map_err(told)?;
    let mut pins = Config::load(&work.variables)?.providers.pins();
    let at = pins
        .iter()
        .position(|pin| pin.name == name)
        .ok_or_else(missing)?;
    is_free(work, &config, name)?;
    let pin = pins.remove(at);
    locked.pin(&pins).map_err(told)?;
    sweep(work, &config, &locked, &pins);
    let document = RemovedDocument {
        schema_version: VERSION,
        name: pin.name,
        sha256: pin.sha256,
    };
    if work.output.json {
        work.output.document(&document);
    } else {
        work.output.text(&format!("provider {name} is gone"));
    }
    Ok(0)
}

/// Sessions of the one that is replaced need one that finds their sandboxes.
fn warn_of_its_sessions(work: &Work, config: &Config, name: &str, old: &Path) {
    if let Ok(ids) = needed_by(work, config, name)
        && !ids.is_empty()
    {
        let ids = ids.join(", ");
        let old = quoted(&old.to_string_lossy());
        let back = format!("alpine provider add {old} --name {name}");
        work.output.warning(&format!(
            "{ids}: made by the provider `{name}` that this one replaces, which has to find their sandboxes; to have the old one back: {}",
            work.output.command(&back)
        ));
    }
}

/// Removes what no pin names, unless a session could still need it: of which file its provider was is not on record.
fn sweep(work: &Work, config: &Config, locked: &Locked, pins: &[Pin]) {
    let is_ours = |session: &SessionRecord| {
        let name = &session.new.provider;
        !work.setup.names().any(|known| known == name)
    };
    if unfinished(work, config).is_ok_and(|sessions| !sessions.iter().any(is_ours)) {
        locked.sweep(pins);
    }
}

/// What a wish to stop has cut short is told as that.
fn ended(interrupt: &Interrupt, again: impl Fn() -> String, failure: Failure) -> Failure {
    match interrupt.is_raised() {
        Some(signal) => Failure {
            cause: "interrupted: nothing was changed".to_owned(),
            ..Failure::signalled(signal).next(again())
        },
        None => failure,
    }
}

/// The sessions, whoever's they are, that have a sandbox or may have one.
fn unfinished(work: &Work, config: &Config) -> Result<Vec<SessionRecord>, Failure> {
    let sessions = work.ledger_to_read(config)?.read(|snapshot| {
        let mut sessions = snapshot.unfinished(None)?;
        for id in snapshot.pending_destroys()? {
            sessions.extend(snapshot.session(&id)?);
        }
        Ok(sessions)
    })?;
    Ok(sessions)
}

/// Those that can't be brought down without that provider.
fn needed_by(work: &Work, config: &Config, name: &str) -> Result<Vec<String>, Failure> {
    let mut ids: Vec<_> = unfinished(work, config)?
        .iter()
        .filter(|session| session.new.provider == name)
        .map(|session| session.session_id.to_string())
        .collect();
    ids.sort();
    ids.dedup();
    Ok(ids)
}

/// Refuses to take a provider away from sessions that need it.
fn is_free(work: &Work, config: &Config, name: &str) -> Result<(), Failure> {
    let ids = needed_by(work, config, name)?;
    let Some(first) = ids.first() else {
        return Ok(());
    };
    let cause = format!("provider `{name}` is still needed by {}", ids.join(", "));
    Err(Failure::conflict(cause).next(format!("alpine down {first}")))
}

/// The store's failure as the user sees it.
fn failed(name: Option<&str>, error: StoreError) -> Failure {
    match error {
        StoreError::Refused(refusal) => refused(name, &refusal),
        StoreError::Io { ref path, .. } => {
            let next = format!("ls -ld {}", quoted(&path.to_string_lossy()));
            Failure::new(ErrorCode::LedgerUnavailable, error.to_string()).next(next)
        }
    }
}
