//! What is in force: the defaults, `config.toml`, and variables, each value with where it came from.

mod environment;
mod file;
pub(crate) mod home;
mod providers;
mod table;
mod variables;

pub(crate) use environment::{for_git, for_sandboxes, proxy_secrets};
pub(crate) use file::is_variable;
pub(crate) use providers::{LOCAL, NAME_FORM, ProviderTable, ProviderTables, is_name};
pub(crate) use table::{Source, Table, duration};
pub(crate) use variables::{Variables, is_secret};

use crate::agents::Agents;
use alpine_lifecycle::{Caller, Credentials, ErrorCode, Failure, Limits, move_aside};
use alpine_provider_api::Secret;
use alpine_provider_store::Store;
use file::FileSettings;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;
use variables::invalid;

/// Where a value came from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Origin {
    /// It is the default.
    #[default]
    Default,
    /// `config.toml`.
    File,
    /// The pins that `alpine provider add` wrote.
    Added,
    /// That variable.
    Variable(&'static str),
    /// That flag.
    Flag(&'static str),
}

/// A value, and where it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Setting<T> {
    /// The value.
    pub(crate) value: T,
    /// Where it came from.
    pub(crate) origin: Origin,
}

impl<T> Setting<T> {
    fn new(from_file: Option<T>, default: T) -> Self {
        match from_file {
            Some(value) => Self {
                value,
                origin: Origin::File,
            },
            None => Self {
                value: default,
                origin: Origin::Default,
            },
        }
    }
}

/// What is in force.
#[derive(Debug)]
pub(crate) struct Config {
    /// `ALPINE_HOME`.
    pub(crate) home: Setting<PathBuf>,
    /// The ledger's file.
    pub(crate) ledger: Setting<PathBuf>,
    /// Who is calling.
    pub(crate) principal: Setting<Option<String>>,
    /// Whether they may act on others' sessions.
    pub(crate) admin: Setting<bool>,
    /// How long a transaction waits for another process.
    pub(crate) lock_timeout: Setting<Duration>,
    /// Whether the ledger may be on a file system over the network.
    pub(crate) allow_network_fs: Setting<bool>,
    /// The time limits.
    pub(crate) limits: Limits,
    /// Where those came from that are not the defaults.
    pub(crate) limits_set: Vec<&'static str>,
    /// The hosts that may see the token, beside `github.com` and `GH_HOST`.
    pub(crate) token_hosts: Setting<Vec<String>>,
    /// The agent that is taken without `--agent`.
    pub(crate) agent: Setting<Option<String>>,
    /// All agents.
    pub(crate) agents: Agents,
    /// Variables that go to sandboxes beside those that always do.
    pub(crate) pass: Setting<Vec<String>>,
    /// The provider that is taken without `--provider`.
    pub(crate) provider: Setting<String>,
    /// What is told where that is none: which providers there are is not known here.
    pub(crate) provider_refused: Option<Failure>,
    /// The providers that are not compiled in.
    pub(crate) providers: ProviderTables,
    /// Why those that were added are not among them.
    pub(crate) pins_refused: Option<Failure>,
    /// The browser's command.
    pub(crate) browser_command: Setting<Option<String>>,
    /// Whether a browser is opened at all.
    pub(crate) browser_open: Setting<bool>,
    /// What could open a repository.
    pub(crate) credentials: Credentials,
}

impl Config {
    /// Reads everything. Pins that can't be used are a failure: this is for what changes them.
    pub(crate) fn load(variables: &Variables) -> Result<Self, Failure> {
        let config = Self::lenient(variables)?;
        match config.pins_refused {
            None => Ok(config),
            Some(refused) => Err(refused),
        }
    }

