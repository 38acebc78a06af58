//! From an argument list to a command, or to the failure that says what is wrong with it.

use crate::args::Cli;
use alpine_lifecycle::{ErrorCode, Failure, quoted};
use clap::Parser;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use std::ffi::OsString;

/// What an argument list asks for.
#[derive(Debug)]
pub(crate) enum Asked {
    /// A command.
    Command(Box<Cli>),
    /// A text: help, or the version.
    Text(String),
    /// The version alone.
    Version,
}

/// Whether results are to be JSON: known before anything else, so that even a malformed call fails as it should.
pub(crate) fn wants_json(arguments: &[OsString]) -> bool {
    own(arguments).any(|argument| argument == "--json")
}

/// Whether the call is one of `exec`, whose own failures have an exit status of their own.
pub(crate) fn is_exec(arguments: &[OsString]) -> bool {
    first_word(arguments).is_some_and(|word| word == "exec")
}

/// Parses the arguments, without the program's name.
pub(crate) fn parse(arguments: &[OsString]) -> Result<Asked, Failure> {
    if let Some(wrong) = arguments
        .iter()
        .find(|argument| argument.to_str().is_none())
    {
        let cause = format!("the argument `{}` is not UTF-8", wrong.to_string_lossy());
        return Err(usage(cause, "alpine --help"));
    }
    if arguments.is_empty() {
        return Ok(Asked::Text(help()));
    }
    if let Some(failure) = replaced(arguments) {
        return Err(failure);
    }
    let program = OsString::from("alpine");
    // `help` is clap's own, and takes no flags.
    let is_help = first_word(arguments).is_some_and(|word| word == "help");
    let arguments_of_clap = arguments
        .iter()
        .filter(|argument| !(is_help && *argument == "--json"));
    match Cli::try_parse_from(std::iter::once(&program).chain(arguments_of_clap)) {
        Ok(cli) => Ok(Asked::Command(Box::new(cli))),
        Err(error) if error.kind() == ErrorKind::DisplayHelp => {
            Ok(Asked::Text(error.render().to_string()))
        }
        Err(error) if error.kind() == ErrorKind::DisplayVersion => Ok(Asked::Version),
        Err(error) => Err(told(&error, arguments)),
    }
}

/// Whether the version alone is asked for: so often, by so many scripts, that no command line is parsed for it.
pub(crate) fn is_version(arguments: &[OsString]) -> bool {
    let version = |argument: &OsString| argument == "--version" || argument == "-V";
    let mut rest = arguments.iter().filter(|argument| *argument != "--json");
    rest.next().is_some_and(version) && rest.next().is_none()
}

/// A malformed call.
pub(crate) fn usage(cause: impl Into<String>, next_step: &str) -> Failure {
    Failure::new(ErrorCode::Usage, cause).next(next_step)
}

fn help() -> String {
    <Cli as clap::CommandFactory>::command()
        .render_help()
        .to_string()
}

/// The arguments that are alpine's own: those before `--`.
fn own(arguments: &[OsString]) -> impl Iterator<Item = &OsString> {
    arguments.iter().take_while(|argument| *argument != "--")
}

/// The command: what comes after the flags that every command takes.
fn first_word(arguments: &[OsString]) -> Option<&OsString> {
    let mut own = own(arguments);
    loop {
        let argument = own.next()?;
        if argument == "--lock-timeout" {
            let _value = own.next();
        } else if argument != "--json" && !is_lock_timeout(argument) {
            return Some(argument);
        }
    }
}

/// Whether it is the flag with its value.
fn is_lock_timeout(argument: &OsString) -> bool {
    let text = argument.to_str();
    text.is_some_and(|text| text.starts_with("--lock-timeout="))
}

/// clap's error in our words.
fn told(error: &clap::Error, arguments: &[OsString]) -> Failure {
    let command = first_word(arguments)
        .and_then(|word| word.to_str())
        .unwrap_or_default();
    let known = <Cli as clap::CommandFactory>::command();
    let next = if known.find_subcommand(command).is_some() {
        format!("alpine {command} --help")
    } else {
        "alpine --help".to_owned()
    };
    let rendered = error.render().to_string();
    let first = rendered.split("\n\n").next().unwrap_or_default();
    let cause = first
        .trim()
        .trim_start_matches("error: ")
        .lines()
        .map(str::trim)
        .collect::<Vec<_>>()
        .join(" ");
    let about_branch = matches!(error.get(ContextKind::InvalidArg), Some(ContextValue::String(argument)) if argument.starts_with("--branch"));
    if error.kind() == ErrorKind::InvalidValue
        && about_branch
        && matches!(error.get(ContextKind::InvalidValue), Some(ContextValue::String(value)) if value.is_empty())
    {
        return Failure::new(ErrorCode::BranchRequired, "`--branch` has no value")
            .next("alpine up <git-repo> --branch <branch>");
    }
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        return usage(
            format!("`alpine {command}` needs to be told what to do"),
            &next,
        );
    }
    usage(cause, &next)
}

