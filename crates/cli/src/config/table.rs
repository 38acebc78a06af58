//! Reads a TOML table key by key, so that each mistake is told with its file, line and key.

use alpine_lifecycle::{ErrorCode, Failure};
use serde_json::Value;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::time::Duration;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// The longest time limit that makes sense.
const LONGEST: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// A file of configuration.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Source<'a> {
    /// Its name, for people.
    pub(crate) path: &'a Path,
    /// Its text.
    pub(crate) text: &'a str,
}

impl<'a> Source<'a> {
    /// Parses the text.
    pub(crate) fn parse(self) -> Result<Table<'a>, Failure> {
        let parsed = DeTable::parse(self.text).map_err(|error| {
            let at = error.span().unwrap_or(0..0);
            self.wrong(&at, &error.message().lines().collect::<Vec<_>>().join("; "))
        })?;
        Ok(Table::new(self, String::new(), 0..0, parsed.into_inner()))
    }

    fn wrong(self, at: &Range<usize>, what: &str) -> Failure {
        let before = self.text.get(..at.start).unwrap_or(self.text);
        let line = before.matches('\n').count() + 1;
        let path = self.path.display();
        Failure::new(
            ErrorCode::ConfigInvalid,
            format!("`{path}`, line {line}: {what}"),
        )
        .next(format!(
            "${{EDITOR:-vi}} +{line} {}",
            alpine_lifecycle::quoted(&path.to_string())
        ))
    }
}

/// A table of which keys are taken one by one; what is left at the end is unknown.
#[derive(Debug)]
pub(crate) struct Table<'a> {
    source: Source<'a>,
    name: String,
    /// Where its own key stands.
    at: Range<usize>,
    keys: BTreeMap<String, (Range<usize>, Spanned<DeValue<'a>>)>,
    known: Vec<&'static str>,
}

impl<'a> Table<'a> {
    fn new(source: Source<'a>, name: String, at: Range<usize>, table: DeTable<'a>) -> Self {
        let keys = table.into_iter().map(|(key, value)| {
            let at = key.span();
            (key.into_inner().into_owned(), (at, value))
        });
        Self {
            source,
            name,
            at,
            keys: keys.collect(),
            known: Vec::new(),
        }
    }

