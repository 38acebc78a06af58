//! The documents of `ledger`.

use super::VERSION;
use alpine_ledger::{Checked, Compacted, Exported, Repaired, Retained, Saved};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::Path;

/// The result of `ledger check`.
#[derive(Debug, Serialize)]
pub(crate) struct CheckDocument {
    schema_version: &'static str,
    ledger_id: Option<String>,
    sound: bool,
    deep: bool,
    rows: BTreeMap<String, u64>,
    problem_count: u64,
    problems: Vec<ProblemDocument>,
    next_step: Option<&'static str>,
}

/// Something that is wrong.
#[derive(Debug, Serialize)]
struct ProblemDocument {
    table: Option<String>,
    what: String,
}

/// The result of `ledger repair`.
#[derive(Debug, Serialize)]
pub(crate) struct RepairDocument {
    schema_version: &'static str,
    problem_count: u64,
    lost_rows: u64,
    backup: Option<String>,
    sound: bool,
}

/// The result of `ledger backup`.
#[derive(Debug, Serialize)]
pub(crate) struct BackupDocument {
    schema_version: &'static str,
    path: String,
    rows: u64,
    bytes: u64,
}

/// The result of `ledger export`.
#[derive(Debug, Serialize)]
pub(crate) struct ExportDocument {
    schema_version: &'static str,
    path: String,
    rows: u64,
    blake3: String,
}

/// The result of `ledger import`.
#[derive(Debug, Serialize)]
pub(crate) struct ImportDocument {
    schema_version: &'static str,
    sessions: u64,
    left_out: u64,
    reused: bool,
    moved_to: Option<String>,
}

/// The result of `ledger compact`.
#[derive(Debug, Serialize)]
pub(crate) struct CompactDocument {
    schema_version: &'static str,
    sessions_removed: u64,
    events_removed: u64,
    compacted: bool,
    live_bytes: u64,
    bytes_before: u64,
    bytes_after: u64,
}

impl CheckDocument {
    pub(crate) fn new(checked: &Checked, deep: bool) -> Self {
        let problem = |problem: &alpine_ledger::Problem| ProblemDocument {
            table: problem.table.clone(),
            what: problem.what.clone(),
        };
        Self {
            schema_version: VERSION,
            ledger_id: checked.ledger_id.clone(),
            sound: checked.is_sound(),
            deep,
            rows: checked.rows.clone(),
            problem_count: checked.problem_count,
            problems: checked.problems.iter().map(problem).collect(),
            next_step: (!checked.is_sound()).then_some("alpine ledger repair"),
        }
    }

    /// The same for people.
    pub(crate) fn told(&self) -> String {
        let rows: u64 = self.rows.values().sum();
        if self.sound {
            return match &self.ledger_id {
                Some(id) => format!("sound: ledger {id}, {rows} rows"),
                None => "there is no ledger yet".to_owned(),
            };
        }
        let mut lines = vec![format!("{} problems in {rows} rows", self.problem_count)];
        lines.extend(self.problems.iter().map(|problem| {
            let table = problem.table.as_deref().unwrap_or("file");
            format!("  {table}: {}", problem.what)
        }));
        lines.join("\n")
    }
}

impl RepairDocument {
    pub(crate) fn new(repaired: &Repaired) -> Self {
        Self {
            schema_version: VERSION,
            problem_count: repaired.before.problem_count,
            lost_rows: repaired.lost,
            backup: repaired.backup.as_deref().map(shown),
            sound: repaired.after.is_sound(),
        }
    }

    /// The same for people.
    pub(crate) fn told(&self) -> String {
        let Some(backup) = &self.backup else {
            return "nothing is wrong: nothing was changed".to_owned();
        };
        format!(
            "repaired: {} problems, {} rows lost\nthe ledger as it was: {backup}",
            self.problem_count, self.lost_rows
        )
    }
}

impl BackupDocument {
    pub(crate) fn new(saved: &Saved) -> Self {
        Self {
            schema_version: VERSION,
            path: shown(&saved.path),
            rows: saved.rows,
            bytes: saved.bytes,
        }
    }

    /// The same for people.
    pub(crate) fn told(&self) -> String {
        format!("{}: {} rows, {} bytes", self.path, self.rows, self.bytes)
    }
}

impl ExportDocument {
    pub(crate) fn new(path: &Path, exported: &Exported) -> Self {
        Self {
            schema_version: VERSION,
            path: shown(path),
            rows: exported.rows,
            blake3: exported.blake3.clone(),
        }
    }

    /// The same for people.
    pub(crate) fn told(&self) -> String {
        format!("{}: {} rows, blake3 {}", self.path, self.rows, self.blake3)
    }
}

impl ImportDocument {
    pub(crate) fn new(sessions: u64, left_out: u64, reused: bool, moved: Option<&Path>) -> Self {
        Self {
            schema_version: VERSION,
            sessions,
            left_out,
            reused,
            moved_to: moved.map(shown),
        }
    }

    /// The same for people.
    pub(crate) fn told(&self) -> String {
        let sessions = self.sessions;
        if self.reused {
            return format!(
                "the same file was imported before ({sessions} sessions): nothing was changed"
            );
        }
        let moved = self.moved_to.as_ref();
        let moved = moved.map_or(String::new(), |path| {
            format!("\nthe imported file is kept: {path}")
        });
        let left_out = match self.left_out {
            0 => String::new(),
            count => format!(
                "\nleft out: {count} requests and durable objects of no session in the file"
            ),
        };
        format!("imported {sessions} sessions{left_out}{moved}")
    }
}

impl CompactDocument {
    pub(crate) fn new(retained: &Retained, compacted: &Compacted) -> Self {
        Self {
            schema_version: VERSION,
            sessions_removed: retained.sessions,
            events_removed: retained.events,
            compacted: compacted.done,
            live_bytes: compacted.live,
            bytes_before: compacted.before,
            bytes_after: compacted.after,
        }
    }

    /// The same for people.
    pub(crate) fn told(&self) -> String {
        let gone = format!(
            "{} sessions and {} events were kept for long enough and are gone",
            self.sessions_removed, self.events_removed
        );
        let file = if self.compacted {
            format!(
                "the file has {} bytes now instead of {}",
                self.bytes_after, self.bytes_before
            )
        } else {
            format!(
                "the file stays as it is: {} bytes, {} of them in use",
                self.bytes_after, self.live_bytes
            )
        };
        format!("{gone}\n{file}")
    }
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}
