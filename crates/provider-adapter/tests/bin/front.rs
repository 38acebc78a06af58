//! What the tests start to serve a session's address.

use std::process::ExitCode;

fn main() -> ExitCode {
    alpine_provider_local::reexecuted().unwrap_or(ExitCode::FAILURE)
}
