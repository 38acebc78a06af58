//! What goes wrong in a provider's process is a typed error, in time, and strikes nobody else.

use super::support::*;
use alpine_provider_api::*;
use alpine_provider_port::{PortProvider, Source};
use rustix::process::{Pid, Signal, kill_process};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// How long after a fault its error has to be there.
const SOON: Duration = Duration::from_millis(500);

#[tokio::test]
async fn a_panic_is_an_answer_that_says_where() {
    for by in ALL {
        let behind = Behind::new(by);
        let error = behind.odd(&["panic"]).await.0.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Internal, "{by:?}");
        assert!(
            error.message.contains("tests/fake-plugin/src/odd.rs:")
                && error.message.contains("as it was asked to"),
            "{error}"
        );
        behind.provider.describe().await.unwrap();
    }
}

#[tokio::test]
async fn a_process_that_dies_is_a_crash_and_the_next_call_has_another() {
    let faults: [(&[&str], &str); 5] = [
        (&["abort"], "signal 6"),
        (&["exit", "0"], "exited with status 0"),
        (&["exit", "3"], "exited with status 3"),
        (&["segfault"], "signal 11"),
        (&["kill", "9"], "signal 9"),
    ];
    for by in CHILDREN {
        for (words, how) in faults {
            let (behind, other) = (Behind::new(by), Behind::new(by));
            other.provider.describe().await.unwrap();
            let bystander = async { behind.odd(&["hang"]).await.0.unwrap_err() };
            let unaffected = other.odd(&["stream", "8"]);
            let fault = async {
                behind.provider.describe().await.unwrap();
                let start = Instant::now();
                (behind.odd(words).await.0.unwrap_err(), start.elapsed())
            };
            let ((error, took), also, unaffected) = tokio::join!(fault, bystander, unaffected);
            assert_eq!(error.kind, ErrorKind::Crashed, "{by:?} {words:?}: {error}");
            assert_eq!(error.retry, Retry::Transient);
            assert!(error.message.contains("provider `acme`"), "{error}");
            assert!(error.message.contains(how), "{by:?} {words:?}: {error}");
            assert!(took < SOON, "{by:?} {words:?}: {took:?}");
            assert_eq!(also.kind, ErrorKind::Crashed);
            unaffected.0.unwrap();
            behind.provider.describe().await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_call_that_hangs_ends_at_its_deadline() {
    for by in ALL {
        let behind = Behind::new(by);
        behind.provider.describe().await.unwrap();
        let call = Call::quiet(meta(100));
        let start = Instant::now();
        let (_input, none) = mpsc::channel(1);
        let reply = behind.provider.exec(&call, odd(&["hang"]), none).await;
        let took = start.elapsed();
        assert_eq!(reply.unwrap_err().kind, ErrorKind::Timeout, "{by:?}");
        assert!(took >= Duration::from_millis(100), "{took:?}");
        assert!(took < Duration::from_millis(100) + SOON, "{took:?}");
        // It was cancelled, and answered: the process is still there.
        behind.provider.describe().await.unwrap();
        assert_eq!(behind.control.count("describe"), 2);
    }
}

#[tokio::test]
async fn a_call_that_blocks_its_thread_blocks_no_other() {
    for by in CHILDREN {
        let behind = Behind::new(by);
        let others = async {
            for _ in 0..20 {
                behind.provider.describe().await.unwrap();
            }
        };
        tokio::select! {
            biased;
            (reply, _) = async { tokio::join!(behind.odd(&["block"]), behind.odd(&["block"])).0 } => panic!("{by:?}: {reply:?}"),
            () = others => {}
        }
    }
}

#[tokio::test]
async fn a_provider_that_does_not_answer_a_cancel_is_ended_and_started_anew() {
    for by in CHILDREN {
        let behind = Behind::new(by);
        behind.provider.describe().await.unwrap();
        let call = Call::quiet(meta(100));
        let (_input, none) = mpsc::channel(1);
        let hung = behind.provider.exec(&call, odd(&["block"]), none);
        // Meanwhile another call waits, and learns that its outcome is unknown.
        let other = behind.odd(&["hang"]);
        let (hung, (other, _)) = tokio::join!(hung, other);
        assert_eq!(hung.unwrap_err().kind, ErrorKind::Timeout, "{by:?}");
        let other = other.unwrap_err();
        assert_eq!(other.kind, ErrorKind::Crashed, "{by:?}");
        assert!(other.message.contains("cancelled"), "{other}");
        behind.provider.describe().await.unwrap();
    }
}

/// A call without a deadline ends by the PINGs alone, also where it comes long after the last one.
#[tokio::test]
async fn a_process_that_is_stopped_is_found_by_its_silence() {
    for by in CHILDREN {
        let mut all = tokio::task::JoinSet::new();
        for number in 0..12 {
            // To the shorter of these the call always comes late.
            let ping = Duration::from_millis(if number % 2 == 0 { 1 } else { 50 });
            all.spawn(stopped(by, number, ping));
        }
        all.join_all().await;
    }
}

async fn stopped(by: By, number: u32, ping: Duration) {
    let mark = format!("stopped-{by:?}-{number}-{}", std::process::id());
    let behind = Behind::with(by, |config| {
        let secret = Secret::new(mark.clone());
        config.env.insert("MARK".to_owned(), secret);
        (config.timings.ping, config.timings.pong) = (ping, Duration::from_secs(2));
    });
    let marker = format!("MARK={mark}");
    for method in [Method::Exec, Method::Logs] {
        behind.provider.describe().await.unwrap();
        let children = children_of(&marker);
        assert_eq!(children.len(), 1, "{children:?}");
        let child = Pid::from_raw(children[0].try_into().unwrap()).unwrap();
        kill_process(child, Signal::STOP).unwrap();
        let error = async {
            let call = Call::quiet(meta(0));
            if method == Method::Logs {
                let request = LogsRequest {
                    sandbox_id: SandboxId::new("sbx_1").unwrap(),
                    log: LogName::Agent,
                    follow: true,
                };
                return behind.provider.logs(&call, request).await.unwrap_err();
            }
            behind.odd(&["nothing"]).await.0.unwrap_err()
        };
        let error = tokio::time::timeout(Duration::from_secs(15), error).await;
        let error = error.unwrap_or_else(|_| panic!("{by:?}: `{method}` does not end"));
        assert_eq!(error.kind, ErrorKind::Crashed, "{by:?}: {error}");
        let expected = "provider `acme`: it answered no PING within 2 s";
        assert_eq!(error.message, expected, "{by:?}");
    }
}

#[tokio::test]
async fn a_provider_is_started_anew_a_few_times_only() {
    let behind = Behind::with(By::Hosted, |config| {
        config.timings.restart_window = Duration::from_secs(3600);
    });
    for _ in 0..4 {
        let error = behind.odd(&["abort"]).await.0.unwrap_err();
        assert!(!error.message.contains("left alone"), "{error}");
    }
    let error = behind.provider.describe().await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Crashed);
    assert!(error.message.contains("was started 4 times"), "{error}");
    assert_eq!(behind.control.count("describe"), 0);
}

/// The same where not even a socket can be made. A process of its own runs out of descriptors there.
#[test]
fn a_provider_that_can_not_be_started_is_left_alone_as_well() {
    if std::env::var_os("ALPINE_TEST_NO_DESCRIPTORS").is_some() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        return runtime.unwrap().block_on(without_descriptors());
    }
    let script = "ulimit -n 64; exec \"$0\" --exact \"$1\"";
    let output = std::process::Command::new("/bin/bash")
        .args(["-c", script])
        .arg(std::env::current_exe().unwrap())
        .arg("port::faults::a_provider_that_can_not_be_started_is_left_alone_as_well")
        .env("ALPINE_TEST_NO_DESCRIPTORS", "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("1 passed"), "{said}");
}

async fn without_descriptors() {
    let behind = Behind::with(By::Hosted, |config| {
        config.timings.restart_window = Duration::from_secs(3600);
    });
    let all: Vec<_> = std::iter::from_fn(|| std::fs::File::open("/dev/null").ok()).collect();
    for _ in 0..4 {
        let error = behind.provider.describe().await.unwrap_err();
        let expected = "provider `acme`: a socket can't be made";
        assert!(error.message.starts_with(expected), "{error}");
        assert!(!error.message.contains("left alone"), "{error}");
    }
    let error = behind.provider.describe().await.unwrap_err();
    assert!(error.message.contains("was started 4 times"), "{error}");
    drop(all);
}

#[tokio::test]
async fn nothing_is_started_before_the_first_call_and_nothing_is_left_after_the_last() {
    for by in CHILDREN {
        let mark = format!("{by:?}-{}", std::process::id());
        let behind = Behind::with(by, |config| {
            config
                .env
                .insert("MARK".to_owned(), Secret::new(mark.clone()));
        });
        let marker = format!("MARK={mark}");
        assert!(children_of(&marker).is_empty());
        behind.provider.describe().await.unwrap();
        let (_input, none) = mpsc::channel(1);
        let call = Call::quiet(meta(10));
        // Even with a call that hangs.
        let hung = behind.provider.exec(&call, odd(&["block"]), none).await;
        assert_eq!(hung.unwrap_err().kind, ErrorKind::Timeout);
        let children = children_of(&marker);
        assert_eq!(children.len(), 1, "{children:?}");
        drop(behind);
        let children = children_of(&marker);
        assert!(children.is_empty(), "{children:?}");
    }
}

#[tokio::test]
async fn a_child_sees_what_it_is_given_and_nothing_else() {
    for by in CHILDREN {
        let behind = Behind::new(by);
        let env = behind.output(&["env"]).await;
        assert_eq!(env, "ALLOWED=planted-secret-value\n", "{by:?}");
        let descriptors = behind.output(&["descriptors"]).await;
        for line in descriptors.lines() {
            let (number, target) = line.split_once(' ').unwrap();
            let expected = match number {
                "0" => target == "/dev/null",
                "1" | "2" => target.starts_with("pipe:"),
                "3" => target.starts_with("socket:"),
                // Its own: the runtime's, the library for as long as it is loaded, the directory that it reads.
                _ if by == By::Hosted && target.ends_with(".so") => true,
                _ => {
                    target.starts_with("anon_inode:")
                        || target.starts_with("socket:")
                        || target.starts_with("/proc/")
                }
            };
            assert!(expected, "{by:?}: {descriptors}");
        }
    }
}

/// The same once more, by a process that was started with this open: the next number after the socket's.
#[test]
fn a_child_does_not_see_what_its_parent_was_started_with() {
    let test = "port::faults::a_child_sees_what_it_is_given_and_nothing_else";
    let script = "exec \"$0\" --exact \"$1\" 4</dev/zero";
    let output = std::process::Command::new("/bin/bash")
        .args(["-c", script])
        .arg(std::env::current_exe().unwrap())
        .arg(test)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("1 passed"), "{said}");
}

#[tokio::test]
async fn a_program_that_is_not_there_says_so() {
    let mut missing = config(By::Executable, None, serde_json::Value::Null);
    missing.source = Source::Executable {
        program: "/nonexistent/provider".into(),
        args: Vec::new(),
    };
    let error = PortProvider::new(missing).describe().await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unsupported);
    assert!(error.message.contains("/nonexistent/provider"), "{error}");
}

