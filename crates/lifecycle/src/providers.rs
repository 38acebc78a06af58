//! The providers that are configured, by name.

use crate::{ErrorCode, Failure};
use alpine_ledger::SessionRecord;
use alpine_provider_api::SandboxProvider;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The providers that are configured.
#[derive(Clone, Debug, Default)]
pub struct Providers {
    all: BTreeMap<String, Arc<dyn SandboxProvider>>,
    configurations: BTreeMap<String, String>,
}

impl Providers {
    /// These and one more.
    #[must_use]
    pub fn with(mut self, name: &str, provider: Arc<dyn SandboxProvider>) -> Self {
        self.all.insert(name.to_owned(), provider);
        self
    }

    /// These, of which the named one has this configuration: where it changes, sandboxes that were made before may be where
    /// the provider does not look any more.
    #[must_use]
    pub fn configured(mut self, name: &str, configuration: String) -> Self {
        self.configurations.insert(name.to_owned(), configuration);
        self
    }

    /// The configuration of that provider; empty where it has none.
    pub(crate) fn configuration(&self, name: &str) -> &str {
        self.configurations.get(name).map_or("", String::as_str)
    }

    /// The names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.all.keys().map(String::as_str)
    }

    /// The provider of that name.
    ///
    /// # Errors
    /// `ERR_PROVIDER_NOT_FOUND`, naming those that are there.
    pub fn get(&self, name: &str) -> Result<Arc<dyn SandboxProvider>, Failure> {
        self.all.get(name).cloned().ok_or_else(|| {
            let names: Vec<_> = self.names().collect();
            Failure::new(
                ErrorCode::ProviderNotFound,
                format!(
                    "there is no provider `{name}`; configured: {}",
                    names.join(", ")
                ),
            )
            .next("alpine provider list")
        })
    }
}

/// A session whose provider is not configured any more: which one it is, and how it comes back.
#[must_use]
pub fn no_provider(session: &SessionRecord) -> Failure {
    let (id, name) = (&session.session_id, &session.new.provider);
    let version = session
        .provider_version
        .as_ref()
        .map_or(String::new(), |version| format!(", version {version}"));
    let cause = format!(
        "session `{id}` was made by provider `{name}`{version}, which is not configured any more"
    );
    Failure::new(ErrorCode::ProviderNotFound, cause)
        .next(format!("alpine provider add FILE --name {name}"))
}
