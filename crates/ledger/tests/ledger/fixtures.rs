//! The ledgers that each version has written, opened by this one. They are in `tests/fixtures` of the repository.
//!
//! `ALPINE_WRITE_FIXTURE=1 cargo test -p alpine-ledger --test ledger fixtures` writes this version's, unless it is there.

use crate::upkeep::{exported, filled};
use crate::world::{World, as_it_is, options_of, request};
use alpine_ledger::{
    Action, Admission, Depth, Holder, Imported, Ledger, ListQuery, Options, Page, State, check,
    compact, import,
};
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

fn folder() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2);
    root.unwrap().join("tests/fixtures")
}

/// The fixtures: a ledger's file, and beside it the same as an export.
fn fixtures() -> Vec<(PathBuf, PathBuf)> {
    let mut files: Vec<PathBuf> = fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "redb")
        })
        .collect();
    files.sort();
    files
        .into_iter()
        .map(|file| (file.clone(), file.with_extension("jsonl")))
        .collect()
}

/// A copy that is private, as a ledger has to be.
fn copy(file: &Path) -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ledger.redb");
    fs::copy(file, &path).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    (dir, path)
}

fn list(ledger: &Ledger) -> Page {
    let query = ListQuery {
        owner: None,
        states: Vec::new(),
        ended_since: None,
        limit: 1_000,
    };
    ledger.read(|snapshot| snapshot.list(&query)).unwrap()
}

/// Writes this version's fixture. Nobody's machine is in it.
#[test]
#[expect(
    clippy::disallowed_methods,
    reason = "a fixture is written only when it is asked for"
)]
fn a_version_writes_its_fixture_once() {
    let file = folder().join(concat!("ledger-", env!("CARGO_PKG_VERSION"), ".redb"));
    if std::env::var("ALPINE_WRITE_FIXTURE").is_ok() && !file.exists() {
        let world = filled(World::by(|options| {
            options.holder = Holder {
                host: "host".to_owned(),
                boot_id: "boot".to_owned(),
                pid: 1,
                start_time: 1,
            };
        }));
        world.ledger.close();
        compact(&world.path(), options_of(&world.clock), true).unwrap();
        fs::create_dir_all(folder()).unwrap();
        fs::copy(world.path(), &file).unwrap();
        fs::write(file.with_extension("jsonl"), exported(&world.ledger)).unwrap();
    }
    assert!(file.exists(), "this version has no fixture yet");
}

#[test]
fn ledgers_of_every_version_are_opened_read_and_written() {
    assert!(!fixtures().is_empty());
    for (file, _) in fixtures() {
        let (_dir, path) = copy(&file);
        let found = check(&path, Options::new(), Depth::Pages).unwrap();
        assert_eq!(found.problems, [], "{}", file.display());
        let ledger = Ledger::open(&path, Options::new()).unwrap();
        let page = list(&ledger);
        let states: Vec<State> = page.sessions.iter().map(|session| session.state).collect();
        for state in State::ALL {
            // A session that was only admitted is there, too: its operation is open.
            assert!(states.contains(&state), "{}: {state}", file.display());
        }
        for summary in &page.sessions {
            let id = &summary.session_id;
            let session = ledger.read(|snapshot| snapshot.session(id)).unwrap();
            assert_eq!(session.unwrap().state, summary.state);
            let histories = ledger.read(|snapshot| {
                Ok((
                    snapshot.operations(id)?.len(),
                    snapshot.transitions(id)?.len(),
                ))
            });
            let (operations, transitions) = histories.unwrap();
            assert!(operations > 0 && transitions > 0, "{id}");
        }
        // Requests of then are answered now, and the open operation is taken over from a boot that is long over.
        let admitted =
            ledger.write(|tx| tx.admit(&request("you", "open"), "fingerprint", "s", "you"));
        assert!(matches!(admitted.unwrap(), Admission::Resume(_)));
        let ready = page
            .sessions
            .iter()
            .find(|one| one.state == State::Ready)
            .unwrap();
        let superseded = crate::world::error("ERR_INTERRUPTED");
        let acquired =
            ledger.write(|tx| tx.acquire(&ready.session_id, Action::Down, "me", &superseded));
        drop(acquired.unwrap());
        ledger.close();
        let found = check(&path, Options::new(), Depth::Pages).unwrap();
        assert_eq!(found.problems, [], "{}, written", file.display());
    }
}

#[test]
fn exports_of_every_version_hold_the_same_and_come_back() {
    for (file, export) in fixtures() {
        let (dir, path) = copy(&file);
        let ledger = Ledger::open(&path, Options::new()).unwrap();
        let place = dir.path().join("imported.redb");
        let done = import(&place, Options::new(), &export, &str::to_owned, &as_it_is).unwrap();
        let sessions = list(&ledger).sessions.len() as u64;
        assert_eq!(
            done,
            Imported::Done {
                sessions,
                left_out: 0,
                moved: None
            }
        );
        let imported = Ledger::open(&place, Options::new()).unwrap();
        assert_eq!(list(&imported), list(&ledger));
        let found = check(&place, Options::new(), Depth::Pages).unwrap();
        assert_eq!(found.problems, [], "{}", export.display());
    }
}
