//! The agent's server in the sandbox, and the session's address on this machine that leads to it.

use crate::provider::Adapted;
use crate::record::{Intent, Record};
use crate::sandboxes::{Network, Sandboxes};
use crate::server::{LIVES, without_secrets};
use alpine_files as file;
use alpine_gateway::client::{AgentClient, Exported};
use alpine_gateway::{Listener, Upstream};
use alpine_provider_api::*;
use alpine_provider_local::{Address, Front};
use serde::{Deserialize, Serialize};
use std::time::{Duration, Instant};

/// How long the agent may take to answer a probe.
const LIMIT: Duration = Duration::from_secs(5);
/// How long the export of the agent's transcript may take in all.
const EXPORT: Duration = Duration::from_secs(8);
/// How long the agent may take to take note that it is ended.
const DISPOSE: Duration = Duration::from_secs(2);

/// What serves the session's address.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Served {
    page: PageFacts,
    /// The agent's server; none where it is the page alone.
    pub(crate) server: Option<Serving>,
}

/// The agent's server in the sandbox.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Serving {
    server: Server,
    /// The port on this machine's 127.0.0.1 that leads to it.
    port: u16,
    /// The digest of the password that it was started with.
    password: String,
}

impl<S: Sandboxes> Adapted<S> {
    fn front(&self) -> Result<&Front, ProviderError> {
        self.front
            .as_ref()
            .ok_or_else(|| unserved("there is no program that could serve the session's address"))
    }

    /// Starts what serves the session's page, waits until it answers, and opens the session's address.
    pub(crate) async fn start(
        &self,
        call: &Call,
        request: StartAgentRequest,
    ) -> Result<StartAgentReply, ProviderError> {
        let id = &request.sandbox_id;
        let record = self.records.admit(id, call.meta.fence).await?;
        let _alone = record.alone("work").await?;
        if self.state(&record).await? != SandboxState::Running {
            let message = format!("sandbox `{id}` does not run");
            return Err(ProviderError::new(ErrorKind::NotFound, message));
        }
        let url = match &request.agent.serve {
            Serve::None => None,
            Serve::Page => {
                let front = self.front()?;
                let address = self.address(call, &record, front, &request.page).await?;
                let page = request.page.clone();
                self.note(call, &record, &Served { page, server: None })
                    .await?;
                if !front.answers(id).await? {
                    let message = "the built-in page does not answer";
                    return Err(ProviderError::new(ErrorKind::AgentNotReady, message));
                }
                Some(address.url)
            }
            Serve::Process(server) => Some(self.serve(call, &record, &request, server).await?),
        };
        Ok(StartAgentReply { url })
    }

    async fn address(
        &self,
        call: &Call,
        record: &Record,
        front: &Front,
        page: &PageFacts,
    ) -> Result<Address, ProviderError> {
        let intent: Option<Intent> = file::read_json(&record.intent())?;
        let intent = intent.ok_or_else(|| crate::record::gone(&record.id))?;
        front.open(call, &intent.request, page, &record.log()).await
    }

    async fn note(
        &self,
        call: &Call,
        record: &Record,
        served: &Served,
    ) -> Result<(), ProviderError> {
        let write = |record: &Record| record.write(&record.agent(), served);
        self.records
            .publish(&record.id, call.meta.fence, write)
            .await
    }

    /// Starts the server, or finds the one that runs, and waits until it is ready.
    async fn serve(
        &self,
        call: &Call,
        record: &Record,
        request: &StartAgentRequest,
        server: &Server,
    ) -> Result<String, ProviderError> {
        let (front, id) = (self.front()?, &record.id);
        let deadline = Instant::now() + Duration::from_millis(request.ready_ms);
        let address = self.address(call, record, front, &request.page).await?;
        let password = blake3::hash(address.password.expose().as_bytes());
        let password = password.to_hex().to_string();
        let before = record.served()?.and_then(|served| served.server);
        let before = before.filter(|it| &it.server == server && it.password == password);
        let serving = match before {
            Some(before) if self.agent(call, id, LIVES, &[]).await? == b"yes\n" => before,
            Some(_) | None => {
                let (inside, port) = self.ports(id).await?;
                let server = server.clone();
                let serving = Serving {
                    server,
                    port,
                    password,
                };
                let served = Served {
                    page: request.page.clone(),
                    server: Some(serving.clone()),
                };
                self.note(call, record, &served).await?;
                self.launch(call, request, &serving.server, inside, &address)
                    .await?;
                serving
            }
        };
        let client = self.client(&serving, &address);
        self.await_ready(call, request, server, &client, deadline)
            .await
            .map_err(|error| without_secrets(error, request, &address))?;
        let upstream = Upstream {
            port: serving.port,
            auth: server.auth.as_ref().map(|auth| auth.username.clone()),
            listener: self.listener(),
        };
        Ok(front.lead_to(id, &request.page, upstream).await?.url)
    }

