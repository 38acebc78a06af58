//! A loopback listener with a thread per connection, all of which end when it is dropped.

use std::collections::HashMap;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Listens until it is dropped.
#[derive(Debug)]
pub(crate) struct Listener {
    address: SocketAddr,
    stop: Arc<Stop>,
    accepting: Option<JoinHandle<()>>,
}

/// Says when a connection's work has to end.
#[derive(Debug, Default)]
pub(crate) struct Stop {
    inner: Mutex<Inner>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Inner {
    stopped: bool,
    next: u64,
    open: HashMap<u64, TcpStream>,
    threads: Vec<JoinHandle<()>>,
}

impl Listener {
    /// Listens at `address`, and hands each connection to `serve` on a thread of its own.
    pub(crate) fn start(
        address: SocketAddr,
        serve: impl Fn(TcpStream, &Stop) + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(address).expect("a loopback port");
        let address = listener.local_addr().expect("the listener's address");
        let stop = Arc::new(Stop::default());
        let accepting = {
            let stop = Arc::clone(&stop);
            let serve = Arc::new(serve);
            thread::spawn(move || {
                for connection in listener.incoming().map_while(Result::ok) {
                    if stop.is_stopped() {
                        break;
                    }
                    stop.serve(connection, &serve);
                }
            })
        };
        Self {
            address,
            stop,
            accepting: Some(accepting),
        }
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let threads = self.stop.stop();
        // The accepting thread sees this connection, and then that it has to stop.
        let _woken = TcpStream::connect_timeout(&self.address, Duration::from_secs(1));
        for thread in self.accepting.take().into_iter().chain(threads) {
            // A thread that panicked has said so already.
            let _ended = thread.join();
        }
    }
}

impl Stop {
    /// Whether everything has to end.
    pub(crate) fn is_stopped(&self) -> bool {
        self.lock().stopped
    }

    /// Waits this long; returns at once, and false, when everything has to end.
    pub(crate) fn wait(&self, span: Duration) -> bool {
        let until = Instant::now() + span;
        let mut inner = self.lock();
        while !inner.stopped {
            let Some(left) = until.checked_duration_since(Instant::now()) else {
                return true;
            };
            inner = self
                .changed
                .wait_timeout(inner, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        false
    }

    /// Another socket that is shut down when everything has to end.
    pub(crate) fn watch(&self, socket: &TcpStream) -> u64 {
        let mut inner = self.lock();
        inner.next += 1;
        let number = inner.next;
        let copy = socket.try_clone().expect("a copy of a socket");
        if inner.stopped {
            let _already_closed = copy.shutdown(Shutdown::Both);
        }
        inner.open.insert(number, copy);
        number
    }

    /// The socket is closed by its owner.
    pub(crate) fn forget(&self, number: u64) {
        self.lock().open.remove(&number);
    }

    fn serve(
        self: &Arc<Self>,
        connection: TcpStream,
        serve: &Arc<impl Fn(TcpStream, &Stop) + Send + Sync + 'static>,
    ) {
        let number = self.watch(&connection);
        let thread = {
            let stop = Arc::clone(self);
            let serve = Arc::clone(serve);
            thread::spawn(move || {
                serve(connection, &stop);
                stop.forget(number);
            })
        };
        let mut inner = self.lock();
        inner.threads.retain(|thread| !thread.is_finished());
        inner.threads.push(thread);
    }

    fn stop(&self) -> Vec<JoinHandle<()>> {
        let mut inner = self.lock();
        inner.stopped = true;
        for socket in inner.open.values() {
            let _already_closed = socket.shutdown(Shutdown::Both);
        }
        self.changed.notify_all();
        std::mem::take(&mut inner.threads)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
