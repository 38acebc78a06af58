//! What is quick: the version, an `up` with the fake provider; and what a supervisor takes while nothing happens.

use crate::world::{alpine, argument, document, program, text};
use alpine_benches::measure::{in_turns, proc_kib, run, run_and_read};
use alpine_benches::report::{Bar, Report, mib, ms, ratio};
use alpine_testkit::{TestEnv, TestRepo};
use std::process::Command;
use std::thread;
use std::time::Duration;

const TURNS: usize = 200;
const UPS: usize = 30;
/// How long a supervisor is left alone before it is looked at.
const IDLE: Duration = Duration::from_secs(3);

pub(crate) fn version(report: &mut Report) {
    let env = TestEnv::new();
    let [ours, gits] = in_turns(
        TURNS,
        [&mut || run(&mut alpine(&env, &["--version"])), &mut || {
            run(&mut program(&env, "git", &["--version"]))
        }],
    );
    let (ours, gits) = (ours.median(), gits.median());
    let bar = Bar {
        value: ratio(ours, gits),
        most: 2.0,
        unit: "×",
    };
    report.bar(
        "`alpine --version` / `git --version`",
        ms(ours),
        ms(gits),
        bar,
    );
}

fn bring_up(env: &TestEnv, repo: &TestRepo, more: &[&str]) -> Command {
    let usual = [
        "up",
        argument(&repo.path),
        "--branch",
        "main",
        "--no-browser",
        "--json",
    ];
    alpine(env, &[&usual, more].concat())
}

pub(crate) fn up(report: &mut Report) {
    let env = TestEnv::new();
    let repo = env.git_repo(&[("README.md", "a repository\n")]);
    let fake = ["--provider", "fake", "--agent", "page"];
    let [ours] = in_turns(UPS, [&mut || run(&mut bring_up(&env, &repo, &fake))]);
    let bar = Bar {
        value: ours.median().as_secs_f64() * 1000.0,
        most: 150.0,
        unit: "ms",
    };
    let what = "`up` with the fake provider: median";
    let p95 = format!("{} (p95 {})", ms(ours.median()), ms(ours.p95()));
    report.bar(what, p95, "–".to_owned(), bar);
    let commits = commits(&mut bring_up(&env, &repo, &fake));
    let bar = Bar {
        value: commits as f64,
        most: 12.0,
        unit: "commits",
    };
    let what = "`up` with the fake provider: commits of the ledger";
    report.bar(what, commits.to_string(), "–".to_owned(), bar);
    env.fake().assert_no_violations();
    let steps = document(&run_and_read(&mut bring_up(&env, &repo, &fake)).1);
    report.note(format!(
        "an `up` with the fake provider, step → ms: {}",
        steps["step_ms"]
    ));
}

/// The program says at its end how often it committed; that is a line of its log.
fn commits(up: &mut Command) -> u64 {
    let output = up
        .env("ALPINE_LOG", "alpine_cli=debug")
        .env("ALPINE_LOG_FORMAT", "json")
        .output()
        .expect("a program");
    let log = String::from_utf8_lossy(&output.stderr);
    let counted = log.lines().find_map(|line| {
        let event: serde_json::Value = serde_json::from_str(line).ok()?;
        event["fields"]["commits"].as_u64()
    });
    counted.unwrap_or_else(|| panic!("no number of commits in the log: {log}"))
}

pub(crate) fn supervisor(report: &mut Report) {
    let env = TestEnv::new();
    let repo = env.git_repo(&[("README.md", "a repository\n")]);
    for agent in ["none", "page"] {
        let more = [
            "--provider",
            "local",
            "--agent",
            agent,
            "--allow-unsandboxed",
        ];
        let (_, said) = run_and_read(&mut bring_up(&env, &repo, &more));
        let session = document(&said);
        // A program that has done something is not idle yet.
        thread::sleep(IDLE);
        let supervisors = env.processes();
        let [supervisor] = supervisors.as_slice() else {
            panic!("one process: {supervisors:?}");
        };
        let resident = proc_kib(supervisor.pid, "status", "VmRSS");
        let own = proc_kib(supervisor.pid, "smaps_rollup", "Pss");
        let anonymous = proc_kib(supervisor.pid, "status", "RssAnon");
        let bar = Bar {
            value: mib(resident),
            most: 8.0,
            unit: "MiB",
        };
        report.bar(
            &format!("the idle supervisor, resident, agent `{agent}`"),
            format!(
                "{:.1} MiB (PSS {:.1}, anonymous {:.1})",
                mib(resident),
                mib(own),
                mib(anonymous)
            ),
            "–".to_owned(),
            bar,
        );
        run(&mut alpine(
            &env,
            &["down", text(&session, "session_id"), "--json"],
        ));
    }
}
