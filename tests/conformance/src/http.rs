//! Just enough of HTTP to ask an agent's address.

use alpine_provider_api::Secret;
use std::io;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const LIMIT: Duration = Duration::from_secs(10);
const LARGEST: u64 = 1 << 20;

/// The status of `GET url`, and the body.
pub(crate) async fn get(
    url: &str,
    auth: Option<(&str, &Secret<String>)>,
) -> io::Result<(u16, String)> {
    match tokio::time::timeout(LIMIT, ask(url, auth)).await {
        Ok(answer) => answer,
        Err(_) => Err(io::Error::other("no answer came")),
    }
}

async fn ask(url: &str, auth: Option<(&str, &Secret<String>)>) -> io::Result<(u16, String)> {
    let wrong = || io::Error::other("the address is not `http://HOST:PORT/…`");
    let rest = url.strip_prefix("http://").ok_or_else(wrong)?;
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    // Such names are this machine, whether a resolver knows it or not.
    let (name, port) = host.rsplit_once(':').unwrap_or((host, "80"));
    let mut stream = match name.ends_with(".localhost") {
        true => TcpStream::connect(format!("127.0.0.1:{port}")).await?,
        false => TcpStream::connect(format!("{name}:{port}")).await?,
    };
    let auth = auth.map_or(String::new(), |(user, password)| {
        let pair = format!("{user}:{}", password.expose());
        format!("authorization: Basic {}\r\n", base64(pair.as_bytes()))
    });
    let request = format!(
        "GET /{path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\naccept: */*\r\n{auth}\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(LARGEST).read_to_end(&mut answer).await?;
    let text = String::from_utf8_lossy(&answer);
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.split(' ').nth(1).and_then(|word| word.parse().ok());
    let status = status.ok_or_else(|| io::Error::other("the answer is not HTTP"))?;
    Ok((status, body.to_owned()))
}

pub(crate) fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for part in bytes.chunks(3) {
        let byte = |at: usize| u32::from(part.get(at).copied().unwrap_or(0));
        let bits = (byte(0) << 16) | (byte(1) << 8) | byte(2);
        for (at, shift) in [18, 12, 6, 0].into_iter().enumerate() {
            let digit = usize::try_from((bits >> shift) & 63).unwrap_or(0);
            out.push(if at <= part.len() {
                char::from(DIGITS[digit])
            } else {
                '='
            });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::base64;

    #[test]
    fn base64_is_padded() {
        let coded = ["", "f", "fo", "foo", "foob"].map(|text| base64(text.as_bytes()));
        assert_eq!(coded, ["", "Zg==", "Zm8=", "Zm9v", "Zm9vYg=="]);
    }
}
