//! Sandboxes are made, listed and looked at.

use crate::bench::Bench;
use crate::called::{Checking, broken, same};
use crate::catalogue::{Check, check};
use crate::groups::crash::after;
use crate::sandbox::Sandbox;
use alpine_provider_api::*;
use std::path::Path;
use std::time::{Duration, Instant};

pub(crate) const CHECKS: &[Check] = &[
    check!(
        Provision,
        "provision.makes",
        "provision makes the sandbox of that id, empty and running",
        makes,
        Provision
    ),
    check!(
        Provision,
        "provision.twice",
        "provision again gives the same reply and makes no second sandbox",
        twice,
        Provision
    ),
    check!(
        Provision,
        "provision.other_arguments",
        "provision again with other arguments is a `conflict`, and changes nothing",
        other_arguments,
        Provision
    ),
    check!(
        Provision,
        "provision.at_once",
        "one id provisioned many times at once is one sandbox",
        at_once,
        Provision
    ),
    check!(
        Provision,
        "provision.failing_midway",
        "a provision that was struck midway is found by list where anything of it is there, and a repeat finishes it",
        failing_midway,
        Provision
    ),
    check!(
        Provision,
        "provision.labels",
        "a sandbox bears its ledger's id and its session's, and no other ledger lists it",
        labels,
        Provision
    ),
    check!(
        Provision,
        "list.all",
        "list gives every sandbox of the ledger once, with its state, stopped ones included and destroyed ones not",
        all,
        List
    ),
    check!(
        Provision,
        "inspect.missing",
        "a sandbox that is provably not there is `missing`, one of which that is not proven `unknown`; neither is an error",
        missing,
        Inspect
    ),
    check!(
        Provision,
        "never_was.refused",
        "what is asked of a sandbox that never was is `not_found` where that is proven, and `io` where it is not",
        never_was,
        Exec | Stop
    ),
];

async fn makes(bench: &Bench<'_>) -> Checking {
    let sandbox = bench.sandbox()?.made().await?;
    sandbox.is(SandboxState::Running, "after provision").await?;
    let found = sandbox.sh("ls -A").await?;
    same("what is in the new workspace", &String::new(), &found)
}

async fn twice(bench: &Bench<'_>) -> Checking {
    let sandbox = bench.sandbox()?;
    let first = sandbox.provision().await?.ok("provision makes it")?;
    sandbox.sh("echo kept > kept").await?;
    let again = "provision of a sandbox that is there gives its reply";
    let second = sandbox.provision().await?.ok(again)?;
    bench.reopen().await;
    let third = sandbox.provision().await?.ok(again)?;
    same("the same reply", &first, &second)?;
    same("the same reply from a fresh instance", &first, &third)?;
    let kept = sandbox.sh("cat kept").await?;
    same("what was in it", &"kept\n".to_owned(), &kept)?;
    same("how often it is listed", &1, &sandbox.times_listed().await?)
}

async fn other_arguments(bench: &Bench<'_>) -> Checking {
    let sandbox = bench.sandbox()?.made().await?;
    let request = sandbox.provision_request();
    let other_session = ProvisionRequest {
        session_id: "ses_another".to_owned(),
        ..request.clone()
    };
    let other_ledger = ProvisionRequest {
        ledger_id: "another".to_owned(),
        ..request
    };
    for (what, request) in [("session", other_session), ("ledger", other_ledger)] {
        let told = sandbox.provision_as(request).await?;
        told.refused(
            &[ErrorKind::Conflict],
            &format!("another {what} is refused"),
        )?;
    }
    same("how often it is listed", &1, &sandbox.times_listed().await?)
}

async fn at_once(bench: &Bench<'_>) -> Checking {
    let sandbox = bench.sandbox()?;
    let one = || sandbox.provision();
    let answers = tokio::join!(one(), one(), one(), one(), one(), one());
    let answers = [
        answers.0, answers.1, answers.2, answers.3, answers.4, answers.5,
    ];
    let mut replies = Vec::new();
    for told in answers {
        replies.push(told?.ok("each provision of one id at once is answered")?);
    }
    for reply in &replies {
        same("one reply", &replies[0], reply)?;
    }
    sandbox.sh("true").await?;
    same("how often it is listed", &1, &sandbox.times_listed().await?)
}

async fn failing_midway(bench: &Bench<'_>) -> Checking {
    let (first, whole) = (bench.sandbox()?, bench.sandbox()?);
    // The first may take longer than any after it.
    first.provision().await?.ok("provision makes it")?;
    let begun = Instant::now();
    let told = whole.provision().await?;
    let workspace = told.ok("provision makes it")?.workspace_path;
    let span = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
    for part in 0..8 {
        let sandbox = bench.sandbox()?;
        let time = (part * span + bench.random(span)) / 8;
        strike(&sandbox, Duration::from_micros(time)).await?;
        let state = sandbox.inspect(false).await?.state;
        let is_there = matches!(state, SandboxState::Running | SandboxState::Exited);
        // Its workspace is where that of another is, but for the id.
        let is_seen = workspace.as_ref().is_some_and(|path| {
            let path = path.to_string_lossy();
            path.contains(whole.id.as_str())
                && Path::new(&path.replace(whole.id.as_str(), sandbox.id.as_str())).exists()
        });
        // Looked for last: what was given up may go on, and only what was there before has to be listed.
        let listed = sandbox.times_listed().await?;
        if (is_there || is_seen) && listed != 1 {
            let seen = if is_seen { "is there" } else { "is not seen" };
            return broken(
                "what is left of a provision that was given up is listed once",
                format!(
                    "it is `{}`, its workspace {seen}, and it is listed {listed} times",
                    state.as_str()
                ),
            );
        }
        let sandbox = sandbox.made().await?;
        sandbox
            .is(SandboxState::Running, "after the repeat")
            .await?;
        same("how often it is listed", &1, &sandbox.times_listed().await?)?;
    }
    Ok(())
}

