//! From the bytes that a provider is opened with to the provider.

use alpine_provider_api::{ErrorKind, OpenRequest, ProviderError, SandboxProvider};
use serde::de::DeserializeOwned;
use serde_json::Value;
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
    let argument = if TypeId::of::<T>() == TypeId::of::<OpenRequest>() {
        serde_json::from_slice(json)
    } else {
        serde_json::from_slice::<OpenRequest>(json).and_then(|request| {
            let nothing = request.config.is_null();
            serde_json::from_value(if nothing {
                Value::Object(serde_json::Map::new())
            } else {
                request.config
            })
        })
    };
    let argument = argument.map_err(|error| {
        let message = format!("its configuration is not what it takes: {error}");
        ProviderError::new(ErrorKind::ConfigInvalid, message)
    })?;
    Ok(Arc::new(make(argument)?))
}
