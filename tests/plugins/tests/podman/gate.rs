//! Stands before an engine's socket, and lets requests through until it is to kill who sends them.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;

/// Ends who sends requests, and returns when it is gone.
pub(crate) type Kill = Box<dyn FnOnce() + Send>;

/// How the request lines begin that a client of the engine writes.
const METHODS: [&[u8]; 4] = [b"GET /", b"POST /", b"DELETE /", b"PUT /"];

/// A socket that leads to the engine's, until it is dropped.
#[derive(Debug)]
pub(crate) struct Gate {
    pub(crate) socket: PathBuf,
    order: Arc<Order>,
    _serving: JoinSet<()>,
}

/// What is to come of the next requests.
#[derive(Default)]
struct Order(Mutex<(usize, Option<Kill>)>);

impl std::fmt::Debug for Order {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Order").finish_non_exhaustive()
    }
}

impl Gate {
    pub(crate) fn start(socket: &Path, engine: &Path) -> Self {
        let listener = UnixListener::bind(socket).unwrap();
        let order = Arc::new(Order::default());
        let (engine, kept) = (engine.to_owned(), Arc::clone(&order));
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let (engine, kept) = (engine.clone(), Arc::clone(&kept));
                connections.spawn(async move {
                    let engine = UnixStream::connect(engine).await.unwrap();
                    serve(client, engine, &kept).await;
                });
                while connections.try_join_next().is_some() {}
            }
        });
        Self {
            socket: socket.to_owned(),
            order,
            _serving: serving,
        }
    }

    /// Lets so many requests through; who sends the next one is killed, and it goes nowhere.
    pub(crate) fn kill_after(&self, requests: usize, kill: Kill) {
        *self.order.0.lock().unwrap() = (requests, Some(kill));
    }

    /// Lets everything through from now on. Says whether it came to the kill before.
    pub(crate) fn open(&self) -> bool {
        self.order.0.lock().unwrap().1.take().is_none()
    }
}

impl Order {
    /// Whether a request may pass; if not, who sent it is gone.
    fn lets_through(&self) -> bool {
        let mut order = self.0.lock().unwrap();
        match (order.0, order.1.take()) {
            (_, None) => true,
            (0, Some(kill)) => {
                kill();
                false
            }
            (more, kill) => {
                *order = (more - 1, kill);
                true
            }
        }
    }
}

/// Passes on what both sides say. A request is sent when the one before it has its answer, so that each begins a piece of
/// its own; after the start of a command the connection is that of its streams.
async fn serve(mut client: UnixStream, mut engine: UnixStream, order: &Order) {
    let (mut from_client, mut to_client) = client.split();
    let (mut from_engine, mut to_engine) = engine.split();
    let requests = async {
        let (mut piece, mut are_streams) = (vec![0; 64 * 1024], false);
        while let Ok(size @ 1..) = from_client.read(&mut piece).await {
            let said = &piece[..size];
            if !are_streams && METHODS.iter().any(|method| said.starts_with(method)) {
                let line = String::from_utf8_lossy(said.split(|it| *it == b'\r').next().unwrap());
                are_streams = line.contains("/exec/") && line.contains("/start");
                if !order.lets_through() {
                    return false;
                }
            }
            if to_engine.write_all(said).await.is_err() {
                break;
            }
        }
        let _already_closed = to_engine.shutdown().await;
        true
    };
    let answers = async {
        let copied = tokio::io::copy(&mut from_engine, &mut to_client).await;
        let _already_closed = to_client.shutdown().await;
        copied
    };
    tokio::pin!(requests, answers);
    tokio::select! {
        // Who is killed hears nothing more.
        may_hear = &mut requests => if may_hear { let _ = answers.await; },
        _ = &mut answers => {}
    }
}
