//! What a provider prints: captured, without secrets, logged.

use super::session::one_line;
use crate::frame::LOGS_PER_SECOND;
use crate::rate::{Passed, Rate};
use alpine_provider_api::{Redactor, StreamRedactor};
use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// How many of its last lines go with the news of its death.
const LAST_LINES: usize = 10;
/// The most of a line that is kept.
const LONGEST: usize = 1024;

/// The other end of a provider's standard output and error output.
#[derive(Debug)]
pub(super) struct Printed {
    name: String,
    pipe: OwnedFd,
    redactor: StreamRedactor,
    rate: Rate,
    held: Vec<u8>,
    last: VecDeque<String>,
    /// Whether its end was reached.
    pub(super) over: bool,
}

impl Printed {
    pub(super) fn new(name: &str, redactor: &Redactor, pipe: OwnedFd) -> Self {
        Self {
            name: name.to_owned(),
            pipe,
            redactor: StreamRedactor::new(redactor.clone()),
            rate: Rate::new(LOGS_PER_SECOND),
            held: Vec::new(),
            last: VecDeque::new(),
            over: false,
        }
    }

    /// Logs what is there. One who prints without end gets no more than its turn.
    pub(super) fn read(&mut self) {
        let mut chunk = [0; 8 * 1024];
        for _ in 0..16 {
            match rustix::io::read(&self.pipe, &mut chunk) {
                Ok(0) => {
                    self.over = true;
                    return;
                }
                Ok(read) => {
                    let clean = self.redactor.push(&chunk[..read]);
                    self.lines(&clean);
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => return,
                Err(_) => {
                    self.over = true;
                    return;
                }
            }
        }
    }

    /// Its last lines, when it has ended.
    pub(super) fn end(mut self) -> Vec<String> {
        self.read();
        let rest = self.redactor.finish();
        self.lines(&rest);
        let held = std::mem::take(&mut self.held);
        if !held.is_empty() {
            self.line(&held);
        }
        self.last.into()
    }

    fn lines(&mut self, clean: &[u8]) {
        for part in clean.split_inclusive(|&byte| byte == b'\n') {
            let room = LONGEST.saturating_sub(self.held.len());
            self.held.extend_from_slice(&part[..part.len().min(room)]);
            if part.ends_with(b"\n") {
                let line = std::mem::take(&mut self.held);
                self.line(&line);
            }
        }
    }

    fn line(&mut self, line: &[u8]) {
        let line = String::from_utf8_lossy(line);
        let line = line.trim_end();
        if self.last.len() == LAST_LINES {
            self.last.pop_front();
        }
        self.last.push_back(line.to_owned());
        if let Passed::After(dropped) = self.rate.pass() {
            if dropped > 0 {
                tracing::warn!(provider = %self.name, dropped, "lines that it printed were dropped");
            }
            tracing::info!(provider = %self.name, "{}", one_line(line));
        }
    }
}

impl AsFd for Printed {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pipe.as_fd()
    }
}
