//! Agents are data: the built-in ones and the user's, read by the same reader.

use crate::config::{Origin, Source, Table};
use alpine_lifecycle::{ErrorCode, Failure};
use alpine_provider_api::{AgentSpec, BasicAuth, Probe, Serve, Server, Shutdown, Transcript};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

/// The agents that are built in.
pub(crate) const BUILT_IN: &str = include_str!("agents.toml");

/// What a table of an agent says; keys that it leaves out are those of the built-in agent of that name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct AgentTable {
    /// Where it was last changed.
    pub(crate) origin: Origin,
    serve: Option<String>,
    argv: Option<Vec<String>>,
    path: Option<String>,
    install: Option<String>,
    port_env: Option<String>,
    env: BTreeMap<String, String>,
    /// The caller's variables that are handed to it.
    pub(crate) env_pass: Vec<String>,
    username: Option<String>,
    password_env: Option<String>,
    ready: ReadyTable,
    abort_path: Option<String>,
    dispose_path: Option<String>,
    list_path: Option<String>,
    item_path: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct ReadyTable {
    log_line: Option<String>,
    path: Option<String>,
    body: Option<String>,
    each: Option<Duration>,
    warm_path: Option<String>,
}

/// All agents, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Agents(BTreeMap<String, AgentTable>);

impl Agents {
    /// The built-in agents.
    pub(crate) fn built_in() -> Result<Self, Failure> {
        let source = Source {
            path: Path::new("the built-in agents"),
            text: BUILT_IN,
        };
        let mut agents = Self::default();
        agents.read(source.parse()?, Origin::Default)?;
        Ok(agents)
    }

    /// Adds the agents of a table, or changes those that are there.
    pub(crate) fn read(&mut self, mut table: Table<'_>, origin: Origin) -> Result<(), Failure> {
        for (name, mut agent) in table.tables()? {
            if !is_name(&name) {
                return Err(agent.refuse(
                    "",
                    &(0..0),
                    "is not a name for an agent: use 1 to 64 of a-z, 0-9, `-` and `_`",
                ));
            }
            let before = self.0.remove(&name).unwrap_or_default();
            let read = AgentTable {
                origin,
                ..AgentTable::read(before, &mut agent)?
            };
            agent.finish()?;
            self.0.insert(name, read);
        }
        Ok(())
    }

    /// Takes the path of OpenCode's program that a variable gave.
    pub(crate) fn set_opencode(&mut self, path: &str) {
        let agent = self.0.entry("opencode".to_owned()).or_default();
        agent.path = Some(path.to_owned());
        agent.origin = Origin::Variable("ALPINE_OPENCODE");
    }

    /// The names.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// The agent's table.
    pub(crate) fn get(&self, name: &str) -> Option<&AgentTable> {
        self.0.get(name)
    }

    /// Every agent that is configured completely.
    pub(crate) fn specs(&self) -> BTreeMap<String, AgentSpec> {
        let spec =
            |(name, table): (&String, &AgentTable)| Some((name.clone(), table.spec(name).ok()?));
        self.0.iter().filter_map(spec).collect()
    }

    /// Makes sure that an agent is there and complete.
    pub(crate) fn check(&self, name: &str) -> Result<&AgentTable, Failure> {
        let table = self.get(name).ok_or_else(|| {
            let names: Vec<_> = self.names().collect();
            let cause = format!(
                "there is no agent `{name}`; configured: {}",
                names.join(", ")
            );
            Failure::new(ErrorCode::Usage, cause).next("alpine config")
        })?;
        table.spec(name).map(|_| table)
    }
}

