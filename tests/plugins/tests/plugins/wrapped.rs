//! A provider that a script starts and waits for: what ends the script ends the provider, and nothing of a sandbox.

use super::support::{by_name, meta, ported};
use alpine_plugin_tests::{By, Ported, python};
use alpine_provider_api::*;
use rustix::process::{Pid, Signal, kill_process};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// Starts one that takes no hint beside the provider.
fn script(into: &Path) -> PathBuf {
    let script = into.join("provider.sh");
    let stubborn = "trap '' TERM HUP INT; while :; do sleep 1000; done";
    let python = python();
    let text = format!(
        "#!/bin/sh\nsh -c \"{stubborn}\" 3>&- &\n/usr/bin/python3 {}\nexit $?\n",
        python.display()
    );
    fs::write(&script, text).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    script
}

/// The process of this name.
fn named(name: &str, processes: &[Pid]) -> Pid {
    let is = |pid: &&Pid| {
        let comm = fs::read_to_string(format!("/proc/{}/comm", pid.as_raw_nonzero()));
        comm.is_ok_and(|comm| comm.starts_with(name))
    };
    *processes.iter().find(is).expect(name)
}

/// Whether it has not ended.
fn lives(pid: Pid) -> bool {
    let words = fs::read(format!("/proc/{}/cmdline", pid.as_raw_nonzero()));
    words.is_ok_and(|words| !words.is_empty())
}

/// Runs a command in the sandbox.
async fn exec(provider: &dyn SandboxProvider, call: Call, text: &str) -> Result<(), ProviderError> {
    let request = ExecRequest {
        sandbox_id: by_name("sbx_one"),
        argv: ["sh", "-c", text].map(str::to_owned).to_vec(),
        env: BTreeMap::new(),
    };
    provider.exec(&call, request, mpsc::channel(1).1).await?;
    Ok(())
}

/// A provider with a sandbox in which a command has left something in the background: what that is.
async fn with_sandbox(provider: &dyn SandboxProvider) -> Pid {
    let request = ProvisionRequest {
        sandbox_id: by_name("sbx_one"),
        ledger_id: "ledger".to_owned(),
        session_id: "ses_one".to_owned(),
        allow_unsandboxed: true,
    };
    let call = Call::quiet(meta(0));
    provider.provision(&call, request).await.unwrap();
    let (events, mut said) = mpsc::channel(64);
    let text = "sleep 1000 > /dev/null 2>&1 & echo $!";
    let call = Call::new(meta(0), events);
    exec(provider, call, text).await.unwrap();
    let Some(CallEvent::Stdout(text)) = said.recv().await else {
        panic!("no output");
    };
    let text = String::from_utf8(text).unwrap();
    Pid::from_raw(text.trim().parse().unwrap()).unwrap()
}

/// Waits until no process of the provider is left.
async fn gone(subject: &Ported, how: &str) {
    let limit = Instant::now() + Duration::from_secs(5);
    while !subject.processes().is_empty() {
        assert!(Instant::now() < limit, "{how}: {:?}", subject.processes());
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn what_a_script_has_started_ends_with_it() {
    for how in ["deadline", "close", "death"] {
        let (_directory, mut subject) = ported(By::Exec, script);
        subject.timings.cancel = Duration::from_millis(100);
        subject.timings.close = Duration::from_millis(100);
        let mut provider = subject.port();
        let of_sandbox = with_sandbox(&provider).await;
        let processes = subject.processes();
        // So that it does not answer.
        kill_process(named("python", &processes), Signal::STOP).unwrap();
        match how {
            "deadline" => {
                let error = exec(&provider, Call::quiet(meta(100)), "true").await;
                assert_eq!(error.unwrap_err().kind, ErrorKind::Timeout);
            }
            "close" => {
                drop(provider);
                provider = subject.port();
            }
            _ => kill_process(named("provider.sh", &processes), Signal::KILL).unwrap(),
        }
        gone(&subject, how).await;
        assert!(lives(of_sandbox), "{how}");
        let sandbox_id = by_name("sbx_one");
        let call = Call::quiet(meta(0));
        let request = DestroyRequest { sandbox_id };
        provider.destroy(&call, request).await.unwrap();
        assert!(!lives(of_sandbox), "{how}");
        drop(provider);
        gone(&subject, how).await;
    }
}
