//! What a library says of itself without being loaded: JSON in the section `.alpine.provider`.

use crate::refusal::{Reason, Refusal, command};
use serde::{Deserialize, Serialize};
use std::ops::RangeInclusive;
use std::path::Path;

/// The section's name.
pub(crate) const SECTION: &str = ".alpine.provider";
/// The most bytes it may have.
pub(crate) const LARGEST: u64 = 4096;

/// What a library says of itself. Fields that this version does not know are ignored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The provider's name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The lowest version of the boundary that it speaks.
    pub abi_min: u32,
    /// The highest.
    pub abi_max: u32,
    /// What it was built with: the kit and its version.
    #[serde(default)]
    pub sdk: String,
    /// The compiler.
    #[serde(default)]
    pub compiler: String,
    /// What a panic does.
    pub panic: Panic,
}

/// What a panic in a library does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Panic {
    /// It is caught and answered as an error; languages without panics say this.
    Unwind,
    /// It ends the process.
    Abort,
}

impl Manifest {
    /// Reads the section's bytes; zeros after the text are padding.
    pub(crate) fn parse(path: &Path, bytes: &[u8]) -> Result<Self, Refusal> {
        let end = bytes
            .iter()
            .rposition(|byte| *byte != 0)
            .map_or(0, |at| at + 1);
        let refuse = |found: String| {
            Refusal::new(
                Reason::Manifest,
                path,
                format!(
                    "a manifest in its section `{SECTION}`: JSON with `name`, `version`, `abi_min`, `abi_max` and `panic`"
                ),
                format!("{found}; build it again with the kit of this version"),
                command(&format!("readelf -p {SECTION}"), path),
            )
        };
        let manifest: Self = serde_json::from_slice(&bytes[..end])
            .map_err(|error| refuse(format!("one that can't be read: {error}")))?;
        let texts = [
            &manifest.name,
            &manifest.version,
            &manifest.sdk,
            &manifest.compiler,
        ];
        if texts.iter().any(|text| text.chars().any(char::is_control)) {
            return Err(refuse("one with a control character".to_owned()));
        }
        Ok(manifest)
    }

    /// Refuses a library that speaks none of the versions of the boundary that we speak.
    ///
    /// # Errors
    /// `Abi`.
    pub fn check_abi(&self, path: &Path, ours: &RangeInclusive<u32>) -> Result<(), Refusal> {
        let (first, last) = (
            self.abi_min.max(*ours.start()),
            self.abi_max.min(*ours.end()),
        );
        if first <= last {
            return Ok(());
        }
        let advice = if self.abi_min > *ours.end() {
            "use a later alpine, or an earlier version of the provider"
        } else {
            "build it again with the kit of this version"
        };
        Err(Refusal::new(
            Reason::Abi,
            path,
            format!("boundary version {}", range(*ours.start(), *ours.end())),
            format!("version {}: {advice}", range(self.abi_min, self.abi_max)),
            "alpine --version",
        ))
    }
}

fn range(first: u32, last: u32) -> String {
    if first == last {
        first.to_string()
    } else {
        format!("{first} to {last}")
    }
}
