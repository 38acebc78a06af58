//! Secrets are planted in every input, and looked for in every output.

use crate::local::http::Caller;
use crate::local::program::{Program, files, holds, script};
use crate::support::{text, with_json};
use alpine_testkit::Output;
use serde_json::Value;
use std::fs;
use std::path::PathBuf;

/// Variables that hold secrets by their names, each with a value of its own.
const VARIABLES: [(&str, &str); 7] = [
    ("GITHUB_TOKEN", "planted-in-github-token"),
    ("GH_TOKEN", "planted-in-gh-token"),
    ("MY_TOKEN_2", "planted-in-my-token"),
    ("A_SECRET_THING", "planted-in-a-secret-thing"),
    ("DB_PASSWORD", "planted-in-db password \"quoted\""),
    ("OPENAI_API_KEY", "planted-in-openai-key"),
    ("lower_secret", "planted-in-lower-secret"),
];
/// What `--env` gives, by value and by name.
const GIVEN: &str = "planted-by-value-with-env";
const NAMED: &str = "planted-by-name-with-env";
/// What the repository's own steps print: shapes that nobody told alpine of.
const SHAPES: [&str; 4] = [
    "planted-in-user-info",
    "cGxhbnRlZC1pbi1iYXNpYw==",
    "planted.in.bearer-header",
    "cGxhbnRlZCBpbiBhIHByaXZhdGUga2V5IGJsb2Nr",
];

/// What a provider gets, and tells in everything that it says of itself.
const ALLOWED: &str = "planted-by-env-allow";

/// Prints what it knows, on both streams, a line in pieces among them.
const TALK: &str = r#"
import os, sys, time
words = [os.environ.get(name) or "-" for name in sys.argv[1:]]
for out in (sys.stdout, sys.stderr):
    for word in words: print("I know", word, file=out, flush=True)
    print("https://user:planted-in-user-info@example.org/x", file=out, flush=True)
    print("Authorization: Basic cGxhbnRlZC1pbi1iYXNpYw==", file=out, flush=True)
    print("authorization: bearer planted.in.bearer-header", file=out, flush=True)
    print("-----BEGIN PRIVATE KEY-----\ncGxhbnRlZCBpbiBhIHByaXZhdGUga2V5IGJsb2Nr\n-----END PRIVATE KEY-----", file=out, flush=True)
for word in words:
    for piece in (word[:9], word[9:]):
        sys.stdout.write(piece); sys.stdout.flush(); time.sleep(0.02)
    print(flush=True)
"#;

const SERVE: &str = r#"
import http.server, os, runpy, sys
port = int(sys.argv.pop(1))
runpy.run_path("talk.py")
class Asked(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        text = os.environ["GIVEN_VARIABLE"].encode()
        self.send_response(200); self.send_header("content-length", str(len(text))); self.end_headers(); self.wfile.write(text)
    def log_message(self, *_): pass
http.server.ThreadingHTTPServer(("127.0.0.1", port), Asked).serve_forever()
"#;

const CONFIG: &str = "
[env]
pass = ['MY_TOKEN_2', 'DB_PASSWORD', 'OPENAI_API_KEY']
[agents.command]
argv = ['python3', '-u', 'serve.py', '{port}', 'GIVEN_VARIABLE', 'NAMED_VARIABLE', 'PASSED_VARIABLE', 'MY_PASSWORD', 'DB_PASSWORD']
env_pass = ['PASSED_VARIABLE']
[agents.command.auth]
username = 'me'
password_env = 'MY_PASSWORD'
";

fn planted() -> Program {
    let mut program = Program::new()
        .with("NAMED_VARIABLE", NAMED)
        .with("PASSED_VARIABLE", "planted-by-env-pass")
        .with("ALPINE_LOG", "trace");
    for (name, value) in VARIABLES {
        program = program.with(name, value);
    }
    program.configure(CONFIG);
    program
}

/// All that must not be seen, but for the shapes, which are in the repository.
fn secrets() -> Vec<&'static str> {
    let own = VARIABLES.iter().map(|(_, value)| *value);
    own.chain([GIVEN, NAMED, "planted-by-env-pass"]).collect()
}

#[track_caller]
fn assert_clean(what: &str, bytes: &[u8]) {
    for secret in secrets().into_iter().chain(SHAPES) {
        assert!(
            !holds(bytes, secret),
            "`{secret}` is in {what}:\n{}",
            String::from_utf8_lossy(bytes)
        );
    }
}

/// Nothing that was said holds a secret, and no file but for the repository's own holds one of its shapes.
#[track_caller]
fn assert_clean_everywhere(program: &Program, also: &[&str]) {
    for said in program.said() {
        assert_clean("an output", said.as_bytes());
        for secret in also {
            assert!(!said.contains(secret), "`{secret}` is in an output: {said}");
        }
    }
    for (path, bytes) in files(program.env.root()) {
        let name = path.display().to_string();
        if ["/repos/", "/workspace/", "/cache/"]
            .iter()
            .any(|own| name.contains(own))
        {
            for secret in secrets().iter().chain(also) {
                assert!(!holds(&bytes, secret), "`{secret}` is in {name}");
            }
        } else {
            assert_clean(&name, &bytes);
            for secret in also {
                assert!(!holds(&bytes, secret), "`{secret}` is in {name}");
            }
        }
    }
}

