//! Versions of the GNU C library: the one that runs here, and the one that a library needs.

use std::fmt;

/// A version such as 2.39.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Version(u32, u32, u32);

impl Version {
    /// Reads `2.39` or `2.2.5`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('.').map(|part| part.parse::<u32>());
        let version = Self(
            parts.next()?.ok()?,
            parts.next()?.ok()?,
            parts.next().unwrap_or(Ok(0)).ok()?,
        );
        parts.next().is_none().then_some(version)
    }

    /// Reads what a library needs: `GLIBC_2.39`. Other needs are none of a version.
    pub(crate) fn needed(name: &[u8]) -> Option<Self> {
        let name = std::str::from_utf8(name).ok()?.strip_prefix("GLIBC_")?;
        match name {
            // Packed relocations: understood since 2.36.
            "ABI_DT_RELR" => Some(Self(2, 36, 0)),
            name => Self::parse(name),
        }
    }

    /// The one that runs here; none where the C library is another.
    #[cfg(target_env = "gnu")]
    #[expect(
        unsafe_code,
        reason = "the C library tells its version in no other way"
    )]
    pub(crate) fn running() -> Option<Self> {
        // SAFETY: it returns a pointer to a constant text that ends in a NUL, and changes nothing.
        let text = unsafe { std::ffi::CStr::from_ptr(libc::gnu_get_libc_version()) };
        Self::parse(text.to_str().ok()?)
    }

    /// The one that runs here; none where the C library is another.
    #[cfg(not(target_env = "gnu"))]
    pub(crate) fn running() -> Option<Self> {
        None
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self(major, minor, 0) => write!(f, "{major}.{minor}"),
            Self(major, minor, patch) => write!(f, "{major}.{minor}.{patch}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Version;

    #[test]
    fn versions_are_compared_by_number() {
        let of = |text: &str| Version::parse(text).unwrap();
        assert!(of("2.9") < of("2.31") && of("2.2.5") > of("2.2") && of("3.0") > of("2.99"));
        assert_eq!(of("2.2.5").to_string(), "2.2.5");
        for wrong in ["", "2", "2.x", "2.1.1.1", "PRIVATE"] {
            assert_eq!(Version::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn needs() {
        assert_eq!(Version::needed(b"GLIBC_2.38"), Version::parse("2.38"));
        assert_eq!(
            Version::needed(b"GLIBC_ABI_DT_RELR"),
            Version::parse("2.36")
        );
        for other in [&b"GLIBC_PRIVATE"[..], b"GCC_3.0", b"\xff"] {
            assert_eq!(Version::needed(other), None);
        }
    }

    #[test]
    fn a_c_library_runs_here() {
        assert!(Version::running().unwrap() > Version::parse("2.17").unwrap());
    }
}
