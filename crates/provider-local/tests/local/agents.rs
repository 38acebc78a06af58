//! The agent's server, the session's address, and ways in.

use crate::support::{SESSION, World, holds, lives, meta, quiet, signal, until, world};
use alpine_gateway::client::{AgentClient, Answer};
use alpine_provider_api::*;
use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

const HIDDEN: &str = "value-for-the-agent-alone";

/// A server of a few lines: it wants Basic, lists one transcript, and writes down what is posted to it.
const SERVER: &str = r#"
import base64, http.server, os, sys
expected = "Basic " + base64.b64encode(("agent:" + os.environ["AGENT_PASSWORD"]).encode()).decode()
class Asked(http.server.BaseHTTPRequestHandler):
    def answer(self, status, text):
        self.send_response(status); self.send_header("content-length", str(len(text))); self.end_headers()
        self.wfile.write(text.encode())
    def do_GET(self):
        if self.headers.get("authorization") != expected: return self.answer(401, "who?")
        pages = {"/health": '{"healthy":true}', "/session": '[{"id":"one"},{"id":"two"}]',
                 "/session/one": '{"text":"first"}', "/session/two": '{"text":"second"}'}
        text = pages.get(self.path)
        self.answer(200 if text else 404, text or "no")
    def do_POST(self):
        with open("posted", "a") as posted: posted.write(self.path + "\n")
        self.answer(200, "{}")
    def log_message(self, *_): pass
open(os.environ["XDG_DATA_HOME"] + "/kept.db", "w").write("said to the agent")
print("told", os.environ.get("TOLD"), flush=True)
print("password", os.environ["AGENT_PASSWORD"], flush=True)
server = http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Asked)
assert os.environ["AGENT_PORT"] == sys.argv[1]
print("listening", flush=True)
server.serve_forever()
"#;

pub(crate) fn server(argv: &[&str]) -> Server {
    Server {
        argv: argv.iter().map(|&word| word.to_owned()).collect(),
        port_env: Some("AGENT_PORT".to_owned()),
        env: BTreeMap::new(),
        auth: Some(BasicAuth {
            username: "agent".to_owned(),
            password_env: "AGENT_PASSWORD".to_owned(),
        }),
        ready: Probe {
            log_line: Some("listening".to_owned()),
            path: "/health".to_owned(),
            body: Some("true".to_owned()),
            try_ms: 250,
            warm_path: Some("/session".to_owned()),
        },
        shutdown: Shutdown {
            abort_path: Some("/session/{id}/abort".to_owned()),
            dispose_path: Some("/dispose".to_owned()),
        },
        transcript: Some(Transcript {
            list_path: "/session".to_owned(),
            item_path: "/session/{id}".to_owned(),
        }),
    }
}

pub(crate) fn python() -> Server {
    server(&["python3", "-c", SERVER, "{port}"])
}

pub(crate) async fn start(
    world: &World,
    serve: Serve,
    ready_ms: u64,
) -> Result<StartAgentReply, ProviderError> {
    let request = StartAgentRequest {
        sandbox_id: world.id.clone(),
        agent: AgentSpec {
            name: "test".to_owned(),
            serve,
        },
        env: BTreeMap::from([("TOLD".to_owned(), Secret::new(HIDDEN.to_owned()))]),
        ready_ms,
        page: PageFacts {
            session_id: SESSION.to_owned(),
            repo_url: "https://example.com/r".to_owned(),
            branch: "main".to_owned(),
            commit: "c".to_owned(),
        },
    };
    world.provider.start_agent(&quiet(), request).await
}

async fn open(world: &World) -> Result<OpenAgentReply, ProviderError> {
    let request = OpenAgentRequest {
        sandbox_id: world.id.clone(),
        link_ms: 60_000,
    };
    world.provider.open_agent(&quiet(), request).await
}

async fn probe(world: &World) -> Option<bool> {
    let request = InspectRequest {
        sandbox_id: world.id.clone(),
        probe: true,
    };
    let reply = world.provider.inspect(&quiet(), request).await.unwrap();
    reply.probe.unwrap().agent_ready
}

async fn agent_ended(world: &World) -> Option<ExecReply> {
    let request = InspectRequest {
        sandbox_id: world.id.clone(),
        probe: false,
    };
    let reply = world.provider.inspect(&quiet(), request).await.unwrap();
    reply.agent_ended
}

async fn get(way: &OpenAgentReply, path: &str) -> Answer {
    let port = way.url.rsplit(':').next().unwrap().parse().unwrap();
    AgentClient::new(port, Some((way.username.clone(), way.password.clone())))
        .get(path, Duration::from_secs(10))
        .await
        .unwrap()
}

pub(crate) fn agent_pid(world: &World) -> u32 {
    let state = fs::read(world.dir().join("state.json")).unwrap();
    let state: serde_json::Value = serde_json::from_slice(&state).unwrap();
    u32::try_from(state["agent"]["pid"].as_u64().unwrap()).unwrap()
}

