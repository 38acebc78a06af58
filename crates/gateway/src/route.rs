//! Which answer a request gets.

use crate::access::{Access, Host};
use crate::answer::{Answer, notice, set};
use crate::config::GatewayConfig;
use crate::control::Control;
use crate::owner::Owner;
use crate::seats::Seat;
use crate::{open, page, proxy};
use hyper::body::Incoming;
use hyper::header::{SET_COOKIE, WWW_AUTHENTICATE};
use hyper::http::request::Parts;
use hyper::{Method, Request, StatusCode};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// What all requests share.
#[derive(Debug)]
pub(crate) struct Door {
    pub(crate) config: GatewayConfig,
    pub(crate) access: Access,
    pub(crate) control: Control,
    /// Who has to be behind the agent's port.
    pub(crate) owner: Option<Arc<Owner>>,
}

impl Door {
    /// The command that brings a new link.
    pub(crate) fn open_command(&self) -> String {
        format!("alpine open {}", self.config.session_id)
    }

    /// The command that shows the agent's log.
    pub(crate) fn logs_command(&self) -> String {
        format!("alpine logs {}", self.config.session_id)
    }

    /// Answers a request. The checks come in the order of what they protect: the host before anything is said, the
    /// origin before a credential counts, the credential before the session is touched.
    pub(crate) async fn answer(&self, request: Request<Incoming>, seat: &Seat) -> Answer {
        let (head, body) = request.into_parts();
        let host = match self.admit(&head) {
            Ok(host) => host,
            Err(refused) => return *refused,
        };
        let path = head.uri.path();
        if path == "/_alpine/open" {
            let answer = open::answer(self, &head, host).await;
            if answer.headers().contains_key(SET_COOKIE) {
                seat.is_known();
            }
            return answer;
        }
        if !self.access.is_known(&head.headers, host, now_ms()) {
            return self.unknown_caller(&head);
        }
        seat.is_known();
        let ours = path == "/_alpine" || path.starts_with("/_alpine/");
        match &self.config.upstream {
            Some(upstream) if !ours => {
                proxy::pass(self, upstream, Request::from_parts(head, body), seat).await
            }
            Some(_) | None => page::answer(self, &head).await,
        }
    }

    fn admit(&self, head: &Parts) -> Result<Host, Box<Answer>> {
        let refuse = |status, said: &str| {
            Box::new(notice(&head.headers, status, said, &self.open_command()))
        };
        // `TRACE` would show the caller the agent's credential, `CONNECT` would make this a proxy to anywhere.
        if [Method::TRACE, Method::CONNECT].contains(&head.method) {
            let said = "this method is not taken here";
            return Err(refuse(StatusCode::METHOD_NOT_ALLOWED, said));
        }
        let Some(host) = self.access.host(&head.headers, &head.uri) else {
            let said = "this host name is not the session's";
            return Err(refuse(StatusCode::MISDIRECTED_REQUEST, said));
        };
        if self.access.is_foreign_act(head) {
            let said = "another site may not act on this session";
            return Err(refuse(StatusCode::FORBIDDEN, said));
        }
        Ok(host)
    }

    fn unknown_caller(&self, head: &Parts) -> Answer {
        let said = "this session is not open to you yet";
        let mut answer = notice(
            &head.headers,
            StatusCode::UNAUTHORIZED,
            said,
            &self.open_command(),
        );
        set(&mut answer, WWW_AUTHENTICATE, "Basic realm=\"alpine\"");
        answer
    }
}

/// The time that cookies are measured by.
#[expect(
    clippy::disallowed_methods,
    reason = "this process has no other clock, and a cookie has to outlive it"
)]
pub(crate) fn now_ms() -> u64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or(Duration::ZERO)
        .as_millis()
        .try_into()
        .unwrap_or(u64::MAX)
}
