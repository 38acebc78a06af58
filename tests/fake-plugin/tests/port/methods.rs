//! Every method reaches the provider and comes back, as if it were compiled in.

use super::support::*;
use alpine_provider_api::*;
use alpine_testkit::{FakeControl, FakeProvider};
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use tokio::sync::mpsc;

fn sandbox() -> SandboxId {
    SandboxId::new("sbx_1").unwrap()
}

fn shown<R: Serialize>(reply: Reply<R>) -> Value {
    match reply {
        Ok(reply) => serde_json::to_value(reply).unwrap(),
        Err(error) => json!({ "error": error }),
    }
}

#[tokio::test]
async fn every_call_tells_the_callers_trace() {
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    for by in ALL {
        let behind = Behind::with(by, |config| config.traceparent = Some(trace.to_owned()));
        assert_eq!(behind.output(&["trace"]).await, trace, "{by:?}");
    }
}

/// One call of a method; the durable object of earlier ones is needed to read it back.
pub(crate) async fn ask(to: &dyn SandboxProvider, method: Method, object: &str) -> Value {
    let call = &Call::quiet(meta(10_000));
    let sandbox_id = sandbox();
    match method {
        Method::Describe => shown(to.describe().await),
        Method::Provision => {
            let request = ProvisionRequest {
                sandbox_id,
                ledger_id: "ledger".to_owned(),
                session_id: "ses_1".to_owned(),
                allow_unsandboxed: false,
            };
            shown(to.provision(call, request).await)
        }
        Method::SyncRepo => {
            let token = Secret::new("a-token-of-the-remote".to_owned());
            let request = SyncRepoRequest {
                sandbox_id,
                repo: RepoUrl::parse("/repo", Path::new("/")).unwrap(),
                branch: BranchName::new("main").unwrap(),
                commit: CommitId::new(&"0123456789".repeat(4)).unwrap(),
                credential: Some(GitCredential::Token {
                    host: "localhost".to_owned(),
                    token,
                }),
            };
            shown(to.sync_repo(call, request).await)
        }
        Method::Install => shown(to.install(call, InstallRequest { sandbox_id }).await),
        Method::StartAgent => {
            let token = Secret::new("a-token-of-the-agent".to_owned());
            let request = StartAgentRequest {
                sandbox_id,
                agent: AgentSpec {
                    name: "page".to_owned(),
                    serve: Serve::Page,
                },
                env: BTreeMap::from([("TOKEN".to_owned(), token)]),
                ready_ms: 1000,
                page: PageFacts::default(),
            };
            shown(to.start_agent(call, request).await)
        }
        Method::OpenAgent => {
            let request = OpenAgentRequest {
                sandbox_id,
                link_ms: 1000,
            };
            shown(to.open_agent(call, request).await)
        }
        Method::Inspect => {
            let request = InspectRequest {
                sandbox_id,
                probe: true,
            };
            shown(to.inspect(call, request).await)
        }
        Method::List => {
            let ledger_id = "ledger".to_owned();
            shown(to.list(call, ListRequest { ledger_id }).await)
        }
        Method::Exec => {
            let request = ExecRequest {
                sandbox_id,
                argv: vec!["exit".to_owned(), "7".to_owned()],
                env: BTreeMap::new(),
            };
            shown(to.exec(call, request, mpsc::channel(1).1).await)
        }
        Method::Logs => {
            let request = LogsRequest {
                sandbox_id,
                log: LogName::Agent,
                follow: false,
            };
            shown(to.logs(call, request).await)
        }
        Method::Stop => {
            let request = StopRequest {
                sandbox_id,
                grace_ms: 10,
            };
            shown(to.stop(call, request).await)
        }
        Method::Capture => {
            let request = CaptureRequest {
                sandbox_id,
                generation: 1,
            };
            shown(to.capture(call, request).await)
        }
        Method::Persist => {
            let request = CaptureRequest {
                sandbox_id: sandbox(),
                generation: 1,
            };
            let request = PersistRequest {
                sandbox_id,
                session_id: "ses_1".to_owned(),
                generation: 1,
                payload: r#"{"session_id":"ses_1"}"#.to_owned(),
                snapshot: Some(to.capture(call, request).await.unwrap()),
            };
            shown(to.persist(call, request).await)
        }
        Method::ReadObject => {
            let durable_object_id = object.to_owned();
            let request = ReadObjectRequest { durable_object_id };
            shown(to.read_object(call, request).await)
        }
        Method::Restore => {
            let request = RestoreRequest {
                sandbox_id,
                durable_object_id: object.to_owned(),
            };
            shown(to.restore(call, request).await)
        }
        Method::Destroy => shown(to.destroy(call, DestroyRequest { sandbox_id }).await),
    }
}