/// Ends a provision so long after it began: by a kill of its process, or, where there is none, by giving it up.
async fn strike(sandbox: &Sandbox<'_>, time: Duration) -> Checking {
    let bench = sandbox.bench;
    bench.fresh(false);
    let request = sandbox.provision_request();
    let at = sandbox.begin(Method::Provision, &request).await?;
    // It may be started with its first call only.
    let _ = at.provider.describe().await;
    let call = at.provider.provision(&at.call, request);
    match bench.shared.subject.aim() {
        Some(kill) => {
            let killing = after(time, kill);
            let told = at.end(call).await;
            let _ = killing.await;
            bench.trace.add(format!("(killed after {time:?})"));
            bench.reopen().await;
            told?;
        }
        None => drop(at.end_dropped(call, after(time, || ())).await),
    }
    bench.fresh(bench.shared.options.fresh);
    Ok(())
}

async fn labels(bench: &Bench<'_>) -> Checking {
    let sandbox = bench.sandbox()?;
    let mut request = sandbox.provision_request();
    let own = format!("{}-of-its-own", bench.ledger());
    request.ledger_id.clone_from(&own);
    let told = sandbox.provision_as(request).await?;
    told.ok("provision makes it")?;
    bench.reopen().await;
    let expected = vec![ListedSandbox {
        sandbox_id: sandbox.id.clone(),
        session_id: sandbox.session.clone(),
        state: SandboxState::Running,
    }];
    same(
        "the list of its ledger",
        &expected,
        &sandbox.listed(&own).await?,
    )?;
    let others = sandbox.listed(&bench.ledger()).await?;
    match others.iter().find(|one| one.sandbox_id == sandbox.id) {
        Some(_) => broken("no other ledger lists it", "one does"),
        None => Ok(()),
    }
}

async fn all(bench: &Bench<'_>) -> Checking {
    let running = bench.sandbox()?.made().await?;
    let stopped = bench.sandbox()?.made().await?;
    let destroyed = bench.sandbox()?.made().await?;
    stopped.stop(0).await?.ok("stop stops it")?;
    destroyed.destroy().await?.ok("destroy destroys it")?;
    let listed = running.listed(&bench.ledger()).await?;
    let mut found: Vec<_> = listed
        .into_iter()
        .map(|one| (one.sandbox_id, one.state))
        .collect();
    let mut expected = vec![
        (running.id.clone(), SandboxState::Running),
        (stopped.id.clone(), SandboxState::Exited),
    ];
    found.sort_by(|one, other| one.0.cmp(&other.0));
    expected.sort_by(|one, other| one.0.cmp(&other.0));
    same("the list", &expected, &found)
}

async fn missing(bench: &Bench<'_>) -> Checking {
    let never = bench.sandbox()?;
    let destroyed = bench.sandbox()?.made().await?;
    destroyed.destroy().await?.ok("destroy destroys it")?;
    for probe in [false, true] {
        let found = destroyed.inspect(probe).await?.state;
        let what = "the state of one that was destroyed";
        same(what, &SandboxState::Missing, &found)?;
        match never.inspect(probe).await?.state {
            SandboxState::Missing | SandboxState::Unknown => {}
            found @ (SandboxState::Running | SandboxState::Exited) => {
                return broken("one that never was is `missing`", found.as_str());
            }
        }
    }
    same("how often it is listed", &0, &never.times_listed().await?)
}

async fn never_was(bench: &Bench<'_>) -> Checking {
    let sandbox = bench.sandbox()?;
    let kinds = &[ErrorKind::NotFound, ErrorKind::Io];
    let has = |method| bench.shared.describe.has(method);
    let told = sandbox.exec(&["true"]).await?;
    told.refused(kinds, "exec in a sandbox that never was")?;
    let told = sandbox.stop(0).await?;
    told.refused(kinds, "stop of a sandbox that never was")?;
    if has(Method::SyncRepo) {
        let told = sandbox.sync(&bench.repository().pinned).await?;
        told.refused(kinds, "sync_repo into a sandbox that never was")?;
    }
    if has(Method::Install) {
        let told = sandbox.install().await?;
        told.refused(kinds, "install in a sandbox that never was")?;
    }
    if has(Method::StartAgent) {
        let told = sandbox.start(AgentSpec::none(), 1000).await?;
        told.refused(kinds, "start_agent in a sandbox that never was")?;
    }
    if has(Method::Logs) {
        let told = sandbox.log(LogName::Install).await?;
        told.refused(kinds, "logs of a sandbox that never was")?;
    }
    if has(Method::Capture) {
        let told = sandbox.capture(1).await?;
        told.refused(kinds, "capture of a sandbox that never was")?;
    }
    Ok(())
}
