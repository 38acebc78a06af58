//! The providers that are not compiled in: tables of `config.toml`, over the pins of those that were added.

use super::file::is_variable;
use super::table::{Source, Table};
use super::{Origin, Setting, Variables, is_secret};
use alpine_lifecycle::{Failure, quoted};
use alpine_provider_api::Secret;
use alpine_provider_store::{Isolation, Kind, Pin};
use serde_json::Value;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// The provider that is always compiled in.
pub(crate) const LOCAL: &str = "local";

/// What a name is made of.
pub(crate) const NAME_FORM: &str = "use 1 to 64 of a-z, 0-9 and `-`, of which the first is not `-`";

/// All providers that are not compiled in, by name.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct ProviderTables(BTreeMap<String, ProviderTable>);

/// One provider that is not compiled in.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct ProviderTable {
    /// Its file; none where settings are there for a provider that was not added.
    pub(crate) file: Option<Setting<ProviderFile>>,
    /// Where a library runs.
    pub(crate) isolation: Option<Isolation>,
    /// The caller's variables that it gets.
    pub(crate) env_allow: Vec<String>,
    /// Its own table, as JSON.
    pub(crate) config: Option<Value>,
}

/// The file of a provider: three keys that go together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ProviderFile {
    /// What it is.
    pub(crate) kind: Kind,
    /// Its absolute path.
    pub(crate) path: PathBuf,
    /// SHA-256 of its bytes, in hex. A program may be without.
    pub(crate) sha256: Option<String>,
}

impl ProviderTables {
    /// Reads the pins of those that were added, a text that this program wrote.
    pub(super) fn read_pins(&mut self, path: &Path, text: &str) -> Result<(), Failure> {
        let mut top = Source { path, text }.parse()?;
        if let Some(table) = top.table("providers")? {
            self.read(table, Origin::Added)?;
        }
        top.finish()
    }

    /// Adds the providers of a table. What it says of one that is there goes before what was said; the keys of its file
    /// go together.
    pub(super) fn read(&mut self, mut table: Table<'_>, origin: Origin) -> Result<(), Failure> {
        for (name, mut provider) in table.tables()? {
            if !is_name(&name) {
                return Err(
                    provider.refuse_whole(&format!("is not a name for a provider: {NAME_FORM}"))
                );
            }
            if name == LOCAL {
                return Err(provider.refuse_whole("is compiled in: choose another name"));
            }
            let known = self.0.entry(name).or_default();
            if let Some(file) = file(&mut provider)? {
                known.file = Some(Setting {
                    value: file,
                    origin,
                });
            }
            let kind = known.file.as_ref().map(|file| file.value.kind);
            if let Some(isolation) = isolation(&mut provider, kind)? {
                known.isolation = Some(isolation);
            }
            if let Some(names) = variables(&mut provider)? {
                known.env_allow = names;
            }
            if let Some(config) = provider.json("config")? {
                known.config = Some(config);
            }
            provider.finish()?;
        }
        Ok(())
    }

    /// The providers, by name.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &ProviderTable)> {
        self.0.iter().map(|(name, table)| (name.as_str(), table))
    }

    /// The provider of that name.
    pub(crate) fn get(&self, name: &str) -> Option<&ProviderTable> {
        self.0.get(name)
    }

    /// Those that were added.
    pub(crate) fn pins(&self) -> Vec<Pin> {
        let pin = |(name, table): (&String, &ProviderTable)| {
            let file = table.file.as_ref()?;
            (file.origin == Origin::Added).then(|| Pin {
                name: name.clone(),
                kind: file.value.kind,
                path: file.value.path.clone(),
                sha256: file.value.sha256.clone().unwrap_or_default(),
            })
        };
        self.0.iter().filter_map(pin).collect()
    }

    /// What no log may hold: the values of the variables that providers get, and of keys that say that they are secret.
    pub(super) fn secrets(&self, variables: &Variables) -> Vec<Secret<String>> {
        let mut found = Vec::new();
        for table in self.0.values() {
            let values = table
                .env_allow
                .iter()
                .filter_map(|name| variables.lenient(name));
            found.extend(values.map(|value| Secret::new(value.to_owned())));
            if let Some(config) = &table.config {
                secret_values(config, false, &mut found);
            }
        }
        found
    }
}

impl ProviderTable {
    /// The same with the file of a pin.
    pub(crate) fn with_pin(self, pin: &Pin) -> Self {
        let file = ProviderFile {
            kind: pin.kind,
            path: pin.path.clone(),
            sha256: Some(pin.sha256.clone()),
        };
        Self {
            file: Some(Setting {
                value: file,
                origin: Origin::Added,
            }),
            ..self
        }
    }

    /// The same, where its file comes from there.
    pub(crate) fn from(mut self, origin: Origin) -> Self {
        if let Some(file) = &mut self.file {
            file.origin = origin;
        }
        self
    }

