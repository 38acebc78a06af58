use crate::agent::Agent;
use crate::session::{BASIC, Session, read_head};
use expect_test::expect;
use std::fs;
use std::io::{BufRead, BufReader, Write};

#[test]
fn the_page_is_self_contained_and_escapes_what_the_repository_says() {
    let session = Session::started(None);
    let reply = session.call("GET /", BASIC);
    assert_eq!(reply.status, 200);
    assert!(
        reply
            .body
            .contains("main&#60;/title&#62;&#60;script&#62;alert(&#39;x&#39;)")
    );
    assert_eq!(reply.body.matches("<script").count(), 1);
    assert!(
        reply
            .body
            .contains("alpine exec ses_0123456789abcdef0123456789abcdef -- ")
    );
    assert!(
        reply
            .body
            .contains("alpine down ses_0123456789abcdef0123456789abcdef")
    );
    let (_, nonce) = reply.body.split_once("<script nonce=\"").unwrap();
    let (nonce, _) = nonce.split_once('"').unwrap();
    let policy = reply.header("content-security-policy").unwrap();
    expect!["default-src 'none'; style-src 'nonce-N'; script-src 'nonce-N'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"]
        .assert_eq(&policy.replace(nonce, "N"));
    assert!(!session.call("GET /", BASIC).body.contains(nonce));
    let head = session.call("HEAD /", BASIC);
    assert_eq!((head.status, head.body.as_str()), (200, ""));
    assert_eq!(session.call("GET /other", BASIC).status, 404);
    assert_eq!(
        session
            .call("POST /", &format!("{BASIC}Content-Length: 0\r\n"))
            .status,
        405
    );
}

#[test]
fn the_state_is_the_supervisors() {
    let session = Session::started(None);
    let reply = session.call("GET /_alpine/state", BASIC);
    expect![[r#"
        200
        content-type: application/json
        {"schema_version":"v1","session_id":"ses_0123456789abcdef0123456789abcdef","agent":"exited","exit_status":3}"#]]
    .assert_eq(&reply.told(&["content-type"]));
}

#[test]
fn the_page_is_there_beside_an_agent_too() {
    let agent = Agent::start();
    let session = Session::started(Some(agent.upstream()));
    let page = session.call("GET /_alpine/", BASIC);
    assert!(page.body.contains("From your terminal"), "{page:?}");
    assert_eq!(session.call("GET /_alpine/unknown", BASIC).status, 404);
    assert!(agent.heads.try_recv().is_err());
    assert_eq!(session.call("GET /plain", BASIC).body, "hello");
}

#[test]
fn logs_are_live() {
    let session = Session::started(None);
    fs::write(&session.config.install_log, "one\ntwo\n").unwrap();
    for (query, status) in [("", 400), ("?which=../../etc/passwd", 400)] {
        let request = format!("GET /_alpine/logs{query}");
        assert_eq!(session.call(&request, BASIC).status, status, "{query}");
    }
    assert_eq!(
        session.call("GET /_alpine/logs?which=install", "").status,
        401
    );
    let mut stream = session.connect();
    let request = format!(
        "GET /_alpine/logs?which=install HTTP/1.1\r\nHost: {}\r\n{BASIC}\r\n",
        session.shared_host()
    );
    stream.write_all(request.as_bytes()).unwrap();
    assert!(read_head(&mut stream).contains("content-type: text/event-stream\r\n"));
    let mut lines = BufReader::new(stream).lines().map(Result::unwrap);
    lines.find(|line| line == "data: two").unwrap();
    let mut log = fs::OpenOptions::new()
        .append(true)
        .open(&session.config.install_log)
        .unwrap();
    log.write_all(b"three\n").unwrap();
    lines.find(|line| line == "data: three").unwrap();
}
