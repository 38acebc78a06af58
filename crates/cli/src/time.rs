//! Spans of time, for people.

use alpine_ledger::Timestamp;
use std::time::Duration;

/// How long ago something was.
pub(crate) fn ago(then: Timestamp, now: Timestamp) -> String {
    let seconds = now.since(then).as_secs();
    let (number, unit) = match seconds {
        0..=9 => return "just now".to_owned(),
        10..=59 => (seconds, "second"),
        60..=3599 => (seconds / 60, "minute"),
        3600..=86399 => (seconds / 3600, "hour"),
        _ => (seconds / 86400, "day"),
    };
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {unit}{plural} ago")
}

/// A short span: `0.4 s`, `12 s`, `3 min 5 s`.
pub(crate) fn span(span: Duration) -> String {
    let seconds = span.as_secs();
    match seconds {
        0..=9 => format!("{:.1} s", span.as_secs_f64()),
        10..=59 => format!("{seconds} s"),
        _ => format!("{} min {} s", seconds / 60, seconds % 60),
    }
}

/// A number of bytes: `512 B`, `1.5 MiB`.
pub(crate) fn bytes(bytes: u64) -> String {
    let mut value = bytes as f64;
    let mut unit = "B";
    for next in ["KiB", "MiB", "GiB", "TiB"] {
        if value < 1024.0 {
            break;
        }
        value /= 1024.0;
        unit = next;
    }
    if unit == "B" {
        format!("{bytes} B")
    } else {
        format!("{value:.1} {unit}")
    }
}

#[cfg(test)]
mod tests {
    use super::{ago, bytes, span};
    use alpine_ledger::Timestamp;
    use std::time::Duration;

    #[test]
    fn spans_for_people() {
        let at = |seconds: u64| ago(Timestamp(0), Timestamp(seconds * 1000));
        assert_eq!(
            [at(3), at(59), at(60), at(7300), at(86400 * 3)],
            [
                "just now",
                "59 seconds ago",
                "1 minute ago",
                "2 hours ago",
                "3 days ago"
            ]
        );
        assert_eq!(ago(Timestamp(9000), Timestamp(0)), "just now");
        assert_eq!(span(Duration::from_millis(430)), "0.4 s");
        assert_eq!(span(Duration::from_secs(185)), "3 min 5 s");
        assert_eq!(
            [bytes(512), bytes(1536), bytes(3 << 30)],
            ["512 B", "1.5 KiB", "3.0 GiB"]
        );
    }
}