    fn listener(&self) -> Listener {
        match self.sandboxes.facts().network {
            Network::Published(_) => Listener::Anybody,
            Network::Shared | Network::Closed => {
                Listener::User(rustix::process::geteuid().as_raw())
            }
        }
    }

    fn client(&self, serving: &Serving, address: &Address) -> AgentClient {
        let auth = serving.server.auth.as_ref();
        let auth = auth.map(|auth| (auth.username.clone(), address.password.clone()));
        AgentClient::new(serving.port, auth).only_to(self.listener())
    }

    /// Whether what serves the session's address answers; none where nothing does. An address whose supervisor has died
    /// does not answer.
    pub(crate) async fn agent_ready(&self, record: &Record) -> Result<Option<bool>, ProviderError> {
        let (Some(served), Some(front)) = (record.served()?, &self.front) else {
            return Ok(None);
        };
        let Some(serving) = served.server else {
            return Ok(Some(front.answers(&record.id).await.unwrap_or(false)));
        };
        let Ok(Some(address)) = front.address(&record.id).await else {
            return Ok(Some(false));
        };
        let probe = Probe {
            warm_path: None,
            ..serving.server.ready.clone()
        };
        let ready = self.client(&serving, &address);
        let ready = ready.ready(&probe, Instant::now() + LIMIT, || true).await;
        Ok(Some(ready.is_ok()))
    }

    /// Makes a way in.
    pub(crate) async fn open(
        &self,
        call: &Call,
        request: OpenAgentRequest,
    ) -> Result<OpenAgentReply, ProviderError> {
        let record = self.records.there(&request.sandbox_id)?;
        let front = self.front()?;
        if record.served()?.is_none() {
            let message = "the session has no address";
            return Err(ProviderError::new(ErrorKind::AgentNotReady, message));
        }
        front.link(call, request).await
    }

    /// Asks the agent's server, where there is one, for its transcripts, and to end in order. What fails here costs a
    /// warning only.
    pub(crate) async fn farewell(&self, call: &Call, record: &Record) {
        let told = async {
            let (Some(served), Some(front)) = (record.served()?, &self.front) else {
                return Ok(());
            };
            let Some(serving) = served.server else {
                return Ok(());
            };
            match front.address(&record.id).await {
                Ok(Some(address)) => self.dispose(call, record, &serving, &address).await,
                Err(error) if serving.server.transcript.is_some() => Err(error),
                Ok(None) | Err(_) => Ok(()),
            }
        };
        if let Err(error) = told.await {
            call.warn(format!("the transcript was not exported: {error}"));
        }
    }

    async fn dispose(
        &self,
        call: &Call,
        record: &Record,
        serving: &Serving,
        address: &Address,
    ) -> Result<(), ProviderError> {
        let (client, shutdown) = (self.client(serving, address), &serving.server.shutdown);
        let exported = match &serving.server.transcript {
            None => Ok(Exported::default()),
            Some(transcript) => {
                call.progress("exporting the transcript", 0, None);
                client.export_transcript(transcript, shutdown, EXPORT).await
            }
        };
        if let Some(path) = &shutdown.dispose_path {
            // It is ended anyway; this only lets it end in order.
            let _ = client.post(path, DISPOSE).await;
        }
        let exported =
            exported.map_err(|why| ProviderError::new(ErrorKind::Io, why.to_string()))?;
        for failure in &exported.failures {
            call.warn(format!(
                "a part of the transcript was not exported: {failure}"
            ));
        }
        let directory = record.transcript();
        file::private_dir(&directory)?;
        for (id, text) in exported.transcripts {
            // Their ids were found safe to name files by.
            file::write(&directory.join(format!("{id}.json")), &text)?;
        }
        Ok(())
    }
}

impl Record {
    pub(crate) fn served(&self) -> Result<Option<Served>, ProviderError> {
        file::read_json(&self.agent())
    }
}

pub(crate) fn unserved(why: &str) -> ProviderError {
    let message = format!("this provider can't serve that agent: {why}");
    ProviderError::new(ErrorKind::Unsupported, message)
}
