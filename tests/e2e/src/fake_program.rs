//! The fake provider as a program that speaks frames.

use std::process::ExitCode;

fn main() -> ExitCode {
    alpine_provider_port::serve("fake", "1.0.0", alpine_fake_plugin::make)
}
