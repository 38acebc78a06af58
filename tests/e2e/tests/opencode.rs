//! The real OpenCode with a model that is none: it edits the repository, and its work is in the durable object.

use crate::local::http::{Caller, get};
use crate::local::object::restore;
use crate::local::program::{Program, files, holds};
use crate::local::whole::repository;
use crate::providers::{protect, shown};
use crate::support::text;
use alpine_testkit::{ModelServer, opencode};
use std::fs;
use std::path::{Path, PathBuf};

/// The password that OpenCode was given, from its own environment, and its arguments.
fn password(program: &Program) -> String {
    let processes = program.env.processes();
    let agent = processes
        .iter()
        .find(|process| process.command.contains(" serve --port "));
    let pid = agent
        .unwrap_or_else(|| panic!("no agent in {processes:#?}"))
        .pid;
    let environment = fs::read(format!("/proc/{pid}/environ")).unwrap();
    let environment = String::from_utf8(environment).unwrap();
    let value = environment
        .split('\0')
        .find_map(|one| one.strip_prefix("OPENCODE_SERVER_PASSWORD="));
    value.expect("a password").to_owned()
}

#[track_caller]
fn assert_nowhere(secret: &str, below: &Path) {
    for (path, bytes) in files(below) {
        assert!(
            !holds(&bytes, secret),
            "the password is in {}",
            path.display()
        );
    }
}

#[test]
fn what_the_agent_did_and_said_is_kept() {
    let program = with_opencode();
    let workspace = does_and_says(&program);
    assert!(workspace.starts_with(program.sandboxes()));
    program.assert_nothing_left();
}

/// The same in a sandbox that is another provider's, made whole by the adapter.
#[test]
fn what_the_agent_did_and_said_in_a_foreign_sandbox_is_kept() {
    let program = with_opencode();
    let file = program.env.root().join("template");
    fs::copy(
        alpine_plugin_tests::library("alpine-plugin-template"),
        &file,
    )
    .unwrap();
    protect(&file, 0o755);
    program.json(&["provider", "add", shown(&file), "--name", "acme"]);
    // What sandboxes of other providers have is not known: there nothing but the page is taken unasked.
    program.configure("[provider]\ndefault = 'acme'\n[agent]\ndefault = 'opencode'\n");
    let workspace = does_and_says(&program);
    assert!(workspace.starts_with(program.env.alpine_home().join("providers/acme")));
    program.assert_nothing_left();
}

fn with_opencode() -> Program {
    Program::new().with("ALPINE_OPENCODE", opencode().to_str().unwrap())
}

/// A session in which the agent writes a file and is brought down; gives the workspace.
fn does_and_says(program: &Program) -> PathBuf {
    let model = ModelServer::writing("made/by-the-agent.txt", "written by the agent\n");
    let config = format!("OPENCODE_CONFIG_CONTENT={}", model.opencode_config());
    let up = program.up(&repository(program), &["--env", &config, "--name", "it"]);
    assert_eq!(
        up["agent"], "opencode",
        "the agent that is there is taken: {up:#}"
    );
    let url = text(&up, "opencode_url");
    assert_eq!(get(&format!("{url}/global/health"), &[]).status, 401);
    let password = password(program);
    for process in program.env.processes() {
        assert!(!process.command.contains(&password), "{process:?}");
    }

    let credentials =
        program
            .env
            .run(&mut program.command(&["open", "it", "--credentials", "--json"]));
    let caller = Caller::of(&alpine_testkit::json(&credentials.success()));
    let health = caller.get(&format!("{url}/global/health"));
    assert!(health.body.contains("\"healthy\":true"), "{health:?}");
    let session = caller.post(&format!("{url}/session"), "{}");
    let session: serde_json::Value = serde_json::from_str(&session.body).unwrap();
    let session = session["id"].as_str().expect("a session of the agent");
    let ask = r#"{"parts":[{"type":"text","text":"please write the file"}]}"#;
    let answer = caller.post(&format!("{url}/session/{session}/message"), ask);
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(answer.body.contains("The file is written."), "{answer:?}");
    let workspace = PathBuf::from(text(&up, "workspace_path"));
    let made = fs::read_to_string(workspace.join("made/by-the-agent.txt")).unwrap();
    assert_eq!(made, "written by the agent\n");

    let log = program.run(&["logs", "it"]).success().stdout;
    assert!(log.contains("opencode server listening on"), "{log}");
    assert_nowhere(&password, program.env.root());
    let object = restore(program, &program.down("it"));
    let file = |name: String| fs::read_to_string(object.restored.join(name)).unwrap();
    assert_eq!(
        file("workspace/made/by-the-agent.txt".to_owned()),
        "written by the agent\n"
    );
    let transcript = file(format!("transcript/agent/{session}.json"));
    for part in [
        "please write the file",
        "by-the-agent.txt",
        "The file is written.",
    ] {
        assert!(transcript.contains(part), "no `{part}` in {transcript}");
    }
    assert_nowhere(&password, program.env.root());
    for said in program.said() {
        assert!(!said.contains(&password), "{said}");
    }
    let object = program.env.alpine_home().join("objects");
    assert!(
        !files(&object)
            .iter()
            .any(|(_, bytes)| holds(bytes, "fake-key")),
        "what `--env` gave is not recorded"
    );
    workspace
}
