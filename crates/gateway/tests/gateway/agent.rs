//! A small agent's server, one thread per connection.

use alpine_gateway::{Listener, Upstream};
use rustix::net::{AddressFamily, SocketType};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;

pub(crate) struct Agent {
    pub(crate) port: u16,
    /// What each connection sent first, as it came; empty when it sent nothing.
    pub(crate) heads: Receiver<String>,
    /// Lets an answer that waits go on.
    pub(crate) go: Sender<()>,
}

impl Agent {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (go, gone) = channel();
        let (told, heads) = channel();
        let gone = Arc::new(Mutex::new(gone));
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (gone, told) = (Arc::clone(&gone), told.clone());
                thread::spawn(move || {
                    let mut stream = stream.unwrap();
                    let head = head(&mut stream);
                    let _ = told.send(head.clone());
                    // A caller may go away in the middle.
                    let _ = answer(stream, &head, port, &gone);
                });
            }
        });
        Self { port, heads, go }
    }

    /// This process's agent, with the session's credential.
    pub(crate) fn upstream(&self) -> Upstream {
        Upstream {
            port: self.port,
            auth: Some("opencode".to_owned()),
            listener: Listener::Family(std::process::id()),
        }
    }
}

/// A port where nobody listens, and nobody can while the socket lives. One that was listened on and dropped
/// is not sure to be closed: a test that starts a process beside this one has a copy of it for a moment.
pub(crate) fn silent_port() -> (OwnedFd, u16) {
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    rustix::net::bind(&socket, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = rustix::net::getsockname(&socket).unwrap();
    let port = SocketAddrV4::try_from(address).unwrap().port();
    (socket, port)
}

fn head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && matches!(stream.read(&mut byte), Ok(1)) {
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}

fn answer(
    mut stream: TcpStream,
    head: &str,
    port: u16,
    gone: &Mutex<Receiver<()>>,
) -> std::io::Result<()> {
    let path = head.split(' ').nth(1).unwrap_or_default();
    match path {
        "/plain" => stream.write_all(
            b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nKeep-Alive: timeout=5\r\nX-Agent: yes\r\n\
              Set-Cookie: theme=dark\r\nSet-Cookie: alpine_0123456789ab=forged\r\n\r\nhello",
        ),
        "/redirect" => write!(
            stream,
            "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:{port}/next?a=b\r\nContent-Length: 0\r\n\r\n"
        ),
        "/refuse" => stream.write_all(
            b"HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"agent\"\r\nContent-Length: 0\r\n\r\n",
        ),
        "/sse" => {
            let start = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
            stream.write_all(format!("{start}b\r\ndata: one\n\n\r\n").as_bytes())?;
            gone.lock().unwrap().recv().unwrap();
            stream.write_all(b"b\r\ndata: two\n\n\r\n0\r\n\r\n")
        }
        "/ws" => {
            stream.write_all(
                b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                  Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
            )?;
            echo(&mut stream, u64::MAX)
        }
        "/echo" => {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            let length = length.unwrap().parse().unwrap();
            write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n")?;
            echo(&mut stream, length)
        }
        "/garbage" => stream.write_all(b"\x00\x01 this is not HTTP\r\n\r\n"),
        _ => stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"),
    }
}

fn echo(stream: &mut TcpStream, length: u64) -> std::io::Result<()> {
    let mut from = stream.try_clone()?.take(length);
    std::io::copy(&mut from, stream).map(drop)
}