impl AgentTable {
    fn read(mut self, table: &mut Table<'_>) -> Result<Self, Failure> {
        self.read_own(table)?;
        if let Some(mut env) = table.table("env")? {
            self.env.extend(env.map()?);
        }
        if let Some(mut auth) = table.table("auth")? {
            keep(&mut self.username, auth.text("username")?);
            keep(&mut self.password_env, auth.text("password_env")?);
            auth.finish()?;
        }
        if let Some(mut ready) = table.table("ready")? {
            keep(&mut self.ready.log_line, ready.text("log_line")?);
            keep(&mut self.ready.path, path(&mut ready, "path")?);
            keep(&mut self.ready.body, ready.text("body")?);
            keep(&mut self.ready.each, ready.duration("try")?);
            keep(&mut self.ready.warm_path, path(&mut ready, "warm_path")?);
            ready.finish()?;
        }
        if let Some(mut shutdown) = table.table("shutdown")? {
            keep(&mut self.abort_path, path(&mut shutdown, "abort_path")?);
            keep(&mut self.dispose_path, path(&mut shutdown, "dispose_path")?);
            shutdown.finish()?;
        }
        if let Some(mut transcript) = table.table("transcript")? {
            keep(&mut self.list_path, path(&mut transcript, "list_path")?);
            keep(&mut self.item_path, path(&mut transcript, "item_path")?);
            transcript.finish()?;
        }
        Ok(self)
    }

    fn read_own(&mut self, table: &mut Table<'_>) -> Result<(), Failure> {
        if let Some((serve, at)) = table.text_at("serve")? {
            if !["process", "page", "none"].contains(&serve.as_str()) {
                return Err(table.refuse("serve", &at, "has to be `process`, `page` or `none`"));
            }
            self.serve = Some(serve);
        }
        keep(&mut self.argv, table.texts("argv")?);
        keep(&mut self.path, table.text("path")?);
        keep(&mut self.install, table.text("install")?);
        keep(&mut self.port_env, table.text("port_env")?);
        if let Some(names) = table.texts("env_pass")? {
            self.env_pass = names;
        }
        Ok(())
    }

    /// The program that it starts.
    pub(crate) fn program(&self) -> Option<&str> {
        let first = self.argv.as_ref().and_then(|argv| argv.first());
        self.path.as_deref().or(first.map(String::as_str))
    }

    /// How its program is installed.
    pub(crate) fn install(&self) -> Option<&str> {
        self.install.as_deref()
    }

    /// What it serves, in a word.
    pub(crate) fn serves(&self) -> &str {
        self.serve.as_deref().unwrap_or("process")
    }

    /// What the provider is told.
    pub(crate) fn spec(&self, name: &str) -> Result<AgentSpec, Failure> {
        let serve = match self.serves() {
            "page" => Serve::Page,
            "none" => Serve::None,
            _ => Serve::Process(Box::new(self.server(name)?)),
        };
        Ok(AgentSpec {
            name: name.to_owned(),
            serve,
        })
    }

    fn server(&self, name: &str) -> Result<Server, Failure> {
        let mut argv = self
            .argv
            .clone()
            .filter(|argv| !argv.is_empty())
            .ok_or_else(|| missing(name, "argv"))?;
        if let Some(path) = &self.path {
            argv[0].clone_from(path);
        }
        let auth = match (&self.username, &self.password_env) {
            (Some(username), Some(password_env)) => Some(BasicAuth {
                username: username.clone(),
                password_env: password_env.clone(),
            }),
            (None, None) => None,
            (Some(_), None) => return Err(missing(name, "auth.password_env")),
            (None, Some(_)) => return Err(missing(name, "auth.username")),
        };
        let transcript = match (&self.list_path, &self.item_path) {
            (Some(list_path), Some(item_path)) => Some(Transcript {
                list_path: list_path.clone(),
                item_path: item_path.clone(),
            }),
            (None, None) => None,
            (Some(_), None) => return Err(missing(name, "transcript.item_path")),
            (None, Some(_)) => return Err(missing(name, "transcript.list_path")),
        };
        Ok(Server {
            argv,
            port_env: self.port_env.clone(),
            env: self.env.clone(),
            auth,
            ready: self.ready.probe(),
            shutdown: Shutdown {
                abort_path: self.abort_path.clone(),
                dispose_path: self.dispose_path.clone(),
            },
            transcript,
        })
    }
}

