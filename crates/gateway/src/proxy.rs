//! Requests that go on to the agent: bodies are streamed both ways, upgrades become tunnels.

use crate::answer::{Answer, notice};
use crate::basic;
use crate::config::Upstream;
use crate::forward::{to_agent, to_caller, upgrade_of};
use crate::route::Door;
use crate::seats::Seat;
use crate::upstream::{self, Streamed, Wire};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::header::HeaderMap;
use hyper::http::uri::PathAndQuery;
use hyper::upgrade::{OnUpgrade, on};
use hyper::{Request, Response, StatusCode, Uri, Version};
use hyper_util::rt::TokioIo;
use std::io;

/// Passes a request on and its answer back.
pub(crate) async fn pass(
    door: &Door,
    upstream: &Upstream,
    mut request: Request<Incoming>,
    seat: &Seat,
) -> Answer {
    let asked = request.headers().clone();
    let tunnel = upgrade_of(&asked, request.version()).map(|_| on(&mut request));
    let (sender, wire) = match upstream::connect(upstream.port, door.owner.as_ref()).await {
        Ok(connected) => connected,
        Err(error) => return unreachable(door, &asked, &error),
    };
    let request = addressed(door, upstream, request);
    match send(sender, request).await {
        Ok(answer) => back(upstream, answer, wire, tunnel, seat),
        Err(error) => unreachable(door, &asked, &io::Error::other(error)),
    }
}

async fn send(
    mut sender: hyper::client::conn::http1::SendRequest<upstream::Sent>,
    request: Request<upstream::Sent>,
) -> hyper::Result<Response<Incoming>> {
    sender.send_request(request).await
}

fn addressed(
    door: &Door,
    upstream: &Upstream,
    request: Request<Incoming>,
) -> Request<upstream::Sent> {
    let (mut head, body) = request.into_parts();
    let credential = upstream
        .auth
        .as_deref()
        .and_then(|name| basic::authorization(name, &door.config.password));
    to_agent(
        &mut head.headers,
        head.version,
        &door.access,
        upstream.port,
        credential.as_ref(),
    );
    head.uri = head.uri.path_and_query().map_or_else(
        || Uri::from(PathAndQuery::from_static("/")),
        |path| path.clone().into(),
    );
    head.version = Version::HTTP_11;
    Request::from_parts(head, upstream::passed_on(body))
}

fn back(
    upstream: &Upstream,
    mut answer: Response<Incoming>,
    wire: Wire,
    caller: Option<OnUpgrade>,
    seat: &Seat,
) -> Answer {
    let upgraded = answer.status() == StatusCode::SWITCHING_PROTOCOLS;
    to_caller(
        answer.headers_mut(),
        upgraded,
        upstream.port,
        upstream.auth.is_some(),
    );
    if upgraded && let Some(caller) = caller {
        tokio::spawn(tunnel(caller, on(&mut answer), wire, seat.clone()));
        return answer.map(|body| body.map_err(Into::into).boxed_unsync());
    }
    answer.map(|body| Streamed::new(body, wire).map_err(Into::into).boxed_unsync())
}

/// Moves bytes both ways until both ends are done; it holds the caller's seat and the agent's connection meanwhile.
async fn tunnel(caller: OnUpgrade, agent: OnUpgrade, wire: Wire, seat: Seat) {
    if let (Ok(caller), Ok(agent)) = tokio::join!(caller, agent) {
        let (mut caller, mut agent) = (TokioIo::new(caller), TokioIo::new(agent));
        // An end that goes away ends the tunnel; there is nobody left to tell.
        let _ = tokio::io::copy_bidirectional(&mut caller, &mut agent).await;
    }
    drop((wire, seat));
}

fn unreachable(door: &Door, asked: &HeaderMap, error: &io::Error) -> Answer {
    tracing::warn!(%error, "the agent can't be reached");
    let said = if error.kind() == io::ErrorKind::PermissionDenied {
        "the agent's port is held by a process that is not this session's"
    } else {
        "the session's agent does not answer"
    };
    notice(asked, StatusCode::BAD_GATEWAY, said, &door.logs_command())
}
