//! The same on the local provider, with real processes and git: killed at every commit, so at every step's record.

use crate::local::object::restore;
use crate::local::program::{Program, files};
use crate::support::text;
use alpine_e2e::commits::Strike;
use alpine_testkit::{Output, TestRepo};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

const KILLS: [Strike; 3] = [Strike::Before, Strike::During, Strike::After];
const VICTIMS: [Victim; 2] = [Victim::Cli, Victim::Provider];

/// Whose process a kill ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Victim {
    /// The command that the user runs.
    Cli,
    /// The processes in which the provider works, too.
    Provider,
}

/// An agent that is a process of its own, so that what it leaves counts as work.
const CONFIG: &str =
    "[agents.worker]\nargv = ['python3', '-m', 'http.server', '{port}', '--bind', '127.0.0.1']\n";

/// A home with the real provider, and one request.
pub(super) struct Place {
    pub(super) program: Program,
    repo: TestRepo,
}

impl Place {
    fn new() -> Self {
        Self::with_limits("")
    }

    fn with_limits(limits: &str) -> Self {
        Self::of(Program::new(), &format!("{CONFIG}[limits]\n{limits}\n"))
    }

    pub(super) fn of(program: Program, config: &str) -> Self {
        program.configure(config);
        let repo = program.env.git_repo(&[("README.md", "a repository\n")]);
        Self { program, repo }
    }

    pub(super) fn up(&self) -> Vec<&str> {
        let path = self.repo.path.to_str().expect("a path of UTF-8");
        let fixed = [
            "up",
            path,
            "--branch",
            "main",
            "--no-browser",
            "--name",
            "it",
        ];
        let own = ["--client-request-id", "one", "--agent", "worker"];
        [&fixed[..], &own[..]].concat()
    }

    /// Runs the program; a strike kills it at one of its commits.
    fn run(&self, arguments: &[&str], strike: Option<(u64, Strike)>) -> Output {
        let mut command = self.program.command(arguments);
        command
            .arg("--json")
            .env("ALPINE_TEST_COMMITS", self.commits());
        if let Some((at, strike)) = strike {
            command.env("ALPINE_TEST_STRIKE", format!("{at} {}", strike.name()));
        }
        self.program.run_it(&mut command)
    }

    fn commits(&self) -> PathBuf {
        self.program.env.root().join("commits")
    }

    /// Kills the program at a commit, and the supervisors with it where they are the victim too.
    fn kill(&self, arguments: &[&str], (at, strike, victim): (u64, Strike, Victim)) {
        let killed = self.run(arguments, Some((at, strike)));
        assert_eq!(killed.code(), None, "{at} {strike:?}: {killed:#?}");
        let supervisors = match victim {
            Victim::Cli => Vec::new(),
            Victim::Provider => self.program.env.processes(),
        };
        for process in supervisors {
            let pid = i32::try_from(process.pid).ok().and_then(Pid::from_raw);
            // One that ends by itself meanwhile can't be killed any more.
            let _gone = kill_process(pid.expect("a pid"), Signal::KILL);
        }
    }

    /// Brings the session up; its agent has done something.
    fn ready(&self) {
        let up = self.program.json(&self.up());
        assert_eq!(up["state"], "ready", "{up:#}");
        let workspace = PathBuf::from(text(&up, "workspace_path"));
        assert_eq!(head(&workspace), self.repo.head);
        fs::write(workspace.join("work"), "done").expect("a workspace");
    }

    /// Lets alpine recover, which has to succeed; gives what it found.
    pub(super) fn reconcile(&self) -> Vec<Value> {
        let mut found = self.program.json(&["reconcile"]);
        let Value::Array(found) = found["reconciled"].take() else {
            panic!("no list: {found:#}");
        };
        let failed = |one: &Value| !one["error"].is_null();
        assert!(!found.iter().any(failed), "{found:#?}");
        found
    }

    /// What the agent has done is in the object, and nothing is left.
    pub(super) fn is_down_with_its_work(&self) {
        let object = restore(&self.program, &self.program.down("it"));
        let work = fs::read_to_string(object.restored.join("workspace/work"));
        assert_eq!(work.expect("the work"), "done");
        self.program.assert_nothing_left();
    }
}

/// The one thing that was found: what it is, and whether it was done.
fn only(found: &[Value]) -> (&str, bool) {
    assert_eq!(found.len(), 1, "{found:#?}");
    let finding = found[0]["finding"].as_str().expect("a finding");
    (finding, found[0]["done"] == true)
}

