//! The documents of `provider`.

use super::VERSION;
use crate::plugin::BOUNDARY;
use alpine_provider_store::{Kept, Kind, Manifest};
use serde::Serialize;
use std::path::Path;

/// The result of `provider list`.
#[derive(Debug, Serialize)]
pub(crate) struct ProvidersDocument {
    schema_version: &'static str,
    pub(crate) providers: Vec<ProviderDocument>,
}

/// One provider.
#[derive(Debug, Serialize)]
pub(crate) struct ProviderDocument {
    pub(crate) name: String,
    /// `compiled_in`, `dylib`, `exec`; none where it has no file.
    pub(crate) kind: Option<&'static str>,
    pub(crate) isolation: Option<&'static str>,
    pub(crate) version: Option<String>,
    pub(crate) path: Option<String>,
    pub(crate) sha256: Option<String>,
    /// `compiled_in`, `added` or `configured`.
    pub(crate) source: &'static str,
    /// `ok` or `refused`.
    pub(crate) state: &'static str,
    pub(crate) cause: Option<String>,
    pub(crate) next_step: Option<String>,
}

/// The result of `provider inspect`.
#[derive(Debug, Serialize)]
pub(crate) struct InspectedDocument {
    schema_version: &'static str,
    path: String,
    kind: Kind,
    bytes: u64,
    sha256: String,
    manifest: Option<Manifest>,
    /// Why it could not be used by this alpine.
    unfit: Option<String>,
}

/// The result of `provider add`.
#[derive(Debug, Serialize)]
pub(crate) struct AddedDocument {
    schema_version: &'static str,
    name: String,
    kind: Kind,
    version: Option<String>,
    path: String,
    sha256: String,
    /// The digest of the file that it stood for before.
    replaced: Option<String>,
}

/// The result of `provider remove`.
#[derive(Debug, Serialize)]
pub(crate) struct RemovedDocument {
    pub(crate) schema_version: &'static str,
    pub(crate) name: String,
    pub(crate) sha256: String,
}

impl ProvidersDocument {
    pub(crate) fn new(providers: Vec<ProviderDocument>) -> Self {
        Self {
            schema_version: VERSION,
            providers,
        }
    }
}

impl InspectedDocument {
    pub(crate) fn new(
        path: &Path,
        bytes: u64,
        (kind, manifest, sha256): (Kind, Option<Manifest>, String),
    ) -> Self {
        let fits = |manifest: &Manifest| manifest.check_abi(path, &BOUNDARY);
        let unfit = manifest.as_ref().map(fits).and_then(Result::err);
        Self {
            schema_version: VERSION,
            path: path.display().to_string(),
            kind,
            bytes,
            sha256,
            manifest,
            unfit: unfit.map(|refusal| refusal.to_string()),
        }
    }

    /// The same for people.
    pub(crate) fn told(&self) -> String {
        let manifest = self.manifest.as_ref();
        let of = |read: fn(&Manifest) -> String| manifest.map(read);
        let rows = [
            ("file", Some(self.path.clone())),
            ("kind", Some(self.kind.as_str().to_owned())),
            ("name", of(|manifest| manifest.name.clone())),
            ("version", of(|manifest| manifest.version.clone())),
            (
                "boundary",
                of(|manifest| format!("{} to {}", manifest.abi_min, manifest.abi_max)),
            ),
            ("kit", of(|manifest| manifest.sdk.clone())),
            ("compiler", of(|manifest| manifest.compiler.clone())),
            (
                "panics",
                of(|manifest| format!("{:?}", manifest.panic).to_lowercase()),
            ),
            ("size", Some(format!("{} bytes", self.bytes))),
            ("sha256", Some(self.sha256.clone())),
            ("unfit", self.unfit.clone()),
        ];
        lines(&rows)
    }
}

impl AddedDocument {
    pub(crate) fn new(name: &str, kept: &Kept, replaced: Option<String>) -> Self {
        Self {
            schema_version: VERSION,
            name: name.to_owned(),
            kind: kept.kind,
            version: kept
                .manifest
                .as_ref()
                .map(|manifest| manifest.version.clone()),
            path: kept.path.display().to_string(),
            sha256: kept.sha256.clone(),
            replaced,
        }
    }

    /// The same for people.
    pub(crate) fn told(&self, command: &str) -> String {
        let rows = [
            ("provider", Some(self.name.clone())),
            ("kind", Some(self.kind.as_str().to_owned())),
            ("version", self.version.clone()),
            ("file", Some(self.path.clone())),
            ("sha256", Some(self.sha256.clone())),
            ("before", self.replaced.clone()),
            ("use it", Some(command.to_owned())),
        ];
        lines(&rows)
    }
}

fn lines(rows: &[(&str, Option<String>)]) -> String {
    let line = |(name, value): &(&str, Option<String>)| {
        let value = value.as_ref().filter(|value| !value.is_empty())?;
        Some(format!("{name:<11} {value}"))
    };
    rows.iter().filter_map(line).collect::<Vec<_>>().join("\n")
}
