//! What is nobody's any more and has still to be deleted.
//!
//! A destroyed sandbox is gone for everybody with one rename. To delete what it held can take as long as the file system
//! likes, so the call deletes what it can in a moment, and the remover does the rest: the same executable, re-executed,
//! which outlives the command. Whoever deletes a tree holds that tree's lock; one that is left alone, since its remover was
//! killed, is handed to a new one by the next call that makes, lists or destroys a sandbox. What could not be deleted is
//! noted beside it, and those calls warn of it.

use crate::config::LocalConfig;
use crate::file::{self, io_error};
use crate::layout::Home;
use crate::provider::{Local, blocking};
use crate::shim::{self, Forked};
use crate::tree::{self, Removal};
use alpine_provider_api::{Call, ErrorKind, ProviderError, SandboxId};
use std::ffi::{OsStr, OsString};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a call deletes by itself.
const MOMENT: Duration = Duration::from_millis(50);
/// How the name of a note ends; a tree's ends with a number.
const NOTE: &str = "why";

/// Takes a directory away in one step, so that nothing finds it any more. One that is not there is gone already.
pub(crate) fn doom(home: &Home, id: &SandboxId, path: &Path) -> Result<(), ProviderError> {
    let name = format!("{id}.{:08x}", file::random_u32());
    match std::fs::rename(path, home.doomed().join(name)) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            Err(io_error(path, &source))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Deletes what is left of a sandbox, as much as a moment allows, and has a remover delete the rest and what others left.
pub(crate) async fn clear(
    local: &Arc<Local>,
    call: &Call,
    own: Option<SandboxId>,
) -> Result<(), ProviderError> {
    let local = Arc::clone(local);
    let warnings = blocking(move || delete_or_hand_over(&local, own.as_ref())).await?;
    for warning in warnings {
        call.warn(warning);
    }
    Ok(())
}

/// Has a remover delete what others left. That this can't be done keeps no call from what it is for.
pub(crate) async fn tidy(local: &Arc<Local>, call: &Call) {
    if let Err(error) = clear(local, call, None).await {
        call.warn(format!(
            "what destroyed sandboxes left can't be deleted: {}",
            error.message
        ));
    }
}

fn delete_or_hand_over(
    local: &Local,
    own: Option<&SandboxId>,
) -> Result<Vec<String>, ProviderError> {
    let (place, until) = (local.home.doomed(), Instant::now() + MOMENT);
    let (mut is_left, mut is_under_way) = (false, Vec::new());
    let (notes, trees): (Vec<_>, Vec<_>) =
        entries(&place)?.into_iter().partition(|path| is_note(path));
    for path in trees {
        if own.is_some_and(|own| path.file_stem() == Some(OsStr::new(own.as_str()))) {
            if tree::remove_alone(&path, Some(until))? == Removal::OutOfTime {
                is_left = true;
                is_under_way.push(note_of(&path));
            }
        } else {
            is_left |= tree::is_left_alone(&path);
        }
    }
    if is_left && !start(&local.config) {
        delete_all(&place, |path| tree::remove_alone(path, None).map(drop))?;
    }
    // Only now: what could not be deleted before may be gone, or is being deleted.
    let notes = notes.iter().filter(|note| !is_under_way.contains(note));
    let warnings: Result<Vec<_>, _> = notes.map(|note| warning(note)).collect();
    Ok(warnings?.into_iter().flatten().collect())
}

/// The text of a note; one whose tree is gone after all is removed.
fn warning(note: &Path) -> Result<Option<String>, ProviderError> {
    let tree = note.with_extension("");
    if !tree.exists() {
        return file::remove(note).map(|()| None);
    }
    let text = file::read_small(note, 4096).map_err(|source| io_error(note, &source))?;
    let text = text.map(|text| String::from_utf8_lossy(&text).into_owned());
    let quoted = tree.display().to_string().replace('\'', r"'\''");
    Ok(text.map(|why| {
        format!("what a destroyed sandbox left can't be deleted: {why}; to delete it: sudo rm -rf '{quoted}'")
    }))
}

/// What is in the place, in no order.
fn entries(place: &Path) -> Result<Vec<PathBuf>, ProviderError> {
    let failed = |source: std::io::Error| io_error(place, &source);
    match std::fs::read_dir(place) {
        Err(source) if source.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(source) => Err(failed(source)),
        Ok(entries) => entries
            .map(|entry| Ok(entry.map_err(failed)?.path()))
            .collect(),
    }
}

fn is_note(path: &Path) -> bool {
    path.extension() == Some(OsStr::new(NOTE))
}

fn note_of(tree: &Path) -> PathBuf {
    let mut name = OsString::from(tree);
    name.push(".");
    name.push(NOTE);
    PathBuf::from(name)
}

/// Starts a remover, if that can be done.
fn start(config: &LocalConfig) -> bool {
    let home = std::path::absolute(&config.home).unwrap_or_else(|_| config.home.clone());
    let stub = Command::new(&config.executable)
        .arg0(shim::REMOVER)
        .arg(home)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    stub.is_ok_and(|status| status.success())
}

/// Runs as a remover, in the background and after everything else that wants the machine.
pub(crate) fn run(home: Option<&OsStr>) -> ExitCode {
    let Some(home) = home.map(Path::new).filter(|home| home.is_absolute()) else {
        return ExitCode::FAILURE;
    };
    match shim::go_into_background(c"alpine-remover") {
        Ok(Forked::Parent) => return ExitCode::SUCCESS,
        Ok(Forked::Child) => {}
        Err(_) => return ExitCode::FAILURE,
    }
    // One that is not nice does the same.
    let _ = rustix::process::nice(19);
    let place = Home::new(home, home).doomed();
    let deleted = delete_all(&place, |path| tree::remove_alone(path, None).map(drop));
    deleted.map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS)
}

