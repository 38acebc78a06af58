//! Whatever a provider does wrong is a typed error in time, and strikes no other provider.

use super::support::{by_name, meta, ported};
use alpine_plugin_tests::{By, Ported, build, python};
use alpine_provider_api::*;
use alpine_provider_port::PortProvider;
use serde_json::json;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::sync::mpsc;

/// How long after a fault its error has to be there.
const SOON: Duration = Duration::from_millis(500);

fn misbehaving(by: By, fault: &str) -> (TempDir, Ported) {
    let (directory, provider) = ported(by, |into| build(into, "misbehaving/provider.c", &[]));
    let report = directory.path().join("report");
    let provider = provider.config(json!({ "fault": fault, "report": report }));
    (directory, provider)
}

fn report(directory: &TempDir) -> String {
    std::fs::read_to_string(directory.path().join("report")).unwrap_or_default()
}

/// Waits until it has reported this.
async fn reported(directory: &TempDir, text: &str) {
    let limit = Instant::now() + Duration::from_secs(10);
    while !report(directory).contains(text) {
        assert!(Instant::now() < limit, "{}", report(directory));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn exec(provider: &PortProvider, deadline_ms: u64) -> Result<ExecReply, ProviderError> {
    let request = ExecRequest {
        sandbox_id: by_name("sbx_one"),
        argv: vec!["true".to_owned()],
        env: BTreeMap::new(),
    };
    let (_input, none) = mpsc::channel(1);
    let call = Call::quiet(meta(deadline_ms));
    provider.exec(&call, request, none).await
}

/// Another provider, in Python, which is called all the while.
struct Bystander {
    _directory: TempDir,
    ported: Ported,
    provider: PortProvider,
}

impl Bystander {
    async fn start() -> Self {
        let (directory, ported) = ported(By::Exec, |_| python());
        let provider = ported.port();
        let request = ProvisionRequest {
            sandbox_id: by_name("sbx_other"),
            ledger_id: "ledger".to_owned(),
            session_id: "ses_other".to_owned(),
            allow_unsandboxed: true,
        };
        let call = Call::quiet(meta(0));
        provider.provision(&call, request).await.unwrap();
        Self {
            _directory: directory,
            ported,
            provider,
        }
    }

    /// Calls it until the work is done, and then once more.
    async fn beside<T>(&self, work: impl Future<Output = T>) -> T {
        let mut work = std::pin::pin!(work);
        loop {
            let one = async {
                let request = ExecRequest {
                    sandbox_id: by_name("sbx_other"),
                    argv: ["sh", "-c", "exit 3"].map(str::to_owned).to_vec(),
                    env: BTreeMap::new(),
                };
                let (_input, none) = mpsc::channel(1);
                let call = Call::quiet(meta(5000));
                let reply = self.provider.exec(&call, request, none).await;
                assert_eq!(reply.unwrap(), ExecReply::Exited(3));
            };
            let mut one = std::pin::pin!(one);
            tokio::select! {
                done = &mut work => {
                    one.await;
                    return done;
                }
                () = &mut one => {}
            }
        }
    }
}

#[tokio::test]
async fn a_process_that_dies_is_a_crash_within_half_a_second() {
    let bystander = Bystander::start().await;
    for (fault, how) in [
        ("segfault", "signal 11"),
        ("abort", "signal 6"),
        ("exit", "exited with status 0"),
    ] {
        let (_directory, subject) = misbehaving(By::Hosted, fault);
        let provider = subject.port();
        provider.describe().await.unwrap();
        let fault_and_time = async {
            let begun = Instant::now();
            let error = exec(&provider, 0).await.unwrap_err();
            (error, begun.elapsed())
        };
        let (error, took) = bystander.beside(fault_and_time).await;
        assert_eq!(error.kind, ErrorKind::Crashed, "{fault}: {error}");
        assert_eq!(error.retry, Retry::Transient);
        assert!(error.message.contains(how), "{fault}: {error}");
        assert!(took < SOON, "{fault}: {took:?}");
        // The next call has another process.
        provider.describe().await.unwrap();
        drop(provider);
        assert_eq!(subject.processes(), [], "{fault}: a process is left");
    }
    drop(bystander.provider);
    assert_eq!(bystander.ported.processes(), []);
}

#[tokio::test]
async fn one_that_hangs_or_never_answers_is_a_timeout_at_its_deadline() {
    let bystander = Bystander::start().await;
    for (by, fault) in [
        (By::Hosted, "hang"),
        (By::Hosted, "never"),
        (By::InProcess, "never"),
    ] {
        let (_directory, mut subject) = misbehaving(by, fault);
        subject.timings.cancel = Duration::from_millis(100);
        subject.timings.term = Duration::from_millis(100);
        let provider = subject.port();
        provider.describe().await.unwrap();
        let limit = Duration::from_millis(300);
        let begun = Instant::now();
        let error = bystander.beside(exec(&provider, 300)).await.unwrap_err();
        let took = begun.elapsed();
        assert_eq!(error.kind, ErrorKind::Timeout, "{by:?} {fault}: {error}");
        assert!(took >= limit, "{by:?} {fault}: {took:?}");
        // Beside the slack that a caller with a clock of its own is given, and a call of the bystander.
        let most = limit + subject.timings.slack + SOON;
        assert!(took < most, "{by:?} {fault}: {took:?}");
        // A call that comes before the process is ended ends with it; the next one has a new process.
        if let Err(error) = provider.describe().await {
            assert_eq!(error.kind, ErrorKind::Crashed, "{by:?} {fault}: {error}");
            provider.describe().await.unwrap();
        }
        drop(provider);
        assert_eq!(subject.processes(), [], "{by:?} {fault}: a process is left");
    }
}

#[tokio::test]
async fn a_flood_is_held_up_and_the_answer_arrives() {
    let bystander = Bystander::start().await;
    for by in [By::Hosted, By::InProcess] {
        let (directory, subject) = misbehaving(by, "flood");
        let provider = subject.port();
        let error = bystander.beside(exec(&provider, 60_000)).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::NoSpace, "{by:?}: {error}");
        assert_eq!(report(&directory), "stream stopped: 1\n", "{by:?}");
        provider.describe().await.unwrap();
    }
}

#[tokio::test]
async fn an_answer_after_a_burst_that_is_too_much_arrives() {
    for (by, refused) in [(By::Hosted, 1), (By::InProcess, 0)] {
        let (directory, subject) = misbehaving(by, "burst");
        let error = exec(&subject.port(), 60_000).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::NoSpace, "{by:?}: {error}");
        let expected = format!("refused: {refused}\nanswer: 0\nagain: 2\n");
        assert_eq!(report(&directory), expected, "{by:?}");
    }
}

