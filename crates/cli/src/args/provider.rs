//! The flags of `provider`.

use crate::config::duration;
use clap::{Args, Subcommand};
use std::path::PathBuf;
use std::time::Duration;

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
    /// Run the conformance kit: does a provider keep the contract?
    Check(CheckArgs),
    /// Remove a provider that was added; refused while a session needs it
    Remove {
        /// Its name
        #[arg(value_name = "NAME")]
        name: String,
    },
}

/// The flags of `provider check`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  alpine provider check acme
  alpine provider check ./target/release/libacme.so --only exec
  alpine provider check acme --fresh --junit report.xml --json
  alpine provider check cloud --call-limit 10m --points 5

It works in a temporary place: nothing of your sessions is touched. But a provider that is given by its name has your
[providers.NAME.config]: a directory or an engine that this names is used, and small files stay there. Give its file instead,
which is checked without a configuration, or name a directory for the check there. The exit status is 1 when a sentence of the
contract is broken. A provider that alpine adds to is checked twice: as it is reached, then with what alpine adds.")]
pub(crate) struct CheckArgs {
    /// A provider's name, or a library's or a program's file
    #[arg(value_name = "NAME|FILE")]
    pub(crate) provider: String,
    /// Only the checks whose name holds this text (repeatable)
    #[arg(long, value_name = "TEXT")]
    pub(crate) only: Vec<String>,
    /// A fresh process before every call
    #[arg(long)]
    pub(crate) fresh: bool,
    /// What random choices follow from
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) seed: u64,
    /// How many calls are struck, at random moments, by a kill of its process, and how many by their caller giving up
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) points: u32,
    /// How long one call may take, for example 5m: more where making a sandbox takes minutes [default: 60s]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(crate) call_limit: Option<Duration>,
    /// Write the report as JUnit XML, too
    #[arg(long, value_name = "FILE")]
    pub(crate) junit: Option<PathBuf>,
}
