//! The command `alpine`.

use std::process::ExitCode;

fn main() -> ExitCode {
    alpine_cli::main()
}
