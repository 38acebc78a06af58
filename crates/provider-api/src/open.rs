//! What a provider that is not compiled in is opened with.

use crate::{ErrorKind, ProviderError};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// What a provider is opened with.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenRequest {
    /// The user's own table, `[providers.NAME.config]`.
    #[serde(default)]
    pub config: Value,
    /// Where it may keep things.
    #[serde(default)]
    pub place: Place,
}

impl OpenRequest {
    /// The user's table as a type of the provider's own; without a table, from an empty one.
    ///
    /// # Errors
    /// `ConfigInvalid` where it has another shape, with the key.
    pub fn table<T: DeserializeOwned>(&self) -> Result<T, ProviderError> {
        let table = if self.config.is_null() {
            Value::Object(serde_json::Map::new())
        } else {
            self.config.clone()
        };
        serde_path_to_error::deserialize(table).map_err(|error| {
            let at = match error.path().to_string() {
                // The table itself.
                path if path == "." => String::new(),
                path => format!(" at `{path}`"),
            };
            let what = error.inner();
            let message = format!("its configuration is not what it takes{at}: {what}");
            ProviderError::new(ErrorKind::ConfigInvalid, message)
        })
    }
}

/// Where a provider may keep things on this machine, and what it may find there. None of it is secret.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Place {
    /// The name it is configured by.
    pub name: String,
    /// A directory of its own, for state and staging: it need not be there yet.
    pub state: PathBuf,
    /// The directory of durable objects.
    pub objects: PathBuf,
    /// The directory of repository caches.
    pub cache: PathBuf,
    /// The directory of sockets.
    pub run: PathBuf,
    /// The program `alpine` itself, to be executed anew where a supervisor or a gateway is wanted.
    pub executable: PathBuf,
    /// The variables that sandboxes start with.
    pub env: BTreeMap<String, String>,
}

#[cfg(test)]
mod tests {
    use super::OpenRequest;
    use serde::Deserialize;
    use serde_json::{Value, json};

    #[derive(Debug, Deserialize)]
    struct Table {
        #[serde(default, rename = "regions")]
        _regions: Vec<u8>,
    }

    #[test]
    fn a_table_of_another_shape_is_told_by_the_key() {
        let told = |config: Value| {
            let request = OpenRequest {
                config,
                ..OpenRequest::default()
            };
            request.table::<Table>().map_err(|error| error.message)
        };
        assert!(told(Value::Null).is_ok());
        let message = told(json!({ "regions": [1, "x"] })).unwrap_err();
        assert_eq!(
            message,
            "its configuration is not what it takes at `regions[1]`: invalid type: string \"x\", expected u8"
        );
        let message = told(json!(7)).unwrap_err();
        assert!(
            message.starts_with("its configuration is not what it takes: "),
            "{message}"
        );
    }
}
