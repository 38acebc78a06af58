//! The store's failures, in the words of providers.

use crate::id::ObjectId;
use alpine_provider_api::{ErrorKind, ProviderError};
use object_store::path::Path as Key;
use std::error::Error;
use std::io;
use std::path::Path;

/// A failure of the store on one of an object's files.
pub(crate) fn failed(what: &str, key: &Key, error: &object_store::Error) -> ProviderError {
    let what = format!("can't {what} `{key}` in the store of durable objects");
    let mut source: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = source {
        if let Some(system) = error.downcast_ref::<io::Error>()
            && system.raw_os_error().is_some()
        {
            return hinted(ProviderError::io(what, system), system, None);
        }
        source = error.source();
    }
    ProviderError::new(ErrorKind::Io, format!("{what}: {error}"))
}

/// A failure of the store's own directory.
pub(crate) fn io(what: &str, path: &Path, error: &io::Error) -> ProviderError {
    hinted(
        ProviderError::io(format!("can't {what} `{}`", path.display()), error),
        error,
        Some(path),
    )
}

fn hinted(failed: ProviderError, error: &io::Error, path: Option<&Path>) -> ProviderError {
    use io::ErrorKind::{PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    let kind = error.kind();
    let command = if matches!(kind, PermissionDenied | ReadOnlyFilesystem) {
        "ls -ld"
    } else if matches!(kind, StorageFull | QuotaExceeded) {
        "df -h"
    } else {
        return failed;
    };
    failed.hint(match path {
        Some(path) => {
            let quoted = path.display().to_string().replace('\'', r"'\''");
            format!("{command} '{quoted}'")
        }
        // It says where the durable objects are.
        None => "alpine config".to_owned(),
    })
}

/// What was read is not what was written.
pub(crate) fn corrupt(id: &ObjectId, why: &str) -> ProviderError {
    ProviderError::new(
        ErrorKind::Corrupt,
        format!("the durable object `{id}` is damaged: {why}"),
    )
}
