//! The fake keeps the contract, lets each fault strike, and writes down each breach.

mod common;

use alpine_provider_api::*;
use alpine_testkit::{Fault, Outcome, ViolationKind};
use common::{COMMIT, Life, PAYLOAD, id};
use std::time::Duration;

fn kind<T: std::fmt::Debug>(reply: Result<T, ProviderError>) -> ErrorKind {
    reply.unwrap_err().kind
}

#[tokio::test]
async fn a_session_from_its_beginning_to_its_end() {
    let life = Life::new();
    life.up().await;
    let probe = life.inspect().await.probe.unwrap();
    assert_eq!(probe.head.unwrap().as_str(), COMMIT);
    assert!(probe.writable);
    assert_eq!(probe.agent_ready, Some(true));

    life.control
        .workspace_write("sbx_1", "src/new.rs", b"fn new() {}");
    let object = life.keep().await;
    life.destroy().await.unwrap();
    assert_eq!(life.inspect().await.state, SandboxState::Missing);
    assert!(life.control.sandboxes().is_empty());
    assert_eq!(life.control.destroyed(), ["sbx_1"]);

    let objects = life.control.objects();
    assert_eq!(objects[0].id, object);
    assert_eq!(objects[0].payload, PAYLOAD);
    assert!(objects[0].read_back);
    assert_eq!(
        objects[0].files.as_ref().unwrap()["src/new.rs"],
        b"fn new() {}"
    );
    life.control.assert_no_violations();

    let calls = life.control.calls();
    let methods: Vec<&str> = calls.iter().map(|call| call.method.as_str()).collect();
    let expected = "provision sync_repo install start_agent inspect stop capture persist read_object destroy inspect";
    assert_eq!(methods.join(" "), expected);
    assert!(
        calls
            .iter()
            .all(|call| call.outcome == Outcome::Done && call.operation_id == "op_1")
    );
    assert_eq!(calls[0].sandbox_id.as_deref(), Some("sbx_1"));
    assert_eq!(calls[3].request["env"]["TOKEN"], serde_json::Value::Null);
}

#[tokio::test]
async fn every_call_may_be_repeated() {
    let life = Life::new();
    for _ in 0..2 {
        life.up().await;
    }
    life.control.workspace_write("sbx_1", "new", b"work");
    let first = life.keep().await;
    assert_eq!(life.keep().await, first);
    for _ in 0..2 {
        life.destroy().await.unwrap();
    }
    assert_eq!(life.control.objects().len(), 1);
    assert_eq!(kind(life.provision().await), ErrorKind::Destroyed);
    assert_eq!(kind(life.stop().await), ErrorKind::Destroyed);
    life.control.assert_no_violations();
}

#[tokio::test]
async fn an_older_fence_is_refused() {
    let mut life = Life::new();
    life.fence = 5;
    life.up().await;
    life.fence = 4;
    assert_eq!(kind(life.provision().await), ErrorKind::Fenced);
    assert_eq!(kind(life.stop().await), ErrorKind::Fenced);
    assert_eq!(kind(life.destroy().await), ErrorKind::Fenced);
    // Looking needs no fence.
    assert_eq!(life.inspect().await.state, SandboxState::Running);
    life.fence = 6;
    life.destroy().await.unwrap();
    life.fence = 5;
    assert_eq!(kind(life.destroy().await), ErrorKind::Fenced);
    life.control.assert_no_violations();
}

#[tokio::test]
async fn other_arguments_are_a_conflict_and_strangers_are_not_listed() {
    let life = Life::new();
    life.provision().await.unwrap();
    let other = ProvisionRequest {
        sandbox_id: id(),
        ledger_id: "another".to_owned(),
        session_id: "ses_1".to_owned(),
        allow_unsandboxed: false,
    };
    assert_eq!(
        kind(life.provider.provision(&life.call(), other).await),
        ErrorKind::Conflict
    );
    for (ledger, count) in [("ledger", 1), ("another", 0)] {
        let request = ListRequest {
            ledger_id: ledger.to_owned(),
        };
        let listed = life.provider.list(&life.call(), request).await.unwrap();
        assert_eq!(listed.sandboxes.len(), count, "{ledger}");
    }
}

