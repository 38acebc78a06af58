//! Providers over each transport, and calls.

use alpine_provider_api::*;
use alpine_provider_port::{PortConfig, PortProvider, Source, Timings};
use alpine_testkit::FakeControl;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;
use tempfile::TempDir;
use tokio::sync::mpsc;

/// How a provider is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum By {
    Hosted,
    InProcess,
    Executable,
}

pub(crate) const ALL: [By; 3] = [By::Hosted, By::InProcess, By::Executable];
/// Those in a process of their own.
pub(crate) const CHILDREN: [By; 2] = [By::Hosted, By::Executable];

pub(crate) type Reply<R> = Result<R, ProviderError>;

/// A fake behind the port.
pub(crate) struct Behind {
    pub(crate) provider: PortProvider,
    pub(crate) control: FakeControl,
    _state: TempDir,
}

/// Limits that a test can wait for.
pub(crate) fn quick() -> Timings {
    Timings {
        slack: Duration::from_millis(50),
        cancel: Duration::from_millis(200),
        term: Duration::from_millis(200),
        close: Duration::from_millis(300),
        ..Timings::default()
    }
}

pub(crate) fn config(by: By, file: Option<PathBuf>, config: serde_json::Value) -> PortConfig {
    let library = || {
        let path = file.clone().unwrap_or_else(alpine_fake_plugin::library);
        let file = std::fs::File::open(path).unwrap();
        std::os::fd::OwnedFd::from(file)
    };
    let source = match by {
        By::Hosted => Source::Hosted {
            library: library(),
            program: env!("CARGO_BIN_EXE_fake-plugin-host").into(),
        },
        By::InProcess => Source::InProcess { library: library() },
        By::Executable => Source::Executable {
            program: env!("CARGO_BIN_EXE_fake-plugin").into(),
            args: Vec::new(),
        },
    };
    let secret = Secret::new("planted-secret-value".to_owned());
    PortConfig {
        name: "acme".to_owned(),
        source,
        open: OpenRequest {
            config,
            place: Place::default(),
        },
        env: BTreeMap::from([("ALLOWED".to_owned(), secret.clone())]),
        traceparent: None,
        redactor: Redactor::new([&secret]),
        timings: quick(),
    }
}

impl Behind {
    pub(crate) fn new(by: By) -> Self {
        Self::with(by, |_| {})
    }

    pub(crate) fn with(by: By, change: impl FnOnce(&mut PortConfig)) -> Self {
        let state = tempfile::tempdir().unwrap();
        let path = state.path().join("fake");
        let mut config = config(by, None, serde_json::json!({ "state": path }));
        change(&mut config);
        Self {
            provider: PortProvider::new(config),
            control: FakeControl::new(path),
            _state: state,
        }
    }

    /// Runs an odd command: its reply, and what it said.
    pub(crate) async fn odd(&self, words: &[&str]) -> (Reply<ExecReply>, Vec<CallEvent>) {
        let (events, mut said) = mpsc::channel(64);
        let (_input, none) = mpsc::channel(1);
        let call = Call::new(meta(0), events);
        let collect = async {
            let mut all = Vec::new();
            while let Some(event) = said.recv().await {
                all.push(event);
            }
            all
        };
        let ask = async {
            let reply = self.provider.exec(&call, odd(words), none).await;
            drop(call);
            reply
        };
        tokio::join!(ask, collect)
    }

    /// The output of an odd command that succeeds.
    pub(crate) async fn output(&self, words: &[&str]) -> String {
        let (reply, events) = self.odd(words).await;
        reply.unwrap();
        let bytes: Vec<u8> = events
            .into_iter()
            .filter_map(|event| match event {
                CallEvent::Stdout(bytes) => Some(bytes),
                _ => None,
            })
            .flatten()
            .collect();
        String::from_utf8(bytes).unwrap()
    }
}

pub(crate) fn meta(deadline_ms: u64) -> Meta {
    Meta {
        operation_id: "op_1".to_owned(),
        fence: 1,
        attempt: 1,
        deadline_ms,
        traceparent: None,
    }
}

pub(crate) fn odd(words: &[&str]) -> ExecRequest {
    let words = std::iter::once(&"odd").chain(words);
    ExecRequest {
        sandbox_id: SandboxId::new("sbx_1").unwrap(),
        argv: words.map(|&word| word.to_owned()).collect(),
        env: BTreeMap::new(),
    }
}

/// The processes that this test started and that are still there, by the variable that only they have.
pub(crate) fn children_of(marker: &str) -> Vec<u32> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse() else {
            continue;
        };
        let env = std::fs::read(entry.path().join("environ")).unwrap_or_default();
        if env
            .split(|&byte| byte == 0)
            .any(|line| line == marker.as_bytes())
        {
            found.push(pid);
        }
    }
    found
}
