//! HTTP Basic credentials.

use alpine_provider_api::Secret;
use hyper::header::HeaderValue;

/// The value of an `Authorization` header; none if it can't be one.
pub(crate) fn authorization(username: &str, password: &Secret<String>) -> Option<HeaderValue> {
    let pair = Secret::new(format!("{username}:{}", password.expose()));
    let value = Secret::new(format!("Basic {}", base64(pair.expose().as_bytes())));
    let mut header = HeaderValue::from_str(value.expose()).ok()?;
    header.set_sensitive(true);
    Some(header)
}

/// Whether a header's value is the expected one. Digests are compared, in constant time.
pub(crate) fn matches(given: &HeaderValue, expected: &HeaderValue) -> bool {
    let Some((scheme, credential)) = split(given.as_bytes()) else {
        return false;
    };
    let Some((_, wanted)) = split(expected.as_bytes()) else {
        return false;
    };
    scheme.eq_ignore_ascii_case(b"basic") && blake3::hash(credential) == blake3::hash(wanted)
}

fn split(value: &[u8]) -> Option<(&[u8], &[u8])> {
    let space = value.iter().position(|byte| *byte == b' ')?;
    let (scheme, rest) = value.split_at(space);
    Some((scheme, rest.trim_ascii()))
}

/// Standard base64 with padding.
fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let mut group = [0_u8; 4];
        group[1..=chunk.len()].copy_from_slice(chunk);
        let number = u32::from_be_bytes(group);
        for place in 0..4_usize {
            let letter = LETTERS[(number >> (18 - 6 * place)) as usize & 63];
            text.push(if place <= chunk.len() {
                char::from(letter)
            } else {
                '='
            });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{authorization, base64, matches};
    use alpine_provider_api::Secret;
    use hyper::header::HeaderValue;

    #[test]
    fn base64_is_the_standard_one() {
        let texts = [
            "",
            "f",
            "fo",
            "foo",
            "foob",
            "fooba",
            "foobar",
            "\u{fffd}?>",
        ];
        let encoded = texts.map(|text| base64(text.as_bytes())).join(" ");
        assert_eq!(
            encoded,
            " Zg== Zm8= Zm9v Zm9vYg== Zm9vYmE= Zm9vYmFy 77+9Pz4="
        );
    }

    #[test]
    fn only_the_very_credential_matches() {
        let expected = authorization("alpine", &Secret::new("pass".to_owned())).unwrap();
        assert_eq!(expected.as_bytes(), b"Basic YWxwaW5lOnBhc3M=");
        assert!(matches(&expected, &expected));
        for (given, fits) in [
            ("bASIC  YWxwaW5lOnBhc3M= ", true),
            ("Bearer YWxwaW5lOnBhc3M=", false),
            ("Basic YWxwaW5lOnBhc3M", false),
            ("Basic", false),
            ("Basic ", false),
            ("", false),
        ] {
            let given = HeaderValue::from_str(given).unwrap();
            assert_eq!(matches(&given, &expected), fits, "{given:?}");
        }
    }
}
