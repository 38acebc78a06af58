//! The raw end of a provider's wire, for checks of the boundary itself. It knows frames from their description alone, so
//! that it does not share a mistake with those who read and write them in earnest.

use crate::called::{Checking, broken};
use crate::frame::*;
use crate::trace::Trace;
use rustix::process::{Pid, Signal, kill_process_group};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as Socket;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

const HEADER: usize = 20;
/// How long one frame may be waited for.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// How long a process may take to end by itself once nobody speaks to it, before it is killed.
const GRACE: Duration = Duration::from_millis(500);

/// A process of a provider, with a process group of its own: it is not left behind.
#[derive(Debug)]
struct Process(Child);

impl Process {
    fn ends_within(&mut self, limit: Duration) -> bool {
        let until = Instant::now() + limit;
        loop {
            if matches!(self.0.try_wait(), Ok(Some(_))) {
                return true;
            }
            if Instant::now() >= until {
                return false;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !self.ends_within(GRACE) {
            // It was not waited for, so that its id is still its own.
            let _ = kill_process_group(Pid::from_child(&self.0), Signal::KILL);
            let _ = self.0.wait();
        }
    }
}

/// A process of a provider that was just started, and the socket it has as descriptor 3.
#[derive(Debug)]
pub struct Wire {
    // Before the process: that ends by the end of its socket.
    socket: Socket,
    process: Process,
    open: Vec<u8>,
}

impl Wire {
    /// Starts a program with a socket as descriptor 3; `open` is what OPEN will say to it.
    ///
    /// # Errors
    /// When it can't be started.
    pub fn start(
        program: &Path,
        arguments: &[OsString],
        env: &BTreeMap<OsString, OsString>,
        open: Vec<u8>,
    ) -> io::Result<Self> {
        let (socket, theirs) = Socket::pair()?;
        socket.set_nonblocking(true)?;
        // The shell moves the socket to where it is looked for.
        let child = Command::new("/bin/sh")
            .args(["-c", "exec \"$0\" \"$@\" 3<&0 </dev/null"])
            .arg(program)
            .args(arguments)
            .env_clear()
            .envs(env)
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()?;
        Ok(Self {
            socket,
            process: Process(child),
            open,
        })
    }
}

/// A conversation over a wire.
#[derive(Debug)]
pub(crate) struct Talk<'t> {
    // Before the process: that ends by the end of its socket.
    socket: UnixStream,
    process: Process,
    open: Vec<u8>,
    trace: &'t Trace,
    unread: Vec<u8>,
}

impl<'t> Talk<'t> {
    pub(crate) fn begin(wire: Wire, trace: &'t Trace) -> io::Result<Self> {
        Ok(Self {
            socket: UnixStream::from_std(wire.socket)?,
            process: wire.process,
            open: wire.open,
            trace,
            unread: Vec::new(),
        })
    }

    pub(crate) async fn say(&mut self, call: u64, kind: u32, code: u32, payload: &[u8]) {
        let frame = Frame {
            call,
            kind,
            code,
            payload: payload.to_vec(),
        };
        self.trace.add(format!("→ {frame}"));
        let len = u32::try_from(payload.len()).unwrap_or(u32::MAX);
        let mut bytes = header(call, kind, code, len);
        bytes.extend_from_slice(payload);
        self.say_bytes(&bytes).await;
    }

    pub(crate) async fn say_bytes(&mut self, bytes: &[u8]) {
        // A provider that has gone is found out when it is read.
        let _ = tokio::time::timeout(PATIENCE, self.socket.write_all(bytes)).await;
    }

    /// The next frame that is no log, none at the end: one of them, expected in these words, has to come within this time.
    pub(crate) async fn hear(&mut self, what: &str, limit: Duration) -> Checking<Option<Frame>> {
        loop {
            match self.hear_within(limit).await? {
                Heard::Frame(frame) if frame.kind == LOG => {}
                Heard::Nothing => return broken(what, format!("nothing within {limit:?}")),
                Heard::Frame(frame) => return Ok(Some(frame)),
                Heard::End => return Ok(None),
            }
        }
    }

