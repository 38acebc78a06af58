//! A home of its own for each test, and a provider that is made anew for each call, as in a new process.

use alpine_plugin_template::{Config, Directories, open};
use alpine_provider_adapter::Adapted;
use alpine_provider_api::*;
use alpine_testkit::{TestEnv, TestRepo};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;
use tokio::sync::mpsc;

pub(crate) const SESSION: &str = "ses_0123456789abcdef0123456789abcdef";
pub(crate) const LEDGER: &str = "ledger-1";

pub(crate) struct World {
    pub(crate) env: TestEnv,
    pub(crate) place: Place,
    pub(crate) repo: TestRepo,
}

pub(crate) fn world(files: &[(&str, &str)]) -> World {
    let env = TestEnv::new();
    let variables = env.variables().into_iter();
    let home = env.alpine_home();
    let place = Place {
        name: "template".to_owned(),
        state: home.join("providers/template"),
        objects: home.join("objects"),
        cache: home.join("cache"),
        run: home.join("run"),
        executable: PathBuf::new(),
        env: variables
            .map(|(name, value)| (name, value.to_string_lossy().into_owned()))
            .collect(),
    };
    let repo = env.git_repo(files);
    World { env, place, repo }
}

impl Drop for World {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.env.assert_no_processes(Duration::from_secs(10));
        }
    }
}

pub(crate) fn id(name: &str) -> SandboxId {
    SandboxId::new(name).unwrap()
}

pub(crate) fn call(fence: u64) -> Call {
    Call::quiet(Meta {
        operation_id: "op_0123456789abcdef0123456789abcdef".to_owned(),
        fence,
        attempt: 1,
        deadline_ms: 0,
        traceparent: None,
    })
}

impl World {
    pub(crate) fn provider(&self) -> Adapted<Directories> {
        open(Config::default(), &self.place)
    }

    pub(crate) fn workspace(&self, name: &str) -> PathBuf {
        self.place
            .state
            .join("sandboxes")
            .join(name)
            .join("workspace")
    }

    pub(crate) fn provision_request(&self, name: &str) -> ProvisionRequest {
        ProvisionRequest {
            sandbox_id: id(name),
            ledger_id: LEDGER.to_owned(),
            session_id: SESSION.to_owned(),
            allow_unsandboxed: true,
        }
    }

    pub(crate) async fn provision(&self, name: &str) {
        let request = self.provision_request(name);
        self.provider().provision(&call(1), request).await.unwrap();
    }

    pub(crate) fn sync_request(&self, name: &str, commit: &str) -> SyncRepoRequest {
        let url = self.repo.path.to_str().unwrap();
        SyncRepoRequest {
            sandbox_id: id(name),
            repo: RepoUrl::parse(url, Path::new("/")).unwrap(),
            branch: BranchName::new("main").unwrap(),
            commit: CommitId::new(commit).unwrap(),
            credential: None,
        }
    }

    pub(crate) async fn sync(&self, name: &str) -> Result<SyncRepoReply, ProviderError> {
        let request = self.sync_request(name, &self.repo.head);
        self.provider().sync_repo(&call(1), request).await
    }

    pub(crate) async fn install(&self, name: &str) -> Result<InstallReply, ProviderError> {
        let request = InstallRequest {
            sandbox_id: id(name),
        };
        self.provider().install(&call(1), request).await
    }

    pub(crate) async fn stop(&self, name: &str, fence: u64) -> Result<StopReply, ProviderError> {
        self.provider().stop(&call(fence), stop_request(name)).await
    }

    pub(crate) async fn capture(
        &self,
        name: &str,
        generation: u64,
    ) -> Result<StagedSnapshot, ProviderError> {
        let request = CaptureRequest {
            sandbox_id: id(name),
            generation,
        };
        self.provider().capture(&call(1), request).await
    }

    pub(crate) async fn persist(&self, name: &str, staged: StagedSnapshot) -> String {
        let request = PersistRequest {
            sandbox_id: id(name),
            session_id: SESSION.to_owned(),
            generation: 1,
            payload: r#"{"schema_version":"v1"}"#.to_owned(),
            snapshot: Some(staged),
        };
        let reply = self.provider().persist(&call(1), request).await;
        reply.unwrap().durable_object_id
    }

    pub(crate) async fn restore(
        &self,
        name: &str,
        object: &str,
    ) -> Result<RestoreReply, ProviderError> {
        let request = RestoreRequest {
            sandbox_id: id(name),
            durable_object_id: object.to_owned(),
        };
        self.provider().restore(&call(1), request).await
    }

    pub(crate) async fn destroy(&self, name: &str) -> Result<DestroyReply, ProviderError> {
        let request = DestroyRequest {
            sandbox_id: id(name),
        };
        self.provider().destroy(&call(1), request).await
    }

    pub(crate) async fn state(&self, name: &str) -> SandboxState {
        self.inspect(name, false).await.state
    }

    pub(crate) async fn inspect(&self, name: &str, probe: bool) -> InspectReply {
        let request = InspectRequest {
            sandbox_id: id(name),
            probe,
        };
        self.provider().inspect(&call(1), request).await.unwrap()
    }

    /// Runs a shell script without input; gives how it ended and all that it said.
    pub(crate) async fn sh(&self, name: &str, script: &str) -> (ExecReply, String) {
        let (_, input) = mpsc::channel(1);
        let (events, mut received) = mpsc::channel(4);
        let call = Call::new(call(1).meta, events);
        let (provider, request) = (self.provider(), exec_request(name, script));
        let running = async move { provider.exec(&call, request, input).await };
        let reading = async {
            let mut text = Vec::new();
            while let Some(event) = received.recv().await {
                if let CallEvent::Stdout(more) | CallEvent::Stderr(more) = event {
                    text.extend(more);
                }
            }
            String::from_utf8(text).unwrap()
        };
        let (reply, text) = tokio::join!(running, reading);
        (reply.unwrap(), text)
    }
}

pub(crate) fn exec_request(name: &str, script: &str) -> ExecRequest {
    ExecRequest {
        sandbox_id: id(name),
        argv: ["sh", "-c", script].map(str::to_owned).to_vec(),
        env: BTreeMap::new(),
    }
}

pub(crate) fn stop_request(name: &str) -> StopRequest {
    StopRequest {
        sandbox_id: id(name),
        grace_ms: 300,
    }
}

/// Lets work go on for so many of its own steps, then drops it. None when it was dropped.
pub(crate) async fn dropped_after<T>(steps: usize, work: impl Future<Output = T>) -> Option<T> {
    let mut work = pin!(work);
    let mut left = steps;
    std::future::poll_fn(move |context| match work.as_mut().poll(context) {
        Poll::Ready(done) => Poll::Ready(Some(done)),
        Poll::Pending if left == 0 => Poll::Ready(None),
        Poll::Pending => {
            left -= 1;
            Poll::Pending
        }
    })
    .await
}

/// Every regular file below a directory.
pub(crate) fn files(below: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut pending = vec![below.to_owned()];
    while let Some(next) = pending.pop() {
        for entry in fs::read_dir(&next).unwrap() {
            let entry = entry.unwrap();
            match entry.file_type().unwrap() {
                kind if kind.is_dir() => pending.push(entry.path()),
                kind if kind.is_file() => found.push(entry.path()),
                _ => {}
            }
        }
    }
    found.sort();
    found
}