#[tokio::test]
async fn no_agent_has_no_address() {
    let world = world();
    world.provision().await;
    assert_eq!(start(&world, Serve::None, 1000).await.unwrap().url, None);
    assert_eq!(probe(&world).await, None);
    assert_eq!(
        open(&world).await.unwrap_err().kind,
        ErrorKind::AgentNotReady
    );
}

#[tokio::test]
async fn the_page_answers_and_keeps_its_port() {
    let world = world();
    world.filled(&[("a.txt", "one")]).await;
    let url = start(&world, Serve::Page, 1000).await.unwrap().url.unwrap();
    assert_eq!(
        start(&world, Serve::Page, 1000).await.unwrap().url.as_ref(),
        Some(&url)
    );
    assert_eq!(probe(&world).await, Some(true));
    let way = open(&world).await.unwrap();
    assert_eq!(way.url, url);
    let page = get(&way, "/").await;
    assert_eq!(page.status, 200);
    assert!(holds(&page.body, "https://example.com/r"));
    let port = url.rsplit(':').next().unwrap().parse().unwrap();
    let stranger = AgentClient::new(port, None)
        .get("/", Duration::from_secs(10))
        .await
        .unwrap();
    assert_eq!(stranger.status, 401);
    let wanted = format!("http://0123456789ab.localhost:{port}/_alpine/open?token=");
    assert!(way.open_url.expose().starts_with(&wanted));
    assert_ne!(open(&world).await.unwrap().open_url, way.open_url);
    world.kill_supervisor();
    world.provision().await;
    assert_eq!(
        start(&world, Serve::Page, 1000).await.unwrap().url,
        Some(url)
    );
}

