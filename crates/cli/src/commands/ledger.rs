//! `ledger`: looks after the ledger's file. No session is touched, so that nobody's identity is asked for.

use crate::args::LedgerCommand;
use crate::config::{Config, home};
use crate::parse::usage;
use crate::view::{
    BackupDocument, CheckDocument, CompactDocument, ExportDocument, ImportDocument, RepairDocument,
};
use crate::work::Work;
use alpine_ledger::{Depth, Imported, Ledger, Retained, Retention};
use alpine_lifecycle::{ErrorCode, Failure, move_aside, quoted};
use alpine_provider_api::{BranchName, RepoUrl};
use serde::Serialize;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// The exit status when the ledger is not sound.
const UNSOUND: u8 = 2;

/// How many records one transaction lets go of, so that others can write in between.
const BATCH: usize = 1_000;

pub(crate) fn run(work: &Work, command: &LedgerCommand) -> Result<u8, Failure> {
    let config = work.config()?;
    match command {
        LedgerCommand::Check { deep } => check(work, &config, *deep),
        LedgerCommand::Repair => repair(work, &config),
        LedgerCommand::Backup { file } => backup(work, &config, file.as_deref()),
        LedgerCommand::Export { file } => export(work, &config, file),
        LedgerCommand::Import { file } => import(work, &config, file),
        LedgerCommand::Compact { force } => compact(work, &config, *force),
    }
}

fn tell<T: Serialize>(work: &Work, document: &T, told: impl FnOnce(&T) -> String) {
    if work.output.json {
        work.output.document(document);
    } else {
        work.output.text(&told(document));
    }
}

fn check(work: &Work, config: &Config, deep: bool) -> Result<u8, Failure> {
    let depth = if deep { Depth::Pages } else { Depth::Rows };
    let checked = alpine_ledger::check(&config.ledger.value, work.options(config), depth)?;
    tell(
        work,
        &CheckDocument::new(&checked, deep),
        CheckDocument::told,
    );
    if checked.is_sound() {
        return Ok(0);
    }
    if !work.output.json {
        let next = work.output.command("alpine ledger repair");
        work.output.note(&format!("hint: {next}"));
    }
    Ok(UNSOUND)
}

fn repair(work: &Work, config: &Config) -> Result<u8, Failure> {
    let path = &config.ledger.value;
    let repaired = alpine_ledger::repair(path, work.options(config)).map_err(|error| {
        let failure = Failure::from(error);
        if failure.code != ErrorCode::LedgerCorrupt {
            return failure;
        }
        // Too little is left; a backup or an export can take its place once it is out of the way.
        failure.next(move_aside(path, "damaged"))
    })?;
    tell(work, &RepairDocument::new(&repaired), RepairDocument::told);
    Ok(if repaired.after.is_sound() {
        0
    } else {
        UNSOUND
    })
}

/// The ledger, to read it; it must be there.
fn existing(work: &Work, config: &Config) -> Result<Ledger, Failure> {
    let path = &config.ledger.value;
    if fs::symlink_metadata(path).is_ok() {
        return work.ledger_to_read(config);
    }
    let cause = format!("there is no ledger at `{}` yet", path.display());
    Err(Failure::new(ErrorCode::LedgerUnavailable, cause)
        .must_change()
        .next("alpine config"))
}

/// Refuses a file that is there.
fn new_file(path: &Path, command: &str) -> Result<(), Failure> {
    if fs::symlink_metadata(path).is_ok() {
        let cause = format!("`{}` is there already", path.display());
        return Err(usage(cause, command));
    }
    Ok(())
}

fn backup(work: &Work, config: &Config, file: Option<&Path>) -> Result<u8, Failure> {
    let path = match file {
        Some(file) => file.to_owned(),
        None => beside(work, &config.ledger.value),
    };
    new_file(&path, "alpine ledger backup")?;
    let ledger = existing(work, config)?;
    let saved = ledger.backup(&path)?;
    tell(work, &BackupDocument::new(&saved), BackupDocument::told);
    Ok(0)
}

/// A file beside the ledger, named after the time.
fn beside(work: &Work, ledger: &Path) -> PathBuf {
    let now = work.setup.env().clock.now().to_string().replace(':', "");
    let mut name = ledger.as_os_str().to_owned();
    name.push(format!(".{now}.backup"));
    name.into()
}

