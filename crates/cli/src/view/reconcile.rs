//! The document of `reconcile`.

use super::VERSION;
use alpine_lifecycle::{Finding, Reconciled};
use serde::Serialize;

/// The result of `reconcile`.
#[derive(Debug, Serialize)]
pub(crate) struct ReconcileDocument {
    schema_version: &'static str,
    reconciled: Vec<ReconciledDocument>,
}

/// One thing that was found.
#[derive(Debug, Serialize)]
struct ReconciledDocument {
    session_id: Option<String>,
    sandbox_id: Option<String>,
    finding: Finding,
    state: Option<String>,
    done: bool,
    error: Option<String>,
    durable_object_id: Option<String>,
}

impl ReconcileDocument {
    pub(crate) fn new(report: &[Reconciled]) -> Self {
        let one = |found: &Reconciled| ReconciledDocument {
            session_id: found.session_id.clone(),
            sandbox_id: found.sandbox_id.clone(),
            finding: found.finding,
            state: found.state.map(|state| state.to_string()),
            done: found.done,
            error: found.error.clone(),
            durable_object_id: found.durable_object_id.clone(),
        };
        Self {
            schema_version: VERSION,
            reconciled: report.iter().map(one).collect(),
        }
    }

    pub(crate) fn has_errors(&self) -> bool {
        self.reconciled.iter().any(|found| found.error.is_some())
    }

    /// The same for people.
    pub(crate) fn told(&self, dry_run: bool) -> String {
        if self.reconciled.is_empty() {
            return "nothing to recover".to_owned();
        }
        let line = |found: &ReconciledDocument| {
            let sandbox = found.sandbox_id.as_deref();
            let id = found.session_id.as_deref().or(sandbox).unwrap_or("-");
            let state = found
                .state
                .as_deref()
                .map(|state| format!(" ({state})"))
                .unwrap_or_default();
            let came = match &found.error {
                Some(error) => format!("failed: {error}"),
                None if found.done => "done".to_owned(),
                None if dry_run && !is_left(found.finding) => "to do".to_owned(),
                None => later(found.finding).to_owned(),
            };
            let kept = found.durable_object_id.as_ref();
            let kept = kept.map_or_else(String::new, |id| format!("; its work is in `{id}`"));
            format!("{id}{state}: {}: {came}{kept}", told(found.finding))
        };
        self.reconciled
            .iter()
            .map(line)
            .collect::<Vec<_>>()
            .join("\n")
    }
}

/// Whether it is left as it is, whoever finds it.
fn is_left(finding: Finding) -> bool {
    matches!(finding, Finding::InterruptedUp | Finding::ProviderMissing)
}

fn told(finding: Finding) -> &'static str {
    match finding {
        Finding::UnfinishedDown => "an interrupted `down`",
        Finding::UnfinishedCleanUp => "an interrupted clean-up",
        Finding::AbandonedUp => "an `up` that nobody carried on",
        Finding::InterruptedUp => "an interrupted `up`",
        Finding::DestroyPending => "a sandbox that is still to be destroyed",
        Finding::SandboxGone => "its sandbox is gone",
        Finding::SandboxLeft => "it has ended, and its sandbox is still there",
        Finding::ProviderMissing => "its provider is not configured any more",
        Finding::Orphan => "a sandbox that no session owns",
        Finding::NotAnswered => "its provider did not answer",
    }
}

/// Why nothing was finished now.
fn later(finding: Finding) -> &'static str {
    match finding {
        Finding::Orphan | Finding::SandboxLeft => {
            "saved; it will be destroyed when it is found again after the grace period"
        }
        Finding::ProviderMissing => "left until `alpine provider add` brings it back",
        Finding::InterruptedUp => "left to its own request for a while",
        Finding::UnfinishedDown
        | Finding::UnfinishedCleanUp
        | Finding::AbandonedUp
        | Finding::DestroyPending
        | Finding::SandboxGone
        | Finding::NotAnswered => "left",
    }
}

#[cfg(test)]
mod tests {
    use super::ReconcileDocument;
    use alpine_lifecycle::{Finding, Reconciled};

    #[test]
    fn a_dry_run_calls_to_do_only_what_would_be_done() {
        let told = |finding, dry_run| {
            let found = Reconciled {
                session_id: Some("ses_1".to_owned()),
                sandbox_id: None,
                finding,
                state: None,
                done: false,
                error: None,
                durable_object_id: None,
            };
            ReconcileDocument::new(&[found]).told(dry_run)
        };
        assert!(told(Finding::AbandonedUp, true).ends_with(": to do"));
        for left in [Finding::InterruptedUp, Finding::ProviderMissing] {
            assert!(!told(left, true).ends_with(": to do"));
            assert_eq!(told(left, true), told(left, false));
        }
    }
}
