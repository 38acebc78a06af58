//! The fake provider over the port, under its own name: so that every test can be run on a provider that is not compiled in.

use alpine_provider_api::{OpenRequest, Place, Redactor, Secret};
use alpine_provider_port::{PortConfig, PortProvider, Source, Timings};
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::Path;

/// How the fake is reached: what `ALPINE_TEST_FAKE_BY` says.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Way {
    /// `hosted`: a library in a process of its own.
    Hosted,
    /// `in-process`: a library in this process.
    InProcess,
    /// `program`: an executable.
    Program,
}

impl Way {
    pub(crate) fn from_environment() -> Option<Self> {
        let way = std::env::var("ALPINE_TEST_FAKE_BY").ok()?;
        Some(match &*way {
            "hosted" => Way::Hosted,
            "in-process" => Way::InProcess,
            "program" => Way::Program,
            other => panic!("`ALPINE_TEST_FAKE_BY` is `{other}`: hosted, in-process or program"),
        })
    }

    pub(crate) fn to_the_fake(self, state: &Path) -> PortProvider {
        let here = std::env::current_exe().expect("the program under test");
        let library = || OwnedFd::from(File::open(alpine_fake_plugin::library()).expect("it"));
        let source = match self {
            Way::Hosted => Source::Hosted {
                library: library(),
                program: here,
            },
            Way::InProcess => Source::InProcess { library: library() },
            Way::Program => Source::Executable {
                program: here.with_file_name("alpine-fake-program"),
                args: Vec::new(),
            },
        };
        let clock = std::env::var("ALPINE_TEST_CLOCK_MS").ok();
        let env = std::env::vars();
        PortProvider::new(PortConfig {
            name: "fake".to_owned(),
            source,
            open: OpenRequest {
                config: serde_json::json!({ "state": state, "clock": clock }),
                place: Place::default(),
            },
            env: env
                .map(|(name, value)| (name, Secret::new(value)))
                .collect(),
            traceparent: None,
            redactor: Redactor::default(),
            timings: Timings::default(),
        })
    }
}
