//! The address of a session whose sandbox is elsewhere: a supervisor with a gateway, and nothing else to supervise.

use crate::agent::{open_door, url};
use crate::config::LocalConfig;
use crate::dial::{self, Dial};
use crate::inspect;
use crate::protocol::{Door, Publish, Reply, Request};
use crate::provider::LocalProvider;
use alpine_gateway::Upstream;
use alpine_git::GitConfig;
use alpine_provider_api::*;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;

/// Addresses of sessions on this machine, one per sandbox that is elsewhere.
#[derive(Clone, Debug)]
pub struct Front(LocalProvider);

/// An address that is open, and what it takes from those who call.
#[derive(Clone, Debug)]
pub struct Address {
    /// The address, without a secret.
    pub url: String,
    /// The password that it takes by HTTP Basic; an agent's server behind it is to take the same.
    pub password: Secret<String>,
}

impl Front {
    /// Keeps what it has to keep in `home`, sockets in `run_dir`; `executable` is re-executed as supervisor and gateway.
    #[must_use]
    pub fn new(home: &Path, run_dir: &Path, executable: &Path) -> Self {
        Self(LocalProvider::new(LocalConfig {
            home: home.to_owned(),
            run_dir: run_dir.to_owned(),
            executable: executable.to_owned(),
            env: BTreeMap::new(),
            git: GitConfig {
                cache: home.join("cache"),
                path: OsString::new(),
                home: None,
                extra_env: BTreeMap::new(),
                redactor: Redactor::new(&[]),
            },
            objects: home.join("objects"),
            secrets: Vec::new(),
        }))
    }

    /// **Does**: opens the session's address; it shows the page until an agent's server is told of. **Again**: the same
    /// address. **Fails**: as `start_agent` does. **If dropped**: what was begun is found by the next call, or removed.
    ///
    /// # Errors
    /// Those of `provision`, and `Io`.
    pub async fn open(
        &self,
        call: &Call,
        made: &ProvisionRequest,
        page: &PageFacts,
        install_log: &Path,
    ) -> Result<Address, ProviderError> {
        self.0.provision(call, made.clone()).await?;
        let publish = Publish {
            page: page.clone(),
            upstream: None,
            install_log: Some(std::path::absolute(install_log).unwrap_or(install_log.to_owned())),
        };
        self.publish(&made.sandbox_id, publish).await
    }

    /// Tells it where the agent's server is.
    ///
    /// # Errors
    /// `Io` when the supervisor does not answer.
    pub async fn lead_to(
        &self,
        id: &SandboxId,
        page: &PageFacts,
        upstream: Upstream,
    ) -> Result<Address, ProviderError> {
        let publish = Publish {
            page: page.clone(),
            upstream: Some(upstream),
            install_log: None,
        };
        self.publish(id, publish).await
    }

    /// Whether the address answers.
    ///
    /// # Errors
    /// `Io` when the supervisor does not answer.
    pub async fn answers(&self, id: &SandboxId) -> Result<bool, ProviderError> {
        let ready = inspect::agent_ready(&self.0.local().running(id)?).await?;
        Ok(ready == Some(true))
    }

    /// The address, if it is open.
    ///
    /// # Errors
    /// `Io` when the supervisor does not answer.
    pub async fn address(&self, id: &SandboxId) -> Result<Option<Address>, ProviderError> {
        let sandbox = self.0.local().running(id)?;
        match Dial::prompt(&sandbox, &Request::Hello).await {
            Ok(Reply::Hello(hello)) => Ok(hello.door.map(Address::of)),
            Ok(_) => Err(dial::unexpected(&sandbox)),
            Err(error) => Err(error),
        }
    }

    /// Makes a way in, as `open_agent` does.
    ///
    /// # Errors
    /// Those of `open_agent`.
    pub async fn link(
        &self,
        call: &Call,
        request: OpenAgentRequest,
    ) -> Result<OpenAgentReply, ProviderError> {
        self.0.open_agent(call, request).await
    }

    /// Closes the address for good, and removes all that was kept for it. **Again**, and of one that never was: done.
    ///
    /// # Errors
    /// Those of `destroy`.
    pub async fn close(&self, call: &Call, id: &SandboxId) -> Result<(), ProviderError> {
        if !self.0.local().home.root().exists() {
            return Ok(());
        }
        let request = DestroyRequest {
            sandbox_id: id.clone(),
        };
        self.0.destroy(call, request).await.map(drop)
    }

    async fn publish(&self, id: &SandboxId, publish: Publish) -> Result<Address, ProviderError> {
        let sandbox = self.0.local().running(id)?;
        open_door(&sandbox, publish).await.map(Address::of)
    }
}

impl Address {
    fn of(door: Door) -> Self {
        Self {
            url: url(&door),
            password: door.password,
        }
    }
}