#[tokio::test]
async fn breaches_are_refused_and_written_down() {
    let life = Life::new();
    life.provision().await.unwrap();
    let mut expected = 0;
    let mut breach = |reply: ErrorKind, kind: ViolationKind| {
        expected += 1;
        let violations = life.control.violations();
        assert_eq!(
            (reply, violations.len()),
            (ErrorKind::InvalidArgument, expected)
        );
        assert_eq!(violations[expected - 1].kind, kind, "{violations:?}");
    };
    let contract = ViolationKind::Contract;
    breach(kind(life.install().await), contract);
    breach(kind(life.start_agent().await), contract);
    life.up().await;
    breach(kind(life.capture().await), contract);
    life.control.workspace_write("sbx_1", "new", b"work");
    breach(kind(life.destroy().await), ViolationKind::LostWork);
    life.stop().await.unwrap();
    breach(kind(life.install().await), contract);
    breach(kind(life.persist(None).await), contract);
    let staged = life.capture().await.unwrap();
    let strange = StagedSnapshot {
        digest: "0".repeat(64),
        ..staged.clone()
    };
    breach(kind(life.persist(Some(strange)).await), contract);
    let long = format!("{{\"text\":\"{}\"}}", "x".repeat(512 * 1024));
    breach(
        kind(life.persist_payload(Some(staged.clone()), &long).await),
        contract,
    );
    breach(
        kind(life.persist_payload(Some(staged.clone()), "no JSON").await),
        contract,
    );
    let object = life
        .persist(Some(staged.clone()))
        .await
        .unwrap()
        .durable_object_id;
    breach(
        kind(life.persist_payload(Some(staged), "{}").await),
        contract,
    );
    breach(kind(life.destroy().await), ViolationKind::Unverified);
    life.control.corrupt_object(&object);
    assert_eq!(kind(life.read_object(&object).await), ErrorKind::Corrupt);
    breach(kind(life.destroy().await), ViolationKind::LostWork);
    assert!(!life.control.sandboxes().is_empty());
    life.control.allow_loss("sbx_1");
    life.destroy().await.unwrap();
}

#[tokio::test]
async fn a_call_says_who_asks() {
    let mut life = Life::new();
    life.fence = 0;
    assert_eq!(kind(life.provision().await), ErrorKind::InvalidArgument);
    assert_eq!(life.control.violations().len(), 1);
    assert_eq!(life.inspect().await.state, SandboxState::Missing);
    let mut call = life.call();
    call.meta.fence = 1;
    call.meta.operation_id.clear();
    let request = DestroyRequest { sandbox_id: id() };
    assert_eq!(
        kind(life.provider.destroy(&call, request).await),
        ErrorKind::InvalidArgument
    );
    assert_eq!(life.control.violations().len(), 2);
}

#[tokio::test]
async fn secrets_stay_where_they_belong() {
    let life = Life::new();
    life.control
        .plant_secrets(["planted-token", "planted-in-the-environment", "pl\"quoted"]);
    life.provision().await.unwrap();
    let token = Secret::new("planted-token".to_owned());
    let host = "host".to_owned();
    life.sync_repo(Some(GitCredential::Token { host, token }))
        .await
        .unwrap();
    life.start_agent().await.unwrap();
    life.control.assert_no_violations();
    life.stop().await.unwrap();
    let staged = life.capture().await.unwrap();
    for payload in [
        r#"{"url":"https://planted-token@host"}"#,
        r#"{"a":"pl\"quoted"}"#,
    ] {
        let reply = life.persist_payload(Some(staged.clone()), payload).await;
        assert_eq!(kind(reply), ErrorKind::InvalidArgument);
    }
    let violations = life.control.violations();
    assert_eq!(violations.len(), 2);
    assert!(
        violations
            .iter()
            .all(|breach| breach.kind == ViolationKind::Secret)
    );
    // Not even the fake's own files repeat them.
    for file in ["calls.ndjson", "violations.ndjson", "planted.json"] {
        let text = std::fs::read_to_string(life.root().join("fake").join(file)).unwrap();
        assert!(
            !text.contains("planted-") && !text.contains("quoted"),
            "{file}: {text}"
        );
    }
}

#[tokio::test]
async fn errors_come_as_often_as_was_asked() {
    let life = Life::new();
    life.control
        .fault("provision", Fault::Transient(ErrorKind::Unreachable), 2);
    life.control
        .fault("provision", Fault::Error(ErrorKind::NoSpace), 1);
    for (expected, retry) in [
        (ErrorKind::Unreachable, Retry::Transient),
        (ErrorKind::Unreachable, Retry::Transient),
        (ErrorKind::NoSpace, Retry::Never),
    ] {
        let error = life.provision().await.unwrap_err();
        assert_eq!((error.kind, error.retry), (expected, retry));
    }
    assert!(life.control.sandboxes().is_empty());
    life.provision().await.unwrap();
    life.control.fault("*", Fault::Error(ErrorKind::Io), 0);
    for _ in 0..3 {
        assert_eq!(kind(life.sync_repo(None).await), ErrorKind::Io);
    }
    assert_eq!(kind(life.provider.describe().await), ErrorKind::Io);
    life.control.clear_faults();
    life.sync_repo(None).await.unwrap();
    life.control
        .fault("install", Fault::Error(ErrorKind::InstallFailed), 1);
    assert_eq!(life.install().await.unwrap_err().log_tail.len(), 2);
}