/// Deletes every tree that can be deleted, notes why another can't, and fails if there was one.
fn delete_all(
    place: &Path,
    delete: impl Fn(&Path) -> Result<(), ProviderError>,
) -> Result<(), ProviderError> {
    let mut done = Ok(());
    for path in entries(place)?.iter().filter(|path| !is_note(path)) {
        match delete(path) {
            Ok(()) => file::remove(&note_of(path))?,
            Err(error) => {
                file::write(&note_of(path), error.message.as_bytes())?;
                done = Err(ProviderError::new(ErrorKind::Io, error.message));
            }
        }
    }
    done
}

#[cfg(test)]
mod tests {
    use super::{delete_all, entries, warning};
    use crate::tree::remove_tree;
    use alpine_provider_api::{ErrorKind, ProviderError};
    use std::fs;

    #[test]
    fn what_cannot_be_deleted_is_noted_and_warned_of_until_it_can() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path();
        for name in ["one.00000001", "stubborn.00000002", "two.00000003"] {
            fs::create_dir(place.join(name)).unwrap();
        }
        let refusing = |path: &std::path::Path| match path.ends_with("stubborn.00000002") {
            true => Err(ProviderError::new(ErrorKind::Io, "`it`: not permitted")),
            false => remove_tree(path),
        };
        delete_all(place, refusing).unwrap_err();
        let note = place.join("stubborn.00000002.why");
        let mut left = entries(place).unwrap();
        left.sort();
        assert_eq!(left, [place.join("stubborn.00000002"), note.clone()]);
        let text = warning(&note).unwrap().unwrap();
        let command = format!(
            "sudo rm -rf '{}'",
            place.join("stubborn.00000002").display()
        );
        assert!(
            text.contains("`it`: not permitted") && text.ends_with(&command),
            "{text}"
        );
        delete_all(place, remove_tree).unwrap();
        assert_eq!(
            entries(place).unwrap(),
            [""; 0].map(std::path::PathBuf::from)
        );
    }

    #[test]
    fn a_note_whose_tree_is_gone_goes_too() {
        let directory = tempfile::tempdir().unwrap();
        let note = directory.path().join("gone.00000001.why");
        fs::write(&note, "because").unwrap();
        assert_eq!(warning(&note).unwrap(), None);
        assert!(!note.exists());
    }
}
