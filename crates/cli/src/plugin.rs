//! Providers that are not compiled in: checked, and opened, when the first call needs them.

use crate::config::ProviderTable;
use alpine_lifecycle::{ErrorCode, Failure};
use alpine_provider_store::{Expectation, Refusal, Vetted, vet};
use std::ops::RangeInclusive;

/// The versions of the boundary that this program speaks.
const ABI: RangeInclusive<u32> = 1..=1;

/// Checks a provider's file as its table has it. Nothing of it is loaded or run.
pub(crate) fn vet_provider(name: &str, table: &ProviderTable) -> Result<Vetted, Failure> {
    let Some(file) = &table.file else {
        let cause = format!(
            "provider `{name}` has settings, but no file: it was not added, and `[providers.{name}]` names no `path`"
        );
        let next = format!("alpine provider add FILE --name {name}");
        return Err(Failure::new(ErrorCode::ProviderNotFound, cause).next(next));
    };
    let expected = Expectation {
        kind: file.value.kind,
        isolation: table.isolation(),
        abi: ABI,
        sha256: file.value.sha256.clone(),
    };
    vet(&file.value.path, &expected).map_err(|refusal| refused(Some(name), &refusal))
}

/// A refusal as the user sees it.
pub(crate) fn refused(name: Option<&str>, refusal: &Refusal) -> Failure {
    let code = if refusal.is_not_there() {
        ErrorCode::ProviderNotFound
    } else {
        ErrorCode::ProviderIncompatible
    };
    let who = name.map_or("the file".to_owned(), |name| format!("provider `{name}`"));
    Failure::new(code, format!("{who} is refused: {refusal}")).next(&refusal.remedy)
}
