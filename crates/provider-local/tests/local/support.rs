//! A home of its own for each test, which leaves no process behind whatever becomes of the test.

use alpine_git::GitConfig;
use alpine_provider_api::*;
use alpine_provider_local::{LocalConfig, LocalProvider};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::sync::mpsc;

pub(crate) const SESSION: &str = "ses_0123456789abcdef0123456789abcdef";
pub(crate) const PLANTED: &str = "planted-value-of-the-host";

/// A home with one sandbox's id and a provider.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) provider: LocalProvider,
    pub(crate) config: LocalConfig,
    pub(crate) id: SandboxId,
    directory: TempDir,
}

pub(crate) fn world() -> World {
    let directory = TempDir::with_prefix("alpine-local-").unwrap();
    let path = directory.path();
    let env = BTreeMap::from([
        ("PATH".to_owned(), search_path()),
        ("HOME".to_owned(), path.join("user").display().to_string()),
    ]);
    let secrets = vec![Secret::new(PLANTED.to_owned())];
    let config = LocalConfig {
        home: path.join("home"),
        run_dir: path.join("run"),
        executable: PathBuf::from(env!("CARGO_BIN_EXE_alpine-shim-for-tests")),
        env,
        git: GitConfig {
            cache: path.join("home/cache"),
            path: search_path().into(),
            home: None,
            extra_env: BTreeMap::new(),
            redactor: Redactor::new(&secrets),
        },
        objects: path.join("home/objects"),
        secrets,
    };
    let unique = path
        .file_name()
        .unwrap()
        .to_string_lossy()
        .replace(['.', '-'], "_");
    World {
        provider: LocalProvider::new(config.clone()),
        config,
        id: SandboxId::new(&format!("sbx{unique}")).unwrap(),
        directory,
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "tests find their tools where the user does"
)]
fn search_path() -> String {
    std::env::var("PATH").unwrap()
}

pub(crate) fn meta(fence: u64) -> Meta {
    Meta {
        operation_id: "op_0123456789abcdef0123456789abcdef".to_owned(),
        fence,
        attempt: 1,
        deadline_ms: 0,
        traceparent: None,
    }
}

pub(crate) fn quiet() -> Call {
    Call::quiet(meta(1))
}

/// What a command said, and how it ended.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
    pub(crate) reply: Result<ExecReply, ProviderError>,
}

impl World {
    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn dir(&self) -> PathBuf {
        self.config.home.join("sandboxes").join(self.id.as_str())
    }

    pub(crate) fn workspace(&self) -> PathBuf {
        self.dir().join("workspace")
    }

    pub(crate) fn log(&self, name: &str) -> String {
        fs::read_to_string(self.dir().join("logs").join(name)).unwrap_or_default()
    }

    pub(crate) fn provision_request(&self) -> ProvisionRequest {
        ProvisionRequest {
            sandbox_id: self.id.clone(),
            ledger_id: "ledger-1".to_owned(),
            session_id: SESSION.to_owned(),
            allow_unsandboxed: true,
        }
    }

    pub(crate) async fn provision(&self) {
        self.provider
            .provision(&quiet(), self.provision_request())
            .await
            .unwrap();
    }

    pub(crate) async fn state(&self) -> SandboxState {
        let request = InspectRequest {
            sandbox_id: self.id.clone(),
            probe: false,
        };
        self.provider
            .inspect(&quiet(), request)
            .await
            .unwrap()
            .state
    }

    pub(crate) async fn stop(&self, grace_ms: u64) -> Result<StopReply, ProviderError> {
        let request = StopRequest {
            sandbox_id: self.id.clone(),
            grace_ms,
        };
        self.provider.stop(&quiet(), request).await
    }

    pub(crate) async fn destroy(&self, fence: u64) -> Result<DestroyReply, ProviderError> {
        let request = DestroyRequest {
            sandbox_id: self.id.clone(),
        };
        self.provider
            .destroy(&Call::quiet(meta(fence)), request)
            .await
    }

    pub(crate) async fn install(&self) -> Result<InstallReply, ProviderError> {
        let sandbox_id = self.id.clone();
        self.provider
            .install(&quiet(), InstallRequest { sandbox_id })
            .await
    }

    pub(crate) fn exec_request(&self, script: &str) -> ExecRequest {
        ExecRequest {
            sandbox_id: self.id.clone(),
            argv: ["sh", "-c", script].map(str::to_owned).to_vec(),
            env: BTreeMap::new(),
        }
    }

    /// Runs a shell script with no input.
    pub(crate) async fn sh(&self, script: &str) -> Ran {
        let (_, input) = mpsc::channel(1);
        self.exec(self.exec_request(script), input).await
    }

    pub(crate) async fn exec(&self, request: ExecRequest, input: mpsc::Receiver<ExecInput>) -> Ran {
        let (events, mut received) = mpsc::channel(4);
        let call = Call::new(meta(1), events);
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        let running = async {
            let reply = self.provider.exec(&call, request, input).await;
            drop(call);
            reply
        };
        let reading = async {
            while let Some(event) = received.recv().await {
                match event {
                    CallEvent::Stdout(text) => stdout.extend(text),
                    CallEvent::Stderr(text) => stderr.extend(text),
                    CallEvent::Progress { .. } | CallEvent::Warning(_) => {}
                }
            }
        };
        let (reply, ()) = tokio::join!(running, reading);
        Ran {
            stdout,
            stderr,
            reply,
        }
    }

    /// The supervisor's process.
    pub(crate) fn supervisor(&self) -> u32 {
        let lock = fs::read_to_string(self.dir().join("shim.lock")).unwrap();
        lock.split(' ').next().unwrap().parse().unwrap()
    }

