//! What a provider says of itself.

use crate::bench::Bench;
use crate::called::{Called, Checking, broken, last_lines, said, same, skip};
use crate::catalogue::{Check, check};
use crate::sandbox::Sandbox;
use alpine_provider_api::*;
use std::collections::BTreeSet;

pub(crate) const CHECKS: &[Check] = &[
    check!(
        Describe,
        "describe.again",
        "describe gives the same answer again, from a fresh instance too",
        again
    ),
    check!(
        Describe,
        "describe.whole",
        "describe names a name, a version, an isolation, and each method and feature once; provision, exec, inspect, list, stop and destroy are among them",
        whole
    ),
    check!(
        Describe,
        "describe.unannounced",
        "a method that is not announced answers `unsupported`",
        unannounced
    ),
];

async fn ask(bench: &Bench<'_>) -> Checking<DescribeReply> {
    let provider = bench.provider().await?;
    let reply = provider.describe().await;
    reply.or_else(|error| {
        bench.trace.add_all(last_lines(&error));
        broken("describe answers", said(&error))
    })
}

pub(crate) async fn opens(bench: &Bench<'_>) -> Checking {
    ask(bench).await.map(drop)
}

async fn again(bench: &Bench<'_>) -> Checking {
    let first = ask(bench).await?;
    let second = ask(bench).await?;
    bench.reopen().await;
    let third = ask(bench).await?;
    same("the same answer from one instance", &first, &second)?;
    same("the same answer from a fresh instance", &first, &third)
}

async fn whole(bench: &Bench<'_>) -> Checking {
    let said = ask(bench).await?;
    for (what, text) in [
        ("name", &said.name),
        ("version", &said.version),
        ("tier of isolation", &said.isolation.tier),
    ] {
        if text.is_empty() {
            return broken(format!("a {what}"), "an empty one");
        }
    }
    for (what, names) in [("method", &said.methods), ("feature", &said.features)] {
        let set: BTreeSet<_> = names.iter().collect();
        if set.len() != names.len() {
            return broken(format!("each {what} once"), format!("{names:?}"));
        }
    }
    let needed = [
        Method::Provision,
        Method::Exec,
        Method::Inspect,
        Method::List,
        Method::Stop,
        Method::Destroy,
    ];
    match needed.into_iter().find(|method| !said.has(*method)) {
        Some(method) => broken(format!("`{method}` is announced"), "it is not"),
        None => Ok(()),
    }
}

async fn unannounced(bench: &Bench<'_>) -> Checking {
    let said = ask(bench).await?;
    let absent: Vec<Method> = Method::ALL
        .into_iter()
        .filter(|method| !said.has(*method))
        .collect();
    if absent.is_empty() {
        return skip("every method is announced");
    }
    let sandbox = bench.sandbox()?.made().await?;
    for method in absent {
        let kind = refusal(&sandbox, method).await?;
        if kind != Some(ErrorKind::Unsupported) {
            let found = kind.map_or("an answer", ErrorKind::as_str);
            return broken(format!("`{method}` answers `unsupported`"), found);
        }
    }
    Ok(())
}

fn kind<R>(told: Called<R>) -> Option<ErrorKind> {
    told.reply.err().map(|error| error.kind)
}

/// How a method that a provider may lack refuses; none where it answers.
async fn refusal(sandbox: &Sandbox<'_>, method: Method) -> Checking<Option<ErrorKind>> {
    Ok(match method {
        Method::SyncRepo => kind(sandbox.sync(&sandbox.bench.repository().pinned).await?),
        Method::Install => kind(sandbox.install().await?),
        Method::StartAgent => kind(sandbox.start(AgentSpec::none(), 1000).await?),
        Method::OpenAgent => kind(sandbox.open().await?),
        Method::Logs => kind(sandbox.log(LogName::Install).await?),
        Method::Capture | Method::Persist | Method::ReadObject | Method::Restore => {
            refusal_to_keep(sandbox, method).await?
        }
        // Without these, nothing is a provider: another check sees to them.
        Method::Describe
        | Method::Provision
        | Method::Inspect
        | Method::List
        | Method::Exec
        | Method::Stop
        | Method::Destroy => Some(ErrorKind::Unsupported),
    })
}

async fn refusal_to_keep(sandbox: &Sandbox<'_>, method: Method) -> Checking<Option<ErrorKind>> {
    Ok(match method {
        Method::Capture => kind(sandbox.capture(1).await?),
        Method::Persist => kind(sandbox.persist_as(sandbox.persist_request(1, None)).await?),
        Method::ReadObject => kind(sandbox.read("none").await?),
        Method::Restore => kind(sandbox.restore("none").await?),
        Method::Describe
        | Method::Provision
        | Method::SyncRepo
        | Method::Install
        | Method::StartAgent
        | Method::OpenAgent
        | Method::Inspect
        | Method::List
        | Method::Exec
        | Method::Logs
        | Method::Stop
        | Method::Destroy => None,
    })
}
