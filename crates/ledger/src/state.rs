//! The states of a session and the one function that decides which may follow which.
//!
//! ```text
//! requested → provisioning → repo_syncing → installing → ready → stopping → persisting → stopped
//! ```

use serde::{Deserialize, Serialize};
use std::fmt;

/// Where a session stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Admitted; nothing was allocated.
    Requested,
    /// The sandbox is being made.
    Provisioning,
    /// The repository is being brought to the pinned commit.
    RepoSyncing,
    /// Dependencies are being installed, then the agent is started.
    Installing,
    /// All readiness checks have passed.
    Ready,
    /// A failed `up` is being cleaned up.
    Failing,
    /// The sandbox is being stopped.
    Stopping,
    /// The workspace is being captured, persisted and verified.
    Persisting,
    /// Persisted and verified. Final.
    Stopped,
    /// Ended without a durable object. Final.
    Failed,
    /// A failed `up` left something allocated.
    CleanupFailed,
    /// The sandbox could not be stopped, not even by force.
    CloseFailed,
    /// Not stored or not verified; trying again may help.
    StoppedUnpersisted,
    /// The payload can't be stored as it is.
    PersistFailed,
}

impl State {
    /// Every state, in the order of the contract.
    pub const ALL: [State; 14] = [
        State::Requested,
        State::Provisioning,
        State::RepoSyncing,
        State::Installing,
        State::Ready,
        State::Failing,
        State::Stopping,
        State::Persisting,
        State::StoppedUnpersisted,
        State::PersistFailed,
        State::CleanupFailed,
        State::CloseFailed,
        State::Stopped,
        State::Failed,
    ];

    /// The states that may follow this one. Everything else is refused.
    #[must_use]
    pub const fn successors(self) -> &'static [State] {
        match self {
            State::Requested => &[State::Provisioning, State::Failing],
            State::Provisioning => &[State::RepoSyncing, State::Failing],
            State::RepoSyncing => &[State::Installing, State::Failing],
            State::Installing => &[State::Ready, State::Failing],
            State::Ready | State::CloseFailed => &[State::Stopping],
            State::Failing => &[State::Failed, State::CleanupFailed],
            State::Stopping => &[
                State::Persisting,
                State::StoppedUnpersisted,
                State::CloseFailed,
            ],
            State::Persisting => &[
                State::Stopped,
                State::PersistFailed,
                State::StoppedUnpersisted,
            ],
            State::StoppedUnpersisted | State::PersistFailed => &[State::Persisting, State::Failed],
            State::CleanupFailed => &[State::Failing],
            State::Stopped | State::Failed => &[],
        }
    }

    /// Whether `next` may follow.
    #[must_use]
    pub fn may_become(self, next: State) -> bool {
        self.successors().contains(&next)
    }

    /// Whether nothing can follow.
    #[must_use]
    pub const fn is_terminal(self) -> bool {
        self.successors().is_empty()
    }

    /// Whether the session waits for its user, however old it is.
    #[must_use]
    pub const fn needs_user(self) -> bool {
        match self {
            State::PersistFailed
            | State::StoppedUnpersisted
            | State::CleanupFailed
            | State::CloseFailed => true,
            State::Requested
            | State::Provisioning
            | State::RepoSyncing
            | State::Installing
            | State::Ready
            | State::Failing
            | State::Stopping
            | State::Persisting
            | State::Stopped
            | State::Failed => false,
        }
    }

    /// The name used in records, output and documentation.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            State::Requested => "requested",
            State::Provisioning => "provisioning",
            State::RepoSyncing => "repo_syncing",
            State::Installing => "installing",
            State::Ready => "ready",
            State::Failing => "failing",
            State::Stopping => "stopping",
            State::Persisting => "persisting",
            State::Stopped => "stopped",
            State::Failed => "failed",
            State::CleanupFailed => "cleanup_failed",
            State::CloseFailed => "close_failed",
            State::StoppedUnpersisted => "stopped_unpersisted",
            State::PersistFailed => "persist_failed",
        }
    }

    /// The state of that name.
    #[must_use]
    pub fn parse(name: &str) -> Option<State> {
        State::ALL.into_iter().find(|state| state.as_str() == name)
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::State;
    use expect_test::expect;

    #[test]
    fn the_table_of_transitions() {
        let row = |state: State| {
            let next: Vec<&str> = state
                .successors()
                .iter()
                .map(|next| next.as_str())
                .collect();
            format!(
                "| {state} | {} |",
                if next.is_empty() {
                    "(none)".to_owned()
                } else {
                    next.join(", ")
                }
            )
        };
        let table: Vec<String> = State::ALL.into_iter().map(row).collect();
        expect![[r#"
            | requested | provisioning, failing |
            | provisioning | repo_syncing, failing |
            | repo_syncing | installing, failing |
            | installing | ready, failing |
            | ready | stopping |
            | failing | failed, cleanup_failed |
            | stopping | persisting, stopped_unpersisted, close_failed |
            | persisting | stopped, persist_failed, stopped_unpersisted |
            | stopped_unpersisted | persisting, failed |
            | persist_failed | persisting, failed |
            | cleanup_failed | failing |
            | close_failed | stopping |
            | stopped | (none) |
            | failed | (none) |"#]]
        .assert_eq(&table.join("\n"));
    }

    #[test]
    fn names_are_those_of_the_records() {
        for state in State::ALL {
            assert_eq!(State::parse(state.as_str()), Some(state));
            assert_eq!(serde_json::to_value(state).unwrap(), state.as_str());
        }
        assert_eq!(State::parse("gone"), None);
    }

    #[test]
    fn from_every_state_the_end_can_be_reached() {
        for start in State::ALL {
            let mut reached = vec![start];
            let mut next = 0;
            while let Some(state) = reached.get(next).copied() {
                next += 1;
                reached.extend(
                    state
                        .successors()
                        .iter()
                        .filter(|state| !reached.contains(state))
                        .copied()
                        .collect::<Vec<_>>(),
                );
            }
            assert!(reached.iter().any(|state| state.is_terminal()), "{start}");
        }
    }
}
