//! The power fails while the ledger is written: what came after the last sync is lost, kept or torn. What was
//! acknowledged is there afterwards, and each transaction is there as a whole or not at all.
//!
//! `ALPINE_POWER_LOSSES=50000 cargo test -p alpine-ledger --test ledger power_loss` tries more of them.

use crate::disk::{Disk, on};
use crate::world::request;
use alpine_ledger::{Admission, Depth, Ledger, Options, SessionId, StorageBackend, check};
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};
use tempfile::TempDir;

/// How many power losses there are unless a variable says otherwise.
const LOSSES: u64 = 2_000;
const TRANSACTIONS: u64 = 60;
/// What a disk writes as a whole, at the least.
const SECTOR: usize = 512;

/// What was done to the file, in order.
#[derive(Debug)]
enum Act {
    Write(u64, Vec<u8>),
    SetLen(u64),
    Sync,
}

/// A disk that remembers what was done, or one that only says that it synchronises.
#[derive(Debug)]
struct Recorder {
    acts: Mutex<Vec<Act>>,
    is_honest: bool,
}

impl Recorder {
    fn push(&self, act: Act) {
        self.acts.lock().unwrap().push(act);
    }

    fn count(&self) -> usize {
        self.acts.lock().unwrap().len()
    }
}

impl Disk for Recorder {
    fn set_len(&self, file: &dyn StorageBackend, len: u64) -> io::Result<()> {
        self.push(Act::SetLen(len));
        file.set_len(len)
    }

    fn sync(&self, _: &dyn StorageBackend) -> io::Result<()> {
        if self.is_honest {
            self.push(Act::Sync);
        }
        Ok(())
    }

    fn write(&self, file: &dyn StorageBackend, offset: u64, data: &[u8]) -> io::Result<()> {
        self.push(Act::Write(offset, data.to_vec()));
        file.write(offset, data)
    }
}

/// What was on the disk when the power came back, for all who open it.
#[derive(Debug)]
struct Image(Mutex<Vec<u8>>);

impl Disk for Image {
    fn len(&self, _: &dyn StorageBackend) -> io::Result<u64> {
        Ok(self.0.lock().unwrap().len() as u64)
    }

    fn read(&self, _: &dyn StorageBackend, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let bytes = self.0.lock().unwrap();
        let place = offset as usize..offset as usize + out.len();
        out.copy_from_slice(bytes.get(place).ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, _: &dyn StorageBackend, len: u64) -> io::Result<()> {
        self.0.lock().unwrap().resize(len as usize, 0);
        Ok(())
    }

    fn sync(&self, _: &dyn StorageBackend) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, _: &dyn StorageBackend, offset: u64, data: &[u8]) -> io::Result<()> {
        put(&mut self.0.lock().unwrap(), offset as usize, data);
        Ok(())
    }
}

fn put(bytes: &mut Vec<u8>, offset: usize, data: &[u8]) {
    let end = offset + data.len();
    if bytes.len() < end {
        bytes.resize(end, 0);
    }
    bytes[offset..end].copy_from_slice(data);
}

/// A run of the ledger, as its disk saw it.
struct Run {
    dir: TempDir,
    before: Vec<u8>,
    acts: Vec<Act>,
    /// For each transaction the number of acts before it and when it was acknowledged.
    acknowledged: Vec<(usize, usize)>,
}

fn session() -> SessionId {
    SessionId::derive("me", "r1")
}

/// What the event of a transaction says: of many lengths, so that the file grows and pages part.
fn said(number: u64) -> String {
    format!("{number}:{}", "x".repeat((number * 379 % 6_000) as usize))
}

/// One transaction that changes several tables.
fn change(ledger: &Ledger, number: u64) {
    let write = ledger.write(|tx| {
        let version = tx.session(&session())?.unwrap().version;
        tx.compare_and_swap(&session(), version, |session| {
            session.persist_generation = number;
        })?;
        tx.append_event(Some(&session()), None, "changed", Some(&said(number)))
    });
    write.unwrap();
}

