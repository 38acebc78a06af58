//! Remote repositories with credentials: over HTTP, on this machine.

use crate::local::object::restore;
use crate::local::program::{Program, files, holds};
use crate::local::whole::repository;
use crate::support::{failed, text, with_json};
use alpine_testkit::{GitMode, GitServer};
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

const TOKEN: &str = "ghp_a-token-that-nobody-else-may-see-0001";
const OTHER: &str = "ghp_another-token-that-is-not-good-0002";

/// A home with a repository, and the server that gives it to who bears the token.
struct Remote {
    program: Program,
    server: GitServer,
    head: String,
}

impl Remote {
    fn new(variables: &[(&str, &str)]) -> Self {
        let mut program = Program::new();
        for (name, value) in variables {
            program = program.with(name, value);
        }
        let repo = repository(&program);
        let server = GitServer::start_for(
            &program.env.root().join("repos"),
            &[("x-access-token", TOKEN)],
        );
        program.configure("[git]\ntoken_hosts = ['127.0.0.1']\n[limits]\nbackoff = '5ms'\n");
        Self {
            program,
            server,
            head: repo.head,
        }
    }

    fn up<'a>(&self, url: &'a str, branch: &'a str) -> [&'a str; 7] {
        [
            "up",
            url,
            "--branch",
            branch,
            "--agent",
            "none",
            "--no-browser",
        ]
    }

    fn url(&self) -> String {
        self.server.url("r0/.git")
    }

    /// An `up` that has to fail after admission: it leaves a record of it, and nothing else.
    #[track_caller]
    fn fails(&self, url: &str, branch: &str, code: &str, exit: i32) -> serde_json::Value {
        let failure = self.program.fails(&self.up(url, branch), code, exit);
        assert!(failure["operation_id"].is_string(), "{failure:#}");
        self.program.assert_nothing_left();
        failure
    }
}

#[track_caller]
fn assert_nowhere(program: &Program, secret: &str) {
    for (path, bytes) in files(program.env.root()) {
        assert!(!holds(&bytes, secret), "the token is in {}", path.display());
    }
    for said in program.said() {
        assert!(!said.contains(secret), "{said}");
    }
}

/// Looks at the arguments of every process again and again, and says where it saw the secret.
fn watch(secret: &'static str, stop: &Arc<AtomicBool>) -> JoinHandle<Option<String>> {
    let stop = Arc::clone(stop);
    thread::spawn(move || {
        while !stop.load(Ordering::SeqCst) {
            for entry in fs::read_dir("/proc").expect("/proc").flatten() {
                let command = fs::read(entry.path().join("cmdline")).unwrap_or_default();
                if holds(&command, secret) {
                    return Some(String::from_utf8_lossy(&command).into_owned());
                }
            }
            thread::sleep(Duration::from_millis(1));
        }
        None
    })
}

#[test]
fn a_good_token_opens_the_repository_and_is_nowhere_to_be_seen() {
    for variable in ["GITHUB_TOKEN", "GH_TOKEN"] {
        let remote = Remote::new(&[(variable, TOKEN), ("ALPINE_LOG", "trace")]);
        let stop = Arc::new(AtomicBool::new(false));
        let seen = watch(TOKEN, &stop);
        remote
            .server
            .set(GitMode::Delay(Duration::from_millis(100)));
        let (url, program) = (remote.url(), &remote.program);
        let output = program.run(&with_json(&remote.up(&url, "main"))).success();
        let up = alpine_testkit::json(&output);
        assert_eq!(up["target_commit_sha"], remote.head.as_str());
        let session = text(&up, "session_id");
        let config = program.run(&["exec", &session, "--", "git", "remote", "get-url", "origin"]);
        assert_eq!(config.success().stdout.trim_end(), url);
        assert!(
            remote
                .server
                .requests()
                .iter()
                .any(|request| request.had_auth)
        );
        assert_nowhere(program, TOKEN);
        let shown = program
            .run(&["exec", &session, "--", "env"])
            .success()
            .stdout;
        assert!(!shown.contains(TOKEN), "a sandbox does not get it: {shown}");
        let down = program.run(&["--json", "down", &session]).success();
        let object = restore(program, &alpine_testkit::json(&down));
        assert_eq!(object.payload["repo_url"], url.as_str());
        stop.store(true, Ordering::SeqCst);
        assert_eq!(seen.join().unwrap(), None);
        assert_nowhere(program, TOKEN);
        program.assert_nothing_left();
    }
}

