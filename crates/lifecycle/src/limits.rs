//! Every time limit, and the defaults of the contract.

use std::time::Duration;

/// How long things may take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// `up` in all.
    pub up: Duration,
    /// `down` in all, but for the time in which bytes move.
    pub down: Duration,
    /// Making the sandbox.
    pub provision: Duration,
    /// Asking for the branch's tip, and bringing the repository in.
    pub sync: Duration,
    /// Installing dependencies.
    pub install: Duration,
    /// From the agent's start to its first answer.
    pub agent: Duration,
    /// A health or agent probe.
    pub probe: Duration,
    /// Capturing, persisting and verifying without progress.
    pub persist: Duration,
    /// From the graceful signal to the kill.
    pub grace: Duration,
    /// Ending by force, and deleting, after that.
    pub force: Duration,
    /// Opening the browser.
    pub browser: Duration,
    /// A one-time link's life.
    pub link: Duration,
    /// How long an interrupted `up` is left to its own request before `reconcile` unwinds it.
    pub abandon: Duration,
    /// From the first look at a sandbox that no session owns to the second, which destroys it.
    pub quarantine: Duration,
    /// A lease's life; it is renewed three times in it.
    pub lease: Duration,
    /// How often a step is tried when its failures are transient.
    pub tries: u32,
    /// The pause before the second try; it doubles with each further one.
    pub backoff: Duration,
}

/// A limit's name in configuration, and where it is kept.
pub type Limit = (&'static str, fn(&mut Limits) -> &mut Duration);

impl Limits {
    /// Every limit that can be configured.
    pub const CONFIGURABLE: [Limit; 16] = [
        ("up", |limits| &mut limits.up),
        ("down", |limits| &mut limits.down),
        ("provision", |limits| &mut limits.provision),
        ("sync", |limits| &mut limits.sync),
        ("install", |limits| &mut limits.install),
        ("agent", |limits| &mut limits.agent),
        ("probe", |limits| &mut limits.probe),
        ("persist", |limits| &mut limits.persist),
        ("grace", |limits| &mut limits.grace),
        ("force", |limits| &mut limits.force),
        ("browser", |limits| &mut limits.browser),
        ("link", |limits| &mut limits.link),
        ("abandon", |limits| &mut limits.abandon),
        ("quarantine", |limits| &mut limits.quarantine),
        ("lease", |limits| &mut limits.lease),
        ("backoff", |limits| &mut limits.backoff),
    ];
}

impl Default for Limits {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            up: seconds(12 * 60),
            down: seconds(3 * 60),
            provision: seconds(90),
            sync: seconds(5 * 60),
            install: seconds(10 * 60),
            agent: seconds(60),
            probe: seconds(10),
            persist: seconds(60),
            grace: seconds(30),
            force: seconds(30),
            browser: seconds(3),
            link: seconds(60),
            abandon: seconds(15 * 60),
            quarantine: seconds(60 * 60),
            lease: seconds(30),
            tries: 3,
            backoff: Duration::from_millis(500),
        }
    }
}
