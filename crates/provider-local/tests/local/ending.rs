//! Stopping: nothing is left, whatever the processes and the supervisor do.

use crate::agents::{python, start};
use crate::support::{World, lives, meta, quiet, signal, until, world};
use alpine_provider_api::*;
use std::fs;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// Fifty processes that are sessions of their own, ignore every polite signal, and have lost their parents.
const DAEMONS: &str = "for n in $(seq 50); do
    setsid sh -c 'trap \"\" TERM HUP INT; echo $$ >> pids; while :; do sleep 1000; done' >/dev/null 2>&1 &
done; while test $(cat pids 2>/dev/null | wc -l) -lt 50; do sleep 0.01; done";

async fn daemons(world: &World) -> Vec<u32> {
    world.provision().await;
    assert_eq!(world.sh(DAEMONS).await.reply.unwrap(), ExecReply::Exited(0));
    let pids = fs::read_to_string(world.workspace().join("pids")).unwrap();
    let pids: Vec<u32> = pids.lines().map(|pid| pid.parse().unwrap()).collect();
    assert!(pids.len() == 50 && pids.iter().all(|&pid| lives(pid)));
    pids
}

#[tokio::test]
async fn nothing_survives_a_stop() {
    let world = world();
    let pids = daemons(&world).await;
    assert!(world.stop(200).await.unwrap().forced);
    assert!(!pids.iter().any(|&pid| lives(pid)));
    assert_eq!(world.processes(), Vec::<u32>::new());
    assert_eq!(world.state().await, SandboxState::Exited);
    assert!(world.workspace().join("pids").exists());
    // A stopped sandbox stays stopped, and says the same.
    assert!(world.stop(200).await.unwrap().forced);
}

#[tokio::test]
async fn nothing_survives_a_stop_without_a_supervisor() {
    let world = world();
    let pids = daemons(&world).await;
    world.kill_supervisor();
    assert_eq!(world.state().await, SandboxState::Exited);
    assert!(pids.iter().any(|&pid| lives(pid)));
    assert!(world.stop(100).await.unwrap().forced);
    assert!(!pids.iter().any(|&pid| lives(pid)));
    assert_eq!(world.processes(), Vec::<u32>::new());
    assert_eq!(world.state().await, SandboxState::Exited);
}

#[tokio::test]
async fn a_supervisor_that_does_not_answer_is_ended_too() {
    let world = world();
    let pids = daemons(&world).await;
    signal(world.supervisor(), "STOP");
    let begun = Instant::now();
    assert!(world.stop(100).await.unwrap().forced);
    assert!(begun.elapsed() < Duration::from_secs(15));
    assert!(!pids.iter().any(|&pid| lives(pid)));
    assert_eq!(world.processes(), Vec::<u32>::new());
}

#[tokio::test]
async fn a_sandbox_dies_with_its_supervisor() {
    let world = world();
    world.provision().await;
    let (_open, input) = mpsc::channel(1);
    let pid = world.workspace().join("pid");
    let killing = async {
        while fs::read_to_string(&pid).unwrap_or_default().is_empty() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        world.kill_supervisor();
    };
    let request = world.exec_request("trap '' TERM; echo $$ > pid; exec sleep 1000");
    let (ran, ()) = tokio::join!(world.exec(request, input), killing);
    assert_eq!(ran.reply.unwrap_err().kind, ErrorKind::Io);
    let pid: u32 = fs::read_to_string(&pid).unwrap().trim().parse().unwrap();
    until("the command ends", || !lives(pid));
}

#[tokio::test]
async fn a_quiet_sandbox_stops_at_once_and_politely() {
    let world = world();
    world.provision().await;
    world
        .sh("setsid sleep 1000 >/dev/null 2>&1 &")
        .await
        .reply
        .unwrap();
    let begun = Instant::now();
    assert!(!world.stop(30_000).await.unwrap().forced);
    assert!(begun.elapsed() < Duration::from_secs(5));
}

/// A process of its own session that takes its time when it is asked to end.
const SLOW: &str = "setsid sh -c 'trap \"sleep 4; echo saved > saved; exit\" TERM; touch slow;
    while :; do sleep 0.1; done' >/dev/null 2>&1 & while ! test -e slow; do sleep 0.01; done";

#[tokio::test]
async fn every_process_gets_the_whole_time() {
    for supervised in [true, false] {
        let world = world();
        world.provision().await;
        world.sh(SLOW).await.reply.unwrap();
        if !supervised {
            world.kill_supervisor();
        }
        assert!(!world.stop(60_000).await.unwrap().forced, "{supervised}");
        assert!(world.workspace().join("saved").exists(), "{supervised}");
    }
}

