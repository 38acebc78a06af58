//! What the provider and its sandboxes say of themselves, and small things on the disk.

use alpine_provider_adapter::{Facts, Network, Storage};
use alpine_provider_api::{Isolation, MissingLayer, ProviderError};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{fs, io};

/// The user's table, `[providers.NAME.config]`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where sandboxes are; a directory of the provider's own when it is not given.
    pub root: Option<PathBuf>,
}

/// Who a sandbox belongs to.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct About {
    pub(crate) ledger_id: String,
    pub(crate) session_id: String,
}

impl About {
    /// Makes the directories of a sandbox that runs and belongs to these.
    pub(crate) fn write(&self, directory: &Path) -> Result<(), ProviderError> {
        fs::create_dir_all(directory.join("workspace"))
            .and_then(|()| fs::create_dir_all(directory.join("tmp")))
            .and_then(|()| fs::write(directory.join("about.json"), serde_json::to_vec(self)?))
            .and_then(|()| fs::write(directory.join("running"), ""))
            .map_err(|error| failed(directory, &error))
    }

    /// Who a sandbox belongs to, if that was written.
    pub(crate) fn read(directory: &Path) -> Option<Self> {
        let text = fs::read(directory.join("about.json")).ok()?;
        serde_json::from_slice(&text).ok()
    }
}

/// What the provider says of itself.
pub(crate) fn facts() -> Facts {
    Facts {
        name: "template".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        isolation: isolation(),
        storage: Storage::WhileRunning,
        network: Network::Shared,
        exec_signals: true,
        limits: BTreeMap::new(),
        config_schema: Some(serde_json::json!({
            "type": "object",
            "properties": {"root": {"type": "string"}},
            "additionalProperties": false,
        })),
    }
}

/// Commands are plain processes, and that is said.
pub(crate) fn isolation() -> Isolation {
    let missing = MissingLayer {
        what: "isolation".to_owned(),
        why: "commands are plain processes of the user".to_owned(),
        fix: "use a provider that isolates".to_owned(),
    };
    Isolation {
        tier: "process".to_owned(),
        layers: Vec::new(),
        limits: BTreeMap::new(),
        missing: vec![missing],
    }
}

/// Removes a file or a directory, if it is there.
pub(crate) fn remove(path: &Path) -> Result<(), ProviderError> {
    let removed = match path.symlink_metadata() {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(path, &error)),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// A failure that names a path.
pub(crate) fn failed(path: &Path, error: &io::Error) -> ProviderError {
    ProviderError::io(format!("`{}`", path.display()), error)
}
