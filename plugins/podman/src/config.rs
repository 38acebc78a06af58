//! The user's table, and what the provider says of itself by it.

use alpine_provider_adapter::{Facts, Network, Storage};
use alpine_provider_api::{Isolation, MissingLayer};
use bollard::models::HostConfig;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// The user's table, `[providers.NAME.config]`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The socket of `podman system service`, or of a Docker engine.
    pub socket: PathBuf,
    /// The image, which has to be there. It needs `sh` and `tar`.
    pub image: String,
    /// The most memory, in bytes.
    #[serde(default)]
    pub memory: Option<i64>,
    /// How many processors.
    #[serde(default)]
    pub cpus: Option<f64>,
    /// The most processes.
    #[serde(default)]
    pub pids: Option<i64>,
    /// The network's name or mode.
    #[serde(default = "no_network")]
    pub network: String,
    /// Ports of the sandbox that are published on this machine's 127.0.0.1, each by a free one; the agent listens on the
    /// first.
    #[serde(default)]
    pub ports: Vec<u16>,
    /// The user that commands run as; the image's own when it is not given.
    #[serde(default)]
    pub user: Option<String>,
    /// Variables of every command.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
}

fn no_network() -> String {
    "none".to_owned()
}

impl Config {
    pub(crate) fn facts(&self) -> Facts {
        let integer = serde_json::json!({"type": "integer", "minimum": 1});
        let text = serde_json::json!({"type": "string"});
        Facts {
            name: "podman".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            isolation: self.isolation(),
            storage: Storage::WhenStopped,
            network: match (self.network.as_str(), self.ports.first()) {
                ("host", _) => Network::Shared,
                ("none", _) | (_, None) => Network::Closed,
                (_, Some(port)) => Network::Published(*port),
            },
            exec_signals: true,
            limits: BTreeMap::new(),
            config_schema: Some(serde_json::json!({
                "type": "object",
                "properties": {
                    "socket": text,
                    "image": text,
                    "memory": integer,
                    "cpus": {"type": "number", "exclusiveMinimum": 0},
                    "pids": integer,
                    "network": text,
                    "ports": {"type": "array", "items": {"type": "integer", "minimum": 1, "maximum": 65535}},
                    "user": text,
                    "env": {"type": "object", "additionalProperties": text},
                },
                "required": ["socket", "image"],
                "additionalProperties": false,
            })),
        }
    }

    pub(crate) fn isolation(&self) -> Isolation {
        self.isolation_in(&self.network)
    }

    fn isolation_in(&self, network: &str) -> Isolation {
        let limit = |is_set: bool| if is_set { "enforced" } else { "none" }.to_owned();
        Isolation {
            tier: "container".to_owned(),
            layers: ["namespaces", "capabilities", "no_new_privileges"]
                .map(str::to_owned)
                .to_vec(),
            limits: BTreeMap::from([
                ("memory".to_owned(), limit(self.memory.is_some())),
                ("cpu".to_owned(), limit(self.cpus.is_some())),
                ("pids".to_owned(), limit(self.pids.is_some())),
            ]),
            missing: shared_with(network)
                .map(no_network_of_its_own)
                .into_iter()
                .collect(),
        }
    }

    /// The isolation of a container that was made so. An engine leaves a limit out that it can't keep, without an error: podman
    /// does for an ordinary user whose cgroup is not delegated. Which network the word `default` is, it alone knows.
    pub(crate) fn isolation_of(&self, made: &HostConfig) -> Isolation {
        let network = made.network_mode.as_deref();
        let mut isolation = self.isolation_in(network.unwrap_or(&self.network));
        let kept = [
            ("memory", self.memory.is_some(), made.memory),
            ("cpu", self.cpus.is_some(), made.nano_cpus),
            ("pids", self.pids.is_some(), made.pids_limit),
        ];
        for (limit, _, _) in kept
            .into_iter()
            .filter(|(_, wanted, has)| *wanted && has.unwrap_or(0) <= 0)
        {
            isolation.limits.insert(limit.to_owned(), "none".to_owned());
            isolation.missing.push(MissingLayer {
                what: format!("the limit of {limit}"),
                why: "the engine left it out".to_owned(),
                fix: "delegate your cgroup's controllers to you, or run the engine as root"
                    .to_owned(),
            });
        }
        isolation
    }
}

/// Whose network a sandbox has that has none of its own.
fn shared_with(network: &str) -> Option<&'static str> {
    match network.split_once(':') {
        None if network == "host" => Some("this machine's interfaces are inside"),
        Some(("container", _)) => Some("another container's interfaces are inside"),
        Some(("ns", _)) => Some("the interfaces of a namespace that exists are inside"),
        None | Some(_) => None,
    }
}

fn no_network_of_its_own(why: &str) -> MissingLayer {
    MissingLayer {
        what: "network namespace".to_owned(),
        why: why.to_owned(),
        fix: "set `network` to \"none\", or to a network of the sandbox's own".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::Config;
    use bollard::models::HostConfig;

    #[test]
    fn a_network_that_is_not_the_sandboxs_own_is_a_missing_layer() {
        let missing = |network: &str, made: Option<&str>| {
            let table = serde_json::json!({"socket": "/s", "image": "i", "network": network});
            let config: Config = serde_json::from_value(table).unwrap();
            let made = HostConfig {
                network_mode: made.map(str::to_owned),
                ..HostConfig::default()
            };
            [config.isolation(), config.isolation_of(&made)].map(|isolation| {
                let missing = isolation.missing.into_iter();
                missing.map(|it| it.what).collect::<Vec<_>>()
            })
        };
        let nothing: [&str; 0] = [];
        for own in [
            "none",
            "bridge",
            "slirp4netns",
            "slirp4netns:mtu=1500",
            "hostile",
        ] {
            assert_eq!(missing(own, Some(own)), [nothing, nothing], "{own}");
        }
        for shared in ["host", "container:other", "ns:/proc/1/ns/net"] {
            let both = [["network namespace"], ["network namespace"]];
            assert_eq!(missing(shared, Some(shared)), both, "{shared}");
            assert_eq!(missing(shared, None), both, "{shared}");
        }
        let found = missing("default", Some("host"));
        assert_eq!(found, [vec![], vec!["network namespace"]]);
    }

    #[test]
    fn a_limit_that_the_engine_left_out_is_not_said_to_hold() {
        let table = serde_json::json!({
            "socket": "/s", "image": "i", "memory": 1 << 30, "cpus": 1.5, "pids": 64,
        });
        let config: Config = serde_json::from_value(table).unwrap();
        let kept = HostConfig {
            memory: Some(1 << 30),
            nano_cpus: Some(1_500_000_000),
            pids_limit: Some(64),
            ..HostConfig::default()
        };
        assert_eq!(config.isolation_of(&kept), config.isolation());
        let left_out = HostConfig {
            memory: Some(0),
            pids_limit: None,
            ..kept
        };
        let isolation = config.isolation_of(&left_out);
        let limits: Vec<_> = isolation.limits.into_iter().collect();
        let said = [("cpu", "enforced"), ("memory", "none"), ("pids", "none")];
        assert_eq!(
            limits,
            said.map(|(limit, how)| (limit.to_owned(), how.to_owned()))
        );
        assert_eq!(isolation.missing.len(), 2);
    }
}
