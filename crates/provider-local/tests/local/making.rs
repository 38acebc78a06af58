//! Making a sandbox, filling it, listing it, destroying it.

use crate::support::{World, commit, lives, meta, quiet, signal, until, world};
use alpine_provider_api::*;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

async fn provision(world: &World, fence: u64) -> Result<ProvisionReply, ProviderError> {
    let call = Call::quiet(meta(fence));
    world
        .provider
        .provision(&call, world.provision_request())
        .await
}

#[tokio::test]
async fn making_is_repeatable_and_other_arguments_are_a_conflict() {
    let world = world();
    assert_eq!(world.state().await, SandboxState::Unknown);
    let reply = provision(&world, 3).await.unwrap();
    assert_eq!(reply.isolation.tier, "process");
    assert_eq!(reply.workspace_path, Some(world.workspace()));
    assert_eq!(world.state().await, SandboxState::Running);
    let supervisor = world.supervisor();
    assert_eq!(provision(&world, 3).await.unwrap(), reply);
    assert_eq!(world.supervisor(), supervisor);
    let mut other = world.provision_request();
    other.session_id = "ses_other".to_owned();
    let error = world
        .provider
        .provision(&Call::quiet(meta(3)), other)
        .await
        .unwrap_err();
    assert_eq!(error.kind, ErrorKind::Conflict);
    let error = provision(&world, 2).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Fenced);
    assert_eq!(world.stop(0).await.unwrap_err().kind, ErrorKind::Fenced);
    assert_eq!(world.destroy(2).await.unwrap_err().kind, ErrorKind::Fenced);
    assert_eq!(world.state().await, SandboxState::Running);
}

#[tokio::test]
async fn an_empty_fence_that_a_killed_call_left_is_no_obstacle() {
    let world = world();
    provision(&world, 3).await.unwrap();
    fs::write(world.dir().join("fence"), "").unwrap();
    provision(&world, 3).await.unwrap();
    assert_eq!(world.destroy(2).await.unwrap_err().kind, ErrorKind::Fenced);
    fs::write(world.dir().join("fence"), "").unwrap();
    world.stop(0).await.unwrap();
    world.destroy(3).await.unwrap();
    assert!(!world.dir().exists());
}

/// What is not a fence is not one that was seen, and not nothing either.
#[tokio::test]
async fn a_damaged_fence_lets_nobody_pass() {
    let world = world();
    provision(&world, 3).await.unwrap();
    let fence = world.dir().join("fence");
    fs::write(&fence, "three").unwrap();
    let error = provision(&world, 3).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Io);
    fs::write(&fence, "3").unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_at_once_make_one_sandbox_with_one_supervisor() {
    let world = world();
    let tries = (0..8).map(|_| {
        let (provider, request) = (world.provider.clone(), world.provision_request());
        tokio::spawn(async move { provider.provision(&quiet(), request).await })
    });
    for made in tries.collect::<Vec<_>>() {
        made.await.unwrap().unwrap();
    }
    assert_eq!(world.processes(), [world.supervisor()]);
}

#[tokio::test]
async fn everything_is_for_the_user_alone() {
    let world = world();
    world.provision().await;
    let modes = |path: std::path::PathBuf| path.metadata().unwrap().permissions().mode() & 0o777;
    for directory in [
        "",
        "workspace",
        "logs",
        "agent-home",
        "staged",
        "transcript",
        "tmp",
    ] {
        assert_eq!(modes(world.dir().join(directory)), 0o700, "{directory}");
    }
    for file in ["intent.json", "state.json", "shim.lock", "fence"] {
        assert_eq!(modes(world.dir().join(file)), 0o600, "{file}");
    }
    let socket = fs::read_dir(&world.config.run_dir)
        .unwrap()
        .next()
        .unwrap()
        .unwrap();
    assert_eq!(modes(socket.path()), 0o600);
}

#[tokio::test]
async fn a_supervisor_is_small_detached_and_takes_no_notice_of_hang_ups() {
    let world = world();
    world.provision().await;
    let pid = world.supervisor();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_ascii_whitespace()
            .nth(1)
            .unwrap()
            .parse::<u64>()
            .unwrap()
    };
    println!("supervisor: {} KiB resident", field("VmRSS:"));
    assert!(field("VmRSS:") < 8 * 1024);
    assert_ne!(field("PPid:"), u64::from(std::process::id()));
    assert_eq!(field("Threads:"), 1);
    assert_eq!(
        fs::read_link(format!("/proc/{pid}/cwd")).unwrap().to_str(),
        Some("/")
    );
    assert_eq!(fs::read(format!("/proc/{pid}/environ")).unwrap(), b"");
    let arguments = fs::read(format!("/proc/{pid}/cmdline")).unwrap();
    assert_eq!(
        arguments,
        format!("alpine-shim\0{}\0", world.id).into_bytes()
    );
    for name in ["HUP", "INT", "QUIT", "USR1"] {
        signal(pid, name);
    }
    assert_eq!(world.sh("true").await.reply.unwrap(), ExecReply::Exited(0));
    assert!(lives(pid));
}

