//! Fences, destroyed ids, other ledgers, and what is not announced.

use crate::world::{LEDGER, SESSION, World, call, id, stop_request, world};
use alpine_provider_api::*;

/// Every call that changes something, under a fence; what it failed with.
async fn guarded(world: &World, name: &str, fence: u64) -> Vec<(&'static str, Option<ErrorKind>)> {
    let (provider, call) = (world.provider(), call(fence));
    let sandbox_id = id(name);
    let sync = world.sync_request(name, &world.repo.head);
    let start = StartAgentRequest {
        sandbox_id: sandbox_id.clone(),
        agent: AgentSpec::none(),
        env: Default::default(),
        ready_ms: 1000,
        page: PageFacts::default(),
    };
    let capture = CaptureRequest {
        sandbox_id: sandbox_id.clone(),
        generation: 1,
    };
    let persist = PersistRequest {
        sandbox_id: sandbox_id.clone(),
        session_id: SESSION.to_owned(),
        generation: 1,
        payload: "{}".to_owned(),
        snapshot: None,
    };
    let restore = RestoreRequest {
        sandbox_id: sandbox_id.clone(),
        durable_object_id: "none".to_owned(),
    };
    let install = InstallRequest { sandbox_id };
    fn kind<T>(reply: Result<T, ProviderError>) -> Option<ErrorKind> {
        reply.err().map(|error| error.kind)
    }
    vec![
        (
            "provision",
            kind(
                provider
                    .provision(&call, world.provision_request(name))
                    .await,
            ),
        ),
        ("sync_repo", kind(provider.sync_repo(&call, sync).await)),
        ("install", kind(provider.install(&call, install).await)),
        (
            "start_agent",
            kind(provider.start_agent(&call, start).await),
        ),
        ("stop", kind(provider.stop(&call, stop_request(name)).await)),
        ("capture", kind(provider.capture(&call, capture).await)),
        ("persist", kind(provider.persist(&call, persist).await)),
        ("restore", kind(provider.restore(&call, restore).await)),
    ]
}

#[tokio::test]
async fn an_older_fence_and_a_destroyed_id_change_nothing() {
    let world = world(&[("a.txt", "one\n")]);
    let provider = world.provider();
    let request = world.provision_request("sbx_a");
    provider.provision(&call(5), request).await.unwrap();
    for (method, kind) in guarded(&world, "sbx_a", 4).await {
        assert_eq!(kind, Some(ErrorKind::Fenced), "{method}");
    }
    let sandbox_id = id("sbx_a");
    let destroy = DestroyRequest { sandbox_id };
    let refused = provider
        .destroy(&call(4), destroy.clone())
        .await
        .unwrap_err();
    assert_eq!(refused.kind, ErrorKind::Fenced);
    assert_eq!(world.state("sbx_a").await, SandboxState::Running);
    provider.destroy(&call(5), destroy.clone()).await.unwrap();
    for (method, kind) in guarded(&world, "sbx_a", 6).await {
        // A payload alone is kept of what was destroyed, too.
        let kept = method == "persist";
        assert_eq!(kind, (!kept).then_some(ErrorKind::Destroyed), "{method}");
    }
    provider.destroy(&call(6), destroy).await.unwrap();
    assert_eq!(world.state("sbx_a").await, SandboxState::Missing);
    assert!(!world.workspace("sbx_a").exists());
    // One that never was is remembered as destroyed too; of one that was never heard of, nothing is claimed.
    world.destroy("sbx_never").await.unwrap();
    let request = world.provision_request("sbx_never");
    let error = provider.provision(&call(1), request).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Destroyed);
    assert_eq!(world.state("sbx_other_home").await, SandboxState::Unknown);
    let error = world.stop("sbx_other_home", 1).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Io);
}

#[tokio::test]
async fn an_empty_fence_that_a_killed_call_left_is_no_obstacle() {
    let world = world(&[]);
    let provider = world.provider();
    let request = world.provision_request("sbx_a");
    provider.provision(&call(3), request.clone()).await.unwrap();
    let fence = world.place.state.join("records/sbx_a/fence");
    std::fs::write(&fence, "").unwrap();
    provider.provision(&call(3), request).await.unwrap();
    let error = world.stop("sbx_a", 2).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Fenced);
    std::fs::write(&fence, "").unwrap();
    world.stop("sbx_a", 3).await.unwrap();
    let sandbox_id = id("sbx_a");
    let destroy = DestroyRequest { sandbox_id };
    provider.destroy(&call(3), destroy).await.unwrap();
    assert!(!fence.exists());
}

#[tokio::test]
async fn a_sandbox_is_made_once_and_other_arguments_conflict() {
    let world = world(&[]);
    let (one, other) = (world.provider(), world.provider());
    let request = world.provision_request("sbx_a");
    let (call_one, call_other) = (call(1), call(1));
    let (one, other) = tokio::join!(
        one.provision(&call_one, request.clone()),
        other.provision(&call_other, request.clone())
    );
    assert_eq!(one.unwrap(), other.unwrap());
    let mut changed = request;
    changed.session_id = "ses_other".to_owned();
    let error = world
        .provider()
        .provision(&call(1), changed)
        .await
        .unwrap_err();
    assert_eq!(error.kind, ErrorKind::Conflict);
    world.destroy("sbx_a").await.unwrap();
}

#[tokio::test]
async fn only_the_ledgers_own_sandboxes_are_listed_and_those_that_were_only_begun() {
    let world = world(&[]);
    let provider = world.provider();
    world.provision("sbx_a").await;
    let mut foreign = world.provision_request("sbx_foreign");
    foreign.ledger_id = "ledger-2".to_owned();
    provider.provision(&call(1), foreign).await.unwrap();
    // Killed right after the intent was written.
    world.provision("sbx_begun").await;
    std::fs::remove_dir_all(world.workspace("sbx_begun").parent().unwrap()).unwrap();
    let request = ListRequest {
        ledger_id: LEDGER.to_owned(),
    };
    let listed = provider.list(&call(1), request).await.unwrap().sandboxes;
    let found: Vec<_> = listed
        .iter()
        .map(|one| (one.sandbox_id.as_str(), one.session_id.as_str(), one.state))
        .collect();
    assert_eq!(
        found,
        [
            ("sbx_a", SESSION, SandboxState::Running),
            ("sbx_begun", SESSION, SandboxState::Missing),
        ]
    );
    for name in ["sbx_a", "sbx_begun", "sbx_foreign"] {
        world.destroy(name).await.unwrap();
    }
}

#[tokio::test]
async fn what_is_not_announced_is_unsupported() {
    let world = world(&[]);
    world.provision("sbx_a").await;
    let provider = world.provider();
    let described = provider.describe().await.unwrap();
    assert!(described.has(Method::Restore) && !described.has(Method::OpenAgent));
    assert!(
        !described.announces(Feature::ServePage) && !described.announces(Feature::ServeProcess)
    );
    let request = OpenAgentRequest {
        sandbox_id: id("sbx_a"),
        link_ms: 1000,
    };
    let error = provider.open_agent(&call(1), request).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unsupported);
    let request = StartAgentRequest {
        sandbox_id: id("sbx_a"),
        agent: AgentSpec {
            name: "page".to_owned(),
            serve: Serve::Page,
        },
        env: Default::default(),
        ready_ms: 1000,
        page: PageFacts::default(),
    };
    let error = provider.start_agent(&call(1), request).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unsupported);
    world.destroy("sbx_a").await.unwrap();
}