#[tokio::test]
async fn the_agent_is_asked_once_and_does_not_use_up_the_others_time() {
    let world = world();
    world.provision().await;
    let script = "trap 'echo asked >> asked' TERM; touch agent; while :; do sleep 0.1; done";
    let mut server = python();
    server.argv = ["sh", "-c", script].map(str::to_owned).to_vec();
    // It is no server: only that it runs matters here.
    start(&world, Serve::Process(Box::new(server)), 300)
        .await
        .unwrap_err();
    until("the agent runs", || {
        world.workspace().join("agent").exists()
    });
    let quick = "setsid sh -c 'trap \"echo asked > other; exit\" TERM; touch quick;
        while :; do sleep 0.1; done' >/dev/null 2>&1 & while ! test -e quick; do sleep 0.01; done";
    world.sh(quick).await.reply.unwrap();
    assert!(world.stop(4_000).await.unwrap().forced);
    let asked = |name: &str| fs::read_to_string(world.workspace().join(name)).unwrap_or_default();
    assert_eq!(
        (asked("asked"), asked("other")),
        ("asked\n".to_owned(), "asked\n".to_owned())
    );
}

#[tokio::test]
async fn a_supervisor_that_is_not_reached_ends_its_sandbox_in_order() {
    let world = world();
    world.provision().await;
    world.sh(SLOW).await.reply.unwrap();
    for socket in fs::read_dir(&world.config.run_dir).unwrap() {
        fs::remove_file(socket.unwrap().path()).unwrap();
    }
    assert!(!world.stop(60_000).await.unwrap().forced);
    assert!(world.workspace().join("saved").exists());
    assert_eq!(world.processes(), Vec::<u32>::new());
}

#[tokio::test]
async fn a_supervisor_is_found_wherever_its_socket_is() {
    let world = world();
    world.provision().await;
    let supervisor = world.supervisor();
    let mut config = world.config.clone();
    config.run_dir = world.path().join("other-run");
    let other = alpine_provider_local::LocalProvider::new(config);
    other
        .provision(&quiet(), world.provision_request())
        .await
        .unwrap();
    assert_eq!(world.supervisor(), supervisor);
    let (_, input) = mpsc::channel(1);
    let ran = other
        .exec(&quiet(), world.exec_request("exit 7"), input)
        .await;
    assert_eq!(ran.unwrap(), ExecReply::Exited(7));
    // One that is started again has its socket elsewhere, and takes the old one away.
    world.kill_supervisor();
    other
        .provision(&quiet(), world.provision_request())
        .await
        .unwrap();
    let sockets = |path: &Path| fs::read_dir(path).unwrap().count();
    assert_eq!(sockets(&world.config.run_dir), 0);
    assert_eq!(
        world.sh("exit 8").await.reply.unwrap(),
        ExecReply::Exited(8)
    );
    assert_eq!(sockets(&world.path().join("other-run")), 1);
    world.kill_supervisor();
    world.destroy(1).await.unwrap();
    assert_eq!(sockets(&world.path().join("other-run")), 0);
}

#[tokio::test]
async fn a_supervisor_whose_sandbox_was_taken_away_ends() {
    let world = world();
    world.provision().await;
    world
        .sh("setsid sleep 1000 >/dev/null 2>&1 &")
        .await
        .reply
        .unwrap();
    let socket = fs::read_dir(&world.config.run_dir).unwrap().next().unwrap();
    let mut line = UnixStream::connect(socket.unwrap().path()).unwrap();
    let away = world.path().join("away");
    fs::rename(world.dir(), &away).unwrap();
    line.write_all(b"{\"v\":1,\"say\":\"hello\"}\n").unwrap();
    until("all of it ends", || world.processes().is_empty());
    fs::rename(&away, world.dir()).unwrap();
    world.provision().await;
    assert_eq!(world.state().await, SandboxState::Running);
}

#[tokio::test]
async fn a_stop_ends_commands_and_tells_how_far_it_is() {
    let world = world();
    world.provision().await;
    let (_open, input) = mpsc::channel(1);
    let ready = world.workspace().join("ready");
    let (events, mut received) = mpsc::channel(100);
    let stopping = async {
        while !ready.exists() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let request = StopRequest {
            sandbox_id: world.id.clone(),
            grace_ms: 1_500,
        };
        let call = Call::new(meta(1), events);
        world.provider.stop(&call, request).await.unwrap()
    };
    let request = world.exec_request("trap '' TERM; touch ready; while :; do sleep 0.1; done");
    let (ran, stopped) = tokio::join!(world.exec(request, input), stopping);
    assert_eq!(ran.reply.unwrap(), ExecReply::Signalled(9));
    assert!(stopped.forced);
    let mut progress = 0;
    while let Some(event) = received.recv().await {
        if let CallEvent::Progress { what, .. } = event {
            assert_eq!(what, "waiting for processes to end");
            progress += 1;
        }
    }
    assert!(progress >= 2);
}