#[tokio::test]
async fn a_lost_reply_and_a_hang() {
    let life = Life::new();
    life.control.fault("provision", Fault::LostReply, 1);
    assert_eq!(life.provision().await.unwrap_err().retry, Retry::Transient);
    assert_eq!(life.control.sandboxes().len(), 1);
    life.provision().await.unwrap();
    let short = Duration::from_millis(50);
    for (fault, is_done) in [(Fault::Hang, false), (Fault::LostReplyHang, true)] {
        life.control.fault("sync_repo", fault, 1);
        assert!(
            tokio::time::timeout(short, life.sync_repo(None))
                .await
                .is_err()
        );
        assert_eq!(life.control.sandboxes()[0].head.is_some(), is_done);
        assert_eq!(
            life.control.calls().last().unwrap().outcome,
            Outcome::Unfinished
        );
    }
    life.control.fault("sync_repo", Fault::Delay { ms: 20 }, 1);
    let before = std::time::Instant::now();
    life.sync_repo(None).await.unwrap();
    assert!(before.elapsed() >= Duration::from_millis(20));
}

#[tokio::test]
async fn half_the_work_converges_when_it_is_repeated() {
    let life = Life::new();
    for method in [
        "provision",
        "sync_repo",
        "install",
        "start_agent",
        "stop",
        "capture",
        "persist",
        "destroy",
    ] {
        life.control.fault(method, Fault::Partial, 1);
    }
    let half = ErrorKind::Io;
    assert_eq!(kind(life.provision().await), half);
    // Half-made ones are listed.
    assert_eq!(life.control.sandboxes()[0].state, SandboxState::Exited);
    life.provision().await.unwrap();
    assert_eq!(kind(life.sync_repo(None).await), half);
    assert_eq!(life.control.sandboxes()[0].head, None);
    assert!(!life.control.sandboxes()[0].files.is_empty());
    life.sync_repo(None).await.unwrap();
    assert_eq!(kind(life.install().await), half);
    life.install().await.unwrap();
    assert_eq!(kind(life.start_agent().await), half);
    assert_eq!(life.inspect().await.probe.unwrap().agent_ready, Some(false));
    life.start_agent().await.unwrap();
    life.control.workspace_write("sbx_1", "new", b"work");
    assert_eq!(kind(life.stop().await), half);
    assert_eq!(life.inspect().await.state, SandboxState::Running);
    life.stop().await.unwrap();
    assert_eq!(kind(life.capture().await), half);
    let staged = life.capture().await.unwrap();
    assert_eq!(kind(life.persist(Some(staged.clone())).await), half);
    assert!(life.control.objects().is_empty());
    let object = life.persist(Some(staged)).await.unwrap().durable_object_id;
    life.read_object(&object).await.unwrap();
    assert_eq!(kind(life.destroy().await), half);
    assert_eq!(life.inspect().await.state, SandboxState::Missing);
    life.destroy().await.unwrap();
    life.control.assert_no_violations();
}

#[tokio::test]
async fn wrong_answers_are_plausible() {
    let life = Life::new();
    life.provision().await.unwrap();
    let wrong = |method| life.control.fault(method, Fault::WrongAnswer, 1);
    wrong("sync_repo");
    let head = life.sync_repo(None).await.unwrap().head;
    assert_ne!(head.as_str(), COMMIT);
    assert_eq!(head.as_str().len(), 40);
    life.start_agent().await.unwrap();
    wrong("stop");
    life.stop().await.unwrap();
    assert_eq!(life.inspect().await.state, SandboxState::Running);
    life.stop().await.unwrap();
    wrong("inspect");
    assert_eq!(life.inspect().await.state, SandboxState::Running);
    wrong("capture");
    let lie = life.capture().await.unwrap();
    let staged = life.capture().await.unwrap();
    assert_ne!(lie.digest, staged.digest);
    let object = life
        .persist(Some(staged.clone()))
        .await
        .unwrap()
        .durable_object_id;
    wrong("read_object");
    let other = life.read_object(&object).await.unwrap();
    assert_ne!(other.payload, PAYLOAD);
    assert_eq!(other.snapshot.unwrap().digest, staged.digest);
    life.control.fault("read_object", Fault::WrongSnapshot, 1);
    let other = life.read_object(&object).await.unwrap();
    assert_eq!(other.payload, PAYLOAD);
    assert_ne!(other.snapshot.unwrap().digest, staged.digest);
    assert!(!life.control.objects()[0].read_back);
    wrong("destroy");
    life.destroy().await.unwrap();
    assert_eq!(life.control.sandboxes().len(), 1);
    life.control.assert_no_violations();
}

