//! A damaged file gives an error or the truth: no panic, no wrong value, and it is left as it is.

use crate::world::{World, kind, named};
use alpine_ledger::{
    Event, Ledger, LedgerError, ListQuery, Options, SessionId, SessionRecord, SessionSummary, State,
};
use std::fs::{self, OpenOptions, Permissions};
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

const PAGE: usize = 4096;

/// All that can be read, in one value that can be compared.
#[derive(Debug, PartialEq, Eq)]
struct Truth {
    id: String,
    sessions: Vec<Option<SessionRecord>>,
    listed: Vec<SessionSummary>,
    events: Vec<Event>,
    histories: Vec<(usize, usize, usize)>,
}

fn read(ledger: &Ledger, ids: &[SessionId]) -> Result<Truth, LedgerError> {
    let query = ListQuery {
        owner: None,
        states: Vec::new(),
        ended_since: None,
        limit: 1_000,
    };
    ledger.read(|snapshot| {
        let mut histories = Vec::new();
        for id in ids {
            let counts = (
                snapshot.transitions(id)?.len(),
                snapshot.operations(id)?.len(),
                snapshot.session_events(id)?.len(),
            );
            histories.push(counts);
        }
        Ok(Truth {
            id: ledger.id().to_owned(),
            sessions: ids
                .iter()
                .map(|id| snapshot.session(id))
                .collect::<Result<_, _>>()?,
            listed: snapshot.list(&query)?.sessions,
            events: snapshot.events_after(0, 10_000)?,
            histories,
        })
    })
}

struct Sound {
    world: World,
    ids: Vec<SessionId>,
    bytes: Vec<u8>,
    truth: Truth,
}

fn sound() -> Sound {
    let world = World::new();
    let states = [
        State::Ready,
        State::Stopped,
        State::Failed,
        State::PersistFailed,
    ];
    let ids: Vec<SessionId> = (0..40)
        .map(|n| {
            world.session_in(
                &named("me", &n.to_string(), &format!("name-{n}")),
                states[n % states.len()],
            )
        })
        .collect();
    let path = world.path();
    let World { dir, clock, ledger } = world;
    drop(ledger);
    let reader = Ledger::open_read(&path, Options::new()).unwrap();
    let truth = read(&reader, &ids).unwrap();
    Sound {
        bytes: fs::read(&path).unwrap(),
        ids,
        truth,
        world: World {
            dir,
            clock,
            ledger: reader,
        },
    }
}

fn copy(dir: &Path, bytes: &[u8]) -> PathBuf {
    let path = dir.join("damaged.redb");
    drop(fs::remove_file(&path));
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)
        .unwrap();
    file.write_all(bytes).unwrap();
    path
}

/// What came of reading and then writing damaged bytes.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tally {
    sound: usize,
    refused: usize,
}

impl Tally {
    fn add(&mut self, sound: &Sound, bytes: &[u8], what: &str) {
        let path = copy(sound.world.dir.path(), bytes);
        let found =
            Ledger::open_read(&path, Options::new()).and_then(|ledger| read(&ledger, &sound.ids));
        match found {
            Ok(truth) => {
                assert!(truth == sound.truth, "{what} was silently wrong");
                self.sound += 1;
            }
            Err(error) => {
                assert!(
                    ["corrupt", "incompatible", "unavailable"].contains(&kind(&error)),
                    "{what}: {error}"
                );
                self.refused += 1;
                // A damaged header may ask for a repair, which writes; everything else is only read.
                if bytes[..PAGE.min(bytes.len())] == sound.bytes[..PAGE.min(bytes.len())]
                    && bytes.len() >= PAGE
                {
                    assert!(fs::read(&path).unwrap() == bytes, "{what} changed the file");
                }
            }
        }
        let path = copy(sound.world.dir.path(), bytes);
        let written = Ledger::open(&path, Options::new()).and_then(|ledger| {
            ledger.write(|tx| tx.append_event(Some(&sound.ids[0]), None, "note", None))
        });
        if let Err(error) = written {
            let expected = ["corrupt", "incompatible", "unavailable", "outcome_unknown"];
            assert!(expected.contains(&kind(&error)), "{what}: {error}");
        }
    }
}