/// Every method, in the order of their numbers; what each said, and what the fake wrote down.
async fn life(provider: &dyn SandboxProvider, control: &FakeControl) -> (Vec<Value>, Vec<Value>) {
    let mut replies = Vec::new();
    let mut object = String::new();
    for method in Method::ALL {
        let before = control.count(method.as_str());
        let reply = ask(provider, method, &object).await;
        let after = control.count(method.as_str());
        assert!(after > before, "`{method}` did not arrive as itself");
        if let Some(id) = reply["durable_object_id"].as_str() {
            object = id.to_owned();
        }
        replies.push(json!({ method.as_str(): reply }));
    }
    let calls = control.calls().into_iter();
    let calls = calls.map(|call| {
        json!([
            call.method,
            call.operation_id,
            call.fence,
            call.request,
            format!("{:?}", call.outcome)
        ])
    });
    (replies, calls.collect())
}

/// The addresses of links are drawn anew each time.
fn without_chance(mut replies: Vec<Value>) -> Vec<Value> {
    for reply in &mut replies {
        if let Some(link) = reply.get_mut("open_agent").and_then(Value::as_object_mut) {
            link.retain(|_, value| value.is_string());
            for value in link.values_mut() {
                *value = json!("drawn");
            }
        }
    }
    replies
}

#[tokio::test]
async fn every_method_is_the_same_over_each_transport() {
    let state = tempfile::tempdir().unwrap();
    let path = state.path().join("fake");
    let (compiled_in, control) = (FakeProvider::new(&path), FakeControl::new(&path));
    let (expected, expected_calls) = life(&compiled_in, &control).await;
    let expected = without_chance(expected);
    assert!(
        expected
            .iter()
            .filter(|reply| reply.to_string().contains("error"))
            .count()
            <= 1
    );
    for by in ALL {
        let behind = Behind::new(by);
        let (replies, calls) = life(&behind.provider, &behind.control).await;
        let path = |value: &[Value]| {
            // The fake's own paths differ.
            serde_json::to_string_pretty(value)
                .unwrap()
                .lines()
                .filter(|line| !line.contains("workspace_path"))
                .collect::<Vec<_>>()
                .join("\n")
        };
        assert_eq!(path(&without_chance(replies)), path(&expected), "{by:?}");
        assert_eq!(calls[1..], expected_calls[1..], "{by:?}");
    }
}

#[tokio::test]
async fn calls_run_at_once() {
    for by in ALL {
        let behind = Behind::new(by);
        let hang = behind.odd(&["hang"]);
        let answered = async {
            for _ in 0..20 {
                behind.provider.describe().await.unwrap();
            }
        };
        tokio::select! {
            (reply, _) = hang => panic!("{reply:?}"),
            () = answered => {}
        }
    }
}

#[tokio::test]
async fn what_a_provider_says_of_its_failure_arrives_without_secrets() {
    for by in ALL {
        let behind = Behind::new(by);
        let (reply, _) = behind
            .odd(&["fail", "no room for planted-secret-value"])
            .await;
        let error = reply.unwrap_err();
        assert_eq!(error.kind, ErrorKind::NoSpace);
        assert_eq!(error.message, "no room for [redacted]");
        assert_eq!(error.hint.as_deref(), Some("no room for [redacted]"));
        let (reply, _) = behind.odd(&["large"]).await;
        let error = reply.unwrap_err();
        assert_eq!(
            (error.kind, error.message.len()),
            (ErrorKind::Io, 32 * 1024)
        );
    }
}

#[tokio::test]
async fn a_request_that_is_too_large_is_refused_here() {
    let behind = Behind::new(By::Hosted);
    let request = PersistRequest {
        sandbox_id: sandbox(),
        session_id: "ses_1".to_owned(),
        generation: 1,
        payload: "\"".repeat(600 * 1024),
        snapshot: None,
    };
    let reply = behind
        .provider
        .persist(&Call::quiet(meta(0)), request)
        .await;
    assert_eq!(reply.unwrap_err().kind, ErrorKind::TooLarge);
}

#[tokio::test]
async fn a_configuration_of_another_shape_says_what_is_wrong() {
    for by in ALL {
        let wrong = config(by, None, json!({ "state": 7 }));
        let provider = alpine_provider_port::PortProvider::new(wrong);
        let error = provider.describe().await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::ConfigInvalid, "{by:?}: {error}");
        assert!(error.message.contains("provider `acme`"), "{error}");
        assert!(error.message.contains("invalid type"), "{error}");
    }
}