#[tokio::test]
async fn a_dead_supervisor_is_started_again_unless_the_sandbox_was_stopped() {
    let world = world();
    world.provision().await;
    let first = world.supervisor();
    world
        .sh("setsid sleep 1000 >/dev/null 2>&1 &")
        .await
        .reply
        .unwrap();
    world.kill_supervisor();
    assert_eq!(world.state().await, SandboxState::Exited);
    world.provision().await;
    assert_ne!(world.supervisor(), first);
    // What the first one left behind is gone.
    assert_eq!(world.processes(), [world.supervisor()]);
    assert_eq!(
        world.sh("exit 7").await.reply.unwrap(),
        ExecReply::Exited(7)
    );
    world.stop(0).await.unwrap();
    world.provision().await;
    assert_eq!(world.state().await, SandboxState::Exited);
    assert_eq!(
        world.sh("true").await.reply.unwrap_err().kind,
        ErrorKind::NotFound
    );
}

#[tokio::test]
async fn the_repository_comes_at_the_commit_and_later_work_is_left_alone() {
    let world = world();
    let (repo, first) = world.repository(&[("a.txt", "one")]);
    let missing = world.sync(&repo, &first).await.unwrap_err();
    assert_eq!(missing.kind, ErrorKind::Io);
    commit(repo.local_path().unwrap(), &[("a.txt", "two")]);
    world.provision().await;
    assert_eq!(world.sync(&repo, &first).await.unwrap().head, first);
    assert_eq!(
        fs::read_to_string(world.workspace().join("a.txt")).unwrap(),
        "one"
    );
    let origin = crate::support::git(&world.workspace(), &["remote", "get-url", "origin"]);
    assert_eq!(origin, repo.as_str());
    let work = commit(&world.workspace(), &[("a.txt", "mine")]);
    assert_eq!(world.sync(&repo, &first).await.unwrap().head, work);
    assert_eq!(
        fs::read_to_string(world.workspace().join("a.txt")).unwrap(),
        "mine"
    );
    let other = commit(repo.local_path().unwrap(), &[("a.txt", "three")]);
    assert_eq!(
        world.sync(&repo, &other).await.unwrap_err().kind,
        ErrorKind::Conflict
    );
    assert_eq!(
        fs::read_to_string(world.workspace().join("a.txt")).unwrap(),
        "mine"
    );
}

#[tokio::test]
async fn a_partial_workspace_is_made_anew() {
    let world = world();
    let (repo, tip) = world.repository(&[("a.txt", "one")]);
    world.provision().await;
    fs::create_dir_all(world.workspace().join("half/made")).unwrap();
    fs::create_dir(world.dir().join(".incoming-dead")).unwrap();
    world.sync(&repo, &tip).await.unwrap();
    assert!(!world.workspace().join("half").exists());
    assert!(!world.dir().join(".incoming-dead").exists());
    assert_eq!(
        crate::support::git(&world.workspace(), &["status", "--porcelain"]),
        ""
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_try_that_was_given_up_and_still_writes_is_in_nobodys_way() {
    let world = world();
    let (repo, tip) = world.repository(&[("a.txt", "one")]);
    world.provision().await;
    let late = world.dir().join(".incoming-late");
    fs::create_dir(&late).unwrap();
    let over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut number = 0;
            while !over.load(std::sync::atomic::Ordering::Relaxed) {
                number += 1;
                let directory = late.join(format!("{number}"));
                // Until it is removed; then it is written anew, as by who holds a path.
                let _ = fs::create_dir_all(&directory);
                let _ = fs::write(directory.join("file"), "late");
            }
        });
        let synced = tokio::task::block_in_place(|| {
            tokio::runtime::Handle::current().block_on(world.sync(&repo, &tip))
        });
        over.store(true, std::sync::atomic::Ordering::Relaxed);
        synced.unwrap();
    });
    assert_eq!(
        fs::read_to_string(world.workspace().join("a.txt")).unwrap(),
        "one"
    );
}

#[tokio::test]
async fn a_probe_looks_inside() {
    let world = world();
    let tip = world.filled(&[("a.txt", "one")]).await;
    let request = InspectRequest {
        sandbox_id: world.id.clone(),
        probe: true,
    };
    let probe = world
        .provider
        .inspect(&quiet(), request)
        .await
        .unwrap()
        .probe
        .unwrap();
    let expected = ProbeReply {
        head: Some(tip),
        writable: true,
        agent_ready: None,
    };
    assert_eq!(probe, expected);
    assert_eq!(
        crate::support::git(&world.workspace(), &["status", "--porcelain"]),
        ""
    );
}

