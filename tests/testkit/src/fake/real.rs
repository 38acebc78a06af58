//! What the fake does where its work is real: it checks repositories out, runs install steps and agents, ends processes.

use super::judge::Judge;
use super::process;
use super::store::{Run, Store, remove};
use super::tree;
use super::work::{Extent, Reply, half_done, not_found};
use alpine_git::{Git, GitConfig};
use alpine_provider_api::*;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

static TRY: AtomicU64 = AtomicU64::new(0);

/// Checks the commit out beside the workspace, and puts it in its place.
pub(super) async fn sync_repo(
    judge: &Judge<'_>,
    store: &Store,
    extent: Extent,
    request: &SyncRepoRequest,
) -> Reply<SyncRepoReply> {
    let id = request.sandbox_id.as_str();
    let reply = SyncRepoReply {
        head: request.commit.clone(),
    };
    let (cache, incoming) = {
        let store = store.lock();
        let sandbox = judge.enter_running(&store, &request.sandbox_id)?;
        if sandbox.synced.as_ref() == Some(&request.commit) {
            return Ok(reply);
        }
        let number = TRY.fetch_add(1, Ordering::Relaxed);
        let name = format!("{id}-{}-{number}", std::process::id());
        (store.path("cache"), store.path("incoming").join(name))
    };
    if extent == Extent::Half {
        return Err(half_done());
    }
    let git = Git::new(GitConfig {
        cache,
        path: std::env::var_os("PATH").unwrap_or_default(),
        home: None,
        extra_env: BTreeMap::new(),
        redactor: Redactor::new(&[]),
    });
    fs::create_dir_all(incoming.parent().expect("a directory"))
        .map_err(|error| ProviderError::io("incoming", &error))?;
    let (credential, progress) = (request.credential.as_ref(), |_, _| {});
    git.checkout(
        &request.repo,
        &request.branch,
        &request.commit,
        credential,
        &incoming,
        &progress,
    )
    .await?;
    let store = store.lock();
    let mut sandbox = judge.enter_running(&store, &request.sandbox_id)?;
    if sandbox.synced.is_some() {
        remove(&incoming);
        return Ok(reply);
    }
    let workspace = store.workspace(id);
    remove(&workspace);
    fs::rename(&incoming, &workspace).map_err(|error| ProviderError::io("workspace", &error))?;
    sandbox.synced = Some(request.commit.clone());
    sandbox.clean = store
        .tree(id)
        .map(|files| tree::digest(&tree::encode(&files)));
    store.keep_sandbox(&sandbox);
    Ok(reply)
}

/// Runs what `.alpine.toml` asks for.
pub(super) async fn install(
    judge: &Judge<'_>,
    store: &Store,
    extent: Extent,
    request: &InstallRequest,
) -> Reply<InstallReply> {
    let id = request.sandbox_id.as_str();
    let (workspace, log, installed) = {
        let store = store.lock();
        let sandbox = judge.enter_running(&store, &request.sandbox_id)?;
        let log = store.log(id, "install");
        (store.workspace(id), log, sandbox.installed)
    };
    if extent == Extent::Half {
        return Err(half_done());
    }
    let Some(step) = step(&workspace)? else {
        return Ok(InstallReply {
            command: None,
            found_by: None,
        });
    };
    if !installed {
        let argv = ["sh", "-c", &step].map(str::to_owned);
        let ended = logged(&argv, &workspace, &log, &BTreeMap::new())?
            .ended()
            .await?;
        if ended != ExecReply::Exited(0) {
            let text = format!("`{step}` ended with {ended:?}");
            return Err(ProviderError::new(ErrorKind::InstallFailed, text).log_tail(tail(&log)));
        }
        let store = store.lock();
        let mut sandbox = judge.enter_running(&store, &request.sandbox_id)?;
        sandbox.installed = true;
        store.keep_sandbox(&sandbox);
    }
    Ok(InstallReply {
        command: Some(step),
        found_by: Some(".alpine.toml".to_owned()),
    })
}

fn step(workspace: &Path) -> Reply<Option<String>> {
    let Ok(text) = fs::read_to_string(workspace.join(".alpine.toml")) else {
        return Ok(None);
    };
    let table: toml::Table = toml::from_str(&text)
        .map_err(|error| ProviderError::new(ErrorKind::ConfigInvalid, error.to_string()))?;
    let step = table.get("setup").and_then(|setup| setup.get("install"));
    Ok(step.and_then(|step| step.as_str()).map(str::to_owned))
}

/// A command whose output goes to a log, anew.
fn logged(
    argv: &[String],
    workspace: &Path,
    log: &Path,
    env: &BTreeMap<String, String>,
) -> Reply<process::Group> {
    let failed = |error: std::io::Error| ProviderError::io(log.display(), &error);
    let out = File::create(log).map_err(failed)?;
    let err = out.try_clone().map_err(failed)?;
    let mut command = process::command(argv, workspace);
    command
        .envs(env)
        .stdin(Stdio::null())
        .stdout(out)
        .stderr(err);
    process::spawn(command, &argv[0])
}

fn tail(log: &Path) -> Vec<String> {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<_> = text.lines().map(str::to_owned).collect();
    lines[lines.len().saturating_sub(20)..].to_vec()
}

/// Ends every process, and says so.
pub(super) async fn stop(
    judge: &Judge<'_>,
    store: &Store,
    extent: Extent,
    request: &StopRequest,
) -> Reply<StopReply> {
    let id = &request.sandbox_id;
    let workspace = {
        let store = store.lock();
        let sandbox = judge.enter(&store, id)?;
        if sandbox.lost {
            return Err(not_found(id));
        }
        store.workspace(id.as_str())
    };
    if extent == Extent::Half {
        return Err(half_done());
    }
    let forced = process::end(&workspace, Duration::from_millis(request.grace_ms)).await?;
    let store = store.lock();
    let mut sandbox = judge.enter(&store, id)?;
    sandbox.run = Run::Stopped;
    if let Some(agent) = &mut sandbox.agent {
        agent.ready = false;
    }
    store.keep_sandbox(&sandbox);
    Ok(StopReply { forced })
}

/// Ends what runs, if the caller may destroy it.
pub(super) async fn end_all(judge: &Judge<'_>, store: &Store, id: &SandboxId) -> Reply<()> {
    let workspace: PathBuf = {
        let store = store.lock();
        if let Some(mut sandbox) = store.sandbox(id.as_str()) {
            judge.raise_fence(&mut sandbox)?;
            sandbox.run = Run::Stopped;
            store.keep_sandbox(&sandbox);
        }
        store.workspace(id.as_str())
    };
    process::end(&workspace, Duration::ZERO).await.map(drop)
}
