//! Many processes share one fake, and those that it kills leave it whole.

use alpine_provider_api::{ErrorKind, SandboxState};
use alpine_testkit::{FakeControl, Fault, KillPoint, Outcome, TestEnv};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

fn caller(env: &TestEnv, sandbox: &str, fence: u64, methods: &[&str]) -> Command {
    let mut command = env.command(Path::new(env!("CARGO_BIN_EXE_alpine-fake-caller")));
    command.arg(sandbox).arg(fence.to_string()).args(methods);
    command
}

#[test]
fn two_hundred_processes_at_once() {
    let env = TestEnv::new();
    let control: FakeControl = env.fake();
    control.fault("install", Fault::Transient(ErrorKind::Unreachable), 50);
    let children: Vec<Child> = (0..200)
        .map(|number| {
            // Every second one works on the same sandbox.
            let sandbox = if number % 2 == 0 {
                "sbx_shared".to_owned()
            } else {
                format!("sbx_{number}")
            };
            caller(&env, &sandbox, 1, &["provision", "sync_repo", "install"])
                .stdout(Stdio::piped())
                .spawn()
                .unwrap()
        })
        .collect();
    let mut failed = 0;
    for child in children {
        let said = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
        let replies: Vec<&str> = said.lines().collect();
        assert_eq!(replies[..2], ["ok", "ok"], "{said}");
        failed += usize::from(replies[2] == "unreachable");
    }
    assert_eq!(failed, 50);
    assert_eq!(control.calls().len(), 600);
    assert_eq!(control.sandboxes().len(), 101);
    control.assert_no_violations();
}

#[test]
fn a_process_that_is_killed_leaves_what_it_had_done() {
    for point in KillPoint::ALL {
        let env = TestEnv::new();
        let control = env.fake();
        control.fault("sync_repo", Fault::KillCaller(point), 1);
        let killed = env.run(&mut caller(&env, "sbx_1", 1, &["provision", "sync_repo"]));
        assert_eq!(killed.status.signal(), Some(9), "{killed:?}");
        assert_eq!(killed.stdout, "ok\n");
        assert_eq!(control.calls()[1].outcome, Outcome::Unfinished);
        let sandboxes = control.sandboxes();
        let found = (sandboxes[0].files.is_empty(), sandboxes[0].head.is_none());
        let expected = match point {
            KillPoint::Before => (true, true),
            KillPoint::During => (false, true),
            KillPoint::After => (false, false),
        };
        assert_eq!(found, expected, "{point:?}");
        let again = env.run(&mut caller(
            &env,
            "sbx_1",
            2,
            &["provision", "sync_repo", "install"],
        ));
        assert_eq!(again.stdout, "ok\nok\nok\n");
        let late = env.run(&mut caller(&env, "sbx_1", 1, &["stop"]));
        assert_eq!(late.stdout, "fenced\n");
        assert_eq!(control.sandboxes()[0].state, SandboxState::Running);
        control.assert_no_violations();
    }
}