/// A word of a call in a command to paste. A URL's query is not repeated, since it may hold a secret; the redactor takes out
/// what else may be one.
pub(crate) fn repeated(word: &str) -> String {
    if word.contains("://") && word.contains(['?', '#']) {
        "<git-repo>".to_owned()
    } else {
        quoted(word)
    }
}

/// The commands of the predecessor, in the new form.
fn replaced(arguments: &[OsString]) -> Option<Failure> {
    let old = first_word(arguments)?.to_str()?;
    let new = match old {
        "create" => "up",
        "teardown" => "down",
        _ => return None,
    };
    let at = arguments.iter().position(|argument| argument == old)?;
    let rest = arguments
        .iter()
        .enumerate()
        .filter(|(index, _)| *index != at);
    // `create` took the repository as a flag.
    let words: Vec<_> = rest
        .map(|(_, argument)| argument.to_string_lossy())
        .filter(|word| new != "up" || word != "--repo")
        .map(|word| match word.strip_prefix("--repo=") {
            Some(repo) if new == "up" => repeated(repo),
            Some(_) | None => repeated(&word),
        })
        .collect();
    let call = [&["alpine".to_owned(), new.to_owned()][..], &words]
        .concat()
        .join(" ");
    Some(
        Failure::new(
            ErrorCode::CommandReplaced,
            format!("`alpine {old}` is `alpine {new}` now"),
        )
        .next(call),
    )
}

#[cfg(test)]
mod tests {
    use super::{Asked, is_exec, is_version, parse, wants_json};
    use proptest::prelude::*;
    use std::ffi::OsString;
    use std::os::unix::ffi::OsStringExt;

    fn words(text: &str) -> Vec<OsString> {
        text.split_whitespace().map(OsString::from).collect()
    }

    #[test]
    fn json_and_exec_are_seen_even_in_malformed_calls() {
        assert!(wants_json(&words("up --nonsense --json")));
        assert!(!wants_json(&words("exec x -- ls --json")));
        assert!(is_exec(&words("--json exec")));
        assert!(is_exec(&words("--lock-timeout 2s --json exec")));
        assert!(is_exec(&words("--lock-timeout=2s exec")));
        assert!(!is_exec(&words("--lock-timeout exec")));
        assert!(!is_exec(&words("list exec")));
    }

    #[test]
    fn what_is_asked_for() {
        assert!(is_version(&words("--version")) && is_version(&words("--json -V")));
        assert!(!is_version(&words("--json")) && !is_version(&words("--version list")));
        assert!(matches!(
            parse(&words("--json --version --json")),
            Ok(Asked::Version)
        ));
        assert!(matches!(parse(&words("up --help")), Ok(Asked::Text(_))));
        assert!(matches!(parse(&[]), Ok(Asked::Text(_))));
        assert!(matches!(parse(&words("list --all")), Ok(Asked::Command(_))));
    }

    #[test]
    fn what_is_wrong() {
        for (call, code, next) in [
            ("frob", "ERR_USAGE", "alpine --help"),
            ("--json", "ERR_USAGE", "alpine --help"),
            ("list --frob", "ERR_USAGE", "alpine list --help"),
            (
                "--lock-timeout soon list",
                "ERR_USAGE",
                "alpine list --help",
            ),
            ("list --lock-timeout 0s", "ERR_USAGE", "alpine list --help"),
            (
                "--lock-timeout 2s create . --branch main",
                "ERR_COMMAND_REPLACED",
                "alpine up --lock-timeout 2s . --branch main",
            ),
            ("up", "ERR_USAGE", "alpine up --help"),
            (
                "create . --branch it's",
                "ERR_COMMAND_REPLACED",
                r"alpine up . --branch 'it'\''s'",
            ),
            (
                "create --repo . --branch main",
                "ERR_COMMAND_REPLACED",
                "alpine up . --branch main",
            ),
            (
                "create --branch main --repo=.",
                "ERR_COMMAND_REPLACED",
                "alpine up --branch main .",
            ),
            (
                "--json teardown x",
                "ERR_COMMAND_REPLACED",
                "alpine down --json x",
            ),
        ] {
            let failure = parse(&words(call)).unwrap_err();
            if code == "ERR_COMMAND_REPLACED" && !next.contains('\'') {
                let again = words(next.trim_start_matches("alpine "));
                assert!(matches!(parse(&again), Ok(Asked::Command(_))), "{next}");
            }
            assert_eq!(
                (
                    failure.code.as_str(),
                    failure.next_step.as_str(),
                    failure.exit_code
                ),
                (code, next, 1),
                "{call}"
            );
        }
        let failure = parse(&[OsString::from_vec(vec![b'a', 0xff])]).unwrap_err();
        assert_eq!(failure.code.as_str(), "ERR_USAGE");
    }

    proptest! {
        #[test]
        fn no_arguments_panic(arguments in prop::collection::vec(prop::collection::vec(1u8..=255, 0..12), 0..6)) {
            let arguments: Vec<_> = arguments.into_iter().map(OsString::from_vec).collect();
            let _ = (wants_json(&arguments), is_exec(&arguments), parse(&arguments));
        }
    }
}
