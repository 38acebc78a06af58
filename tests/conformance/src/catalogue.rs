//! Every check: its name, its sentence, and what it needs.

use crate::bench::Bench;
use crate::called::Checking;
use crate::groups;
use alpine_provider_api::{Feature, Method};
use std::fmt;
use std::pin::Pin;

/// A check's work.
pub(crate) type Work =
    for<'a> fn(&'a Bench<'a>) -> Pin<Box<dyn Future<Output = Checking> + Send + 'a>>;

/// One sentence of the contract, and how it is checked.
#[derive(Clone, Copy)]
pub struct Check {
    /// Its stable name: `provision.twice`.
    pub name: &'static str,
    /// Its group.
    pub group: Group,
    /// The sentence.
    pub sentence: &'static str,
    pub(crate) methods: &'static [Method],
    pub(crate) features: &'static [Feature],
    pub(crate) work: Work,
}

impl fmt::Debug for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Check")
            .field("name", &self.name)
            .field("sentence", &self.sentence)
            .finish_non_exhaustive()
    }
}

/// What belongs together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// Loading and boundary.
    Boundary,
    /// What it says of itself.
    Describe,
    /// What it makes of arguments.
    Arguments,
    /// Provision, list and inspect.
    Provision,
    /// Repository and install.
    Repository,
    /// Start and health.
    Start,
    /// Commands and logs.
    Exec,
    /// Capture, persist and restore.
    Keep,
    /// Stop and destroy.
    Ending,
    /// Fences.
    Fencing,
    /// Crashes.
    Crash,
}

impl Group {
    /// Every group.
    pub const ALL: [Group; 11] = [
        Group::Boundary,
        Group::Describe,
        Group::Arguments,
        Group::Provision,
        Group::Repository,
        Group::Start,
        Group::Exec,
        Group::Keep,
        Group::Ending,
        Group::Fencing,
        Group::Crash,
    ];

    /// The name in reports.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Group::Boundary => "loading and boundary",
            Group::Describe => "describe",
            Group::Arguments => "arguments",
            Group::Provision => "provision",
            Group::Repository => "repository and install",
            Group::Start => "start and health",
            Group::Exec => "exec and logs",
            Group::Keep => "persist and restore",
            Group::Ending => "stop and destroy",
            Group::Fencing => "fencing",
            Group::Crash => "crash",
        }
    }
}

/// Every check, group by group.
#[must_use]
pub fn checks() -> Vec<Check> {
    Group::ALL
        .into_iter()
        .flat_map(|group| match group {
            Group::Boundary => groups::boundary::CHECKS,
            Group::Describe => groups::describe::CHECKS,
            Group::Arguments => groups::arguments::CHECKS,
            Group::Provision => groups::provision::CHECKS,
            Group::Repository => groups::repository::CHECKS,
            Group::Start => groups::start::CHECKS,
            Group::Exec => groups::exec::CHECKS,
            Group::Keep => groups::keep::CHECKS,
            Group::Ending => groups::ending::CHECKS,
            Group::Fencing => groups::fencing::CHECKS,
            Group::Crash => groups::crash::CHECKS,
        })
        .copied()
        .collect()
}

/// The checks whose name holds one of these texts; without texts, every check.
///
/// # Errors
/// Says which text picks nothing, and what the names begin with.
pub fn picked(only: &[String]) -> Result<Vec<Check>, String> {
    let all = checks();
    let holds = |check: &Check, text: &String| check.name.contains(text.as_str());
    let missed = |text: &&String| !all.iter().any(|check| holds(check, text));
    if let Some(text) = only.iter().find(missed) {
        let mut words: Vec<&str> = Vec::new();
        for word in all.iter().filter_map(|check| check.name.split('.').next()) {
            // Some begin in several groups alike.
            if !words.contains(&word) {
                words.push(word);
            }
        }
        let words = words.join("`, `");
        return Err(format!(
            "no check's name holds `{text}`: they begin with `{words}`"
        ));
    }
    let wanted = |check: &Check| only.is_empty() || only.iter().any(|text| holds(check, text));
    Ok(all.into_iter().filter(wanted).collect())
}

/// A check in a group's table: name, sentence, work; what must be announced for it.
macro_rules! check {
    ($group:ident, $name:literal, $sentence:literal, $work:path $(, $($needed:ident)|+)? $(; $($feature:ident)|+)?) => {
        $crate::catalogue::Check {
            name: $name,
            group: $crate::catalogue::Group::$group,
            sentence: $sentence,
            methods: &[$($(::alpine_provider_api::Method::$needed),+)?],
            features: &[$($(::alpine_provider_api::Feature::$feature),+)?],
            work: |bench| ::std::boxed::Box::pin($work(bench)),
        }
    };
}
pub(crate) use check;
