//! Which sandboxes were made in this home: what is not there is gone only if it was made here.
//!
//! Another `ALPINE_HOME`, a disk that is not mounted and a directory that was moved away look like a sandbox that is gone,
//! and that would be taken for the proof that nothing of it can be kept. So each sandbox is noted beside the others before
//! its directory is made, and until it is destroyed; the note bears the home's own id.

use crate::file;
use crate::intent::{self, Guard};
use crate::layout::{Home, Sandbox};
use alpine_provider_api::{ErrorKind, ProviderError, SandboxId, SandboxState};
use std::path::Path;

/// What an absent sandbox's absence means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Absence {
    /// It was made here, or destroyed here, and is gone.
    Proven,
    /// It was never made here.
    Unproven,
}

/// Notes that a sandbox was made in this home, durably.
pub(crate) fn note(_held: &Guard, home: &Home, id: &SandboxId) -> Result<(), ProviderError> {
    let path = home.notes().join(id.as_str());
    let identity = identity(home)?;
    match file::read_small(&path, 256) {
        Ok(Some(note)) if note == identity.as_bytes() => Ok(()),
        Ok(_) | Err(_) => file::write_alone(&path, identity.as_bytes()),
    }
}

/// Forgets a sandbox whose tombstone says what became of it, and what was begun of its note.
pub(crate) fn forget(_held: &Guard, home: &Home, id: &SandboxId) -> Result<(), ProviderError> {
    let path = home.notes().join(id.as_str());
    file::remove(&file::part_of(&path))?;
    file::remove(&path)
}

/// The error of a sandbox that is not there.
pub(crate) fn absent(home: &Home, sandbox: &Sandbox) -> ProviderError {
    let id = &sandbox.id;
    match absence(home, id) {
        Ok(Absence::Proven) => {
            ProviderError::new(ErrorKind::NotFound, format!("there is no sandbox `{id}`"))
        }
        Ok(Absence::Unproven) => {
            let quoted = |path: &Path| path.display().to_string().replace('\'', r"'\''");
            let message = format!(
                "sandbox `{id}` was not made in `{}`; is `ALPINE_HOME` the one it was made in, and is its disk mounted? only if that is lost for good, say so: mkdir -p '{}' && touch '{}'",
                home.root().display(),
                quoted(&home.notes()),
                quoted(&home.notes().join(id.as_str()))
            );
            ProviderError::new(ErrorKind::Io, message).hint("alpine config")
        }
        Err(error) => error,
    }
}

/// The state of a sandbox that is not there.
pub(crate) fn absent_state(home: &Home, id: &SandboxId) -> Result<SandboxState, ProviderError> {
    Ok(match absence(home, id)? {
        Absence::Proven => SandboxState::Missing,
        Absence::Unproven => SandboxState::Unknown,
    })
}

fn absence(home: &Home, id: &SandboxId) -> Result<Absence, ProviderError> {
    if intent::tombstone(home, id)?.is_some() {
        return Ok(Absence::Proven);
    }
    let path = home.notes().join(id.as_str());
    let read =
        |path: &Path| file::read_small(path, 256).map_err(|source| file::io_error(path, &source));
    Ok(match read(&path)? {
        // An empty note is the user's word.
        Some(note) if note.is_empty() => Absence::Proven,
        Some(note) if read(&home.identity())?.as_ref() == Some(&note) => Absence::Proven,
        Some(_) | None => Absence::Unproven,
    })
}

/// The home's id, drawn when the first sandbox is made in it. The first of several who draw one at once is right.
fn identity(home: &Home) -> Result<String, ProviderError> {
    let path = home.identity();
    let failed = |source: std::io::Error| file::io_error(&path, &source);
    loop {
        if let Some(id) = file::read_small(&path, 256).map_err(failed)? {
            return String::from_utf8(id)
                .map_err(|source| failed(std::io::Error::other(source.to_string())));
        }
        file::draw(&path).map_err(failed)?;
    }
}
