//! The provider as the engine sees it.

use super::call::{self, Input};
use super::config::{PortConfig, Source};
use super::in_process::InProcess;
use super::session::{Session, Stage};
use super::watcher::Watcher;
use crate::message::CallPayload;
use crate::wire::locked;
use alpine_provider_api::*;
use async_trait::async_trait;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Instant;
use tokio::sync::mpsc;

/// A provider that is not compiled in. Nothing of it is started or loaded before the first call; one that has died is
/// started anew with the next, a few times a minute. Dropping it ends its process.
#[derive(Debug)]
pub struct PortProvider {
    config: Arc<PortConfig>,
    slot: Mutex<Slot>,
}

/// The instance there is, and when others were started.
#[derive(Debug, Default)]
struct Slot {
    instance: Option<Instance>,
    /// Why there is none, where the last one could not be started at all.
    failed: Option<ProviderError>,
    starts: VecDeque<Instant>,
}

#[derive(Debug)]
struct Instance {
    session: Arc<Session>,
    /// Ends it when it is dropped.
    _end: End,
}

#[derive(Debug)]
enum End {
    InProcess(#[expect(dead_code, reason = "it is dropped")] InProcess),
    Process(#[expect(dead_code, reason = "it is dropped")] Watcher),
}

impl PortProvider {
    /// A provider of that configuration.
    #[must_use]
    pub fn new(config: PortConfig) -> Self {
        Self {
            config: Arc::new(config),
            slot: Mutex::default(),
        }
    }

    /// Ends the instance there is: its calls are cancelled, and its process has gone when this returns. A later call has
    /// another one.
    pub fn close(&self) {
        let instance = locked(&self.slot).instance.take();
        drop(instance);
    }

    /// An instance that takes calls.
    async fn session(&self) -> Result<Arc<Session>, ProviderError> {
        loop {
            let (session, anew) = self.current()?;
            // Whoever watches a process is the first to give up: this is for a library that hangs in this one.
            let limit = self.config.timings.start * 2;
            let Ok(settled) = tokio::time::timeout(limit, session.settled()).await else {
                let message = format!("it was not ready within {} s", limit.as_secs_f32());
                let error = session.named(ProviderError::transient(ErrorKind::Timeout, message));
                session.ended(error.clone());
                return Err(error);
            };
            match settled {
                Ok(()) => return Ok(session),
                Err(error) if anew => return Err(error),
                // It ended before this call; another one may do.
                Err(_) => {}
            }
        }
    }

    /// The instance there is, or a new one. It is "anew" where this call is among those that wait for its start.
    fn current(&self) -> Result<(Arc<Session>, bool), ProviderError> {
        let mut slot = locked(&self.slot);
        let mut last = slot.failed.clone();
        if let Some(instance) = &slot.instance {
            let session = Arc::clone(&instance.session);
            match session.stage() {
                Stage::Starting => return Ok((session, true)),
                Stage::Ready | Stage::Ending => return Ok((session, false)),
                Stage::Ended(error) => last = Some(error),
            }
        }
        self.may_start(&mut slot, last)?;
        (slot.instance, slot.failed) = (None, None);
        let PortConfig {
            name,
            redactor,
            source,
            ..
        } = &*self.config;
        let session = Arc::new(Session::new(name, redactor, source));
        let end = match self.config.source {
            Source::InProcess { .. } => {
                End::InProcess(InProcess::start(&self.config, Arc::clone(&session)))
            }
            Source::Hosted { .. } | Source::Executable { .. } => {
                let watcher = Watcher::start(&self.config, Arc::clone(&session));
                match watcher {
                    Ok(watcher) => End::Process(watcher),
                    Err(error) => {
                        let error = session.named(error);
                        slot.failed = Some(error.clone());
                        return Err(error);
                    }
                }
            }
        };
        slot.instance = Some(Instance {
            session: Arc::clone(&session),
            _end: end,
        });
        Ok((session, true))
    }

    /// Refuses a start that follows too many others.
    fn may_start(&self, slot: &mut Slot, last: Option<ProviderError>) -> Result<(), ProviderError> {
        let (now, timings) = (Instant::now(), &self.config.timings);
        let recent = |start: &Instant| now.duration_since(*start) < timings.restart_window;
        slot.starts.retain(recent);
        if let Some(mut error) = last.filter(|_| slot.starts.len() > timings.restarts) {
            error.message = format!(
                "{}; it was started {} times within {} s and is left alone for a while",
                error.message,
                slot.starts.len(),
                timings.restart_window.as_secs_f32()
            );
            return Err(error);
        }
        slot.starts.push_back(now);
        Ok(())
    }

    async fn ask<Q, R>(
        &self,
        method: Method,
        call: Option<&Call>,
        request: Q,
        input: Option<Input>,
    ) -> Result<R, ProviderError>
    where
        Q: Serialize + Send,
        R: DeserializeOwned,
    {
        let unasked = || Meta {
            operation_id: String::new(),
            fence: 0,
            attempt: 1,
            deadline_ms: 0,
            traceparent: None,
        };
        let mut meta = call.map_or_else(unasked, |call| call.meta.clone());
        if meta.traceparent.is_none() {
            meta.traceparent.clone_from(&self.config.traceparent);
        }
        let payload = CallPayload {
            meta: &meta,
            request: &request,
        };
        let payload = serde_json::to_vec(&payload).map_err(|error| {
            let message = format!("the request of `{method}` can't be written as JSON: {error}");
            ProviderError::new(ErrorKind::InvalidArgument, message)
        })?;
        drop(request);
        let session = self.session().await?;
        let timings = &self.config.timings;
        let reply = call::run(&session, timings, method, &payload, call, input).await?;
        serde_json::from_slice(&reply).map_err(|error| {
            let message = format!("what it answered is no reply to `{method}`: {error}");
            session.named(ProviderError::new(ErrorKind::Unsupported, message))
        })
    }
}

/// One request without fields.
#[derive(Serialize)]
struct Nothing {}

type Reply<R> = Result<R, ProviderError>;

#[async_trait]
impl SandboxProvider for PortProvider {
    async fn describe(&self) -> Reply<DescribeReply> {
        self.ask(Method::Describe, None, Nothing {}, None).await
    }

    async fn provision(&self, call: &Call, request: ProvisionRequest) -> Reply<ProvisionReply> {
        self.ask(Method::Provision, Some(call), request, None).await
    }

    async fn sync_repo(&self, call: &Call, request: SyncRepoRequest) -> Reply<SyncRepoReply> {
        self.ask(Method::SyncRepo, Some(call), request, None).await
    }

    async fn install(&self, call: &Call, request: InstallRequest) -> Reply<InstallReply> {
        self.ask(Method::Install, Some(call), request, None).await
    }

    async fn start_agent(&self, call: &Call, request: StartAgentRequest) -> Reply<StartAgentReply> {
        self.ask(Method::StartAgent, Some(call), request, None)
            .await
    }

    async fn open_agent(&self, call: &Call, request: OpenAgentRequest) -> Reply<OpenAgentReply> {
        self.ask(Method::OpenAgent, Some(call), request, None).await
    }

    async fn inspect(&self, call: &Call, request: InspectRequest) -> Reply<InspectReply> {
        self.ask(Method::Inspect, Some(call), request, None).await
    }

    async fn list(&self, call: &Call, request: ListRequest) -> Reply<ListReply> {
        self.ask(Method::List, Some(call), request, None).await
    }

    async fn exec(
        &self,
        call: &Call,
        request: ExecRequest,
        input: mpsc::Receiver<ExecInput>,
    ) -> Reply<ExecReply> {
        self.ask(Method::Exec, Some(call), request, Some(input))
            .await
    }

    async fn logs(&self, call: &Call, request: LogsRequest) -> Reply<LogsReply> {
        self.ask(Method::Logs, Some(call), request, None).await
    }

    async fn stop(&self, call: &Call, request: StopRequest) -> Reply<StopReply> {
        self.ask(Method::Stop, Some(call), request, None).await
    }

    async fn capture(&self, call: &Call, request: CaptureRequest) -> Reply<StagedSnapshot> {
        self.ask(Method::Capture, Some(call), request, None).await
    }

    async fn persist(&self, call: &Call, request: PersistRequest) -> Reply<PersistReply> {
        self.ask(Method::Persist, Some(call), request, None).await
    }

    async fn read_object(&self, call: &Call, request: ReadObjectRequest) -> Reply<ReadObjectReply> {
        self.ask(Method::ReadObject, Some(call), request, None)
            .await
    }

    async fn restore(&self, call: &Call, request: RestoreRequest) -> Reply<RestoreReply> {
        self.ask(Method::Restore, Some(call), request, None).await
    }

    async fn destroy(&self, call: &Call, request: DestroyRequest) -> Reply<DestroyReply> {
        self.ask(Method::Destroy, Some(call), request, None).await
    }
}
