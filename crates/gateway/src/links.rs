//! The supervisor's book of one-time links.

use crate::control::ControlReply;
use alpine_provider_api::Secret;
use std::collections::VecDeque;
use std::fmt::Write as _;
use std::io;

/// How many links are remembered; the oldest is forgotten first.
const KEPT: usize = 256;

/// One-time links: in memory only, and of each token no more than its digest.
#[derive(Debug, Default)]
pub struct Links {
    book: VecDeque<Link>,
}

#[derive(Debug)]
struct Link {
    digest: blake3::Hash,
    expires_ms: u64,
    used: bool,
}

impl Links {
    /// An empty book.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Draws a token that is good for one use until `ttl_ms` from now.
    ///
    /// # Errors
    /// The system has no randomness to give.
    pub fn mint(&mut self, now_ms: u64, ttl_ms: u64) -> io::Result<Secret<String>> {
        let token = random_hex::<32>()?;
        if self.book.len() >= KEPT {
            self.book.pop_front();
        }
        self.book.push_back(Link {
            digest: blake3::hash(token.expose().as_bytes()),
            expires_ms: now_ms.saturating_add(ttl_ms),
            used: false,
        });
        Ok(token)
    }

    /// Uses a token up. Digests are compared, and in constant time, so that the time taken says nothing of a token.
    pub fn redeem(&mut self, token: &Secret<String>, now_ms: u64) -> ControlReply {
        let digest = blake3::hash(token.expose().as_bytes());
        let mut found = None;
        for link in &mut self.book {
            if link.digest == digest {
                found = Some(link);
            }
        }
        match found {
            None => ControlReply::Unknown,
            Some(link) if link.used => ControlReply::Used,
            Some(link) if link.expires_ms <= now_ms => ControlReply::Expired,
            Some(link) => {
                link.used = true;
                ControlReply::Redeemed
            }
        }
    }
}

/// The address of a one-time link. It is a secret for as long as the token is good.
#[must_use]
pub fn open_url(host_label: &str, port: u16, token: &Secret<String>) -> Secret<String> {
    Secret::new(format!(
        "http://{host_label}.localhost:{port}/_alpine/open?token={}",
        token.expose()
    ))
}

/// Random bytes in hexadecimal.
pub(crate) fn random_hex<const BYTES: usize>() -> io::Result<Secret<String>> {
    let mut bytes = [0_u8; BYTES];
    getrandom::fill(&mut bytes).map_err(|error| io::Error::other(error.to_string()))?;
    let mut text = String::with_capacity(BYTES * 2);
    for byte in bytes {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
    }
    Ok(Secret::new(text))
}

#[cfg(test)]
mod tests {
    use super::{KEPT, Links, open_url};
    use crate::ControlReply;
    use alpine_provider_api::Secret;

    #[test]
    fn a_link_works_once_and_not_for_long() {
        let mut links = Links::new();
        let token = links.mint(1_000, 60_000).unwrap();
        assert_eq!(token.expose().len(), 64);
        let stranger = Secret::new("0".repeat(64));
        assert_eq!(links.redeem(&stranger, 1_000), ControlReply::Unknown);
        assert_eq!(links.redeem(&token, 60_999), ControlReply::Redeemed);
        assert_eq!(links.redeem(&token, 60_999), ControlReply::Used);
        assert_eq!(links.redeem(&token, 99_000), ControlReply::Used);
        let late = links.mint(1_000, 60_000).unwrap();
        assert_eq!(links.redeem(&late, 61_000), ControlReply::Expired);
        assert_eq!(links.redeem(&late, 61_000), ControlReply::Expired);
    }

    #[test]
    fn the_book_is_bounded_and_holds_no_token() {
        let mut links = Links::new();
        let first = links.mint(0, 10).unwrap();
        let second = links.mint(0, 10).unwrap();
        for _ in 0..KEPT - 1 {
            links.mint(0, 10).unwrap();
        }
        assert_eq!(links.redeem(&first, 1), ControlReply::Unknown);
        assert_eq!(links.redeem(&second, 1), ControlReply::Redeemed);
        assert!(!format!("{links:?}").contains(second.expose().as_str()));
    }

    #[test]
    fn the_link_is_on_the_sessions_own_host() {
        let url = open_url("0123456789ab", 4711, &Secret::new("t0".to_owned()));
        assert_eq!(
            url.expose(),
            "http://0123456789ab.localhost:4711/_alpine/open?token=t0"
        );
    }
}
