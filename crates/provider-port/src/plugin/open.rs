//! From the bytes that a provider is opened with to the provider.

use alpine_provider_api::{ErrorKind, OpenRequest, ProviderError, SandboxProvider};
use serde::de::DeserializeOwned;
use std::any::TypeId;
use std::sync::Arc;

/// Makes the provider. Its maker takes the whole [`OpenRequest`], or a type of its own that is read from `config`.
pub(super) fn make<T, P>(
    json: &[u8],
    make: impl FnOnce(T) -> Result<P, ProviderError>,
) -> Result<Arc<dyn SandboxProvider>, ProviderError>
where
    T: DeserializeOwned + 'static,
    P: SandboxProvider + 'static,
{
    let invalid = |error: serde_json::Error| {
        ProviderError::new(
            ErrorKind::ConfigInvalid,
            format!("it can't be opened: {error}"),
        )
    };
    let argument = if TypeId::of::<T>() == TypeId::of::<OpenRequest>() {
        serde_json::from_slice(json).map_err(invalid)?
    } else {
        let request: OpenRequest = serde_json::from_slice(json).map_err(invalid)?;
        request.table()?
    };
    Ok(Arc::new(make(argument)?))
}
