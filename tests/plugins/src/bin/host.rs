//! Loads a library in a process of its own, or serves a session's address: what a program does that has providers.

use std::process::ExitCode;

fn main() -> ExitCode {
    alpine_provider_local::reexecuted()
        .or_else(alpine_provider_port::hosted)
        .unwrap_or(ExitCode::FAILURE)
}
