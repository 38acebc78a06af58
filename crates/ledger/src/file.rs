//! What must be true of the ledger's file and directory before redb may see them.

use crate::LedgerError;
use crate::error::{Hindrance, from_io};
use crate::predecessor;
use crate::site::Site;
use rustix::fs::{Mode, OFlags};
use std::fs::{self, File, Metadata};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, MetadataExt};

/// The first bytes of every redb file.
pub(crate) const MAGIC: &[u8] = b"redb\x1A\x0A\xA9\x0D\x0A";

/// How much of a file that is not ours is looked at to say what it is.
const LOOK: u64 = 64 * 1024 * 1024;

/// Whether the file is opened to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Only to be read.
    Read,
    /// To be written, too.
    Write,
}

/// Opens the file after all checks; none where there is no file.
pub(crate) fn open(site: &Site, access: Access) -> Result<Option<File>, LedgerError> {
    let mode = match access {
        Access::Read => OFlags::RDONLY,
        Access::Write => OFlags::RDWR,
    };
    // Without `NONBLOCK`, opening a named pipe would wait for its other end.
    let flags = mode | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = match rustix::fs::open(&site.path, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(rustix::io::Errno::NOENT) => return Ok(None),
        Err(rustix::io::Errno::LOOP) => {
            return Err(site.hindered(Hindrance::SymbolicLink, "it is a symbolic link", None));
        }
        Err(rustix::io::Errno::ISDIR) => return Err(site.unavailable("it is a directory", None)),
        Err(error) => return Err(from_io(site, error.into())),
    };
    let metadata = file.metadata().map_err(|error| from_io(site, error))?;
    check_kind(site, &metadata)?;
    let is_ledger = is_ledger(&file).map_err(|error| from_io(site, error))?;
    if !is_ledger && is_predecessor(&file).map_err(|error| from_io(site, error))? {
        // Before its mode is looked at: the predecessor made files that others may read.
        return Err(LedgerError::Predecessor {
            path: site.path.clone(),
        });
    }
    check_mode(site, &metadata, access)?;
    check_file_system(site, &file, metadata.dev())?;
    if metadata.len() == 0 {
        return Err(site.corrupt("it is empty"));
    }
    if !is_ledger {
        return Err(site.incompatible("it is not a ledger's file"));
    }
    Ok(Some(file))
}

/// Whether the path still names the opened file.
pub(crate) fn is_current(site: &Site, open: (u64, u64)) -> bool {
    fs::symlink_metadata(&site.path).is_ok_and(|now| identity(&now) == open)
}

