//! What the provider asks an agent's server: whether it is ready, its transcripts, its end.
//!
//! Every request has a connection of its own and a limit of its own: a server that has only begun to listen takes a
//! connection and may never answer it, while the next one is answered at once.

mod error;
mod transcript;

pub use error::ClientError;
pub use transcript::Exported;

use crate::config::Listener;
use crate::owner::Owner;
use crate::{basic, upstream};
use alpine_provider_api::{Probe, Secret};
use http_body_util::{BodyExt, Limited};
use hyper::header::{AUTHORIZATION, HOST};
use hyper::{Method, Request};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::time::{sleep, timeout};

/// How large an answer may be.
const BODY_LIMIT: usize = 64 * 1024 * 1024;

/// How long to wait between two tries, and between two looks at whether the process lives.
const PAUSE: Duration = Duration::from_millis(50);

/// An agent's server on this machine, and who is asking.
#[derive(Clone, Debug)]
pub struct AgentClient {
    port: u16,
    auth: Option<(String, Secret<String>)>,
    owner: Option<Arc<Owner>>,
}

/// What a server answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The body.
    pub body: Vec<u8>,
}

impl AgentClient {
    /// A client for `127.0.0.1:port` that bears a user name and a password by HTTP Basic.
    #[must_use]
    pub fn new(port: u16, auth: Option<(String, Secret<String>)>) -> Self {
        Self {
            port,
            auth,
            owner: None,
        }
    }

    /// Sends nothing unless the listener is whose it has to be.
    #[must_use]
    pub fn only_to(self, whose: Listener) -> Self {
        let owner = Some(Arc::new(Owner::new(self.port, whose)));
        Self { owner, ..self }
    }

    /// Gets a path.
    ///
    /// # Errors
    /// No connection, no answer within the limit, or one that is too large.
    pub async fn get(&self, path: &str, limit: Duration) -> Result<Answer, ClientError> {
        self.ask(Method::GET, path, limit).await
    }

    /// Posts nothing to a path.
    ///
    /// # Errors
    /// Those of [`AgentClient::get`].
    pub async fn post(&self, path: &str, limit: Duration) -> Result<Answer, ClientError> {
        self.ask(Method::POST, path, limit).await
    }

    /// Waits until the server is ready as its probe says; then makes it do its slow first work, where the probe names a
    /// path for that. Any answer to that is fine.
    ///
    /// # Errors
    /// [`ClientError::Exited`] as soon as `alive` says that the process is gone, [`ClientError::NotReady`] at the
    /// deadline.
    pub async fn ready(
        &self,
        probe: &Probe,
        deadline: Instant,
        mut alive: impl FnMut() -> bool,
    ) -> Result<(), ClientError> {
        let try_limit = Duration::from_millis(probe.try_ms.max(1));
        let mut last = None;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let source = last.map(Box::new);
                let path = probe.path.clone();
                return Err(ClientError::NotReady { path, source });
            }
            let tried = self.get(&probe.path, try_limit.min(left));
            match while_alive(tried, &mut alive).await? {
                Ok(answer) if is_ready(probe, &answer) => break,
                Ok(answer) => {
                    last = Some(ClientError::Status {
                        path: probe.path.clone(),
                        status: answer.status,
                    });
                }
                Err(error) => last = Some(error),
            }
            sleep(PAUSE.min(left)).await;
        }
        if let Some(path) = &probe.warm_path {
            let left = deadline.saturating_duration_since(Instant::now());
            while_alive(self.get(path, left), &mut alive).await??;
        }
        Ok(())
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        limit: Duration,
    ) -> Result<Answer, ClientError> {
        timeout(limit, self.ask_now(method, path))
            .await
            .unwrap_or_else(|_| {
                Err(ClientError::Timeout {
                    path: path.to_owned(),
                    limit,
                })
            })
    }

    async fn ask_now(&self, method: Method, path: &str) -> Result<Answer, ClientError> {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, format!("127.0.0.1:{}", self.port));
        if let Some((username, password)) = &self.auth
            && let Some(value) = basic::authorization(username, password)
        {
            request = request.header(AUTHORIZATION, value);
        }
        let request = request
            .body(upstream::nothing())
            .ok()
            .filter(|_| path.starts_with('/'))
            .ok_or_else(|| ClientError::Path(path.to_owned()))?;
        let (mut sender, wire) = upstream::connect(self.port, self.owner.as_ref())
            .await
            .map_err(|source| ClientError::Connect {
                port: self.port,
                source,
            })?;
        let failed = |source| ClientError::Exchange {
            path: path.to_owned(),
            source,
        };
        let answer = sender
            .send_request(request)
            .await
            .map_err(|error| failed(error.into()))?;
        let status = answer.status().as_u16();
        let body = Limited::new(answer.into_body(), BODY_LIMIT)
            .collect()
            .await
            .map_err(failed)?
            .to_bytes()
            .to_vec();
        drop(wire);
        Ok(Answer { status, body })
    }
}

impl Answer {
    /// Whether the status is one of success.
    #[must_use]
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }
}

fn is_ready(probe: &Probe, answer: &Answer) -> bool {
    let wanted = probe.body.as_deref().unwrap_or_default().as_bytes();
    (200..400).contains(&answer.status)
        && (wanted.is_empty()
            || answer
                .body
                .windows(wanted.len())
                .any(|window| window == wanted))
}

/// Waits for an answer for as long as the process lives.
async fn while_alive<T>(
    asked: impl Future<Output = T>,
    alive: &mut impl FnMut() -> bool,
) -> Result<T, ClientError> {
    tokio::pin!(asked);
    loop {
        if !alive() {
            return Err(ClientError::Exited);
        }
        tokio::select! {
            answer = &mut asked => return Ok(answer),
            () = sleep(PAUSE) => {}
        }
    }
}
