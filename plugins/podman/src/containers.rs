//! Makes, finds, reads and removes containers.

use crate::answer::understood;
use crate::config::Config;
use alpine_provider_api::*;
use bollard::errors::Error;
use bollard::models::{
    ContainerCreateBody, ContainerInspectResponse, ContainerSummaryStateEnum, HostConfig,
    PortBinding,
};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, DownloadFromContainerOptionsBuilder, InspectContainerOptions,
    ListContainersOptionsBuilder, RemoveContainerOptionsBuilder, StartContainerOptions,
};
use bollard::{ClientVersion, Docker};
use futures_util::StreamExt;
use std::collections::HashMap;
use std::time::Duration;

/// Where the workspace is in a container.
pub(crate) const WORKSPACE: &str = "/workspace";
const LEDGER: &str = "alpine.ledger";
const SESSION: &str = "alpine.session";
const SANDBOX: &str = "alpine.sandbox";
/// How long an answer may take to begin, in seconds: an engine that is asked to stop a container answers when it has.
const ANSWER: u64 = 120;
/// What both podman and Docker have spoken for long.
const VERSION: ClientVersion = ClientVersion {
    major_version: 1,
    minor_version: 41,
};
/// Waits for ever and sees to what is left by others; the number tells its own waiting from theirs.
const INIT: &str = "trap 'exit 0' TERM; while :; do sleep 2147483647 & wait \"$!\"; done";

/// Containers as sandboxes.
#[derive(Clone, Debug)]
pub struct Containers {
    pub(crate) config: Config,
}

