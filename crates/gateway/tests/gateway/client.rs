use crate::agent::silent_port;
use crate::session::SOON;
use alpine_gateway::Listener;
use alpine_gateway::client::{AgentClient, ClientError};
use alpine_provider_api::{Probe, Secret, Shutdown, Transcript};
use expect_test::expect;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

const TRY: Duration = Duration::from_secs(10);

/// A server that gives each path of a table its answer and keeps what it was asked.
struct Server {
    port: u16,
    asked: Arc<Mutex<Vec<String>>>,
}

/// Takes a connection's number and the path; none leaves the caller without an answer.
type Answers = fn(usize, &str) -> Option<(u16, String)>;

fn server(answers: Answers) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&asked);
    thread::spawn(move || {
        for (number, stream) in listener.incoming().enumerate() {
            let told = Arc::clone(&told);
            thread::spawn(move || serve(stream.unwrap(), number, answers, &told));
        }
    });
    Server { port, asked }
}

fn serve(mut stream: TcpStream, number: usize, answers: Answers, told: &Mutex<Vec<String>>) {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && matches!(stream.read(&mut byte), Ok(1)) {
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    let line = head.lines().next().unwrap_or_default().to_owned();
    let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
    told.lock().unwrap().push(head);
    match answers(number, &path) {
        Some((status, body)) => {
            let length = body.len();
            let _ = write!(
                stream,
                "HTTP/1.1 {status} X\r\nContent-Length: {length}\r\n\r\n{body}"
            );
        }
        // Waits until the caller gives up.
        None => drop(stream.read(&mut byte)),
    }
}

fn wait<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(work)
}

fn client(server: &Server) -> AgentClient {
    let auth = ("opencode".to_owned(), Secret::new("pass".to_owned()));
    AgentClient::new(server.port, Some(auth))
}

fn lines(server: &Server) -> Vec<String> {
    let asked = server.asked.lock().unwrap();
    let line = |head: &String| head.lines().next().unwrap_or_default().to_owned();
    asked.iter().map(line).collect()
}

#[test]
fn a_request_bears_the_credential_and_gets_its_answer() {
    let server = server(|_, path| Some((if path == "/a" { 201 } else { 404 }, "body".to_owned())));
    let got = wait(client(&server).get("/a", TRY)).unwrap();
    assert_eq!((got.status, got.body.as_slice()), (201, &b"body"[..]));
    assert_eq!(wait(client(&server).post("/b", TRY)).unwrap().status, 404);
    let head = server.asked.lock().unwrap()[0].clone();
    assert!(
        head.contains("authorization: Basic b3BlbmNvZGU6cGFzcw==\r\n"),
        "{head}"
    );
    assert_eq!(lines(&server), ["GET /a HTTP/1.1", "POST /b HTTP/1.1"]);
}

