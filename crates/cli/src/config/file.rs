//! `config.toml`: what it may say, and what must be true of the file before it is believed.

use super::Origin;
use super::providers::ProviderTables;
use super::table::{Source, Table};
use crate::agents::Agents;
use alpine_lifecycle::{ErrorCode, Failure, Limits, quoted};
use rustix::fs::{Mode, OFlags};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

/// The most bytes a configuration may have.
const LARGEST: u64 = 1024 * 1024;

/// What the file says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct FileSettings {
    pub(super) principal: Option<String>,
    pub(super) lock_timeout: Option<Duration>,
    pub(super) allow_network_fs: Option<bool>,
    pub(super) limits: BTreeMap<&'static str, Duration>,
    pub(super) tries: Option<u32>,
    pub(super) token_hosts: Option<Vec<String>>,
    pub(super) agent: Option<String>,
    pub(super) pass: Option<Vec<String>>,
    pub(super) provider: Option<String>,
    pub(super) provider_refused: Option<Failure>,
    pub(super) browser_command: Option<String>,
    pub(super) browser_open: Option<bool>,
}

/// Reads the file, if there is one; its agents and providers are added to those that are known.
pub(crate) fn read(
    path: &Path,
    agents: &mut Agents,
    providers: &mut ProviderTables,
) -> Result<FileSettings, Failure> {
    match text(path)? {
        Some(text) => parse(Source { path, text: &text }, agents, providers),
        None => Ok(FileSettings::default()),
    }
}

/// The text of a file of configuration, if there is one that is fit to be believed.
pub(super) fn text(path: &Path) -> Result<Option<String>, Failure> {
    // Without `NONBLOCK`, opening a named pipe would wait for its other end.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(rustix::io::Errno::NOENT) => return Ok(None),
        Err(error) => return Err(refuse(path, &format!("can't be opened: {error}"), "ls -l")),
    };
    let found = file
        .metadata()
        .map_err(|error| refuse(path, &error.to_string(), "ls -l"))?;
    if !found.is_file() {
        return Err(refuse(path, "is not a regular file", "ls -l"));
    }
    if found.uid() != rustix::process::geteuid().as_raw() {
        return Err(refuse(
            path,
            "belongs to another user",
            "sudo chown \"$(id -u)\"",
        ));
    }
    if found.mode() & 0o022 != 0 {
        return Err(refuse(path, "may be written by others", "chmod go-w"));
    }
    let mut text = Vec::new();
    let read = file.take(LARGEST + 1).read_to_end(&mut text);
    read.map_err(|error| refuse(path, &format!("can't be read: {error}"), "ls -l"))?;
    if text.len() as u64 > LARGEST {
        return Err(refuse(path, "is larger than 1 MiB", "ls -l"));
    }
    let text = String::from_utf8(text).map_err(|_| refuse(path, "is not UTF-8", "file"))?;
    Ok(Some(text))
}

fn refuse(path: &Path, why: &str, command: &str) -> Failure {
    let shown = path.display().to_string();
    Failure::new(ErrorCode::ConfigInvalid, format!("`{shown}` {why}"))
        .next(format!("{command} {}", quoted(&shown)))
}

fn parse(
    source: Source<'_>,
    agents: &mut Agents,
    providers: &mut ProviderTables,
) -> Result<FileSettings, Failure> {
    let mut top = source.parse()?;
    let mut settings = FileSettings::default();
    if let Some((principal, at)) = top.text_at("principal")? {
        super::principal(&principal).map_err(|why| top.refuse("principal", &at, why))?;
        settings.principal = Some(principal).filter(|principal| !principal.trim().is_empty());
    }
    if let Some(mut table) = top.table("ledger")? {
        settings.lock_timeout = table.duration("lock_timeout")?;
        settings.allow_network_fs = table.flag("allow_network_fs")?;
        table.finish()?;
    }
    if let Some(table) = top.table("limits")? {
        limits(table, &mut settings)?;
    }
    if let Some(mut table) = top.table("git")? {
        settings.token_hosts = names(&mut table, "token_hosts", "a host's name", is_host)?;
        table.finish()?;
    }
    if let Some(table) = top.table("agents")? {
        agents.read(table, Origin::File)?;
    }
    if let Some(table) = top.table("agent")? {
        settings.agent = agent(table, agents)?;
    }
    if let Some(mut table) = top.table("env")? {
        settings.pass = names(&mut table, "pass", "a variable's name", is_variable)?;
        table.finish()?;
    }
    if let Some(mut table) = top.table("provider")? {
        let at = table.place("default");
        settings.provider = table.text("default")?;
        if settings.provider.is_some() {
            settings.provider_refused = Some(table.refuse("default", &at, "can't be used"));
        }
        table.finish()?;
    }
    if let Some(table) = top.table("providers")? {
        providers.read(table, Origin::File)?;
    }
    if let Some(mut table) = top.table("browser")? {
        settings.browser_command = table.text("command")?;
        settings.browser_open = table.flag("open")?;
        table.finish()?;
    }
    top.finish()?;
    Ok(settings)
}

