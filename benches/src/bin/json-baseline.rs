//! What `alpine list` is compared with: a program that keeps all sessions in one JSON file, as the predecessor did, so that it
//! has to read all of them to list some.
//!
//! It is as quick as such a program can be: it does nothing else at its start, times are compared as the texts that they are,
//! and the stored payloads, which a list does not show, are skipped without being decoded.

use alpine_benches::predecessor::{File, Session};
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use serde::de::IgnoredAny;
use std::fmt::Write as _;
use std::io::Write as _;

/// What is printed with `--json`.
#[derive(Serialize)]
struct List<'a> {
    schema_version: &'static str,
    sessions: Vec<Listed<'a>>,
    truncated: bool,
}

#[derive(Serialize)]
struct Listed<'a> {
    session_id: &'a str,
    name: Option<&'a str>,
    state: &'a str,
    repo_url: &'a str,
    branch: &'a str,
    provider: &'static str,
    opencode_url: Option<&'a str>,
    updated_at: String,
    owner_principal_id: &'a str,
    next_step: Option<String>,
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let mut argument = || arguments.next().expect("FILE OWNER LIMIT [--json]");
    let (path, owner, limit) = (argument(), argument(), argument());
    let limit = limit.parse().expect("a number");
    let json = arguments.next().is_some();

    let text = std::fs::read(path).expect("the file of sessions");
    let file: File<IgnoredAny> = serde_json::from_slice(&text).expect("sessions");
    let now = Timestamp::now();
    let (sessions, truncated) = chosen(&file, &owner, now, limit);
    let shown = if json {
        let list = List {
            schema_version: "v1",
            sessions: sessions.iter().map(|session| listed(session)).collect(),
            truncated,
        };
        serde_json::to_string(&list).expect("a document") + "\n"
    } else {
        table(&sessions, now)
    };
    let mut out = std::io::stdout().lock();
    out.write_all(shown.as_bytes()).expect("standard output");
    // What is in memory goes with the process.
    std::process::exit(0);
}

/// The owner's sessions that are listed, those that changed last first.
fn chosen<'a>(
    file: &'a File<IgnoredAny>,
    owner: &str,
    now: Timestamp,
    limit: usize,
) -> (Vec<&'a Session>, bool) {
    let since = now - SignedDuration::from_hours(24);
    let since = format!("{since:.0}");
    let is_listed = |session: &&Session| {
        session.owner_principal_id == owner
            && (!matches!(session.state.as_str(), "stopped" | "failed")
                || session.updated_at >= since)
    };
    let mut sessions: Vec<_> = file.sessions.values().filter(is_listed).collect();
    sessions.sort_by(|a, b| {
        b.updated_at
            .cmp(&a.updated_at)
            .then_with(|| a.session_id.cmp(&b.session_id))
    });
    let truncated = sessions.len() > limit;
    sessions.truncate(limit);
    (sessions, truncated)
}

fn listed(session: &Session) -> Listed<'_> {
    Listed {
        session_id: &session.session_id,
        name: None,
        state: &session.state,
        repo_url: &session.repo_url,
        branch: &session.branch,
        provider: "local",
        opencode_url: session.opencode_url.as_deref(),
        updated_at: session.updated_at.replace('Z', ".000Z"),
        owner_principal_id: &session.owner_principal_id,
        next_step: next_step(session),
    }
}

fn next_step(session: &Session) -> Option<String> {
    let id = &session.session_id;
    match session.state.as_str() {
        "ready" => Some(format!("alpine open {id}")),
        "stopped" | "failed" => None,
        "requested" | "provisioning" | "repo_syncing" | "installing" => {
            Some(format!("alpine down {id} --cancel"))
        }
        _ => Some(format!("alpine down {id}")),
    }
}

fn table(sessions: &[&Session], now: Timestamp) -> String {
    let header = [
        "SESSION",
        "NAME",
        "STATE",
        "REPOSITORY",
        "BRANCH",
        "UPDATED",
        "NEXT",
    ];
    let mut rows = vec![header.map(str::to_owned)];
    rows.extend(sessions.iter().map(|session| {
        [
            session.session_id.clone(),
            "-".to_owned(),
            session.state.clone(),
            session.repo_url.clone(),
            session.branch.clone(),
            ago(&session.updated_at, now),
            next_step(session).unwrap_or_else(|| "-".to_owned()),
        ]
    }));
    let mut widths = [0; 7];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.len().max(*width);
        }
    }
    let mut text = String::new();
    for row in &rows {
        for (width, cell) in widths.iter().zip(row) {
            // Strings take every write.
            let _ = write!(text, "{cell:<width$}  ");
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
    }
    text
}

fn ago(then: &str, now: Timestamp) -> String {
    let then: Timestamp = then.parse().expect("a time");
    let seconds = now.duration_since(then).as_secs();
    let (number, unit) = match seconds {
        ..=9 => return "just now".to_owned(),
        10..=59 => (seconds, "second"),
        60..=3599 => (seconds / 60, "minute"),
        3600..=86399 => (seconds / 3600, "hour"),
        _ => (seconds / 86400, "day"),
    };
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {unit}{plural} ago")
}
