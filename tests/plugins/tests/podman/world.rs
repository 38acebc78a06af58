//! A home, an engine, and a provider that is made anew for each call, as in a new process.

use crate::engine::{Engine, IMAGE};
use alpine_plugin_podman::{Config, Containers, open};
use alpine_provider_adapter::Adapted;
use alpine_provider_api::*;
use alpine_testkit::{TestEnv, TestRepo};
use serde_json::json;
use std::collections::BTreeMap;
use std::path::Path;
use tokio::sync::mpsc;

pub(crate) const SESSION: &str = "ses_0123456789abcdef0123456789abcdef";

pub(crate) struct World {
    pub(crate) engine: Engine,
    pub(crate) repo: TestRepo,
    pub(crate) place: Place,
    _env: TestEnv,
}

/// How a command ended, and what it said on each stream.
pub(crate) type Ran = (Result<ExecReply, ProviderError>, Vec<u8>, Vec<u8>);

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

pub(crate) fn world(files: &[(&str, &str)]) -> World {
    let env = TestEnv::new();
    let home = env.alpine_home();
    let variables = env.variables().into_iter();
    let place = Place {
        name: "podman".to_owned(),
        state: home.join("providers/podman"),
        objects: home.join("objects"),
        cache: home.join("cache"),
        run: home.join("run"),
        executable: env!("CARGO_BIN_EXE_plugin-host").into(),
        env: variables
            .map(|(name, value)| (name, value.to_string_lossy().into_owned()))
            .collect(),
    };
    World {
        engine: Engine::start(),
        repo: env.git_repo(files),
        place,
        _env: env,
    }
}

impl World {
    pub(crate) fn config(&self) -> Config {
        serde_json::from_value(self.table()).unwrap()
    }

    /// The user's table.
    pub(crate) fn table(&self) -> serde_json::Value {
        json!({
            "socket": self.engine.socket(),
            "image": IMAGE,
            "memory": 128 << 20,
            "cpus": 1.5,
            "pids": 64,
            "env": {"GREETING": "hello", "LC_ALL": "C.UTF-8"},
        })
    }

    pub(crate) fn provider(&self) -> Adapted<Containers> {
        open(self.config(), &self.place)
    }

    pub(crate) fn request(&self, name: &str) -> ProvisionRequest {
        ProvisionRequest {
            sandbox_id: id(name),
            ledger_id: "ledger-1".to_owned(),
            session_id: SESSION.to_owned(),
            allow_unsandboxed: false,
        }
    }

    pub(crate) async fn provision(&self, name: &str) {
        let request = self.request(name);
        self.provider().provision(&call(1), request).await.unwrap();
    }

    pub(crate) fn sync_request(&self, name: &str) -> SyncRepoRequest {
        SyncRepoRequest {
            sandbox_id: id(name),
            repo: RepoUrl::parse(self.repo.path.to_str().unwrap(), Path::new("/")).unwrap(),
            branch: BranchName::new("main").unwrap(),
            commit: CommitId::new(&self.repo.head).unwrap(),
            credential: None,
        }
    }

    pub(crate) async fn sync(&self, name: &str) {
        let request = self.sync_request(name);
        let head = self
            .provider()
            .sync_repo(&call(1), request)
            .await
            .unwrap()
            .head;
        assert_eq!(head.as_str(), self.repo.head);
    }

    pub(crate) async fn state(&self, name: &str) -> SandboxState {
        let request = InspectRequest {
            sandbox_id: id(name),
            probe: false,
        };
        self.provider()
            .inspect(&call(1), request)
            .await
            .unwrap()
            .state
    }

    pub(crate) async fn stop(&self, name: &str, grace_ms: u64) -> StopReply {
        let request = StopRequest {
            sandbox_id: id(name),
            grace_ms,
        };
        self.provider().stop(&call(1), request).await.unwrap()
    }

    pub(crate) async fn destroy(&self, name: &str) {
        let request = DestroyRequest {
            sandbox_id: id(name),
        };
        self.provider().destroy(&call(1), request).await.unwrap();
    }

    pub(crate) async fn run(&self, name: &str, argv: &[&str], inputs: Vec<ExecInput>) -> Ran {
        let (events, mut received) = mpsc::channel(4);
        let call = Call::new(call(1).meta, events);
        let request = ExecRequest {
            sandbox_id: id(name),
            argv: argv.iter().map(|word| (*word).to_owned()).collect(),
            env: BTreeMap::new(),
        };
        let (send, input) = mpsc::channel(inputs.len().max(1));
        for one in inputs {
            send.send(one).await.unwrap();
        }
        drop(send);
        let provider = self.provider();
        let running = async move { provider.exec(&call, request, input).await };
        let reading = async {
            let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
            while let Some(event) = received.recv().await {
                match event {
                    CallEvent::Stdout(more) => stdout.extend(more),
                    CallEvent::Stderr(more) => stderr.extend(more),
                    CallEvent::Progress { .. } | CallEvent::Warning(_) => {}
                }
            }
            (stdout, stderr)
        };
        let (reply, (stdout, stderr)) = tokio::join!(running, reading);
        (reply, stdout, stderr)
    }

    /// Runs a script that has to succeed; gives what it says.
    pub(crate) async fn sh(&self, name: &str, script: &str) -> String {
        let (reply, stdout, stderr) = self.run(name, &["sh", "-c", script], Vec::new()).await;
        let said = String::from_utf8(stdout).unwrap();
        let complaint = String::from_utf8_lossy(&stderr);
        assert_eq!(
            reply.unwrap(),
            ExecReply::Exited(0),
            "{script}: {said} {complaint}"
        );
        said
    }
}
