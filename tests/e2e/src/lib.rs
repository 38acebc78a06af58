//! The program as the tests run it: the shipped one, with the fake provider compiled in and a clock that tests set.

pub mod commits;
mod ported;

use alpine_cli::{ProviderSetup, Setup};
use alpine_ledger::{Clock, SystemClock, Timestamp};
use alpine_lifecycle::{Env, Failure, Tips};
use alpine_provider_api::{
    BranchName, CommitId, GitCredential, ProviderError, RepoUrl, SandboxProvider,
};
use alpine_testkit::{FakeProvider, TestClock};
use async_trait::async_trait;
use commits::{Commits, Counting};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The shipped program's set-up, and the fake provider whose state is in `ALPINE_TEST_FAKE_DIR`. `ALPINE_TEST_CLOCK_MS`
/// names the file that the time is read from; with `ALPINE_TEST_CLOCK_TICKS` each look at it gives a later time.
/// With `ALPINE_TEST_TIP` every branch is at this commit, and the fake's faults strike who asks, as method `tip`.
/// With `ALPINE_TEST_FAKE_BY` the fake is reached over the port.
/// See [`Commits::from_environment`] for what happens to the ledger.
#[must_use]
pub fn setup() -> Setup {
    let clock: Arc<dyn Clock> = match std::env::var_os("ALPINE_TEST_CLOCK_MS") {
        Some(file) => Arc::new(TestClock::in_file(Path::new(&file))),
        None => Arc::new(SystemClock),
    };
    let clock = match std::env::var_os("ALPINE_TEST_CLOCK_TICKS") {
        Some(_) => Arc::new(Ticking {
            clock,
            looks: AtomicU64::new(0),
        }),
        None => clock,
    };
    Setup {
        providers: vec![("fake", fake)],
        program: Some("alpine"),
        env: Some(Env {
            clock,
            random: Arc::new(random),
        }),
        tips: std::env::var("ALPINE_TEST_TIP")
            .ok()
            .and_then(|tip| CommitId::new(&tip))
            .map(|tip| Arc::new(Remote(tip)) as Arc<dyn Tips>),
        wrap_ledger: Some(Arc::new(Counting(Arc::new(Commits::from_environment())))),
    }
}

/// A clock that is a millisecond later at each look, so that looking twice where once was promised is seen.
#[derive(Debug)]
struct Ticking {
    clock: Arc<dyn Clock>,
    looks: AtomicU64,
}

impl Clock for Ticking {
    fn now(&self) -> Timestamp {
        let look = self.looks.fetch_add(1, Ordering::SeqCst);
        Timestamp(self.clock.now().0 + look)
    }

    fn boot_ms(&self) -> u64 {
        self.clock.boot_ms()
    }
}

fn fake(with: &ProviderSetup) -> Result<Arc<dyn SandboxProvider>, Failure> {
    let directory =
        std::env::var_os("ALPINE_TEST_FAKE_DIR").map_or_else(|| with.home.join("fake"), Into::into);
    Ok(match ported::Way::from_environment() {
        Some(way) => Arc::new(way.to_the_fake(&directory)),
        None => Arc::new(fake_in(&directory)),
    })
}

fn fake_in(directory: &Path) -> FakeProvider {
    let fake = FakeProvider::new(directory);
    match std::env::var_os("ALPINE_TEST_CLOCK_MS") {
        Some(file) => fake.with_clock(TestClock::in_file(Path::new(&file))),
        None => fake,
    }
}

/// A remote whose branches are all at one commit.
#[derive(Debug)]
struct Remote(CommitId);

#[async_trait]
impl Tips for Remote {
    async fn tip(
        &self,
        _: &RepoUrl,
        _: &BranchName,
        _: Option<&GitCredential>,
    ) -> Result<CommitId, ProviderError> {
        match std::env::var_os("ALPINE_TEST_FAKE_DIR") {
            Some(directory) => fake_in(Path::new(&directory)).tip(&self.0).await,
            None => Ok(self.0.clone()),
        }
    }
}

fn random() -> u128 {
    let half = || u128::from(RandomState::new().build_hasher().finish());
    half() << 64 | half()
}
