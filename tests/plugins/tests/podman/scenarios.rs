//! What a team would do with it.

use crate::engine::IMAGE;
use crate::world::{SESSION, World, call, id, world};
use alpine_gateway::client::AgentClient;
use alpine_provider_api::*;
use rustix::process::{Pid, Signal};
use std::time::Duration;
use tokio::sync::mpsc;

#[tokio::test]
async fn a_session_comes_up_and_goes_down_and_its_work_comes_back() {
    let settings = "setup.install = 'echo run >> runs; echo said'\n";
    let world = world(&[("a.txt", "one\n"), (".alpine.toml", settings)]);
    for _ in 0..2 {
        world.provision("sbx_a").await;
        world.sync("sbx_a").await;
        let sandbox_id = id("sbx_a");
        let install = InstallRequest { sandbox_id };
        let done = world.provider().install(&call(1), install).await.unwrap();
        assert_eq!(done.found_by.as_deref(), Some(".alpine.toml"));
    }
    assert_eq!(
        world
            .sh("sbx_a", "cat a.txt runs; echo $GREETING; pwd")
            .await,
        "one\nrun\nhello\n/workspace\n"
    );
    world.sh("sbx_a", "echo work > mine; chmod 700 mine; ln -s /etc out; mkfifo fifo; mknod null c 1 3; ln mine again").await;
    // Asked, it writes its last; one that does not listen is killed.
    world.sh("sbx_a", "(trap 'echo last > last; exit' TERM; touch on; while :; do sleep 0.05; done) >/dev/null 2>&1 & while ! [ -e on ]; do :; done").await;
    assert_eq!(world.stop("sbx_a", 3000).await, StopReply { forced: false });
    assert_eq!(world.stop("sbx_a", 3000).await, StopReply { forced: false });
    assert_eq!(world.state("sbx_a").await, SandboxState::Exited);
    let capture = CaptureRequest {
        sandbox_id: id("sbx_a"),
        generation: 1,
    };
    let staged = world
        .provider()
        .capture(&call(1), capture.clone())
        .await
        .unwrap();
    assert_eq!(
        world.provider().capture(&call(1), capture).await.unwrap(),
        staged
    );
    let told: Vec<_> = staged.left_out.iter().map(|it| it.path.as_str()).collect();
    // Only the machine's superuser makes devices.
    let devices: &[&str] = if rustix::process::geteuid().is_root() {
        &["workspace/null"]
    } else {
        &[]
    };
    assert_eq!(told, devices);
    let persist = PersistRequest {
        sandbox_id: id("sbx_a"),
        session_id: SESSION.to_owned(),
        generation: 1,
        payload: "{}".to_owned(),
        snapshot: Some(staged.clone()),
    };
    let object = world.provider().persist(&call(1), persist).await.unwrap();
    let restore = RestoreRequest {
        sandbox_id: id("sbx_b"),
        durable_object_id: object.durable_object_id,
    };
    world.provision("sbx_b").await;
    let back = world.provider().restore(&call(1), restore).await.unwrap();
    assert_eq!(back.entries, staged.entries);
    let look = "cat mine last; readlink out; [ -p fifo ] && stat -c '%a %h' mine; cat .git/HEAD";
    assert_eq!(
        world.sh("sbx_b", look).await,
        "work\nlast\n/etc\n700 2\nref: refs/heads/main\n"
    );
    for name in ["sbx_a", "sbx_a", "sbx_b"] {
        world.destroy(name).await;
        assert_eq!(world.state(name).await, SandboxState::Missing);
    }
}

