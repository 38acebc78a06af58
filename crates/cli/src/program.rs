//! How this program is called, so that the commands it prints work when they are pasted.

use crate::config::Variables;
use crate::setup::Setup;
use alpine_lifecycle::quoted;
use std::path::Path;

const NAME: &str = "alpine";

/// `alpine` where that is found on the path (or the program bears a name of its own), else the path of this very file.
pub(crate) fn name(setup: &Setup, variables: &Variables) -> String {
    if let Some(name) = setup.program {
        return name.to_owned();
    }
    let path = variables.lenient("PATH").unwrap_or_default();
    let found = std::env::split_paths(path).any(|folder| folder.join(NAME).is_file());
    match std::env::current_exe() {
        Ok(file) if !found => quoted(&shortest(&file).to_string_lossy()),
        Ok(_) | Err(_) => NAME.to_owned(),
    }
}

/// The path as seen from the working directory, where the file lies below it.
fn shortest(file: &Path) -> &Path {
    let below = std::env::current_dir()
        .ok()
        .and_then(|here| file.strip_prefix(here).ok());
    // A path without a slash would be looked for on `PATH`.
    below
        .filter(|below| below.components().count() > 1)
        .unwrap_or(file)
}