#[tokio::test]
async fn a_script_whose_interpreter_is_not_there_names_it() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    let script = directory.path().join("provider.py");
    std::fs::write(&script, "#! /nonexistent/python3 -I\n").unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut missing = config(By::Executable, None, serde_json::Value::Null);
    missing.source = Source::Executable {
        program: script.clone(),
        args: Vec::new(),
    };
    let error = PortProvider::new(missing).describe().await.unwrap_err();
    let expected = format!(
        "provider `acme`: `{}` can't be started: its interpreter `/nonexistent/python3` is not there",
        script.display()
    );
    assert_eq!(error.message, expected);
    assert_eq!(error.kind, ErrorKind::Unsupported);
}

#[tokio::test]
async fn a_program_that_is_no_provider_says_so() {
    for (program, args, expected) in [
        ("/bin/true", vec![], "exited with status 0"),
        (
            "/bin/sh",
            vec![
                "-c",
                "printf 'not a frame at all, but long enough' >&3; cat <&3",
            ],
            "does not keep to the protocol",
        ),
    ] {
        let mut wrong = config(By::Executable, None, serde_json::Value::Null);
        wrong
            .env
            .insert("PATH".to_owned(), Secret::new("/usr/bin:/bin".to_owned()));
        wrong.source = Source::Executable {
            program: program.into(),
            args: args.into_iter().map(str::to_owned).collect(),
        };
        let error = PortProvider::new(wrong).describe().await.unwrap_err();
        assert!(error.message.contains(expected), "{error}");
    }
}
