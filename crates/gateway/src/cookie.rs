//! The cookie that a one-time link turns into: signed, so that a gateway that starts later knows it too.

use crate::links::random_hex;
use alpine_provider_api::Secret;
use hyper::header::{COOKIE, HeaderMap, HeaderValue};
use std::io;

/// How long a cookie is good for: seven days.
pub(crate) const LIFE_MS: u64 = 7 * 24 * 60 * 60 * 1000;

/// Every cookie of a gateway has a name that begins so; none of them goes on to an agent.
pub(crate) const PREFIX: &[u8] = b"alpine_";

/// Signs and checks the cookies of one session.
#[derive(Debug)]
pub(crate) struct Cookies {
    name: String,
    key: Secret<[u8; 32]>,
}

impl Cookies {
    pub(crate) fn new(host_label: &str, key: &Secret<String>) -> Self {
        let key = blake3::derive_key("alpine gateway cookie 2026 v1", key.expose().as_bytes());
        Self {
            name: format!("alpine_{host_label}"),
            key: Secret::new(key),
        }
    }

    /// A new cookie, as `Set-Cookie` takes it.
    pub(crate) fn mint(&self, now_ms: u64) -> io::Result<Secret<String>> {
        let id = random_hex::<16>()?;
        let expires = now_ms.saturating_add(LIFE_MS);
        let mac = self.mac(id.expose(), expires);
        Ok(Secret::new(format!(
            "{}={}.{expires}.{mac}; HttpOnly; SameSite=Strict; Path=/",
            self.name,
            id.expose()
        )))
    }

    /// Whether a request bears a cookie of ours that is still good.
    pub(crate) fn accepts(&self, headers: &HeaderMap, now_ms: u64) -> bool {
        headers
            .get_all(COOKIE)
            .iter()
            .flat_map(|value| value.as_bytes().split(|byte| *byte == b';'))
            .filter_map(|pair| std::str::from_utf8(pair.trim_ascii()).ok())
            .filter_map(|pair| pair.split_once('='))
            .any(|(name, value)| name == self.name && self.is_good(value, now_ms))
    }

    fn is_good(&self, value: &str, now_ms: u64) -> bool {
        let mut parts = value.splitn(3, '.');
        let (Some(id), Some(expires), Some(mac)) = (parts.next(), parts.next(), parts.next())
        else {
            return false;
        };
        let (Ok(expires), Ok(mac)) = (expires.parse::<u64>(), blake3::Hash::from_hex(mac)) else {
            return false;
        };
        // Digests compare in constant time.
        self.mac(id, expires) == mac && now_ms < expires
    }

    fn mac(&self, id: &str, expires: u64) -> blake3::Hash {
        let text = format!("{}|{id}|{expires}", self.name);
        blake3::keyed_hash(self.key.expose(), text.as_bytes())
    }
}

/// Takes the gateways' cookies out of a request's headers and leaves the agent's own.
pub(crate) fn strip(headers: &mut HeaderMap) {
    let kept = headers
        .get_all(COOKIE)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b';'))
        .map(<[u8]>::trim_ascii)
        .filter(|pair| !pair.is_empty() && !pair.starts_with(PREFIX))
        .collect::<Vec<_>>()
        .join(&b"; "[..]);
    headers.remove(COOKIE);
    if let (false, Ok(value)) = (kept.is_empty(), HeaderValue::from_bytes(&kept)) {
        headers.insert(COOKIE, value);
    }
}

#[cfg(test)]
mod tests {
    use super::{Cookies, LIFE_MS, strip};
    use alpine_provider_api::Secret;
    use hyper::header::{COOKIE, HeaderMap, HeaderValue};

    fn cookies(label: &str, key: &str) -> Cookies {
        Cookies::new(label, &Secret::new(key.to_owned()))
    }

    fn bearing(cookie: &str) -> HeaderMap {
        HeaderMap::from_iter([(COOKIE, HeaderValue::from_str(cookie).unwrap())])
    }

    #[test]
    fn a_cookie_is_good_for_its_session_its_key_and_its_time() {
        let minted = cookies("ab", "k").mint(1_000).unwrap();
        let (pair, attributes) = minted.expose().split_once(';').unwrap();
        assert_eq!(attributes, " HttpOnly; SameSite=Strict; Path=/");
        let jar = bearing(&format!("theme=dark; {pair}"));
        assert!(cookies("ab", "k").accepts(&jar, 1_000));
        assert!(cookies("ab", "k").accepts(&jar, 999 + LIFE_MS));
        assert!(!cookies("ab", "k").accepts(&jar, 1_000 + LIFE_MS));
        assert!(!cookies("ab", "other").accepts(&jar, 1_000));
        let moved = bearing(&pair.replace("alpine_ab", "alpine_cd"));
        assert!(!cookies("cd", "k").accepts(&moved, 1_000));
        let longer = bearing(&pair.replace(".604801000.", ".904801000."));
        assert!(!cookies("ab", "k").accepts(&longer, 1_000));
        for garbage in [
            "alpine_ab",
            "alpine_ab=",
            "alpine_ab=..",
            "alpine_ab=x.1.y",
            ";;=;",
        ] {
            assert!(
                !cookies("ab", "k").accepts(&bearing(garbage), 0),
                "{garbage}"
            );
        }
    }

    #[test]
    fn the_agent_sees_its_own_cookies_only() {
        let mut headers = bearing("a=1; alpine_ab=x.1.y;b=2");
        headers.append(COOKIE, HeaderValue::from_static("alpine_cd=z"));
        headers.append(COOKIE, HeaderValue::from_bytes(b"c=\xff").unwrap());
        strip(&mut headers);
        let all: Vec<_> = headers.get_all(COOKIE).iter().collect();
        assert_eq!(all, [HeaderValue::from_bytes(b"a=1; b=2; c=\xff").unwrap()]);
        let mut only_ours = bearing("alpine_ab=x");
        strip(&mut only_ours);
        assert!(only_ours.is_empty());
    }
}