/// The device and inode of a file.
pub(crate) fn identity(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

/// Opens the directory; it must be there, be ours, and be writable by nobody else.
pub(crate) fn open_dir(site: &Site) -> Result<File, LedgerError> {
    let dir = site.dir.display();
    let file = File::open(&site.dir).map_err(|error| {
        site.unavailable(
            format!("its directory `{dir}` can't be opened: {error}"),
            Some(Box::new(error)),
        )
    })?;
    let metadata = file.metadata().map_err(|error| from_io(site, error))?;
    if !metadata.is_dir() {
        return Err(site.unavailable(format!("`{dir}` is not a directory"), None));
    }
    let is_exposed = metadata.mode() & 0o022 != 0;
    if is_exposed && metadata.mode() & 0o1000 != 0 {
        let reason = format!("others may write its directory `{dir}`, which is everybody's");
        return Err(site.hindered(Hindrance::DirectoryShared, reason, None));
    }
    if metadata.uid() != rustix::process::geteuid().as_raw() {
        return Err(site.unavailable(
            format!("its directory `{dir}` belongs to another user"),
            None,
        ));
    }
    if is_exposed {
        let reason = format!("others may write its directory `{dir}`");
        return Err(site.hindered(Hindrance::DirectoryExposed, reason, None));
    }
    check_file_system(site, &file, metadata.dev())?;
    Ok(file)
}

fn check_kind(site: &Site, metadata: &Metadata) -> Result<(), LedgerError> {
    let refuse = |reason: &str| Err(site.unavailable(reason, None));
    if metadata.is_dir() {
        return refuse("it is a directory");
    }
    if !metadata.is_file() {
        return refuse("it is not a regular file");
    }
    if metadata.uid() != rustix::process::geteuid().as_raw() {
        return refuse("it belongs to another user");
    }
    Ok(())
}

fn check_mode(site: &Site, metadata: &Metadata, access: Access) -> Result<(), LedgerError> {
    let refuse = |hindrance, reason: &str| Err(site.hindered(hindrance, reason, None));
    if metadata.nlink() > 1 {
        return refuse(Hindrance::HardLinks, "it has more than one hard link");
    }
    if metadata.mode() & 0o077 != 0 {
        return refuse(Hindrance::Exposed, "others may read or write it");
    }
    // Root may write any file; a mode that says read-only is meant, whoever asks.
    if access == Access::Write && metadata.mode() & 0o200 == 0 {
        return refuse(Hindrance::ReadOnly, "it is read-only");
    }
    Ok(())
}

/// Whether it is our own regular file whose mode keeps us out.
pub(crate) fn is_closed_to_its_owner(site: &Site) -> bool {
    fs::symlink_metadata(&site.path).is_ok_and(|metadata| {
        check_kind(site, &metadata).is_ok() && metadata.mode() & 0o600 != 0o600
    })
}

/// Whether the file begins as every redb file does.
fn is_ledger(file: &File) -> io::Result<bool> {
    let mut start = [0; MAGIC.len()];
    match file.read_exact_at(&mut start, 0) {
        Ok(()) => Ok(start == MAGIC),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether the file is a JSON document of sessions, as the predecessor kept it.
fn is_predecessor(mut file: &File) -> io::Result<bool> {
    file.seek(SeekFrom::Start(0))?;
    let mut text = Vec::new();
    file.take(LOOK).read_to_end(&mut text)?;
    let document = serde_json::from_slice::<serde_json::Value>(&text);
    let has_sessions = document.is_ok_and(|document| document["sessions"].is_object());
    // What an import takes is told to be imported, also where it has none.
    Ok(has_sessions || predecessor::Document::parse(&text).is_ok())
}

/// The file systems over a network, by the magic number of `statfs`.
const NETWORK: [(i64, &str); 11] = [
    (0x6969, "nfs"),
    (0x517B, "smb"),
    (0xFF53_4D42, "cifs"),
    (0xFE53_4D42, "smb2"),
    (0x5346_414F, "afs"),
    (0x7375_7245, "coda"),
    (0x00C3_6400, "ceph"),
    (0x0102_1997, "9p"),
    (0x0BD0_0BD0, "lustre"),
    (0x4750_4653, "gpfs"),
    (0x0116_1970, "gfs2"),
];

/// The magic number of FUSE, which may be local or not.
const FUSE: i64 = 0x6573_5546;

/// The types of mounts on FUSE whose files are this machine's.
const LOCAL_FUSE: [&str; 3] = ["fuse.fuse-overlayfs", "fuseblk", "virtiofs"];

/// Refuses a file system whose locks other machines may not see.
fn check_file_system(site: &Site, file: &File, device: u64) -> Result<(), LedgerError> {
    if site.options.allow_network_fs {
        return Ok(());
    }
    let stat = rustix::fs::fstatfs(file).map_err(|error| from_io(site, error.into()))?;
    // The magic numbers are 32 bits wide, and are widened with or without a sign.
    match network_name(i64::from(stat.f_type as u32), || mount_type(device)) {
        Some(name) => Err(site.unavailable(
            format!("it is on a file system over the network ({name})"),
            None,
        )),
        None => Ok(()),
    }
}

/// The name of a file system whose locks other machines may not see.
fn network_name(magic: i64, mount: impl FnOnce() -> Option<String>) -> Option<String> {
    if magic != FUSE {
        return NETWORK
            .iter()
            .find(|(number, _)| *number == magic)
            .map(|(_, name)| (*name).to_owned());
    }
    let mount = mount().unwrap_or_else(|| "fuse".to_owned());
    (!LOCAL_FUSE.contains(&mount.as_str())).then_some(mount)
}

/// The type of the mount with that device.
fn mount_type(device: u64) -> Option<String> {
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let wanted = format!("{major}:{minor}");
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    mounts.lines().find_map(|line| {
        let (mount, source) = line.split_once(" - ")?;
        (mount.split(' ').nth(2)? == wanted).then(|| source.split(' ').next().map(str::to_owned))?
    })
}

#[cfg(test)]
mod tests {
    use super::{FUSE, network_name};

    #[test]
    fn file_systems_over_the_network_are_known_by_their_number() {
        let of = |magic, mount: Option<&str>| network_name(magic, || mount.map(str::to_owned));
        assert_eq!(of(0x6969, None).as_deref(), Some("nfs"));
        assert_eq!(of(0xFF53_4D42, None).as_deref(), Some("cifs"));
        assert_eq!(of(0xEF53, None), None);
        assert_eq!(of(0x0102_1994, None), None);
        assert_eq!(of(FUSE, Some("fuse.sshfs")).as_deref(), Some("fuse.sshfs"));
        assert_eq!(of(FUSE, Some("fuse.fuse-overlayfs")), None);
        assert_eq!(of(FUSE, None).as_deref(), Some("fuse"));
    }
}
