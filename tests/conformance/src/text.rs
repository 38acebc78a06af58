//! The report for people: a line for each check, then what there is to know of each failure, and the counts as the last.

use crate::report::NOT_STARTED;
use crate::{Checked, Report, Verdict};
use std::fmt::Write as _;

pub(crate) fn write(report: &Report) -> String {
    let mut out = report.title() + "\n";
    let is_started = !report.provider.is_empty();
    // Of one that did not start there is one thing to tell.
    for (title, checks) in report.groups().iter().filter(|_| is_started) {
        // Writing to a string can't fail.
        let _ = write!(out, "\n{title}\n{}", lines(checks));
    }
    for check in report.failures() {
        failure(&mut out, check, report.is_one_way());
    }
    counts(&mut out, report);
    for left in &report.left {
        let _ = writeln!(out, "left behind: {left}");
    }
    out
}

/// A line for each check of a group; those in a row that are skipped for one reason share theirs.
fn lines(checks: &[&Checked]) -> String {
    let is_alike = |one: &&Checked, other: &&Checked| match (&one.verdict, &other.verdict) {
        (Verdict::Skipped { why }, Verdict::Skipped { why: other }) => why == other,
        (Verdict::Pass | Verdict::Fail { .. } | Verdict::Skipped { .. }, _) => false,
    };
    let line = |alike: &[&Checked]| {
        let Some(Checked {
            name, ms, verdict, ..
        }) = alike.first()
        else {
            return String::new();
        };
        match (verdict, alike.len() - 1) {
            (Verdict::Pass, _) => format!("  ok    {name} ({ms} ms)\n"),
            (Verdict::Fail { .. }, _) => format!("  FAIL  {name} ({ms} ms)\n"),
            (Verdict::Skipped { why }, 0) => format!("  skip  {name}: {why}\n"),
            (Verdict::Skipped { why }, more) => {
                format!("  skip  {name} and {more} more: {why}\n")
            }
        }
    };
    checks.chunk_by(is_alike).map(line).collect()
}

/// What is broken, what was found instead, and what led there.
fn failure(out: &mut String, check: &Checked, is_one_way: bool) {
    let Verdict::Fail {
        expected,
        found,
        trace,
    } = &check.verdict
    else {
        return;
    };
    let way = match is_one_way {
        true => String::new(),
        false => format!(" ({})", check.reach),
    };
    let _ = writeln!(out, "\nFAIL  {}{way}", check.name);
    for (word, text) in [
        ("broken:  ", &check.sentence),
        ("expected:", expected),
        ("found:   ", found),
    ] {
        let _ = writeln!(out, "  {word} {}", indented(text, 12));
    }
    let is_log = |line: &String| line.starts_with("  |");
    if !trace.is_empty() && !trace.iter().all(is_log) {
        out.push_str("  what led there (→ to the provider, ← from it):\n");
    }
    for line in trace {
        let _ = writeln!(out, "    {}", indented(line, 6));
    }
}

/// Lines after the first begin where the first does.
fn indented(text: &str, columns: usize) -> String {
    let begin = format!("\n{}", " ".repeat(columns));
    text.trim_end().replace('\n', &begin)
}

fn counts(out: &mut String, report: &Report) {
    let (passed, failed, skipped) = report.counts();
    let _ = write!(out, "\n{passed} passed, {failed} failed, {skipped} skipped");
    if report.provider.is_empty() {
        let _ = write!(out, ": {NOT_STARTED}");
    }
    out.push('\n');
    // What is told of them may be long.
    if failed > 1 {
        let names: Vec<_> = report.failures().map(|check| check.name.as_str()).collect();
        let _ = writeln!(out, "failed: {}", names.join(", "));
    }
}
