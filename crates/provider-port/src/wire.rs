//! A socket that frames go over: sending never blocks, one thread reads.

use crate::abi::Sent;
use crate::frame::{Frame, FrameError, HEADER, Kind, is_stream};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags, recv, sendmsg};
use std::io::IoSlice;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// What may wait for a peer that does not read, before what nothing else bounds is refused.
const LONGEST_QUEUE: usize = 16 * 1024 * 1024;
/// How much of what was sent is kept before the rest is moved to its place.
const SENT: usize = 1024 * 1024;
/// How much is read at once, where there is so much.
const READ: usize = 128 * 1024;

/// A mutex's content, also where a thread panicked with it: every change of ours is whole before it can panic.
pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One end of the socket.
#[derive(Debug)]
pub(crate) struct Wire {
    socket: OwnedFd,
    wake: OwnedFd,
    queue: Mutex<Queue>,
}

/// What the socket has not taken yet.
#[derive(Debug, Default)]
struct Queue {
    bytes: Vec<u8>,
    sent: usize,
    closed: bool,
}

/// Whether a peer that does not read can be spared this. The rest has a bound of its own, and whoever sends it counts on it:
/// there is one answer for each call, and a stream keeps to its credit.
fn can_be_refused(frame: &Frame<'_>) -> bool {
    match frame.kind {
        Kind::Event => !is_stream(frame.code),
        Kind::Call | Kind::Log | Kind::Ping | Kind::Pong => true,
        Kind::Cancel
        | Kind::Grant
        | Kind::Input
        | Kind::Ok
        | Kind::Err
        | Kind::Hello
        | Kind::Open
        | Kind::Ready => false,
    }
}

/// What [`Wire::wait`] has found.
#[derive(Clone, Copy, Debug, Default)]
#[cfg_attr(
    not(feature = "host"),
    expect(dead_code, reason = "a child has nothing else to wait for")
)]
pub(crate) struct Found {
    /// The socket has something to read, or its end.
    pub(crate) readable: bool,
    /// So have these.
    pub(crate) others: [bool; 2],
}

impl Wire {
    pub(crate) fn new(socket: OwnedFd) -> std::io::Result<Self> {
        Ok(Self {
            socket,
            wake: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
            queue: Mutex::new(Queue::default()),
        })
    }

    /// Waits until the other end is closed.
    #[cfg(feature = "host")]
    pub(crate) fn until_peer_has_gone(&self) {
        let mut ends = [PollFd::new(&self.socket, PollFlags::RDHUP)];
        // Interrupted: once more. Anything else won't be better the next time.
        while poll(&mut ends, None) == Err(Errno::INTR) {}
    }

    /// Sends a frame, or keeps it until the peer reads.
    pub(crate) fn send(&self, frame: &Frame<'_>) -> Sent {
        let mut queue = locked(&self.queue);
        if queue.closed {
            return Sent::Closed;
        }
        let header = frame.header();
        let sent = if queue.bytes.is_empty() {
            match self.try_send(&header, frame.payload) {
                Ok(sent) => sent,
                Err(_) => {
                    queue.closed = true;
                    return Sent::Closed;
                }
            }
        } else if queue.bytes.len() - queue.sent > LONGEST_QUEUE && can_be_refused(frame) {
            return Sent::WouldBlock;
        } else {
            0
        };
        if sent < HEADER + frame.payload.len() {
            queue.bytes.extend_from_slice(&header[sent.min(HEADER)..]);
            let rest = &frame.payload[sent.saturating_sub(HEADER)..];
            queue.bytes.extend_from_slice(rest);
            drop(queue);
            self.wake();
        }
        Sent::Ok
    }

    fn try_send(&self, header: &[u8], payload: &[u8]) -> Result<usize, Errno> {
        let parts = [IoSlice::new(header), IoSlice::new(payload)];
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        loop {
            let mut none = SendAncillaryBuffer::default();
            match sendmsg(&self.socket, &parts, &mut none, flags) {
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(0),
                other => return other,
            }
        }
    }

    fn flush(&self) {
        let mut queue = locked(&self.queue);
        while !queue.closed && queue.sent < queue.bytes.len() {
            match self.try_send(&queue.bytes[queue.sent..], &[]) {
                Ok(0) => break,
                Ok(sent) => queue.sent += sent,
                Err(_) => queue.closed = true,
            }
        }
        if queue.closed || queue.sent == queue.bytes.len() {
            // The room that a burst took is given back.
            *queue = Queue {
                closed: queue.closed,
                ..Queue::default()
            };
        } else if queue.sent > SENT {
            // A peer that is always behind leaves no moment in which all is sent.
            let sent = std::mem::take(&mut queue.sent);
            queue.bytes.drain(..sent);
        }
    }

    /// Wakes the thread that waits.
    pub(crate) fn wake(&self) {
        // A counter that is full wakes it as well.
        let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
    }

