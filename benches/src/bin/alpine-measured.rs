//! The program that is measured.

use std::process::ExitCode;

fn main() -> ExitCode {
    alpine_cli::main_with(alpine_e2e::setup())
}