fn export(work: &Work, config: &Config, file: &Path) -> Result<u8, Failure> {
    let ledger = existing(work, config)?;
    if file == Path::new("-") {
        // A reader that is slow must not keep a transaction open: the file would grow.
        let mut text = Vec::new();
        ledger.export(&mut text)?;
        work.output.raw(&text);
        return Ok(0);
    }
    new_file(file, "alpine ledger export -")?;
    let failed = |error: io::Error| unwritten(file, &error);
    let out = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(file)
        .map_err(failed)?;
    let mut target = Target {
        file: BufWriter::new(&out),
        failed: None,
    };
    let exported = ledger.export(&mut target);
    let exported = match target.failed {
        // That is not the ledger's failure.
        Some(error) => Err(failed(error)),
        None => exported.map_err(Failure::from),
    };
    let exported = exported.and_then(|exported| {
        out.sync_all().map_err(failed)?;
        Ok(exported)
    });
    if exported.is_err() {
        // Half of an export is none; it was not there before.
        drop(fs::remove_file(file));
    }
    tell(
        work,
        &ExportDocument::new(file, &exported?),
        ExportDocument::told,
    );
    Ok(0)
}

/// A file, and what kept it from being written.
struct Target<'f> {
    file: BufWriter<&'f File>,
    failed: Option<io::Error>,
}

impl Target<'_> {
    fn noted<T>(&mut self, done: io::Result<T>) -> io::Result<T> {
        if let Err(error) = &done {
            self.failed = Some(io::Error::new(error.kind(), error.to_string()));
        }
        done
    }
}

impl Write for Target<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let done = self.file.write(bytes);
        self.noted(done)
    }

    fn flush(&mut self) -> io::Result<()> {
        let done = self.file.flush();
        self.noted(done)
    }
}

/// What kept a file from being written, and the command that shows it.
fn unwritten(file: &Path, error: &io::Error) -> Failure {
    let is_full = matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    );
    let next = if is_full {
        let dir = file.parent().filter(|dir| *dir != Path::new(""));
        let dir = dir.unwrap_or(Path::new("."));
        format!("df -h {}", quoted(&dir.to_string_lossy()))
    } else if error.kind() == io::ErrorKind::FileTooLarge {
        "ulimit -f".to_owned()
    } else {
        "alpine ledger export -".to_owned()
    };
    let cause = format!("`{}` can't be written: {error}", file.display());
    Failure::new(ErrorCode::LedgerUnavailable, cause).next(next)
}

fn import(work: &Work, config: &Config, file: &Path) -> Result<u8, Failure> {
    let refuse = |what: &str| {
        let cause = format!("`{}` {what}", file.display());
        Err(usage(cause, "alpine ledger import --help"))
    };
    match fs::metadata(file) {
        // Opening a named pipe would wait for its other end.
        Ok(metadata) if !metadata.is_file() => return refuse("is not a regular file"),
        Ok(_) => {}
        Err(error) => return refuse(&format!("can't be opened: {error}")),
    }
    if let Err(error) = File::open(file) {
        return refuse(&format!("can't be opened: {error}"));
    }
    home::make(&config.home.value)?;
    let path = &config.ledger.value;
    let redact = |text: &str| work.redactor().redact(text);
    let ask = |repo: &str, branch: &str| asked(repo, branch, &redact);
    match alpine_ledger::import(path, work.options(config), file, &redact, &ask)? {
        Imported::Done {
            sessions,
            left_out,
            moved,
        } => {
            let document = ImportDocument::new(sessions, left_out, false, moved.as_deref());
            tell(work, &document, ImportDocument::told);
            Ok(0)
        }
        Imported::Again { sessions, left_out } => {
            let document = ImportDocument::new(sessions, left_out, true, None);
            tell(work, &document, ImportDocument::told);
            Ok(0)
        }
        Imported::Taken {
            is_copy,
            unfinished,
        } => Err(taken(path, file, is_copy, unfinished)),
        Imported::Refused { what } => {
            let cause = format!("`{}` can't be imported: {what}", file.display());
            Err(Failure::new(ErrorCode::LedgerIncompatible, cause)
                .next("alpine ledger import --help"))
        }
    }
}