    fn full(&self, key: &str) -> String {
        if self.name.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.name)
        }
    }

    /// Something about the value of `key` that is wrong.
    pub(crate) fn refuse(&self, key: &str, at: &Range<usize>, what: &str) -> Failure {
        self.source
            .wrong(at, &format!("`{}` {what}", self.full(key)))
    }

    /// Something about the table itself that is wrong.
    pub(crate) fn refuse_whole(&self, what: &str) -> Failure {
        self.source
            .wrong(&self.at, &format!("`{}` {what}", self.name))
    }

    fn take(&mut self, key: &'static str) -> Option<Spanned<DeValue<'a>>> {
        self.known.push(key);
        self.keys.remove(key).map(|(_, value)| value)
    }

    /// Where the value of `key` stands.
    pub(crate) fn place(&self, key: &str) -> Range<usize> {
        self.keys.get(key).map_or(0..0, |(at, _)| at.clone())
    }

    fn mismatch(&self, key: &str, value: &Spanned<DeValue<'_>>, wanted: &str) -> Failure {
        let found = value.get_ref().type_str();
        self.refuse(
            key,
            &value.span(),
            &format!("has to be {wanted}, not of type {found}"),
        )
    }

    /// A text, and where it stands.
    pub(crate) fn text_at(
        &mut self,
        key: &'static str,
    ) -> Result<Option<(String, Range<usize>)>, Failure> {
        let Some(value) = self.take(key) else {
            return Ok(None);
        };
        let text = value
            .get_ref()
            .as_str()
            .ok_or_else(|| self.mismatch(key, &value, "a text"))?;
        Ok(Some((text.to_owned(), value.span())))
    }

    /// A text that is not blank.
    pub(crate) fn text(&mut self, key: &'static str) -> Result<Option<String>, Failure> {
        match self.text_at(key)? {
            Some((text, at)) if text.trim().is_empty() || text.contains('\0') => {
                Err(self.refuse(key, &at, "is blank or holds a NUL"))
            }
            found => Ok(found.map(|(text, _)| text)),
        }
    }

    /// True or false.
    pub(crate) fn flag(&mut self, key: &'static str) -> Result<Option<bool>, Failure> {
        let Some(value) = self.take(key) else {
            return Ok(None);
        };
        value
            .get_ref()
            .as_bool()
            .map(Some)
            .ok_or_else(|| self.mismatch(key, &value, "`true` or `false`"))
    }

    /// A number from 1 to `most`.
    pub(crate) fn number(&mut self, key: &'static str, most: u32) -> Result<Option<u32>, Failure> {
        let Some(value) = self.take(key) else {
            return Ok(None);
        };
        let wanted = format!("a number from 1 to {most}");
        let integer = value
            .get_ref()
            .as_integer()
            .ok_or_else(|| self.mismatch(key, &value, &wanted))?;
        let number = u32::from_str_radix(&integer.as_str().replace('_', ""), integer.radix()).ok();
        let number = number.filter(|number| (1..=most).contains(number));
        number
            .map(Some)
            .ok_or_else(|| self.refuse(key, &value.span(), &format!("has to be {wanted}")))
    }

    /// A duration, as humans write it.
    pub(crate) fn duration(&mut self, key: &'static str) -> Result<Option<Duration>, Failure> {
        let Some(value) = self.take(key) else {
            return Ok(None);
        };
        let wanted = "a duration such as \"90s\" or \"5m\"";
        let text = value
            .get_ref()
            .as_str()
            .ok_or_else(|| self.mismatch(key, &value, wanted))?;
        match duration(text) {
            Ok(span) => Ok(Some(span)),
            Err(why) => Err(self.refuse(key, &value.span(), &format!("has to be {wanted}: {why}"))),
        }
    }

    /// A list of texts.
    pub(crate) fn texts(&mut self, key: &'static str) -> Result<Option<Vec<String>>, Failure> {
        let Some(value) = self.take(key) else {
            return Ok(None);
        };
        let items = value
            .get_ref()
            .as_array()
            .ok_or_else(|| self.mismatch(key, &value, "a list of texts"))?;
        let text = |item: &Spanned<DeValue<'_>>| match item.get_ref().as_str() {
            Some(text) if !text.contains('\0') => Ok(text.to_owned()),
            Some(_) => Err(self.refuse(key, &item.span(), "holds a NUL")),
            None => Err(self.mismatch(key, item, "a list of texts")),
        };
        items.iter().map(text).collect::<Result<_, _>>().map(Some)
    }

    /// A table within this one.
    pub(crate) fn table(&mut self, key: &'static str) -> Result<Option<Table<'a>>, Failure> {
        let Some(value) = self.take(key) else {
            return Ok(None);
        };
        let at = value.span();
        self.inner(key, at, value).map(Some)
    }

    /// A table of whatever somebody else understands, as JSON.
    pub(crate) fn json(&mut self, key: &'static str) -> Result<Option<Value>, Failure> {
        let Some(value) = self.take(key) else {
            return Ok(None);
        };
        if !value.get_ref().is_table() {
            return Err(self.mismatch(key, &value, "a table"));
        }
        json(&value)
            .map(Some)
            .map_err(|at| self.refuse(key, &at, "holds a number that JSON does not have"))
    }

    /// Every key that is left, each of which has to be a table.
    pub(crate) fn tables(&mut self) -> Result<Vec<(String, Table<'a>)>, Failure> {
        let left = std::mem::take(&mut self.keys);
        let table = |(key, (at, value)): (String, (Range<usize>, _))| {
            self.inner(&key, at, value).map(|inner| (key, inner))
        };
        left.into_iter().map(table).collect()
    }

    /// Every key that is left, each of which has to be a text.
    pub(crate) fn map(&mut self) -> Result<BTreeMap<String, String>, Failure> {
        let left = std::mem::take(&mut self.keys);
        let text = |(key, (_, value)): (String, (Range<usize>, Spanned<DeValue<'a>>))| match value
            .get_ref()
            .as_str()
        {
            Some(text) => Ok((key, text.to_owned())),
            None => Err(self.mismatch(&key, &value, "a text")),
        };
        left.into_iter().map(text).collect()
    }

    fn inner(
        &self,
        key: &str,
        at: Range<usize>,
        value: Spanned<DeValue<'a>>,
    ) -> Result<Table<'a>, Failure> {
        if !value.get_ref().is_table() {
            return Err(self.mismatch(key, &value, "a table"));
        }
        match value.into_inner() {
            DeValue::Table(table) => Ok(Table::new(self.source, self.full(key), at, table)),
            DeValue::String(_)
            | DeValue::Integer(_)
            | DeValue::Float(_)
            | DeValue::Boolean(_)
            | DeValue::Datetime(_)
            | DeValue::Array(_) => Ok(Table::new(self.source, self.full(key), at, DeTable::new())),
        }
    }

    /// Refuses what nobody took.
    pub(crate) fn finish(self) -> Result<(), Failure> {
        match self.keys.iter().min_by_key(|(_, (at, _))| at.start) {
            None => Ok(()),
            Some((key, (at, _))) => {
                let known = self
                    .known
                    .iter()
                    .map(|key| format!("`{key}`"))
                    .collect::<Vec<_>>()
                    .join(", ");
                let key: String = key.chars().take(80).collect();
                Err(self.refuse(
                    &key,
                    at,
                    &format!("is not a key of this version; known here: {known}"),
                ))
            }
        }
    }
}

/// A value as JSON; a time is its text. Where there is a number that JSON does not have, the place of it.
fn json(value: &Spanned<DeValue<'_>>) -> Result<Value, Range<usize>> {
    let number = |number: Option<serde_json::Number>| number.map(Value::from).ok_or(value.span());
    match value.get_ref() {
        DeValue::String(text) => Ok(text.as_ref().into()),
        DeValue::Boolean(flag) => Ok((*flag).into()),
        DeValue::Datetime(time) => Ok(time.to_string().into()),
        DeValue::Integer(integer) => number(
            i64::from_str_radix(&integer.as_str().replace('_', ""), integer.radix())
                .ok()
                .map(Into::into),
        ),
        DeValue::Float(float) => number(
            float
                .as_str()
                .replace('_', "")
                .parse()
                .ok()
                .and_then(serde_json::Number::from_f64),
        ),
        DeValue::Array(items) => items.iter().map(json).collect(),
        DeValue::Table(table) => table
            .iter()
            .map(|(key, value)| Ok((key.get_ref().to_string(), json(value)?)))
            .collect(),
    }
}

/// A duration above zero: `90s`, `5m`, `1h 30m`; a bare number is seconds.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let text = text.trim();
    let span = match text.parse::<u32>() {
        Ok(seconds) => Duration::from_secs(seconds.into()),
        Err(_) => humantime::parse_duration(text).map_err(|error| error.to_string())?,
    };
    if span.is_zero() {
        Err("it is zero".to_owned())
    } else if span > LONGEST {
        Err("it is longer than 30 days".to_owned())
    } else {
        Ok(span)
    }
}

#[cfg(test)]
mod tests {
    use super::{Source, duration};
    use proptest::prelude::*;
    use std::path::Path;
    use std::time::Duration;

    #[test]
    fn durations() {
        assert_eq!(duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration(" 7 "), Ok(Duration::from_secs(7)));
        assert_eq!(duration("1h 30m"), Ok(Duration::from_secs(5400)));
        for wrong in [
            "",
            "0",
            "0s",
            "soon",
            "-1s",
            "90 parsecs",
            "400d",
            "99999999999999999999s",
        ] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC*") {
            let _ = duration(&text);
            if let Ok(mut table) = (Source { path: Path::new("f"), text: &text }).parse() {
                let _ = (table.text("a"), table.number("b", 3), table.tables());
                let _ = table.finish();
            }
        }
    }
}