#[tokio::test]
async fn what_is_lost_is_said_to_be_lost() {
    let life = Life::new();
    life.up().await;
    life.control.workspace_write("sbx_1", "new", b"work");
    life.control.lose_workspace("sbx_1");
    assert_eq!(life.inspect().await.state, SandboxState::Missing);
    assert_eq!(kind(life.stop().await), ErrorKind::NotFound);
    assert_eq!(kind(life.capture().await), ErrorKind::WorkspaceLost);
    let object = life.persist(None).await.unwrap().durable_object_id;
    assert_eq!(life.read_object(&object).await.unwrap().snapshot, None);
    life.control.corrupt_object(&object);
    assert_eq!(kind(life.read_object(&object).await), ErrorKind::Corrupt);
    life.control.lose_sandbox("sbx_1");
    assert_eq!(kind(life.capture().await), ErrorKind::NotFound);
    life.persist(None).await.unwrap();
    life.destroy().await.unwrap();
    life.control.assert_no_violations();
}

#[tokio::test]
async fn an_object_comes_back_as_a_workspace() {
    let life = Life::new();
    life.up().await;
    life.control.workspace_write("sbx_1", "new", b"work");
    let object = life.keep().await;
    life.control.lose_sandbox("sbx_1");
    life.provision().await.unwrap();
    life.control.fault("restore", Fault::Partial, 1);
    assert_eq!(kind(life.restore(&object).await), ErrorKind::Io);
    for _ in 0..2 {
        assert_eq!(life.restore(&object).await.unwrap().entries, 4);
    }
    let sandboxes = life.control.sandboxes();
    assert_eq!(sandboxes[0].files["new"], b"work");
    assert_eq!(sandboxes[0].head.as_ref().unwrap().as_str(), COMMIT);
    life.control.assert_no_violations();
    life.control.workspace_write("sbx_1", "new", b"more work");
    assert_eq!(
        kind(life.restore(&object).await),
        ErrorKind::InvalidArgument
    );
}

#[tokio::test]
async fn commands_logs_and_links() {
    let life = Life::new();
    life.up().await;
    let out = |text: &str| vec![CallEvent::Stdout(text.as_bytes().to_vec())];
    let ended = ExecReply::Exited;
    assert_eq!(
        life.exec(&["echo", "a", "b"]).await.unwrap(),
        (ended(0), out("a b\n"))
    );
    assert_eq!(life.exec(&["false"]).await.unwrap(), (ended(1), vec![]));
    assert_eq!(life.exec(&["exit", "7"]).await.unwrap(), (ended(7), vec![]));
    assert_eq!(
        life.exec(&["write", "new", "text"]).await.unwrap().0,
        ended(0)
    );
    assert_eq!(
        life.exec(&["cat", "new"]).await.unwrap(),
        (ended(0), out("text"))
    );
    assert_eq!(life.exec(&["cat", "none"]).await.unwrap().0, ended(1));
    assert_eq!(kind(life.exec(&["rm"]).await), ErrorKind::InvalidArgument);
    assert_eq!(life.control.sandboxes()[0].files["new"], b"text");

    let open = || async {
        let request = OpenAgentRequest {
            sandbox_id: id(),
            link_ms: 1,
        };
        life.provider.open_agent(&life.call(), request).await
    };
    let (first, second) = (open().await.unwrap(), open().await.unwrap());
    assert_eq!(first.url, "http://127.0.0.1:9/sbx_1");
    assert_ne!(first.open_url, second.open_url);
    life.control.agent_answers("sbx_1", false);
    assert_eq!(kind(open().await), ErrorKind::AgentNotReady);

    let (events, mut said) = tokio::sync::mpsc::channel(8);
    let call = Call::new(life.call().meta, events);
    let request = LogsRequest {
        sandbox_id: id(),
        log: LogName::Install,
        follow: true,
    };
    let follow = life.provider.logs(&call, request);
    let end = async {
        assert!(matches!(said.recv().await, Some(CallEvent::Stdout(_))));
        life.control.exit_sandbox("sbx_1");
    };
    let (followed, ()) = tokio::join!(follow, end);
    followed.unwrap();
    life.control.read_only("sbx_1", true);
    assert!(!life.inspect().await.probe.unwrap().writable);
}
