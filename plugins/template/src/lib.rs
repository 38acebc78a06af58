//! A provider to copy: sandboxes are plain directories, commands plain processes. It isolates nothing and says so.
//!
//! Six methods make it; [`Adapted`] makes a whole provider of them.

mod about;
mod command;
mod processes;

pub use about::Config;
use about::{About, failed, isolation, remove};
use alpine_provider_adapter::{Adapted, Facts, Sandboxes};
use alpine_provider_api::*;
use alpine_provider_port::export_provider;
use async_trait::async_trait;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::sync::mpsc;

/// Sandboxes as directories: `ROOT/ID/{about.json,running,workspace}`.
#[derive(Clone, Debug)]
pub struct Directories {
    root: PathBuf,
    env: BTreeMap<String, String>,
}

/// The whole provider.
#[must_use]
pub fn open(config: Config, place: &Place) -> Adapted<Directories> {
    Adapted::new(Directories::new(config, place), place)
}

export_provider!("template", |request: OpenRequest| {
    Ok(open(request.table()?, &request.place))
});

impl Directories {
    /// Sandboxes in the directory that the configuration names.
    #[must_use]
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
        let there = |path: &Path| path.try_exists().map_err(|error| failed(path, &error));
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
        about::facts()
    }

    async fn provision(
        &self,
        _call: &Call,
        request: &ProvisionRequest,
    ) -> Result<ProvisionReply, ProviderError> {
        let directory = self.of(&request.sandbox_id);
        let about = About {
            ledger_id: request.ledger_id.clone(),
            session_id: request.session_id.clone(),
        };
        about.write(&directory)?;
        Ok(ProvisionReply {
            workspace_path: Some(directory.join("workspace")),
            isolation: isolation(),
        })
    }

    async fn exec(
        &self,
        call: &Call,
        request: ExecRequest,
        input: mpsc::Receiver<ExecInput>,
    ) -> Result<ExecReply, ProviderError> {
        let id = &request.sandbox_id;
        let mut child = command::start(&request, &self.of(id), &self.env)?;
        // Looked at when the process is there, so that no `stop` misses it.
        if self.state(id)? != SandboxState::Running {
            let message = format!("sandbox `{id}` does not run");
            return Err(ProviderError::new(ErrorKind::NotFound, message));
        }
        child.run(call, input).await
    }

    async fn inspect(&self, id: &SandboxId) -> Result<SandboxState, ProviderError> {
        self.state(id)
    }

    async fn list(&self, ledger_id: &str) -> Result<Vec<ListedSandbox>, ProviderError> {
        let mut all = Vec::new();
        for entry in fs::read_dir(&self.root).into_iter().flatten().flatten() {
            let id = entry.file_name().to_str().and_then(SandboxId::new);
            if let (Some(sandbox_id), Some(about)) = (id, About::read(&entry.path()))
                && about.ledger_id == ledger_id
            {
                all.push(ListedSandbox {
                    state: self.state(&sandbox_id)?,
                    session_id: about.session_id,
                    sandbox_id,
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
        remove(&self.of(id).join("running"))?;
        self.settle(call, id, grace).await
    }

    async fn settle(
        &self,
        _call: &Call,
        id: &SandboxId,
        grace: Duration,
    ) -> Result<StopReply, ProviderError> {
        let forced = processes::end(&self.of(id), grace).await?;
        Ok(StopReply { forced })
    }

    async fn destroy(&self, call: &Call, id: &SandboxId) -> Result<(), ProviderError> {
        self.stop(call, id, Duration::ZERO).await?;
        remove(&self.of(id))
    }
}
