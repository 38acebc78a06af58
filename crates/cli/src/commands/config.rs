//! `config`: what is in force, and where each value came from. Secrets are only ever `set` or `not set`.

use crate::config::{Config, Origin, Setting, Variables};
use crate::view::{ConfigDocument, SettingDocument, VERSION};
use crate::work::Work;
use alpine_lifecycle::{Failure, Limits};
use serde_json::{Value, json};
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
    let config = Config::load(&work.variables)?;
    let settings = settings(&config, &work.variables);
    if work.output.json {
        let settings = settings.into_iter().map(|mut setting| {
            if let Value::String(text) = &setting.value {
                setting.value = work.redactor().redact(text).into();
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
    let file = config
        .home
        .value
        .join("config.toml")
        .to_string_lossy()
        .into_owned();
    let entry = |key: &str, value: Value, origin: Origin| {
        let (origin, source) = match origin {
            Origin::Default => ("default", None),
            Origin::File => ("file", Some(file.clone())),
            Origin::Variable(name) => ("variable", Some(name.to_owned())),
        };
        SettingDocument {
            key: key.to_owned(),
            value,
            origin,
            source,
        }
    };
    let mut all = vec![
        entry(
            "home",
            json!(config.home.value.to_string_lossy()),
            config.home.origin,
        ),
        entry(
            "ledger.path",
            json!(config.ledger.value.to_string_lossy()),
            config.ledger.origin,
        ),
        entry(
            "principal",
            json!(config.principal.value),
            config.principal.origin,
        ),
        entry("admin", json!(config.admin.value), config.admin.origin),
        entry(
            "ledger.lock_timeout",
            span(config.lock_timeout.value),
            config.lock_timeout.origin,
        ),
        flag(&entry, "ledger.allow_network_fs", &config.allow_network_fs),
        entry(
            "provider.default",
            json!(config.provider.value),
            config.provider.origin,
        ),
        entry(
            "agent.default",
            json!(config.agent.value),
            config.agent.origin,
        ),
        entry("env.pass", json!(config.pass.value), config.pass.origin),
        entry(
            "git.token_hosts",
            json!(config.token_hosts.value),
            config.token_hosts.origin,
        ),
        flag(&entry, "browser.open", &config.browser_open),
        entry(
            "browser.command",
            json!(config.browser_command.value),
            config.browser_command.origin,
        ),
    ];
    let mut limits = config.limits.clone();
    let origin = |name: &str| {
        if config.limits_set.contains(&name) {
            Origin::File
        } else {
            Origin::Default
        }
    };
    for (name, place) in Limits::CONFIGURABLE {
        all.push(entry(
            &format!("limits.{name}"),
            span(*place(&mut limits)),
            origin(name),
        ));
    }
    all.push(entry("limits.tries", json!(limits.tries), origin("tries")));
    for name in config.agents.names() {
        if let Some(agent) = config.agents.get(name) {
            let value = agent.program().unwrap_or_else(|| agent.serves());
            all.push(entry(
                &format!("agents.{name}"),
                json!(value),
                Origin::Default,
            ));
        }
    }
    for name in SECRET {
        let value = if variables.has(name) {
            "set"
        } else {
            "not set"
        };
        all.push(entry(
            &format!("variable {name}"),
            json!(value),
            Origin::Variable(name),
        ));
    }
    for name in SHOWN {
        all.push(entry(
            &format!("variable {name}"),
            json!(variables.lenient(name)),
            Origin::Variable(name),
        ));
    }
    all
}

fn flag(
    entry: &impl Fn(&str, Value, Origin) -> SettingDocument,
    key: &str,
    setting: &Setting<bool>,
) -> SettingDocument {
    entry(key, json!(setting.value), setting.origin)
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
