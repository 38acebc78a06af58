//! What the command line and a supervisor say to each other: one JSON document a line, over the sandbox's socket.
//!
//! Sessions live across upgrades, so each line bears a version, and a reader takes a document of its own version or an
//! older one. A connection carries one request; its end means that the caller has gone.

use alpine_gateway::Upstream;
use alpine_provider_api::{ExecReply, PageFacts, ProviderError, Secret, Server, wire};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// The version that this program speaks.
pub(crate) const VERSION: u32 = 1;
/// The longest line that is read.
pub(crate) const LONGEST: usize = 8 << 20;

/// A line.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Line<T> {
    /// The version of the protocol.
    pub(crate) v: u32,
    /// What it says.
    pub(crate) say: T,
}

/// What a caller asks of a supervisor.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Request {
    /// How it is, and how its agent is reached.
    Hello,
    /// Lets paused processes run again, and says how the agent is reached.
    Thaw,
    /// Runs the install step, or joins it.
    Install(Install),
    /// Starts the agent's server, or says where it is.
    StartAgent(Box<StartAgent>),
    /// Opens the session's address.
    Publish(Publish),
    /// Makes a link that works once.
    Link {
        /// How long it is good for.
        link_ms: u64,
    },
    /// Runs a command; its pipes come with the first answer.
    Exec(Run),
    /// Delivers a signal to the command of this connection.
    Signal(i32),
    /// Ends every process, and the supervisor.
    Stop {
        /// How long they get after the graceful signal.
        grace_ms: u64,
    },
}

/// A program with its environment, whole.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Run {
    /// The program and its arguments.
    pub(crate) argv: Vec<String>,
    /// All its variables, but for the sandbox's mark.
    #[serde(with = "wire::map")]
    pub(crate) env: BTreeMap<String, Secret<String>>,
}

/// An install step.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Install {
    /// What is run.
    pub(crate) run: Run,
    /// The command as people write it.
    pub(crate) command: String,
    /// What it was found by.
    pub(crate) found_by: String,
}

/// An agent's server.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct StartAgent {
    /// The server.
    pub(crate) server: Server,
    /// All its variables, but for its port, its password and the sandbox's mark.
    #[serde(with = "wire::map")]
    pub(crate) env: BTreeMap<String, Secret<String>>,
    /// The names of those that no log may hold.
    pub(crate) secret: Vec<String>,
}

/// The session's address.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Publish {
    /// What the page tells.
    pub(crate) page: PageFacts,
    /// The agent's server, where it is not one of the supervisor's own processes; what was told before stays if none is.
    #[serde(default)]
    pub(crate) upstream: Option<Upstream>,
    /// The log of an install step that was run elsewhere.
    #[serde(default)]
    pub(crate) install_log: Option<PathBuf>,
}

/// What a supervisor answers.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Reply {
    /// How it is.
    Hello(Box<Hello>),
    /// The command runs; its pipes came with this.
    Started,
    /// The command, or the install step, has ended.
    Ended(ExecReply),
    /// The agent's server runs.
    AgentStarted(AgentStarted),
    /// The session's address is open.
    Published(Door),
    /// A link.
    Link {
        /// The address with the token.
        #[serde(with = "wire")]
        open_url: Secret<String>,
        /// The address itself.
        door: Door,
    },
    /// It is being stopped.
    Stopping {
        /// What is being waited for.
        what: String,
        /// How many processes are left.
        left: u64,
    },
    /// Nothing is left; the supervisor ends now.
    Stopped {
        /// Whether something had to be killed.
        forced: bool,
    },
    /// It can't be done.
    Refused(ProviderError),
}

/// How a supervisor is.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Hello {
    /// The agent's server, if one was started.
    pub(crate) agent: Option<AgentAccess>,
    /// The session's address, if it is open.
    pub(crate) door: Option<Door>,
}

/// How the agent's server is reached.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct AgentAccess {
    /// What it is.
    pub(crate) server: Server,
    /// The port that it listens on.
    pub(crate) port: u16,
    /// Its password.
    #[serde(with = "wire")]
    pub(crate) password: Secret<String>,
    /// Whether its process lives.
    pub(crate) running: bool,
}

/// An agent's server that runs.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct AgentStarted {
    /// Its process.
    pub(crate) pid: u32,
    /// When that started.
    pub(crate) start_time: u64,
    /// The port that it was given.
    pub(crate) port: u16,
    /// Its password.
    #[serde(with = "wire")]
    pub(crate) password: Secret<String>,
    /// Where its output begins in the log.
    pub(crate) log_from: u64,
    /// The supervisor, whose descendant owns the port.
    pub(crate) supervisor: u32,
}

/// The session's address.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Door {
    /// The port on 127.0.0.1.
    pub(crate) port: u16,
    /// The user name that it takes.
    pub(crate) username: String,
    /// The password that goes with it.
    #[serde(with = "wire")]
    pub(crate) password: Secret<String>,
}

/// What a supervisor is told before it serves: over memory, never by argument or file.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Birth {
    /// The directory of all sandboxes.
    pub(crate) home: PathBuf,
    /// The directory of sockets.
    pub(crate) run_dir: PathBuf,
    /// The session.
    pub(crate) session_id: String,
    /// Values that no log may hold.
    pub(crate) secrets: Vec<SecretText>,
}

/// A secret in a list.
#[derive(Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct SecretText(#[serde(with = "wire")] pub(crate) Secret<String>);

/// What a supervisor says once, when it begins to serve or can't.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Birthcry {
    /// It serves.
    Serving,
    /// Another one has the sandbox's lock.
    Another,
    /// It can't.
    Failed(ProviderError),
}

/// A document as a line.
pub(crate) fn encode<T: Serialize>(say: &T) -> Vec<u8> {
    // These are plain documents of our own, whose encoding does not fail; an empty line would be refused by the reader.
    let mut line = serde_json::to_vec(&Line { v: VERSION, say }).unwrap_or_default();
    line.push(b'\n');
    line
}

/// A line as a document.
pub(crate) fn decode<'a, T: Deserialize<'a>>(line: &'a [u8]) -> Result<T, String> {
    let line: Line<T> = serde_json::from_slice(line).map_err(|source| source.to_string())?;
    if line.v == 0 || line.v > VERSION {
        return Err(format!(
            "version {} of the protocol is not known here",
            line.v
        ));
    }
    Ok(line.say)
}
