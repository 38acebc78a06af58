//! The highest fence that was given out, kept beside the locks: a ledger that was restored, or made anew, goes on above it,
//! whatever the clock says.

use crate::Ledger;
use crate::site::Site;
use rustix::fs::{FlockOperation, Mode, OFlags};
use std::fs::File;
use std::os::unix::fs::FileExt;

/// How many takings of one lease may be unknown here where neither the file nor the clock knows of them.
const UNKNOWN_TAKINGS: u64 = 1000;

/// No fence is as high: what says so is damaged.
const BEYOND: u64 = 1 << 62;

/// The length of the number in the file.
const DIGITS: usize = 20;

/// A fence above all that a provider may have seen of a session, be it from this ledger or from one that it was
/// restored from or instead of. Where the file was lost, the time is above them: nobody takes a lease once in each
/// millisecond.
pub(crate) fn above(site: &Site, known: u64) -> u64 {
    let counted = known.saturating_add(UNKNOWN_TAKINGS);
    let given = open(site, OFlags::RDONLY).map_or(0, |file| read(&file));
    counted.max(site.options.clock.now().0).max(given + 1)
}

/// A fence above the one that this ledger knows of a session's lease, and above all that were given out by another that
/// stood in its place for a while.
pub(crate) fn next(site: &Site, known: u64) -> u64 {
    let given = open(site, OFlags::RDONLY).map_or(0, |file| read(&file));
    known.max(given) + 1
}

/// Notes that a fence was given out. What can't be noted, as while another notes one, is made up for by the clock: nobody
/// waits here, in a transaction.
pub(crate) fn note(site: &Site, fence: u64) {
    let Some(file) = open(site, OFlags::RDWR | OFlags::CREATE) else {
        return;
    };
    let locked = rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive);
    if locked.is_ok() && read(&file) < fence {
        drop(file.write_all_at(format!("{fence:0DIGITS$}").as_bytes(), 0));
    }
}

impl Ledger {
    /// A fence above all that were given out: for who looks after sandboxes that no lease guards.
    #[must_use]
    pub fn next_fence(&self) -> u64 {
        let fence = above(self.site(), 0);
        note(self.site(), fence);
        fence
    }
}

fn open(site: &Site, mode: OFlags) -> Option<File> {
    let path = site.ops_dir().join("fence");
    let flags = mode | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = rustix::fs::open(path, flags, Mode::RUSR | Mode::WUSR).ok()?;
    Some(File::from(file))
}

/// What the file says; nothing where it says nothing that can be.
fn read(file: &File) -> u64 {
    let mut text = [0; DIGITS];
    let number = file.read_exact_at(&mut text, 0).ok();
    let number = number.and_then(|()| std::str::from_utf8(&text).ok()?.parse().ok());
    number.filter(|fence| *fence < BEYOND).unwrap_or(0)
}
