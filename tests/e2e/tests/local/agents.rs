//! Agents behind their addresses: the built-in page, and a server of the user's own.

use crate::local::http::{Caller, ask, get};
use crate::local::object::restore;
use crate::local::program::Program;
use crate::local::whole::repository;
use crate::support::{text, wait_until};
use std::fs;
use std::net::TcpStream;
use std::path::PathBuf;

#[test]
fn the_page_opens_by_a_link_that_works_once() {
    let program = Program::new();
    let up = program.up(&repository(&program), &["--agent", "page", "--name", "it"]);
    let (url, link) = (text(&up, "opencode_url"), text(&up, "open_url"));
    assert!(
        url.starts_with("http://127.0.0.1:") && !url.contains('@') && !url.contains('?'),
        "{url}"
    );
    let refused = get(&url, &[]);
    assert_eq!(refused.status, 401, "{refused:?}");
    assert!(refused.header("www-authenticate").is_some());
    assert!(refused.body.contains("alpine open"), "{}", refused.body);
    assert_eq!(get(&format!("{url}/_alpine/state"), &[]).status, 401);

    let opened = get(&link, &[]);
    assert_eq!(opened.status, 200, "{opened:?}");
    let cookie = opened.header("set-cookie").expect("a cookie").to_owned();
    for part in ["HttpOnly", "SameSite=Strict", "Path=/"] {
        assert!(cookie.contains(part), "{cookie}");
    }
    assert_eq!(get(&link, &[]).status, 410, "the link was used");
    let cookie = cookie.split(';').next().unwrap();
    let (home, _) = link.split_once("/_alpine/").expect("a link of ours");
    let page = get(home, &[("cookie", cookie)]);
    assert_eq!(page.status, 200);
    let session = text(&up, "session_id");
    for shown in [
        "main",
        &text(&up, "target_commit_sha"),
        &format!("alpine down {session}"),
    ] {
        assert!(page.body.contains(shown), "no `{shown}` on {}", page.body);
    }
    let foreign = [("cookie", cookie), ("host", "evil.example:80")];
    assert!([403, 421].contains(&get(home, &foreign).status));
    let foreign = [("cookie", cookie), ("origin", "http://evil.example")];
    assert_eq!(ask("POST", home, &foreign, "").status, 403);

    let fresh = text(&program.json(&["open", "it"]), "open_url");
    assert_ne!(fresh, link);
    assert_eq!(get(&fresh, &[]).status, 200);
    let printed = program.run(&["open", "it", "--print"]).success();
    assert_eq!(printed.stderr, "");
    assert_eq!(get(printed.stdout.trim_end(), &[]).status, 200);
    let credentials = program.json(&["open", "it", "--credentials"]);
    assert_eq!(text(&credentials, "url"), url);
    assert_eq!(Caller::of(&credentials).get(&url).status, 200);

    program.down("it");
    program.assert_nothing_left();
    let address = url.trim_start_matches("http://");
    assert!(
        TcpStream::connect(address).is_err(),
        "nobody listens any more"
    );
    program.fails(&["open", &session], "ERR_OPERATION_CONFLICT", 1);
}

/// An agent of the user's own: it wants its credential, has one transcript, tells what it was given, and writes files.
const SERVER: &str = r#"
import base64, http.server, json, os, sys
expected = "Basic " + base64.b64encode(("me:" + os.environ["MY_PASSWORD"]).encode()).decode()
class Asked(http.server.BaseHTTPRequestHandler):
    def answer(self, status, text):
        self.send_response(status); self.send_header("content-length", str(len(text))); self.end_headers()
        self.wfile.write(text.encode())
    def do_GET(self):
        if self.headers.get("authorization") != expected: return self.answer(401, "who?")
        pages = {"/": "the agent's own page", "/env": os.environ.get("TOLD", "nothing"), "/cookies": str(self.headers.get("cookie")),
                 "/log": '[{"id":"t1"}]', "/log/t1": '{"said":"the transcript"}'}
        self.answer(200 if self.path in pages else 404, pages.get(self.path, "no"))
    def do_POST(self):
        if self.headers.get("authorization") != expected: return self.answer(401, "who?")
        body = self.rfile.read(int(self.headers.get("content-length") or 0)).decode()
        with open(os.path.basename(self.path), "a") as posted: posted.write(body)
        self.answer(200, "{}")
    def log_message(self, *_): pass
print("serving", flush=True)
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Asked).serve_forever()
"#;

const AGENT: &str = "
[agents.command]
argv = ['python3', '-u', 'server.py', '{port}']
[agents.command.auth]
username = 'me'
password_env = 'MY_PASSWORD'
[agents.command.ready]
log_line = 'serving'
[agents.command.shutdown]
dispose_path = '/disposed'
[agents.command.transcript]
list_path = '/log'
item_path = '/log/{id}'
";

