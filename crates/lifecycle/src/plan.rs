//! What `down` does in each state: one pure total function.

use alpine_ledger::State;

/// What the caller of `down` asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DownFlags {
    /// `--retry-persist`.
    pub retry_persist: bool,
    /// `--discard` with the workspace's own digest.
    pub discard: bool,
}

/// What `down` does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DownPlan {
    /// Stop, capture, persist, verify, destroy.
    Close,
    /// Carry on with that from where it stands.
    CarryOn,
    /// A new attempt to persist.
    RetryPersist,
    /// Clean up what a failed or interrupted `up` left.
    CleanUp,
    /// Give the workspace up.
    Discard,
    /// Say that a retry has to be asked for.
    Refuse,
    /// Finish the destroy that is still pending.
    Destroy,
    /// Give the first answer again.
    Replay,
}

/// What `down` does in a state whose lease is free.
#[must_use]
pub fn plan_down(state: State, destroy_pending: bool, flags: DownFlags) -> DownPlan {
    match state {
        State::Ready | State::CloseFailed => DownPlan::Close,
        State::Stopping | State::Persisting => DownPlan::CarryOn,
        State::StoppedUnpersisted | State::PersistFailed | State::CleanupFailed
            if flags.discard =>
        {
            DownPlan::Discard
        }
        State::Requested
        | State::Provisioning
        | State::RepoSyncing
        | State::Installing
        | State::Failing
        | State::CleanupFailed => DownPlan::CleanUp,
        State::StoppedUnpersisted | State::PersistFailed if flags.retry_persist => {
            DownPlan::RetryPersist
        }
        State::StoppedUnpersisted | State::PersistFailed => DownPlan::Refuse,
        State::Stopped | State::Failed if destroy_pending => DownPlan::Destroy,
        State::Stopped | State::Failed => DownPlan::Replay,
    }
}

#[cfg(test)]
mod tests {
    use super::{DownFlags, plan_down};
    use alpine_ledger::State;
    use std::fmt::Write as _;

    #[test]
    fn the_table_of_down() {
        let flags = |retry_persist, discard| DownFlags {
            retry_persist,
            discard,
        };
        let mut table = String::new();
        for state in State::ALL {
            let plan =
                |destroy_pending, flags| format!("{:?}", plan_down(state, destroy_pending, flags));
            writeln!(
                table,
                "{state:20}| {:8}| {:12}| {:8}| {}",
                plan(false, flags(false, false)),
                plan(false, flags(true, false)),
                plan(false, flags(false, true)),
                plan(true, flags(false, false)),
            )
            .unwrap();
        }
        expect_test::expect![[r#"
            requested           | CleanUp | CleanUp     | CleanUp | CleanUp
            provisioning        | CleanUp | CleanUp     | CleanUp | CleanUp
            repo_syncing        | CleanUp | CleanUp     | CleanUp | CleanUp
            installing          | CleanUp | CleanUp     | CleanUp | CleanUp
            ready               | Close   | Close       | Close   | Close
            failing             | CleanUp | CleanUp     | CleanUp | CleanUp
            stopping            | CarryOn | CarryOn     | CarryOn | CarryOn
            persisting          | CarryOn | CarryOn     | CarryOn | CarryOn
            stopped_unpersisted | Refuse  | RetryPersist| Discard | Refuse
            persist_failed      | Refuse  | RetryPersist| Discard | Refuse
            cleanup_failed      | CleanUp | CleanUp     | Discard | CleanUp
            close_failed        | Close   | Close       | Close   | Close
            stopped             | Replay  | Replay      | Replay  | Destroy
            failed              | Replay  | Replay      | Replay  | Destroy
        "#]]
        .assert_eq(&table);
    }
}
