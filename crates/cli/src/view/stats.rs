//! The document of `stats`, and the same as Prometheus has it.

use super::VERSION;
use crate::commands::stats::Tally;
use crate::time;
use alpine_ledger::Timestamp;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

/// How many of something ended how.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Outcomes {
    /// Well.
    pub(crate) succeeded: u64,
    /// With an error.
    pub(crate) failed: u64,
}

/// The result of `stats`.
#[derive(Debug, Serialize)]
pub(crate) struct StatsDocument {
    schema_version: &'static str,
    since: String,
    until: String,
    up: RateDocument,
    verification: RateDocument,
    time_to_ready_ms: QuantilesDocument,
    retries: u64,
    takeovers: u64,
    orphans: u64,
    errors: BTreeMap<String, u64>,
    #[serde(skip)]
    window: Duration,
    #[serde(skip)]
    ready_ms: Vec<u64>,
}

/// How many, and which part of those that ended ended well.
#[derive(Debug, Serialize)]
struct RateDocument {
    total: u64,
    succeeded: u64,
    failed: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    unfinished: Option<u64>,
    success_rate: Option<f64>,
}

/// Each is a value that was measured: the smallest that so many are not above.
#[derive(Debug, Serialize)]
struct QuantilesDocument {
    p50: Option<u64>,
    p95: Option<u64>,
    p99: Option<u64>,
}

impl StatsDocument {
    pub(crate) fn new(tally: Tally, since: Timestamp, until: Timestamp) -> Self {
        let mut ready_ms = tally.ready_ms;
        ready_ms.sort_unstable();
        Self {
            schema_version: VERSION,
            since: since.to_string(),
            until: until.to_string(),
            up: RateDocument::new(&tally.ups, Some(tally.unfinished)),
            verification: RateDocument::new(&tally.verifications, None),
            time_to_ready_ms: QuantilesDocument {
                p50: quantile(&ready_ms, 50),
                p95: quantile(&ready_ms, 95),
                p99: quantile(&ready_ms, 99),
            },
            retries: tally.retries,
            takeovers: tally.takeovers,
            orphans: tally.orphans,
            errors: tally.errors,
            window: until.since(since),
            ready_ms,
        }
    }

    /// The same for people.
    pub(crate) fn told(&self) -> String {
        let ready = &self.time_to_ready_ms;
        let quantiles = [("p50", ready.p50), ("p95", ready.p95), ("p99", ready.p99)];
        let quantiles = quantiles
            .into_iter()
            .filter_map(|(name, ms)| Some(format!("{name} {}", seconds(ms?))))
            .collect::<Vec<_>>();
        let mut rows = vec![
            ("since", self.since.clone()),
            ("up", self.up.told()),
            ("verification", self.verification.told()),
            (
                "ready after",
                if quantiles.is_empty() {
                    "-".to_owned()
                } else {
                    quantiles.join(", ")
                },
            ),
            ("retries", self.retries.to_string()),
            ("takeovers", self.takeovers.to_string()),
            ("orphans", self.orphans.to_string()),
        ];
        let errors = self.errors.iter();
        rows.extend(errors.map(|(code, count)| ("error", format!("{code} ({count})"))));
        let rows = rows
            .into_iter()
            .map(|(name, value)| format!("{name:<12} {value}"));
        rows.collect::<Vec<_>>().join("\n")
    }

    /// The same for a textfile collector. All but the quantiles are gauges: what leaves the window is no longer counted.
    pub(crate) fn prometheus(&self) -> String {
        let mut page = String::new();
        let outcomes = |rate: &RateDocument, well: &str| {
            let mut samples = vec![
                (label("outcome", well), rate.succeeded),
                (label("outcome", "failed"), rate.failed),
            ];
            samples.extend(
                rate.unfinished
                    .map(|count| (label("outcome", "unfinished"), count)),
            );
            samples
        };
        let plain = |value: u64| vec![(String::new(), value)];
        let errors = self.errors.iter();
        let families = [
            (
                "alpine_window_seconds",
                "The length of the window that the other values are of.",
                plain(self.window.as_secs()),
            ),
            (
                "alpine_ups",
                "Operations in the window that bring a session up, by outcome.",
                outcomes(&self.up, "ready"),
            ),
            (
                "alpine_verifications",
                "Durable objects in the window that were read back, by outcome.",
                outcomes(&self.verification, "verified"),
            ),
            (
                "alpine_retries",
                "Tries of a step beyond the first, in the window.",
                plain(self.retries),
            ),
            (
                "alpine_takeovers",
                "Operations in the window that another process carried on.",
                plain(self.takeovers),
            ),
            (
                "alpine_orphans",
                "Sandboxes that were found without a session, in the window.",
                plain(self.orphans),
            ),
            (
                "alpine_errors",
                "Operations in the window that ended or were interrupted with an error, by code.",
                errors
                    .map(|(code, count)| (label("code", code), *count))
                    .collect(),
            ),
        ];
        for (name, help, samples) in families {
            head(&mut page, name, help, "gauge");
            for (labels, value) in samples {
                // Strings take every write.
                let _ = writeln!(page, "{name}{labels} {value}");
            }
        }
        self.time_to_ready(&mut page);
        page
    }