#[tokio::test]
async fn a_process_without_the_mark_is_found_by_its_descent() {
    let world = world();
    world.provision().await;
    let script = "env -i setsid sh -c 'trap \"\" TERM; echo $$ > pid; while :; do sleep 1000; done' \
        >/dev/null 2>&1 & while ! test -s pid; do sleep 0.01; done";
    world.sh(script).await.reply.unwrap();
    let pid = fs::read_to_string(world.workspace().join("pid")).unwrap();
    let pid: u32 = pid.trim().parse().unwrap();
    assert!(lives(pid));
    assert!(world.stop(50).await.unwrap().forced);
    assert!(!lives(pid));
}

#[tokio::test]
async fn what_keeps_forking_is_ended() {
    let world = world();
    world.provision().await;
    let script = "trap '' TERM; echo x >> begun; while :; do (setsid sh -c 'trap \"\" TERM; sleep 0.05; exec sh roll' &) ; sleep 0.2; exit; done";
    fs::write(world.workspace().join("roll"), script).unwrap();
    world
        .sh("setsid sh roll >/dev/null 2>&1 &")
        .await
        .reply
        .unwrap();
    until("it rolls", || {
        fs::read_to_string(world.workspace().join("begun")).is_ok_and(|text| text.len() > 10)
    });
    world.stop(50).await.unwrap();
    assert_eq!(world.processes(), Vec::<u32>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_that_race_a_stop_end_one_way_or_the_other() {
    let world = world();
    world.provision().await;
    let commands: Vec<_> = (0..40)
        .map(|_| {
            let (provider, request) = (world.provider.clone(), world.exec_request("sleep 1000"));
            tokio::spawn(async move {
                let (_open, input) = mpsc::channel(1);
                provider.exec(&quiet(), request, input).await
            })
        })
        .collect();
    tokio::task::yield_now().await;
    world.stop(0).await.unwrap();
    for command in commands {
        match command.await.unwrap() {
            Ok(ended) => assert!(matches!(ended, ExecReply::Signalled(9 | 15))),
            Err(error) => assert!(matches!(error.kind, ErrorKind::NotFound | ErrorKind::Io)),
        }
    }
    assert_eq!(world.processes(), Vec::<u32>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_sandboxes_come_and_go_at_once() {
    let world = world();
    let all: Vec<_> = (0..24)
        .map(|number| {
            let provider = world.provider.clone();
            let sandbox_id = SandboxId::new(&format!("{}_{number}", world.id)).unwrap();
            let request = ProvisionRequest {
                sandbox_id: sandbox_id.clone(),
                ..world.provision_request()
            };
            tokio::spawn(async move {
                provider.provision(&quiet(), request).await.unwrap();
                let request = StopRequest {
                    sandbox_id: sandbox_id.clone(),
                    grace_ms: 1000,
                };
                provider.stop(&quiet(), request).await.unwrap();
                let request = DestroyRequest { sandbox_id };
                provider.destroy(&quiet(), request).await.unwrap();
            })
        })
        .collect();
    for one in all {
        one.await.unwrap();
    }
}

#[tokio::test]
async fn two_stops_at_once_agree() {
    let world = world();
    daemons(&world).await;
    let (one, two) = tokio::join!(world.stop(300), world.stop(300));
    assert!(one.unwrap().forced);
    assert!(two.unwrap().forced);
    assert_eq!(world.processes(), Vec::<u32>::new());
}

#[tokio::test]
async fn a_stop_of_what_never_was_here_says_so() {
    let world = world();
    let error = world.stop(0).await.unwrap_err();
    assert_eq!((error.kind, error.retry), (ErrorKind::Io, Retry::Never));
    world.destroy(1).await.unwrap();
    assert_eq!(world.stop(0).await.unwrap_err().kind, ErrorKind::Destroyed);
    assert_eq!(world.state().await, SandboxState::Missing);
}

#[tokio::test]
async fn another_boot_means_that_it_ended() {
    let world = world();
    world.filled(&[("a.txt", "one")]).await;
    world.kill_supervisor();
    let path = world.dir().join("state.json");
    let mut state: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    state["boot_id"] = "another-boot".into();
    fs::write(&path, state.to_string()).unwrap();
    assert_eq!(world.state().await, SandboxState::Exited);
    assert!(world.workspace().join("a.txt").exists());
    world.provision().await;
    assert_eq!(world.sh("cat a.txt").await.stdout, b"one");
}
