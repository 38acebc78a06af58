//! As much of an HTTP client as the tests need.

use alpine_testkit::basic;
use serde_json::Value;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;

/// What a server answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    /// A header by its name in lower case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let pairs = self.head.lines().filter_map(|line| line.split_once(": "));
        let mut found = pairs.filter(|(known, _)| known.eq_ignore_ascii_case(name));
        found.next().map(|(_, value)| value)
    }
}

/// Who is asking, for HTTP Basic.
#[derive(Debug)]
pub(crate) struct Caller(String);

impl Caller {
    /// The credential that `open --credentials` gave.
    pub(crate) fn of(credentials: &Value) -> Self {
        let text = |key: &str| credentials[key].as_str().expect("a credential");
        Self(basic(text("username"), text("password")))
    }

    pub(crate) fn get(&self, url: &str) -> Answer {
        ask("GET", url, &[("authorization", &self.0)], "")
    }

    pub(crate) fn post(&self, url: &str, body: &str) -> Answer {
        let json = ("content-type", "application/json");
        ask("POST", url, &[("authorization", &self.0), json], body)
    }
}

pub(crate) fn get(url: &str, headers: &[(&str, &str)]) -> Answer {
    ask("GET", url, headers, "")
}

/// Asks over a connection of its own. Every host of an address is taken for this machine.
pub(crate) fn ask(method: &str, url: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    let rest = url.strip_prefix("http://").expect("an HTTP address");
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (_, port) = host.rsplit_once(':').expect("a port");
    let port: u16 = port.parse().expect("a port");
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("a connection");
    let patience = Some(Duration::from_secs(90));
    stream.set_read_timeout(patience).expect("a limit");
    let mut request = format!("{method} /{path} HTTP/1.1\r\nconnection: close\r\n");
    if !headers.iter().any(|(name, _)| *name == "host") {
        request.push_str(&format!("host: {host}\r\n"));
    }
    for (name, value) in headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    request.push_str(&format!("content-length: {}\r\n\r\n{body}", body.len()));
    stream.write_all(request.as_bytes()).expect("a request");
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).expect("an answer");
    parse(&bytes)
}

fn parse(bytes: &[u8]) -> Answer {
    let text = String::from_utf8_lossy(bytes);
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok());
    let mut answer = Answer {
        status: status.unwrap_or_else(|| panic!("no answer of HTTP: {text}")),
        head: head.to_owned(),
        body: String::new(),
    };
    answer.body = match answer.header("transfer-encoding") {
        Some(_) => whole(body),
        None => body.to_owned(),
    };
    answer
}

/// A body that came in chunks.
fn whole(mut rest: &str) -> String {
    let mut body = String::new();
    while let Some((size, after)) = rest.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).expect("a chunk's size");
        body.push_str(&after[..size]);
        rest = after[size..].trim_start_matches("\r\n");
        if size == 0 {
            break;
        }
    }
    body
}
