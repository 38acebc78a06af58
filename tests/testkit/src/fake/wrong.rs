//! Answers that are plausible and not true.

use super::types::Fault;
use alpine_provider_api::*;
use serde_json::Value;

/// A reply that can be falsified.
pub(super) trait Falsify {
    fn falsify(&mut self, fault: &Fault);
}

/// Another commit of the same length.
fn other_commit(commit: &CommitId) -> CommitId {
    CommitId::new(&other_digits(commit.as_str())).expect("still hex digits")
}

fn other_digits(digits: &str) -> String {
    let first = if digits.starts_with('0') { "1" } else { "0" };
    format!("{first}{}", &digits[1..])
}

impl Falsify for DescribeReply {
    fn falsify(&mut self, _: &Fault) {
        "another".clone_into(&mut self.name);
    }
}

impl Falsify for CommitId {
    fn falsify(&mut self, _: &Fault) {
        *self = other_commit(self);
    }
}

impl Falsify for ProvisionReply {
    fn falsify(&mut self, _: &Fault) {
        self.workspace_path = Some("/another/workspace".into());
    }
}

impl Falsify for SyncRepoReply {
    fn falsify(&mut self, _: &Fault) {
        self.head = other_commit(&self.head);
    }
}

impl Falsify for InstallReply {
    fn falsify(&mut self, _: &Fault) {
        self.command = None;
    }
}

impl Falsify for StartAgentReply {
    fn falsify(&mut self, _: &Fault) {
        self.url = Some("http://127.0.0.1:8/another".to_owned());
    }
}

impl Falsify for OpenAgentReply {
    fn falsify(&mut self, _: &Fault) {
        self.url = "http://127.0.0.1:8/another".to_owned();
    }
}

impl Falsify for InspectReply {
    fn falsify(&mut self, _: &Fault) {
        self.state = match self.state {
            SandboxState::Running => SandboxState::Exited,
            SandboxState::Exited | SandboxState::Missing | SandboxState::Unknown => {
                SandboxState::Running
            }
        };
        if let Some(probe) = &mut self.probe {
            probe.head = probe.head.as_ref().map(other_commit);
        }
    }
}

impl Falsify for ListReply {
    fn falsify(&mut self, _: &Fault) {
        self.sandboxes.clear();
    }
}

impl Falsify for ExecReply {
    fn falsify(&mut self, _: &Fault) {
        *self = match self {
            ExecReply::Exited(0) => ExecReply::Exited(1),
            ExecReply::Exited(_) | ExecReply::Signalled(_) => ExecReply::Exited(0),
        };
    }
}

impl Falsify for LogsReply {
    fn falsify(&mut self, _: &Fault) {}
}

impl Falsify for StopReply {
    fn falsify(&mut self, _: &Fault) {}
}

impl Falsify for StagedSnapshot {
    fn falsify(&mut self, _: &Fault) {
        self.digest = other_digits(&self.digest);
    }
}

impl Falsify for PersistReply {
    fn falsify(&mut self, _: &Fault) {
        self.durable_object_id = "obj_00000000000000000000000000000000".to_owned();
    }
}

impl Falsify for ReadObjectReply {
    fn falsify(&mut self, fault: &Fault) {
        if *fault == Fault::WrongSnapshot {
            self.snapshot = match self.snapshot.take() {
                Some(snapshot) => Some(ReadSnapshot {
                    digest: other_digits(&snapshot.digest),
                    ..snapshot
                }),
                None => Some(ReadSnapshot {
                    digest: "0".repeat(64),
                    size: 1,
                }),
            };
            return;
        }
        let mut payload: Value = serde_json::from_str(&self.payload).unwrap_or_default();
        payload["session_id"] = Value::from("ses_00000000000000000000000000000000");
        self.payload = payload.to_string();
    }
}

impl Falsify for RestoreReply {
    fn falsify(&mut self, _: &Fault) {
        self.entries += 1;
    }
}

impl Falsify for DestroyReply {
    fn falsify(&mut self, _: &Fault) {}
}
