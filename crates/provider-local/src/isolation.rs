//! What isolation a sandbox has here, honestly.

use alpine_provider_api::{Isolation, MissingLayer};

/// A sandbox's processes run as the user: kept together, ended together, and not kept apart from the host.
pub(crate) fn isolation() -> Isolation {
    let missing = |what: &str, why: &str| MissingLayer {
        what: what.to_owned(),
        why: why.to_owned(),
        fix: "run alpine inside a container or a virtual machine that you can spare".to_owned(),
    };
    Isolation {
        tier: "process".to_owned(),
        layers: Vec::new(),
        limits: ["cpu", "memory", "pids"]
            .map(|limit| (limit.to_owned(), "none".to_owned()))
            .into(),
        missing: vec![
            missing(
                "files",
                "processes can read and write whatever the user can",
            ),
            missing(
                "network",
                "processes can reach whatever the user's machine can",
            ),
            missing(
                "processes",
                "processes can see and signal the user's other processes",
            ),
        ],
    }
}