#[tokio::test]
async fn a_server_is_started_once_asked_and_reached_through_the_gateway() {
    let world = world();
    world.filled(&[("a.txt", "one")]).await;
    let url = start(&world, Serve::Process(Box::new(python())), 20_000)
        .await
        .unwrap()
        .url;
    let pid = agent_pid(&world);
    let again = start(&world, Serve::Process(Box::new(python())), 20_000)
        .await
        .unwrap()
        .url;
    assert_eq!((&again, agent_pid(&world)), (&url, pid));
    assert_eq!(probe(&world).await, Some(true));
    let way = open(&world).await.unwrap();
    let answer = get(&way, "/session/one").await;
    assert_eq!(
        (answer.status, answer.body.as_slice()),
        (200, &br#"{"text":"first"}"#[..])
    );
    // What is secret is in memory alone; the log shows where it was.
    assert!(world.log("agent.log").contains("told [redacted]"));
    assert!(world.log("agent.log").contains("password [redacted]"));
    assert_eq!(world.traces_of(HIDDEN), Vec::<String>::new());
    assert_eq!(world.traces_of(way.password.expose()), Vec::<String>::new());
    let environment = fs::read(format!("/proc/{pid}/environ")).unwrap();
    for name in [
        "XDG_DATA_HOME=",
        "TMPDIR=",
        "ALPINE_SANDBOX_ID=",
        &format!("TOLD={HIDDEN}"),
    ] {
        assert!(holds(&environment, name), "{name}");
    }
    signal(pid, "KILL");
    until("the agent ends", || !lives(pid));
    assert_eq!(probe(&world).await, Some(false));
    assert_eq!(agent_ended(&world).await, Some(ExecReply::Signalled(9)));
    let again = start(&world, Serve::Process(Box::new(python())), 20_000)
        .await
        .unwrap()
        .url;
    assert_eq!(again, url);
    assert_ne!(agent_pid(&world), pid);
    assert_eq!(agent_ended(&world).await, None);
    assert_eq!(get(&way, "/session/one").await.status, 200);
}

#[tokio::test]
async fn the_transcript_is_exported_before_the_agent_is_ended() {
    let world = world();
    world.filled(&[("a.txt", "one")]).await;
    start(&world, Serve::Process(Box::new(python())), 20_000)
        .await
        .unwrap();
    // A paused sandbox is thawed first.
    signal(agent_pid(&world), "STOP");
    world.stop(5000).await.unwrap();
    let directory = world.dir().join("transcript/agent");
    let read = |name: &str| fs::read_to_string(directory.join(name)).unwrap();
    assert_eq!(read("one.json"), r#"{"text":"first"}"#);
    assert_eq!(read("two.json"), r#"{"text":"second"}"#);
    let posted = fs::read_to_string(world.workspace().join("posted")).unwrap();
    assert_eq!(posted, "/session/one/abort\n/session/two/abort\n/dispose\n");
    let exit = fs::read_to_string(world.dir().join("exit.json")).unwrap();
    let exit: serde_json::Value = serde_json::from_str(&exit).unwrap();
    assert_eq!(exit["agent"]["signalled"], 15);
    assert_eq!(exit["forced"], false);
}

/// As OpenCode is while it installs a package: the first signal is taken by something that is not its own.
#[tokio::test]
async fn an_agent_that_has_disposed_of_its_work_is_asked_again() {
    let world = world();
    world.filled(&[("a.txt", "one")]).await;
    let once = "import signal\nsignal.signal(signal.SIGTERM, lambda *_: signal.signal(signal.SIGTERM, signal.SIG_DFL))";
    let script = format!("{once}\n{SERVER}");
    let server = server(&["python3", "-c", &script, "{port}"]);
    start(&world, Serve::Process(Box::new(server)), 20_000)
        .await
        .unwrap();
    let begun = Instant::now();
    assert!(!world.stop(60_000).await.unwrap().forced);
    assert!(begun.elapsed() < Duration::from_secs(30));
}

#[tokio::test]
async fn an_agent_that_has_not_disposed_of_its_work_is_asked_once() {
    let world = world();
    world.filled(&[("a.txt", "one")]).await;
    let slow = "import os, signal, threading\ndef end(*_):\n    signal.signal(signal.SIGTERM, signal.SIG_DFL)\n    \
        threading.Timer(4, lambda: (open('saved', 'w').close(), os._exit(0))).start()\nsignal.signal(signal.SIGTERM, end)";
    let script = format!("{slow}\n{SERVER}");
    let mut server = server(&["python3", "-c", &script, "{port}"]);
    server.shutdown.dispose_path = None;
    start(&world, Serve::Process(Box::new(server)), 20_000)
        .await
        .unwrap();
    assert!(!world.stop(60_000).await.unwrap().forced);
    assert!(world.workspace().join("saved").exists());
}

#[tokio::test]
async fn an_agent_that_exits_is_reported_at_once() {
    let world = world();
    world.provision().await;
    let begun = Instant::now();
    let server = server(&["sh", "-c", "echo the reason; exit 3"]);
    let error = start(&world, Serve::Process(Box::new(server)), 60_000)
        .await
        .unwrap_err();
    assert_eq!(error.kind, ErrorKind::AgentNotReady);
    assert_eq!(error.log_tail, ["the reason"]);
    let said = "the agent `test` (`sh`) did not become ready: its program ended before it was ready, with status 3";
    assert_eq!(error.message, said);
    assert!(begun.elapsed() < Duration::from_secs(10));
}

#[tokio::test]
async fn an_agent_that_never_answers_is_given_up_at_the_deadline() {
    let world = world();
    world.provision().await;
    let script = "import socket,sys,time\ns=socket.create_server(('127.0.0.1',int(sys.argv[1])))\n\
        print('listening',flush=True)\ntime.sleep(1000)";
    let server = server(&["python3", "-c", script, "{port}"]);
    let begun = Instant::now();
    let error = start(&world, Serve::Process(Box::new(server)), 3000)
        .await
        .unwrap_err();
    assert_eq!(error.kind, ErrorKind::AgentNotReady);
    assert_eq!(error.log_tail, ["listening"]);
    let took = begun.elapsed();
    assert!(
        took >= Duration::from_secs(3) && took < Duration::from_secs(10),
        "{took:?}"
    );
}

#[tokio::test]
async fn a_line_that_does_not_come_is_not_waited_for_for_ever() {
    let world = world();
    world.provision().await;
    let server = server(&["sleep", "1000"]);
    let error = start(&world, Serve::Process(Box::new(server)), 300)
        .await
        .unwrap_err();
    assert_eq!(error.kind, ErrorKind::AgentNotReady);
}

#[tokio::test]
async fn an_agent_that_is_not_installed_is_named() {
    let world = world();
    world.provision().await;
    let server = server(&["alpine-no-such-agent"]);
    let error = start(&world, Serve::Process(Box::new(server)), 1000)
        .await
        .unwrap_err();
    assert_eq!(error.kind, ErrorKind::AgentNotReady);
    let said = "the agent `test` can't be started: program `alpine-no-such-agent`";
    assert!(error.message.starts_with(said), "{error}");
}

#[tokio::test]
async fn a_log_is_followed_until_the_sandbox_ends() {
    let world = world();
    world.provision().await;
    let server = Server {
        auth: None,
        ready: Probe {
            log_line: Some("begun".to_owned()),
            ..Probe::default()
        },
        transcript: None,
        shutdown: Shutdown::default(),
        ..server(&["sh", "-c", "echo begun; sleep 0.3; echo later; sleep 1000"])
    };
    // It serves nothing, and is still there to be followed.
    start(&world, Serve::Process(Box::new(server)), 500)
        .await
        .unwrap_err();
    let (events, mut received) = tokio::sync::mpsc::channel(1);
    let call = Call::new(meta(1), events);
    let request = LogsRequest {
        sandbox_id: world.id.clone(),
        log: LogName::Agent,
        follow: true,
    };
    let following = async {
        let reply = world.provider.logs(&call, request).await;
        drop(call);
        reply
    };
    let reading = async {
        let mut text = Vec::new();
        while let Some(event) = received.recv().await {
            if let CallEvent::Stdout(part) = event {
                text.extend(part);
            }
            if holds(&text, "later") {
                world.stop(100).await.unwrap();
            }
        }
        text
    };
    let (reply, text) = tokio::join!(following, reading);
    reply.unwrap();
    let text = String::from_utf8(text).unwrap();
    let lines: Vec<&str> = text.lines().map(|line| &line[25..]).collect();
    assert_eq!(lines, ["begun", "later"]);
}
