//! The session's address, and what stands behind it, when its supervisor has died.

use crate::world::{World, call, id, stop_request, world};
use alpine_provider_api::*;
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::time::Duration;
use tokio::sync::mpsc;

/// A world whose provider can serve addresses.
fn addressed() -> World {
    let mut world = world(&[("a.txt", "one\n")]);
    world.place.executable = env!("CARGO_BIN_EXE_alpine-front-for-tests").into();
    world
}

/// A server that says more than the parts of a log hold before it listens, as much again when it is told to go on, and a
/// last line when it is ended.
const CHATTY: &str = r#"
import http.server, os, signal, sys, threading, time
def say(what):
    for number in range(20000): print(what, number, "." * 1000)
def again():
    while not os.path.exists("go"): time.sleep(0.01)
    say("later")
    print("all said", flush=True)
def end(*_):
    print("the last words", flush=True); os._exit(0)
signal.signal(signal.SIGTERM, end)
say("early")
print("listening", flush=True)
threading.Thread(target=again, daemon=True).start()
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), http.server.SimpleHTTPRequestHandler).serve_forever()
"#;

/// Executes itself as often as its first argument says, then serves.
const EXECUTES: &str = r#"
if [ "$1" -gt 0 ]; then left=$(($1 - 1)); shift; exec sh -c "$0" "$0" "$left" "$@"; fi
exec python3 -m http.server -b "$3" "$2"
"#;

fn server(transcript: Option<Transcript>) -> Serve {
    let argv = ["python3", "-m", "http.server", "-b", "{host}", "{port}"];
    serving(&argv, Probe::default(), transcript)
}

fn serving(argv: &[&str], ready: Probe, transcript: Option<Transcript>) -> Serve {
    Serve::Process(Box::new(Server {
        argv: argv.iter().map(|&word| word.to_owned()).collect(),
        port_env: None,
        env: Default::default(),
        auth: None,
        ready,
        shutdown: Shutdown::default(),
        transcript,
    }))
}

async fn start(world: &World, serve: Serve) -> StartAgentReply {
    let request = StartAgentRequest {
        sandbox_id: id("sbx_a"),
        agent: AgentSpec {
            name: "test".to_owned(),
            serve,
        },
        env: Default::default(),
        ready_ms: 60_000,
        page: PageFacts::default(),
    };
    let started = world.provider().start_agent(&call(1), request).await;
    started.unwrap()
}

async fn agent_ready(world: &World) -> Option<bool> {
    let reply = world.inspect("sbx_a", true).await;
    reply.probe.unwrap().agent_ready
}

/// Kills what serves the address, and waits until it is gone.
fn kill_the_supervisor(world: &World) {
    let lock = world.place.state.join("front/sandboxes/sbx_a/shim.lock");
    let text = fs::read_to_string(lock).unwrap();
    let pid = text.split(' ').next().unwrap().parse().unwrap();
    let supervisor = Pid::from_raw(pid).unwrap();
    let fd = rustix::process::pidfd_open(supervisor, rustix::process::PidfdFlags::empty());
    kill_process(supervisor, Signal::KILL).unwrap();
    let mut gone = [rustix::event::PollFd::from_borrowed_fd(
        std::os::fd::AsFd::as_fd(fd.as_ref().unwrap()),
        rustix::event::PollFlags::IN,
    )];
    rustix::event::poll(&mut gone, None).unwrap();
}

/// What a call says while it runs.
async fn said<T>(
    asked: impl AsyncFnOnce(Call) -> Result<T, ProviderError>,
) -> (Vec<u8>, Vec<String>) {
    let (events, mut received) = mpsc::channel(64);
    let call = Call::new(call(1).meta, events);
    let listening = async {
        let (mut output, mut warnings) = (Vec::new(), Vec::new());
        while let Some(event) = received.recv().await {
            match event {
                CallEvent::Stdout(text) => output.extend(text),
                CallEvent::Warning(text) => warnings.push(text),
                CallEvent::Stderr(_) | CallEvent::Progress { .. } => {}
            }
        }
        (output, warnings)
    };
    let (ended, said) = tokio::join!(asked(call), listening);
    ended.unwrap();
    said
}

/// What a stop warns of.
async fn warnings_of_a_stop(world: &World) -> Vec<String> {
    let stop = async |call: Call| world.provider().stop(&call, stop_request("sbx_a")).await;
    said(stop).await.1
}

