//! The only thing that holds a token.

use secrecy::{ExposeSecret, SecretBox, zeroize::Zeroize};
use std::fmt;

/// A value that is never printed and never serialised by accident; its memory is wiped when it is dropped.
///
/// A field that has to cross a process boundary says so with `#[serde(with = "wire")]`.
pub struct Secret<T: Zeroize>(SecretBox<T>);

impl<T: Zeroize> Secret<T> {
    /// Wraps a value.
    #[must_use]
    pub fn new(value: T) -> Self {
        Self(SecretBox::new(Box::new(value)))
    }

    /// The value. Each use of this is a place to review.
    #[must_use]
    pub fn expose(&self) -> &T {
        self.0.expose_secret()
    }
}

impl<T: Zeroize + Clone> Clone for Secret<T> {
    fn clone(&self) -> Self {
        Self::new(self.expose().clone())
    }
}

impl<T: Zeroize> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl<T: Zeroize + PartialEq> PartialEq for Secret<T> {
    fn eq(&self, other: &Self) -> bool {
        self.expose() == other.expose()
    }
}

impl<T: Zeroize + Eq> Eq for Secret<T> {}

/// Serialises secrets, field by field and on purpose: only for the boundary between the engine and a provider.
pub mod wire {
    use super::Secret;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use std::collections::BTreeMap;

    /// Writes a secret's value.
    ///
    /// # Errors
    /// Those of the serializer.
    pub fn serialize<S: Serializer>(secret: &Secret<String>, to: S) -> Result<S::Ok, S::Error> {
        secret.expose().serialize(to)
    }

    /// Reads a secret's value.
    ///
    /// # Errors
    /// Those of the deserializer.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Secret<String>, D::Error> {
        Ok(Secret::new(String::deserialize(from)?))
    }

    /// The same for a map of secrets.
    pub mod map {
        use super::{BTreeMap, Deserialize, Deserializer, Secret, Serializer};

        /// Writes the values.
        ///
        /// # Errors
        /// Those of the serializer.
        pub fn serialize<S: Serializer>(
            map: &BTreeMap<String, Secret<String>>,
            to: S,
        ) -> Result<S::Ok, S::Error> {
            to.collect_map(map.iter().map(|(name, secret)| (name, secret.expose())))
        }

        /// Reads the values.
        ///
        /// # Errors
        /// Those of the deserializer.
        pub fn deserialize<'de, D: Deserializer<'de>>(
            from: D,
        ) -> Result<BTreeMap<String, Secret<String>>, D::Error> {
            let plain = BTreeMap::<String, String>::deserialize(from)?;
            Ok(plain
                .into_iter()
                .map(|(name, value)| (name, Secret::new(value)))
                .collect())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Secret;

    #[test]
    fn debug_hides_the_value() {
        let secret = Secret::new("hunter2hunter2".to_owned());
        assert_eq!(format!("{secret:?}"), "Secret(…)");
        assert_eq!(secret.expose(), "hunter2hunter2");
    }
}
