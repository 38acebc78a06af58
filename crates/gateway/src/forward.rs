//! What a request and its answer look like on the other side of the gateway.

use crate::access::Access;
use crate::cookie;
use hyper::header::{
    AUTHORIZATION, CONNECTION, EXPECT, HOST, HeaderMap, HeaderName, HeaderValue, LOCATION, ORIGIN,
    REFERER, SET_COOKIE, TE, TRAILER, TRANSFER_ENCODING, UPGRADE, WWW_AUTHENTICATE,
};
use hyper::{Uri, Version};

/// Headers that belong to one connection only.
const HOP_BY_HOP: [HeaderName; 8] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-authorization"),
    HeaderName::from_static("proxy-connection"),
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// Headers in which a caller could claim to have come another way.
const CLAIMS: [HeaderName; 5] = [
    HeaderName::from_static("forwarded"),
    HeaderName::from_static("x-forwarded-for"),
    HeaderName::from_static("x-forwarded-host"),
    HeaderName::from_static("x-forwarded-proto"),
    HeaderName::from_static("x-real-ip"),
];

/// The protocol that a message asks or agrees to change to.
pub(crate) fn upgrade_of(headers: &HeaderMap, version: Version) -> Option<HeaderValue> {
    let named = headers.get_all(CONNECTION).iter().any(|value| {
        value
            .as_bytes()
            .split(|byte| *byte == b',')
            .any(|token| token.trim_ascii().eq_ignore_ascii_case(b"upgrade"))
    });
    let upgrade = headers.get(UPGRADE)?;
    (named && version == Version::HTTP_11).then(|| upgrade.clone())
}

/// Makes a request's headers fit for the agent: nothing of the gateway's goes on, the agent's own credential does.
pub(crate) fn to_agent(
    headers: &mut HeaderMap,
    version: Version,
    access: &Access,
    port: u16,
    credential: Option<&HeaderValue>,
) {
    let upgrade = upgrade_of(headers, version);
    strip_hops(headers, upgrade);
    for name in CLAIMS.iter().chain([&AUTHORIZATION, &EXPECT]) {
        headers.remove(name);
    }
    cookie::strip(headers);
    let agent = format!("http://127.0.0.1:{port}");
    if headers
        .get(ORIGIN)
        .is_some_and(|origin| access.is_own_origin(origin))
    {
        replace(headers, ORIGIN, &agent);
    }
    if let Some(path) = headers
        .get(REFERER)
        .and_then(|referer| own_path(referer, access))
    {
        replace(headers, REFERER, &format!("{agent}{path}"));
    }
    replace(headers, HOST, &agent["http://".len()..]);
    if let Some(credential) = credential {
        headers.insert(AUTHORIZATION, credential.clone());
    }
}

/// Makes an answer's headers fit for the caller.
pub(crate) fn to_caller(headers: &mut HeaderMap, upgraded: bool, port: u16, has_credential: bool) {
    let upgrade = headers.get(UPGRADE).filter(|_| upgraded).cloned();
    strip_hops(headers, upgrade);
    if has_credential {
        // It would make the browser ask for a password that nobody but the gateway is to give.
        headers.remove(WWW_AUTHENTICATE);
    }
    let agents = [
        format!("http://127.0.0.1:{port}"),
        format!("http://localhost:{port}"),
    ];
    let path = headers.get(LOCATION).and_then(|location| {
        let location = location.to_str().ok()?;
        let path = agents
            .iter()
            .find_map(|agent| location.strip_prefix(agent.as_str()))?;
        match path.chars().next() {
            None => Some("/".to_owned()),
            Some('/') => Some(path.to_owned()),
            Some(_) => None,
        }
    });
    // `//…` would be another host.
    if let Some(path) = path.filter(|path| !path.starts_with("//")) {
        replace(headers, LOCATION, &path);
    }
    let kept: Vec<HeaderValue> = headers
        .get_all(SET_COOKIE)
        .iter()
        .filter(|value| !value.as_bytes().trim_ascii().starts_with(cookie::PREFIX))
        .cloned()
        .collect();
    headers.remove(SET_COOKIE);
    for value in kept {
        headers.append(SET_COOKIE, value);
    }
}

fn strip_hops(headers: &mut HeaderMap, upgrade: Option<HeaderValue>) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .filter_map(|token| HeaderName::from_bytes(token.trim_ascii()).ok())
        .collect();
    for name in named.iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
    if let Some(protocol) = upgrade {
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, protocol);
    }
}

fn own_path(referer: &HeaderValue, access: &Access) -> Option<String> {
    let uri: Uri = referer.to_str().ok()?.parse().ok()?;
    let origin = format!("http://{}", uri.authority()?);
    let own = uri.scheme_str() == Some("http")
        && access.is_own_origin(&HeaderValue::from_str(&origin).ok()?);
    own.then(|| uri.path_and_query().map(ToString::to_string))?
}

fn replace(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}
