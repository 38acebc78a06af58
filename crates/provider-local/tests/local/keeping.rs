//! Capturing, persisting, reading back, restoring.

use crate::agents::{agent_pid, python, start};
use crate::support::{SESSION, World, git, lives, meta, quiet, signal, until, world};
use alpine_provider_api::*;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

async fn capture(world: &World, generation: u64) -> Result<StagedSnapshot, ProviderError> {
    let request = CaptureRequest {
        sandbox_id: world.id.clone(),
        generation,
    };
    world.provider.capture(&quiet(), request).await
}

fn persist_request(world: &World, snapshot: Option<StagedSnapshot>) -> PersistRequest {
    PersistRequest {
        sandbox_id: world.id.clone(),
        session_id: SESSION.to_owned(),
        generation: 1,
        payload: r#"{"schema_version":"v1"}"#.to_owned(),
        snapshot,
    }
}

async fn persist(world: &World, snapshot: Option<StagedSnapshot>) -> Result<String, ProviderError> {
    let request = persist_request(world, snapshot);
    let reply = world.provider.persist(&quiet(), request).await;
    reply.map(|reply| reply.durable_object_id)
}

#[tokio::test]
async fn several_captures_of_one_generation_at_once_are_one_snapshot() {
    let world = world();
    world.filled(&[("a.txt", "one")]).await;
    world.stop(1000).await.unwrap();
    for generation in 1..5 {
        let one = || capture(&world, generation);
        let (first, second, third) = tokio::join!(one(), one(), one());
        let first = first.unwrap();
        assert_eq!((&first, &first), (&second.unwrap(), &third.unwrap()));
        assert_eq!(capture(&world, generation).await.unwrap(), first);
    }
}

async fn read(world: &World, id: &str) -> Result<ReadObjectReply, ProviderError> {
    let durable_object_id = id.to_owned();
    let request = ReadObjectRequest { durable_object_id };
    world.provider.read_object(&quiet(), request).await
}

/// Path → mode, time, and content or target of everything below.
fn tree(root: &Path) -> BTreeMap<String, (u32, i64, i64, Vec<u8>)> {
    let mut found = BTreeMap::new();
    let mut unseen = vec![root.to_owned()];
    while let Some(path) = unseen.pop() {
        let meta = path.symlink_metadata().unwrap();
        let content = if meta.is_dir() {
            unseen.extend(
                fs::read_dir(&path)
                    .unwrap()
                    .map(|entry| entry.unwrap().path()),
            );
            Vec::new()
        } else if meta.is_symlink() {
            fs::read_link(&path)
                .unwrap()
                .into_os_string()
                .into_encoded_bytes()
        } else {
            fs::read(&path).unwrap()
        };
        let name = path.strip_prefix(root).unwrap().display().to_string();
        found.insert(
            name,
            (meta.mode(), meta.mtime(), meta.mtime_nsec(), content),
        );
    }
    found
}

