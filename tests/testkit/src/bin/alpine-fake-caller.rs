//! Calls the fake provider from a process of its own: `alpine-fake-caller SANDBOX FENCE METHOD…`.
//!
//! The fake's directory is in `ALPINE_TEST_FAKE_DIR`. Each reply is a line on standard output: `ok`, or the kind of error.

use alpine_provider_api::{
    BranchName, Call, CommitId, DestroyRequest, InstallRequest, Meta, ProviderError,
    ProvisionRequest, RepoUrl, SandboxId, SandboxProvider, StopRequest, SyncRepoRequest,
};
use alpine_testkit::FakeProvider;
use std::path::Path;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let directory = std::env::var_os("ALPINE_TEST_FAKE_DIR").expect("ALPINE_TEST_FAKE_DIR");
    let provider = FakeProvider::new(directory);
    let id = SandboxId::new(&arguments.next().expect("a sandbox")).expect("a sandbox's id");
    let call = Call::quiet(Meta {
        operation_id: format!("op_{}", std::process::id()),
        fence: arguments
            .next()
            .expect("a fence")
            .parse()
            .expect("a number"),
        attempt: 1,
        deadline_ms: 0,
        traceparent: None,
    });
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = runtime.expect("a runtime");
    for method in arguments {
        match runtime.block_on(answer(&provider, &call, id.clone(), &method)) {
            Ok(()) => println!("ok"),
            Err(error) => println!("{}", error.kind.as_str()),
        }
    }
}

async fn answer(
    provider: &FakeProvider,
    call: &Call,
    sandbox_id: SandboxId,
    method: &str,
) -> Result<(), ProviderError> {
    match method {
        "provision" => {
            let request = ProvisionRequest {
                session_id: format!("ses_{sandbox_id}"),
                sandbox_id,
                ledger_id: "ledger".to_owned(),
                allow_unsandboxed: false,
            };
            provider.provision(call, request).await.map(drop)
        }
        "sync_repo" => {
            let request = SyncRepoRequest {
                sandbox_id,
                repo: RepoUrl::parse("/repo", Path::new("/")).expect("a path"),
                branch: BranchName::new("main").expect("a branch"),
                commit: CommitId::new(&"a".repeat(40)).expect("a commit"),
                credential: None,
            };
            provider.sync_repo(call, request).await.map(drop)
        }
        "install" => provider
            .install(call, InstallRequest { sandbox_id })
            .await
            .map(drop),
        "stop" => {
            let request = StopRequest {
                sandbox_id,
                grace_ms: 0,
            };
            provider.stop(call, request).await.map(drop)
        }
        "destroy" => provider
            .destroy(call, DestroyRequest { sandbox_id })
            .await
            .map(drop),
        other => panic!("`{other}` is no method that this program calls"),
    }
}
