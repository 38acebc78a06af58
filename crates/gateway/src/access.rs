//! Who may come in: the host and the origin of a request, then its credential.

use crate::basic;
use crate::config::GatewayConfig;
use crate::cookie::Cookies;
use hyper::header::{AUTHORIZATION, HOST, HeaderMap, HeaderValue, ORIGIN, UPGRADE};
use hyper::http::request::Parts;
use hyper::{Method, Uri};
use std::io;

/// Which of the session's names a request was sent to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Host {
    /// `<host_label>.localhost`, where its cookie lives.
    Own,
    /// `127.0.0.1` or `localhost`, which it shares with every other port.
    Shared,
}

/// The session's names and credentials.
#[derive(Debug)]
pub(crate) struct Access {
    own: String,
    shared: [String; 2],
    authorization: HeaderValue,
    pub(crate) cookies: Cookies,
}

impl Access {
    pub(crate) fn new(config: &GatewayConfig) -> io::Result<Self> {
        let authorization = basic::authorization(&config.username, &config.password)
            .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        Ok(Self {
            own: format!("{}.localhost:{}", config.host_label, config.port),
            shared: [
                format!("127.0.0.1:{}", config.port),
                format!("localhost:{}", config.port),
            ],
            authorization,
            cookies: Cookies::new(&config.host_label, &config.cookie_key),
        })
    }

    /// The session's own host and port.
    pub(crate) fn own(&self) -> &str {
        &self.own
    }

    /// The host that a request names; none if it is not ours, which is what DNS rebinding looks like.
    pub(crate) fn host(&self, headers: &HeaderMap, uri: &Uri) -> Option<Host> {
        let mut named = headers.get_all(HOST).iter();
        let host = self.known(named.next()?.to_str().ok()?)?;
        let consistent = match uri.authority() {
            Some(authority) => self.known(authority.as_str()) == Some(host),
            None => true,
        };
        (named.next().is_none() && consistent).then_some(host)
    }

    fn known(&self, name: &str) -> Option<Host> {
        if name.eq_ignore_ascii_case(&self.own) {
            Some(Host::Own)
        } else if self.is_shared(name) {
            Some(Host::Shared)
        } else {
            None
        }
    }

    fn is_shared(&self, name: &str) -> bool {
        self.shared
            .iter()
            .any(|shared| name.eq_ignore_ascii_case(shared))
    }

    /// Whether an origin is one of the session's own.
    pub(crate) fn is_own_origin(&self, origin: &HeaderValue) -> bool {
        origin
            .to_str()
            .ok()
            .and_then(|origin| origin.strip_prefix("http://"))
            .is_some_and(|name| self.known(name).is_some())
    }

    /// Whether another site may be behind a request that changes something or opens a tunnel.
    pub(crate) fn is_foreign_act(&self, head: &Parts) -> bool {
        let reads = [Method::GET, Method::HEAD, Method::OPTIONS].contains(&head.method)
            && !head.headers.contains_key(UPGRADE);
        !reads
            && head
                .headers
                .get_all(ORIGIN)
                .iter()
                .any(|origin| !self.is_own_origin(origin))
    }

    /// Whether a request bears the session's password or, on the session's own host, its cookie.
    pub(crate) fn is_known(&self, headers: &HeaderMap, host: Host, now_ms: u64) -> bool {
        let by_password = headers
            .get(AUTHORIZATION)
            .is_some_and(|given| basic::matches(given, &self.authorization));
        by_password || (host == Host::Own && self.cookies.accepts(headers, now_ms))
    }
}

#[cfg(test)]
mod tests;
