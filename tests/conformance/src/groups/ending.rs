//! Sandboxes are stopped and destroyed.

use crate::bench::Bench;
use crate::called::{Checking, broken, same};
use crate::catalogue::{Check, check};
use crate::sandbox::{Sandbox, no_input};
use alpine_provider_api::*;
use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

pub(crate) const CHECKS: &[Check] = &[
    check!(
        Ending,
        "stop.no_process",
        "stop answers when no process of the sandbox is left, one that ignores the graceful signal and one that has cleared its environment included",
        no_process,
        Stop
    ),
    check!(
        Ending,
        "stop.graceful",
        "stop sends a graceful signal first, and waits for who ends upon it",
        graceful,
        Stop
    ),
    check!(
        Ending,
        "stop.twice",
        "a stopped sandbox stays stopped, and its storage stays readable",
        stop_twice,
        Stop | SyncRepo
    ),
    check!(
        Ending,
        "destroy.everything",
        "destroy ends what runs and removes what the sandbox stored: it is missing, listed no more, and can't be used",
        everything,
        Destroy
    ),
    check!(
        Ending,
        "destroy.again",
        "destroy of what is destroyed is done already, and one that never was is remembered as destroyed too",
        again,
        Destroy
    ),
    check!(
        Ending,
        "destroy.objects_stay",
        "durable objects stay when their sandbox is destroyed",
        objects_stay,
        SyncRepo | Capture | Persist | ReadObject
    ),
];

/// What takes no hint to end.
const STUBBORN: &str = "trap \"\" TERM HUP INT";

/// What runs a program that nothing of its caller is left in: no environment, no session where `setsid` is there, no parent.
const APART: &str = "env -i $(command -v setsid)";

/// Leaves a process behind that writes down its life, into a file that it holds open; `by` starts it. That its directory is gone
/// does not end it at once, since `destroy` has to: but it ends soon, so that a provider that fails here leaves nothing for ever.
async fn haunt(sandbox: &Sandbox<'_>, trap: &str, by: &str) -> Checking {
    let script = format!(
        "rm -f began; {by} sh -c '{trap}; exec >> beat; echo > began; i=0; while [ -e began ] || [ $((i += 1)) -lt 150 ]; do echo beat; sleep 0.02; done' </dev/null >/dev/null 2>&1 & until [ -e began ]; do sleep 0.01; done"
    );
    sandbox.sh(&script).await.map(drop)
}

/// What a workspace holds, where the host sees it: held open, so that what becomes of it can be told whatever it is called.
#[derive(Debug)]
struct Stored {
    workspace: File,
    beat: File,
}

impl Stored {
    fn of(workspace: &Path) -> Checking<Self> {
        let open = |path: &Path| {
            let opened = File::open(path);
            opened.or_else(|error| broken("the storage is readable", error.to_string()))
        };
        Ok(Self {
            workspace: open(workspace)?,
            beat: open(&workspace.join("beat"))?,
        })
    }

    /// No process writes to it, and it is nowhere any more, or soon: what is nobody's may be deleted a little later.
    async fn is_gone(&self) -> Checking {
        let size = || self.beat.metadata().map(|meta| meta.len()).ok();
        let first = size();
        tokio::time::sleep(Duration::from_millis(150)).await;
        same("what a process has written after destroy", &first, &size())?;
        let at = format!("/proc/self/fd/{}", self.workspace.as_raw_fd());
        let limit = Instant::now() + Duration::from_secs(3);
        loop {
            match fs::read_link(&at).map(|at| at.display().to_string()) {
                Ok(at) if !at.ends_with(" (deleted)") && Instant::now() > limit => {
                    return broken("nothing is left of the workspace", format!("it is `{at}`"));
                }
                Ok(at) if !at.ends_with(" (deleted)") => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                Ok(_) | Err(_) => return Ok(()),
            }
        }
    }
}

/// What the process has written by now, and a while later.
async fn beats(sandbox: &Sandbox<'_>, visible: Option<&Path>) -> Checking<(String, String)> {
    if let Some(workspace) = visible {
        let file = workspace.join("beat");
        let size = || match std::fs::metadata(&file) {
            Ok(meta) => Ok(meta.len().to_string()),
            Err(error) => broken("the storage stays readable", error.to_string()),
        };
        let first = size()?;
        tokio::time::sleep(Duration::from_millis(250)).await;
        return Ok((first, size()?));
    }
    // Where the host can't see the workspace, two captures can.
    let mut counts = Vec::new();
    for generation in 1..=2 {
        let staged = sandbox.capture(generation).await?;
        let staged = staged.ok("capture stages a stopped sandbox")?;
        let request = sandbox.persist_request(generation, Some(staged));
        let told = sandbox.persist_as(request).await?;
        let object = told.ok("persist keeps it")?.durable_object_id;
        let other = sandbox.bench.sandbox()?.made().await?;
        other.restore(&object).await?.ok("restore brings it back")?;
        counts.push(other.sh("wc -c < beat").await?);
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    Ok((counts.remove(0), counts.remove(0)))
}

async fn provisioned<'a>(bench: &'a Bench<'_>) -> Checking<(Sandbox<'a>, Option<PathBuf>)> {
    let sandbox = bench.sandbox()?;
    let reply = sandbox.provision().await?.ok("provision makes it")?;
    let visible = reply.workspace_path.filter(|path| path.is_dir());
    Ok((sandbox, visible))
}

