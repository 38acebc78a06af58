//! What no provider of the SDK sends: each breach is an error of its own, and the next call has a fresh process.

use super::methods::ask;
use super::support::*;
use alpine_provider_api::*;
use alpine_provider_port::{PortProvider, Source};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests")
        .join(name)
}

/// The variable that only the processes of this test have.
fn mark(mode: &str) -> String {
    format!("MARK={mode}-{}", std::process::id())
}

fn raw(mode: &str, file: Option<&Path>) -> PortProvider {
    let script = fixture("raw.py");
    let words = [script.to_str().unwrap(), mode]
        .into_iter()
        .chain(file.and_then(Path::to_str));
    let mut raw = config(By::Executable, None, Value::Null);
    let mark = Secret::new(mark(mode).split_off("MARK=".len()));
    raw.env.insert("MARK".to_owned(), mark);
    raw.timings.describe = Duration::from_millis(1500);
    raw.source = Source::Executable {
        program: "/usr/bin/python3".into(),
        args: words.map(str::to_owned).collect(),
    };
    PortProvider::new(raw)
}

#[tokio::test]
async fn each_breach_is_an_error_of_its_own() {
    let breaks = |what: &str| format!("provider `acme`: it does not keep to the protocol: {what}");
    let (unsupported, crashed) = (ErrorKind::Unsupported, ErrorKind::Crashed);
    for (mode, kind, message) in [
        (
            "magic",
            unsupported,
            "provider `acme`: its greeting's magic is `ELEPHANT`, where `ALPNPRV1` is expected"
                .to_owned(),
        ),
        (
            "abi",
            unsupported,
            "provider `acme`: it speaks versions 7 to 7 of the boundary, where 1 to 1 are expected"
                .to_owned(),
        ),
        (
            "unknown-kind",
            unsupported,
            breaks("it sent a frame of kind 99, which this version does not know"),
        ),
        (
            "host-kind",
            unsupported,
            breaks("it sent a frame CALL that makes no sense"),
        ),
        (
            "too-large",
            unsupported,
            breaks("it sent a frame OK of 4294967295 bytes, of at most 1048576"),
        ),
        (
            "large-log",
            unsupported,
            breaks("it sent a frame LOG of 9000 bytes, of at most 8192"),
        ),
        (
            "bad-progress",
            unsupported,
            breaks("it sent a frame EVENT that makes no sense"),
        ),
        (
            "no-json",
            unsupported,
            "provider `acme`: what it answered is no reply to `describe`: ".to_owned(),
        ),
        (
            "other-json",
            unsupported,
            "provider `acme`: what it answered is no reply to `describe`: ".to_owned(),
        ),
        ("garbage", unsupported, breaks("it sent a frame of kind ")),
        (
            "half",
            crashed,
            "provider `acme`: its process exited with status 0".to_owned(),
        ),
        (
            "never",
            ErrorKind::Timeout,
            "provider `acme`: `describe` took longer than 1.5 s".to_owned(),
        ),
        ("text", ErrorKind::NoSpace, "no room".to_owned()),
    ] {
        let provider = raw(mode, None);
        let error = provider.describe().await.unwrap_err();
        assert_eq!(error.kind, kind, "{mode}: {error}");
        assert!(error.message.starts_with(&message), "{mode}: {error}");
    }
}

#[tokio::test]
async fn more_of_a_stream_than_was_granted_ends_the_provider() {
    for mode in ["no-credit", "small-chunks"] {
        let provider = raw(mode, None);
        let (events, mut said) = tokio::sync::mpsc::channel(1);
        let call = Call::new(meta(0), events);
        let request = LogsRequest {
            sandbox_id: SandboxId::new("sbx_1").unwrap(),
            log: LogName::Agent,
            follow: false,
        };
        // Its caller takes one chunk, and the others only when the provider is gone.
        let read = async {
            said.recv().await.unwrap();
            while !children_of(&mark(mode)).is_empty() {
                tokio::task::yield_now().await;
            }
            while said.recv().await.is_some() {}
        };
        let ask = async {
            let reply = provider.logs(&call, request).await;
            drop(call);
            reply
        };
        let (reply, ()) = tokio::join!(ask, read);
        let error = reply.unwrap_err();
        let expected = "it sent more of a stream than it was granted";
        assert_eq!(error.kind, ErrorKind::Unsupported, "{mode}: {error}");
        assert!(error.message.contains(expected), "{mode}: {error}");
    }
}

#[tokio::test]
async fn what_is_too_much_or_of_a_later_version_does_no_harm() {
    for mode in ["double", "stranger", "later"] {
        let provider = raw(mode, None);
        for _ in 0..3 {
            let reply = provider.describe().await;
            assert_eq!(reply.unwrap().name, "raw", "{mode}");
        }
    }
}

#[tokio::test]
async fn an_answer_that_comes_late_is_nobodys() {
    let provider = raw("late", None);
    for _ in 0..2 {
        let start = Instant::now();
        let call = Call::quiet(meta(300));
        let reply = provider
            .list(
                &call,
                ListRequest {
                    ledger_id: "l".to_owned(),
                },
            )
            .await;
        assert_eq!(reply.unwrap_err().kind, ErrorKind::Timeout);
        assert!(start.elapsed() < Duration::from_secs(5));
    }
}

/// The answers of a provider of version 1, as they were recorded: never to be recorded anew.
#[tokio::test]
async fn a_provider_of_the_first_version_is_still_understood() {
    let path = fixture("provider-v1.json");
    let recorded: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let provider = raw("replay", Some(&path));
    for method in Method::ALL {
        let frames = recorded["answers"][method.id().to_string()]
            .as_array()
            .unwrap();
        let last = frames.last().unwrap();
        let payload: Value = serde_json::from_str(last[2].as_str().unwrap()).unwrap();
        let reply = ask(&provider, method, "obj_1").await;
        let reply = if last[0] == 16 {
            reply
        } else {
            reply["error"].clone()
        };
        assert_within(&payload, &reply, method.as_str());
    }
}

/// The requests of a host of version 1, as they were recorded: never to be recorded anew.
#[test]
fn a_host_of_the_first_version_is_still_answered() {
    let state = tempfile::tempdir().unwrap();
    let said = std::process::Command::new("/usr/bin/python3")
        .arg(fixture("host.py"))
        .arg(env!("CARGO_BIN_EXE_fake-plugin"))
        .arg(fixture("host-v1.json"))
        .arg(state.path().join("fake"))
        .output()
        .unwrap();
    assert!(said.status.success(), "{said:?}");
    let answers: Value = serde_json::from_slice(&said.stdout).unwrap();
    for method in Method::ALL {
        let answer = &answers[method.id().to_string()];
        let understood = match method {
            // It was stopped before.
            Method::Restore => answer[1]["message"] == "the sandbox was stopped",
            _ => answer[0] == 16,
        };
        assert!(understood, "{method}: {answer}");
    }
}

/// Every field that was answered was read; those that came later have their defaults.
fn assert_within(answered: &Value, read: &Value, method: &str) {
    match (answered, read) {
        (Value::Object(answered), Value::Object(read)) => {
            for (name, value) in answered {
                let found = read.get(name).unwrap_or(&Value::Null);
                assert_within(value, found, method);
            }
        }
        _ => assert_eq!(answered, read, "{method}"),
    }
}
