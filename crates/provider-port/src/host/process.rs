//! The thread of a provider's process: starts it, reads what it sends, keeps its deadlines, and reaps it.

use super::config::{PortConfig, Timings};
use super::library::log_level;
use super::session::{Session, Stage};
use super::spawn::{Started, pid_of, spawn};
use super::stderr::Printed;
use super::watcher::Link;
use crate::abi::Sent;
use crate::frame::{Frame, Kind, Takes};
use crate::message::{FEATURE_PING, Hello};
use crate::wire::{Filled, Reader};
use alpine_provider_api::{ErrorKind, ProviderError};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, kill_process, kill_process_group, pidfd_open,
    waitid,
};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ExitStatus};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// The thread that watches.
pub(super) fn watch(config: &PortConfig, session: &Session, link: &Link, theirs: OwnedFd) {
    let started = spawn(config, &theirs);
    drop(theirs);
    let started = started.and_then(|Started { child, printed }| {
        let pid = pid_of(&child);
        let fd = pid.map(|pid| pidfd_open(pid, PidfdFlags::empty()));
        match (pid, fd) {
            (Some(pid), Some(Ok(gone))) => Ok((child, printed, pid, gone)),
            (_, Some(Err(error))) => Err(ProviderError::io(
                "the process can't be watched",
                &error.into(),
            )),
            (_, None) | (None, _) => Err(ProviderError::new(
                ErrorKind::Internal,
                "the process has no id",
            )),
        }
    });
    match started {
        Err(error) => session.ended(session.named(error)),
        Ok((child, printed, pid, gone)) => {
            let now = Instant::now();
            let mut watch = Watch {
                session,
                timings: config.timings,
                link,
                child,
                pid,
                reader: Reader::default(),
                printed: Printed::new(&session.name, &session.redactor, printed),
                started: now,
                open: serde_json::to_vec(&config.open).unwrap_or_default(),
                pings: false,
                pinged: now,
                heard: now,
                end: None,
            };
            watch.greet();
            watch.run(&gone);
            watch.reap();
        }
    }
}

/// Why and since when the process is being ended.
struct Ending {
    why: ProviderError,
    since: Instant,
    /// What comes next, and how long after `since`.
    next: Option<(Signal, Duration)>,
    /// Whether it was sent a signal: else its end is its own doing.
    signalled: bool,
}

struct Watch<'a> {
    session: &'a Session,
    timings: Timings,
    link: &'a Link,
    child: Child,
    pid: Pid,
    reader: Reader,
    printed: Printed,
    started: Instant,
    /// OPEN's payload.
    open: Vec<u8>,
    /// Whether it promised PONG.
    pings: bool,
    pinged: Instant,
    heard: Instant,
    end: Option<Ending>,
}