    pub(crate) fn kill_supervisor(&self) {
        let pid = self.supervisor();
        signal(pid, "KILL");
        until("the supervisor ends", || !lives(pid));
    }

    /// Every process of the sandbox, the supervisor and the gateway included.
    pub(crate) fn processes(&self) -> Vec<u32> {
        let mark = format!("ALPINE_SANDBOX_ID={}", self.id);
        let ours = |pid: &u32| {
            let holds = |file: &str, wanted: &str| {
                let text = fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
                text.split(|&byte| byte == 0)
                    .any(|part| part == wanted.as_bytes())
            };
            holds("environ", &mark)
                || (holds("cmdline", "alpine-shim") && holds("cmdline", self.id.as_str()))
        };
        fs::read_dir("/proc")
            .unwrap()
            .filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok())
            .filter(ours)
            .collect()
    }

    /// What waits to be deleted.
    pub(crate) fn removing(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.config.home.join("sandboxes/.removing"));
        let entries = entries.into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).collect()
    }

    /// The processes that delete it.
    pub(crate) fn removers(&self) -> Vec<u32> {
        let place = self.config.home.as_os_str().as_encoded_bytes();
        let removes = |pid: &u32| {
            let text = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let mut words = text.split(|&byte| byte == 0);
            words.next() == Some(b"alpine-remover") && words.next() == Some(place)
        };
        fs::read_dir("/proc")
            .unwrap()
            .filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok())
            .filter(removes)
            .collect()
    }

    /// A repository with these files on `main`; gives its tip.
    pub(crate) fn repository(&self, files: &[(&str, &str)]) -> (RepoUrl, CommitId) {
        let path = self.path().join("origin");
        fs::create_dir_all(&path).unwrap();
        git(&path, &["init", "-q", "-b", "main"]);
        let commit = commit(&path, files);
        (
            RepoUrl::parse(path.to_str().unwrap(), Path::new("/")).unwrap(),
            commit,
        )
    }

    pub(crate) async fn sync(
        &self,
        repo: &RepoUrl,
        commit: &CommitId,
    ) -> Result<SyncRepoReply, ProviderError> {
        let request = SyncRepoRequest {
            sandbox_id: self.id.clone(),
            repo: repo.clone(),
            branch: BranchName::new("main").unwrap(),
            commit: commit.clone(),
            credential: None,
        };
        self.provider.sync_repo(&quiet(), request).await
    }

    /// A sandbox with these files in its repository.
    pub(crate) async fn filled(&self, files: &[(&str, &str)]) -> CommitId {
        let (repo, commit) = self.repository(files);
        self.provision().await;
        self.sync(&repo, &commit).await.unwrap();
        commit
    }

    /// Every file below the home and the run directory that holds a text, and every process that shows it.
    pub(crate) fn traces_of(&self, text: &str) -> Vec<String> {
        let mut found = Vec::new();
        let mut unseen = vec![self.path().to_owned()];
        while let Some(path) = unseen.pop() {
            let meta = path.symlink_metadata().unwrap();
            if meta.is_dir() {
                unseen.extend(
                    fs::read_dir(&path)
                        .unwrap()
                        .map(|entry| entry.unwrap().path()),
                );
            } else if meta.is_file() && holds(&fs::read(&path).unwrap(), text) {
                found.push(path.display().to_string());
            }
        }
        for pid in self.processes() {
            if holds(
                &fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default(),
                text,
            ) {
                found.push(format!("the arguments of {pid}"));
            }
        }
        found
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let (provider, id) = (self.provider.clone(), self.id.clone());
        // The test's own runtime may be on this thread.
        let ended = std::thread::spawn(move || {
            tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap()
                .block_on(provider.destroy(
                    &Call::quiet(meta(u64::MAX)),
                    DestroyRequest { sandbox_id: id },
                ))
        })
        .join();
        if !std::thread::panicking() {
            ended.unwrap().unwrap();
            assert_eq!(self.processes(), Vec::<u32>::new());
            until("removers end", || self.removers().is_empty());
            assert_eq!(self.removing(), Vec::<PathBuf>::new());
            let run = fs::read_dir(&self.config.run_dir).into_iter().flatten();
            assert_eq!(run.count(), 0, "a socket is left");
        }
    }
}

pub(crate) fn holds(text: &[u8], part: &str) -> bool {
    text.windows(part.len())
        .any(|window| window == part.as_bytes())
}

pub(crate) fn git(directory: &Path, arguments: &[&str]) -> String {
    let output = Command::new("git")
        .args(["-c", "user.name=t", "-c", "user.email=t@example.com"])
        .args(arguments)
        .current_dir(directory)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

pub(crate) fn commit(repository: &Path, files: &[(&str, &str)]) -> CommitId {
    for (name, text) in files {
        fs::write(repository.join(name), text).unwrap();
    }
    git(repository, &["add", "-A"]);
    git(repository, &["commit", "-q", "--allow-empty", "-m", "x"]);
    CommitId::new(&git(repository, &["rev-parse", "HEAD"])).unwrap()
}

pub(crate) fn signal(pid: u32, name: &str) {
    let status = Command::new("kill")
        .args(["-s", name, &pid.to_string()])
        .status()
        .unwrap();
    assert!(status.success());
}

/// Whether a process lives; a zombie does not.
pub(crate) fn lives(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')')
        .is_some_and(|(_, rest)| !rest.starts_with(" Z"))
}

/// Waits for a condition, and says which one did not come.
#[track_caller]
pub(crate) fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let limit = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < limit, "{what}: in vain");
        std::thread::sleep(Duration::from_millis(5));
    }
}