#[tokio::test]
async fn commands_have_streams_statuses_input_and_signals() {
    let world = world(&[]);
    world.provision("sbx_a").await;
    let (reply, stdout, stderr) = world
        .run(
            "sbx_a",
            &["sh", "-c", "echo out; echo err >&2; exit 7"],
            Vec::new(),
        )
        .await;
    assert_eq!(
        (reply.unwrap(), &stdout[..], &stderr[..]),
        (ExecReply::Exited(7), &b"out\n"[..], &b"err\n"[..])
    );
    let piece: Vec<u8> = (0..1_000_000_u32).map(|at| (at % 251) as u8).collect();
    let inputs = vec![
        ExecInput::Data(piece.clone()),
        ExecInput::Data(piece.clone()),
        ExecInput::Eof,
    ];
    let (reply, stdout, _) = world.run("sbx_a", &["cat"], inputs).await;
    assert_eq!(reply.unwrap(), ExecReply::Exited(0));
    assert!(
        stdout == [piece.clone(), piece].concat(),
        "{} bytes came back",
        stdout.len()
    );
    let (reply, ..) = world.run("sbx_a", &["/no/such/program"], Vec::new()).await;
    assert_eq!(reply.unwrap_err().kind, ErrorKind::InvalidArgument);
    let argv = ["sh", "-c", "sleep 600; true"];
    let (reply, ..) = world.run("sbx_a", &argv, vec![ExecInput::Signal(15)]).await;
    assert_eq!(reply.unwrap(), ExecReply::Signalled(15));
    // Nobody waits for it any more.
    let provider = world.provider();
    let request = ExecRequest {
        sandbox_id: id("sbx_a"),
        argv: ["sh", "-c", "echo > begun; exec sleep 601"]
            .map(str::to_owned)
            .to_vec(),
        env: Default::default(),
    };
    let (_open, input) = mpsc::channel(1);
    let begun = async {
        while world
            .run("sbx_a", &["test", "-e", "begun"], Vec::new())
            .await
            .0
            .unwrap()
            != ExecReply::Exited(0)
        {}
    };
    let quiet = call(1);
    tokio::select! {
        done = provider.exec(&quiet, request, input) => panic!("{done:?}"),
        () = begun => {}
    }
    while world.sh("sbx_a", "ps").await.contains("sleep 601") {}
    world.destroy("sbx_a").await;
}

/// Makes the container of a sandbox as a call does that is killed before it starts it.
fn half_make(world: &World, name: &str) {
    let labels = [
        ("alpine.ledger", "ledger-1"),
        ("alpine.session", SESSION),
        ("alpine.sandbox", name),
    ];
    let labels = labels.map(|(name, value)| format!("--label={name}={value}"));
    let name = format!("--name=alpine-{name}");
    let mut arguments = vec!["create", &name];
    arguments.extend(labels.iter().map(String::as_str));
    arguments.extend([IMAGE, "sleep", "600"]);
    world.engine.podman(&arguments);
}

async fn listed(world: &World) -> Vec<(String, SandboxState)> {
    let list = ListRequest {
        ledger_id: "ledger-1".to_owned(),
    };
    let listed = world.provider().list(&call(1), list).await.unwrap();
    let all = listed.sandboxes.into_iter();
    all.map(|one| (one.sandbox_id.to_string(), one.state))
        .collect()
}

#[tokio::test]
async fn a_half_made_container_is_found_and_carried_on() {
    let world = world(&[]);
    half_make(&world, "sbx_half");
    let found = listed(&world).await;
    assert_eq!(found, [("sbx_half".to_owned(), SandboxState::Exited)]);
    let request = world.request("sbx_half");
    let (one, other) = (world.provider(), world.provider());
    let quiet = call(1);
    let (one, other) = tokio::join!(
        one.provision(&quiet, request.clone()),
        other.provision(&quiet, request)
    );
    assert_eq!(one.unwrap(), other.unwrap());
    assert_eq!(world.state("sbx_half").await, SandboxState::Running);
    world.destroy("sbx_half").await;
    assert_eq!(listed(&world).await, []);
}

