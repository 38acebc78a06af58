//! The flags of `ledger`.

use clap::{Args, Subcommand};
use std::path::PathBuf;

/// The flags of `ledger`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  alpine ledger check
  alpine ledger repair
  alpine ledger backup
  alpine ledger export ledger.jsonl
  alpine ledger import ledger.jsonl
  alpine ledger compact --json")]
pub(crate) struct LedgerArgs {
    /// What to do with it
    #[command(subcommand)]
    pub(crate) command: LedgerCommand,
}

/// What to do with the ledger.
#[derive(Debug, Subcommand)]
pub(crate) enum LedgerCommand {
    /// Look at every record, and whether they agree; changes nothing
    Check {
        /// Look at every page of a copy of the file, too
        #[arg(long)]
        deep: bool,
    },
    /// Keep a copy of a damaged ledger, and make a new one of all that is sound in it
    Repair,
    /// Write a copy of the ledger that `import` takes; a file that is there is never overwritten
    Backup {
        /// The new file [default: one beside the ledger, named after the time]
        #[arg(value_name = "FILE")]
        file: Option<PathBuf>,
    },
    /// Write the ledger as JSON Lines, the last of which has the BLAKE3 digest of the others
    Export {
        /// The new file; - for standard output
        #[arg(value_name = "FILE", default_value = "-")]
        file: PathBuf,
    },
    /// Make the ledger of an export, of a backup, or of the predecessor's sessions.json
    Import {
        /// The file
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Let go of what is kept no longer, and give back the room that it took
    Compact {
        /// Write the file anew, however small it is
        #[arg(long)]
        force: bool,
    },
}
