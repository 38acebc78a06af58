//! `config`: what is in force, and where each value came from. Secrets are only ever `set` or `not set`.

use crate::config::{Config, Origin, ProviderTable, Setting, Variables, is_secret, store};
use crate::view::{ConfigDocument, SettingDocument, VERSION, redacted};
use crate::work::Work;
use alpine_lifecycle::{Failure, Limits};
use serde::Serialize;
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;

/// Variables that are secret.
const SECRET: [&str; 2] = ["GITHUB_TOKEN", "GH_TOKEN"];
/// Variables that are shown as they are.
const SHOWN: [&str; 6] = [
    "GH_HOST",
    "SSH_AUTH_SOCK",
    "XDG_RUNTIME_DIR",
    "ALPINE_LOG",
    "ALPINE_LOG_FORMAT",
    "NO_COLOR",
];

pub(crate) fn run(work: &Work) -> Result<u8, Failure> {
    let mut config = work.config()?;
    if let Some(value) = work.lock_timeout {
        let origin = Origin::Flag("--lock-timeout");
        config.lock_timeout = Setting { value, origin };
    }
    let settings = settings(&config, &work.variables);
    if work.output.json {
        let settings = settings.into_iter().map(|mut setting| {
            // A digest is no free text.
            if !setting.key.ends_with(".sha256") {
                setting.value = redacted(&setting.value, work.redactor());
            }
            setting
        });
        work.output.document(&ConfigDocument {
            schema_version: VERSION,
            settings: settings.collect(),
        });
    } else {
        let rows = settings.into_iter().map(|setting| {
            let from = setting.source.unwrap_or_else(|| setting.origin.to_owned());
            vec![setting.key, plain(&setting.value), from]
        });
        work.output.table(&["KEY", "VALUE", "FROM"], rows.collect());
    }
    Ok(0)
}

/// Every value that is in force.
fn settings(config: &Config, variables: &Variables) -> Vec<SettingDocument> {
    let mut all = List {
        file: config
            .home
            .value
            .join("config.toml")
            .to_string_lossy()
            .into_owned(),
        pins: store(&config.home.value)
            .pins()
            .to_string_lossy()
            .into_owned(),
        settings: Vec::new(),
    };
    all.own(config);
    all.limits(config);
    for name in config.agents.names() {
        if let Some(agent) = config.agents.get(name) {
            let value = agent.program().unwrap_or_else(|| agent.serves());
            all.add(&format!("agents.{name}"), json!(value), agent.origin);
        }
    }
    for (name, provider) in config.providers.iter() {
        all.provider(name, provider);
    }
    all.variables(variables);
    all.settings
}

/// The list as it grows.
struct List {
    file: String,
    pins: String,
    settings: Vec<SettingDocument>,
}

impl List {
    fn add(&mut self, key: &str, value: Value, origin: Origin) {
        let (origin, source) = match origin {
            Origin::Default => ("default", None),
            Origin::File => ("file", Some(self.file.clone())),
            Origin::Added => ("file", Some(self.pins.clone())),
            Origin::Variable(name) => ("variable", Some(name.to_owned())),
            Origin::Flag(name) => ("flag", Some(name.to_owned())),
        };
        self.settings.push(SettingDocument {
            key: key.to_owned(),
            value,
            origin,
            source,
        });
    }

    fn show<T: Serialize>(&mut self, key: &str, setting: &Setting<T>) {
        self.add(key, json!(setting.value), setting.origin);
    }

    fn own(&mut self, config: &Config) {
        let lossy = |path: &Path| json!(path.to_string_lossy());
        self.add("home", lossy(&config.home.value), config.home.origin);
        self.add(
            "ledger.path",
            lossy(&config.ledger.value),
            config.ledger.origin,
        );
        self.show("principal", &config.principal);
        self.show("admin", &config.admin);
        let timeout = &config.lock_timeout;
        self.add("ledger.lock_timeout", span(timeout.value), timeout.origin);
        self.show("ledger.allow_network_fs", &config.allow_network_fs);
        self.show("provider.default", &config.provider);
        self.show("agent.default", &config.agent);
        self.show("env.pass", &config.pass);
        self.show("git.token_hosts", &config.token_hosts);
        self.show("browser.open", &config.browser_open);
        self.show("browser.command", &config.browser_command);
    }

    fn limits(&mut self, config: &Config) {
        let mut limits = config.limits.clone();
        let origin = |name: &str| {
            if config.limits_set.contains(&name) {
                Origin::File
            } else {
                Origin::Default
            }
        };
        for (name, place) in Limits::CONFIGURABLE {
            let key = format!("limits.{name}");
            self.add(&key, span(*place(&mut limits)), origin(name));
        }
        self.add("limits.tries", json!(limits.tries), origin("tries"));
    }

    /// What is set of a provider; what is not is as the documentation has it.
    fn provider(&mut self, name: &str, provider: &ProviderTable) {
        let key = |key: &str| format!("providers.{name}.{key}");
        if let Some(file) = &provider.file {
            self.add(&key("kind"), json!(file.value.kind), file.origin);
            let path = file.value.path.to_string_lossy();
            self.add(&key("path"), json!(path), file.origin);
            self.add(&key("sha256"), json!(file.value.sha256), file.origin);
        }
        let isolation = provider.isolation.map_or(Origin::Default, |_| Origin::File);
        self.add(&key("isolation"), json!(provider.isolation()), isolation);
        if !provider.env_allow.is_empty() {
            self.add(&key("env_allow"), json!(provider.env_allow), Origin::File);
        }
        if let Some(config) = &provider.config {
            self.add(&key("config"), masked(config), Origin::File);
        }
    }

    fn variables(&mut self, variables: &Variables) {
        for name in SECRET {
            let value = if variables.has(name) {
                "set"
            } else {
                "not set"
            };
            self.add(name, json!(value), Origin::Variable(name));
        }
        for name in SHOWN {
            self.add(name, json!(variables.lenient(name)), Origin::Variable(name));
        }
    }
}

/// The value without what a key says is secret: it may be short, and the redactor does not look for short ones.
fn masked(value: &Value) -> Value {
    match value {
        Value::Object(fields) => fields
            .iter()
            .map(|(key, value)| {
                let value = if is_secret(key) {
                    json!("set")
                } else {
                    masked(value)
                };
                (key.clone(), value)
            })
            .collect(),
        Value::Array(items) => items.iter().map(masked).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.clone(),
    }
}

fn span(span: Duration) -> Value {
    humantime::format_duration(span).to_string().into()
}

/// A value for people.
fn plain(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) if items.is_empty() => "-".to_owned(),
        Value::Array(items) => items.iter().map(plain).collect::<Vec<_>>().join(", "),
        Value::Bool(_) | Value::Number(_) | Value::Object(_) => value.to_string(),
    }
}
