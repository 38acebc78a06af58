//! What the checks came to, as text, JSON and JUnit XML.

use crate::catalogue::Check;
use crate::{Reach, junit, text};
use serde::Serialize;
use std::time::Duration;

/// Why nothing of a provider was checked that could not be asked what it is.
pub(crate) const NOT_STARTED: &str = "it did not start";

/// What a check came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "verdict")]
pub enum Verdict {
    /// The sentence holds, as far as the check can tell.
    Pass,
    /// The sentence is broken.
    Fail {
        /// What the contract says there is.
        expected: String,
        /// What there was.
        found: String,
        /// What was said to the provider and what it answered.
        trace: Vec<String>,
    },
    /// It was not checked.
    Skipped {
        /// Why.
        why: String,
    },
}

/// One check of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Checked {
    /// Its name.
    pub name: String,
    /// Its group.
    pub group: String,
    /// The sentence of the contract.
    pub sentence: String,
    /// How the provider was reached, and whether with what the host adds to it.
    pub reach: String,
    /// What it came to.
    #[serde(flatten)]
    pub verdict: Verdict,
    /// How long it took, in milliseconds.
    pub ms: u64,
    /// What there is to tell of it, whatever it came to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

impl Checked {
    pub(crate) fn new(check: &Check, reach: Reach, verdict: Verdict, took: Duration) -> Self {
        Self {
            name: check.name.to_owned(),
            group: check.group.as_str().to_owned(),
            sentence: check.sentence.to_owned(),
            reach: reach.as_str().to_owned(),
            verdict,
            ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            note: None,
        }
    }
}

/// A run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The provider's name, as it says itself; empty where it could not be asked, and then left out of the document.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub provider: String,
    /// Its version.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub version: String,
    /// How it was reached.
    pub reach: String,
    /// Whether every call went to a fresh instance.
    pub fresh: bool,
    /// The seed of the random choices.
    pub seed: u64,
    /// Every check that was asked for; before them, that the provider opens, where it does not.
    pub checks: Vec<Checked>,
    /// What could not be removed afterwards: this is a failure too.
    pub left: Vec<String>,
}

impl Report {
    /// This one, and that of the same provider with what the host adds to it.
    pub(crate) fn with_adapted(mut self, adapted: Report) -> Self {
        let reach = format!("{}, with what alpine adds", self.reach);
        self.left.extend(adapted.left);
        self.checks.extend(adapted.checks.into_iter().map(|check| {
            let reach = reach.clone();
            Checked { reach, ..check }
        }));
        self
    }

    /// This one, and something more that is wrong when it is over.
    pub(crate) fn with_left(mut self, left: String) -> Self {
        self.left.push(left);
        self
    }

    /// Whether every check reached the provider in the same way.
    pub(crate) fn is_one_way(&self) -> bool {
        self.checks.iter().all(|check| check.reach == self.reach)
    }

    /// The checks of each group, in their order, under a title: with how the provider was reached where that is several ways.
    pub(crate) fn groups(&self) -> Vec<(String, Vec<&Checked>)> {
        let is_one_way = self.is_one_way();
        let mut groups: Vec<(String, Vec<&Checked>)> = Vec::new();
        for check in &self.checks {
            let title = match is_one_way {
                true => check.group.clone(),
                false => format!("{} ({})", check.group, check.reach),
            };
            match groups.last_mut() {
                Some((last, checks)) if *last == title => checks.push(check),
                Some(_) | None => groups.push((title, vec![check])),
            }
        }
        groups
    }

    /// How many passed, failed, and were skipped.
    #[must_use]
    pub fn counts(&self) -> (usize, usize, usize) {
        self.checks
            .iter()
            .fold((0, 0, 0), |sum, check| match check.verdict {
                Verdict::Pass => (sum.0 + 1, sum.1, sum.2),
                Verdict::Fail { .. } => (sum.0, sum.1 + 1, sum.2),
                Verdict::Skipped { .. } => (sum.0, sum.1, sum.2 + 1),
            })
    }

    /// Whether nothing failed, something passed, and nothing is left behind.
    #[must_use]
    pub fn is_success(&self) -> bool {
        let (passed, failed, _) = self.counts();
        failed == 0 && passed > 0 && self.left.is_empty()
    }

    /// The checks that failed.
    pub fn failures(&self) -> impl Iterator<Item = &Checked> {
        let failed = |check: &&Checked| matches!(check.verdict, Verdict::Fail { .. });
        self.checks.iter().filter(failed)
    }

    /// What was checked, and how.
    pub(crate) fn title(&self) -> String {
        match self.provider.as_str() {
            "" => format!("a provider that did not start ({})", self.reach),
            name => format!("{name} {} ({})", self.version, self.reach),
        }
    }

    /// For people: a line for each check, what there is to know of each failure, and the counts, which are the last.
    #[must_use]
    pub fn text(&self) -> String {
        text::write(self)
    }

    /// One JSON document.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        let mut value = serde_json::to_value(self).unwrap_or_default();
        let (passed, failed, skipped) = self.counts();
        value["schema_version"] = "v1".into();
        value["counts"] =
            serde_json::json!({ "passed": passed, "failed": failed, "skipped": skipped });
        value["success"] = self.is_success().into();
        value
    }

    /// JUnit XML, as build servers take it.
    #[must_use]
    pub fn junit(&self) -> String {
        junit::write(self)
    }
}
