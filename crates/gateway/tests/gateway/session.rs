//! A session as its supervisor holds it: the listening socket, the book of links, and a gateway that comes and goes.

use alpine_gateway::{
    AgentState, ControlReply, ControlRequest, GatewayConfig, Links, Upstream, open_url, run,
};
use alpine_provider_api::{PageFacts, Secret};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;
use tempfile::TempDir;

/// `alpine:pass`.
pub(crate) const BASIC: &str = "Authorization: Basic YWxwaW5lOnBhc3M=\r\n";

/// Nothing in these tests takes longer, unless it is broken.
pub(crate) const SOON: Duration = Duration::from_secs(20);

pub(crate) struct Session {
    pub(crate) config: GatewayConfig,
    pub(crate) now_ms: Arc<AtomicU64>,
    listener: TcpListener,
    links: Arc<Mutex<Links>>,
    running: Option<Running>,
    _dir: TempDir,
}

struct Running {
    gateway: JoinHandle<io::Result<()>>,
    control: UnixStream,
}

impl Session {
    /// A session whose gateway isn't started yet.
    pub(crate) fn stopped(upstream: Option<Upstream>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let dir = tempfile::tempdir().unwrap();
        let config = GatewayConfig {
            session_id: "ses_0123456789abcdef0123456789abcdef".to_owned(),
            port: listener.local_addr().unwrap().port(),
            host_label: "0123456789ab".to_owned(),
            username: "alpine".to_owned(),
            password: Secret::new("pass".to_owned()),
            cookie_key: Secret::new("key".to_owned()),
            upstream,
            page: Some(PageFacts {
                session_id: "ses_0123456789abcdef0123456789abcdef".to_owned(),
                repo_url: "https://example.com/repo".to_owned(),
                branch: "main</title><script>alert('x')</script>".to_owned(),
                commit: "0".repeat(40),
            }),
            agent_log: dir.path().join("agent.log"),
            install_log: dir.path().join("install.log"),
            idle_ms: 60_000,
        };
        Self {
            config,
            now_ms: Arc::default(),
            listener,
            links: Arc::default(),
            running: None,
            _dir: dir,
        }
    }

    /// A session with a gateway.
    pub(crate) fn started(upstream: Option<Upstream>) -> Self {
        let mut session = Self::stopped(upstream);
        session.start();
        session
    }

    pub(crate) fn start(&mut self) {
        let (mine, theirs) = UnixStream::pair().unwrap();
        let control = mine.try_clone().unwrap();
        let (links, now_ms) = (Arc::clone(&self.links), Arc::clone(&self.now_ms));
        thread::spawn(move || supervise(mine, &links, &now_ms));
        let listener = self.listener.try_clone().unwrap();
        let config = self.config.clone();
        let gateway = thread::spawn(move || run(listener, theirs, config));
        self.running = Some(Running { gateway, control });
    }

    /// What happens when the supervisor dies: its end is closed.
    pub(crate) fn stop(&mut self) -> io::Result<()> {
        let running = self.running.take().unwrap();
        running.control.shutdown(Shutdown::Both).unwrap();
        running.gateway.join().unwrap()
    }

    /// Waits until the gateway leaves by itself.
    pub(crate) fn left(&mut self) -> io::Result<()> {
        self.running.take().unwrap().gateway.join().unwrap()
    }

    pub(crate) fn mint(&self, ttl_ms: u64) -> String {
        let now_ms = self.now_ms.load(Ordering::SeqCst);
        let token = self.links.lock().unwrap().mint(now_ms, ttl_ms).unwrap();
        let url = open_url(&self.config.host_label, self.config.port, &token);
        let start = format!("http://{}", self.own_host());
        url.expose().strip_prefix(&start).unwrap().to_owned()
    }

    pub(crate) fn own_host(&self) -> String {
        format!("{}.localhost:{}", self.config.host_label, self.config.port)
    }

    pub(crate) fn shared_host(&self) -> String {
        format!("127.0.0.1:{}", self.config.port)
    }

    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(("127.0.0.1", self.config.port)).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        stream.set_write_timeout(Some(SOON)).unwrap();
        stream
    }

    /// Sends a request's head to the shared host, with further header lines; the connection is closed after it.
    pub(crate) fn call(&self, request: &str, headers: &str) -> Reply {
        self.call_at(&self.shared_host(), request, headers)
    }

    pub(crate) fn call_at(&self, host: &str, request: &str, headers: &str) -> Reply {
        let head =
            format!("{request} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{headers}\r\n");
        let mut stream = self.connect();
        stream.write_all(head.as_bytes()).unwrap();
        Reply::read(&mut stream)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            let _ = running.control.shutdown(Shutdown::Both);
            let _ = running.gateway.join();
        }
    }
}

fn supervise(control: UnixStream, links: &Mutex<Links>, now_ms: &AtomicU64) {
    let mut answers = control.try_clone().unwrap();
    for line in BufReader::new(control).lines() {
        let Ok(line) = line else { return };
        let answer = match serde_json::from_str(&line).unwrap() {
            ControlRequest::Redeem { token } => links
                .lock()
                .unwrap()
                .redeem(&token, now_ms.load(Ordering::SeqCst)),
            ControlRequest::State => ControlReply::State {
                agent: AgentState::Exited,
                exit_status: Some(3),
            },
        };
        let mut line = serde_json::to_vec(&answer).unwrap();
        line.push(b'\n');
        if answers.write_all(&line).is_err() {
            return;
        }
    }
}

#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Reply {
    pub(crate) fn read(stream: &mut TcpStream) -> Self {
        let head = read_head(stream);
        let mut body = Vec::new();
        stream.read_to_end(&mut body).unwrap();
        let status = head[9..12].parse().unwrap();
        let body = String::from_utf8_lossy(&body).into_owned();
        Self { status, head, body }
    }

    /// The value of a header; its name in small letters.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (found, value) = line.split_once(": ")?;
            (found == name).then_some(value)
        })
    }

    /// The status, some headers, and the body.
    pub(crate) fn told(&self, headers: &[&str]) -> String {
        let mut told = format!("{}\n", self.status);
        for name in headers {
            told += &format!("{name}: {}\n", self.header(name).unwrap_or("-"));
        }
        told + &self.body
    }
}

/// Reads up to the end of a head, byte by byte, so that nothing behind it is taken.
pub(crate) fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read(&mut byte) {
            Ok(1) => head.push(byte[0]),
            other => panic!("{other:?} after {:?}", String::from_utf8_lossy(&head)),
        }
    }
    String::from_utf8(head).unwrap()
}
