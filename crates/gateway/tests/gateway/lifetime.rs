use crate::agent::Agent;
use crate::session::{BASIC, Session, read_head};
use alpine_provider_api::Secret;
use std::io::{ErrorKind, Read, Write};
use std::time::{Duration, Instant};

#[test]
fn an_idle_gateway_leaves_and_the_next_one_answers() {
    let mut session = Session::stopped(None);
    session.config.idle_ms = 50;
    session.start();
    session.left().unwrap();
    // The socket is the supervisor's: a caller waits in it until a gateway is started again.
    let mut waiting = session.connect();
    let request = format!("GET / HTTP/1.1\r\nHost: {}\r\n\r\n", session.shared_host());
    waiting.write_all(request.as_bytes()).unwrap();
    session.start();
    assert!(read_head(&mut waiting).contains(" 401 "));
    drop(waiting);
    session.left().unwrap();
}

#[test]
fn a_gateway_stays_for_as_long_as_a_tunnel_is_open() {
    let agent = Agent::start();
    let mut session = Session::stopped(Some(agent.upstream()));
    session.config.idle_ms = 50;
    session.start();
    let mut stream = session.connect();
    let request = format!(
        "GET /ws HTTP/1.1\r\nHost: {}\r\nConnection: upgrade\r\nUpgrade: websocket\r\n{BASIC}\r\n",
        session.shared_host()
    );
    stream.write_all(request.as_bytes()).unwrap();
    assert!(read_head(&mut stream).contains(" 101 "));
    let end = Instant::now() + Duration::from_millis(300);
    while Instant::now() < end {
        stream.write_all(b"?").unwrap();
        stream.read_exact(&mut [0]).unwrap();
    }
    drop(stream);
    session.left().unwrap();
}

#[test]
fn a_gateway_leaves_with_its_supervisor() {
    let mut session = Session::started(None);
    let mut open = session.connect();
    let request = format!("GET / HTTP/1.1\r\nHost: {}\r\n\r\n", session.shared_host());
    open.write_all(request.as_bytes()).unwrap();
    read_head(&mut open);
    session.stop().unwrap();
}

#[test]
fn an_unsafe_configuration_is_refused() {
    let mut session = Session::stopped(None);
    session.config.password = Secret::new(String::new());
    session.start();
    let refused = session.left().unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidInput);
    assert_eq!(refused.to_string(), "the gateway's password is empty");
}
