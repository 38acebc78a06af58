//! What the tests start as supervisor and gateway.

use std::process::ExitCode;

fn main() -> ExitCode {
    alpine_provider_local::reexecuted().unwrap_or(ExitCode::FAILURE)
}
