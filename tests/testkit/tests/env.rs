//! The test environment is hermetic, and leaves nothing behind.

use alpine_ledger::Clock;
use alpine_testkit::{TestEnv, json};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

fn shell(env: &TestEnv, script: &str) -> std::process::Command {
    let mut command = env.command(Path::new("sh"));
    command.arg("-c").arg(script);
    command
}

#[test]
fn only_the_named_variables_are_there() {
    let env = TestEnv::new();
    let output = env.run(&mut env.command(Path::new("env"))).success();
    let mut names: Vec<&str> = output
        .stdout
        .lines()
        .filter_map(|line| line.split('=').next())
        .collect();
    names.sort_unstable();
    let expected = "ALPINE_HOME ALPINE_PRINCIPAL_ID ALPINE_TEST_CLOCK_MS ALPINE_TEST_FAKE_DIR ALPINE_TEST_MARK \
        ALPINE_TEST_SEED HOME LC_ALL PATH TMPDIR TZ XDG_CACHE_HOME XDG_CONFIG_HOME XDG_DATA_HOME XDG_RUNTIME_DIR \
        XDG_STATE_HOME";
    assert_eq!(names.join(" "), expected);
    let mode = fs::metadata(env.alpine_home())
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o700);
}

#[test]
fn programs_see_the_clock_that_the_test_sets() {
    let env = TestEnv::new();
    env.set_clock(1234);
    let output = env.run(&mut shell(&env, "cut -d' ' -f1 \"$ALPINE_TEST_CLOCK_MS\""));
    assert_eq!(output.stdout, "1234\n");
    assert_eq!(env.clock().now().0, 1234);
}

#[test]
fn a_repository_is_the_same_each_time() {
    let env = TestEnv::new();
    let files = [("a.txt", "a\n"), ("src/b.txt", "b\n")];
    let (one, two) = (env.git_repo(&files), env.git_repo(&files));
    assert_eq!(one.head, two.head);
    assert_ne!(one.path, two.path);
    assert_eq!(one.git(&["symbolic-ref", "--short", "HEAD"]), "main");
    assert_eq!(one.git(&["status", "--porcelain"]), "");
    let next = one.commit("second", &[("a.txt", "more\n")]);
    assert_eq!(one.git(&["rev-parse", "HEAD^"]), two.head);
    assert_eq!(one.git(&["rev-parse", "HEAD"]), next);
}

#[test]
fn what_does_not_end_in_time_is_killed_and_named() {
    let env = TestEnv::new();
    let limit = Duration::from_millis(100);
    let message = |script: &str| {
        let run = || env.run_for(&mut shell(&env, script), limit);
        *catch_unwind(AssertUnwindSafe(run))
            .unwrap_err()
            .downcast::<String>()
            .unwrap()
    };
    assert!(message("echo begun; exec sleep 600").contains("has not ended in 100ms"));
    assert!(message("sleep 600 & exit 0").contains("holds its output open"));
}

#[test]
fn one_document_is_one_document() {
    let env = TestEnv::new();
    let output = |text: &str| env.run(&mut shell(&env, &format!("printf '%s' '{text}'")));
    assert_eq!(json(&output("{\"a\": 1}\n"))["a"], 1);
    for text in ["", "{} {}", "{} x", "x"] {
        let output = output(text);
        assert!(
            catch_unwind(AssertUnwindSafe(|| json(&output))).is_err(),
            "{text}"
        );
    }
}

#[test]
fn nothing_is_left_of_it() {
    let env = TestEnv::new();
    let root = env.root().to_owned();
    // One bears the mark alone, one has shed it but stays in the directory, one has nothing but an argument.
    let marked = "cd /; exec env -i ALPINE_TEST_MARK=$ALPINE_TEST_MARK sleep 601";
    let moved = "exec env -i sleep 602";
    let argued = "touch $HOME/603; cd /; exec env -i tail -f $HOME/603";
    for script in [marked, moved, argued] {
        let mut command = shell(&env, &format!("setsid sh -c '{script}' &"));
        let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
        assert!(status.unwrap().success());
    }
    let until = Instant::now() + Duration::from_secs(10);
    let argued = format!("tail -f {}/home/603", root.display());
    let expected = ["sleep 601", "sleep 602", argued.as_str()];
    let found = || {
        expected.map(|command| {
            env.processes()
                .into_iter()
                .find(|found| found.command == command)
        })
    };
    while found().iter().any(Option::is_none) {
        assert!(Instant::now() < until, "{:?}", env.processes());
        std::thread::sleep(Duration::from_millis(5));
    }
    let found = found().map(Option::unwrap);
    let locked = root.join("home/locked");
    fs::create_dir(&locked).unwrap();
    fs::write(locked.join("file"), "x").unwrap();
    fs::set_permissions(&locked, fs::Permissions::from_mode(0o000)).unwrap();
    drop(env);
    assert!(!root.exists());
    for process in found {
        let place = format!("/proc/{}/cmdline", process.pid);
        let command = fs::read_to_string(place)
            .unwrap_or_default()
            .replace('\0', " ");
        assert_ne!(command.trim(), process.command);
    }
}
