//! Who comes late changes nothing.

use crate::bench::Bench;
use crate::called::{Called, Checking, broken, said, same};
use crate::catalogue::{Check, check};
use crate::sandbox::Sandbox;
use alpine_provider_api::*;

pub(crate) const CHECKS: &[Check] = &[
    check!(
        Fencing,
        "fence.older",
        "a call under an older fence than the highest seen is `fenced`, and changes nothing",
        older,
        Provision
    ),
    check!(
        Fencing,
        "fence.destroyed",
        "a destroyed id stays destroyed, whatever the fence",
        destroyed,
        Destroy
    ),
    check!(
        Fencing,
        "fence.unguarded",
        "inspect, list, logs, exec and read_object check no fence",
        unguarded,
        Exec
    ),
];

/// Each guarded method's answer has to be of this kind; `object` is one that could be restored. What may be asked of a sandbox
/// that was destroyed, too, is left out.
async fn all_refuse(
    sandbox: &Sandbox<'_>,
    object: Option<&str>,
    kind: ErrorKind,
    when: &str,
) -> Checking {
    let bench = sandbox.bench;
    let has = |method| bench.shared.describe.has(method);
    let must = |method: Method, error: Option<ProviderError>| match error {
        Some(error) if error.kind == kind => Ok(()),
        other => {
            let found = other.map_or("an answer".to_owned(), |error| said(&error));
            broken(format!("`{method}` {when} is `{}`", kind.as_str()), found)
        }
    };
    fn refusal<R>(told: Called<R>) -> Option<ProviderError> {
        told.reply.err()
    }
    must(Method::Provision, refusal(sandbox.provision().await?))?;
    if has(Method::SyncRepo) {
        let told = sandbox.sync(&bench.repository().pinned).await?;
        must(Method::SyncRepo, refusal(told))?;
    }
    if has(Method::Install) {
        must(Method::Install, refusal(sandbox.install().await?))?;
    }
    if has(Method::StartAgent) {
        let told = sandbox.start(AgentSpec::none(), 1000).await?;
        must(Method::StartAgent, refusal(told))?;
    }
    must(Method::Stop, refusal(sandbox.stop(0).await?))?;
    if has(Method::Capture) {
        must(Method::Capture, refusal(sandbox.capture(1).await?))?;
    }
    if let Some(object) = object {
        must(Method::Restore, refusal(sandbox.restore(object).await?))?;
    }
    Ok(())
}

/// A durable object of another sandbox, where one can be made and restored.
async fn object(bench: &Bench<'_>) -> Checking<Option<String>> {
    let needed = [
        Method::SyncRepo,
        Method::Capture,
        Method::Persist,
        Method::Restore,
    ];
    if !needed
        .iter()
        .all(|method| bench.shared.describe.has(*method))
    {
        return Ok(None);
    }
    let from = &bench.repository().pinned;
    let (object, _) = bench.sandbox()?.filled(from).await?.kept(1).await?;
    Ok(Some(object))
}

async fn older(bench: &Bench<'_>) -> Checking {
    let mut sandbox = bench.sandbox()?.made().await?;
    if bench.shared.describe.has(Method::SyncRepo) {
        sandbox = sandbox.filled(&bench.repository().pinned).await?;
    }
    let object = object(bench).await?;
    let newer = sandbox.under(sandbox.fence + 2);
    newer.provision().await?.ok("a newer fence is taken")?;
    bench.reopen().await;
    let when = "under an older fence";
    all_refuse(&sandbox, object.as_deref(), ErrorKind::Fenced, when).await?;
    if bench.shared.describe.has(Method::Persist) {
        let request = sandbox.persist_request(1, None);
        let told = sandbox.persist_as(request).await?;
        told.refused(&[ErrorKind::Fenced], "`persist` under an older fence")?;
    }
    let told = sandbox.destroy().await?;
    told.refused(&[ErrorKind::Fenced], "`destroy` under an older fence")?;
    let state = "after calls under an older fence";
    sandbox.is(SandboxState::Running, state).await?;
    let same_again = newer.provision().await?;
    same_again.ok("the highest fence goes on")?;
    Ok(())
}

async fn destroyed(bench: &Bench<'_>) -> Checking {
    let sandbox = bench.sandbox()?.made().await?;
    let object = object(bench).await?;
    sandbox.destroy().await?.ok("destroy destroys it")?;
    bench.reopen().await;
    for fence in [sandbox.fence, sandbox.fence + 1] {
        let late = sandbox.under(fence);
        let when = "of a destroyed sandbox";
        all_refuse(&late, object.as_deref(), ErrorKind::Destroyed, when).await?;
    }
    sandbox
        .is(SandboxState::Missing, "after late calls")
        .await?;
    same("how often it is listed", &0, &sandbox.times_listed().await?)
}

async fn unguarded(bench: &Bench<'_>) -> Checking {
    let sandbox = bench.sandbox()?.made().await?;
    let newer = sandbox.under(sandbox.fence + 2);
    newer.provision().await?.ok("a newer fence is taken")?;
    let older = sandbox.under(1);
    older
        .is(SandboxState::Running, "under an older fence")
        .await?;
    same("how often it is listed", &1, &older.times_listed().await?)?;
    older.sh("true").await?;
    if bench.shared.describe.has(Method::Logs) {
        let told = older.log(LogName::Install).await?;
        told.ok("logs checks no fence")?;
    }
    let told = sandbox.under(sandbox.fence + 2).stop(0).await?;
    told.ok("the highest fence goes on")?;
    Ok(())
}
