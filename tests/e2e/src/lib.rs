//! The program as the tests run it: the shipped one, with the fake provider compiled in and a clock that tests set.

use alpine_cli::{ProviderSetup, Setup};
use alpine_ledger::{Clock, SystemClock};
use alpine_lifecycle::{Env, Failure};
use alpine_provider_api::SandboxProvider;
use alpine_testkit::{FakeProvider, TestClock};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::path::Path;
use std::sync::Arc;

/// The shipped program's set-up, and the fake provider whose state is in `ALPINE_TEST_FAKE_DIR`. `ALPINE_TEST_CLOCK_MS`
/// names the file that the time is read from.
#[must_use]
pub fn setup() -> Setup {
    let clock: Arc<dyn Clock> = match std::env::var_os("ALPINE_TEST_CLOCK_MS") {
        Some(file) => Arc::new(TestClock::in_file(Path::new(&file))),
        None => Arc::new(SystemClock),
    };
    Setup {
        providers: vec![("fake", fake)],
        program: Some("alpine"),
        env: Some(Env {
            clock,
            random: Arc::new(random),
        }),
        tips: None,
    }
}

fn fake(with: &ProviderSetup) -> Result<Arc<dyn SandboxProvider>, Failure> {
    let directory =
        std::env::var_os("ALPINE_TEST_FAKE_DIR").map_or_else(|| with.home.join("fake"), Into::into);
    Ok(Arc::new(FakeProvider::new(directory)))
}

fn random() -> u128 {
    let half = || u128::from(RandomState::new().build_hasher().finish());
    half() << 64 | half()
}
