//! What goes wrong on a real machine, and that no work is lost by it.

use crate::local::object::{restore, restore_object};
use crate::local::program::Program;
use crate::local::whole::repository;
use crate::support::{Running, text, wait_until};
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

pub(crate) fn supervisor(program: &Program) -> Pid {
    let processes = program.env.processes();
    let found = processes
        .iter()
        .find(|process| process.command.starts_with("alpine-shim"));
    let pid = found
        .unwrap_or_else(|| panic!("no supervisor in {processes:#?}"))
        .pid;
    Pid::from_raw(i32::try_from(pid).unwrap()).unwrap()
}

fn working(program: &Program) -> PathBuf {
    let up = program.up(&repository(program), &["--agent", "page", "--name", "it"]);
    let workspace = PathBuf::from(text(&up, "workspace_path"));
    fs::write(workspace.join("work"), "done").unwrap();
    workspace
}

#[track_caller]
fn down_with_the_work(program: &Program) {
    let object = restore(program, &program.down("it"));
    assert_eq!(
        fs::read_to_string(object.restored.join("workspace/work")).unwrap(),
        "done"
    );
    program.assert_nothing_left();
}

#[test]
fn a_session_whose_supervisor_was_killed_keeps_its_work() {
    let program = Program::new();
    working(&program);
    let observed = || text(&program.json(&["status", "it"])["observed"], "state");
    assert_eq!(observed(), "running");
    kill_process(supervisor(&program), Signal::KILL).unwrap();
    wait_until("the end to be seen", || observed() == "exited");
    down_with_the_work(&program);
}

#[test]
fn a_supervisor_that_stands_still_holds_nothing_up() {
    let program = Program::new();
    working(&program);
    kill_process(supervisor(&program), Signal::STOP).unwrap();
    let status = program.json(&["status", "it"]);
    assert_eq!(status["state"], "ready", "{status:#}");
    down_with_the_work(&program);
}

#[test]
fn a_down_that_is_killed_is_finished_by_the_next() {
    let program = Program::new();
    let workspace = working(&program);
    // Enough that it takes a while.
    for number in 0..300 {
        fs::write(workspace.join(format!("f{number}")), vec![b'x'; 20_000]).unwrap();
    }
    for state in ["stopping", "persisting"] {
        let running = Running::start(program.command(&["down", "it"]));
        wait_until(state, || {
            let now = text(&program.json(&["status", "it"]), "state");
            now == state || now == "persisting" || now == "stopped"
        });
        running.kill();
    }
    let object = restore(&program, &program.json(&["down", "it"]));
    let restored = object.restored.join("workspace");
    assert_eq!(fs::read_to_string(restored.join("work")).unwrap(), "done");
    assert_eq!(fs::read(restored.join("f299")).unwrap().len(), 20_000);
    program.assert_nothing_left();
}

#[test]
fn an_up_that_is_killed_is_carried_on_by_the_same_request() {
    let program = Program::new();
    let install = "[setup]\ninstall = 'echo x >> ran; while [ ! -e go ]; do sleep 0.05; done'\n";
    let repo = program.env.git_repo(&[(".alpine.toml", install)]);
    let path = repo.path.to_str().unwrap();
    let arguments = [
        "up",
        path,
        "--branch",
        "main",
        "--agent",
        "none",
        "--client-request-id",
        "one",
        "--name",
        "it",
    ];
    let running = Running::start(program.command(&arguments));
    let ran = || {
        let dirs = program.sandbox_dirs();
        let place = program.sandboxes().join(dirs.first()?).join("workspace");
        place.join("ran").exists().then_some(place)
    };
    wait_until("the install step", || ran().is_some());
    running.kill();
    fs::write(ran().unwrap().join("go"), "").unwrap();
    let up = program.json(&arguments);
    assert_eq!(up["state"], "ready", "{up:#}");
    assert_eq!(program.sandbox_dirs().len(), 1);
    program.down("it");
    program.assert_nothing_left();
}

#[test]
fn files_that_nobody_may_read_or_enter_are_kept_too() {
    let program = Program::new();
    let workspace = working(&program);
    let place = workspace.join("closed");
    fs::create_dir(&place).unwrap();
    fs::write(place.join("inside"), "inside").unwrap();
    fs::write(workspace.join("secret"), "unreadable").unwrap();
    for (path, mode) in [
        (place.join("inside"), 0),
        (place.clone(), 0),
        (workspace.join("secret"), 0),
    ] {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }
    // They are their owner's, who may let themselves in, be it the superuser or not.
    let object = restore(&program, &program.down("it"));
    let restored = object.restored.join("workspace");
    for (path, text) in [("secret", "unreadable"), ("closed/inside", "inside")] {
        let path = restored.join(path);
        let mode = fs::metadata(path.parent().unwrap()).unwrap().permissions();
        if path.parent() != Some(&restored) {
            assert_eq!(mode.mode() & 0o777, 0);
            fs::set_permissions(path.parent().unwrap(), fs::Permissions::from_mode(0o700)).unwrap();
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(fs::read_to_string(path).unwrap(), text);
    }
    program.assert_nothing_left();
}

/// A sandbox whose directory was away, and is there again when its session has ended without it.
#[test]
fn work_that_comes_back_after_its_session_has_ended_without_it_is_saved() {
    let program = Program::new();
    working(&program);
    let dirs = program.sandbox_dirs();
    let (place, away) = (
        program.sandboxes().join(&dirs[0]),
        program.env.alpine_home().join("away"),
    );
    kill_process(supervisor(&program), Signal::KILL).unwrap();
    fs::rename(&place, &away).unwrap();
    let found = program.json(&["reconcile"]);
    assert_eq!(
        found["reconciled"][0]["finding"], "sandbox_gone",
        "{found:#}"
    );
    fs::rename(&away, &place).unwrap();
    for command in [vec!["down", "it"], vec!["reconcile"], vec!["reconcile"]] {
        program.json(&command);
        assert_eq!(program.sandbox_dirs(), dirs, "{command:?}");
    }
    let found = program.json(&["reconcile"])["reconciled"][0].clone();
    assert_eq!(found["finding"], "sandbox_left", "{found:#}");
    let (object, _) = restore_object(&program, &text(&found, "durable_object_id"));
    assert_eq!(
        fs::read_to_string(object.restored.join("workspace/work")).unwrap(),
        "done"
    );
}

#[test]
fn what_is_left_after_a_session_is_its_owners_alone() {
    let program = Program::new();
    working(&program);
    program.down("it");
    let mode = |path: PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let home = program.env.alpine_home();
    assert_eq!(mode(home.join("ledger.redb")), 0o600);
    for directory in ["", "sandboxes", "objects", "cache"] {
        assert_eq!(mode(home.join(directory)), 0o700, "{directory}");
    }
}
