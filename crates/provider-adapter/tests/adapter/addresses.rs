//! The session's address, and what stands behind it, when its supervisor has died.

use crate::world::{World, call, id, stop_request, world};
use alpine_provider_api::*;
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use tokio::sync::mpsc;

/// A world whose provider can serve addresses.
fn addressed() -> World {
    let mut world = world(&[("a.txt", "one\n")]);
    world.place.executable = env!("CARGO_BIN_EXE_alpine-front-for-tests").into();
    world
}

fn server(transcript: Option<Transcript>) -> Serve {
    let argv = ["python3", "-m", "http.server", "-b", "{host}", "{port}"];
    Serve::Process(Box::new(Server {
        argv: argv.map(str::to_owned).to_vec(),
        port_env: None,
        env: Default::default(),
        auth: None,
        ready: Probe::default(),
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

/// What a stop warns of.
async fn warnings_of_a_stop(world: &World) -> Vec<String> {
    let (events, mut received) = mpsc::channel(64);
    let call = Call::new(call(1).meta, events);
    let (provider, request) = (world.provider(), stop_request("sbx_a"));
    let stopping = async move { provider.stop(&call, request).await };
    let listening = async {
        let mut warnings = Vec::new();
        while let Some(event) = received.recv().await {
            if let CallEvent::Warning(text) = event {
                warnings.push(text);
            }
        }
        warnings
    };
    let (stopped, warnings) = tokio::join!(stopping, listening);
    stopped.unwrap();
    warnings
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
