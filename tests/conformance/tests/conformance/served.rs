//! A server of an agent that does not keep the contract: it answers everybody, always.

use alpine_provider_api::{OpenAgentReply, Secret, StartAgentReply};
use std::io::{Read, Write};
use std::net::TcpListener;

const PAGE: &[u8] =
    b"HTTP/1.1 200 OK\r\ncontent-length: 14\r\nconnection: close\r\n\r\nthe kit's page";

/// Serves for as long as the test runs, and gives the address.
pub(crate) fn to_everybody() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let (mut asked, mut piece) = (Vec::new(), [0; 1024]);
            while !asked.ends_with(b"\r\n\r\n") {
                match stream.read(&mut piece) {
                    Ok(read) if read > 0 => asked.extend_from_slice(&piece[..read]),
                    _ => break,
                }
            }
            // Who has gone needs no answer.
            let _ = stream.write_all(PAGE);
        }
    });
    format!("http://{address}")
}

pub(crate) fn started(url: String) -> StartAgentReply {
    StartAgentReply { url: Some(url) }
}

/// A way in, whose link differs by this number and works for ever.
pub(crate) fn way_in(url: String, number: u32) -> OpenAgentReply {
    OpenAgentReply {
        open_url: Secret::new(format!("{url}/?link={number}")),
        url,
        username: "kit".to_owned(),
        password: Secret::new("any at all".to_owned()),
    }
}
