//! One table at the end, and what is worth knowing beside it.

use std::time::Duration;

/// One thing that was measured.
#[derive(Clone, Debug)]
struct Row {
    what: String,
    ours: String,
    baseline: String,
    value: String,
    bar: String,
    verdict: &'static str,
}

/// Everything that was measured.
#[derive(Clone, Debug, Default)]
pub struct Report {
    rows: Vec<Row>,
    notes: Vec<String>,
}

/// What a measurement is held against.
#[derive(Clone, Copy, Debug)]
pub struct Bar {
    /// The measurement.
    pub value: f64,
    /// The most it may be.
    pub most: f64,
    /// What is counted: `×`, `ms`, `MiB`, `commits`.
    pub unit: &'static str,
}

impl Report {
    /// A measurement with a bar.
    pub fn bar(&mut self, what: &str, ours: String, baseline: String, bar: Bar) {
        let met = bar.value <= bar.most;
        self.rows.push(Row {
            what: what.to_owned(),
            ours,
            baseline,
            value: shown(bar.value, bar.unit),
            bar: format!("≤ {} {}", bar.most, bar.unit),
            verdict: if met { "PASS" } else { "FAIL" },
        });
    }

    /// A measurement without one, to compare with.
    pub fn fact(&mut self, what: &str, ours: String, baseline: String, value: Option<f64>) {
        self.rows.push(Row {
            what: what.to_owned(),
            ours,
            baseline,
            value: value.map_or_else(String::new, |value| shown(value, "×")),
            bar: String::new(),
            verdict: "",
        });
    }

    /// Where the time goes, or how something was counted.
    pub fn note(&mut self, note: String) {
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }

    /// The table, in Markdown, and the notes.
    #[must_use]
    pub fn text(&self) -> String {
        let header = ["what", "alpine", "baseline", "value", "bar", ""].map(str::to_owned);
        let mut rows = vec![header];
        rows.extend(self.rows.iter().map(|row| {
            [
                row.what.clone(),
                row.ours.clone(),
                row.baseline.clone(),
                row.value.clone(),
                row.bar.clone(),
                row.verdict.to_owned(),
            ]
        }));
        let mut widths = [3; 6];
        for row in &rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = cell.chars().count().max(*width);
            }
        }
        rows.insert(1, widths.map(|width| "-".repeat(width)));
        let mut lines: Vec<String> = rows.iter().map(|row| line(row, &widths)).collect();
        lines.push(String::new());
        lines.extend(self.notes.iter().map(|note| format!("- {note}")));
        lines.join("\n")
    }
}

fn line(row: &[String; 6], widths: &[usize; 6]) -> String {
    let cells: Vec<_> = row
        .iter()
        .zip(widths)
        .map(|(cell, width)| format!("{cell:<width$}"))
        .collect();
    format!("| {} |", cells.join(" | "))
}

fn shown(value: f64, unit: &str) -> String {
    match unit {
        "×" => format!("{value:.2} ×"),
        "commits" => format!("{value:.0} {unit}"),
        _ => format!("{value:.1} {unit}"),
    }
}

/// A time in milliseconds.
#[must_use]
pub fn ms(time: Duration) -> String {
    let ms = time.as_secs_f64() * 1000.0;
    if ms < 100.0 {
        format!("{ms:.1} ms")
    } else {
        format!("{ms:.0} ms")
    }
}

/// KiB as MiB.
#[must_use]
pub fn mib(kib: u64) -> f64 {
    kib as f64 / 1024.0
}

/// How many times as long.
#[must_use]
pub fn ratio(ours: Duration, baseline: Duration) -> f64 {
    ours.as_secs_f64() / baseline.as_secs_f64()
}