impl Run {
    /// Two writers by turns; one of them closes the file now and then.
    fn of(is_honest: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ledger.redb");
        let ledger = Ledger::open(&path, Options::new()).unwrap();
        let admitted = ledger.write(|tx| tx.admit(&request("me", "r1"), "f", "s", "me"));
        assert!(matches!(admitted, Ok(Admission::Run(_))));
        ledger.close();
        drop(ledger);
        let before = std::fs::read(&path).unwrap();
        let recorder = Arc::new(Recorder {
            acts: Mutex::new(Vec::new()),
            is_honest,
        });
        let writers = [(), ()].map(|()| Ledger::open(&path, on(&recorder)).unwrap());
        let mut acknowledged = Vec::new();
        for number in 1..=TRANSACTIONS {
            let start = recorder.count();
            change(&writers[number as usize % 2], number);
            acknowledged.push((start, recorder.count()));
            if number % 7 == 0 {
                writers[0].close();
            }
        }
        drop(writers);
        let acts = std::mem::take(&mut *recorder.acts.lock().unwrap());
        Self {
            dir,
            before,
            acts,
            acknowledged,
        }
    }

    /// How many transactions were acknowledged before so many acts, and how many were begun.
    fn bounds(&self, at: usize) -> (u64, u64) {
        let count = |is: &dyn Fn(&(usize, usize)) -> bool| {
            self.acknowledged.iter().filter(|times| is(times)).count() as u64
        };
        (count(&|times| times.1 <= at), count(&|times| times.0 < at))
    }

    /// Loses the power `losses` times, everywhere in the run. How often something was not as it has to be, and how
    /// often the last transaction was there though nobody had been told so.
    fn lose(&self, losses: u64) -> (Vec<String>, u64) {
        let (mut wrong, mut unasked) = (Vec::new(), 0);
        let mut durable = self.before.clone();
        let mut synced = 0;
        for number in 0..losses {
            let at = (self.acts.len() as u64 * number / losses) as usize + 1;
            while let Some(next) = self.acts[synced..at]
                .iter()
                .position(|act| matches!(act, Act::Sync))
            {
                for act in &self.acts[synced..synced + next] {
                    apply(&mut durable, act, &mut |_| true);
                }
                synced += next + 1;
            }
            let mut image = durable.clone();
            let mut random = Random(number.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
            let fate = Fate::of(number);
            for act in &self.acts[synced..at] {
                fate.apply(&mut image, act, &mut random);
            }
            let (least, most) = self.bounds(at);
            match self.look(image, number) {
                Ok(found) if found < least => {
                    wrong.push(format!(
                        "loss {number} ({fate:?}): {found} of {least} acknowledged"
                    ));
                }
                Ok(found) if found > most => {
                    wrong.push(format!("loss {number} ({fate:?}): {found} of {most} begun"));
                }
                Ok(found) => unasked += u64::from(found > least),
                Err(what) => wrong.push(format!("loss {number} ({fate:?}): {what}")),
            }
        }
        (wrong, unasked)
    }

    /// Opens what was on the disk, as the next process does. How many transactions are there.
    fn look(&self, image: Vec<u8>, number: u64) -> Result<u64, String> {
        let path = self.dir.path().join("ledger.redb");
        let options = on(&Arc::new(Image(Mutex::new(image))));
        let found = transactions(&path, &options)?;
        // A closer look at some: all tables agree, and the next write goes on where the last one ended.
        if number.is_multiple_of(16) {
            let checked = check(&path, options.clone(), Depth::Rows);
            let problems = checked.map_err(|error| error.to_string())?.problems;
            if let [problem, ..] = problems.as_slice() {
                return Err(format!("{problem:?}"));
            }
            let ledger = Ledger::open(&path, options.clone()).map_err(|error| error.to_string())?;
            change(&ledger, found + 1);
            ledger.close();
            let after = transactions(&path, &options)?;
            if after != found + 1 {
                return Err(format!("a write after {found} gave {after}"));
            }
        }
        Ok(found)
    }
}

/// How many transactions there are; each of them whole.
fn transactions(path: &Path, options: &Options) -> Result<u64, String> {
    let ledger =
        Ledger::open_read(path, options.clone()).map_err(|error| format!("open: {error}"))?;
    let read = ledger.read(|snapshot| {
        let session = snapshot.session(&session())?;
        let events = snapshot.events_after(1, usize::MAX)?;
        let own = snapshot.session_events(&self::session())?;
        Ok((session, events, own.len()))
    });
    let (session, events, own) = read.map_err(|error| format!("read: {error}"))?;
    let session = session.ok_or("the session is lost")?;
    let count = events.len() as u64;
    if session.persist_generation != count || own as u64 != count + 1 {
        let generation = session.persist_generation;
        return Err(format!("half a transaction: {generation}, {count}, {own}"));
    }
    for (number, event) in (1..).zip(&events) {
        if event.seq != number + 1 || event.reason != Some(said(number)) {
            return Err(format!("event {number} is another"));
        }
    }
    Ok(count)
}

/// Numbers without a pattern, the same in each run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn coin(&mut self) -> bool {
        self.next() >> 40 & 1 == 0
    }
}