#[tokio::test]
async fn frames_that_make_no_sense_are_refused_one_by_one() {
    for by in [By::Hosted, By::InProcess] {
        let (directory, subject) = misbehaving(by, "garbage");
        let provider = subject.port();
        exec(&provider, 5000).await.unwrap_err();
        reported(&directory, "no bytes").await;
        assert_eq!(
            report(&directory),
            "unknown kind: 4\na kind of the host's: 4\nunknown call: 2\ntoo big: 6\nfar too big: 6\nno bytes: 7\n",
            "{by:?}"
        );
    }
}

#[tokio::test]
async fn an_answer_that_is_none_is_a_typed_error_within_half_a_second() {
    for by in [By::Hosted, By::InProcess] {
        for (fault, says) in [
            ("garbage", "it sent a frame of kind 99, which"),
            ("oversized", "OK of 1048577 bytes, of at most 1048576"),
            ("no-json", "no reply to `exec`"),
        ] {
            let (_directory, subject) = misbehaving(by, fault);
            let provider = subject.port();
            provider.describe().await.unwrap();
            let begun = Instant::now();
            let error = exec(&provider, 5000).await.unwrap_err();
            let took = begun.elapsed();
            assert_eq!(
                error.kind,
                ErrorKind::Unsupported,
                "{by:?} {fault}: {error}"
            );
            assert!(error.message.contains(says), "{by:?} {fault}: {error}");
            assert!(took < SOON, "{by:?} {fault}: {took:?}");
            // The call has ended, and nothing else.
            provider.describe().await.unwrap();
        }
    }
}

