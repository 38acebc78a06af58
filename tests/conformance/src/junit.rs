//! JUnit XML: one test suite for each group, one case for each check.

use crate::{Checked, Report, Verdict};
use std::borrow::Cow;
use std::fmt::Write as _;

pub(crate) fn write(report: &Report) -> String {
    let (_, failed, skipped) = report.counts();
    let mut out = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    let left = usize::from(!report.left.is_empty());
    // Writing to a string can't fail.
    let _ = writeln!(
        out,
        "<testsuites name=\"{}\" tests=\"{}\" failures=\"{}\" skipped=\"{skipped}\">",
        escaped(&report.title()),
        report.checks.len() + left,
        failed + left,
    );
    for (title, checks) in report.groups() {
        let _ = writeln!(
            out,
            "  <testsuite name=\"{}\" tests=\"{}\">",
            escaped(&title),
            checks.len()
        );
        checks
            .iter()
            .for_each(|check| case(&mut out, &title, check));
        out.push_str("  </testsuite>\n");
    }
    if left > 0 {
        let _ = writeln!(
            out,
            "  <testsuite name=\"clean-up\" tests=\"1\">\n    <testcase classname=\"clean-up\" name=\"nothing is left\">\n      <failure message=\"something is left behind\">{}</failure>\n    </testcase>\n  </testsuite>",
            escaped(&report.left.join("\n"))
        );
    }
    out.push_str("</testsuites>\n");
    out
}

fn case(out: &mut String, title: &str, check: &Checked) {
    let seconds = Duration(check.ms);
    let _ = write!(
        out,
        "    <testcase classname=\"{}\" name=\"{}\" time=\"{seconds}\"",
        escaped(title),
        escaped(&check.name)
    );
    let _ = match &check.verdict {
        Verdict::Pass => out.write_str("/>\n"),
        Verdict::Skipped { why } => writeln!(
            out,
            ">\n      <skipped message=\"{}\"/>\n    </testcase>",
            escaped(why)
        ),
        Verdict::Fail {
            expected,
            found,
            trace,
        } => writeln!(
            out,
            ">\n      <failure message=\"{}\">{}</failure>\n    </testcase>",
            escaped(&check.sentence),
            escaped(&format!(
                "expected: {expected}\nfound: {found}\n{}",
                trace.join("\n")
            ))
        ),
    };
}

/// Milliseconds as seconds.
struct Duration(u64);

impl std::fmt::Display for Duration {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{:03}", self.0 / 1000, self.0 % 1000)
    }
}

/// Text as XML takes it, in content and in attributes. What XML can't hold at all becomes a replacement character.
fn escaped(text: &str) -> Cow<'_, str> {
    let is_plain = |c: char| !matches!(c, '&' | '<' | '>' | '"' | '\'' | '\n' | '\t') && is_xml(c);
    if text.chars().all(is_plain) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\n' => out.push_str("&#10;"),
            '\t' => out.push_str("&#9;"),
            c if is_xml(c) => out.push(c),
            _ => out.push('\u{fffd}'),
        }
    }
    Cow::Owned(out)
}

fn is_xml(c: char) -> bool {
    matches!(c, '\t' | '\n' | '\r' | ' '..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..)
}

#[cfg(test)]
mod tests {
    use super::escaped;

    #[test]
    fn text_becomes_xml() {
        assert_eq!(escaped("plain é"), "plain é");
        assert_eq!(
            escaped("<a href=\"x\">&'\n\u{1b}[0m"),
            "&lt;a href=&quot;x&quot;&gt;&amp;&#39;&#10;\u{fffd}[0m"
        );
    }
}
