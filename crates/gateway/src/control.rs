//! The line between the gateway and its supervisor: JSON, one document a line, answered in order.

use alpine_provider_api::{Secret, wire};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::io;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

/// How long the supervisor may take to answer: it does nothing but look things up.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);

/// What a gateway asks its supervisor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "ask")]
pub enum ControlRequest {
    /// To use a one-time link up.
    Redeem {
        /// Its token.
        #[serde(with = "wire")]
        token: Secret<String>,
    },
    /// How the agent is.
    State,
}

/// What the supervisor answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "answer")]
pub enum ControlReply {
    /// The link was good and is used up now.
    Redeemed,
    /// The link was used before.
    Used,
    /// The link's time is over.
    Expired,
    /// There is no such link.
    Unknown,
    /// How the agent is.
    State {
        /// Whether it runs.
        agent: AgentState,
        /// How it ended, if it has: its exit status, or 128 and the signal.
        exit_status: Option<i32>,
    },
}

/// Whether the agent runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AgentState {
    /// It runs, or the built-in page is all there is to run.
    Running,
    /// It has ended.
    Exited,
}

/// The gateway's end of the line.
#[derive(Clone, Debug)]
pub(crate) struct Control {
    asks: mpsc::Sender<Ask>,
}

#[derive(Debug)]
pub(crate) struct Ask {
    request: ControlRequest,
    reply: oneshot::Sender<ControlReply>,
}

impl Control {
    pub(crate) fn new() -> (Self, mpsc::Receiver<Ask>) {
        let (asks, receiver) = mpsc::channel(16);
        (Self { asks }, receiver)
    }

    pub(crate) async fn ask(&self, request: ControlRequest) -> io::Result<ControlReply> {
        let (reply, answered) = oneshot::channel();
        let asked = async {
            let gone = |_| io::Error::from(io::ErrorKind::BrokenPipe);
            let ask = Ask { request, reply };
            self.asks
                .send(ask)
                .await
                .map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
            answered.await.map_err(gone)
        };
        timeout(ANSWER_LIMIT, asked)
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }
}

/// Carries questions and answers until the supervisor is gone.
///
/// Answers come in the order of the questions, so one that comes too late is dropped and the next still fits.
pub(crate) async fn converse(stream: UnixStream, mut asks: mpsc::Receiver<Ask>) {
    let (read, mut write) = stream.into_split();
    let mut lines = BufReader::new(read).lines();
    let mut waiting = VecDeque::new();
    loop {
        tokio::select! {
            line = lines.next_line() => {
                let Ok(Some(line)) = line else { return };
                let reply: Option<oneshot::Sender<ControlReply>> = waiting.pop_front();
                if let (Some(reply), Ok(answer)) = (reply, serde_json::from_str(&line)) {
                    // Who asked may have given up.
                    let _ = reply.send(answer);
                }
            }
            Some(ask) = asks.recv() => {
                let Ok(mut line) = serde_json::to_vec(&ask.request) else { continue };
                line.push(b'\n');
                let sent = timeout(ANSWER_LIMIT, write.write_all(&line)).await;
                if !matches!(sent, Ok(Ok(()))) {
                    return;
                }
                waiting.push_back(ask.reply);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{AgentState, ControlReply, ControlRequest};
    use alpine_provider_api::Secret;
    use expect_test::expect;

    #[test]
    fn the_line_is_plain_json() {
        let token = Secret::new("t0".to_owned());
        let lines = [
            serde_json::to_string(&ControlRequest::Redeem { token }).unwrap(),
            serde_json::to_string(&ControlRequest::State).unwrap(),
            serde_json::to_string(&ControlReply::Redeemed).unwrap(),
            serde_json::to_string(&ControlReply::State {
                agent: AgentState::Exited,
                exit_status: Some(137),
            })
            .unwrap(),
        ]
        .join("\n");
        expect![[r#"
            {"ask":"redeem","token":"t0"}
            {"ask":"state"}
            {"answer":"redeemed"}
            {"answer":"state","agent":"exited","exit_status":137}"#]]
        .assert_eq(&lines);
    }
}