    /// What comes within this time.
    pub(crate) async fn hear_within(&mut self, limit: Duration) -> Checking<Heard> {
        let until = tokio::time::Instant::now() + limit;
        loop {
            if let Some(frame) = self.take() {
                self.trace.add(format!("← {frame}"));
                return Ok(Heard::Frame(frame));
            }
            let mut part = vec![0; 64 * 1024];
            match tokio::time::timeout_at(until, self.socket.read(&mut part)).await {
                Err(_) => return Ok(Heard::Nothing),
                // A socket whose other end has gone with something unread is reset.
                Ok(Ok(0) | Err(_)) if self.unread.is_empty() => {
                    self.trace.add("← (the end)");
                    return Ok(Heard::End);
                }
                Ok(Ok(0) | Err(_)) => {
                    return broken(
                        "whole frames",
                        format!("{} bytes of one", self.unread.len()),
                    );
                }
                Ok(Ok(read)) => self.unread.extend_from_slice(&part[..read]),
            }
        }
    }

    fn take(&mut self) -> Option<Frame> {
        let word = |at: usize| {
            self.unread
                .get(at..at + 4)?
                .try_into()
                .ok()
                .map(u32::from_le_bytes)
        };
        let call = u64::from_le_bytes(self.unread.get(0..8)?.try_into().ok()?);
        let (kind, code, len) = (word(8)?, word(12)?, usize::try_from(word(16)?).ok()?);
        let payload = self.unread.get(HEADER..HEADER + len)?.to_vec();
        self.unread.drain(..HEADER + len);
        Some(Frame {
            call,
            kind,
            code,
            payload,
        })
    }

    /// Greets as a host of version 1 does.
    pub(crate) async fn greet(&mut self, magic: &str, min: u32, max: u32) {
        let hello = serde_json::json!({
            "magic": magic, "abi_min": min, "abi_max": max,
            "name": "conformance", "version": env!("CARGO_PKG_VERSION"), "features": [],
            "a_field_of_a_later_version": [1, 2, 3],
        });
        self.say(0, HELLO, 0, hello.to_string().as_bytes()).await;
    }

    /// Sends OPEN, with the provider's own configuration.
    pub(crate) async fn open(&mut self) {
        let open = self.open.clone();
        self.say(0, OPEN, 0, &open).await;
    }

    /// Waits for the next frame, which has to be of this kind.
    pub(crate) async fn expect(&mut self, kind: u32, what: &str) -> Checking<Frame> {
        self.expect_within(kind, what, PATIENCE).await
    }

    /// The same, for so long.
    pub(crate) async fn expect_within(
        &mut self,
        kind: u32,
        what: &str,
        limit: Duration,
    ) -> Checking<Frame> {
        match self.hear(what, limit).await? {
            Some(frame) if frame.kind == kind => Ok(frame),
            other => broken(what, heard(other)),
        }
    }

    /// Greets and opens.
    pub(crate) async fn ready(&mut self) -> Checking {
        self.greet("ALPNPRV1", 1, 1).await;
        self.expect(HELLO, "HELLO is answered with HELLO").await?;
        self.open().await;
        self.expect(READY, "OPEN is answered with READY").await?;
        Ok(())
    }

    /// Nothing more is said to it; gives whether its process ends in time.
    pub(crate) async fn hang_up(mut self, limit: Duration) -> bool {
        drop(self.socket);
        let until = Instant::now() + limit;
        while Instant::now() < until {
            if self.process.ends_within(Duration::ZERO) {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        false
    }

    /// Ends it by hanging up, and gives what it has printed.
    pub(crate) async fn printed(mut self, limit: Duration) -> Vec<u8> {
        let stdout = self.process.0.stdout.take();
        self.hang_up(limit).await;
        let mut printed = Vec::new();
        if let Some(stdout) = stdout {
            // Its end is closed, unless somebody of the sandbox holds it: then this is what there is.
            let _ = stdout.take(64 * 1024).read_to_end(&mut printed);
        }
        printed
    }
}