#[tokio::test]
async fn only_a_ledgers_own_sandboxes_are_listed() {
    let world = world();
    let list = async |ledger: &str| {
        let ledger_id = ledger.to_owned();
        let request = ListRequest { ledger_id };
        world
            .provider
            .list(&quiet(), request)
            .await
            .unwrap()
            .sandboxes
    };
    assert_eq!(list("ledger-1").await, []);
    world.provision().await;
    let sandboxes = world.config.home.join("sandboxes");
    fs::create_dir(sandboxes.join("not-ours")).unwrap();
    fs::create_dir(sandboxes.join("damaged")).unwrap();
    fs::write(sandboxes.join("damaged/intent.json"), "{").unwrap();
    let listed = list("ledger-1").await;
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].sandbox_id, world.id);
    assert_eq!(listed[0].session_id, crate::support::SESSION);
    assert_eq!(listed[0].state, SandboxState::Running);
    assert_eq!(list("ledger-2").await, []);
}

#[tokio::test]
async fn a_destroyed_id_does_not_come_back() {
    let world = world();
    world.filled(&[("a.txt", "one")]).await;
    world
        .sh("mkdir -p deep/er && touch deep/er/x && chmod 0 deep/er deep")
        .await
        .reply
        .unwrap();
    world
        .sh("setsid sleep 1000 >/dev/null 2>&1 &")
        .await
        .reply
        .unwrap();
    world.destroy(5).await.unwrap();
    assert!(!world.dir().exists());
    assert_eq!(world.processes(), Vec::<u32>::new());
    world.destroy(5).await.unwrap();
    assert_eq!(world.destroy(4).await.unwrap_err().kind, ErrorKind::Fenced);
    assert_eq!(
        provision(&world, 9).await.unwrap_err().kind,
        ErrorKind::Destroyed
    );
    assert_eq!(
        world.install().await.unwrap_err().kind,
        ErrorKind::Destroyed
    );
    assert_eq!(world.state().await, SandboxState::Missing);
}

#[tokio::test]
async fn an_id_that_never_was_is_remembered_as_destroyed_too() {
    let world = world();
    world.destroy(1).await.unwrap();
    assert_eq!(
        provision(&world, 1).await.unwrap_err().kind,
        ErrorKind::Destroyed
    );
}

#[tokio::test]
async fn a_supervisor_that_can_not_start_says_why() {
    let world = world();
    let mut config = world.config.clone();
    config.executable = "/nowhere/alpine".into();
    let provider = alpine_provider_local::LocalProvider::new(config.clone());
    let error = provider
        .provision(&quiet(), world.provision_request())
        .await
        .unwrap_err();
    assert_eq!(error.kind, ErrorKind::Io);
    assert!(error.message.contains("/nowhere/alpine"), "{error}");
    config.executable = "/bin/true".into();
    let provider = alpine_provider_local::LocalProvider::new(config.clone());
    let error = provider
        .provision(&quiet(), world.provision_request())
        .await
        .unwrap_err();
    assert!(error.message.contains("ended before it served"), "{error}");
    config.executable = world.config.executable.clone();
    config.run_dir = world.path().join("r".repeat(100));
    let provider = alpine_provider_local::LocalProvider::new(config);
    let error = provider
        .provision(&quiet(), world.provision_request())
        .await
        .unwrap_err();
    assert!(error.message.contains("too long"), "{error}");
    // Half-made, it is found and finished.
    world.provision().await;
    assert_eq!(world.state().await, SandboxState::Running);
}

#[tokio::test]
async fn a_terminated_supervisor_ends_its_sandbox_in_order() {
    let world = world();
    world.provision().await;
    world
        .sh("setsid sleep 1000 >/dev/null 2>&1 &")
        .await
        .reply
        .unwrap();
    let pid = world.supervisor();
    let kill = Command::new("kill").arg(pid.to_string()).status().unwrap();
    assert!(kill.success());
    until("the sandbox ends", || world.processes().is_empty());
    // That was not a call: it may go on.
    world.provision().await;
    assert_eq!(world.state().await, SandboxState::Running);
}

#[tokio::test]
async fn what_a_killed_call_left_is_swept() {
    let world = world();
    let sandboxes = world.config.home.join("sandboxes");
    let left = |what: &str| sandboxes.join(what.replace("ID", world.id.as_str()));
    let plant = || {
        fs::create_dir_all(left(".new-ID/workspace")).unwrap();
        for name in [".destroyed/ID.part", ".made/ID.part"] {
            fs::create_dir_all(left(name).parent().unwrap()).unwrap();
            fs::write(left(name), "{").unwrap();
        }
    };
    let is_swept = || {
        for name in [".new-ID", ".destroyed/ID.part", ".made/ID.part"] {
            assert!(!left(name).exists(), "{name}");
        }
    };
    plant();
    world.provision().await;
    is_swept();
    assert!(left(".made/ID").exists());
    // It is there already.
    plant();
    world.provision().await;
    is_swept();
    plant();
    world.destroy(1).await.unwrap();
    is_swept();
    assert!(left(".destroyed/ID").exists() && !left(".made/ID").exists());
    plant();
    world.destroy(1).await.unwrap();
    is_swept();
}