#[track_caller]
fn redacted(output: Output) -> String {
    assert!(output.stdout.contains("I know [redacted]"), "{output:#?}");
    assert!(
        output.stdout.contains("https://[redacted]@example.org/x"),
        "{output:#?}"
    );
    output.stdout
}

#[test]
fn a_whole_session_shows_and_records_no_secret() {
    let program = planted();
    let install = "[setup]\ninstall = 'python3 -u talk.py MY_TOKEN_2 DB_PASSWORD OPENAI_API_KEY GITHUB_TOKEN'\n";
    let repo = program.env.git_repo(&[
        ("talk.py", TALK),
        ("serve.py", SERVE),
        (".alpine.toml", install),
    ]);
    let given = format!("GIVEN_VARIABLE={GIVEN}");
    let path = repo.path.to_str().unwrap();
    let up = program.run(&[
        "--json",
        "up",
        path,
        "--branch",
        "main",
        "--agent",
        "command",
        "--name",
        "it",
        "--env",
        &given,
        "--env",
        "NAMED_VARIABLE",
        "--client-request-id",
        "one",
    ]);
    let up = alpine_testkit::json(&up.success());
    let credentials =
        program
            .env
            .run(&mut program.command(&["open", "it", "--credentials", "--json"]));
    let credentials = alpine_testkit::json(&credentials.success());
    let password = text(&credentials, "password");
    // The agent has what it was given: it is only never shown.
    let answer = Caller::of(&credentials).get(&text(&up, "opencode_url"));
    assert_eq!(answer.body, GIVEN);
    for process in program.env.processes() {
        for secret in secrets() {
            assert!(!process.command.contains(secret), "{process:?}");
        }
    }
    redacted(program.run(&["logs", "it", "--step", "install"]));
    redacted(program.run(&["logs", "it", "--step", "agent"]));
    let lines = program.run(&["--json", "logs", "it"]).success().stdout;
    assert!(lines.contains("[redacted]"), "{lines}");
    for arguments in [
        &["status", "it"][..],
        &["--json", "status", "it"],
        &["list"],
        &["--json", "list", "--all"],
        &["config"],
        &["--json", "config"],
        &[
            "up",
            path,
            "--branch",
            "main",
            "--agent",
            "command",
            "--name",
            "it",
            "--client-request-id",
            "one",
        ],
        &["--json", "exec", "it", "--", "no-such-program-planted"],
    ] {
        program.run(arguments);
    }
    assert_clean_everywhere(&program, &[&password]);
    let down = alpine_testkit::json(&program.run(&["--json", "down", "it"]).success());
    assert_eq!(down["state"], "stopped");
    let _status = program.run(&["status", "it"]).success();
    assert_clean_everywhere(&program, &[&password]);
}

#[test]
fn a_failure_with_the_logs_last_lines_shows_no_secret() {
    let program = planted();
    let install = "[setup]\ninstall = 'python3 -u talk.py MY_TOKEN_2 DB_PASSWORD; exit 3'\n";
    let repo = program
        .env
        .git_repo(&[("talk.py", TALK), (".alpine.toml", install)]);
    let path = repo.path.to_str().unwrap();
    for json in [&["--json"][..], &[]] {
        let output = program.run(
            &[
                json,
                &[
                    "up",
                    path,
                    "--branch",
                    "main",
                    "--agent",
                    "none",
                    "--client-request-id",
                    "one",
                ],
            ]
            .concat(),
        );
        assert_eq!(output.code(), Some(2), "{output:#?}");
        let told = format!("{}{}", output.stdout, output.stderr);
        assert!(
            told.contains("ERR_INSTALL_FAILED") && told.contains("[redacted]"),
            "{told}"
        );
    }
    assert_clean_everywhere(&program, &[]);
}

