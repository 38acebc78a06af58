//! A connection to the agent, made once per request and only to the session's own listener.

use crate::owner::Owner;
use http_body_util::BodyExt;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use std::io;
use std::net::Ipv4Addr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// How long a connection may take; on one machine it takes no time.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// How large the head of an answer may be.
const HEAD_LIMIT: usize = 256 * 1024;

/// What goes to an agent.
pub(crate) type Sent = UnsyncBoxBody<Bytes, hyper::Error>;

/// The task that moves a connection's bytes; it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Wire(JoinHandle<()>);

impl Drop for Wire {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Connects to `127.0.0.1:port`; with an owner, only if the listener is a process of its family.
///
/// The check follows the connection, so whoever took the connection is who is looked at: a stranger that took it would
/// have to give the port back to the session's own process in between.
pub(crate) async fn connect(
    port: u16,
    owner: Option<&Arc<Owner>>,
) -> io::Result<(SendRequest<Sent>, Wire)> {
    let stream = timeout(
        CONNECT_LIMIT,
        TcpStream::connect((Ipv4Addr::LOCALHOST, port)),
    )
    .await
    .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?;
    stream.set_nodelay(true)?;
    if let Some(owner) = owner
        && !is_owned(owner).await?
    {
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            "the listener is not a process of this session",
        ));
    }
    let (sender, connection) = http1::Builder::new()
        .max_header_size(HEAD_LIMIT)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(io::Error::other)?;
    let wire = Wire(tokio::spawn(async move {
        // The error is the request's too, and told there.
        let _ = connection.with_upgrades().await;
    }));
    Ok((sender, wire))
}

/// Looking through `/proc` may take milliseconds in which streams of other callers go on.
async fn is_owned(owner: &Arc<Owner>) -> io::Result<bool> {
    let owner = Arc::clone(owner);
    tokio::task::spawn_blocking(move || owner.listens())
        .await
        .map_err(io::Error::other)?
}

/// An answer's body; the connection lives for as long as it does.
#[derive(Debug)]
pub(crate) struct Streamed {
    body: Incoming,
    _wire: Wire,
}

impl Streamed {
    pub(crate) fn new(body: Incoming, wire: Wire) -> Self {
        Self { body, _wire: wire }
    }
}

impl Body for Streamed {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A request's body as it comes in.
pub(crate) fn passed_on(body: Incoming) -> Sent {
    body.boxed_unsync()
}

/// No body.
pub(crate) fn nothing() -> Sent {
    http_body_util::Empty::new()
        .map_err(|never| match never {})
        .boxed_unsync()
}