    /// Reads everything, and believes no file that others could have written. Where the pins can't be used, no provider was
    /// added.
    pub(crate) fn lenient(variables: &Variables) -> Result<Self, Failure> {
        let (home, named) = home::find(variables)?;
        home::check(&home)?;
        let mut agents = Agents::built_in()?;
        let (mut providers, pins_refused) = match pinned(&store(&home).pins()) {
            Ok(providers) => (providers, None),
            Err(refused) => (ProviderTables::default(), Some(refused)),
        };
        let file = file::read(&home.join("config.toml"), &mut agents, &mut providers)?;
        if let Some(path) = variables.get("ALPINE_OPENCODE")? {
            agents.set_opencode(path);
        }
        let ledger = match variables.get("ALPINE_LEDGER_PATH")? {
            Some(path) => variable(
                "ALPINE_LEDGER_PATH",
                home::absolute("ALPINE_LEDGER_PATH", path)?,
            ),
            None => Setting {
                value: home.join("ledger.redb"),
                origin: Origin::Default,
            },
        };
        let (limits, limits_set) = limits(&file);
        let credentials = credentials(variables, file.token_hosts.as_deref().unwrap_or_default())?;
        Ok(Self {
            principal: principal_of(variables, file.principal)?,
            admin: admin(variables)?,
            home: if named {
                variable("ALPINE_HOME", home)
            } else {
                Setting {
                    value: home,
                    origin: Origin::Default,
                }
            },
            ledger,
            lock_timeout: Setting::new(file.lock_timeout, Duration::from_secs(5)),
            allow_network_fs: Setting::new(file.allow_network_fs, false),
            limits,
            limits_set,
            token_hosts: Setting::new(file.token_hosts, Vec::new()),
            agent: Setting::new(file.agent.map(Some), None),
            agents,
            pass: Setting::new(file.pass, Vec::new()),
            provider: Setting::new(file.provider, LOCAL.to_owned()),
            provider_refused: file.provider_refused,
            providers,
            pins_refused,
            browser_command: Setting::new(file.browser_command.map(Some), None),
            browser_open: Setting::new(file.browser_open, true),
            credentials,
        })
    }

    /// Who is calling.
    ///
    /// # Errors
    /// `ERR_CALLER_IDENTITY_REQUIRED` when nobody said.
    pub(crate) fn caller(&self) -> Result<Caller, Failure> {
        let principal = self.principal.value.clone().ok_or_else(|| {
            Failure::new(ErrorCode::CallerIdentityRequired, "no principal is known: neither `ALPINE_PRINCIPAL_ID`, nor `CF_ACCESS_SUB`, nor `principal` in `config.toml`")
                .next("export ALPINE_PRINCIPAL_ID=\"$(id -un)\"")
        })?;
        Ok(Caller {
            principal,
            admin: self.admin.value,
        })
    }
}

/// The providers that were added.
pub(crate) fn store(home: &Path) -> Store {
    Store::new(home.join("plugins"))
}

/// The pins of the providers that were added. A file that makes no sense is not mended by hand.
fn pinned(path: &Path) -> Result<ProviderTables, Failure> {
    let mut providers = ProviderTables::default();
    let Some(text) = file::text(path)? else {
        return Ok(providers);
    };
    if let Err(mut wrong) = providers.read_pins(path, &text) {
        wrong
            .cause
            .push_str("; move it aside, and add the providers again: `alpine provider add FILE`");
        return Err(wrong.next(move_aside(path, "broken")));
    }
    Ok(providers)
}

/// What no log may hold of providers that are not compiled in. A configuration that is wrong has none: the command tells.
pub(crate) fn provider_secrets(variables: &Variables) -> Vec<Secret<String>> {
    let mentions =
        |path: PathBuf| matches!(file::text(&path), Ok(Some(text)) if text.contains("providers"));
    let Ok((home, _)) = home::find(variables) else {
        return Vec::new();
    };
    if !mentions(home.join("config.toml")) && !mentions(store(&home).pins()) {
        return Vec::new();
    }
    let config = Config::lenient(variables);
    config.map_or_else(|_| Vec::new(), |config| config.providers.secrets(variables))
}

fn variable<T>(name: &'static str, value: T) -> Setting<T> {
    Setting {
        value,
        origin: Origin::Variable(name),
    }
}

fn limits(file: &FileSettings) -> (Limits, Vec<&'static str>) {
    let mut limits = Limits::default();
    let mut set: Vec<_> = file.limits.keys().copied().collect();
    for (name, place) in Limits::CONFIGURABLE {
        if let Some(limit) = file.limits.get(name) {
            *place(&mut limits) = *limit;
        }
    }
    if let Some(tries) = file.tries {
        limits.tries = tries;
        set.push("tries");
    }
    (limits, set)
}

fn principal_of(
    variables: &Variables,
    from_file: Option<String>,
) -> Result<Setting<Option<String>>, Failure> {
    for name in ["ALPINE_PRINCIPAL_ID", "CF_ACCESS_SUB"] {
        if let Some(found) = variables.get(name)? {
            principal(found).map_err(|why| invalid(name, why))?;
            return Ok(variable(name, Some(found.to_owned())));
        }
    }
    Ok(Setting::new(from_file.map(Some), None))
}

/// Whether a text can be a principal.
fn principal(text: &str) -> Result<(), &'static str> {
    if text.len() > 256 {
        Err("is longer than 256 bytes")
    } else if text.chars().any(char::is_control) {
        Err("holds a control character")
    } else {
        Ok(())
    }
}

