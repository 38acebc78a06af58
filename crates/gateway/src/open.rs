//! `/_alpine/open`: a one-time link becomes a cookie.

use crate::access::Host;
use crate::answer::{Answer, contains, full, notice, own, set};
use crate::control::{ControlReply, ControlRequest};
use crate::route::{Door, now_ms};
use alpine_provider_api::Secret;
use hyper::header::{ALLOW, HeaderMap, HeaderValue, SET_COOKIE};
use hyper::http::request::Parts;
use hyper::{Method, StatusCode};

/// The page behind a good link.
///
/// It is a page and not a redirect: a redirect that another site began would arrive without a cookie that is
/// `SameSite=Strict`, while this page's own refresh does not.
const WELCOME: &str = "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\">\
    <meta name=\"color-scheme\" content=\"light dark\"><meta http-equiv=\"refresh\" content=\"0;url=/\">\
    <title>alpine</title><p><a href=\"/\">Go on to the session</a></p></html>\n";

/// Answers a request for a one-time link. Only a person's own `GET` uses the link up.
pub(crate) async fn answer(door: &Door, head: &Parts, host: Host) -> Answer {
    let said = |status, said: &str| notice(&head.headers, status, said, &door.open_command());
    if head.method != Method::GET {
        let mut refused = said(
            StatusCode::METHOD_NOT_ALLOWED,
            "this link is opened by GET only",
        );
        set(&mut refused, ALLOW, "GET");
        return refused;
    }
    if is_prefetch(&head.headers) {
        let early = "this link works once, so it is not fetched ahead of time";
        return said(StatusCode::SERVICE_UNAVAILABLE, early);
    }
    if host == Host::Shared {
        let elsewhere = format!("this link belongs to http://{}", door.access.own());
        return said(StatusCode::MISDIRECTED_REQUEST, &elsewhere);
    }
    let request = ControlRequest::Redeem {
        token: token(head.uri.query().unwrap_or_default()),
    };
    match door.control.ask(request).await {
        Ok(ControlReply::Redeemed) => welcome(door).unwrap_or_else(|| {
            said(
                StatusCode::INTERNAL_SERVER_ERROR,
                "no cookie could be made for this session",
            )
        }),
        Ok(ControlReply::Used) => said(StatusCode::GONE, "this link was used already"),
        Ok(ControlReply::Expired) => said(StatusCode::GONE, "this link has expired"),
        Ok(ControlReply::Unknown) => said(StatusCode::FORBIDDEN, "there is no such link"),
        Ok(ControlReply::State { .. }) | Err(_) => said(
            StatusCode::SERVICE_UNAVAILABLE,
            "the session's supervisor does not answer",
        ),
    }
}

fn welcome(door: &Door) -> Option<Answer> {
    let cookie = door.access.cookies.mint(now_ms()).ok()?;
    let cookie = HeaderValue::from_str(cookie.expose()).ok()?;
    let mut answer = own(StatusCode::OK, "text/html; charset=utf-8", full(WELCOME));
    answer.headers_mut().insert(SET_COOKIE, cookie);
    Some(answer)
}

fn is_prefetch(headers: &HeaderMap) -> bool {
    ["purpose", "sec-purpose", "x-purpose", "x-moz"]
        .iter()
        .filter_map(|name| headers.get(*name))
        .any(|purpose| {
            contains(purpose.as_bytes(), b"prefetch") || contains(purpose.as_bytes(), b"preview")
        })
}

fn token(query: &str) -> Secret<String> {
    let token = query
        .split('&')
        .find_map(|pair| pair.strip_prefix("token="))
        .unwrap_or_default();
    Secret::new(token.to_owned())
}
