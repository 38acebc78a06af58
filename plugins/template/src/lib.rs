//! A provider to copy: sandboxes are plain directories, commands plain processes. It isolates nothing and says so.
//! Six methods make it; [`Adapted`] makes a whole provider of them.

use alpine_files::{self as file, Flush, io_error};
use alpine_provider_adapter::{Adapted, Facts, Network, Sandboxes, plain};
use alpine_provider_api::*;
use alpine_provider_port::export_provider;
use async_trait::async_trait;
use serde::Deserialize;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::sync::mpsc;

/// The user's table, `[providers.NAME.config]`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where sandboxes are; a directory of the provider's own when it is not given.
    pub root: Option<PathBuf>,
}

/// Sandboxes as directories: `ROOT/ID/{made.json,running,tmp,workspace}`.
#[derive(Clone, Debug)]
pub struct Directories {
    root: PathBuf,
    env: std::collections::BTreeMap<String, String>,
}

/// The whole provider.
pub fn open(config: Config, place: &Place) -> Adapted<Directories> {
    Adapted::new(Directories::new(config, place), place)
}

export_provider!("template", |request: OpenRequest| {
    let config: Config = request.table()?;
    let refused = ProviderError::new(ErrorKind::ConfigInvalid, "`root` is no absolute path");
    let fits = config.root.as_ref().is_none_or(|root| root.is_absolute());
    fits.then(|| open(config, &request.place)).ok_or(refused)
});

impl Directories {
    /// Sandboxes in the directory that the configuration names.
    pub fn new(config: Config, place: &Place) -> Self {
        Self {
            root: config.root.unwrap_or_else(|| place.state.join("sandboxes")),
            env: place.env.clone(),
        }
    }

    fn of(&self, id: &SandboxId) -> PathBuf {
        self.root.join(id.as_str())
    }

    fn state(&self, id: &SandboxId) -> Result<SandboxState, ProviderError> {
        let there = |path: &Path| path.try_exists().map_err(|error| io_error(path, &error));
        let directory = self.of(id);
        Ok(match there(&directory)? {
            false => SandboxState::Missing,
            true if there(&directory.join("running"))? => SandboxState::Running,
            true => SandboxState::Exited,
        })
    }
}

#[async_trait]
impl Sandboxes for Directories {
    fn facts(&self) -> Facts {
        let root = json!({"root": {"type": "string"}});
        Facts {
            network: Network::Shared,
            exec_signals: true,
            config_schema: Some(json!({"properties": root, "additionalProperties": false})),
            ..Facts::new("template", env!("CARGO_PKG_VERSION"), plain::isolation())
        }
    }

    async fn provision(
        &self,
        _call: &Call,
        request: &ProvisionRequest,
    ) -> Result<ProvisionReply, ProviderError> {
        let directory = self.of(&request.sandbox_id);
        // In files: the next call may come to another process. Whose it is first: `list` has to find what is half made.
        file::private_dir(&directory)?;
        file::write_json(&directory.join("made.json"), request, Flush::Yes)?;
        plain::make(&directory)?;
        file::write(&directory.join("running"), b"")?;
        Ok(ProvisionReply {
            workspace_path: Some(directory.join("workspace")),
            isolation: plain::isolation(),
        })
    }

    async fn exec(
        &self,
        call: &Call,
        request: ExecRequest,
        input: mpsc::Receiver<ExecInput>,
    ) -> Result<ExecReply, ProviderError> {
        let (id, directory) = (request.sandbox_id.clone(), self.of(&request.sandbox_id));
        let state = || self.state(&id);
        plain::exec(call, request, input, &directory, &self.env, state).await
    }

    async fn inspect(&self, id: &SandboxId) -> Result<SandboxState, ProviderError> {
        self.state(id)
    }

    async fn list(&self, ledger_id: &str) -> Result<Vec<ListedSandbox>, ProviderError> {
        let mut all = Vec::new();
        for entry in self.root.read_dir().into_iter().flatten().flatten() {
            // What can't be read belongs to nobody.
            let made = file::read_json::<ProvisionRequest>(&entry.path().join("made.json"));
            let made = made.unwrap_or_default();
            if let Some(made) = made.filter(|it| it.ledger_id == ledger_id) {
                all.push(ListedSandbox {
                    state: self.state(&made.sandbox_id)?,
                    session_id: made.session_id,
                    sandbox_id: made.sandbox_id,
                });
            }
        }
        Ok(all)
    }

    async fn stop(
        &self,
        call: &Call,
        id: &SandboxId,
        grace: Duration,
    ) -> Result<StopReply, ProviderError> {
        file::remove(&self.of(id).join("running"))?;
        self.settle(call, id, grace).await
    }

    async fn settle(
        &self,
        _call: &Call,
        id: &SandboxId,
        grace: Duration,
    ) -> Result<StopReply, ProviderError> {
        plain::end(&self.of(id), grace).await
    }

    async fn destroy(&self, call: &Call, id: &SandboxId) -> Result<(), ProviderError> {
        self.stop(call, id, Duration::ZERO).await?;
        plain::remove(&self.of(id))
    }
}
