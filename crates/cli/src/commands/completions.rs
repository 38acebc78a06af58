//! `completions`: a shell's script.

use crate::args::{Cli, CompletionsArgs};
use crate::run::text_or_document;
use crate::work::Work;
use alpine_lifecycle::Failure;
use clap::CommandFactory;

pub(crate) fn run(work: &Work, args: &CompletionsArgs) -> Result<u8, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "alpine", &mut script);
    text_or_document(&work.output, String::from_utf8_lossy(&script).into_owned());
    Ok(0)
}
