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
            name,
            ms,
            verdict,
            note,
            ..
        }) = alike.first()
        else {
            return String::new();
        };
        let note = note.as_ref().map_or(String::new(), |it| format!(": {it}"));
        match (verdict, alike.len() - 1) {
            (Verdict::Pass, _) => format!("  ok    {name} ({ms} ms){note}\n"),
            (Verdict::Fail { .. }, _) => format!("  FAIL  {name} ({ms} ms){note}\n"),
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
        let mut names: Vec<_> = report.failures().map(|check| check.name.as_str()).collect();
        // The same may be broken in two ways.
        names.sort_unstable();
        names.dedup();
        let _ = writeln!(out, "failed: {}", names.join(", "));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    fn checked(name: &str, reach: &str, verdict: Verdict) -> Checked {
        let (group, sentence) = ("exec and logs".to_owned(), "a sentence".to_owned());
        Checked {
            name: name.to_owned(),
            group,
            sentence,
            reach: reach.to_owned(),
            verdict,
            ms: 7,
            note: None,
        }
    }

    fn skipped(why: &str) -> Verdict {
        Verdict::Skipped {
            why: why.to_owned(),
        }
    }

    fn failed(found: &str, trace: &[&str]) -> Verdict {
        Verdict::Fail {
            expected: "this".to_owned(),
            found: found.to_owned(),
            trace: trace.iter().map(|&line| line.to_owned()).collect(),
        }
    }

    #[test]
    fn failures_are_told_last() {
        let (bare, adapted) = ("executable", "executable, with what alpine adds");
        let report = Report {
            provider: "acme".to_owned(),
            version: "1.2".to_owned(),
            reach: bare.to_owned(),
            fresh: false,
            seed: 1,
            checks: vec![
                Checked {
                    note: Some("struck exec 2".to_owned()),
                    ..checked("exec.a", bare, Verdict::Pass)
                },
                checked(
                    "exec.b",
                    bare,
                    failed("that\nand more\n", &["→ exec", "← exec: no"]),
                ),
                checked("exec.c", bare, skipped("no wire")),
                checked("exec.d", bare, skipped("no wire")),
                checked("exec.e", bare, skipped("no wire")),
                checked("exec.f", bare, skipped("no logs")),
                checked("exec.b", adapted, failed("that", &[])),
            ],
            left: vec!["`sbx` is still listed".to_owned()],
        };
        expect![[r#"
            acme 1.2 (executable)

            exec and logs (executable)
              ok    exec.a (7 ms): struck exec 2
              FAIL  exec.b (7 ms)
              skip  exec.c and 2 more: no wire
              skip  exec.f: no logs

            exec and logs (executable, with what alpine adds)
              FAIL  exec.b (7 ms)

            FAIL  exec.b (executable)
              broken:   a sentence
              expected: this
              found:    that
                        and more
              what led there (→ to the provider, ← from it):
                → exec
                ← exec: no

            FAIL  exec.b (executable, with what alpine adds)
              broken:   a sentence
              expected: this
              found:    that

            1 passed, 2 failed, 4 skipped
            failed: exec.b
            left behind: `sbx` is still listed
        "#]]
        .assert_eq(&write(&report));
    }
}
