use crate::agent::Agent;
use crate::session::{BASIC, Reply, SOON, Session, read_head};
use expect_test::expect;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

#[test]
fn without_a_credential_the_door_says_what_to_run() {
    let session = Session::started(None);
    let reply = session.call("GET /", "");
    expect![[r#"
        401
        www-authenticate: Basic realm="alpine"
        content-type: text/plain; charset=utf-8
        cache-control: no-store
        referrer-policy: no-referrer
        content-security-policy: default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'
        this session is not open to you yet
        hint: run `alpine open ses_0123456789abcdef0123456789abcdef`
    "#]]
    .assert_eq(&reply.told(&[
        "www-authenticate",
        "content-type",
        "cache-control",
        "referrer-policy",
        "content-security-policy",
    ]));
    let reply = session.call("GET /", "Accept: text/html\r\n");
    expect![[r#"
        401
        content-type: text/html; charset=utf-8
        <!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width"><meta name="color-scheme" content="light dark"><title>alpine</title><h1>this session is not open to you yet</h1><p>Run <code>alpine open ses_0123456789abcdef0123456789abcdef</code>.</p></html>
    "#]]
    .assert_eq(&reply.told(&["content-type"]));
}

#[test]
fn the_password_opens_every_name_of_the_session_and_no_other() {
    let session = Session::started(None);
    let port = session.config.port;
    for (host, status) in [
        (session.shared_host(), 200),
        (session.own_host(), 200),
        (format!("localhost:{port}"), 200),
        (format!("evil.example:{port}"), 421),
        (format!("fedcba987654.localhost:{port}"), 421),
        ("127.0.0.1".to_owned(), 421),
    ] {
        assert_eq!(
            session.call_at(&host, "GET /", BASIC).status,
            status,
            "{host}"
        );
    }
    for wrong in [
        "Authorization: Basic YWxwaW5lOnBhc3N4\r\n",
        "Authorization: Basic YWxwaW5lOnBhc3M=x\r\n",
        "Authorization: Basic\r\n",
        "Authorization: Bearer pass\r\n",
        "Cookie: alpine_0123456789ab=x.99999999999999.00\r\n",
    ] {
        assert_eq!(session.call("GET /", wrong).status, 401, "{wrong}");
    }
}

#[test]
fn another_site_may_not_act_on_the_session() {
    let agent = Agent::start();
    let session = Session::started(Some(agent.upstream()));
    let foreign = format!("{BASIC}Origin: http://evil.example\r\nContent-Length: 0\r\n");
    assert_eq!(session.call("POST /plain", &foreign).status, 403);
    let upgrade = format!(
        "{BASIC}Origin: http://evil.example\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    );
    assert_eq!(session.call("GET /ws", &upgrade).status, 403);
    assert!(agent.heads.try_recv().is_err());
    let own = format!(
        "{BASIC}Origin: http://{}\r\nContent-Length: 0\r\n",
        session.own_host()
    );
    assert_eq!(session.call("POST /plain", &own).status, 200);
    assert!(agent.heads.recv_timeout(SOON).is_ok());
}

#[test]
fn methods_that_would_show_or_carry_too_much_are_refused() {
    let agent = Agent::start();
    let session = Session::started(Some(agent.upstream()));
    assert_eq!(session.call("TRACE /plain", BASIC).status, 405);
    assert_eq!(session.call("CONNECT 127.0.0.1:22", BASIC).status, 405);
    assert!(agent.heads.try_recv().is_err());
}

#[test]
fn garbage_is_refused_and_costs_nothing_else() {
    let session = Session::started(None);
    let host = session.shared_host();
    let long = "x".repeat(200 * 1024);
    for (garbage, status) in [
        ("\u{16}\u{3}\u{1}\u{0}nonsense\r\n\r\n".to_owned(), "400"),
        ("GET / HTTP/9.9\r\n\r\n".to_owned(), "400"),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(), ""),
        (
            format!("GET / HTTP/1.1\r\nHost: {host}\r\nX: {long}\r\n\r\n"),
            "431",
        ),
        (format!("GET /{long} HTTP/1.1\r\nHost: {host}\r\n\r\n"), "4"),
        (
            format!(
                "GET / HTTP/1.1\r\nHost: {host}\r\n{}\r\n",
                "X: y\r\n".repeat(200)
            ),
            "431",
        ),
        (
            format!("POST / HTTP/1.1\r\nHost: {host}\r\nContent-Length: -1\r\n\r\n"),
            "400",
        ),
        ("GET / HTTP/1.1\r\nHost: \u{1}\r\n\r\n".to_owned(), "400"),
        (
            "GET / HTTP/1.1\r\nConnection: close\r\n\r\n".to_owned(),
            "421",
        ),
        ("GET / HT".to_owned(), ""),
        (String::new(), ""),
    ] {
        let mut stream = session.connect();
        // The gateway may have refused it before all of it was sent.
        let _ = stream.write_all(garbage.as_bytes());
        let _ = stream.shutdown(Shutdown::Write);
        let mut reply = Vec::new();
        let _ = stream.read_to_end(&mut reply);
        let reply = String::from_utf8_lossy(&reply);
        let found = reply.get(9..12).unwrap_or_default();
        let start: String = garbage.chars().take(60).collect();
        assert!(found.starts_with(status), "{start:?}: {reply}");
    }
    assert_eq!(session.call("GET /", BASIC).status, 200);
}

#[test]
fn two_lengths_never_reach_the_agent() {
    let agent = Agent::start();
    let session = Session::started(Some(agent.upstream()));
    let both = format!("{BASIC}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n");
    let mut stream = session.connect();
    let host = session.shared_host();
    let request =
        format!("POST /plain HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{both}\r\n0\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let status = Reply::read(&mut stream).status;
    if let Ok(head) = agent.heads.try_recv() {
        let lengths = ["content-length", "transfer-encoding"].map(|name| head.contains(name));
        assert_ne!(lengths, [true, true], "{head}");
    } else {
        assert_eq!(status, 400);
    }
}

#[test]
fn a_head_that_does_not_come_loses_its_connection() {
    let session = Session::started(None);
    let start = Instant::now();
    let mut silent = session.connect();
    let mut slow = session.connect();
    slow.write_all(b"GET / HTTP/1.1\r\nHost: ").unwrap();
    for stream in [&mut slow, &mut silent] {
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).unwrap();
        assert!(!String::from_utf8_lossy(&rest).contains("200 OK"));
    }
    // What a later head may take is ten seconds.
    assert!(start.elapsed() < Duration::from_secs(8));
}

/// Takes every place, each with a request that bears these headers.
fn crowd(session: &Session, headers: &str, status: &str) -> Vec<TcpStream> {
    let mut guests: Vec<_> = (0..64).map(|_| session.connect()).collect();
    for guest in &mut guests {
        assert_eq!(ask(session, guest, headers).as_deref(), Some(status));
    }
    guests
}

/// Asks on an open connection, and gives the status; none where the connection was ended.
fn ask(session: &Session, stream: &mut TcpStream, headers: &str) -> Option<String> {
    let host = session.shared_host();
    let request = format!("HEAD / HTTP/1.1\r\nHost: {host}\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).ok()?;
    let mut first = [0; 1];
    (stream.read(&mut first).ok()? == 1).then(|| read_head(stream)[8..11].to_owned())
}

#[test]
fn half_a_head_keeps_nobody_out() {
    let session = Session::started(None);
    let start = Instant::now();
    let strangers: Vec<_> = (0..70)
        .map(|_| {
            let mut stream = session.connect();
            stream.write_all(b"GET / HTTP/1.1\r\nHost: ").unwrap();
            stream
        })
        .collect();
    assert_eq!(session.call("GET /", BASIC).status, 200);
    assert!(start.elapsed() < Duration::from_secs(8));
    drop(strangers);
}

#[test]
fn the_oldest_stranger_makes_room_and_no_other() {
    let session = Session::started(None);
    let mut guests = crowd(&session, "", "401");
    assert_eq!(ask(&session, &mut guests[0], BASIC).as_deref(), Some("200"));
    assert_eq!(session.call("GET /", BASIC).status, 200);
    assert_eq!(ask(&session, &mut guests[0], "").as_deref(), Some("401"));
    assert_eq!(ask(&session, &mut guests[1], ""), None);
    assert_eq!(ask(&session, &mut guests[2], "").as_deref(), Some("401"));
    assert_eq!(ask(&session, &mut guests[63], "").as_deref(), Some("401"));
}

#[test]
fn among_those_who_are_known_the_sixty_fifth_waits_for_its_turn() {
    let session = Session::started(None);
    let mut guests = crowd(&session, BASIC, "200");
    let host = session.shared_host();
    let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
    let mut late = session.connect();
    late.write_all(request.as_bytes()).unwrap();
    // The gateway has gone round twice since, and would have taken it.
    for guest in &mut guests[..2] {
        assert_eq!(ask(&session, guest, BASIC).as_deref(), Some("200"));
    }
    late.set_nonblocking(true).unwrap();
    assert!(late.read(&mut [0]).is_err());
    late.set_nonblocking(false).unwrap();
    drop(guests.pop());
    assert!(read_head(&mut late).contains(" 401 "));
}
