//! The built-in page and what it asks for: the session's state and its logs.

use crate::answer::{Answer, escape, full, notice, own};
use crate::control::{AgentState, ControlReply, ControlRequest};
use crate::follow::events;
use crate::links::random_hex;
use crate::route::Door;
use alpine_provider_api::PageFacts;
use hyper::header::{ALLOW, CONTENT_SECURITY_POLICY, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, StatusCode};
use serde::Serialize;
use std::fmt::Write as _;

const PAGE: &str = include_str!("page/page.html");
const STYLE: &str = include_str!("page/page.css");
const SCRIPT: &str = include_str!("page/page.js");

/// What `/_alpine/state` tells.
#[derive(Debug, Serialize)]
struct State<'a> {
    schema_version: &'static str,
    session_id: &'a str,
    agent: &'static str,
    exit_status: Option<i32>,
}

/// Answers a request for the gateway's own paths, and for `/` where there is no agent behind it.
pub(crate) async fn answer(door: &Door, head: &Parts) -> Answer {
    if ![Method::GET, Method::HEAD].contains(&head.method) {
        let said = "the session's page is only read";
        let mut refused = said_of(door, head, StatusCode::METHOD_NOT_ALLOWED, said);
        crate::answer::set(&mut refused, ALLOW, "GET, HEAD");
        return refused;
    }
    match head.uri.path() {
        "/_alpine/state" => state(door).await,
        "/_alpine/logs" => logs(door, head),
        "/" | "/_alpine" | "/_alpine/" => page(door, head),
        _ => said_of(door, head, StatusCode::NOT_FOUND, "there is no such page"),
    }
}

fn said_of(door: &Door, head: &Parts, status: StatusCode, said: &str) -> Answer {
    notice(&head.headers, status, said, &door.open_command())
}

async fn state(door: &Door) -> Answer {
    let (agent, exit_status) = match door.control.ask(ControlRequest::State).await {
        Ok(ControlReply::State { agent, exit_status }) => match agent {
            AgentState::Running => ("running", exit_status),
            AgentState::Exited => ("exited", exit_status),
        },
        Ok(
            ControlReply::Redeemed
            | ControlReply::Used
            | ControlReply::Expired
            | ControlReply::Unknown,
        )
        | Err(_) => ("unknown", None),
    };
    let state = State {
        schema_version: "v1",
        session_id: &door.config.session_id,
        agent,
        exit_status,
    };
    let json = serde_json::to_vec(&state).unwrap_or_default();
    own(StatusCode::OK, "application/json", full(json))
}

fn logs(door: &Door, head: &Parts) -> Answer {
    let path = match head.uri.query() {
        Some("which=install") => &door.config.install_log,
        Some("which=agent") => &door.config.agent_log,
        Some(_) | None => {
            let said = "`which` is `install` or `agent`";
            return said_of(door, head, StatusCode::BAD_REQUEST, said);
        }
    };
    if head.method == Method::HEAD {
        return own(StatusCode::OK, "text/event-stream", full(""));
    }
    own(StatusCode::OK, "text/event-stream", events(path.clone()))
}

fn page(door: &Door, head: &Parts) -> Answer {
    let Some(facts) = &door.config.page else {
        return said_of(
            door,
            head,
            StatusCode::NOT_FOUND,
            "this session has no page",
        );
    };
    let nonce = random_hex::<16>();
    let policy = nonce.as_ref().ok().and_then(|nonce| {
        let nonce = nonce.expose();
        HeaderValue::from_str(&format!(
            "default-src 'none'; style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}'; \
             connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        ))
        .ok()
    });
    let (Ok(nonce), Some(policy)) = (nonce, policy) else {
        let said = "the page can't be made now";
        return said_of(door, head, StatusCode::INTERNAL_SERVER_ERROR, said);
    };
    let text = filled(facts, nonce.expose());
    let mut answer = own(StatusCode::OK, "text/html; charset=utf-8", full(text));
    answer.headers_mut().insert(CONTENT_SECURITY_POLICY, policy);
    answer
}

/// The page with its facts in place. One pass over the template, so that a fact which looks like a place stays a fact.
fn filled(facts: &PageFacts, nonce: &str) -> String {
    let mut page = String::with_capacity(PAGE.len() + STYLE.len() + SCRIPT.len() + 1024);
    for (number, part) in PAGE.split("{{").enumerate() {
        let (name, rest) = match part.split_once("}}") {
            Some(split) if number > 0 => split,
            Some(_) | None => ("", part),
        };
        match name {
            "style" => page.push_str(STYLE),
            "script" => page.push_str(SCRIPT),
            "nonce" => page.push_str(nonce),
            "session" => page.push_str(&escape(&facts.session_id)),
            "repo" => page.push_str(&escape(&facts.repo_url)),
            "branch" => page.push_str(&escape(&facts.branch)),
            "commit" => page.push_str(&escape(&facts.commit)),
            other => {
                // Writing to a string does not fail.
                let _ = write!(page, "{other}");
            }
        }
        page.push_str(rest);
    }
    page
}

#[cfg(test)]
mod tests {
    use super::filled;
    use alpine_provider_api::PageFacts;

    #[test]
    fn facts_are_escaped_and_never_become_places() {
        let facts = PageFacts {
            session_id: "ses_1".to_owned(),
            repo_url: "https://example.com/\"onload='x'&a".to_owned(),
            branch: "{{script}}<script>alert(1)</script>".to_owned(),
            commit: "</title>{{nonce}}".to_owned(),
        };
        let page = filled(&facts, "n0nce");
        assert!(page.contains("&#34;onload=&#39;x&#39;&#38;a"));
        assert!(page.contains("{{script}}&#60;script&#62;alert(1)&#60;/script&#62;"));
        assert!(page.contains("&#60;/title&#62;{{nonce}}"));
        assert_eq!(page.matches("<script").count(), 1);
        assert_eq!(page.matches("nonce=\"n0nce\"").count(), 2);
        assert!(!page.contains("http://") && !page.contains("src="));
    }
}