    fn time_to_ready(&self, page: &mut String) {
        let name = "alpine_time_to_ready_seconds";
        let help = "How long those `up`s took that ended well, in the window.";
        head(page, name, help, "summary");
        let ready = &self.time_to_ready_ms;
        for (quantile, ms) in [("0.5", ready.p50), ("0.95", ready.p95), ("0.99", ready.p99)] {
            let labels = label("quantile", quantile);
            let value = ms.map_or_else(|| "NaN".to_owned(), thousandths);
            let _ = writeln!(page, "{name}{labels} {value}");
        }
        let sum = self.ready_ms.iter().sum();
        let _ = writeln!(page, "{name}_sum {}", thousandths(sum));
        let _ = writeln!(page, "{name}_count {}", self.ready_ms.len());
    }
}

impl RateDocument {
    fn new(outcomes: &Outcomes, unfinished: Option<u64>) -> Self {
        let ended = outcomes.succeeded + outcomes.failed;
        let rate = outcomes.succeeded as f64 / ended as f64;
        Self {
            total: ended + unfinished.unwrap_or(0),
            succeeded: outcomes.succeeded,
            failed: outcomes.failed,
            unfinished,
            success_rate: (ended > 0).then(|| (rate * 10_000.0).round() / 10_000.0),
        }
    }

    fn told(&self) -> String {
        let rate = self.success_rate.map_or_else(String::new, |rate| {
            format!(
                " ({:.2} % of {})",
                rate * 100.0,
                self.succeeded + self.failed
            )
        });
        let unfinished = match self.unfinished {
            None | Some(0) => String::new(),
            Some(count) => format!(", {count} unfinished"),
        };
        format!(
            "{} succeeded, {} failed{unfinished}{rate}",
            self.succeeded, self.failed
        )
    }
}

/// The smallest value that `percent` of them are not above.
fn quantile(sorted: &[u64], percent: usize) -> Option<u64> {
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.checked_sub(1)?).copied()
}

fn seconds(ms: u64) -> String {
    time::span(Duration::from_millis(ms))
}

/// Milliseconds as seconds, exactly.
fn thousandths(ms: u64) -> String {
    format!("{}.{:03}", ms / 1000, ms % 1000)
}

fn head(page: &mut String, name: &str, help: &str, kind: &str) {
    let _ = writeln!(page, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

/// A label as the format wants it.
fn label(name: &str, value: &str) -> String {
    let value = value
        .replace('\\', r"\\")
        .replace('"', "\\\"")
        .replace('\n', r"\n");
    format!("{{{name}=\"{value}\"}}")
}

#[cfg(test)]
mod tests {
    use super::{label, quantile, thousandths};

    #[test]
    fn quantiles_are_values_that_were_measured() {
        let hundred: Vec<u64> = (1..=100).collect();
        let of = |sorted: &[u64]| [50, 95, 99].map(|percent| quantile(sorted, percent));
        assert_eq!(of(&hundred), [Some(50), Some(95), Some(99)]);
        assert_eq!(of(&[10, 20, 30]), [Some(20), Some(30), Some(30)]);
        assert_eq!(of(&[7]), [Some(7); 3]);
        assert_eq!(of(&[]), [None; 3]);
    }

    #[test]
    fn the_text_of_samples() {
        assert_eq!(thousandths(61_007), "61.007");
        assert_eq!(label("code", "a\"b\\c\nd"), r#"{code="a\"b\\c\nd"}"#);
    }
}