#[test]
fn a_secret_in_the_wrong_place_is_not_repeated() {
    let program = planted();
    let misplaced = "planted-in-an-argument";
    for arguments in [
        &[
            "up",
            "https://user:planted-in-an-argument@example.org/x",
            "--branch",
            "main",
        ][..],
        &[
            "up",
            "https://planted-in-an-argument@example.org/x",
            "--branch",
            "main",
        ],
        &[
            "up",
            "ssh://git:planted-in-an-argument@example.org/x",
            "--branch",
            "main",
        ],
        &[
            "up",
            "https://127.0.0.1:1/x?private_token=planted-in-an-argument",
            "--branch",
            "main",
            "--public",
        ],
        &[
            "up",
            "ssh://git@127.0.0.1:1/x#planted-in-an-argument",
            "--branch",
            "main",
        ],
        &["up", "https://127.0.0.1:1?key=planted-in-an-argument"],
        &["create", "https://127.0.0.1:1/x?key=planted-in-an-argument"],
        &[
            "up",
            ".",
            "--branch",
            "main",
            "--env",
            "-planted-in-an-argument",
        ],
        &["status", "planted-in-github-token"],
        &["up", "/planted-in-github-token", "--branch", "main"],
        &["up", ".", "--branch", "main..planted-in-gh-token"],
        &["down", "it", "--planted-in-my-token"],
        &["list", "--state", "planted-in-openai-key"],
    ] {
        for json in [&["--json"][..], &[]] {
            let output = program.run(&[json, arguments].concat());
            assert_eq!(output.code(), Some(1), "{output:#?}");
        }
    }
    assert_clean_everywhere(&program, &[misplaced]);
}

#[test]
fn a_configuration_that_is_wrong_shows_no_secret() {
    let program = planted();
    program.configure("principal = 'me'\n[git]\ntoken = 'planted-in-github-token'\n");
    for json in [&["--json"][..], &[]] {
        let output = program.run(&[json, &["list"]].concat());
        assert_eq!(output.code(), Some(1), "{output:#?}");
    }
    assert_clean_everywhere_but_the_file(&program);
}

#[track_caller]
fn assert_clean_everywhere_but_the_file(program: &Program) {
    for said in program.said() {
        assert_clean("an output", said.as_bytes());
    }
}

/// The provider in Python, that tells what it knows.
fn talkative(program: &Program) -> PathBuf {
    let known = "os.environ['ACME_AUTH']";
    let mut source = fs::read_to_string(alpine_plugin_tests::python()).expect("a source");
    for (kept, instead) in [
        (
            r#"{"name": NAME, "version": VERSION, "isolation""#,
            format!(r#"{{"name": NAME, "version": f"1-{{{known}}}\n" + 9000 * "x", "isolation""#),
        ),
        (
            r#""commands are plain processes of the user""#,
            format!(r#"{known} + " https://user:planted-in-user-" + "info@example.org/x""#),
        ),
        (
            r#""use a provider that isolates""#,
            format!(r#"9000 * "y" + {known}"#),
        ),
        (
            r#"{"workspace_path": self.path(name, "workspace")"#,
            format!(r#"{{"workspace_path": self.path(name, {known})"#),
        ),
    ] {
        assert_eq!(source.matches(kept).count(), 1, "{kept}");
        source = source.replace(kept, &instead);
    }
    let file = program.env.root().join("provider.py");
    script(&file, &source);
    file
}

#[test]
fn what_a_provider_says_of_itself_shows_and_records_no_secret() {
    let program = planted().with("ACME_AUTH", ALLOWED);
    program.configure(
        "[provider]\ndefault = 'acme'\n[agent]\ndefault = 'page'\n[providers.acme]\nenv_allow = ['ACME_AUTH']\n",
    );
    let file = talkative(&program);
    let file = file.to_str().expect("a path in UTF-8");
    let done = |arguments: &[&str]| {
        let output = program.run(&with_json(arguments));
        alpine_testkit::json(&output.success())
    };
    done(&["provider", "add", file, "--name", "acme"]);
    let repo = program.env.git_repo(&[("README.md", "a repository\n")]);
    let path = repo.path.to_str().expect("a path in UTF-8");
    let up = done(&["up", path, "--branch", "main", "--name", "it"]);
    assert_eq!(up["workspace_path"], Value::Null, "{up:#}");
    let warnings = up["warnings"].to_string();
    assert!(warnings.contains("path of the workspace"), "{warnings}");
    let missing = &up["isolation"]["missing"][0];
    let why = text(missing, "why");
    assert_eq!(why, "[redacted] https://[redacted]@example.org/x");
    assert!(text(missing, "fix").chars().count() <= 501, "{missing:#}");
    let status = done(&["status", "it"]);
    let version = text(&status, "provider_version");
    assert!(version.starts_with("1-[redacted]xxx"), "{version}");
    assert!(version.chars().count() <= 501, "{version}");
    for arguments in [
        &["status", "it"][..],
        &["list"],
        &["events"],
        &["ops", "it"],
        &["provider", "list"],
        &["provider", "inspect", file],
    ] {
        program.run(arguments);
    }
    assert_eq!(done(&["down", "it"])["state"], "stopped");
    for said in program.said() {
        assert_clean("an output", said.as_bytes());
        assert!(!said.contains(ALLOWED), "an output: {said}");
    }
    // What it keeps for itself is its own.
    let own = program.env.alpine_home().join("providers");
    for (path, bytes) in files(program.env.root()) {
        if !path.starts_with(&own) {
            assert_clean(&path.display().to_string(), &bytes);
            assert!(!holds(&bytes, ALLOWED), "{}", path.display());
        }
    }
}
