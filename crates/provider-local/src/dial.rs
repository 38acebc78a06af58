//! A caller's connection to a supervisor.

use crate::layout::Sandbox;
use crate::protocol::{self, Reply, Request};
use crate::record;
use alpine_provider_api::{ErrorKind, ProviderError};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::time::Duration;
use tokio::io::{AsyncWriteExt, Interest};
use tokio::net::UnixStream;

/// How long a supervisor may take to answer what needs no waiting.
pub(crate) const PROMPT: Duration = Duration::from_secs(2);

/// A connection. When it is dropped, the supervisor ends what it was asked for over it.
#[derive(Debug)]
pub(crate) struct Dial {
    stream: UnixStream,
    held: Vec<u8>,
    pipes: Vec<OwnedFd>,
}

impl Dial {
    /// Connects, and asks.
    pub(crate) async fn ask(sandbox: &Sandbox, request: &Request) -> Result<Self, ProviderError> {
        let lost = |source: io::Error| unreachable(sandbox, &source.to_string());
        let socket = record::socket(sandbox);
        let stream = UnixStream::connect(&socket).await.map_err(lost)?;
        let peer = rustix::net::sockopt::socket_peercred(&stream)
            .map_err(|source| unreachable(sandbox, &io::Error::from(source).to_string()))?;
        if peer.uid != rustix::process::geteuid() {
            return Err(unreachable(
                sandbox,
                "another user's process answers at its socket",
            ));
        }
        let mut dial = Self {
            stream,
            held: Vec::new(),
            pipes: Vec::new(),
        };
        dial.say(request).await.map_err(lost)?;
        Ok(dial)
    }

    /// Asks, and waits a little for the one answer.
    pub(crate) async fn prompt(
        sandbox: &Sandbox,
        request: &Request,
    ) -> Result<Reply, ProviderError> {
        let answer = async { Self::ask(sandbox, request).await?.next(sandbox).await };
        match tokio::time::timeout(PROMPT, answer).await {
            Ok(answer) => answer,
            Err(_) => Err(unreachable(sandbox, "it does not answer")),
        }
    }

    /// Says something more on the same connection.
    pub(crate) async fn say(&mut self, request: &Request) -> io::Result<()> {
        self.stream.write_all(&protocol::encode(request)).await
    }

    /// The next answer; a refusal is an error. May be dropped and called again.
    pub(crate) async fn next(&mut self, sandbox: &Sandbox) -> Result<Reply, ProviderError> {
        loop {
            if let Some(end) = self.held.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = self.held.drain(..=end).collect();
                return match protocol::decode(&line) {
                    Ok(Reply::Refused(error)) => Err(error),
                    Ok(reply) => Ok(reply),
                    Err(why) => Err(unreachable(sandbox, &why)),
                };
            }
            let received = self
                .stream
                .async_io(Interest::READABLE, || {
                    receive(&self.stream, &mut self.held, &mut self.pipes)
                })
                .await;
            match received {
                Ok(0) => return Err(unreachable(sandbox, "it ended before it answered")),
                Ok(_) if self.held.len() > protocol::LONGEST => {
                    return Err(unreachable(sandbox, "its answer is too long"));
                }
                Ok(_) => {}
                Err(source) => return Err(unreachable(sandbox, &source.to_string())),
            }
        }
    }

    /// The pipes that came with an answer.
    pub(crate) fn take_pipes(&mut self) -> Vec<OwnedFd> {
        std::mem::take(&mut self.pipes)
    }
}

fn receive(stream: &UnixStream, held: &mut Vec<u8>, pipes: &mut Vec<OwnedFd>) -> io::Result<usize> {
    let mut text = [0; 16 * 1024];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut parts = [IoSliceMut::new(&mut text)];
    let got = recvmsg(
        stream,
        &mut parts,
        &mut control,
        RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT,
    )?;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            pipes.extend(rights);
        }
    }
    held.extend_from_slice(&text[..got.bytes]);
    Ok(got.bytes)
}

/// A supervisor that can't be asked.
pub(crate) fn unreachable(sandbox: &Sandbox, why: &str) -> ProviderError {
    ProviderError::transient(
        ErrorKind::Io,
        format!("the supervisor of sandbox `{}`: {why}", sandbox.id),
    )
}

/// An answer that does not fit the question.
pub(crate) fn unexpected(sandbox: &Sandbox) -> ProviderError {
    unreachable(sandbox, "its answer does not fit the question")
}