#[tokio::test]
async fn a_workspace_comes_back_as_it_was() {
    let world = world();
    world
        .filled(&[("a.txt", "one"), (".gitignore", "ignored\n")])
        .await;
    let workspace = world.workspace();
    fs::write(workspace.join("ignored"), "kept too").unwrap();
    fs::write(workspace.join("untracked"), "x").unwrap();
    fs::create_dir(workspace.join("empty")).unwrap();
    symlink("nowhere", workspace.join("link")).unwrap();
    fs::set_permissions(workspace.join("a.txt"), fs::Permissions::from_mode(0o751)).unwrap();
    git(&workspace, &["add", "untracked"]);
    start(&world, Serve::Process(Box::new(python())), 20_000)
        .await
        .unwrap();
    world.stop(5000).await.unwrap();
    let before = tree(&workspace);
    let staged = capture(&world, 1).await.unwrap();
    assert_eq!(capture(&world, 1).await.unwrap(), staged);
    assert_eq!(tree(&workspace), before);
    let id = persist(&world, Some(staged.clone())).await.unwrap();
    assert_eq!(persist(&world, Some(staged.clone())).await.unwrap(), id);
    let object = read(&world, &id).await.unwrap();
    let snapshot = object.snapshot.unwrap();
    assert_eq!(
        (&snapshot.digest, snapshot.size),
        (&staged.digest, staged.size)
    );
    assert_eq!(object.payload, r#"{"schema_version":"v1"}"#);
    world.destroy(2).await.unwrap();

    let other = crate::support::world();
    // The same store, another home.
    let mut config = other.config.clone();
    config.objects = world.config.objects.clone();
    let provider = alpine_provider_local::LocalProvider::new(config);
    provider
        .provision(&quiet(), other.provision_request())
        .await
        .unwrap();
    for _ in 0..2 {
        let request = RestoreRequest {
            sandbox_id: other.id.clone(),
            durable_object_id: id.clone(),
        };
        let reply = provider.restore(&quiet(), request).await.unwrap();
        assert_eq!(reply.entries, staged.entries);
    }
    assert_eq!(tree(&other.workspace()), before);
    let transcript = other.dir().join("transcript/agent/one.json");
    assert_eq!(
        fs::read_to_string(transcript).unwrap(),
        r#"{"text":"first"}"#
    );
    let left = fs::read_dir(other.dir()).unwrap().filter(|entry| {
        let name = entry.as_ref().unwrap().file_name();
        name.to_string_lossy().starts_with('.')
    });
    assert_eq!(left.count(), 0);
    let error = provider
        .restore(
            &quiet(),
            RestoreRequest {
                sandbox_id: other.id.clone(),
                durable_object_id: "ses_x/1-0000000000000000".to_owned(),
            },
        )
        .await
        .unwrap_err();
    assert_eq!(error.kind, ErrorKind::Conflict);
}

/// The agent's data in a snapshot, and what was said of it.
async fn agent_data(world: &World) -> (Option<String>, Vec<CallEvent>, Vec<LeftOut>) {
    let (events, mut received) = tokio::sync::mpsc::channel(64);
    let request = CaptureRequest {
        sandbox_id: world.id.clone(),
        generation: 1,
    };
    let call = Call::new(meta(1), events);
    let staged = world.provider.capture(&call, request).await.unwrap();
    drop(call);
    let mut said = Vec::new();
    while let Some(event) = received.recv().await {
        if matches!(event, CallEvent::Warning(_)) {
            said.push(event);
        }
    }
    let archive = format!("staged/{}.tar.zst", staged.staging_id);
    let archive = fs::File::open(world.dir().join(archive)).unwrap();
    let to = world.path().join("unpacked");
    fs::create_dir(&to).unwrap();
    alpine_snapshot::restore(archive, &to, &mut |_| ()).unwrap();
    let data = fs::read_to_string(to.join("agent-data/kept.db")).ok();
    (data, said, staged.left_out)
}

#[tokio::test]
async fn the_data_of_an_agent_that_was_killed_is_kept_for_its_transcript() {
    let warning =
        "not all of the agent's transcript was exported: the agent's own data is in `agent-data`";
    for killed in ["agent", "supervisor"] {
        let world = world();
        world.filled(&[("a.txt", "one")]).await;
        start(&world, Serve::Process(Box::new(python())), 20_000)
            .await
            .unwrap();
        match killed {
            "agent" => {
                let agent = agent_pid(&world);
                signal(agent, "KILL");
                until("the agent ends", || !lives(agent));
            }
            _ => world.kill_supervisor(),
        }
        world.stop(5000).await.unwrap();
        let (data, said, left_out) = agent_data(&world).await;
        assert_eq!(data.as_deref(), Some("said to the agent"), "{killed}");
        assert_eq!(said, [CallEvent::Warning(warning.to_owned())]);
        let left_out: Vec<_> = left_out
            .iter()
            .map(|left| (left.path.as_str(), left.reason.as_str()))
            .collect();
        assert_eq!(left_out, [("transcript", warning)]);
    }
}

#[tokio::test]
async fn the_data_of_an_agent_whose_transcript_was_exported_is_not_kept() {
    let world = world();
    world.filled(&[("a.txt", "one")]).await;
    start(&world, Serve::Process(Box::new(python())), 20_000)
        .await
        .unwrap();
    world.stop(5000).await.unwrap();
    assert_eq!(agent_data(&world).await, (None, Vec::new(), Vec::new()));
}

#[tokio::test]
async fn a_workspace_is_captured_after_a_crash() {
    let world = world();
    world.filled(&[("a.txt", "one")]).await;
    world.kill_supervisor();
    let staged = capture(&world, 1).await.unwrap();
    assert!(staged.entries > 3);
    world.stop(0).await.unwrap();
    assert_eq!(capture(&world, 1).await.unwrap(), staged);
    // A damaged one is made anew, and an earlier attempt's goes.
    let file = world
        .dir()
        .join(format!("staged/{}.tar.zst", staged.staging_id));
    fs::write(&file, "x").unwrap();
    let corrupt = persist(&world, Some(staged.clone())).await.unwrap_err();
    assert_eq!(corrupt.kind, ErrorKind::Corrupt);
    let again = capture(&world, 1).await.unwrap();
    assert_ne!(again.staging_id, staged.staging_id);
    capture(&world, 2).await.unwrap();
    assert_eq!(fs::read_dir(world.dir().join("staged")).unwrap().count(), 2);
    let corrupt = persist(&world, Some(again)).await.unwrap_err();
    assert_eq!(corrupt.kind, ErrorKind::Corrupt);
}

#[tokio::test]
async fn what_is_lost_is_said_to_be_lost() {
    let world = world();
    world.provision().await;
    world.stop(0).await.unwrap();
    fs::remove_dir(world.workspace()).unwrap();
    assert_eq!(
        capture(&world, 1).await.unwrap_err().kind,
        ErrorKind::WorkspaceLost
    );
    fs::remove_dir_all(world.dir()).unwrap();
    assert_eq!(world.state().await, SandboxState::Missing);
    assert_eq!(world.stop(0).await.unwrap_err().kind, ErrorKind::NotFound);
    assert_eq!(
        capture(&world, 1).await.unwrap_err().kind,
        ErrorKind::NotFound
    );
    // A payload alone is kept even then.
    let id = persist(&world, None).await.unwrap();
    assert_eq!(read(&world, &id).await.unwrap().snapshot, None);
}

/// Nothing is said to be gone, and where it was looked for is said.
async fn is_not_proven(world: &World) {
    let sandboxes = world.config.home.join("sandboxes");
    let stopped = world.stop(0).await.unwrap_err();
    let captured = capture(world, 1).await.unwrap_err();
    let persisted = persist(world, None).await.unwrap_err();
    for error in [stopped, captured, persisted] {
        assert_eq!((error.kind, error.retry), (ErrorKind::Io, Retry::Never));
        let place = format!("was not made in `{}`", sandboxes.display());
        assert!(error.message.contains(&place), "{error}");
    }
    assert_eq!(world.state().await, SandboxState::Unknown);
}

#[tokio::test]
async fn what_is_elsewhere_is_not_gone() {
    let mut world = world();
    world.filled(&[("a.txt", "one")]).await;
    world.stop(0).await.unwrap();
    let sandboxes = world.config.home.join("sandboxes");
    let away = world.path().join("away");
    fs::rename(&sandboxes, &away).unwrap();
    is_not_proven(&world).await;
    // An empty place is no proof either, nor is a note that another home made.
    fs::create_dir_all(sandboxes.join(".made")).unwrap();
    is_not_proven(&world).await;
    let note = Path::new(".made").join(world.id.as_str());
    fs::copy(away.join(&note), sandboxes.join(&note)).unwrap();
    fs::write(sandboxes.join(".home"), "another").unwrap();
    is_not_proven(&world).await;
    fs::remove_dir_all(&sandboxes).unwrap();
    let home = world.config.home.clone();
    world.config.home = world.path().join("other");
    let provider = std::mem::replace(
        &mut world.provider,
        alpine_provider_local::LocalProvider::new(world.config.clone()),
    );
    is_not_proven(&world).await;
    (world.config.home, world.provider) = (home, provider);
    fs::rename(&away, &sandboxes).unwrap();
    assert!(capture(&world, 1).await.unwrap().entries > 2);
}

#[tokio::test]
async fn a_home_that_is_lost_for_good_can_be_said_to_be() {
    let world = world();
    let message = world.stop(0).await.unwrap_err().message;
    let (_, command) = message.split_once("for good, say so: ").unwrap();
    let status = std::process::Command::new("sh")
        .args(["-c", command])
        .status();
    assert!(status.unwrap().success());
    assert_eq!(world.stop(0).await.unwrap_err().kind, ErrorKind::NotFound);
    assert_eq!(world.state().await, SandboxState::Missing);
    persist(&world, None).await.unwrap();
}

#[tokio::test]
async fn what_can_not_be_looked_at_is_not_gone() {
    let world = world();
    world.provision().await;
    world.stop(0).await.unwrap();
    let away = world.path().join("away");
    fs::rename(world.dir(), &away).unwrap();
    // A link to itself can't be followed, by nobody.
    symlink(world.dir(), world.dir()).unwrap();
    assert_eq!(world.stop(0).await.unwrap_err().kind, ErrorKind::Io);
    assert_eq!(capture(&world, 1).await.unwrap_err().kind, ErrorKind::Io);
    fs::remove_file(world.dir()).unwrap();
    fs::rename(&away, world.dir()).unwrap();
}

#[tokio::test]
async fn an_overtaken_caller_changes_nothing() {
    let world = world();
    let (repo, tip) = world.repository(&[("a.txt", "one")]);
    world.provision().await;
    // Somebody with a higher fence comes while the first one is at work.
    let overtaking = async {
        tokio::task::yield_now().await;
        let call = Call::quiet(meta(2));
        world
            .provider
            .provision(&call, world.provision_request())
            .await
            .unwrap();
    };
    let (synced, ()) = tokio::join!(world.sync(&repo, &tip), overtaking);
    assert_eq!(synced.unwrap_err().kind, ErrorKind::Fenced);
    assert_eq!(fs::read_dir(world.workspace()).unwrap().count(), 0);
    assert_eq!(
        capture(&world, 1).await.unwrap_err().kind,
        ErrorKind::Fenced
    );
    assert_eq!(
        persist(&world, None).await.unwrap_err().kind,
        ErrorKind::Fenced
    );
}

#[tokio::test]
async fn ids_from_outside_name_nothing_else() {
    let world = world();
    world.provision().await;
    for id in ["../intent", "/etc/passwd", "a/b", "", "-x"] {
        let snapshot = StagedSnapshot {
            staging_id: id.to_owned(),
            digest: "0".repeat(64),
            size: 1,
            entries: 1,
            left_out: Vec::new(),
        };
        let error = persist(&world, Some(snapshot)).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::InvalidArgument, "{id}");
        assert!(read(&world, id).await.is_err());
    }
}