fn limits(mut table: Table<'_>, settings: &mut FileSettings) -> Result<(), Failure> {
    for (name, _) in Limits::CONFIGURABLE {
        if let Some(limit) = table.duration(name)? {
            settings.limits.insert(name, limit);
        }
    }
    settings.tries = table.number("tries", 10)?;
    table.finish()
}

/// The agent that is taken without `--agent`: one that is there and complete.
fn agent(mut table: Table<'_>, agents: &Agents) -> Result<Option<String>, Failure> {
    let at = table.place("default");
    let name = table.text("default")?;
    if let Some(Err(failure)) = name.as_deref().map(|name| agents.check(name)) {
        let why = format!("can't be used: {}", failure.cause);
        return Err(table.refuse("default", &at, &why));
    }
    table.finish()?;
    Ok(name)
}

pub(super) fn names(
    table: &mut Table<'_>,
    key: &'static str,
    what: &str,
    fits: fn(&str) -> bool,
) -> Result<Option<Vec<String>>, Failure> {
    let at = table.place(key);
    let names = table.texts(key)?;
    if let Some(wrong) = names.iter().flatten().find(|name| !fits(name)) {
        let wrong: String = wrong.escape_debug().take(80).collect();
        return Err(table.refuse(key, &at, &format!("holds `{wrong}`, which is not {what}")));
    }
    Ok(names)
}

fn is_host(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b".-:[]".contains(&byte);
    (1..=255).contains(&text.len()) && text.bytes().all(fits)
}

/// Whether a text can be a variable's name.
pub(crate) fn is_variable(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    (1..=256).contains(&text.len())
        && text.bytes().all(fits)
        && !text.as_bytes()[0].is_ascii_digit()
}

#[cfg(test)]
mod tests {
    use super::{FileSettings, ProviderTables, is_variable, parse};
    use crate::agents::Agents;
    use crate::config::Source;
    use proptest::prelude::*;
    use std::path::Path;

    fn parsed(text: &str) -> Result<FileSettings, String> {
        let mut agents = Agents::built_in().unwrap();
        parse(
            Source {
                path: Path::new("config.toml"),
                text,
            },
            &mut agents,
            &mut ProviderTables::default(),
        )
        .map_err(|failure| failure.cause)
    }

    #[test]
    fn a_whole_file() {
        let settings = parsed(
            "principal = 'me'\n[ledger]\nlock_timeout = '2s'\nallow_network_fs = true\n[limits]\nup = '20m'\ntries = 5\n\
             [git]\ntoken_hosts = ['git.example.org:8443']\n[agent]\ndefault = 'page'\n[agents.mine]\nargv = ['x']\n\
             [env]\npass = ['EDITOR']\n[provider]\ndefault = 'local'\n[browser]\ncommand = 'firefox'\nopen = false\n",
        );
        let settings = settings.unwrap();
        assert_eq!(settings.tries, Some(5));
        assert_eq!(settings.limits.len(), 1);
        assert_eq!(settings.browser_open, Some(false));
    }

    #[test]
    fn mistakes_name_file_line_and_key() {
        for (text, wanted) in [
            (
                "colour = 1",
                "`config.toml`, line 1: `colour` is not a key of this version",
            ),
            (
                "[limits]\nup = 5",
                "line 2: `limits.up` has to be a duration",
            ),
            (
                "[limits]\nnap = '5s'",
                "line 2: `limits.nap` is not a key of this version",
            ),
            (
                "[limits]\ntries = 0",
                "line 2: `limits.tries` has to be a number from 1 to 10",
            ),
            (
                "[git]\ntoken_hosts = ['a b']",
                "line 2: `git.token_hosts` holds `a b`",
            ),
            ("[env]\npass = ['1X']", "line 2: `env.pass` holds `1X`"),
            (
                "principal = \"a\\u0007\"",
                "line 1: `principal` holds a control character",
            ),
            (
                "[agent]\n\ndefault = 'zz'",
                "`config.toml`, line 3: `agent.default` can't be used: there is no agent `zz`; configured: command, none",
            ),
            (
                "[agent]\ndefault = 'command'",
                "line 2: `agent.default` can't be used: agent `command` has no `agents.command.argv`",
            ),
            ("limits = 3", "line 1: `limits` has to be a table"),
            ("a = = 1", "line 1: "),
        ] {
            let cause = parsed(text).unwrap_err();
            assert!(cause.contains(wanted), "{text}: {cause}");
        }
    }

    #[test]
    fn names_of_variables() {
        assert!(is_variable("A_1") && is_variable("_"));
        assert!(
            !is_variable("") && !is_variable("1A") && !is_variable("A B") && !is_variable("A=")
        );
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "(\\[[a-z.]{0,9}\\]\n|[a-z_]{1,9} = ('[ -~]{0,9}'|[0-9]{1,20}|true|\\[\\])\n|\\PC)*") {
            let _ = parsed(&text);
        }
    }
}
