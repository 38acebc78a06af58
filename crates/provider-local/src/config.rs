//! What the command line tells the provider.

use alpine_git::GitConfig;
use alpine_provider_api::Secret;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Where the provider works, and with what.
#[derive(Clone, Debug)]
pub struct LocalConfig {
    /// `ALPINE_HOME`: sandboxes are directories in its `sandboxes`.
    pub home: PathBuf,
    /// Where supervisors' sockets are; short, since a socket's path holds 107 bytes.
    pub run_dir: PathBuf,
    /// The program that is re-executed as supervisor and gateway: its `main` calls [`reexecuted`](crate::reexecuted) first.
    pub executable: PathBuf,
    /// The variables that the install step, the agent and commands start with; none is secret.
    pub env: BTreeMap<String, String>,
    /// How git is run.
    pub git: GitConfig,
    /// Where durable objects are.
    pub objects: PathBuf,
    /// Values that no log may hold; supervisors get them in memory only.
    pub secrets: Vec<Secret<String>>,
}
