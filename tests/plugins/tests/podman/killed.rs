//! The provider's process is killed between any two of its requests to the engine, and the same call in a fresh one carries on.

use crate::gate::Gate;
use crate::world::{SESSION, World, call, id, world};
use alpine_conformance::Subject;
use alpine_plugin_tests::{By, Ported, library};
use alpine_provider_api::*;
use alpine_provider_port::PortProvider;
use std::collections::BTreeMap;
use std::path::Path;
use tempfile::TempDir;
use tokio::sync::mpsc;

/// A provider in a process of its own, which reaches the engine through a gate.
struct Hosted {
    subject: Ported,
    gate: Gate,
    _directory: TempDir,
}

impl Hosted {
    fn new(world: &World) -> Self {
        let directory = TempDir::with_prefix("alp-").unwrap();
        let gate = Gate::start(&directory.path().join("g.sock"), &world.engine.socket());
        let file = library("alpine-plugin-podman");
        let host = Path::new(env!("CARGO_BIN_EXE_plugin-host"));
        let mut subject = Ported::new(By::Hosted, &file, host, directory.path());
        subject.open.place.env = world.place.env.clone();
        let mut table = world.table();
        table["socket"] = gate.socket.to_str().unwrap().into();
        let subject = subject.config(table);
        Self {
            subject,
            gate,
            _directory: directory,
        }
    }

    /// A call to a fresh process that is killed when it has made so many requests; its answer, if it came to that first.
    async fn once<T>(
        &self,
        requests: usize,
        work: &impl AsyncFn(PortProvider) -> Result<T, ProviderError>,
    ) -> Option<T> {
        let subject = self.subject.clone();
        let kill = move || {
            subject.aim().expect("a process that calls")();
            while !subject.processes().is_empty() {
                std::thread::yield_now();
            }
        };
        self.gate.kill_after(requests, Box::new(kill));
        let done = work(self.subject.port()).await;
        match (self.gate.open(), done) {
            (false, done) => Some(done.unwrap()),
            (true, Ok(_)) => panic!("an answer after a kill at request {requests}"),
            (true, Err(error)) => {
                assert_eq!(error.kind, ErrorKind::Crashed, "{requests}: {error}");
                None
            }
        }
    }

    /// The call, killed after so many requests, and the same again. Adds to `struck` if it was killed.
    async fn again<T>(
        &self,
        requests: usize,
        struck: &mut usize,
        work: impl AsyncFn(PortProvider) -> Result<T, ProviderError>,
    ) -> T {
        match self.once(requests, &work).await {
            Some(done) => done,
            None => {
                *struck += 1;
                work(self.subject.port()).await.unwrap()
            }
        }
    }

    /// The call, killed before its first request, its repeat before the second, and so on, until one has its answer. Gives how
    /// often it was killed too.
    async fn at_last<T>(
        &self,
        work: impl AsyncFn(PortProvider) -> Result<T, ProviderError>,
    ) -> (T, usize) {
        let mut requests = 0;
        loop {
            match self.once(requests, &work).await {
                Some(done) => return (done, requests),
                None => requests += 1,
            }
        }
    }
}

async fn run(provider: PortProvider, name: &str, script: &str) -> Result<String, ProviderError> {
    let (events, mut received) = mpsc::channel(64);
    let request = ExecRequest {
        sandbox_id: id(name),
        argv: ["sh", "-c", script].map(str::to_owned).to_vec(),
        env: BTreeMap::new(),
    };
    let (_, no_input) = mpsc::channel(1);
    let call = Call::new(call(1).meta, events);
    let reply = provider.exec(&call, request, no_input).await?;
    assert_eq!(reply, ExecReply::Exited(0), "{script}");
    drop(call);
    let mut said = Vec::new();
    while let Some(event) = received.recv().await {
        if let CallEvent::Stdout(more) = event {
            said.extend(more);
        }
    }
    Ok(String::from_utf8(said).unwrap())
}

fn stop(name: &str) -> StopRequest {
    StopRequest {
        sandbox_id: id(name),
        grace_ms: 1000,
    }
}

fn destroy(name: &str) -> DestroyRequest {
    DestroyRequest {
        sandbox_id: id(name),
    }
}

/// Nothing of any sandbox is in the engine, nor in the provider's list.
async fn nothing_is_left(world: &World, hosted: &Hosted) {
    let all = ["ps", "--all", "--external", "--format", "{{.Names}}"];
    assert_eq!(world.engine.podman(&all), "");
    let list = ListRequest {
        ledger_id: "ledger-1".to_owned(),
    };
    let listed = hosted.subject.port().list(&call(1), list).await.unwrap();
    assert_eq!(listed.sandboxes, []);
    assert_eq!(hosted.subject.processes(), [], "a process is left");
}

