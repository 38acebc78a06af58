use crate::agent::{Agent, silent_port};
use crate::session::{BASIC, Reply, SOON, Session, read_head};
use alpine_gateway::Listener;
use expect_test::expect;
use std::io::{Read, Write};
use std::process::Command;
use std::thread;

#[test]
fn the_agent_sees_its_own_names_and_its_own_credential() {
    let agent = Agent::start();
    let session = Session::started(Some(agent.upstream()));
    let own = session.own_host();
    let headers = format!(
        "{BASIC}Cookie: a=1; alpine_0123456789ab=x; b=2\r\nOrigin: http://{own}\r\n\
         Referer: http://{own}/page?q=1\r\nX-Forwarded-For: 10.0.0.1\r\nTE: trailers\r\n\
         X-Mine: kept\r\nProxy-Authorization: Basic eDp5\r\nExpect: 100-continue\r\n"
    );
    let reply = session.call_at(&own, "GET /plain", &headers);
    expect![[r#"
        200
        x-agent: yes
        set-cookie: theme=dark
        keep-alive: -
        hello"#]]
    .assert_eq(&reply.told(&["x-agent", "set-cookie", "keep-alive"]));
    assert!(!reply.head.contains("forged"));
    let seen = agent.heads.recv_timeout(SOON).unwrap();
    let mut lines: Vec<&str> = seen.lines().filter(|line| !line.is_empty()).collect();
    lines[1..].sort_unstable();
    let seen = lines.join("\n").replace(&agent.port.to_string(), "PORT");
    expect![[r#"
        GET /plain HTTP/1.1
        authorization: Basic b3BlbmNvZGU6cGFzcw==
        cookie: a=1; b=2
        host: 127.0.0.1:PORT
        origin: http://127.0.0.1:PORT
        referer: http://127.0.0.1:PORT/page?q=1
        x-mine: kept"#]]
    .assert_eq(&seen);
}

#[test]
fn the_callers_credential_goes_no_further_than_the_door() {
    let agent = Agent::start();
    let mut upstream = agent.upstream();
    upstream.auth = None;
    let session = Session::started(Some(upstream));
    assert_eq!(session.call("GET /plain", BASIC).status, 200);
    let seen = agent.heads.recv_timeout(SOON).unwrap();
    assert!(!seen.contains("authorization"), "{seen}");
}

#[test]
fn answers_are_made_fit_for_the_caller() {
    let agent = Agent::start();
    let session = Session::started(Some(agent.upstream()));
    let moved = session.call("GET /redirect", BASIC);
    assert_eq!(
        (moved.status, moved.header("location")),
        (302, Some("/next?a=b"))
    );
    let refused = session.call("GET /refuse", BASIC);
    assert_eq!(
        (refused.status, refused.header("www-authenticate")),
        (401, None)
    );
    // A foreign origin that only reads goes on as it is: the agent has to know.
    agent.heads.try_iter().for_each(drop);
    let foreign = format!("{BASIC}Origin: http://evil.example\r\n");
    assert_eq!(session.call("GET /plain", &foreign).status, 200);
    let seen = agent.heads.recv_timeout(SOON).unwrap();
    assert!(seen.contains("origin: http://evil.example\r\n"), "{seen}");
}

#[test]
fn events_arrive_before_the_answer_ends() {
    let agent = Agent::start();
    let session = Session::started(Some(agent.upstream()));
    let mut stream = session.connect();
    let host = session.shared_host();
    let request = format!("GET /sse HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{BASIC}\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    assert!(read_head(&mut stream).contains("text/event-stream"));
    let mut first = [0; 16];
    // The agent waits: if the gateway held anything back, this read would never end.
    stream.read_exact(&mut first).unwrap();
    assert_eq!(&first, b"B\r\ndata: one\n\n\r\n");
    agent.go.send(()).unwrap();
    let mut rest = String::new();
    stream.read_to_string(&mut rest).unwrap();
    assert!(rest.contains("data: two\n\n"), "{rest}");
}

#[test]
fn a_websocket_becomes_a_tunnel() {
    let agent = Agent::start();
    let session = Session::started(Some(agent.upstream()));
    let mut stream = session.connect();
    let own = session.own_host();
    let request = format!(
        "GET /ws HTTP/1.1\r\nHost: {own}\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
         Origin: http://{own}\r\n{BASIC}\r\n"
    );
    stream.write_all(request.as_bytes()).unwrap();
    let head = read_head(&mut stream);
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert!(head.contains("upgrade: websocket\r\n"), "{head}");
    assert!(
        head.contains("sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"),
        "{head}"
    );
    for message in [&b"\x81\x05hello"[..], b"\x00", b"again"] {
        stream.write_all(message).unwrap();
        let mut echo = vec![0; message.len()];
        stream.read_exact(&mut echo).unwrap();
        assert_eq!(echo, message);
    }
    let seen = agent.heads.recv_timeout(SOON).unwrap();
    assert!(
        seen.contains("sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n"),
        "{seen}"
    );
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(stream.read(&mut [0]).unwrap(), 0);
}

#[test]
fn bodies_are_streamed_both_ways() {
    const SIZE: usize = 32 * 1024 * 1024;
    let agent = Agent::start();
    let session = Session::started(Some(agent.upstream()));
    let mut stream = session.connect();
    let host = session.shared_host();
    let request = format!(
        "PUT /echo HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{BASIC}Content-Length: {SIZE}\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).unwrap();
    let bytes: Vec<u8> = (0..SIZE).map(|at| (at % 251) as u8).collect();
    // The first byte is there and back before the second is sent.
    stream.write_all(&bytes[..1]).unwrap();
    assert!(read_head(&mut stream).starts_with("HTTP/1.1 200 "));
    let mut echo = vec![0];
    stream.read_exact(&mut echo).unwrap();
    let mut writer = stream.try_clone().unwrap();
    let rest = bytes[1..].to_vec();
    let writing = thread::spawn(move || writer.write_all(&rest).unwrap());
    stream.read_to_end(&mut echo).unwrap();
    writing.join().unwrap();
    assert!(
        echo == bytes,
        "{} of {SIZE} bytes came back, or others",
        echo.len()
    );
}

#[test]
fn an_agent_that_is_down_or_broken_is_a_bad_gateway() {
    let agent = Agent::start();
    let session = Session::started(Some(agent.upstream()));
    let broken = session.call("GET /garbage", BASIC);
    assert_eq!(broken.status, 502);
    let (_socket, port) = silent_port();
    let mut upstream = agent.upstream();
    upstream.port = port;
    let session = Session::started(Some(upstream));
    expect![[r#"
        502
        the session's agent does not answer
        hint: run `alpine logs ses_0123456789abcdef0123456789abcdef`
    "#]]
    .assert_eq(&session.call("GET /", BASIC).told(&[]));
}

#[test]
fn a_stranger_on_the_agents_port_gets_no_credential() {
    let agent = Agent::start();
    let mut other = Command::new("sleep").arg("600").spawn().unwrap();
    let mut upstream = agent.upstream();
    upstream.listener = Listener::Family(other.id());
    let session = Session::started(Some(upstream));
    let reply = session.call("GET /plain", BASIC);
    other.kill().unwrap();
    other.wait().unwrap();
    expect![[r#"
        502
        the agent's port is held by a process that is not this session's
        hint: run `alpine logs ses_0123456789abcdef0123456789abcdef`
    "#]]
    .assert_eq(&reply.told(&[]));
    // It was connected to, and heard nothing.
    assert_eq!(agent.heads.recv_timeout(SOON).unwrap(), "");
}

#[test]
fn a_caller_that_goes_away_takes_its_request_along() {
    let agent = Agent::start();
    let session = Session::started(Some(agent.upstream()));
    let mut stream = session.connect();
    let host = session.shared_host();
    let request = format!("GET /sse HTTP/1.1\r\nHost: {host}\r\n{BASIC}\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    read_head(&mut stream);
    drop(stream);
    agent.go.send(()).unwrap();
    let mut next = session.connect();
    let request =
        format!("GET /plain HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{BASIC}\r\n");
    next.write_all(request.as_bytes()).unwrap();
    assert_eq!(Reply::read(&mut next).body, "hello");
}
