//! The caller's environment: read here and nowhere else.

use alpine_lifecycle::{ErrorCode, Failure};
use alpine_provider_api::{Redactor, Secret};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// The caller's environment as it was when the program began.
#[derive(Clone, Default)]
pub(crate) struct Variables(BTreeMap<String, OsString>);

impl fmt::Debug for Variables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl Variables {
    /// Reads the environment.
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the one place where variables are read"
    )]
    pub(crate) fn read() -> Self {
        let named =
            std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value)));
        Self(named.collect())
    }

    #[cfg(test)]
    pub(crate) fn of(pairs: &[(&str, &str)]) -> Self {
        let pairs = pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), OsString::from(*value)));
        Self(pairs.collect())
    }

    /// A variable's value; a blank one is absent.
    ///
    /// # Errors
    /// `ERR_CONFIG_INVALID` for a value that is not UTF-8.
    pub(crate) fn get(&self, name: &str) -> Result<Option<&str>, Failure> {
        let Some(value) = self.0.get(name) else {
            return Ok(None);
        };
        let value = value
            .to_str()
            .ok_or_else(|| invalid(name, "is not UTF-8"))?;
        Ok(Some(value).filter(|value| !value.trim().is_empty()))
    }

    /// A variable that only helps where it can be read.
    pub(crate) fn lenient(&self, name: &str) -> Option<&str> {
        self.get(name).ok().flatten()
    }

    /// The trace that the caller is a part of; one of another shape than W3C's is no trace, and may hold anything.
    pub(crate) fn traceparent(&self) -> Option<&str> {
        let is_hex = |part: &str| part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        self.lenient("TRACEPARENT").filter(|trace| {
            let parts: Vec<_> = trace.split('-').collect();
            parts.iter().map(|part| part.len()).eq([2, 32, 16, 2]) && parts.into_iter().all(is_hex)
        })
    }

    /// Whether a variable is there and not blank.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.0
            .get(name)
            .is_some_and(|value| !value.as_bytes().trim_ascii().is_empty())
    }

    /// Every variable whose value is UTF-8.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0
            .iter()
            .filter_map(|(name, value)| Some((name.as_str(), value.to_str()?)))
    }

    /// The value of every variable whose name says that it is a secret, and the passwords in the addresses of proxies.
    pub(crate) fn secrets(&self) -> Vec<Secret<String>> {
        let secret = self.0.iter().filter(|(name, _)| is_secret(name));
        secret
            .map(|(_, value)| {
                Secret::new(String::from_utf8_lossy(&value.clone().into_vec()).into_owned())
            })
            .chain(super::proxy_secrets(self))
            .collect()
    }

    /// The secret variable whose value is in the text.
    pub(crate) fn secret_in(&self, text: &str) -> Option<&str> {
        let is_in = |value: &str| Redactor::new([&Secret::new(value.to_owned())]).finds(text);
        self.all()
            .find(|(name, value)| is_secret(name) && is_in(value))
            .map(|(name, _)| name)
    }
}

/// Whether a variable of that name holds a secret.
pub(crate) fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_uppercase();
    ["TOKEN", "SECRET", "PASSWORD"]
        .iter()
        .any(|word| name.contains(word))
        || name.ends_with("_KEY")
}

/// A malformed variable.
pub(crate) fn invalid(name: &str, why: &str) -> Failure {
    Failure::new(
        ErrorCode::ConfigInvalid,
        format!("the variable `{name}` {why}"),
    )
    .next(format!("unset {name}"))
}

#[cfg(test)]
mod tests {
    use super::{Variables, is_secret};
    use std::ffi::OsString;
    use std::os::unix::ffi::OsStringExt;

    #[test]
    fn blank_is_absent_and_bytes_are_refused() {
        let mut variables = Variables::of(&[("A", " \t"), ("B", "b")]);
        variables
            .0
            .insert("C".to_owned(), OsString::from_vec(vec![0xff]));
        assert_eq!(variables.get("A").unwrap(), None);
        assert_eq!(variables.get("B").unwrap(), Some("b"));
        assert_eq!(variables.get("D").unwrap(), None);
        assert_eq!(
            variables.get("C").unwrap_err().code.as_str(),
            "ERR_CONFIG_INVALID"
        );
    }

    #[test]
    fn a_trace_has_the_shape_of_one() {
        let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let of = |value| Variables::of(&[("TRACEPARENT", value)]);
        assert_eq!(of(trace).traceparent(), Some(trace));
        for value in [
            "",
            "hunter2",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
        ] {
            assert_eq!(of(value).traceparent(), None, "{value}");
        }
    }

    #[test]
    fn names_that_say_secret() {
        for name in [
            "GITHUB_TOKEN",
            "GH_TOKEN",
            "my_secret_x",
            "DB_PASSWORD",
            "OPENAI_API_KEY",
            "TOKENS",
        ] {
            assert!(is_secret(name), "{name}");
        }
        for name in ["PATH", "KEYBOARD", "HOME", "SSH_AUTH_SOCK"] {
            assert!(!is_secret(name), "{name}");
        }
    }
}