    /// Tells the peer that nothing more comes.
    #[cfg(feature = "host")]
    pub(crate) fn shut(&self) {
        locked(&self.queue).closed = true;
        // One that has gone needs not be told.
        let _ = rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Write);
    }

    /// Waits until there is something to read here or there, somebody woke this thread, or the time is up; sends what waits.
    pub(crate) fn wait(
        &self,
        others: &[BorrowedFd<'_>],
        limit: Option<Duration>,
    ) -> std::io::Result<Found> {
        let mut flags = PollFlags::IN;
        if !locked(&self.queue).bytes.is_empty() {
            flags |= PollFlags::OUT;
        }
        let mut fds = vec![
            PollFd::new(&self.socket, flags),
            PollFd::new(&self.wake, PollFlags::IN),
        ];
        fds.extend(others.iter().map(|fd| PollFd::new(fd, PollFlags::IN)));
        let limit = limit.and_then(|limit| Timespec::try_from(limit).ok());
        match poll(&mut fds, limit.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let is = |at: usize, flags: PollFlags| {
            fds.get(at)
                .is_some_and(|fd: &PollFd<'_>| fd.revents().intersects(flags))
        };
        let input = PollFlags::IN | PollFlags::HUP | PollFlags::ERR;
        if is(1, PollFlags::IN) {
            // It only has to be empty.
            let _ = rustix::io::read(&self.wake, &mut [0_u8; 8]);
        }
        if is(0, PollFlags::OUT) {
            self.flush();
        }
        Ok(Found {
            readable: is(0, input),
            others: [is(2, input), is(3, input)],
        })
    }
}

impl AsFd for Wire {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// What [`Reader::fill`] has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Filled {
    /// Bytes.
    More,
    /// Nothing for now.
    Nothing,
    /// The peer has gone.
    End,
}

/// Takes frames out of a stream of bytes.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

impl Reader {
    /// Reads what is there.
    pub(crate) fn fill(&mut self, socket: impl AsFd) -> Filled {
        self.bytes.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, self.end - self.start);
        if self.bytes.len() < self.end + READ {
            self.bytes.resize(self.end + READ, 0);
        }
        loop {
            match recv(&socket, &mut self.bytes[self.end..], RecvFlags::DONTWAIT) {
                Ok((_, 0)) => return Filled::End,
                Ok((_, read)) => {
                    self.end += read;
                    return Filled::More;
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Filled::Nothing,
                Err(_) => return Filled::End,
            }
        }
    }

    /// The next frame that is whole.
    pub(crate) fn next(&mut self) -> Result<Option<Frame<'_>>, FrameError> {
        let Some((frame, taken)) = Frame::parse(&self.bytes[self.start..self.end])? else {
            return Ok(None);
        };
        self.start += taken;
        Ok(Some(frame))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{EVENT_STDOUT, EVENT_WARNING, MAX_CONTROL};
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    fn pair() -> (Wire, OwnedFd) {
        let flags = SocketFlags::CLOEXEC;
        let pair = socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None);
        let (ours, theirs) = pair.unwrap();
        (Wire::new(ours).unwrap(), theirs)
    }

    fn frame(kind: Kind, code: u32, payload: &[u8]) -> Frame<'_> {
        Frame {
            call_id: 1,
            kind,
            code,
            payload,
        }
    }

    #[test]
    fn what_has_a_bound_of_its_own_is_never_refused() {
        let (wire, _theirs) = pair();
        let large = vec![b'w'; MAX_CONTROL];
        let warning = frame(Kind::Event, EVENT_WARNING, &large);
        while wire.send(&warning) == Sent::Ok {}
        for kind in Kind::ALL {
            let refused = matches!(
                kind,
                Kind::Call | Kind::Event | Kind::Log | Kind::Ping | Kind::Pong
            );
            let expected = if refused { Sent::WouldBlock } else { Sent::Ok };
            assert_eq!(wire.send(&frame(kind, 0, b"{}")), expected, "{kind:?}");
        }
        let chunk = frame(Kind::Event, EVENT_STDOUT, b"output");
        assert_eq!(wire.send(&chunk), Sent::Ok);
    }

    #[test]
    fn a_peer_that_is_always_behind_does_not_take_memory_without_end() {
        let (wire, theirs) = pair();
        let large = vec![b'w'; MAX_CONTROL];
        let warning = frame(Kind::Event, EVENT_WARNING, &large);
        let (mut reader, mut read) = (Reader::default(), 0);
        while wire.send(&warning) == Sent::Ok {}
        while read < 100 {
            wire.wait(&[], Some(Duration::ZERO)).unwrap();
            while reader.fill(&theirs) == Filled::More {
                while reader.next().unwrap().is_some() {
                    read += 1;
                }
            }
            while wire.send(&warning) == Sent::Ok {}
            let kept = locked(&wire.queue).bytes.capacity();
            assert!(kept <= 3 * LONGEST_QUEUE, "{kept} bytes after {read}");
        }
    }
}