fn admin(variables: &Variables) -> Result<Setting<bool>, Failure> {
    match variables.get("ALPINE_ADMIN")? {
        Some("1") => return Ok(variable("ALPINE_ADMIN", true)),
        Some("0") | None => {}
        Some(_) => return Err(invalid("ALPINE_ADMIN", "is neither `1` nor `0`")),
    }
    let roles = variables.get("ALPINE_ROLES")?.unwrap_or_default();
    if roles
        .split(|c: char| c == ',' || c.is_whitespace())
        .any(|role| role == "alpine.admin")
    {
        return Ok(variable("ALPINE_ROLES", true));
    }
    Ok(Setting {
        value: false,
        origin: Origin::Default,
    })
}

fn credentials(variables: &Variables, hosts: &[String]) -> Result<Credentials, Failure> {
    let token = match variables.get("GITHUB_TOKEN")? {
        Some(token) => Some(("GITHUB_TOKEN", token)),
        None => variables.get("GH_TOKEN")?.map(|token| ("GH_TOKEN", token)),
    };
    if let Some((name, _)) =
        token.filter(|(_, token)| token.chars().any(|c| c.is_control() || c.is_whitespace()))
    {
        return Err(invalid(
            name,
            "holds white space or a control character, so it is no token",
        ));
    }
    let mut token_hosts = vec!["github.com".to_owned()];
    token_hosts.extend(variables.get("GH_HOST")?.map(str::to_owned));
    token_hosts.extend(hosts.iter().cloned());
    Ok(Credentials {
        token: token.map(|(_, token)| Secret::new(token.to_owned())),
        ssh_auth_sock: variables.get("SSH_AUTH_SOCK")?.map(str::to_owned),
        token_hosts,
    })
}

/// The values of variables that are handed on by name.
pub(crate) fn passed(
    variables: &Variables,
    names: &[String],
) -> Result<BTreeMap<String, String>, Failure> {
    let mut found = BTreeMap::new();
    for name in names {
        if let Some(value) = variables.get(name)? {
            found.insert(name.clone(), value.to_owned());
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::{Variables, admin, credentials, principal_of};

    #[test]
    fn the_principal_is_never_guessed() {
        let of = |pairs: &[(&str, &str)], file: Option<&str>| {
            principal_of(&Variables::of(pairs), file.map(str::to_owned))
                .map(|found| found.value)
                .map_err(|failure| failure.cause)
        };
        let both = [("ALPINE_PRINCIPAL_ID", "a"), ("CF_ACCESS_SUB", "b")];
        assert_eq!(of(&both, Some("c")), Ok(Some("a".to_owned())));
        assert_eq!(
            of(
                &[("ALPINE_PRINCIPAL_ID", " "), ("CF_ACCESS_SUB", "b")],
                Some("c")
            ),
            Ok(Some("b".to_owned()))
        );
        assert_eq!(of(&[], Some("c")), Ok(Some("c".to_owned())));
        assert_eq!(of(&[], None), Ok(None));
        assert!(of(&[("ALPINE_PRINCIPAL_ID", &"x".repeat(257))], None).is_err());
        assert!(of(&[("CF_ACCESS_SUB", "a\u{1b}[0m")], None).is_err());
    }

    #[test]
    fn who_is_an_admin() {
        let of =
            |pairs: &[(&str, &str)]| admin(&Variables::of(pairs)).map(|found| found.value).ok();
        assert_eq!(of(&[("ALPINE_ADMIN", "1")]), Some(true));
        assert_eq!(of(&[("ALPINE_ADMIN", "0")]), Some(false));
        assert_eq!(of(&[("ALPINE_ADMIN", "yes")]), None);
        assert_eq!(of(&[("ALPINE_ROLES", "dev, alpine.admin")]), Some(true));
        assert_eq!(of(&[("ALPINE_ROLES", "alpine.administrator")]), Some(false));
    }

    #[test]
    fn the_first_token_counts_and_has_to_look_like_one() {
        let found = credentials(
            &Variables::of(&[("GITHUB_TOKEN", " "), ("GH_TOKEN", "abc")]),
            &["h".to_owned()],
        )
        .unwrap();
        assert_eq!(found.token.unwrap().expose(), "abc");
        assert_eq!(found.token_hosts, ["github.com", "h"]);
        assert!(credentials(&Variables::of(&[("GITHUB_TOKEN", "a\nb")]), &[]).is_err());
    }
}