    /// Where it runs.
    pub(crate) fn isolation(&self) -> Isolation {
        self.isolation.unwrap_or_default()
    }
}

/// Whether a text can be a provider's name.
pub(crate) fn is_name(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=64).contains(&text.len()) && text.bytes().all(fits) && !text.starts_with('-')
}

fn secret_values(value: &Value, is_one: bool, found: &mut Vec<Secret<String>>) {
    match value {
        Value::String(text) if is_one => found.push(Secret::new(text.clone())),
        Value::Array(items) => items
            .iter()
            .for_each(|item| secret_values(item, is_one, found)),
        Value::Object(fields) => fields
            .iter()
            .for_each(|(key, value)| secret_values(value, is_one || is_secret(key), found)),
        Value::String(_) | Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn file(table: &mut Table<'_>) -> Result<Option<ProviderFile>, Failure> {
    let place = table.place("kind");
    let kind = table.text("kind")?;
    let path = table.text_at("path")?;
    let sha256 = table.text_at("sha256")?;
    let Some((path, at)) = path else {
        let lonely = kind
            .map(|_| ("kind", place))
            .or_else(|| sha256.map(|(_, at)| ("sha256", at)));
        return match lonely {
            Some((key, at)) => Err(table.refuse(key, &at, "is of no use without `path`")),
            None => Ok(None),
        };
    };
    let kind = match kind.as_deref() {
        Some("dylib") => Kind::Dylib,
        Some("exec") => Kind::Exec,
        Some(_) => return Err(table.refuse("kind", &place, "has to be \"dylib\" or \"exec\"")),
        None => return Err(table.refuse("kind", &at, "is missing: \"dylib\" or \"exec\"")),
    };
    if !Path::new(&path).is_absolute() || path.chars().any(char::is_control) {
        return Err(table.refuse("path", &at, "has to be an absolute path"));
    }
    let sha256 = sha256
        .map(|(text, at)| digest(table, text, &at))
        .transpose()?;
    if sha256.is_none() && kind == Kind::Dylib {
        return Err(table.refuse(
            "sha256",
            &at,
            &format!("is missing: a library is loaded only where its digest is pinned; `alpine provider inspect {}` prints it", quoted(&path)),
        ));
    }
    Ok(Some(ProviderFile {
        kind,
        path: path.into(),
        sha256,
    }))
}

fn digest(table: &Table<'_>, text: String, at: &Range<usize>) -> Result<String, Failure> {
    if text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        Ok(text.to_ascii_lowercase())
    } else {
        Err(table.refuse("sha256", at, "has to be 64 hexadecimal digits"))
    }
}

fn isolation(table: &mut Table<'_>, kind: Option<Kind>) -> Result<Option<Isolation>, Failure> {
    let Some((text, at)) = table.text_at("isolation")? else {
        return Ok(None);
    };
    match (text.as_str(), kind) {
        ("in-process", Some(Kind::Exec)) => Err(table.refuse(
            "isolation",
            &at,
            "has to be \"process\": a program always has a process of its own",
        )),
        ("in-process", Some(Kind::Dylib) | None) => Ok(Some(Isolation::InProcess)),
        ("process", _) => Ok(Some(Isolation::Process)),
        _ => Err(table.refuse("isolation", &at, "has to be \"process\" or \"in-process\"")),
    }
}

fn variables(table: &mut Table<'_>) -> Result<Option<Vec<String>>, Failure> {
    super::file::names(table, "env_allow", "a variable's name", is_variable)
}

#[cfg(test)]
mod tests {
    use super::{Origin, ProviderTables, Source, Variables, is_name};
    use std::path::Path;

    const SHA: &str = "3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f";

    fn read(tables: &mut ProviderTables, text: &str) -> Result<(), String> {
        let path = Path::new("config.toml");
        let mut top = Source { path, text }
            .parse()
            .map_err(|failure| failure.cause)?;
        let told = |failure: alpine_lifecycle::Failure| failure.cause;
        if let Some(table) = top.table("providers").map_err(told)? {
            tables.read(table, Origin::File).map_err(told)?;
        }
        top.finish().map_err(told)
    }

    #[test]
    fn a_whole_table() {
        let mut tables = ProviderTables::default();
        let text = format!(
            "[providers.acme]\nkind = 'dylib'\npath = '/opt/lib.so'\nsha256 = '{}'\nisolation = 'in-process'\nenv_allow = ['ACME_AUTH']\n\
             [providers.acme.config]\nregion = 'eu-1'\nnested = {{ list = [1, 2.5, true, 1979-05-27], api_token = ['hunter2hunter2'] }}\n",
            SHA.to_uppercase()
        );
        read(&mut tables, &text).unwrap();
        let acme = tables.get("acme").unwrap();
        assert_eq!(
            acme.file.as_ref().unwrap().value.sha256.as_deref(),
            Some(SHA)
        );
        assert_eq!(acme.isolation().as_str(), "in-process");
        assert_eq!(
            acme.config,
            Some(
                serde_json::json!({"region": "eu-1", "nested": {"list": [1, 2.5, true, "1979-05-27"], "api_token": ["hunter2hunter2"]}})
            )
        );
        let secrets = tables.secrets(&Variables::of(&[("ACME_AUTH", "from the environment")]));
        let secrets: Vec<_> = secrets
            .iter()
            .map(|secret| secret.expose().as_str())
            .collect();
        assert_eq!(secrets, ["from the environment", "hunter2hunter2"]);
    }

    #[test]
    fn the_users_own_table_goes_before_the_pins() {
        let pins =
            format!("[providers.acme]\nkind = 'dylib'\npath = '/store/{SHA}'\nsha256 = '{SHA}'\n");
        let mut tables = ProviderTables::default();
        tables
            .read_pins(Path::new("providers.toml"), &pins)
            .unwrap();
        read(&mut tables, "[providers.acme]\nenv_allow = ['A']\n").unwrap();
        let acme = tables.get("acme").unwrap();
        assert_eq!(acme.env_allow, ["A"]);
        assert_eq!(acme.file.as_ref().unwrap().origin, Origin::Added);
        assert_eq!(tables.pins().len(), 1);
        read(
            &mut tables,
            "[providers.acme]\nkind = 'exec'\npath = '/opt/acme'\n",
        )
        .unwrap();
        let file = tables.get("acme").unwrap().file.as_ref().unwrap();
        // The three keys go together: no pin of another file is left.
        assert_eq!((file.origin, &file.value.sha256), (Origin::File, &None));
        assert!(tables.pins().is_empty());
    }

    const MISTAKES: &[(&str, &str)] = &[
        (
            "x = 1",
            "line 2: `providers.acme.x` is not a key of this version",
        ),
        (
            "kind = 'dylib'",
            "line 2: `providers.acme.kind` is of no use without `path`",
        ),
        (
            "sha256 = '3f'",
            "line 2: `providers.acme.sha256` is of no use without `path`",
        ),
        (
            "kind = 'so'\npath = '/x'",
            "line 2: `providers.acme.kind` has to be \"dylib\" or \"exec\"",
        ),
        ("path = '/x'", "line 2: `providers.acme.kind` is missing"),
        (
            "kind = 'exec'\npath = 'lib.so'",
            "line 3: `providers.acme.path` has to be an absolute path",
        ),
        (
            "kind = 'exec'\npath = './lib.so'",
            "line 3: `providers.acme.path` has to be an absolute path",
        ),
        (
            "kind = 'exec'\npath = '~/lib.so'",
            "line 3: `providers.acme.path` has to be an absolute path",
        ),
        (
            "kind = 'exec'\npath = 3",
            "line 3: `providers.acme.path` has to be a text",
        ),
        (
            "kind = 'dylib'\npath = '/x'",
            "`providers.acme.sha256` is missing",
        ),
        (
            "kind = 'exec'\npath = '/x'\nsha256 = '3f'",
            "line 4: `providers.acme.sha256` has to be 64 hexadecimal digits",
        ),
        (
            "isolation = 'none'",
            "line 2: `providers.acme.isolation` has to be \"process\" or \"in-process\"",
        ),
        (
            "kind = 'exec'\npath = '/x'\nisolation = 'in-process'",
            "line 4: `providers.acme.isolation` has to be \"process\"",
        ),
        (
            "env_allow = ['A B']",
            "line 2: `providers.acme.env_allow` holds `A B`",
        ),
        (
            "config = 3",
            "line 2: `providers.acme.config` has to be a table",
        ),
        (
            "config.x = nan",
            "line 2: `providers.acme.config` holds a number that JSON does not have",
        ),
    ];

    #[test]
    fn mistakes_name_line_and_key() {
        for (lines, wanted) in MISTAKES {
            let mut tables = ProviderTables::default();
            let cause = read(&mut tables, &format!("[providers.acme]\n{lines}")).unwrap_err();
            assert!(cause.contains(wanted), "{lines}: {cause}");
        }
        for (text, wanted) in [
            (
                "[providers]\nacme = 3",
                "line 2: `providers.acme` has to be a table",
            ),
            (
                "[providers.Acme]",
                "line 1: `providers.Acme` is not a name for a provider",
            ),
            (
                "[providers.local]",
                "line 1: `providers.local` is compiled in",
            ),
            ("providers = 3", "line 1: `providers` has to be a table"),
        ] {
            let cause = read(&mut ProviderTables::default(), text).unwrap_err();
            assert!(cause.contains(wanted), "{text}: {cause}");
        }
    }

    #[test]
    fn names() {
        assert!(is_name("acme") && is_name("a-1") && is_name(&"x".repeat(64)));
        for wrong in ["", "A", "a_b", "a.b", "../x", "-a", "ä", &"x".repeat(65)] {
            assert!(!is_name(wrong), "{wrong}");
        }
    }
}
