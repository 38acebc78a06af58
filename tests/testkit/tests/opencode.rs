//! The real OpenCode edits a real repository, told to by the fake model.

use alpine_testkit::{ModelServer, TestEnv, opencode};
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

struct Agent<'a> {
    env: &'a TestEnv,
    address: String,
    process: Child,
}

impl Agent<'_> {
    /// One request by `curl`, as the user `opencode`.
    fn ask(&self, method: &str, path: &str, body: &str) -> Value {
        let mut curl = self.env.command(Path::new("curl"));
        curl.args([
            "--silent",
            "--show-error",
            "--fail",
            "--max-time",
            "50",
            "--request",
            method,
        ]);
        curl.args([
            "--user",
            "opencode:pass-word",
            "--header",
            "content-type: application/json",
        ]);
        if method == "POST" {
            curl.args(["--data", body]);
        }
        let output = self
            .env
            .run(curl.arg(format!("{}{path}", self.address)))
            .success();
        serde_json::from_str(&output.stdout).unwrap()
    }

    fn status_without_password(&self) -> String {
        let mut curl = self.env.command(Path::new("curl"));
        curl.args([
            "--silent",
            "--output",
            "/dev/null",
            "--write-out",
            "%{http_code}",
        ]);
        self.env
            .run(curl.arg(format!("{}/session", self.address)))
            .success()
            .stdout
    }
}

fn start<'a>(env: &'a TestEnv, model: &ModelServer, repository: &Path) -> Agent<'a> {
    let mut serve = env.command(&opencode());
    serve
        .args(["serve", "--port", "0", "--hostname", "127.0.0.1"])
        .current_dir(repository)
        .env("OPENCODE_CONFIG_CONTENT", model.opencode_config())
        .env("OPENCODE_SERVER_PASSWORD", "pass-word")
        .env("OPENCODE_DISABLE_MODELS_FETCH", "1")
        .env("OPENCODE_DISABLE_AUTOUPDATE", "1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut process = serve.spawn().unwrap();
    let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
    let line = lines.find_map(|line| {
        let line = line.unwrap();
        let address = line.strip_prefix("opencode server listening on ")?;
        Some(address.to_owned())
    });
    Agent {
        env,
        address: line.expect("the line that says where it listens"),
        process,
    }
}

#[test]
fn the_agent_writes_the_file_that_the_model_asks_for() {
    let env = TestEnv::new();
    let repo = env.git_repo(&[("README.md", "before\n")]);
    let model = ModelServer::writing("edited.txt", "it's edited\n");
    let mut agent = start(&env, &model, &repo.path);
    let until = Instant::now() + Duration::from_secs(50);
    let health = agent.ask("GET", "/global/health", "");
    assert_eq!(health["healthy"], true);
    assert_eq!(health["version"], "1.18.33");
    assert_eq!(agent.status_without_password(), "401");

    let session = agent.ask("POST", "/session", "{}");
    let id = session["id"].as_str().unwrap();
    let said = r#"{"parts":[{"type":"text","text":"edit the file"}]}"#;
    let reply = agent.ask("POST", &format!("/session/{id}/message"), said);
    assert_eq!(reply["info"]["role"], "assistant");
    let edited = std::fs::read_to_string(repo.path.join("edited.txt")).unwrap();
    assert_eq!(edited, "it's edited\n");
    assert_eq!(repo.git(&["status", "--porcelain"]), "?? edited.txt");

    assert_eq!(agent.ask("GET", "/session", "")[0]["id"], id);
    let transcript = agent
        .ask("GET", &format!("/session/{id}/message"), "")
        .to_string();
    assert!(transcript.contains("edit the file") && transcript.contains("edited.txt"));
    assert_eq!(agent.ask("POST", &format!("/session/{id}/abort"), ""), true);
    assert_eq!(agent.ask("POST", "/global/dispose", ""), true);
    assert!(model.requests().len() >= 2);

    let pid = rustix::process::Pid::from_child(&agent.process);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    while agent.process.try_wait().unwrap().is_none() {
        assert!(Instant::now() < until, "OpenCode has not ended");
        std::thread::sleep(Duration::from_millis(5));
    }
}
