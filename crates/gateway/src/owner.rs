//! Whose a listening socket is: the check that comes before a credential is sent to a port.

use crate::config::Listener;
use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

/// The state of a listening socket in `/proc/net/tcp`.
const LISTEN: &str = "0A";

/// Whose listener has to be on a port. To find that out takes milliseconds; whether it is still so, microseconds.
#[derive(Debug)]
pub(crate) struct Owner {
    port: u16,
    whose: Listener,
    found: Mutex<Vec<Holder>>,
}

/// A process that holds a listening socket, and by which of its descriptors.
#[derive(Debug)]
struct Holder {
    pid: u32,
    start_time: u64,
    descriptor: OsString,
    inode: u64,
}

impl Owner {
    pub(crate) fn new(port: u16, whose: Listener) -> Self {
        let found = Mutex::default();
        Self { port, whose, found }
    }

    /// Whether every socket that takes connections to `127.0.0.1:port` is whose it has to be. False too when nothing
    /// listens.
    ///
    /// # Errors
    /// `/proc` can't be read.
    pub(crate) fn listens(&self) -> io::Result<bool> {
        match self.whose {
            Listener::Family(ancestor) => self.is_held(ancestor),
            Listener::User(user) => {
                let all = listeners(self.port)?;
                Ok(!all.is_empty() && all.values().all(|owner| *owner == user))
            }
            Listener::Anybody => Ok(true),
        }
    }

    /// Whether the ancestor, or processes that descend from it, hold every socket that takes connections.
    ///
    /// While those that were found hold the very same sockets, no stranger can have the port: another process gets it
    /// only after they are closed.
    fn is_held(&self, ancestor: u32) -> io::Result<bool> {
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        if found.is_empty() || !found.iter().all(Holder::holds) {
            *found = search(self.port, ancestor)?;
        }
        Ok(!found.is_empty())
    }
}

impl Holder {
    /// Whether it is still the same process, with the same socket.
    fn holds(&self) -> bool {
        let link = fs::read_link(format!(
            "/proc/{}/fd/{}",
            self.pid,
            self.descriptor.display()
        ));
        link.is_ok_and(|link| inode(&link) == Some(self.inode))
            && stat(self.pid).is_some_and(|stat| stat.start_time == self.start_time)
    }
}

/// Who in the family holds the sockets that take connections to the port; nobody unless all of them are held.
fn search(port: u16, ancestor: u32) -> io::Result<Vec<Holder>> {
    let mut wanted: HashSet<u64> = listeners(port)?.into_keys().collect();
    let mut found = Vec::new();
    if wanted.is_empty() {
        return Ok(found);
    }
    for pid in family(ancestor)? {
        let Some(Stat { start_time, .. }) = stat(pid) else {
            continue;
        };
        for (descriptor, inode) in sockets(pid) {
            if wanted.remove(&inode) {
                found.push(Holder {
                    pid,
                    start_time,
                    descriptor,
                    inode,
                });
            }
        }
        if wanted.is_empty() {
            return Ok(found);
        }
    }
    Ok(Vec::new())
}

/// The inodes of the sockets that take connections to `127.0.0.1:port`, and the users that made them.
fn listeners(port: u16) -> io::Result<HashMap<u64, u32>> {
    let mut found = parse_listeners(&fs::read_to_string("/proc/net/tcp")?, port);
    match fs::read_to_string("/proc/net/tcp6") {
        Ok(table) => found.extend(parse_listeners(&table, port)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    Ok(found)
}

fn parse_listeners(table: &str, port: u16) -> HashMap<u64, u32> {
    table
        .lines()
        .skip(1)
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_ascii_whitespace().collect();
            let (address, number) = fields.get(1)?.split_once(':')?;
            let listens = *fields.get(3)? == LISTEN;
            let here = u16::from_str_radix(number, 16).ok()? == port && takes_loopback(address);
            (listens && here)
                .then(|| Some((fields.get(9)?.parse().ok()?, fields.get(7)?.parse().ok()?)))?
        })
        .collect()
}

/// Whether a socket bound to this address, as `/proc` writes it, takes connections to 127.0.0.1.
fn takes_loopback(address: &str) -> bool {
    let loopback = format!("{:08X}", u32::from_ne_bytes([127, 0, 0, 1]));
    let mapped = format!("{:08X}", u32::from_ne_bytes([0, 0, 0xFF, 0xFF]));
    let any = address.bytes().all(|byte| byte == b'0');
    any || address == loopback || address == format!("{}{mapped}{loopback}", "0".repeat(16))
}

/// A process and all that descend from it.
fn family(ancestor: u32) -> io::Result<Vec<u32>> {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    for entry in fs::read_dir("/proc")? {
        let Some(pid) = entry?
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
        else {
            continue;
        };
        if let Some(stat) = stat(pid) {
            children.entry(stat.parent).or_default().push(pid);
        }
    }
    let mut family = vec![ancestor];
    let mut next = 0;
    while let Some(pid) = family.get(next) {
        let young = children.remove(pid).unwrap_or_default();
        family.extend(young);
        next += 1;
    }
    Ok(family)
}

/// What tells a process from a later one of the same id, and whose child it is.
struct Stat {
    parent: u32,
    start_time: u64,
}

/// None for a process that has just ended.
fn stat(pid: u32) -> Option<Stat> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // A name may hold blanks and brackets, so what follows its last bracket counts.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace();
    let parent = fields.nth(1)?.parse().ok()?;
    let start_time = fields.nth(17)?.parse().ok()?;
    Some(Stat { parent, start_time })
}

