//! Loads a library in a process of its own, and does nothing else.

use std::process::ExitCode;

fn main() -> ExitCode {
    alpine_provider_port::hosted().unwrap_or(ExitCode::FAILURE)
}
