//! The connections of callers.

use crate::protocol::{self, Reply, Request};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use rustix::process::Pid;
use std::io::{self, IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// A caller's number, which is never used again.
pub(super) type ClientId = u64;

/// A connection.
#[derive(Debug)]
pub(super) struct Client {
    stream: UnixStream,
    inbox: Vec<u8>,
    outbox: Vec<u8>,
    /// The command that runs for as long as this connection lasts.
    pub(super) command: Option<Pid>,
}

/// What a connection had to say.
#[derive(Debug)]
pub(super) enum Heard {
    /// Requests, perhaps none yet.
    Requests(Vec<Result<Request, String>>),
    /// Its end.
    Gone,
}

impl Client {
    /// Takes a connection from a process of the same user; refuses any other.
    pub(super) fn accept(stream: UnixStream) -> io::Result<Self> {
        let peer = rustix::net::sockopt::socket_peercred(&stream)?;
        if peer.uid != rustix::process::geteuid() {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        stream.set_nonblocking(true)?;
        Ok(Self {
            stream,
            inbox: Vec::new(),
            outbox: Vec::new(),
            command: None,
        })
    }

    /// What is polled.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }

    /// Whether something waits to be written.
    pub(super) fn has_more(&self) -> bool {
        !self.outbox.is_empty()
    }

    /// Reads what is there.
    pub(super) fn hear(&mut self) -> Heard {
        let mut text = [0; 16 * 1024];
        loop {
            match self.stream.read(&mut text) {
                Ok(0) => return Heard::Gone,
                Ok(got) => self.inbox.extend_from_slice(&text[..got]),
                Err(source) if source.kind() == io::ErrorKind::WouldBlock => break,
                Err(source) if source.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Heard::Gone,
            }
            if self.inbox.len() > protocol::LONGEST {
                return Heard::Gone;
            }
        }
        let mut requests = Vec::new();
        while let Some(end) = self.inbox.iter().position(|&byte| byte == b'\n') {
            let line: Vec<u8> = self.inbox.drain(..=end).collect();
            requests.push(protocol::decode(&line));
        }
        // A caller that asked for something large is not remembered by the memory it took.
        self.inbox.shrink_to_fit();
        Heard::Requests(requests)
    }

    /// Answers; what the caller does not take at once waits for it.
    pub(super) fn answer(&mut self, reply: &Reply) {
        self.outbox.extend_from_slice(&protocol::encode(reply));
        self.flush();
    }

    /// Answers, and passes pipes with it.
    pub(super) fn answer_with(&mut self, reply: &Reply, pipes: &[OwnedFd; 3]) -> io::Result<()> {
        let fds = [pipes[0].as_fd(), pipes[1].as_fd(), pipes[2].as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        control.push(SendAncillaryMessage::ScmRights(&fds));
        let line = protocol::encode(reply);
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        let sent = sendmsg(&self.stream, &[IoSlice::new(&line)], &mut control, flags)?;
        self.outbox.extend_from_slice(&line[sent..]);
        Ok(())
    }

    /// Writes what waits, as far as the caller takes it. A caller that has gone is noticed when it is read.
    pub(super) fn flush(&mut self) {
        while !self.outbox.is_empty() {
            match self.stream.write(&self.outbox) {
                Ok(sent) if sent > 0 => {
                    self.outbox.drain(..sent);
                }
                Ok(_) => return,
                Err(source) if source.kind() == io::ErrorKind::Interrupted => {}
                Err(source) if source.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => {
                    self.outbox.clear();
                    return;
                }
            }
        }
        self.outbox.shrink_to_fit();
    }

    /// Writes what waits, for a moment at most: nothing follows.
    pub(super) fn farewell(mut self) {
        let blocking = self.stream.set_nonblocking(false).and_then(|()| {
            self.stream
                .set_write_timeout(Some(Duration::from_millis(500)))
        });
        if blocking.is_ok() {
            self.flush();
        }
    }
}