/// A process's sockets; none when it has just ended or is not ours to look at.
fn sockets(pid: u32) -> Vec<(OsString, u64)> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd"));
    let entries = entries.into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let inode = inode(&fs::read_link(entry.path()).ok()?)?;
            Some((entry.file_name(), inode))
        })
        .collect()
}

/// The socket that a descriptor's link names.
fn inode(link: &Path) -> Option<u64> {
    let inode = link.to_str()?.strip_prefix("socket:[")?;
    inode.strip_suffix(']')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::{Listener, Owner, parse_listeners};
    use rustix::net::{AddressFamily, SocketType};
    use std::net::{Ipv4Addr, SocketAddrV4, TcpListener};
    use std::os::fd::OwnedFd;
    use std::process::{Command, Stdio};
    use std::sync::{Mutex, MutexGuard, PoisonError};

    #[test]
    fn tables_are_read_for_listeners_that_take_loopback() {
        let table = "  sl  local_address rem_address st\n\
            0: 0100007F:1267 00000000:0000 0A 0:0 00:0 0 7 0 11 1\n\
            1: 00000000:1267 00000000:0000 0A 0:0 00:0 0 0 0 12 1\n\
            2: 0100007F:1267 0100007F:9999 01 0:0 00:0 0 0 0 13 1\n\
            3: 0100007F:1268 00000000:0000 0A 0:0 00:0 0 0 0 14 1\n\
            4: 0200000A:1267 00000000:0000 0A 0:0 00:0 0 0 0 15 1\n\
            5: 00000000000000000000000000000000:1267 0:0 0A 0:0 00:0 0 0 0 16 1\n\
            6: 00000000000000000000000001000000:1267 0:0 0A 0:0 00:0 0 0 0 17 1\n\
            7: 0000000000000000FFFF00000100007F:1267 0:0 0A 0:0 00:0 0 0 0 18 1\n\
            garbage\n8: : :\n";
        let mut found: Vec<_> = parse_listeners(table, 4711).into_iter().collect();
        found.sort_unstable();
        assert_eq!(found, [(11, 7), (12, 0), (16, 0), (18, 0)]);
    }

    /// A process that is being started has copies of all descriptors until it is executed: one test at a time.
    fn alone() -> MutexGuard<'static, ()> {
        static STARTING: Mutex<()> = Mutex::new(());
        STARTING.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn listener_descends_from(port: u16, ancestor: u32) -> std::io::Result<bool> {
        Owner::new(port, Listener::Family(ancestor)).listens()
    }

    #[test]
    fn a_listener_is_the_users_that_made_it() {
        let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
        let any = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0);
        rustix::net::bind(&socket, &any).unwrap();
        let port = rustix::net::getsockname(&socket).unwrap();
        let port = SocketAddrV4::try_from(port).unwrap().port();
        let me = rustix::process::geteuid().as_raw();
        // Who has taken the port is not who listens.
        assert!(!Owner::new(port, Listener::User(me)).listens().unwrap());
        rustix::net::listen(&socket, 1).unwrap();
        assert!(Owner::new(port, Listener::User(me)).listens().unwrap());
        assert!(!Owner::new(port, Listener::User(me + 1)).listens().unwrap());
    }

    #[test]
    fn a_port_that_changes_hands_is_found_out() {
        let _alone = alone();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut heir = Command::new("sleep")
            .arg("600")
            .stdin(Stdio::from(OwnedFd::from(listener)))
            .spawn()
            .unwrap();
        let owner = Owner::new(port, Listener::Family(heir.id()));
        assert!(owner.listens().unwrap() && owner.listens().unwrap());
        let start_time = std::mem::replace(&mut owner.found.lock().unwrap()[0].start_time, 1);
        assert!(!owner.found.lock().unwrap()[0].holds(), "a recycled id");
        owner.found.lock().unwrap()[0].start_time = start_time;
        assert!(owner.found.lock().unwrap()[0].holds());
        heir.kill().unwrap();
        heir.wait().unwrap();
        let _stranger = TcpListener::bind(("127.0.0.1", port)).unwrap();
        assert!(!owner.listens().unwrap());
    }

    #[test]
    fn another_socket_on_the_same_descriptor_is_found_out() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let owner = Owner::new(port, Listener::Family(std::process::id()));
        assert!(owner.listens().unwrap());
        let inode = std::mem::replace(&mut owner.found.lock().unwrap()[0].inode, 1);
        assert!(!owner.found.lock().unwrap()[0].holds());
        // It is looked for anew, and found.
        assert!(owner.listens().unwrap());
        assert_eq!(owner.found.lock().unwrap()[0].inode, inode);
    }

    #[test]
    fn a_listener_is_its_holders_and_their_ancestors() {
        let _alone = alone();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let me = std::process::id();
        assert!(listener_descends_from(port, me).unwrap());
        let mut stranger = Command::new("sleep").arg("600").spawn().unwrap();
        assert!(!listener_descends_from(port, stranger.id()).unwrap());
        let mut heir = Command::new("sleep")
            .arg("600")
            .stdin(Stdio::from(OwnedFd::from(listener)))
            .spawn()
            .unwrap();
        // Only the child holds it now: it is the child's, and still its parent's.
        assert!(listener_descends_from(port, heir.id()).unwrap());
        assert!(listener_descends_from(port, me).unwrap());
        assert!(!listener_descends_from(port, stranger.id()).unwrap());
        for child in [&mut stranger, &mut heir] {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        assert!(!listener_descends_from(port, me).unwrap());
    }
}
