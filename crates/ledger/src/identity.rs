//! The ledger's id, kept in a file beside it. Sandboxes bear it, so that a ledger that is made anew where another was lost
//! finds what that one had.

use crate::error::{Hindrance, from_io};
use crate::fresh::{Fresh, private_file};
use crate::site::Site;
use crate::{LedgerError, create};
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;

/// The longest file that is read: none of ours is as long.
const LONGEST: u64 = 128;

/// The id of a ledger that is made here: the one that is kept, else a new one.
pub(crate) fn of_new(site: &Site) -> Result<String, LedgerError> {
    match kept(site)? {
        Some(id) => Ok(id),
        None => create::new_id(site),
    }
}

/// The id that is kept here; none where there is none.
pub(crate) fn kept(site: &Site) -> Result<Option<String>, LedgerError> {
    let path = site.dir.join(name(site));
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let unfit = |what: &str| {
        let reason = format!("its id can't be read from `{}`: {what}", path.display());
        site.hindered(Hindrance::KeptId, reason, None)
    };
    let file = match rustix::fs::open(&path, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(Errno::NOENT) => return Ok(None),
        Err(Errno::LOOP) => return Err(unfit("it is a symbolic link")),
        Err(error) => return Err(unfit(&io::Error::from(error).to_string())),
    };
    let metadata = file.metadata().map_err(|error| from_io(site, error))?;
    let is_ours = metadata.uid() == rustix::process::geteuid().as_raw();
    if !metadata.is_file() || !is_ours || metadata.nlink() > 1 || metadata.mode() & 0o022 != 0 {
        return Err(unfit("it is not a file that only you may write"));
    }
    let mut text = String::new();
    file.take(LONGEST)
        .read_to_string(&mut text)
        .map_err(|error| unfit(&error.to_string()))?;
    let id = text.split(' ').next().unwrap_or_default();
    if is_fit(id) && text == line(id) {
        Ok(Some(id.to_owned()))
    } else {
        Err(unfit("it is damaged"))
    }
}

/// Keeps the id, durably, in a directory that is locked.
pub(crate) fn keep(site: &Site, dir: &File, id: &str) -> Result<(), LedgerError> {
    let failed = |error: io::Error| from_io(site, error);
    let name = name(site);
    let mut part = OsString::from(".");
    part.push(&name);
    part.push(".new");
    let mut file = private_file(dir, &part).map_err(|error| failed(error.into()))?;
    let kept = file
        .write_all(line(id).as_bytes())
        .and_then(|()| file.sync_all())
        .and_then(|()| Ok(rustix::fs::renameat(dir, &part, dir, &name)?))
        .and_then(|()| Ok(rustix::fs::fsync(dir)?));
    // After a failure nothing is left of it; after success nothing has this name.
    let _ = rustix::fs::unlinkat(dir, &part, AtFlags::empty());
    kept.map_err(failed)
}

/// Makes sure that the id of a ledger that is there is kept. What is in the ledger is right, whatever the file says, as
/// after an import; and the ledger can be used without it, as on a full disk.
pub(crate) fn put_right(site: &Site, id: &str) {
    let is_kept = kept(site).is_ok_and(|kept| kept.as_deref() == Some(id));
    if !is_kept && is_fit(id) {
        drop(Fresh::begin(site).and_then(|fresh| fresh.keep_id(id)));
    }
}

fn name(site: &Site) -> OsString {
    let mut name = site.path.file_name().unwrap_or_default().to_owned();
    name.push(".id");
    name
}

/// Whether an id is one that can be kept; an import may bring any.
fn is_fit(id: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
    (1..=64).contains(&id.len()) && id.bytes().all(fits)
}

fn line(id: &str) -> String {
    format!("{id} {:08x}\n", crc32fast::hash(id.as_bytes()))
}
