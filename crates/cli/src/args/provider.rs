//! The flags of `provider`.

use clap::{Args, Subcommand};
use std::path::PathBuf;

/// The flags of `provider`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  alpine provider list
  alpine provider inspect ./target/release/libacme.so
  alpine provider add ./target/release/libacme.so --name acme
  alpine provider check acme
  alpine up . --branch main --provider acme
  alpine provider remove acme

A provider that was added is trusted code: it can do what you can do. Settings of your own for it belong into
`[providers.NAME]` of config.toml.")]
pub(crate) struct ProviderArgs {
    /// What to do with them
    #[command(subcommand)]
    pub(crate) command: ProviderCommand,
}

/// What to do with providers.
#[derive(Debug, Subcommand)]
pub(crate) enum ProviderCommand {
    /// List the providers: those compiled in, those added, and those of config.toml; runs nothing
    List,
    /// Show what a library or a program says of itself; runs nothing of it
    Inspect {
        /// The file
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Copy a library or a program into the store, and pin its digest
    Add {
        /// The file
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// What to call it: up to 64 of a-z, 0-9 and - [default: the library's own name, or the file's]
        #[arg(long, value_name = "NAME")]
        name: Option<String>,
    },
    /// Remove a provider that was added; refused while a session needs it
    Remove {
        /// Its name
        #[arg(value_name = "NAME")]
        name: String,
    },
}