#[tokio::test]
async fn the_first_of_two_answers_counts() {
    for by in [By::Hosted, By::InProcess] {
        let (directory, subject) = misbehaving(by, "twice");
        let provider = subject.port();
        let error = exec(&provider, 5000).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::NoSpace, "{by:?}: {error}");
        provider.describe().await.unwrap();
        assert_eq!(
            report(&directory),
            "first: 0\nsecond: 2\nevent: 2\n",
            "{by:?}"
        );
    }
}

#[tokio::test]
async fn an_answer_after_close_finds_the_port_closed() {
    let (directory, subject) = misbehaving(By::InProcess, "after-close");
    let provider = subject.port();
    tokio::select! {
        reply = exec(&provider, 0) => panic!("an answer: {reply:?}"),
        () = reported(&directory, "begun") => {}
    }
    drop(provider);
    reported(&directory, "after close: 3\n").await;
}

#[tokio::test]
async fn one_that_closes_its_port_has_crashed_and_is_replaced() {
    for by in [By::Hosted, By::InProcess] {
        for (fault, says) in [("closes", "closed its port"), ("closed", "it is closed")] {
            let (_directory, subject) = misbehaving(by, fault);
            let provider = subject.port();
            provider.describe().await.unwrap();
            let begun = Instant::now();
            let error = exec(&provider, 5000).await.unwrap_err();
            let took = begun.elapsed();
            assert_eq!(error.kind, ErrorKind::Crashed, "{by:?} {fault}: {error}");
            assert!(error.message.contains(says), "{by:?} {fault}: {error}");
            assert!(took < SOON, "{by:?} {fault}: {took:?}");
            // Its process ends by itself, and the next call has another instance.
            let limit = Instant::now() + Duration::from_secs(5);
            while !subject.processes().is_empty() {
                assert!(Instant::now() < limit, "{fault}: a process is left");
                tokio::task::yield_now().await;
            }
            provider.describe().await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_wire_that_breaks_is_a_typed_error_within_half_a_second() {
    let bystander = Bystander::start().await;
    for (fault, kind, says) in [
        ("TRUNCATED", ErrorKind::Crashed, ""),
        ("OVERSIZED", ErrorKind::Unsupported, "4294967295"),
        ("UNKNOWN_KIND", ErrorKind::Unsupported, "99"),
        ("WRONG_MAGIC", ErrorKind::Unsupported, "SOMEBODY"),
        ("WRONG_RANGE", ErrorKind::Unsupported, "7 to 9"),
        ("NO_JSON", ErrorKind::Unsupported, "greeting"),
    ] {
        let program =
            |into: &Path| build(into, "misbehaving/wire.c", &[&format!("-DFAULT={fault}")]);
        let (_directory, subject) = ported(By::Exec, program);
        let provider = subject.port();
        let call = async {
            let begun = Instant::now();
            let error = provider.describe().await.unwrap_err();
            (error, begun.elapsed())
        };
        let (error, took) = bystander.beside(call).await;
        assert_eq!(error.kind, kind, "{fault}: {error}");
        assert!(error.message.contains(says), "{fault}: {error}");
        assert!(took < SOON, "{fault}: {took:?}");
        drop(provider);
        assert_eq!(subject.processes(), [], "{fault}: a process is left");
    }
}

#[tokio::test]
async fn one_that_does_not_greet_is_given_up() {
    let program = |into: &Path| build(into, "misbehaving/wire.c", &["-DFAULT=SILENT"]);
    let (_directory, mut subject) = ported(By::Exec, program);
    subject.timings.start = Duration::from_millis(200);
    subject.timings.term = Duration::from_millis(100);
    let begun = Instant::now();
    let error = subject.port().describe().await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Crashed, "{error}");
    assert!(error.message.contains("not ready within 0.2 s"), "{error}");
    assert!(begun.elapsed() < Duration::from_millis(300) + SOON);
    assert_eq!(subject.processes(), [], "a process is left");
}