#[tokio::test]
async fn foreign_containers_are_left_alone() {
    let world = world(&[]);
    let theirs = ["create", "--name=alpine-sbx_theirs", IMAGE, "sleep", "600"];
    world.engine.podman(&theirs);
    let mut foreign = world.request("sbx_foreign");
    foreign.ledger_id = "ledger-2".to_owned();
    let made = world.provider().provision(&call(1), foreign).await;
    made.unwrap();
    assert_eq!(listed(&world).await, []);
    let request = world.request("sbx_theirs");
    let refused = world.provider().provision(&call(1), request).await;
    assert_eq!(refused.unwrap_err().kind, ErrorKind::Conflict);
    let names = ["ps", "--all", "--format", "{{.Names}}"];
    let names = world.engine.podman(&names);
    let mut names: Vec<_> = names.lines().collect();
    names.sort_unstable();
    assert_eq!(names, ["alpine-sbx_foreign", "alpine-sbx_theirs"]);
    world.destroy("sbx_foreign").await;
    world.engine.podman(&["rm", "alpine-sbx_theirs"]);
}

/// With its supervisor killed nothing cleans up after a container: podman calls it `stopped`, for ever.
#[tokio::test]
async fn a_container_that_nothing_has_cleaned_up_after_has_ended() {
    let world = world(&[]);
    world.provision("sbx_a").await;
    let format = "{{.State.ConmonPid}} {{.State.Pid}}";
    let processes = ["inspect", "--format", format, "alpine-sbx_a"];
    for process in world.engine.podman(&processes).split_whitespace() {
        let process = Pid::from_raw(process.parse().unwrap()).unwrap();
        rustix::process::kill_process(process, Signal::KILL).unwrap();
    }
    assert_eq!(world.stop("sbx_a", 0).await, StopReply { forced: true });
    let status = ["inspect", "--format", "{{.State.Status}}", "alpine-sbx_a"];
    assert_eq!(world.engine.podman(&status), "stopped\n");
    let ended = [("sbx_a".to_owned(), SandboxState::Exited)];
    assert_eq!(listed(&world).await, ended);
    world.destroy("sbx_a").await;
}

#[tokio::test]
async fn a_paused_container_is_thawed_and_stopped() {
    let world = world(&[("README.md", "hello\n")]);
    world.provision("sbx_a").await;
    world.sync("sbx_a").await;
    let paused = world.engine.try_podman(&["pause", "alpine-sbx_a"]);
    if !world.engine.has_cgroups() {
        // Then no container is ever paused, and one that can't be is stopped as any other.
        let refusal = paused.expect_err("nothing can be paused without cgroups");
        assert!(refusal.contains("cgroup"), "{refusal}");
    } else if let Err(complaint) = paused {
        panic!("{complaint}");
    }
    let running = [("sbx_a".to_owned(), SandboxState::Running)];
    assert_eq!(listed(&world).await, running);
    world.stop("sbx_a", 1000).await;
    let ended = [("sbx_a".to_owned(), SandboxState::Exited)];
    assert_eq!(listed(&world).await, ended);
    world.destroy("sbx_a").await;
}