impl Containers {
    /// Asks the engine for nothing yet.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self { config }
    }

    pub(crate) fn engine(&self) -> Result<Docker, ProviderError> {
        let path = self.config.socket.to_string_lossy();
        Docker::connect_with_unix(&path, ANSWER, &VERSION).map_err(|error| self.failed(&error))
    }

    pub(crate) fn failed(&self, error: &Error) -> ProviderError {
        let message = format!("`{}`: {error}", self.config.socket.display());
        if message.contains("no space left on device") {
            return ProviderError::new(ErrorKind::NoSpace, message);
        }
        if matches!(error, Error::SocketNotFoundError(_)) {
            return ProviderError::new(ErrorKind::Io, message)
                .hint("podman system service --time 0 unix://SOCKET");
        }
        match matches!(error, Error::DockerResponseServerError { .. }) {
            true => ProviderError::new(ErrorKind::Io, message),
            // The way to the engine failed, not the engine.
            false => ProviderError::transient(ErrorKind::Io, message),
        }
    }

    /// A container's name: that of an engine may not begin with every letter that an id may.
    pub(crate) fn name(id: &SandboxId) -> String {
        format!("alpine-{id}")
    }

    /// What there is of a sandbox; a container of that name that is not alpine's is none.
    pub(crate) async fn find(
        &self,
        id: &SandboxId,
    ) -> Result<Option<ContainerInspectResponse>, ProviderError> {
        let engine = self.engine()?;
        let options = None::<InspectContainerOptions>;
        match understood(engine.inspect_container(&Self::name(id), options).await) {
            Ok(found) if label(&found, SANDBOX) == Some(id.as_str()) => Ok(Some(found)),
            Ok(_) => {
                let message = format!("the container `{}` is not alpine's", Self::name(id));
                Err(ProviderError::new(ErrorKind::Conflict, message))
            }
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(self.failed(&error)),
        }
    }

    pub(crate) async fn state(&self, id: &SandboxId) -> Result<SandboxState, ProviderError> {
        Ok(match self.find(id).await? {
            None => SandboxState::Missing,
            Some(found) => match found.state {
                // What is paused is there and goes on when it is let.
                Some(state) if state.running == Some(true) || state.paused == Some(true) => {
                    SandboxState::Running
                }
                Some(_) => SandboxState::Exited,
                None => SandboxState::Unknown,
            },
        })
    }

    /// Makes the container and starts it, from wherever an earlier try was interrupted.
    pub(crate) async fn make(&self, request: &ProvisionRequest) -> Result<(), ProviderError> {
        let (engine, id) = (self.engine()?, &request.sandbox_id);
        let name = Self::name(id);
        let found = match self.find(id).await? {
            Some(found) => Some(found),
            None => {
                let options = CreateContainerOptionsBuilder::default().name(&name).build();
                let body = self.container(request);
                match engine.create_container(Some(options), body).await {
                    Ok(_) => None,
                    // Somebody else may have made it at the same time.
                    Err(error) => match self.find(id).await? {
                        Some(found) => Some(found),
                        None => return Err(self.unmade(&error)),
                    },
                }
            }
        };
        let is_other = |found: &ContainerInspectResponse| {
            label(found, LEDGER) != Some(request.ledger_id.as_str())
                || label(found, SESSION) != Some(request.session_id.as_str())
        };
        if found.as_ref().is_some_and(is_other) {
            let message = format!("the container `{name}` belongs to another session");
            return Err(ProviderError::new(ErrorKind::Conflict, message));
        }
        engine
            .start_container(&name, None::<StartContainerOptions>)
            .await
            .map_err(|error| self.unmade(&error))
    }

    fn unmade(&self, error: &Error) -> ProviderError {
        let failed = self.failed(error);
        match is_absent(error) {
            true => failed.hint(format!("podman pull {}", self.config.image)),
            false => failed,
        }
    }

    fn container(&self, request: &ProvisionRequest) -> ContainerCreateBody {
        let config = &self.config;
        let labels = [
            (LEDGER, request.ledger_id.as_str()),
            (SESSION, request.session_id.as_str()),
            (SANDBOX, request.sandbox_id.as_str()),
        ];
        let env = config
            .env
            .iter()
            .map(|(key, value)| format!("{key}={value}"));
        let published = |port: &u16| {
            let here = PortBinding {
                host_ip: Some("127.0.0.1".to_owned()),
                host_port: None,
            };
            (format!("{port}/tcp"), Some(vec![here]))
        };
        ContainerCreateBody {
            image: Some(config.image.clone()),
            entrypoint: Some(["sh", "-c", INIT].map(str::to_owned).to_vec()),
            cmd: Some(Vec::new()),
            working_dir: Some(WORKSPACE.to_owned()),
            user: config.user.clone(),
            env: Some(env.collect()),
            labels: Some(
                labels
                    .map(|(key, value)| (key.to_owned(), value.to_owned()))
                    .into(),
            ),
            host_config: Some(HostConfig {
                network_mode: Some(config.network.clone()),
                port_bindings: Some(config.ports.iter().map(published).collect()),
                memory: config.memory,
                nano_cpus: config.cpus.map(nano),
                pids_limit: config.pids,
                security_opt: Some(vec!["no-new-privileges".to_owned()]),
                ..HostConfig::default()
            }),
            ..ContainerCreateBody::default()
        }
    }

    /// The port of this machine that leads to one of the sandbox.
    pub(crate) async fn published_port(
        &self,
        id: &SandboxId,
        port: u16,
    ) -> Result<Option<u16>, ProviderError> {
        let found = self.find(id).await?;
        let ports = found.and_then(|found| found.network_settings?.ports);
        let bound = ports.and_then(|mut ports| ports.remove(&format!("{port}/tcp")).flatten());
        let here = bound
            .into_iter()
            .flatten()
            .find_map(|bound| bound.host_port);
        Ok(here.and_then(|here| here.parse().ok()))
    }

    /// The containers that bear the ledger's id.
    pub(crate) async fn all_of(
        &self,
        ledger_id: &str,
    ) -> Result<Vec<ListedSandbox>, ProviderError> {
        let filters = HashMap::from([("label", vec![format!("{LEDGER}={ledger_id}")])]);
        let options = ListContainersOptionsBuilder::default()
            .all(true)
            .filters(&filters)
            .build();
        let found = understood(self.engine()?.list_containers(Some(options)).await)
            .map_err(|error| self.failed(&error))?;
        let sandboxes = found.into_iter().filter_map(|one| {
            let labels = one.labels?;
            // The filter is the engine's; that it kept it is looked at.
            if labels.get(LEDGER).map(String::as_str) != Some(ledger_id) {
                return None;
            }
            Some(ListedSandbox {
                sandbox_id: SandboxId::new(labels.get(SANDBOX)?)?,
                session_id: labels.get(SESSION)?.clone(),
                state: match one.state {
                    Some(
                        ContainerSummaryStateEnum::RUNNING | ContainerSummaryStateEnum::PAUSED,
                    ) => SandboxState::Running,
                    Some(_) => SandboxState::Exited,
                    None => SandboxState::Unknown,
                },
            })
        });
        Ok(sandboxes.collect())
    }

    /// Removes the container with all that it stored.
    pub(crate) async fn remove(&self, id: &SandboxId) -> Result<(), ProviderError> {
        let mut tries = 20;
        loop {
            match self.remove_once(id).await {
                // For a call that was killed the engine may be removing it still, and trips over that.
                Err(error) if error.retry == Retry::Never && tries > 0 => {
                    tries -= 1;
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                done => return done,
            }
        }
    }

    async fn remove_once(&self, id: &SandboxId) -> Result<(), ProviderError> {
        if self.find(id).await?.is_none() {
            return Ok(());
        }
        let options = RemoveContainerOptionsBuilder::default()
            .force(true)
            .v(true)
            .build();
        let (engine, name) = (self.engine()?, Self::name(id));
        match engine.remove_container(&name, Some(options)).await {
            Err(error) if !is_absent(&error) => Err(self.failed(&error)),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Sends the workspace as the engine reads it.
    pub(crate) async fn archive(&self, call: &Call, id: &SandboxId) -> Result<(), ProviderError> {
        let options = DownloadFromContainerOptionsBuilder::default()
            .path(&format!("{WORKSPACE}/."))
            .build();
        let engine = self.engine()?;
        let mut pieces =
            std::pin::pin!(engine.download_from_container(&Self::name(id), Some(options)));
        while let Some(piece) = pieces.next().await {
            let piece = piece.map_err(|error| self.failed(&error))?;
            call.send(CallEvent::Stdout(piece.to_vec())).await?;
        }
        Ok(())
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "a number of processors is far from what an i64 of billionths holds"
)]
fn nano(cpus: f64) -> i64 {
    (cpus * 1e9) as i64
}

fn label<'a>(found: &'a ContainerInspectResponse, name: &str) -> Option<&'a str> {
    let labels = found.config.as_ref()?.labels.as_ref()?;
    labels.get(name).map(String::as_str)
}

pub(crate) fn is_absent(error: &Error) -> bool {
    matches!(
        error,
        Error::DockerResponseServerError {
            status_code: 404,
            ..
        }
    )
}