/// What becomes of that which was not synchronised.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Lost,
    Kept,
    /// Each write by itself.
    Some,
    /// Each sector by itself.
    Torn,
    /// All but the last write, and that one torn.
    LastTorn,
}

impl Fate {
    fn of(number: u64) -> Self {
        match number % 8 {
            0 => Self::Lost,
            1 => Self::Kept,
            2 | 3 => Self::Some,
            4 => Self::LastTorn,
            _ => Self::Torn,
        }
    }

    fn apply(self, image: &mut Vec<u8>, act: &Act, random: &mut Random) {
        match self {
            Self::Lost => {}
            Self::Kept => apply(image, act, &mut |_| true),
            Self::Some => {
                let kept = random.coin();
                apply(image, act, &mut |_| kept);
            }
            Self::Torn => apply(image, act, &mut |_| random.coin()),
            Self::LastTorn => {
                let torn = random.next().is_multiple_of(4);
                apply(image, act, &mut |_| !torn || random.coin());
            }
        }
    }
}

/// Does an act as far as its sectors are kept.
fn apply(image: &mut Vec<u8>, act: &Act, is_kept: &mut dyn FnMut(usize) -> bool) {
    match act {
        Act::Sync => {}
        Act::SetLen(len) => {
            if is_kept(0) {
                image.resize(*len as usize, 0);
            }
        }
        Act::Write(offset, data) => {
            let mut at = *offset as usize;
            let mut rest = data.as_slice();
            while !rest.is_empty() {
                let (sector, after) = rest.split_at(rest.len().min(SECTOR - at % SECTOR));
                if is_kept(at / SECTOR) {
                    put(image, at, sector);
                }
                at += sector.len();
                rest = after;
            }
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "how long a test may take is told by its environment"
)]
fn losses() -> u64 {
    std::env::var("ALPINE_POWER_LOSSES").map_or(LOSSES, |count| count.parse().unwrap())
}

#[test]
fn what_was_acknowledged_outlives_every_loss_of_power() {
    let run = Run::of(true);
    let syncs = run.acts.iter().filter(|act| matches!(act, Act::Sync));
    assert!(syncs.count() >= TRANSACTIONS as usize);
    let losses = losses();
    let (wrong, unasked) = run.lose(losses);
    assert_eq!(wrong, [] as [String; 0]);
    println!(
        "{losses} losses of power in {} acts: nothing lost",
        run.acts.len()
    );
    // The losses fall into commits, too: some were whole before anybody was told.
    assert!(unasked > 0);
}

/// The control: with a disk that does not do what it says, the same losses are found out.
#[test]
fn a_disk_that_only_says_that_it_synchronises_is_found_out() {
    let run = Run::of(false);
    let (wrong, _) = run.lose(losses().min(LOSSES) / 4);
    let lost = wrong.iter().filter(|what| what.contains("acknowledged"));
    assert!(lost.count() > 20, "{wrong:#?}");
    assert!(wrong.len() > 200, "{}", wrong.len());
}
