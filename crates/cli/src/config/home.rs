//! `ALPINE_HOME`: where it is, and what must be true of it.

use super::variables::{Variables, invalid};
use alpine_lifecycle::{ErrorCode, Failure, quoted};
use std::fs::{DirBuilder, Metadata};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

/// A supervisor's socket has to fit into 107 bytes, of which its own name takes 26.
const LONGEST_RUN_DIR: usize = 80;

/// Where the home is: as an absolute path, and whether a variable says so.
pub(crate) fn find(variables: &Variables) -> Result<(PathBuf, bool), Failure> {
    if let Some(home) = variables.get("ALPINE_HOME")? {
        return Ok((absolute("ALPINE_HOME", home)?, true));
    }
    match variables.get("HOME")? {
        Some(home) => Ok((absolute("HOME", home)?.join(".alpine"), false)),
        None => Err(Failure::new(
            ErrorCode::ConfigInvalid,
            "neither `ALPINE_HOME` nor `HOME` is set",
        )
        .next("export ALPINE_HOME=/path/to/a/directory")),
    }
}

/// A path that a variable gives, made absolute.
pub(crate) fn absolute(name: &str, path: &str) -> Result<PathBuf, Failure> {
    if path.chars().any(char::is_control) {
        return Err(invalid(name, "holds a control character"));
    }
    std::path::absolute(path).map_err(|error| invalid(name, &format!("is no path: {error}")))
}

/// Refuses a home that is another user's or that others may write. One that is not there yet is fine.
pub(crate) fn check(home: &Path) -> Result<(), Failure> {
    let found = match std::fs::metadata(home) {
        Ok(found) => found,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(unusable(home, &error.to_string(), "ls -ld")),
    };
    if !found.is_dir() {
        return Err(unusable(home, "it is not a directory", "ls -ld"));
    }
    let is_exposed = found.mode() & 0o022 != 0;
    if is_exposed && found.mode() & 0o1000 != 0 {
        let shared = unusable(home, "it is everybody's", "ls -ld");
        return Err(shared.next("export ALPINE_HOME=\"$HOME\"/.alpine"));
    }
    if !is_ours(&found) {
        return Err(unusable(
            home,
            "it belongs to another user",
            "sudo chown \"$(id -u)\"",
        ));
    }
    if is_exposed {
        return Err(unusable(home, "others may write it", "chmod go-w"));
    }
    Ok(())
}

/// Makes the home, for its user alone.
pub(crate) fn make(home: &Path) -> Result<(), Failure> {
    check(home)?;
    let made = DirBuilder::new().recursive(true).mode(0o700).create(home);
    made.map_err(|error| {
        let parent = home.parent().unwrap_or(home);
        unusable(home, &format!("it can't be made: {error}"), "ls -ld")
            .next(format!("ls -ld {}", shown(parent)))
    })
}

/// Where sockets are: the user's run-time directory, if it is fit, else within the home; never a path that is too long.
pub(crate) fn run_dir(variables: &Variables, home: &Path) -> Result<PathBuf, Failure> {
    if let Some(given) = variables.get("XDG_RUNTIME_DIR")? {
        let given = absolute("XDG_RUNTIME_DIR", given)?;
        let fit = std::fs::metadata(&given)
            .is_ok_and(|found| found.is_dir() && is_ours(&found) && found.mode() & 0o077 == 0);
        if fit && given.as_os_str().len() + "/alpine".len() <= LONGEST_RUN_DIR {
            return Ok(given.join("alpine"));
        }
    }
    let own = home.join("run");
    if own.as_os_str().len() <= LONGEST_RUN_DIR {
        return Ok(own);
    }
    short_run_dir(home)
}

/// A private directory with a short path, for a home whose own path is too long for sockets.
fn short_run_dir(home: &Path) -> Result<PathBuf, Failure> {
    let path = PathBuf::from(format!(
        "/tmp/alpine-{}",
        rustix::process::geteuid().as_raw()
    ));
    // That it is there already is found out by the check.
    let _ = DirBuilder::new().mode(0o700).create(&path);
    let private = std::fs::symlink_metadata(&path)
        .is_ok_and(|found| found.is_dir() && is_ours(&found) && found.mode() & 0o077 == 0);
    if private {
        return Ok(path);
    }
    Err(unusable(
        home,
        &format!(
            "its path is too long for sockets, and `{}` is not yours alone",
            path.display()
        ),
        "ls -ld",
    )
    .next("export XDG_RUNTIME_DIR=/run/user/\"$(id -u)\""))
}

fn is_ours(found: &Metadata) -> bool {
    found.uid() == rustix::process::geteuid().as_raw()
}

fn unusable(home: &Path, why: &str, command: &str) -> Failure {
    let cause = format!("`ALPINE_HOME` (`{}`) can't be used: {why}", home.display());
    Failure::new(ErrorCode::LedgerUnavailable, cause).next(format!("{command} {}", shown(home)))
}

fn shown(path: &Path) -> String {
    quoted(&path.to_string_lossy())
}