#[test]
fn a_flipped_bit_is_found_out_or_does_no_harm() {
    let sound = sound();
    let mut tally = Tally::default();
    // A fixed stride that is no multiple of anything in the format, so that all kinds of places are hit.
    for (n, at) in (0..sound.bytes.len())
        .step_by(sound.bytes.len() / 241)
        .enumerate()
    {
        let mut bytes = sound.bytes.clone();
        bytes[at] ^= 1 << (n % 8);
        tally.add(&sound, &bytes, &format!("bit {} of byte {at}", n % 8));
    }
    assert!(tally.refused > 20 && tally.sound > 20, "{tally:?}");
}

#[test]
fn a_damaged_key_hides_no_row() {
    let sound = sound();
    let mut tally = Tally::default();
    for id in &sound.ids[..6] {
        let id = id.as_str().as_bytes();
        for at in 0..sound.bytes.len() - id.len() {
            if &sound.bytes[at..at + id.len()] == id {
                let mut bytes = sound.bytes.clone();
                bytes[at + 5 + at % 4] ^= 1 << (at % 7);
                tally.add(&sound, &bytes, &format!("the id at byte {at}"));
            }
        }
    }
    assert!(tally.refused > 20 && tally.sound > 20, "{tally:?}");
}

#[test]
fn a_zeroed_page_is_found_out_or_does_no_harm() {
    let sound = sound();
    let mut tally = Tally::default();
    for page in 0..sound.bytes.len() / PAGE {
        let mut bytes = sound.bytes.clone();
        bytes[page * PAGE..(page + 1) * PAGE].fill(0);
        tally.add(&sound, &bytes, &format!("zeroed page {page}"));
    }
    assert!(tally.refused > 10, "{tally:?}");
}

#[test]
fn garbage_in_a_page_is_found_out_or_does_no_harm() {
    let sound = sound();
    let mut tally = Tally::default();
    for page in (1..sound.bytes.len() / PAGE).step_by(2) {
        let mut bytes = sound.bytes.clone();
        for (n, byte) in bytes[page * PAGE..(page + 1) * PAGE].iter_mut().enumerate() {
            *byte = (n as u8).wrapping_mul(167).wrapping_add(page as u8);
        }
        tally.add(&sound, &bytes, &format!("garbage in page {page}"));
    }
    assert!(tally.refused > 5, "{tally:?}");
}

#[test]
fn a_truncated_file_is_refused() {
    let sound = sound();
    let whole = sound.bytes.len();
    let mut tally = Tally::default();
    let at_pages = (1..whole / PAGE).map(|page| page * PAGE);
    let elsewhere = [
        1,
        8,
        9,
        64,
        319,
        512,
        PAGE - 1,
        PAGE + 1,
        whole / 3,
        whole / 2,
        whole - 1,
    ];
    for keep in at_pages.chain(elsewhere) {
        tally.add(
            &sound,
            &sound.bytes[..keep],
            &format!("the first {keep} bytes"),
        );
    }
    // Pages at the end may hold nothing: a file without them is whole.
    assert!(tally.refused >= tally.sound, "{tally:?}");
}

#[test]
fn damage_under_an_open_ledger_is_found_out() {
    let sound = sound();
    let path = copy(sound.world.dir.path(), &sound.bytes);
    fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    let ledger = Ledger::open(&path, Options::new()).unwrap();
    let noise: Vec<u8> = (0..sound.bytes.len() - PAGE)
        .map(|n| (n as u8) ^ 0x5A)
        .collect();
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &noise, PAGE as u64).unwrap();
    for _ in 0..2 {
        let error = read(&ledger, &sound.ids).unwrap_err();
        assert_eq!(kind(&error), "corrupt", "{error}");
        let error = ledger
            .write(|tx| tx.append_event(None, None, "note", None))
            .unwrap_err();
        assert_eq!(kind(&error), "corrupt", "{error}");
    }
}