async fn no_process(bench: &Bench<'_>) -> Checking {
    let (sandbox, visible) = provisioned(bench).await?;
    haunt(&sandbox, STUBBORN, "").await?;
    haunt(&sandbox, STUBBORN, APART).await?;
    let told = sandbox.stop(200).await?;
    let reply = told.ok("stop ends every process")?;
    let (first, second) = beats(&sandbox, visible.as_deref()).await?;
    same("what a process has written after stop", &first, &second)?;
    same("whether some had to be killed", &true, &reply.forced)?;
    sandbox.is(SandboxState::Exited, "after stop").await
}

async fn graceful(bench: &Bench<'_>) -> Checking {
    let (sandbox, visible) = provisioned(bench).await?;
    let last_words = "trap \"sleep 0.3; echo bye >> bye; exit\" TERM";
    haunt(&sandbox, last_words, "").await?;
    let told = sandbox.stop(20_000).await?;
    told.ok("stop ends every process")?;
    let Some(workspace) = visible else {
        return Ok(());
    };
    let bye = std::fs::read_to_string(workspace.join("bye")).unwrap_or_default();
    same(
        "the last words of who ends upon the signal",
        &"bye\n".to_owned(),
        &bye,
    )
}

async fn stop_twice(bench: &Bench<'_>) -> Checking {
    let sandbox = bench.sandbox()?.filled(&bench.repository().pinned).await?;
    for _ in 0..3 {
        sandbox.stop(1000).await?.ok("stop answers")?;
        sandbox.is(SandboxState::Exited, "after stop").await?;
        bench.reopen().await;
    }
    let told = sandbox.exec(&["true"]).await?;
    told.refused(&[ErrorKind::NotFound], "exec in a stopped sandbox")?;
    if bench.shared.describe.has(Method::Capture) {
        sandbox.capture(1).await?.ok("its storage is readable")?;
    }
    same("how often it is listed", &1, &sandbox.times_listed().await?)
}

async fn everything(bench: &Bench<'_>) -> Checking {
    let (sandbox, visible) = provisioned(bench).await?;
    haunt(&sandbox, STUBBORN, "").await?;
    haunt(&sandbox, STUBBORN, APART).await?;
    let stored = visible.as_deref().map(Stored::of).transpose()?;
    let listed = sandbox.times_listed().await?;
    same("how often it is listed before", &1, &listed)?;
    let script = format!("{STUBBORN}; echo > begun; while :; do sleep 0.02; done");
    let request = sandbox.exec_request(&["sh", "-c", &script]);
    let at = sandbox.begin(Method::Exec, &request).await?;
    let destroying = async {
        let began = "until [ -e begun ]; do sleep 0.01; done";
        sandbox.sh(began).await?;
        sandbox.destroy().await?.ok("destroy destroys it")?;
        match &stored {
            Some(stored) => stored.is_gone().await,
            None => Ok(()),
        }
    };
    // Who can't see into the sandbox sees that what runs there ends.
    let running = at.end(at.provider.exec(&at.call, request, no_input()));
    tokio::try_join!(running, destroying)?;
    bench.reopen().await;
    sandbox.is(SandboxState::Missing, "after destroy").await?;
    same("how often it is listed", &0, &sandbox.times_listed().await?)?;
    let told = sandbox.exec(&["true"]).await?;
    let kinds = &[ErrorKind::NotFound, ErrorKind::Destroyed];
    told.refused(kinds, "exec in a destroyed sandbox")?;
    match visible {
        Some(path) if path.exists() => broken(
            "nothing is left of the workspace",
            format!("{} is there", path.display()),
        ),
        Some(_) | None => Ok(()),
    }
}

async fn again(bench: &Bench<'_>) -> Checking {
    let never = bench.sandbox()?;
    let sandbox = bench.sandbox()?.made().await?;
    for one in [&sandbox, &never] {
        for _ in 0..2 {
            one.destroy().await?.ok("destroy answers")?;
            bench.reopen().await;
        }
        let told = one.provision().await?;
        told.refused(&[ErrorKind::Destroyed], "provision of a destroyed id")?;
        one.is(SandboxState::Missing, "after destroy").await?;
    }
    Ok(())
}

async fn objects_stay(bench: &Bench<'_>) -> Checking {
    let sandbox = bench.sandbox()?.filled(&bench.repository().pinned).await?;
    let (object, _) = sandbox.kept(1).await?;
    let before = sandbox.read(&object).await?.ok("it is read")?;
    sandbox.destroy().await?.ok("destroy destroys it")?;
    bench.reopen().await;
    let after = sandbox.read(&object).await?.ok("it is read afterwards")?;
    same("the object", &before, &after)
}
