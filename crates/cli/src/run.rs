//! From `main` to the exit status.

use crate::args::Command;
use crate::commands;
use crate::config::{Config, Variables, provider_secrets};
use crate::ended;
use crate::log;
use crate::output::{Output, Stream};
use crate::parse::{self, Asked};
use crate::program;
use crate::setup::Setup;
use crate::view::{TextDocument, VERSION, VersionDocument};
use crate::work::Work;
use alpine_lifecycle::{ErrorCode, Failure};
use alpine_provider_api::Redactor;
use std::any::Any;
use std::ffi::OsString;
use std::panic::{self, AssertUnwindSafe};
use std::process::ExitCode;

/// The exit status of `exec` when alpine itself failed.
const EXEC_FAILED: u8 = 125;

/// The shipped program.
#[must_use]
pub fn main() -> ExitCode {
    main_with(Setup::default())
}

/// The program, with what `setup` brings along. Nothing may have been started before: this process may be a supervisor, or
/// a provider's.
#[must_use]
pub fn main_with(setup: Setup) -> ExitCode {
    let reexecuted = alpine_provider_local::reexecuted();
    if let Some(code) = reexecuted.or_else(alpine_provider_port::hosted) {
        return code;
    }
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    let json = parse::wants_json(&arguments);
    if parse::is_version(&arguments) {
        version(&Output::new(json, true, Redactor::default()));
        return ExitCode::SUCCESS;
    }
    let variables = Variables::read();
    let mut secrets = variables.secrets();
    secrets.extend(provider_secrets(&variables));
    let mut output = Output::new(json, variables.has("NO_COLOR"), Redactor::new(&secrets));
    if !json {
        output.program = program::name(&setup, &variables);
    }
    // A panic is told as the failure that it becomes, by whoever catches it.
    panic::set_hook(Box::new(|panic| tracing::error!("{panic}")));
    let work = Work {
        setup,
        variables: variables.clone(),
        secrets,
        output: output.clone(),
        lock_timeout: None,
    };
    let telling = (output.clone(), arguments.clone());
    ended::told_by(move |failure| tell(&telling.0, failure, &telling.1));
    let done = panic::catch_unwind(AssertUnwindSafe(|| run(work, &arguments)));
    let code = match done.unwrap_or_else(|payload| Err(panicked(payload.as_ref()))) {
        Ok(code) => code,
        Err(failure) => tell(&output, with_pins(failure, &variables), &arguments),
    };
    ended::exit(code)
}

/// A provider that is not found may be one whose pin can't be read: that comes first.
fn with_pins(mut failure: Failure, variables: &Variables) -> Failure {
    if failure.code == ErrorCode::ProviderNotFound
        && let Ok(config) = Config::lenient(variables)
        && let Some(refused) = config.pins_refused
    {
        failure.cause = format!("{}; {}", failure.cause, refused.cause);
        failure.next_step = refused.next_step;
    }
    failure
}

/// Tells a failure, and gives its exit status.
fn tell(output: &Output, mut failure: Failure, arguments: &[OsString]) -> u8 {
    let exec = parse::is_exec(arguments);
    if exec {
        failure.exit_code = EXEC_FAILED;
    }
    // The standard output of `exec` is the command's.
    output.failure(&failure, if exec { Stream::Stderr } else { Stream::Stdout });
    failure.exit_code
}

fn run(mut work: Work, arguments: &[OsString]) -> Result<u8, Failure> {
    let asked = parse::parse(arguments)?;
    let cli = match asked {
        Asked::Command(cli) => cli,
        Asked::Text(text) => {
            text_or_document(&work.output, text);
            return Ok(0);
        }
        Asked::Version => {
            version(&work.output);
            return Ok(0);
        }
    };
    work.lock_timeout = cli.lock_timeout;
    log::start(&work.variables, &work.output.redactor)?;
    match cli.command {
        Command::Up(args) => commands::up::run(work, args),
        Command::Down(args) => commands::down::run(&work, args),
        Command::Reconcile(args) => commands::reconcile::run(&work, args),
        Command::List(args) => commands::list::run(&work, &args),
        Command::Status(args) => commands::status::run(work, &args),
        Command::Exec(args) => commands::exec::run(&work, args),
        Command::Logs(args) => commands::logs::run(&work, &args),
        Command::Open(args) => commands::open::run(&work, &args),
        Command::Events(args) => commands::events::run(&work, &args),
        Command::Ops(args) => commands::ops::run(&work, &args),
        Command::Audit(args) => commands::audit::run(&work, &args),
        Command::Stats(args) => commands::stats::run(&work, &args),
        Command::Ledger(args) => commands::ledger::run(&work, &args.command),
        Command::Provider(args) => commands::provider::run(&work, &args.command),
        Command::Config => commands::config::run(&work),
        Command::Completions(args) => commands::completions::run(&work, &args),
    }
}

fn version(output: &Output) {
    let version = env!("CARGO_PKG_VERSION");
    if output.json {
        output.document(&VersionDocument {
            schema_version: VERSION,
            version,
        });
    } else {
        output.text(&format!("alpine {version}"));
    }
}

/// A text for people, which with `--json` is a document too.
pub(crate) fn text_or_document(output: &Output, text: String) {
    if output.json {
        output.document(&TextDocument {
            schema_version: VERSION,
            text,
        });
    } else {
        output.raw(format!("{}\n", text.trim_end()).as_bytes());
    }
}

fn panicked(payload: &(dyn Any + Send)) -> Failure {
    let text = payload.downcast_ref::<String>().map(String::as_str);
    let said = text
        .or_else(|| payload.downcast_ref::<&str>().copied())
        .unwrap_or("no reason given");
    Failure::new(ErrorCode::Internal, format!("a bug: {said}"))
        .next("report this with the output of the same command under `ALPINE_LOG=debug`")
}

#[cfg(test)]
mod tests {
    use super::panicked;
    use std::panic;

    #[test]
    fn a_panic_is_told_as_a_bug() {
        let payload = panic::catch_unwind(|| panic!("number {}", 7)).unwrap_err();
        let failure = panicked(payload.as_ref());
        assert_eq!(
            (failure.code.as_str(), failure.exit_code, failure.retryable),
            ("ERR_INTERNAL", 2, false)
        );
        assert_eq!(failure.cause, "a bug: number 7");
        assert!(!failure.next_step.is_empty());
    }
}