impl ReadyTable {
    fn probe(&self) -> Probe {
        let usual = Probe::default();
        let each = self
            .each
            .and_then(|each| u64::try_from(each.as_millis()).ok());
        Probe {
            log_line: self.log_line.clone(),
            path: self.path.clone().unwrap_or(usual.path),
            body: self.body.clone(),
            try_ms: each.unwrap_or(usual.try_ms),
            warm_path: self.warm_path.clone(),
        }
    }
}

/// Takes what was given.
fn keep<T>(value: &mut Option<T>, given: Option<T>) {
    if given.is_some() {
        *value = given;
    }
}

/// A path of a URL.
fn path(table: &mut Table<'_>, key: &'static str) -> Result<Option<String>, Failure> {
    match table.text_at(key)? {
        Some((text, at))
            if !text.starts_with('/')
                || text.contains(|c: char| c.is_control() || c.is_whitespace()) =>
        {
            Err(table.refuse(key, &at, "has to be a path that starts with `/`"))
        }
        found => Ok(found.map(|(text, _)| text)),
    }
}

fn missing(agent: &str, key: &str) -> Failure {
    Failure::new(
        ErrorCode::ConfigInvalid,
        format!("agent `{agent}` has no `agents.{agent}.{key}` in the configuration"),
    )
    .next("alpine config")
}

/// Whether a text can be an agent's name.
fn is_name(name: &str) -> bool {
    let fits = |byte: u8| {
        byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'_'
    };
    (1..=64).contains(&name.len()) && name.bytes().all(fits)
}

#[cfg(test)]
mod tests {
    use super::Agents;
    use crate::config::{Origin, Source};
    use alpine_provider_api::Serve;
    use std::path::Path;

    fn with(text: &str) -> Result<Agents, String> {
        let mut agents = Agents::built_in().unwrap();
        let table = Source {
            path: Path::new("config.toml"),
            text,
        }
        .parse()
        .unwrap();
        agents
            .read(table, Origin::File)
            .map(|()| agents)
            .map_err(|failure| failure.cause)
    }

    #[test]
    fn the_built_in_agents_are_whole_but_for_the_command() {
        let agents = Agents::built_in().unwrap();
        let specs: Vec<_> = agents.specs().into_keys().collect();
        assert_eq!(specs, ["none", "opencode", "page"]);
        let cause = agents.check("command").unwrap_err().cause;
        assert!(cause.contains("agents.command.argv"), "{cause}");
        assert_eq!(
            agents.check("emacs").unwrap_err().code.as_str(),
            "ERR_USAGE"
        );
    }

    #[test]
    fn a_table_changes_a_built_in_agent_key_by_key() {
        let agents = with(
            "[opencode]\npath = '/opt/oc'\n[opencode.ready]\ntry = '1s'\n[opencode.env]\nA = 'b'",
        )
        .unwrap();
        let spec = agents.specs().remove("opencode").unwrap();
        let Serve::Process(server) = spec.serve else {
            panic!("no process")
        };
        assert_eq!(server.argv[..2], ["/opt/oc", "serve"]);
        assert_eq!(server.ready.try_ms, 1000);
        assert_eq!(server.ready.path, "/global/health");
        assert_eq!(server.env.len(), 3);
    }

    #[test]
    fn mistakes_name_the_key() {
        for (text, wanted) in [
            (
                "[x]\nargv = 'no'",
                "line 2: `x.argv` has to be a list of texts, not of type string",
            ),
            (
                "[x]\n\nsurf = 1",
                "line 3: `x.surf` is not a key of this version",
            ),
            (
                "[x]\nserve = 'pages'",
                "line 2: `x.serve` has to be `process`, `page` or `none`",
            ),
            (
                "[x.ready]\npath = 'health'",
                "line 2: `x.ready.path` has to be a path",
            ),
            (
                "x = 3",
                "line 1: `x` has to be a table, not of type integer",
            ),
        ] {
            let cause = with(text).unwrap_err();
            assert!(cause.contains(wanted), "{text}: {cause}");
        }
    }
}
