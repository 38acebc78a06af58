//! What a provider says of itself.

use crate::Method;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What a provider is and does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DescribeReply {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The isolation that a sandbox made now would get.
    pub isolation: Isolation,
    /// Whether `capture` needs the sandbox to run, so that `stop` has to do it.
    #[serde(default)]
    pub captures_in_stop: bool,
    /// The names of the methods it has ([`Method`]); the others answer `Unsupported`. None at all stands for every one.
    #[serde(default)]
    pub methods: Vec<String>,
    /// What it can do beyond that ([`Feature`]).
    #[serde(default)]
    pub features: Vec<String>,
    /// Its limits by name: bytes, counts, or milliseconds.
    #[serde(default)]
    pub limits: BTreeMap<String, u64>,
    /// The JSON Schema of its configuration, where it takes one.
    #[serde(default)]
    pub config_schema: Option<serde_json::Value>,
}

impl DescribeReply {
    /// A provider with every method and feature, without limits or a configuration of its own.
    #[must_use]
    pub fn new(name: &str, version: &str, isolation: Isolation) -> Self {
        Self {
            name: name.to_owned(),
            version: version.to_owned(),
            isolation,
            captures_in_stop: false,
            methods: Method::ALL
                .map(|method| method.as_str().to_owned())
                .to_vec(),
            features: Feature::ALL
                .map(|feature| feature.as_str().to_owned())
                .to_vec(),
            limits: BTreeMap::new(),
            config_schema: None,
        }
    }

    /// Whether it has this method.
    #[must_use]
    pub fn has(&self, method: Method) -> bool {
        self.methods.is_empty() || self.methods.iter().any(|name| name == method.as_str())
    }

    /// Whether it announces this feature.
    #[must_use]
    pub fn announces(&self, feature: Feature) -> bool {
        self.features.iter().any(|name| name == feature.as_str())
    }
}

/// How a sandbox is kept apart from its host, honestly.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Isolation {
    /// `namespaces`, `landlock`, `process`, or a provider's own word.
    pub tier: String,
    /// The layers in force.
    #[serde(default)]
    pub layers: Vec<String>,
    /// Limit (memory, cpu, pids, …) → `enforced`, `soft` or `none`.
    #[serde(default)]
    pub limits: BTreeMap<String, String>,
    /// What is not there.
    #[serde(default)]
    pub missing: Vec<MissingLayer>,
}

/// A layer of isolation that is not there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MissingLayer {
    /// Which.
    pub what: String,
    /// Why.
    pub why: String,
    /// What would bring it.
    pub fix: String,
}

/// What a provider can do beyond having the method. A handful of named facts, in `describe`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Feature {
    /// `exec` delivers standard input, and its end.
    ExecInput,
    /// `exec` delivers signals.
    ExecSignals,
    /// `logs` can follow a log as it grows.
    FollowLogs,
    /// `start_agent` can run a server process, and publish its address.
    ServeProcess,
    /// `start_agent` can serve the built-in page.
    ServePage,
    /// What listens on 127.0.0.1 in a sandbox is reached at this machine's 127.0.0.1: its commands share the network.
    HostNetwork,
}

impl Feature {
    /// Every feature.
    pub const ALL: [Feature; 6] = [
        Feature::ExecInput,
        Feature::ExecSignals,
        Feature::FollowLogs,
        Feature::ServeProcess,
        Feature::ServePage,
        Feature::HostNetwork,
    ];

    /// The name in `describe`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Feature::ExecInput => "exec_input",
            Feature::ExecSignals => "exec_signals",
            Feature::FollowLogs => "follow_logs",
            Feature::ServeProcess => "serve_process",
            Feature::ServePage => "serve_page",
            Feature::HostNetwork => "host_network",
        }
    }
}