fn head(workspace: &Path) -> String {
    let mut git = std::process::Command::new("git");
    let output = git
        .args(["rev-parse", "HEAD"])
        .current_dir(workspace)
        .output();
    let output = output.expect("git").stdout;
    String::from_utf8_lossy(&output).trim().to_owned()
}

/// How many commits an `up` and a `down` make.
fn counts() -> (u64, u64) {
    let place = Place::new();
    let count = |arguments: &[&str]| {
        let output = place.run(arguments, None);
        assert_eq!(output.code(), Some(0), "{output:#?}");
        let told = fs::read_to_string(place.commits()).expect("a count");
        told.parse::<u64>().expect("a number")
    };
    (count(&place.up()), count(&["down", "it"]))
}

/// Every commit with one kill, or with every kill and victim where all is asked for.
fn kills(commits: u64) -> Vec<(u64, Strike, Victim)> {
    let all = (1..=commits).flat_map(|at| {
        let each = |strike| VICTIMS.map(|victim| (at, strike, victim));
        KILLS.into_iter().flat_map(each).collect::<Vec<_>>()
    });
    let one = |index: usize| super::is_whole() || index % 6 == (index / 6 * 2 + 1) % 6;
    let picked = all.enumerate().filter(|(index, _)| one(*index));
    picked.map(|(_, kill)| kill).collect()
}

#[test]
fn the_local_provider_is_killed_at_every_commit() {
    let (up, down) = counts();
    let ups = kills(up);
    let downs = kills(down);
    super::in_parallel(&ups, |kill| {
        let place = Place::new();
        place.kill(&place.up(), *kill);
        place.reconcile();
        place.ready();
        place.is_down_with_its_work();
    });
    super::in_parallel(&downs, |kill| {
        let place = Place::new();
        place.ready();
        place.kill(&["down", "it"], *kill);
        place.reconcile();
        place.is_down_with_its_work();
    });
    println!(
        "{} points on the local provider are sound",
        ups.len() + downs.len()
    );
}

#[test]
fn an_up_that_was_killed_and_left_is_unwound_and_its_work_is_kept() {
    // Killed before the last commit that leaves it short of `ready`: its agent runs by then.
    let (up, _) = counts();
    let killed = |at| {
        let place = Place::with_limits("abandon = '1ms'");
        place.kill(&place.up(), (at, Strike::Before, Victim::Cli));
        let state = text(&place.program.json(&["status", "it"]), "state");
        if state != "ready" {
            return Some(place);
        }
        place.program.down("it");
        None
    };
    let place = (1..=up).rev().find_map(killed).expect("one before `ready`");
    let dirs = place.program.sandbox_dirs();
    let sandbox = place.program.sandboxes().join(&dirs[0]);
    fs::write(sandbox.join("workspace/work"), "done").expect("a workspace");
    let found = place.reconcile();
    assert_eq!(only(&found), ("abandoned_up", true));
    let down = place
        .program
        .json(&["down", &text(&found[0], "session_id")]);
    assert_eq!(down["state"], "failed", "{down:#}");
    let object = restore(&place.program, &down);
    let work = fs::read_to_string(object.restored.join("workspace/work"));
    assert_eq!(work.expect("the work"), "done");
    place.program.assert_nothing_left();
    assert_eq!(place.reconcile(), [Value::Null; 0]);
}

/// As when a copy of the ledger is brought back that is older than a session.
#[test]
fn a_sandbox_that_the_ledger_does_not_know_is_saved_and_then_destroyed() {
    let place = Place::with_limits("quarantine = '1ms'");
    assert_eq!(place.reconcile(), [Value::Null; 0]);
    let ledger = place.program.env.alpine_home().join("ledger.redb");
    let copy = place.program.env.root().join("copy");
    fs::copy(&ledger, &copy).expect("a copy");
    place.ready();
    fs::copy(&copy, &ledger).expect("the older ledger");
    assert_eq!(only(&place.reconcile()), ("orphan", false));
    assert_eq!(place.program.sandbox_dirs().len(), 1, "saved, and kept");
    let objects = files(&place.program.env.alpine_home().join("objects"));
    assert!(!objects.is_empty());
    assert_eq!(only(&place.reconcile()), ("orphan", true));
    place.program.assert_nothing_left();
    assert_eq!(place.reconcile(), [Value::Null; 0]);
}