#[tokio::test]
async fn limits_and_the_network_are_as_configured_and_a_missing_engine_or_image_is_said() {
    let world = world(&[]);
    let request = world.request("sbx_a");
    let made = world.provider().provision(&call(1), request).await.unwrap();
    let format = "{{.HostConfig.Memory}} {{.HostConfig.NanoCpus}} {{.HostConfig.PidsLimit}} {{.HostConfig.NetworkMode}}";
    let limits = world
        .engine
        .podman(&["inspect", "--format", format, "alpine-sbx_a"]);
    let (held, said) = if world.engine.has_cgroups() {
        ("134217728 1500000000 64 none\n", "enforced")
    } else {
        ("0 0 0 none\n", "none")
    };
    assert_eq!(limits, held);
    assert!(made.isolation.limits.values().all(|it| it == said));
    let links = world.sh("sbx_a", "ls /sys/class/net").await;
    assert_eq!(links, "lo\n");
    let crowd = "for it in $(seq 100); do sleep 600 >/dev/null 2>&1 & done; echo all";
    let (reply, stdout, stderr) = world.run("sbx_a", &["sh", "-c", crowd], Vec::new()).await;
    let stderr = String::from_utf8(stderr).unwrap();
    let is_held = stderr.contains("can't fork") && stdout.is_empty();
    assert_eq!(is_held, said == "enforced", "{reply:?}: {stderr}");
    let mut config = world.config();
    config.image = "localhost/no-such-image:1".to_owned();
    let place = Place {
        state: world.repo.path.join("state"),
        ..Place::default()
    };
    let provider = alpine_plugin_podman::open(config.clone(), &place);
    let error = provider
        .provision(&call(1), world.request("sbx_b"))
        .await
        .unwrap_err();
    assert_eq!(
        error.hint.as_deref(),
        Some("podman pull localhost/no-such-image:1")
    );
    config.socket = "/no/such/socket".into();
    let provider = alpine_plugin_podman::open(config, &place);
    let error = provider
        .provision(&call(1), world.request("sbx_b"))
        .await
        .unwrap_err();
    assert!(error.message.contains("/no/such/socket"), "{error}");
    world.destroy("sbx_a").await;
}

/// A server of BusyBox, in a network of the sandbox's own, whose port is published.
fn server() -> AgentSpec {
    let argv = ["httpd", "-f", "-p", "{host}:{port}", "-h", "."];
    AgentSpec {
        name: "httpd".to_owned(),
        serve: Serve::Process(Box::new(Server {
            argv: argv.map(str::to_owned).to_vec(),
            port_env: None,
            env: Default::default(),
            auth: None,
            ready: Probe {
                path: "/README.md".to_owned(),
                ..Probe::default()
            },
            shutdown: Shutdown::default(),
            transcript: None,
        })),
    }
}

#[tokio::test]
async fn an_agent_behind_a_published_port_is_reached_by_its_address_alone() {
    let world = world(&[("README.md", "hello from inside\n")]);
    let mut table = world.table();
    table["network"] = "slirp4netns".into();
    table["ports"] = [8000].as_slice().into();
    let provider =
        || alpine_plugin_podman::open(serde_json::from_value(table.clone()).unwrap(), &world.place);
    let described = provider().describe().await.unwrap();
    assert!(described.announces(Feature::ServeProcess));
    let made = provider().provision(&call(1), world.request("sbx_a")).await;
    made.unwrap();
    world.sync("sbx_a").await;
    let start = || StartAgentRequest {
        sandbox_id: id("sbx_a"),
        agent: server(),
        env: Default::default(),
        ready_ms: 20_000,
        page: PageFacts::default(),
    };
    let started = provider().start_agent(&call(1), start()).await.unwrap();
    let again = provider().start_agent(&call(1), start()).await.unwrap();
    assert_eq!(started, again);
    let request = OpenAgentRequest {
        sandbox_id: id("sbx_a"),
        link_ms: 60_000,
    };
    let way = provider().open_agent(&call(1), request).await.unwrap();
    assert_eq!(Some(&way.url), started.url.as_ref());
    let (_, port) = way.url.rsplit_once(':').unwrap();
    let ask = |auth| AgentClient::new(port.parse().unwrap(), auth);
    let patience = Duration::from_secs(10);
    let stranger = ask(None).get("/README.md", patience).await.unwrap();
    assert_eq!(stranger.status, 401);
    let caller = ask(Some((way.username, way.password)));
    let answer = caller.get("/README.md", patience).await.unwrap();
    assert_eq!(
        (answer.status, &*answer.body),
        (200, &b"hello from inside\n"[..])
    );
    let stop = StopRequest {
        sandbox_id: id("sbx_a"),
        grace_ms: 2000,
    };
    provider().stop(&call(1), stop).await.unwrap();
    assert!(
        caller.get("/README.md", patience).await.is_err(),
        "the address is closed"
    );
    world.destroy("sbx_a").await;
}
