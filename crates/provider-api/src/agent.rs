//! An agent is data: how its server is started, asked whether it is ready, and stopped.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What serves a session's page.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentSpec {
    /// Its name, as `--agent` takes it.
    pub name: String,
    /// What answers at the session's address.
    pub serve: Serve,
}

/// What answers at a session's address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Serve {
    /// Nothing: the session has no address.
    None,
    /// The gateway's own page.
    Page,
    /// A server process behind the gateway.
    Process(Box<Server>),
}

/// A server process: how it is started, asked whether it is ready, and stopped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Server {
    /// The program and its arguments; `{port}` stands for the port it is to listen on, `{host}` for the address: 127.0.0.1,
    /// or 0.0.0.0 in a sandbox whose port is published by its engine.
    pub argv: Vec<String>,
    /// The variable that holds the port too, if the program wants one.
    #[serde(default)]
    pub port_env: Option<String>,
    /// Fixed variables, none of them secret.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// How it wants to be asked who is calling.
    #[serde(default)]
    pub auth: Option<BasicAuth>,
    /// When it is ready.
    #[serde(default)]
    pub ready: Probe,
    /// How it is asked to end before it is signalled.
    #[serde(default)]
    pub shutdown: Shutdown,
    /// How its transcript is exported.
    #[serde(default)]
    pub transcript: Option<Transcript>,
}

impl Server {
    /// The directories that a server has of its own, below one home: the variable that names each, and its name there.
    pub const DIRECTORIES: [(&str, &str); 5] = [
        ("XDG_CONFIG_HOME", "config"),
        ("XDG_DATA_HOME", "data"),
        ("XDG_STATE_HOME", "state"),
        ("XDG_CACHE_HOME", "cache"),
        ("XDG_RUNTIME_DIR", "run"),
    ];
}

/// HTTP Basic with a password that is drawn for the session and that only the sandbox and the gateway know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BasicAuth {
    /// The user name.
    pub username: String,
    /// The variable that hands the password to the server.
    pub password_env: String,
}

/// When a server counts as ready: an HTTP answer, never a mere connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Probe {
    /// Text that has to appear in its log before it is asked anything.
    pub log_line: Option<String>,
    /// The path that is asked for; 200–399 is ready.
    pub path: String,
    /// Text that the answer's body has to hold.
    pub body: Option<String>,
    /// The limit of one try, in milliseconds.
    pub try_ms: u64,
    /// A path that is asked for once after that, to make the server do its slow first work.
    pub warm_path: Option<String>,
}

impl Default for Probe {
    fn default() -> Self {
        Self {
            log_line: None,
            path: "/".to_owned(),
            body: None,
            try_ms: 250,
            warm_path: None,
        }
    }
}

/// Requests that are made before the first signal; failures of these only cost a warning.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Shutdown {
    /// For each transcript, a path to post to that ends what is running; `{id}` is the transcript's.
    pub abort_path: Option<String>,
    /// A path to post to last.
    pub dispose_path: Option<String>,
}

/// Where a server lists its transcripts and hands each out, both as JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transcript {
    /// The path of a JSON array of objects with an `id`.
    pub list_path: String,
    /// The path of one transcript; `{id}` stands for its id.
    pub item_path: String,
}

impl AgentSpec {
    /// The agent that serves nothing.
    #[must_use]
    pub fn none() -> Self {
        Self {
            name: "none".to_owned(),
            serve: Serve::None,
        }
    }
}