#[test]
fn a_server_of_ones_own_is_reached_through_the_gateway_and_leaves_its_transcript() {
    let program = Program::new().with("TOLD", "the caller's value");
    program.configure(AGENT);
    let repo = program.env.git_repo(&[("server.py", SERVER)]);
    let up = program.up(
        &repo,
        &["--agent", "command", "--env", "TOLD", "--name", "it"],
    );
    assert_eq!(up["agent"], "command");
    let url = text(&up, "opencode_url");
    assert_eq!(get(&url, &[]).status, 401);
    let caller = Caller::of(&program.json(&["open", "it", "--credentials"]));
    assert_eq!(caller.get(&url).body, "the agent's own page");
    assert_eq!(caller.get(&format!("{url}/env")).body, "the caller's value");
    assert_eq!(
        caller.post(&format!("{url}/posted"), "by the user").status,
        200
    );

    let link = text(&up, "open_url");
    let opened = get(&link, &[]);
    let cookie = opened
        .header("set-cookie")
        .unwrap()
        .split(';')
        .next()
        .unwrap()
        .to_owned();
    let (home, _) = link.split_once("/_alpine/").unwrap();
    let seen = get(
        &format!("{home}/cookies"),
        &[("cookie", &format!("{cookie}; theirs=1"))],
    );
    assert_eq!(seen.body, "theirs=1", "the agent does not see our cookie");
    let log = program
        .run(&["logs", "it", "--step", "agent"])
        .success()
        .stdout;
    assert!(log.contains("serving"), "{log}");

    let object = restore(&program, &program.down("it"));
    let file = |name: &str| fs::read_to_string(object.restored.join(name)).unwrap();
    assert_eq!(file("workspace/posted"), "by the user");
    assert_eq!(file("workspace/disposed"), "", "the agent was asked to end");
    assert_eq!(
        file("transcript/agent/t1.json"),
        r#"{"said":"the transcript"}"#
    );
    program.assert_nothing_left();
}

#[test]
fn an_agent_that_is_not_ready_in_time_or_ends_fails_the_session_with_its_last_words() {
    let program = Program::new();
    let repo = repository(&program);
    let path = repo.path.to_str().unwrap();
    for (argv, limit, words) in [
        (
            "['sh', '-c', 'echo last words; exit 4']",
            "20s",
            "last words",
        ),
        (
            "['sh', '-c', 'echo I hang; exec sleep 1000']",
            "1s",
            "I hang",
        ),
        ("['no-such-program']", "20s", "no-such-program"),
    ] {
        program.configure(&format!(
            "[agents.command]\nargv = {argv}\n[limits]\nagent = '{limit}'\n"
        ));
        let failure = program.fails(
            &["up", path, "--branch", "main", "--agent", "command"],
            "ERR_AGENT_NOT_READY",
            2,
        );
        let cause = text(&failure, "cause");
        assert!(cause.contains(words), "{cause}");
        program.assert_nothing_left();
    }
}

#[test]
fn an_agent_that_is_not_installed_is_told_before_there_is_a_session() {
    let program = Program::new().with("ALPINE_OPENCODE", "/nonexistent/opencode");
    let repo = repository(&program);
    let path = repo.path.to_str().unwrap();
    let failure = program.fails(
        &["up", path, "--branch", "main", "--agent", "opencode"],
        "ERR_AGENT_NOT_READY",
        2,
    );
    let cause = "the agent `opencode` can't be started: `/nonexistent/opencode` was not found";
    assert_eq!(text(&failure, "cause"), cause);
    assert_eq!(text(&failure, "next_step"), "npm install -g opencode-ai");
    assert!(failure["operation_id"].is_null(), "{failure:#}");
    let listed = program.json(&["list", "--all"]);
    assert_eq!(listed["sessions"], serde_json::json!([]));
}

#[test]
fn an_agent_that_dies_later_is_seen_and_its_work_is_kept() {
    let program = Program::new();
    program.configure(AGENT);
    let repo = program.env.git_repo(&[("server.py", SERVER)]);
    let up = program.up(&repo, &["--agent", "command", "--name", "it"]);
    fs::write(
        PathBuf::from(text(&up, "workspace_path")).join("work"),
        "done",
    )
    .unwrap();
    let agent = program
        .env
        .processes()
        .into_iter()
        .find(|process| process.command.contains("server.py"));
    let pid = i32::try_from(agent.expect("the agent").pid).unwrap();
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(pid).unwrap(),
        rustix::process::Signal::KILL,
    )
    .unwrap();
    let caller = Caller::of(&program.json(&["open", "it", "--credentials"]));
    let url = text(&up, "opencode_url");
    wait_until("an answer that says so", || caller.get(&url).status == 502);
    assert!(caller.get(&url).body.contains("alpine logs"));
    let said = program.run(&["open", "it", "--json"]).success().stderr;
    let warning = "warning: the agent `command` does not answer; its last words: ";
    assert!(said.starts_with(warning), "{said}");
    let words = format!("logs {} --step agent\n", text(&up, "session_id"));
    assert!(said.ends_with(&words), "{said}");
    let status = program.json(&["status", "it"]);
    assert_eq!(status["state"], "ready", "the ledger says what is true");
    assert_eq!(status["observed"]["state"], "running");
    let ended = text(&status["observed"], "agent_ended");
    assert_eq!(ended, "was ended by signal 9");
    let told = program.run(&["status", "it"]).success().stdout;
    assert!(
        told.contains(" running, but its agent was ended by signal 9: "),
        "{told}"
    );
    let object = restore(&program, &program.down("it"));
    assert_eq!(
        fs::read_to_string(object.restored.join("workspace/work")).unwrap(),
        "done"
    );
    program.assert_nothing_left();
}
