//! The ids of durable objects: `<session>/<generation>-<digest>`.

use alpine_provider_api::{ErrorKind, ProviderError};
use object_store::path::Path as Key;

const DIGITS: usize = 16;
const LONGEST_SESSION: usize = 128;

/// A checked id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ObjectId {
    pub(crate) session: String,
    pub(crate) generation: u64,
    digest: String,
}

impl ObjectId {
    /// The id of what is to be written; it depends on every byte of it.
    pub(crate) fn of(
        session: &str,
        generation: u64,
        payload: &str,
        snapshot: Option<&str>,
    ) -> Result<Self, ProviderError> {
        if !is_name(session) {
            return Err(invalid(session));
        }
        let mut hasher = blake3::Hasher::new();
        hasher.update(blake3::hash(payload.as_bytes()).as_bytes());
        hasher.update(snapshot.unwrap_or("none").as_bytes());
        Ok(Self {
            session: session.to_owned(),
            generation,
            digest: hasher.finalize().to_hex()[..DIGITS].to_owned(),
        })
    }

    /// Takes an id apart that somebody gave.
    pub(crate) fn parse(given: &str) -> Result<Self, ProviderError> {
        let parts = || {
            let (session, rest) = given.split_once('/')?;
            let (number, digest) = rest.split_once('-')?;
            let generation: u64 = number.parse().ok()?;
            let hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
            let fits = is_name(session)
                && generation.to_string() == number
                && digest.len() == DIGITS
                && digest.bytes().all(hex);
            fits.then(|| Self {
                session: session.to_owned(),
                generation,
                digest: digest.to_owned(),
            })
        };
        parts().ok_or_else(|| invalid(given))
    }

    /// The key of one of the object's files.
    pub(crate) fn key(&self, file: &str) -> Key {
        Key::from_iter([self.session.as_str(), &self.folder(), file])
    }

    fn folder(&self) -> String {
        format!("{}-{}", self.generation, self.digest)
    }
}

impl std::fmt::Display for ObjectId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.session, self.folder())
    }
}

/// A name that is safe as a file's, in every store.
fn is_name(text: &str) -> bool {
    (1..=LONGEST_SESSION).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
        && !text.starts_with('-')
}

fn invalid(given: &str) -> ProviderError {
    let shown: String = given
        .chars()
        .filter(|c| !c.is_control())
        .take(100)
        .collect();
    ProviderError::new(
        ErrorKind::InvalidArgument,
        format!("`{shown}` is no durable object's id"),
    )
}

#[cfg(test)]
mod tests {
    use super::ObjectId;
    use alpine_provider_api::ErrorKind;

    #[test]
    fn ids_round_trip_and_depend_on_everything() {
        let id = |payload, snapshot| ObjectId::of("ses_1", 7, payload, snapshot).unwrap();
        let one = id("p", Some("d"));
        assert_eq!(ObjectId::parse(&one.to_string()).unwrap(), one);
        assert_eq!(one, id("p", Some("d")));
        for other in [id("q", Some("d")), id("p", Some("e")), id("p", None)] {
            assert_ne!(one, other);
        }
    }

    #[test]
    fn hostile_ids_are_refused() {
        let digest = "0123456789abcdef";
        for given in [
            String::new(),
            format!("../1-{digest}"),
            format!("/1-{digest}"),
            format!("a/../1-{digest}"),
            format!("a/b/1-{digest}"),
            format!("a/01-{digest}"),
            format!("a/+1-{digest}"),
            format!("a/1-{digest}0"),
            format!("a/1-{}", digest.to_uppercase()),
            format!("a%2f/1-{digest}"),
            format!("a\0/1-{digest}"),
            format!("-a/1-{digest}"),
            format!("a/1-{digest}/manifest.json"),
            format!("é/1-{digest}"),
        ] {
            let error = ObjectId::parse(&given).unwrap_err();
            assert_eq!(error.kind, ErrorKind::InvalidArgument, "{given:?}");
        }
        assert!(ObjectId::of("../x", 1, "", None).is_err());
    }
}