#[test]
fn every_failure_says_what_was_asked() {
    let server = server(|_, path| (path == "/large").then(|| (200, "x".repeat((64 << 20) + 1))));
    let client = client(&server);
    let (_socket, port) = silent_port();
    let closed = AgentClient::new(port, None);
    let failures = [
        wait(client.get("no-path", TRY)),
        wait(client.get("/a b", TRY)),
        wait(client.get("/silent", Duration::from_millis(20))),
        wait(client.get("/large", SOON)),
        wait(closed.get("/", TRY)),
    ]
    .map(|failure| {
        failure
            .unwrap_err()
            .to_string()
            .replace(&port.to_string(), "PORT")
    })
    .join("\n");
    expect![[r#"
        `no-path` is not a path
        `/a b` is not a path
        the agent did not answer `/silent` within 20 ms
        asking the agent for `/large` failed
        can't connect to the agent on port PORT"#]]
    .assert_eq(&failures);
}

#[test]
fn nothing_is_sent_to_a_stranger() {
    let server = server(|_, _| Some((200, String::new())));
    let me = std::process::id();
    let mut other = std::process::Command::new("sleep")
        .arg("600")
        .spawn()
        .unwrap();
    let refused = wait(
        client(&server)
            .only_to(Listener::Family(other.id()))
            .get("/", TRY),
    );
    other.kill().unwrap();
    other.wait().unwrap();
    assert!(
        matches!(refused, Err(ClientError::Connect { .. })),
        "{refused:?}"
    );
    assert!(wait(client(&server).only_to(Listener::Family(me)).get("/", TRY)).is_ok());
    let sent = lines(&server).into_iter().filter(|line| !line.is_empty());
    assert_eq!(sent.count(), 1);
}

#[test]
fn readiness_takes_short_tries_until_the_answer_is_right() {
    let server = server(|number, path| match (number, path) {
        // A connection proves nothing: the first two are taken and never answered.
        (0 | 1, _) => None,
        (2, _) => Some((503, "{\"healthy\":true}".to_owned())),
        (3, _) => Some((200, "{\"healthy\":false}".to_owned())),
        (_, "/warm") => Some((500, String::new())),
        (_, _) => Some((200, "{\"healthy\":true}".to_owned())),
    });
    let probe = Probe {
        path: "/health".to_owned(),
        body: Some("\"healthy\":true".to_owned()),
        try_ms: 30,
        warm_path: Some("/warm".to_owned()),
        log_line: None,
    };
    wait(client(&server).ready(&probe, Instant::now() + TRY, || true)).unwrap();
    let asked = lines(&server);
    assert_eq!(asked.len(), 6, "{asked:?}");
    assert_eq!(asked.last().unwrap(), "GET /warm HTTP/1.1");
}

#[test]
fn readiness_ends_with_the_process_and_at_the_deadline() {
    let server = server(|_, _| None);
    let slow = Probe {
        try_ms: 60_000,
        ..Probe::default()
    };
    let looks = AtomicUsize::new(0);
    let alive = || looks.fetch_add(1, Ordering::SeqCst) < 3;
    let begun = Instant::now();
    let ended = wait(client(&server).ready(&slow, begun + 10 * TRY, alive));
    assert!(matches!(ended, Err(ClientError::Exited)), "{ended:?}");
    let late = wait(client(&server).ready(&slow, Instant::now() + TRY / 100, || true));
    assert_eq!(
        late.unwrap_err().to_string(),
        "the agent was not ready in time: `/` had no good answer"
    );
    assert!(begun.elapsed() < 3 * TRY);
}

#[test]
fn transcripts_are_aborted_then_exported_and_one_bad_one_costs_no_other() {
    let server = server(|_, path| {
        let list =
            r#"[{"id":"ses_a","title":"x"},{"id":"../../etc"},{"id":"broken"},{"id":"gone"}]"#;
        Some(match path {
            "/session" => (200, list.to_owned()),
            "/session/ses_a/message" => (200, "[{\"role\":\"user\"}]".to_owned()),
            "/session/broken/message" => (200, "not json".to_owned()),
            "/session/ses_a/abort" => (500, String::new()),
            _ => (404, String::new()),
        })
    });
    let transcript = Transcript {
        list_path: "/session".to_owned(),
        item_path: "/session/{id}/message".to_owned(),
    };
    let shutdown = Shutdown {
        abort_path: Some("/session/{id}/abort".to_owned()),
        dispose_path: None,
    };
    let exported = wait(client(&server).export_transcript(&transcript, &shutdown, TRY)).unwrap();
    let json = b"[{\"role\":\"user\"}]".to_vec();
    assert_eq!(exported.transcripts, [("ses_a".to_owned(), json)]);
    let failures: Vec<String> = exported.failures.iter().map(ToString::to_string).collect();
    expect![[r#"
        the agent lists a transcript by the id "../../etc", which can't name a file
        the agent's answer to `/session/broken/message` is not the JSON that was expected
        the agent answered `/session/gone/message` with status 404, or without the expected text"#]]
    .assert_eq(&failures.join("\n"));
    expect![[r#"
        GET /session HTTP/1.1
        POST /session/ses_a/abort HTTP/1.1
        POST /session/broken/abort HTTP/1.1
        POST /session/gone/abort HTTP/1.1
        GET /session HTTP/1.1
        GET /session/ses_a/message HTTP/1.1
        GET /session/broken/message HTTP/1.1
        GET /session/gone/message HTTP/1.1"#]]
    .assert_eq(&lines(&server).join("\n"));
}

#[test]
fn a_hanging_abort_leaves_time_for_the_export() {
    let server = server(|_, path| match path {
        "/session" => Some((200, r#"[{"id":"a"},{"id":"b"}]"#.to_owned())),
        "/session/a" | "/session/b" => Some((200, "{}".to_owned())),
        _ => None,
    });
    let transcript = Transcript {
        list_path: "/session".to_owned(),
        item_path: "/session/{id}".to_owned(),
    };
    let shutdown = Shutdown {
        abort_path: Some("/session/{id}/abort".to_owned()),
        dispose_path: None,
    };
    let limit = Duration::from_secs(3);
    let exported = wait(client(&server).export_transcript(&transcript, &shutdown, limit)).unwrap();
    assert_eq!(exported.transcripts.len(), 2);
    assert!(exported.failures.is_empty());
}

#[test]
fn the_clients_work_may_move_between_threads() {
    fn movable<T: Send>(work: T) -> T {
        work
    }
    let server = server(|_, _| Some((200, "[]".to_owned())));
    let client = client(&server);
    let transcript = Transcript {
        list_path: "/".to_owned(),
        item_path: "/{id}".to_owned(),
    };
    let shutdown = Shutdown::default();
    let probe = Probe::default();
    let deadline = Instant::now() + TRY;
    wait(movable(client.ready(&probe, deadline, || true))).unwrap();
    let exported = wait(movable(client.export_transcript(
        &transcript,
        &shutdown,
        TRY,
    )));
    assert!(exported.unwrap().transcripts.is_empty());
}
