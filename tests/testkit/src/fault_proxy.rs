//! A TCP proxy on loopback that slows, cuts, swallows or refuses what passes through it.

use crate::listener::{Listener, Stop};
use rustix::net::{AddressFamily, SocketType, sockopt};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, SocketAddrV4, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

const POLL: Duration = Duration::from_millis(5);

/// What the proxy does with connections, those that are open included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProxyMode {
    /// Passes everything on.
    Pass,
    /// Passes each piece on after this long.
    Delay {
        /// What the client sends.
        to_server: Duration,
        /// What the server sends.
        to_client: Duration,
    },
    /// Closes a connection when this many bytes, both ways together, have passed.
    CutAfter(u64),
    /// No connection comes about.
    Refuse,
    /// Connections come about, and nothing passes.
    BlackHole,
}

/// Stands before a server.
#[derive(Debug)]
pub struct FaultProxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    listener: Mutex<Option<Listener>>,
    /// Keeps the port while nothing listens on it.
    _reserved: OwnedFd,
}

#[derive(Debug)]
struct Shared {
    server: SocketAddr,
    mode: Mutex<ProxyMode>,
    connections: AtomicUsize,
}

impl FaultProxy {
    /// Stands before `server` and passes everything on.
    #[must_use]
    pub fn start(server: SocketAddr) -> Self {
        let (reserved, address) = reserve();
        let shared = Arc::new(Shared {
            server,
            mode: Mutex::new(ProxyMode::Pass),
            connections: AtomicUsize::new(0),
        });
        let listener = listen(address, &shared);
        Self {
            address,
            shared,
            listener: Mutex::new(Some(listener)),
            _reserved: reserved,
        }
    }

    /// Where clients connect to.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many connections came about.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// Does this from now on. `Refuse` ends what is open.
    pub fn set(&self, mode: ProxyMode) {
        let mut listener = self.listener.lock().unwrap_or_else(PoisonError::into_inner);
        let refuses = mode == ProxyMode::Refuse;
        *self
            .shared
            .mode
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = mode;
        if refuses {
            *listener = None;
        } else if listener.is_none() {
            *listener = Some(listen(self.address, &self.shared));
        }
    }
}

impl Shared {
    fn mode(&self) -> ProxyMode {
        self.mode
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn serve(&self, client: &TcpStream, stop: &Stop) {
        if stop.is_stopped() {
            return;
        }
        self.connections.fetch_add(1, Ordering::SeqCst);
        let Ok(server) = TcpStream::connect(self.server) else {
            return;
        };
        let number = stop.watch(&server);
        let passed = AtomicU64::new(0);
        thread::scope(|scope| {
            scope.spawn(|| self.pass(client, &server, stop, &passed, true));
            self.pass(&server, client, stop, &passed, false);
        });
        stop.forget(number);
    }

    /// Passes one direction on until its end, then tells the other side.
    fn pass(
        &self,
        mut from: &TcpStream,
        mut to: &TcpStream,
        stop: &Stop,
        passed: &AtomicU64,
        is_to_server: bool,
    ) {
        let mut buffer = [0; 16 * 1024];
        while let Ok(size @ 1..) = from.read(&mut buffer) {
            let Some(size) = self.let_through(size, stop, passed, is_to_server) else {
                break;
            };
            if to.write_all(&buffer[..size]).is_err() {
                break;
            }
            if self.is_used_up(passed) {
                let _already_closed = from.shutdown(Shutdown::Both);
                let _already_closed = to.shutdown(Shutdown::Both);
                return;
            }
        }
        let _already_closed = to.shutdown(Shutdown::Write);
    }

    /// How many of `size` bytes may pass, when their time has come; none when everything has to end.
    fn let_through(
        &self,
        size: usize,
        stop: &Stop,
        passed: &AtomicU64,
        is_to_server: bool,
    ) -> Option<usize> {
        let before = passed.fetch_add(size as u64, Ordering::SeqCst);
        loop {
            match self.mode() {
                ProxyMode::Pass => return Some(size),
                ProxyMode::CutAfter(limit) => {
                    let left = limit.saturating_sub(before);
                    return Some(size.min(usize::try_from(left).unwrap_or(size)));
                }
                ProxyMode::Delay {
                    to_server,
                    to_client,
                } => {
                    let span = if is_to_server { to_server } else { to_client };
                    return stop.wait(span).then_some(size);
                }
                // What was swallowed passes when the mode changes: TCP loses nothing, it only waits.
                ProxyMode::BlackHole if stop.wait(POLL) => {}
                ProxyMode::BlackHole | ProxyMode::Refuse => return None,
            }
        }
    }

    fn is_used_up(&self, passed: &AtomicU64) -> bool {
        match self.mode() {
            ProxyMode::CutAfter(limit) => passed.load(Ordering::SeqCst) >= limit,
            ProxyMode::Pass
            | ProxyMode::Delay { .. }
            | ProxyMode::Refuse
            | ProxyMode::BlackHole => false,
        }
    }
}

fn listen(address: SocketAddr, shared: &Arc<Shared>) -> Listener {
    let shared = Arc::clone(shared);
    Listener::start(address, move |client, stop| {
        shared.serve(&client, stop);
        let _already_closed = client.shutdown(Shutdown::Both);
    })
}

/// A port that nobody else is given, though nothing listens on it.
fn reserve() -> (OwnedFd, SocketAddr) {
    let flags = rustix::net::SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, flags, None);
    let socket = socket.expect("a socket");
    sockopt::set_socket_reuseaddr(&socket, true).expect("an option of a socket");
    let anywhere = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0);
    rustix::net::bind(&socket, &anywhere).expect("a loopback port");
    let name = rustix::net::getsockname(&socket).expect("a socket's name");
    let address = SocketAddrV4::try_from(name).expect("an IPv4 address");
    (socket, SocketAddr::V4(address))
}
