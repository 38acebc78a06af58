//! Workspaces that come back.

use super::{MANIFEST, same_manifest, with_work};
use crate::bench::Bench;
use crate::called::{Checking, broken, said, same};
use alpine_provider_api::*;
use std::time::Duration;

pub(super) async fn restore_whole(bench: &Bench<'_>) -> Checking {
    let (sandbox, before) = with_work(bench).await?;
    let (object, staged) = sandbox.kept(1).await?;
    if let Some(left) = staged.left_out.first() {
        return broken("nothing of it is left out", format!("{left:?}"));
    }
    let other = bench.sandbox()?.made().await?;
    bench.reopen().await;
    other.restore(&object).await?.ok("restore brings it back")?;
    let after = other.sh(MANIFEST).await?;
    same_manifest("the workspace", &before, &after)?;
    other.is(SandboxState::Running, "after restore").await
}

pub(super) async fn restore_twice(bench: &Bench<'_>) -> Checking {
    let (sandbox, before) = with_work(bench).await?;
    let (object, _) = sandbox.kept(1).await?;
    let other = bench.sandbox()?.made().await?;
    let first = other.restore(&object).await?.ok("restore brings it back")?;
    for _ in 0..2 {
        bench.reopen().await;
        let again = other.restore(&object).await?.ok("restore again answers")?;
        same("how much there is", &first, &again)?;
        same_manifest("the workspace", &before, &other.sh(MANIFEST).await?)?;
    }
    Ok(())
}

pub(super) async fn restore_given_up(bench: &Bench<'_>) -> Checking {
    let (sandbox, before) = with_work(bench).await?;
    let (object, _) = sandbox.kept(1).await?;
    for _ in 0..4 {
        let other = bench.sandbox()?.made().await?;
        let request = RestoreRequest {
            sandbox_id: other.id.clone(),
            durable_object_id: object.clone(),
        };
        let after = Duration::from_micros(bench.random(8000));
        let at = other.begin(Method::Restore, &request).await?;
        let call = at.provider.restore(&at.call, request);
        if let Some(Err(error)) = at.end_dropped(call, tokio::time::sleep(after)).await {
            return broken("restore brings it back", said(&error));
        }
        drop(at);
        other
            .restore(&object)
            .await?
            .ok("the repeat brings it back")?;
        same_manifest("the workspace", &before, &other.sh(MANIFEST).await?)?;
    }
    Ok(())
}
