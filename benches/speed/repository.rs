//! `up` and `down` of a local repository of 5 000 files.

use crate::world::{alpine, argument, document, program, text};
use alpine_benches::measure::{Samples, run, run_and_read};
use alpine_benches::report::{Bar, Report, ms, ratio};
use alpine_ledger::{Ledger, Options, SessionId};
use alpine_testkit::{TestEnv, TestRepo};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const FILES: u64 = 5000;
const FOLDERS: u64 = 100;
const TURNS: usize = 11;

/// Everything that is timed.
#[derive(Default)]
struct Times {
    clone: Samples,
    up: Samples,
    tar: Samples,
    tar_and_sync: Samples,
    down: Samples,
    deleted: Samples,
    steps: BTreeMap<String, Samples>,
}

pub(crate) fn up_and_down(report: &mut Report) {
    let env = TestEnv::new();
    let repo = repository(&env);
    let mut times = Times::default();
    // The first turn makes the mirror; it is not counted.
    turn(&env, &repo, 0, &mut Times::default());
    for number in 1..=TURNS {
        turn(&env, &repo, number, &mut times);
    }
    let (up, clone) = (times.up.median(), times.clone.median());
    let bar = Bar {
        value: ratio(up, clone),
        most: 1.5,
        unit: "×",
    };
    let what = "`up --agent none`, 5 000 files, warm mirror / `git clone --local`";
    report.bar(what, ms(up), ms(clone), bar);
    let (down, tar) = (times.down.median(), times.tar.median());
    let bar = Bar {
        value: ratio(down, tar),
        most: 1.5,
        unit: "×",
    };
    let what = "`down` of it / `tar --zstd` of its workspace";
    report.bar(what, ms(down), ms(tar), bar);
    let synced = times.tar_and_sync.median();
    report.fact(
        "  … / `tar --zstd` and fsync of the archive",
        ms(down),
        ms(synced),
        Some(ratio(down, synced)),
    );
    report.note(format!(
        "5 000 files, until the remover has deleted them, after `down` has ended: {}",
        ms(times.deleted.median())
    ));
    let steps: Vec<_> = times
        .steps
        .iter()
        .map(|(step, samples)| format!("{step} {}", ms(samples.median())))
        .collect();
    report.note(format!(
        "5 000 files, medians of the steps: {}",
        steps.join(", ")
    ));
}

fn turn(env: &TestEnv, repo: &TestRepo, number: usize, times: &mut Times) {
    let clone = env.root().join("clone");
    let up = if number.is_multiple_of(2) {
        times.clone.add(clone_to(env, repo, &clone));
        bring_up(env, repo, times)
    } else {
        let up = bring_up(env, repo, times);
        times.clone.add(clone_to(env, repo, &clone));
        up
    };
    let workspace = PathBuf::from(text(&up, "workspace_path"));
    let archive = env.root().join("workspace.tar.zst");
    if number.is_multiple_of(2) {
        times.tar.add(tar(env, &workspace, &archive, false));
        times.tar_and_sync.add(tar(env, &workspace, &archive, true));
    } else {
        times.tar_and_sync.add(tar(env, &workspace, &archive, true));
        times.tar.add(tar(env, &workspace, &archive, false));
    }
    bring_down(env, text(&up, "session_id"), times);
    fs::remove_dir_all(&clone).expect("a clone");
}

/// Before each thing that is timed the file system is quiet: nothing pays for what another has written.
fn quiet(env: &TestEnv) {
    let root = File::open(env.root()).expect("the root");
    rustix::fs::syncfs(root).expect("a file system");
}

fn clone_to(env: &TestEnv, repo: &TestRepo, to: &Path) -> Duration {
    let arguments = [
        "clone",
        "--quiet",
        "--local",
        "--branch",
        "main",
        argument(&repo.path),
        argument(to),
    ];
    quiet(env);
    run(&mut program(env, "git", &arguments))
}

fn bring_up(env: &TestEnv, repo: &TestRepo, times: &mut Times) -> serde_json::Value {
    let arguments = [
        "up",
        argument(&repo.path),
        "--branch",
        "main",
        "--provider",
        "local",
        "--agent",
        "none",
        "--no-browser",
        "--allow-unsandboxed",
        "--json",
    ];
    quiet(env);
    let (took, said) = run_and_read(&mut alpine(env, &arguments));
    times.up.add(took);
    let up = document(&said);
    for (step, took) in up["step_ms"].as_object().into_iter().flatten() {
        let took = Duration::from_millis(took.as_u64().expect("milliseconds"));
        times
            .steps
            .entry(format!("up {step}"))
            .or_default()
            .add(took);
    }
    up
}

fn bring_down(env: &TestEnv, session: &str, times: &mut Times) {
    quiet(env);
    let (took, said) = run_and_read(&mut alpine(env, &["down", session, "--json"]));
    times.down.add(took);
    // What is deleted after the command has ended must not slow down what is measured next.
    let start = Instant::now();
    env.assert_no_processes(Duration::from_secs(60));
    times.deleted.add(start.elapsed());
    let down = document(&said);
    assert_eq!(down["persistence_verified"], true, "{down}");
    let path = env.alpine_home().join("ledger.redb");
    let ledger = Ledger::open_read(&path, Options::new()).expect("a ledger");
    let operations =
        ledger.read(|snapshot| snapshot.operations(&SessionId::from_recorded(session)));
    let operations = operations.expect("the session's operations");
    for step in &operations.last().expect("a `down`").steps {
        let took = Duration::from_millis(step.duration_ms);
        times
            .steps
            .entry(format!("down {}", step.step))
            .or_default()
            .add(took);
    }
}

/// An archive of a directory, as `tar` makes it; on the disk, or in the cache only.
fn tar(env: &TestEnv, directory: &Path, archive: &Path, to_disk: bool) -> Duration {
    let arguments = [
        "--zstd",
        "-cf",
        argument(archive),
        "-C",
        argument(directory),
        ".",
    ];
    let mut command = program(env, "tar", &arguments);
    quiet(env);
    let start = Instant::now();
    run(&mut command);
    if to_disk {
        let archive = File::open(archive).expect("the archive");
        archive.sync_all().expect("the archive on the disk");
    }
    let took = start.elapsed();
    fs::remove_file(archive).expect("the archive");
    took
}

/// Text of the sizes and the compressibility of source code, packed as a repository that was cloned is.
fn repository(env: &TestEnv) -> TestRepo {
    let mut words = Words(7);
    let files: Vec<(String, String)> = (0..FILES)
        .map(|number| {
            let path = format!("src/part{}/file{number}.txt", number % FOLDERS);
            let size = 500 + words.next() % 8000;
            (path, words.text(size))
        })
        .collect();
    let files: Vec<(&str, &str)> = files
        .iter()
        .map(|(path, content)| (path.as_str(), content.as_str()))
        .collect();
    let repo = env.git_repo(&files);
    repo.git(&["gc", "--quiet"]);
    repo
}

/// The same numbers each time.
struct Words(u64);

impl Words {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 >> 8
    }

    fn text(&mut self, size: u64) -> String {
        let size = usize::try_from(size).expect("a size");
        let mut text = String::with_capacity(size + 16);
        while text.len() < size {
            // Few words are frequent, many are rare.
            let rare = self.next() % 64;
            let word = self.next() % (rare * rare + 8);
            let end = if self.next().is_multiple_of(9) {
                "\n"
            } else {
                " "
            };
            text.push_str(&format!("w{:x}{end}", word * 2_654_435_761 % 1_048_573));
        }
        text
    }
}
