//! Why an agent did not answer.

use alpine_provider_api::{ErrorKind, ExecReply, ProviderError, Server};
use std::error::Error;
use std::io;
use std::time::Duration;

/// Why an agent's server did not give what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The path can't be asked for.
    #[error("`{0}` is not a path")]
    Path(String),
    /// Nothing listens, or something that is not the session's.
    #[error("can't connect to the agent on port {port}")]
    Connect {
        /// The port on 127.0.0.1.
        port: u16,
        /// What the system said.
        source: io::Error,
    },
    /// The connection broke, what came was not HTTP, or it was more than 64 MiB.
    #[error("asking the agent for `{path}` failed")]
    Exchange {
        /// What was asked for.
        path: String,
        /// What went wrong.
        source: Box<dyn Error + Send + Sync>,
    },
    /// No whole answer came in time.
    #[error("the agent did not answer `{path}` within {} ms", limit.as_millis())]
    Timeout {
        /// What was asked for.
        path: String,
        /// The limit.
        limit: Duration,
    },
    /// The answer was not the one that was hoped for.
    #[error("the agent answered `{path}` with status {status}, or without the expected text")]
    Status {
        /// What was asked for.
        path: String,
        /// The HTTP status.
        status: u16,
    },
    /// The answer was not the JSON that was asked for.
    #[error("the agent's answer to `{path}` is not the JSON that was expected")]
    Json {
        /// What was asked for.
        path: String,
        /// What was wrong with it.
        source: serde_json::Error,
    },
    /// A transcript's id is none that a file could be named by.
    #[error("the agent lists a transcript by the id {0:?}, which can't name a file")]
    TranscriptId(String),
    /// The transcripts together are more than is taken.
    #[error("the agent's transcripts are more than {limit} bytes, `{path}` was left out")]
    TooMuch {
        /// What was not asked for any more.
        path: String,
        /// How much is taken.
        limit: usize,
    },
    /// The server's process has ended.
    #[error("its program ended before it was ready")]
    Exited,
    /// The deadline came first.
    #[error("the agent was not ready in time: `{path}` had no good answer")]
    NotReady {
        /// What was asked for.
        path: String,
        /// How the last try failed.
        source: Option<Box<ClientError>>,
    },
}

impl ClientError {
    /// The provider's failure to start this agent, with every cause, how its program ended where that is known, and the
    /// last lines of its log.
    #[must_use]
    pub fn not_ready(
        &self,
        agent: &str,
        server: &Server,
        ended: Option<&ExecReply>,
        log_tail: Vec<String>,
    ) -> ProviderError {
        let program = server.argv.first().map_or("", String::as_str);
        let mut message = format!("the agent `{agent}` (`{program}`) did not become ready: {self}");
        match ended {
            Some(ExecReply::Exited(status)) => message.push_str(&format!(", with status {status}")),
            Some(ExecReply::Signalled(signal)) => {
                message.push_str(&format!(", by signal {signal}"))
            }
            None => {}
        }
        let mut cause = self.source();
        while let Some(next) = cause {
            message.push_str(&format!(": {next}"));
            cause = next.source();
        }
        ProviderError::new(ErrorKind::AgentNotReady, message).log_tail(log_tail)
    }
}
