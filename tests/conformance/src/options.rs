//! What is run of the checks, and how.

use std::path::PathBuf;
use std::time::Duration;

/// What is run, and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// Only checks whose name holds one of these texts (`exec`, `provision.twice`); empty runs all.
    pub only: Vec<String>,
    /// A fresh instance before every call, so that nothing can be kept in memory.
    pub fresh: bool,
    /// What random choices follow from: the same seed makes the same choices, but for which steps are struck where `points`
    /// is too small for all of them: those differ from run to run.
    pub seed: u64,
    /// How many calls are struck, at random moments, by a kill of the provider's process, and how many by being dropped; at
    /// 0, the checks of that are skipped.
    pub points: u32,
    /// Where the run's own temporary directory is made; the system's place if none.
    pub temporary: Option<PathBuf>,
    /// How long one call may take.
    pub call_limit: Duration,
    /// How long one check may take.
    pub check_limit: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            only: Vec::new(),
            fresh: false,
            seed: 1,
            points: 50,
            temporary: None,
            call_limit: Duration::from_secs(60),
            check_limit: Duration::from_secs(300),
        }
    }
}
