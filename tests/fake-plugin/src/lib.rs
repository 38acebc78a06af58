//! The strict fake provider as a library that is loaded, with some commands of its own that go wrong.

mod odd;
mod provider;

use alpine_provider_api::{OpenRequest, ProviderError};
use alpine_testkit::TestClock;
use serde::Deserialize;
use std::path::PathBuf;

pub use provider::FakePlugin;

/// What it is configured with.
#[derive(Debug, Deserialize)]
pub struct Config {
    /// The directory of the fake's state; without one, it is the place that the host names.
    state: Option<PathBuf>,
    /// Whether its work is real: real repositories, commands and workspaces.
    #[serde(default)]
    real: bool,
    /// The file that it reads the time from.
    clock: Option<PathBuf>,
}

/// Makes the provider.
///
/// # Errors
/// Those of a configuration of another shape.
pub fn make(request: OpenRequest) -> Result<FakePlugin, ProviderError> {
    let config: Config = request.table()?;
    let state = config.state.unwrap_or(request.place.state);
    let fake = FakePlugin::new(state, config.real);
    Ok(match config.clock {
        Some(file) => fake.with_clock(TestClock::in_file(&file)),
        None => fake,
    })
}

alpine_provider_port::export_provider!("fake", make);

/// The library, which is built beside the test that runs.
///
/// # Panics
/// When it is not there.
#[must_use]
pub fn library() -> PathBuf {
    beside("libalpine_fake_plugin.so")
}

fn beside(name: &str) -> PathBuf {
    let program = std::env::current_exe().expect("a program");
    let mut folders = program.ancestors().skip(1).take(2);
    let found = folders.find_map(|folder| {
        let places = [folder.join(name), folder.join("deps").join(name)];
        places.into_iter().find(|path| path.is_file())
    });
    found.unwrap_or_else(|| panic!("`{name}` is not beside {}", program.display()))
}