/// A life for each number of requests, whose every call is killed after so many.
async fn lives(world: &World, hosted: &Hosted) -> [usize; 5] {
    let mut all = [0; 5];
    for requests in 0.. {
        let before = all;
        let [provisioned, ran, stopped, captured, destroyed] = &mut all;
        let name = format!("sbx_{requests}");
        let made = hosted.again(requests, provisioned, async |it: PortProvider| {
            it.provision(&call(1), world.request(&name)).await
        });
        made.await;
        // Once more than it could be killed.
        if requests <= *ran {
            let said = hosted.again(requests, ran, async |it| {
                run(it, &name, "echo work > mine; cat mine").await
            });
            assert_eq!(said.await, "work\n");
        }
        let ended = hosted.again(requests, stopped, async |it: PortProvider| {
            it.stop(&call(1), stop(&name)).await
        });
        ended.await;
        if requests <= *captured {
            let capture = || CaptureRequest {
                sandbox_id: id(&name),
                generation: 1,
            };
            let staged = hosted.again(requests, captured, async |it: PortProvider| {
                it.capture(&call(1), capture()).await
            });
            staged.await;
        }
        let removed = hosted.again(requests, destroyed, async |it: PortProvider| {
            it.destroy(&call(1), destroy(&name)).await
        });
        removed.await;
        if all == before {
            break;
        }
    }
    all
}

/// What the adapter makes of commands: each repeat comes one request further than the one before it.
async fn work_comes_and_goes(world: &World, hosted: &Hosted) -> [usize; 4] {
    let provision = async |name: &str| {
        let request = world.request(name);
        let provider = hosted.subject.port();
        provider.provision(&call(1), request).await.unwrap();
    };
    provision("sbx_from").await;
    let synced = hosted.at_last(async |it: PortProvider| {
        it.sync_repo(&call(1), world.sync_request("sbx_from")).await
    });
    let (_, synced) = synced.await;
    let install = || InstallRequest {
        sandbox_id: id("sbx_from"),
    };
    let (_, installed) = hosted
        .at_last(async |it: PortProvider| it.install(&call(1), install()).await)
        .await;
    let provider = hosted.subject.port();
    provider.stop(&call(1), stop("sbx_from")).await.unwrap();
    let capture = CaptureRequest {
        sandbox_id: id("sbx_from"),
        generation: 1,
    };
    let staged = provider.capture(&call(1), capture).await.unwrap();
    drop(provider);
    let persist = || PersistRequest {
        sandbox_id: id("sbx_from"),
        session_id: SESSION.to_owned(),
        generation: 1,
        payload: "{}".to_owned(),
        snapshot: Some(staged.clone()),
    };
    let (object, persisted) = hosted
        .at_last(async |it: PortProvider| it.persist(&call(1), persist()).await)
        .await;
    provision("sbx_to").await;
    let restore = || RestoreRequest {
        sandbox_id: id("sbx_to"),
        durable_object_id: object.durable_object_id.clone(),
    };
    let (_, restored) = hosted
        .at_last(async |it: PortProvider| it.restore(&call(1), restore()).await)
        .await;
    let look = "cat a.txt runs; ls -A";
    let said = run(hosted.subject.port(), "sbx_to", look).await.unwrap();
    assert_eq!(said, "one\nrun\n.alpine.toml\n.git\na.txt\nruns\n");
    for name in ["sbx_from", "sbx_to"] {
        let provider = hosted.subject.port();
        provider.destroy(&call(1), destroy(name)).await.unwrap();
    }
    [synced, installed, persisted, restored]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_call_that_is_killed_between_any_two_requests_is_carried_on_by_the_next() {
    let settings = "setup.install = 'echo run > runs'\n";
    let world = world(&[("a.txt", "one\n"), (".alpine.toml", settings)]);
    let hosted = Hosted::new(&world);
    let [provisioned, ran, stopped, captured, destroyed] = lives(&world, &hosted).await;
    nothing_is_left(&world, &hosted).await;
    let [synced, installed, persisted, restored] = work_comes_and_goes(&world, &hosted).await;
    nothing_is_left(&world, &hosted).await;
    // A command is three requests, or more: its end may be asked for again. Of a repeat that finds its work done nothing is left
    // to kill.
    assert_eq!((provisioned, captured, destroyed), (4, 3, 3));
    assert!(ran >= 3 && stopped >= 8, "{ran} {stopped}");
    assert!(
        synced >= 7 && installed >= 12 && restored >= 6,
        "{synced} {installed} {restored}"
    );
    assert_eq!(
        persisted, 0,
        "a durable object is made of what is staged here"
    );
}
