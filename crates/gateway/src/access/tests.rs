use super::{Access, Host};
use crate::GatewayConfig;
use alpine_provider_api::Secret;
use hyper::header::{HOST, HeaderValue, ORIGIN, UPGRADE};
use hyper::{Request, http::request::Parts};

fn access() -> Access {
    Access::new(&GatewayConfig {
        session_id: "ses_ab".to_owned(),
        port: 4711,
        host_label: "ab".to_owned(),
        username: "alpine".to_owned(),
        password: Secret::new("pass".to_owned()),
        cookie_key: Secret::new("key".to_owned()),
        upstream: None,
        page: None,
        agent_log: "agent.log".into(),
        install_log: "install.log".into(),
        idle_ms: 1,
    })
    .unwrap()
}

fn head(method: &str, uri: &str, headers: &[(&str, &str)]) -> Parts {
    let mut request = Request::builder().method(method).uri(uri);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap().into_parts().0
}

#[test]
fn only_the_sessions_own_names_are_hosts() {
    for (host, found) in [
        ("127.0.0.1:4711", Some(Host::Shared)),
        ("LocalHost:4711", Some(Host::Shared)),
        ("ab.localhost:4711", Some(Host::Own)),
        ("cd.localhost:4711", None),
        ("x.ab.localhost:4711", None),
        ("ab.localhost:4712", None),
        ("ab.localhost", None),
        ("127.0.0.1", None),
        ("evil.example:4711", None),
        ("", None),
    ] {
        let head = head("GET", "/", &[("host", host)]);
        assert_eq!(access().host(&head.headers, &head.uri), found, "{host}");
    }
}

#[test]
fn a_request_names_one_host_and_no_other() {
    let none = head("GET", "/", &[]);
    assert_eq!(access().host(&none.headers, &none.uri), None);
    let two = head(
        "GET",
        "/",
        &[("host", "ab.localhost:4711"), ("host", "evil")],
    );
    assert_eq!(access().host(&two.headers, &two.uri), None);
    let other = head("GET", "http://evil:4711/", &[("host", "ab.localhost:4711")]);
    assert_eq!(access().host(&other.headers, &other.uri), None);
    let same = head(
        "GET",
        "http://ab.localhost:4711/",
        &[("host", "ab.localhost:4711")],
    );
    assert_eq!(access().host(&same.headers, &same.uri), Some(Host::Own));
}

#[test]
fn other_sites_may_neither_change_anything_nor_open_a_tunnel() {
    for (method, origin, foreign) in [
        ("POST", "http://ab.localhost:4711", false),
        ("POST", "http://127.0.0.1:4711", false),
        ("POST", "http://127.0.0.1:4712", true),
        ("POST", "https://ab.localhost:4711", true),
        ("DELETE", "null", true),
        ("GET", "http://evil.example", false),
    ] {
        let head = head(method, "/", &[(ORIGIN.as_str(), origin)]);
        assert_eq!(access().is_foreign_act(&head), foreign, "{method} {origin}");
    }
    let upgrade = head(
        "GET",
        "/",
        &[
            (UPGRADE.as_str(), "websocket"),
            (ORIGIN.as_str(), "http://evil.example"),
        ],
    );
    assert!(access().is_foreign_act(&upgrade));
    assert!(!access().is_foreign_act(&head("POST", "/", &[(HOST.as_str(), "x")])));
}

#[test]
fn cookies_count_on_the_sessions_own_host_only() {
    let access = access();
    let minted = access.cookies.mint(0).unwrap();
    let pair = minted.expose().split_once(';').unwrap().0;
    let head = head("GET", "/", &[("cookie", pair)]);
    assert!(access.is_known(&head.headers, Host::Own, 1));
    assert!(!access.is_known(&head.headers, Host::Shared, 1));
    let origin = HeaderValue::from_static("ab.localhost:4711");
    assert!(!access.is_own_origin(&origin));
}