impl Watch<'_> {
    fn greet(&self) {
        let mut hello = Hello::new("alpine", env!("CARGO_PKG_VERSION"));
        hello.log_level = log_level();
        let json = serde_json::to_vec(&hello).unwrap_or_default();
        self.send(Kind::Hello, &json);
    }

    fn send(&self, kind: Kind, payload: &[u8]) {
        // One that has gone is found by its end.
        self.link.wire.send(&Frame {
            call_id: 0,
            kind,
            code: 0,
            payload,
        });
    }

    /// Until the process has ended.
    fn run(&mut self, gone: &OwnedFd) {
        let mut socket_over = false;
        loop {
            if self.link.closing.load(Ordering::Acquire) && self.end.is_none() {
                self.link.wire.shut();
                let why = self.crashed("it was closed");
                self.ending(why, Some((Signal::TERM, self.timings.close)));
            }
            let limit = self.keep_deadlines();
            let mut others = vec![gone.as_fd()];
            if !self.printed.over {
                others.push(self.printed.as_fd());
            }
            let found = if socket_over {
                wait_without_socket(&others, limit)
            } else {
                self.link.wire.wait(&others, limit)
            };
            let Ok(found) = found else {
                return self.kill(Signal::KILL);
            };
            if found.others[1] {
                self.printed.read();
            }
            if found.readable && self.read() == Filled::End && !socket_over {
                socket_over = true;
                let why = self.crashed("it closed its socket");
                self.ending(why, Some((Signal::TERM, self.timings.close)));
            }
            if found.others[0] {
                // What it said before its end counts.
                while !socket_over && self.read() == Filled::More {}
                return;
            }
        }
    }

    /// Reads what is there, once.
    fn read(&mut self) -> Filled {
        let filled = self.reader.fill(self.link.wire.as_fd());
        if filled != Filled::More {
            return filled;
        }
        self.heard = Instant::now();
        let mut reader = std::mem::take(&mut self.reader);
        let broken = loop {
            match reader.next() {
                Ok(None) => break None,
                Ok(Some(frame)) => {
                    if let Err(why) = self.frame(&frame) {
                        break Some(why);
                    }
                }
                Err(why) => break Some(format!("it sent {why}")),
            }
        };
        self.reader = reader;
        if let Some(why) = broken {
            self.broken(&why);
            return Filled::End;
        }
        filled
    }

    /// Takes a frame; the error says how it breaks the protocol.
    fn frame(&mut self, frame: &Frame<'_>) -> Result<(), String> {
        match frame.kind {
            Kind::Hello => self.hello(frame.payload),
            Kind::Ready => {
                self.session.ready();
                Ok(())
            }
            Kind::Call
            | Kind::Cancel
            | Kind::Grant
            | Kind::Input
            | Kind::Ping
            | Kind::Pong
            | Kind::Ok
            | Kind::Err
            | Kind::Event
            | Kind::Log
            | Kind::Open => match self.session.take(frame) {
                Sent::Ok | Sent::Gone | Sent::Closed => Ok(()),
                Sent::WouldBlock => Err("it sent more of a stream than it was granted".to_owned()),
                Sent::Unsupported | Sent::Panic | Sent::TooBig | Sent::Bad => Err(format!(
                    "it sent a frame {} that makes no sense",
                    frame.kind.as_str()
                )),
            },
        }
    }

    fn hello(&mut self, payload: &[u8]) -> Result<(), String> {
        let hello: Hello = serde_json::from_slice(payload)
            .map_err(|error| format!("its greeting can't be read: {error}"))?;
        if let Err(error) = hello.check() {
            self.session.ended(self.session.named(error));
            return Err("it was refused".to_owned());
        }
        self.pings = hello.features.iter().any(|name| name == FEATURE_PING);
        tracing::debug!(provider = %self.session.name, name = hello.name, version = hello.version, "a provider was started");
        let open = std::mem::take(&mut self.open);
        self.send(Kind::Open, &open);
        Ok(())
    }

    /// It does not keep to the protocol: nothing it says is listened to any more.
    fn broken(&mut self, why: &str) {
        let message = format!("it does not keep to the protocol: {why}");
        let error = ProviderError::new(ErrorKind::Unsupported, message);
        self.session.ended(self.session.named(error));
        self.kill(Signal::KILL);
    }

    /// Does what is due, and says when to look again.
    fn keep_deadlines(&mut self) -> Option<Duration> {
        let now = Instant::now();
        if self.end.is_none() {
            let (due, why) = self.next_limit()?;
            if now < due {
                return Some(due - now);
            }
            if let Some(why) = why {
                let why = self.crashed(&why);
                self.session.ending();
                self.ending(why, Some((Signal::TERM, Duration::ZERO)));
            } else {
                self.pinged = now;
                self.send(Kind::Ping, &[]);
                return self.keep_deadlines();
            }
        }
        let end = self.end.as_mut()?;
        let (signal, after) = end.next?;
        let due = end.since + after;
        if now < due {
            return Some(due - now);
        }
        end.since = now;
        end.signalled = true;
        end.next = (signal != Signal::KILL).then_some((Signal::KILL, self.timings.term));
        self.kill(signal);
        self.keep_deadlines()
    }

    /// What is due next; without a reason, it is a PING.
    fn next_limit(&self) -> Option<(Instant, Option<String>)> {
        let t = &self.timings;
        if matches!(self.session.stage(), Stage::Starting | Stage::Ended(_)) {
            let why = format!("it was not ready within {} s", t.start.as_secs_f32());
            return Some((self.started + t.start, Some(why)));
        }
        let cancelled = self.session.cancelled().map(|since| {
            let why = format!(
                "it did not answer within {} s after its call was cancelled",
                t.cancel.as_secs_f32()
            );
            (since + t.cancel, Some(why))
        });
        [cancelled, self.liveness()]
            .into_iter()
            .flatten()
            .min_by_key(|(due, _)| *due)
    }

    /// The next PING, or the limit of the last one; none when no call has been in flight for a while.
    fn liveness(&self) -> Option<(Instant, Option<String>)> {
        if !self.pings {
            return None;
        }
        if self.heard < self.pinged {
            let limit = self.timings.pong;
            let why = format!("it answered no PING within {} s", limit.as_secs_f32());
            return Some((self.pinged + limit, Some(why)));
        }
        let due = self.heard.max(self.pinged) + self.timings.ping;
        if self.session.busy() || Instant::now() < due {
            return Some((due, None));
        }
        self.link.idle.store(true, Ordering::Release);
        // One that began before that was said wakes nobody.
        self.session.busy().then_some((due, None))
    }

    fn ending(&mut self, why: ProviderError, next: Option<(Signal, Duration)>) {
        self.end.get_or_insert(Ending {
            why,
            since: Instant::now(),
            next,
            signalled: false,
        });
    }

    fn crashed(&self, why: &str) -> ProviderError {
        let error = ProviderError::transient(ErrorKind::Crashed, why);
        self.session.named(error)
    }

    /// Signals its group: the process, and what it has started.
    fn kill(&self, signal: Signal) {
        let unreaped = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
        if waitid(WaitId::Pid(self.pid), unreaped).is_err() {
            // The id may be another's by now.
            return;
        }
        let all = kill_process_group(self.pid, signal);
        if all.is_err() || signal == Signal::KILL {
            // It may have left its group; one that has ended needs no signal.
            let _ = kill_process(self.pid, signal);
        }
    }

    /// Ends what is left of its group, takes its exit status, and tells those who still wait.
    fn reap(mut self) {
        self.kill(Signal::KILL);
        let status = self.child.wait();
        let last = self.printed.end();
        let told = self.end.filter(|end| end.signalled);
        let why = told.map(|end| end.why);
        let error = why.unwrap_or_else(|| {
            let how = status.map_or_else(|error| error.to_string(), how_it_ended);
            let message = format!("its process {how}");
            let error = ProviderError::transient(ErrorKind::Crashed, message);
            self.session.named(error)
        });
        self.session.ended(error.log_tail(last));
    }
}

fn wait_without_socket(
    others: &[std::os::fd::BorrowedFd<'_>],
    limit: Option<Duration>,
) -> std::io::Result<crate::wire::Found> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let mut fds: Vec<_> = others
        .iter()
        .map(|fd| PollFd::new(fd, PollFlags::IN))
        .collect();
    let limit = limit.and_then(|limit| Timespec::try_from(limit).ok());
    match poll(&mut fds, limit.as_ref()) {
        Ok(_) | Err(rustix::io::Errno::INTR) => {}
        Err(error) => return Err(error.into()),
    }
    let is = |at: usize| {
        fds.get(at)
            .is_some_and(|fd: &PollFd<'_>| !fd.revents().is_empty())
    };
    Ok(crate::wire::Found {
        readable: false,
        others: [is(0), is(1)],
    })
}

fn how_it_ended(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exited with status {code}"),
        (None, Some(signal)) => match Signal::from_named_raw(signal) {
            Some(name) => {
                let name = format!("{name:?}").replace("Signal::", "SIG");
                let name = name.trim_matches('"');
                format!("was ended by signal {signal} ({name})")
            }
            None => format!("was ended by signal {signal}"),
        },
        (None, None) => "ended".to_owned(),
    }
}