#[test]
fn a_bad_token_is_told_and_never_shown() {
    let remote = Remote::new(&[("GITHUB_TOKEN", OTHER)]);
    let failure = remote.fails(&remote.url(), "main", "ERR_REPO_AUTH_REJECTED", 1);
    assert_eq!(failure["retryable"], false);
    for mode in [GitMode::Unauthorized, GitMode::Forbidden, GitMode::NotFound] {
        remote.server.set(mode);
        remote.fails(&remote.url(), "main", "ERR_REPO_AUTH_REJECTED", 1);
    }
    assert_nowhere(&remote.program, OTHER);
}

#[test]
fn without_a_token_nothing_is_begun_and_with_public_nothing_is_asked() {
    let remote = Remote::new(&[]);
    let url = remote.url();
    let failure = remote
        .program
        .fails(&remote.up(&url, "main"), "ERR_REPO_AUTH_MISSING", 1);
    assert!(failure["operation_id"].is_null());
    assert_eq!(remote.server.requests(), [], "nobody was asked");
    let home: Vec<_> = fs::read_dir(remote.program.env.alpine_home())
        .unwrap()
        .flatten()
        .map(|entry| entry.file_name())
        .collect();
    assert_eq!(home, ["config.toml"], "nothing was made");
    // What is said to be public and is not: nothing prompts.
    let failure = remote.program.fails(
        &[&remote.up(&url, "main")[..], &["--public"]].concat(),
        "ERR_REPO_AUTH_REJECTED",
        1,
    );
    let cause = text(&failure, "cause");
    assert!(
        cause.contains("none was sent: a token (`GITHUB_TOKEN`)"),
        "{failure:#}"
    );
    assert_eq!(failure["next_step"], "alpine config", "which says where");

    let public = GitServer::start(&remote.program.env.root().join("repos"));
    let up = remote.program.json(
        &[
            &remote.up(&public.url("r0/.git"), "main")[..],
            &["--public"],
        ]
        .concat(),
    );
    assert!(public.requests().iter().all(|request| !request.had_auth));
    remote.program.down(&text(&up, "session_id"));
}

#[test]
fn a_token_is_for_the_named_hosts_alone() {
    let remote = Remote::new(&[("GITHUB_TOKEN", TOKEN)]);
    remote.program.configure("[limits]\nbackoff = '5ms'\n");
    let failure = remote.fails(&remote.url(), "main", "ERR_REPO_AUTH_REJECTED", 1);
    assert!(
        text(&failure, "cause").contains("token_hosts"),
        "{failure:#}"
    );
    assert!(
        remote
            .server
            .requests()
            .iter()
            .all(|request| !request.had_auth)
    );
}

#[test]
fn a_redirect_is_not_followed_with_the_token() {
    let remote = Remote::new(&[("GITHUB_TOKEN", TOKEN)]);
    let thief = GitServer::start(&remote.program.env.root().join("repos"));
    remote.server.set(GitMode::Redirect(thief.base_url()));
    let output = remote
        .program
        .run(&with_json(&remote.up(&remote.url(), "main")));
    assert_ne!(output.code(), Some(0), "{output:#?}");
    assert_eq!(thief.requests(), [], "the other server was not asked");
    let document = failed(&output, "ERR_INVALID_REPO_URL", 1);
    assert!(
        text(&document, "cause").contains("another address"),
        "{document:#}"
    );
    remote.program.assert_nothing_left();
    assert_nowhere(&remote.program, TOKEN);
}

#[test]
fn a_branch_that_is_not_there_is_named() {
    let remote = Remote::new(&[("GITHUB_TOKEN", TOKEN)]);
    let failure = remote.fails(&remote.url(), "no/such", "ERR_BRANCH_NOT_FOUND", 1);
    assert!(text(&failure, "cause").contains("no/such"), "{failure:#}");
}

#[test]
fn a_server_that_fails_is_tried_three_times_and_no_more() {
    let remote = Remote::new(&[("GITHUB_TOKEN", TOKEN)]);
    let mut before = 0;
    for mode in [GitMode::ServerError, GitMode::Drop] {
        remote.server.set(mode.clone());
        let failure = remote.fails(&remote.url(), "main", "ERR_REPO_UNREACHABLE", 2);
        assert_eq!(failure["retryable"], true);
        let asked = remote.server.requests().len() - before;
        before += asked;
        // An HTTP library may itself repeat a request whose connection was dropped.
        assert!(
            asked == 3 || mode == GitMode::Drop && (3..=6).contains(&asked),
            "{mode:?}: {asked}"
        );
    }
    let port = remote.server.port();
    drop(remote.server);
    let url = format!("http://127.0.0.1:{port}/r0/.git");
    let arguments = ["up", &url, "--branch", "main", "--agent", "none"];
    remote.program.fails(&arguments, "ERR_REPO_UNREACHABLE", 2);
    remote.program.assert_nothing_left();
}
