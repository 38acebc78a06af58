//! The repository's `.alpine.toml`: what it may say about its own setup, and nothing beyond that.

use crate::detect::Plan;
use alpine_files as file;
use alpine_provider_api::{ErrorKind, ProviderError};
use std::path::Path;
use toml::de::{DeTable, DeValue};

/// The file's name.
pub const NAME: &str = ".alpine.toml";
/// All that it may say.
pub const EXAMPLE: &str = "[setup]\ninstall = \"make deps\"  # a command for `sh -c`, or a program and its arguments: [\"make\", \"deps\"]\n";
/// How large it may be.
pub const LARGEST: u64 = 64 * 1024;

/// The install command that the repository names; none when it names none.
pub(crate) fn read(workspace: &Path) -> Result<Option<Plan>, ProviderError> {
    let path = workspace.join(NAME);
    // A link could lead out of the repository.
    if path.is_symlink() {
        return Err(invalid(format!(
            "`{NAME}` is a symbolic link, which is not followed: it has to be a file"
        )));
    }
    let text = file::read_small(&path, LARGEST)
        .map_err(|source| invalid(format!("`{NAME}`: {source}")))?;
    let Some(text) = text else { return Ok(None) };
    let text = String::from_utf8(text).map_err(|_| invalid(format!("`{NAME}` is not UTF-8")))?;
    parse(&text)
}

fn parse(text: &str) -> Result<Option<Plan>, ProviderError> {
    let file = DeTable::parse(text).map_err(|source| {
        let line = source.span().map_or(1, |span| line_of(text, span.start));
        invalid(format!("`{NAME}` line {line}: {}", source.message()))
    })?;
    let mut plan = None;
    for (key, value) in file.get_ref() {
        let line = line_of(text, key.span().start);
        match (key.get_ref().as_ref(), value.get_ref()) {
            ("setup", DeValue::Table(setup)) => plan = self::setup(text, setup)?,
            ("setup", _) => {
                return Err(invalid(format!(
                    "`{NAME}` line {line}: `setup` is no table"
                )));
            }
            (name, _) => return Err(refused(line, name)),
        }
    }
    Ok(plan)
}

fn refused(line: usize, name: &str) -> ProviderError {
    let reason = match name {
        "isolation" | "network" | "mounts" | "env" | "env_pass" | "provider" | "agent"
        | "sandbox" => "a repository may not choose it; the user's own configuration does",
        _ => "is not known; a repository may only say `[setup]`",
    };
    invalid(format!("`{NAME}` line {line}: `{name}`: {reason}"))
}

fn setup(text: &str, table: &DeTable<'_>) -> Result<Option<Plan>, ProviderError> {
    let mut plan = None;
    for (key, value) in table {
        let line = line_of(text, key.span().start);
        let name = key.get_ref().as_ref();
        if name != "install" {
            return Err(invalid(format!(
                "`{NAME}` line {line}: `setup.{name}` is not known; known here: `install`"
            )));
        }
        let argv = install(value.get_ref()).ok_or_else(|| {
            let wanted = "a command, or an array of a program and its arguments";
            invalid(format!(
                "`{NAME}` line {line}: `setup.install` is not {wanted}"
            ))
        })?;
        plan = Some(argv);
    }
    Ok(plan)
}

fn install(value: &DeValue<'_>) -> Option<Plan> {
    let (argv, command) = match value {
        DeValue::String(command) if fits(command) && !command.trim().is_empty() => {
            let argv = ["sh", "-c", command.as_ref()].map(str::to_owned).to_vec();
            (argv, command.as_ref().to_owned())
        }
        DeValue::Array(words) => {
            let words: Option<Vec<String>> = words
                .iter()
                .map(|word| {
                    word.get_ref()
                        .as_str()
                        .filter(|word| fits(word))
                        .map(str::to_owned)
                })
                .collect();
            let words = words.filter(|words| words.first().is_some_and(|word| !word.is_empty()))?;
            let command = words.join(" ");
            (words, command)
        }
        DeValue::String(_)
        | DeValue::Integer(_)
        | DeValue::Float(_)
        | DeValue::Boolean(_)
        | DeValue::Datetime(_)
        | DeValue::Table(_) => return None,
    };
    Some(Plan {
        argv,
        command,
        found_by: NAME.to_owned(),
    })
}

/// Whether a word can be an argument at all.
fn fits(word: &str) -> bool {
    !word.contains('\0')
}

fn line_of(text: &str, at: usize) -> usize {
    let before = text.as_bytes().get(..at).unwrap_or_default();
    1 + before.iter().filter(|&&byte| byte == b'\n').count()
}

fn invalid(message: String) -> ProviderError {
    ProviderError::new(ErrorKind::ConfigInvalid, message)
}

#[cfg(test)]
mod tests {
    use super::{EXAMPLE, parse};
    use alpine_provider_api::ErrorKind;

    #[test]
    fn what_a_repository_may_say() {
        let plan = parse("[setup]\ninstall = \"make deps && true\"\n").unwrap();
        let plan = plan.unwrap();
        assert_eq!(plan.argv, ["sh", "-c", "make deps && true"]);
        assert_eq!(plan.command, "make deps && true");
        let plan = parse("setup.install = ['make', 'deps']").unwrap();
        assert_eq!(plan.unwrap().argv, ["make", "deps"]);
        let plan = parse(EXAMPLE).unwrap().unwrap();
        assert_eq!(plan.command, "make deps");
        assert!(parse("").unwrap().is_none());
        assert!(parse("[setup]").unwrap().is_none());
    }

    #[test]
    fn what_it_may_not_say_is_named_with_its_line() {
        for (text, line, word) in [
            (
                "\n\n[network]\nmode = 'full'",
                3,
                "`network`: a repository may not",
            ),
            (
                "[setup]\nrun = 'x'",
                2,
                "`setup.run` is not known; known here: `install`",
            ),
            (
                "[setup]\n\ninstall = 7",
                3,
                "`setup.install` is not a command",
            ),
            (
                "[setup]\ninstall = []",
                2,
                "`setup.install` is not a command",
            ),
            (
                "[setup]\ninstall = ['a', 1]",
                2,
                "`setup.install` is not a command",
            ),
            (
                "[setup]\ninstall = ' '",
                2,
                "`setup.install` is not a command",
            ),
            ("setup = 1", 1, "`setup` is no table"),
            ("x = 1", 1, "`x`: is not known"),
            ("[setup]\ninstall = ", 2, "line 2"),
        ] {
            let error = parse(text).unwrap_err();
            assert_eq!(error.kind, ErrorKind::ConfigInvalid);
            let message = error.message;
            assert!(
                message.contains(&format!("line {line}")),
                "{text}: {message}"
            );
            assert!(message.contains(word), "{text}: {message}");
        }
    }
}