fn logs_request(follow: bool) -> LogsRequest {
    LogsRequest {
        sandbox_id: id("sbx_a"),
        log: LogName::Agent,
        follow,
    }
}

async fn log(world: &World) -> String {
    let logs = async |call: Call| world.provider().logs(&call, logs_request(false)).await;
    String::from_utf8(said(logs).await.0).unwrap()
}

#[tokio::test]
async fn an_address_whose_supervisor_died_does_not_answer_and_inspect_says_so() {
    for serve in [Serve::Page, server(None)] {
        let world = addressed();
        world.provision("sbx_a").await;
        let first = start(&world, serve.clone()).await;
        assert_eq!(agent_ready(&world).await, Some(true));
        kill_the_supervisor(&world);
        assert_eq!(agent_ready(&world).await, Some(false), "{serve:?}");
        // The next start opens the same address again.
        assert_eq!(start(&world, serve).await, first);
        assert_eq!(agent_ready(&world).await, Some(true));
        world.stop("sbx_a", 1).await.unwrap();
        world.destroy("sbx_a").await.unwrap();
    }
}

#[tokio::test]
async fn a_stop_warns_of_a_transcript_only_where_an_agent_has_one() {
    let transcript = Transcript {
        list_path: "/list".to_owned(),
        item_path: "/{id}".to_owned(),
    };
    let cases = [
        (Serve::Page, false),
        (server(None), false),
        (server(Some(transcript)), true),
    ];
    for (serve, warned) in cases {
        let world = addressed();
        world.provision("sbx_a").await;
        start(&world, serve.clone()).await;
        kill_the_supervisor(&world);
        let warnings = warnings_of_a_stop(&world).await;
        assert_eq!(!warnings.is_empty(), warned, "{serve:?}: {warnings:?}");
        world.destroy("sbx_a").await.unwrap();
    }
}

/// A process has no environment for a moment while it executes a program, which is no end of it.
#[tokio::test]
async fn a_server_that_executes_one_program_after_the_other_is_waited_for() {
    let argv = ["sh", "-c", EXECUTES, EXECUTES, "2000", "{port}", "{host}"];
    let world = addressed();
    world.provision("sbx_a").await;
    start(&world, serving(&argv, Probe::default(), None)).await;
    world.stop("sbx_a", 1).await.unwrap();
    world.destroy("sbx_a").await.unwrap();
}

#[tokio::test]
async fn an_agents_log_is_bounded_followed_into_its_next_part_and_there_when_it_is_stopped() {
    let world = addressed();
    world.provision("sbx_a").await;
    let ready = Probe {
        log_line: Some("listening".to_owned()),
        ..Probe::default()
    };
    let argv = ["python3", "-c", CHATTY, "{port}"];
    start(&world, serving(&argv, ready, None)).await;
    let early = log(&world).await;
    assert!(early.len() <= 2 * (8 << 20) + 2, "{}", early.len());
    assert!(early.len() > 8 << 20, "an older part is kept");
    assert!(early.contains("early 19999 ") && !early.contains("early 0 "));
    assert!(follow_to_the_end(&world).await);
    assert!(log(&world).await.ends_with("all said\n"));
    world.stop("sbx_a", 1).await.unwrap();
    let stopped = log(&world).await;
    assert!(stopped.len() > 8 << 20 && stopped.ends_with("all said\nthe last words\n"));
    world.destroy("sbx_a").await.unwrap();
}

/// Tells the server to go on when its log is followed, and waits until the log tells that it has. Says whether it does.
async fn follow_to_the_end(world: &World) -> bool {
    let (events, mut received) = mpsc::channel(64);
    let (call, provider) = (Call::new(call(1).meta, events), world.provider());
    let following = provider.logs(&call, logs_request(true));
    let listening = async {
        let (mut text, mut went) = (Vec::new(), false);
        while let Some(event) = received.recv().await {
            let CallEvent::Stdout(piece) = event else {
                continue;
            };
            text.extend(piece);
            // The end is all that is looked at.
            text.drain(..text.len().saturating_sub(4096));
            // What it says of being asked whether it is ready comes after that.
            if !went && String::from_utf8_lossy(&text).contains("listening\n") {
                went = true;
                fs::write(world.workspace("sbx_a").join("go"), "").unwrap();
            }
            if text.ends_with(b"all said\n") {
                return true;
            }
        }
        false
    };
    tokio::select! {
        _ = following => false,
        all_said = listening => all_said,
        () = tokio::time::sleep(Duration::from_secs(60)) => false,
    }
}
