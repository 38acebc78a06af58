//! Real repositories in a directory of their own, and a server that answers what it is told.

use alpine_git::{Git, GitConfig};
use alpine_provider_api::{BranchName, CommitId, ProviderError, Redactor, RepoUrl};
use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

pub(crate) struct Place {
    pub(crate) root: tempfile::TempDir,
    pub(crate) extra_env: BTreeMap<String, String>,
    pub(crate) home: Option<PathBuf>,
}

impl Place {
    /// With a source repository of two commits on `main`.
    pub(crate) fn new() -> Self {
        let place = Self::empty();
        place.source_git(&["init", "-q", "-b", "main"]);
        place.commit("one");
        place.commit("two");
        place
    }

    pub(crate) fn empty() -> Self {
        let place = Self {
            root: tempfile::tempdir().unwrap(),
            extra_env: BTreeMap::new(),
            home: None,
        };
        fs::create_dir(place.source()).unwrap();
        place
    }

    pub(crate) fn source(&self) -> PathBuf {
        self.root.path().join("source")
    }

    pub(crate) fn workspace(&self) -> PathBuf {
        self.root.path().join("workspace")
    }

    pub(crate) fn cache(&self) -> PathBuf {
        self.root.path().join("cache")
    }

    pub(crate) fn repo(&self) -> RepoUrl {
        url(self.source().to_str().unwrap())
    }

    pub(crate) fn git(&self) -> Git {
        Git::new(GitConfig {
            cache: self.cache(),
            path: path(),
            home: self.home.clone(),
            extra_env: self.extra_env.clone(),
            redactor: Redactor::default(),
        })
    }

    pub(crate) fn source_git(&self, arguments: &[&str]) -> String {
        plain_git(&self.source(), arguments)
    }

    /// Writes a file of that name and commits everything.
    pub(crate) fn commit(&self, name: &str) -> CommitId {
        fs::write(self.source().join(name), name).unwrap();
        self.commit_all(name)
    }

    pub(crate) fn commit_all(&self, message: &str) -> CommitId {
        self.source_git(&["add", "-A"]);
        self.source_git(&["commit", "-q", "--allow-empty", "-m", message]);
        CommitId::new(&self.source_git(&["rev-parse", "HEAD"])).unwrap()
    }

    pub(crate) async fn tip(&self) -> Result<CommitId, ProviderError> {
        self.git().tip(&self.repo(), &main_branch(), None).await
    }

    pub(crate) async fn checkout(&self, commit: &CommitId) -> Result<CommitId, ProviderError> {
        let (git, repo) = (self.git(), self.repo());
        git.checkout(
            &repo,
            &main_branch(),
            commit,
            None,
            &self.workspace(),
            &|_, _| {},
        )
        .await
    }

    pub(crate) fn workspace_git(&self, arguments: &[&str]) -> String {
        plain_git(&self.workspace(), arguments)
    }

    /// What is in the directory of the place.
    pub(crate) fn names(&self) -> Vec<String> {
        names(self.root.path())
    }

    /// The only mirror.
    pub(crate) fn mirror(&self) -> PathBuf {
        let mirrors = self.cache().join("mirrors");
        let name = names(&mirrors)
            .into_iter()
            .find(|name| !name.contains('.'))
            .unwrap();
        mirrors.join(name)
    }

    /// Puts a script in the place and gives its path; it leaves a mark when it runs.
    pub(crate) fn trap(&self) -> (String, PathBuf) {
        let (script, mark) = (
            self.root.path().join("trap"),
            self.root.path().join("trapped"),
        );
        let text = format!("#!/bin/sh\necho \"$0 $*\" >> '{}'\ncat\n", mark.display());
        fs::write(&script, text).unwrap();
        executable(&script);
        (script.to_str().unwrap().to_owned(), mark)
    }
}

pub(crate) fn executable(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

pub(crate) fn names(directory: &Path) -> Vec<String> {
    let listing = fs::read_dir(directory).unwrap();
    let mut names: Vec<_> = listing
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

pub(crate) fn main_branch() -> BranchName {
    BranchName::new("main").unwrap()
}

pub(crate) fn url(text: &str) -> RepoUrl {
    RepoUrl::parse(text, Path::new("/")).unwrap()
}

/// The search path of the tests' own environment.
#[expect(
    clippy::disallowed_methods,
    reason = "a test has no configuration to read it from"
)]
pub(crate) fn path() -> std::ffi::OsString {
    std::env::var_os("PATH").unwrap()
}

/// Runs git as a person would, away from the machine's configuration.
pub(crate) fn plain_git(directory: &Path, arguments: &[&str]) -> String {
    let output = Command::new("git")
        .args(["-c", "user.name=t", "-c", "user.email=t@example.org"])
        .args(["-c", "protocol.file.allow=always"])
        .args(arguments)
        .current_dir(directory)
        .env_clear()
        .env("PATH", path())
        .env("HOME", "/nonexistent")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "git {arguments:?}: {said}");
    String::from_utf8(output.stdout)
        .unwrap()
        .trim_end()
        .to_owned()
}

/// Waits until something holds, for ten seconds at most.
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !holds() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::yield_now();
    }
}

/// An HTTP server that gives one answer to all, or none at all.
pub(crate) struct Server {
    pub(crate) address: String,
    pub(crate) requests: Arc<Mutex<Vec<String>>>,
    open: Arc<Mutex<Vec<TcpStream>>>,
}

impl Server {
    /// `answer` is the whole of it; `None` keeps the connection open and says nothing.
    pub(crate) fn start(answer: impl Fn(&str) -> Option<String> + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = Self {
            address: listener.local_addr().unwrap().to_string(),
            requests: Arc::default(),
            open: Arc::default(),
        };
        let (requests, open) = (server.requests.clone(), server.open.clone());
        // The thread ends with the test's process.
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let Some(request) = request(&mut stream) else {
                    continue;
                };
                let answered = answer(&request);
                requests.lock().unwrap().push(request);
                match answered {
                    Some(text) => drop(stream.write_all(text.as_bytes())),
                    None => open.lock().unwrap().push(stream),
                }
            }
        });
        server
    }

    /// Answers a status line and headers with an empty body.
    pub(crate) fn answering(head: &'static str) -> Self {
        Self::start(move |_| {
            Some(format!(
                "HTTP/1.1 {head}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            ))
        })
    }

    pub(crate) fn repo(&self) -> RepoUrl {
        url(&format!("http://{}/o/r.git", self.address))
    }

    pub(crate) fn seen(&self) -> String {
        self.requests.lock().unwrap().join("\n")
    }
}

fn request(stream: &mut TcpStream) -> Option<String> {
    let mut text = Vec::new();
    let mut chunk = [0; 1024];
    while !text.windows(4).any(|end| end == b"\r\n\r\n") {
        match stream.read(&mut chunk) {
            Ok(read) if read > 0 => text.extend_from_slice(&chunk[..read]),
            Ok(_) | Err(_) => return None,
        }
    }
    Some(String::from_utf8_lossy(&text).into_owned())
}