/// A repository of the predecessor's as `up` asks for it, and the command that does; credentials in its address are left
/// out, as `up` refuses them.
fn asked(repo: &str, branch: &str, redact: &dyn Fn(&str) -> String) -> (String, String) {
    // Only a relative path needs it.
    let directory = std::env::current_dir().unwrap_or_default();
    let parsed = RepoUrl::parse(&without_credentials(repo), &directory).ok();
    // A relative path may have been another directory's: then it stays what it was.
    let is_relative = !repo.starts_with('/') && !repo.contains("://");
    let is_elsewhere = |path: &Path| is_relative && !path.is_dir();
    let known = parsed.filter(|found| !found.local_path().is_some_and(is_elsewhere));
    let address = known.as_ref().map_or(repo, RepoUrl::as_str);
    let shown = redact(address);
    let up = match BranchName::new(branch) {
        Some(_) if shown == address && known.is_some() => {
            format!("alpine up {} --branch {}", quoted(address), quoted(branch))
        }
        Some(_) | None => "alpine up --help".to_owned(),
    };
    (shown, up)
}

/// A URL without the credentials in it. Who logs in by a key still says as whom.
fn without_credentials(repo: &str) -> String {
    let parts = repo.split_once("://").and_then(|(scheme, rest)| {
        let (authority, path) = rest.split_at(rest.find('/')?);
        let (user, host) = authority.rsplit_once('@')?;
        Some((scheme, user, host, path))
    });
    let Some((scheme, user, host, path)) = parts else {
        return repo.to_owned();
    };
    if !scheme.eq_ignore_ascii_case("ssh") {
        return format!("{scheme}://{host}{path}");
    }
    let user = user.split(':').next().unwrap_or_default();
    format!("{scheme}://{user}@{host}{path}")
}

/// Refuses an import over what is there. A copy of the ledger never stands beside it: bearing one id, each would take the
/// other's sandboxes for nobody's, and a `reconcile` would end them.
fn taken(path: &Path, file: &Path, is_copy: bool, unfinished: u64) -> Failure {
    let mut cause = format!(
        "the ledger `{}` is not empty: nothing was imported",
        path.display()
    );
    let file = quoted(&file.to_string_lossy());
    if !is_copy {
        let other = quoted(&format!("{}.imported", path.display()));
        let next = format!("ALPINE_LEDGER_PATH={other} alpine ledger import {file}");
        return Failure::conflict(cause).next(next);
    }
    let aside = move_aside(path, "replaced");
    let instead = format!("{aside} && alpine ledger import {file}");
    cause.push_str("; the file is a copy of this very ledger, which can only take its place");
    if unfinished == 0 {
        return Failure::conflict(cause).next(instead);
    }
    let first = format!(
        ", and does not know what has begun since: bring down its unfinished sessions ({unfinished}) first, then: {instead}"
    );
    cause.push_str(&first);
    Failure::conflict(cause).next("alpine list --all")
}

fn compact(work: &Work, config: &Config, force: bool) -> Result<u8, Failure> {
    let path = &config.ledger.value;
    let mut all = Retained::default();
    if fs::symlink_metadata(path).is_ok() {
        let ledger = work.ledger(config)?;
        loop {
            let done = ledger.retain(&Retention::default(), BATCH);
            if done.is_err() {
                ledger.close();
            }
            let done = done?;
            all.sessions += done.sessions;
            all.events += done.events;
            if !done.more {
                break;
            }
        }
        ledger.close();
    }
    let compacted = alpine_ledger::compact(path, work.options(config), force)?;
    tell(
        work,
        &CompactDocument::new(&all, &compacted),
        CompactDocument::told,
    );
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::unwritten;
    use std::io;
    use std::path::Path;

    #[test]
    fn a_full_disk_is_looked_at_where_the_export_goes() {
        let next = |file: &str, kind: io::ErrorKind| {
            let failure = unwritten(Path::new(file), &kind.into());
            assert!(failure.cause.contains(file), "{failure}");
            failure.next_step
        };
        let full = io::ErrorKind::StorageFull;
        assert_eq!(next("/a b/out", full), "df -h '/a b'");
        assert_eq!(next("out", full), "df -h .");
        let denied = io::ErrorKind::PermissionDenied;
        assert_eq!(next("out", denied), "alpine ledger export -");
    }
}
