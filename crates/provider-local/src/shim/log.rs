//! A log: lines with their time, without secrets, in parts of bounded size.

use crate::clock;
use crate::layout::numbered;
use alpine_provider_api::{Redactor, StreamRedactor};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

/// How many parts of a log are kept, the growing one included.
pub(crate) const PARTS: u32 = 4;
/// How large a part may grow.
const PART_BYTES: u64 = 8 << 20;
/// How long a line's time is, with the blank that follows it.
pub(crate) const STAMP: usize = 25;

/// The end of a log that grows.
#[derive(Debug)]
pub(super) struct Log {
    path: PathBuf,
    file: Option<File>,
    size: u64,
    part_bytes: u64,
    stream: StreamRedactor,
    in_line: bool,
    dropped: u64,
}

impl Log {
    /// Goes on at the end of what is there.
    pub(super) fn open(path: PathBuf, redactor: Redactor) -> Self {
        let mut log = Self {
            path,
            file: None,
            size: 0,
            part_bytes: PART_BYTES,
            stream: StreamRedactor::new(redactor),
            in_line: false,
            dropped: 0,
        };
        // A log that can't be opened now is tried again at each write; what was to be written is counted meanwhile.
        let _ = log.reopen();
        log
    }

    /// Where the next byte goes.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// Takes a chunk of output as it came.
    pub(super) fn push(&mut self, chunk: &[u8]) {
        let text = self.stream.push(chunk);
        self.lines(&text);
    }

    /// The output has ended: writes what was held back, as a whole line.
    pub(super) fn finish(&mut self) {
        let text = self.stream.finish();
        self.lines(&text);
        if self.in_line {
            self.in_line = false;
            self.write(b"\n");
        }
    }

    fn lines(&mut self, text: &[u8]) {
        if text.is_empty() {
            return;
        }
        let stamp = format!("{} ", clock::now());
        debug_assert_eq!(stamp.len(), STAMP);
        let mut out = Vec::with_capacity(text.len() + 64);
        for line in text.split_inclusive(|&byte| byte == b'\n') {
            if !self.in_line {
                out.extend_from_slice(stamp.as_bytes());
            }
            out.extend_from_slice(line);
            self.in_line = !line.ends_with(b"\n");
        }
        self.write(&out);
    }

    /// Writes, or drops and counts where the disk is full: a log never stops what it tells of.
    fn write(&mut self, text: &[u8]) {
        if self.size >= self.part_bytes {
            self.rotate();
        }
        let mut all = Vec::new();
        if self.dropped > 0 {
            let note = format!("{} [{} bytes were dropped]\n", clock::now(), self.dropped);
            all.extend_from_slice(note.as_bytes());
        }
        all.extend_from_slice(text);
        match self.try_write(&all) {
            Ok(()) => self.dropped = 0,
            Err(_) => self.dropped += text.len() as u64,
        }
    }

    fn try_write(&mut self, text: &[u8]) -> io::Result<()> {
        if self.file.is_none() {
            self.reopen()?;
        }
        let Some(file) = &mut self.file else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let written = file.write_all(text);
        match &written {
            Ok(()) => self.size += text.len() as u64,
            // A part of it may be there.
            Err(_) => self.size = file.metadata().map_or(self.size, |meta| meta.len()),
        }
        written
    }

    fn reopen(&mut self) -> io::Result<()> {
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(&self.path)?;
        self.size = file.metadata()?.len();
        self.file = Some(file);
        Ok(())
    }

    fn rotate(&mut self) {
        for part in (1..PARTS).rev() {
            let newer = match part {
                1 => self.path.clone(),
                _ => numbered(&self.path, part - 1),
            };
            // An older part that is not there yet is no failure.
            let _ = fs::rename(newer, numbered(&self.path, part));
        }
        self.file = None;
        self.size = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::{Log, PARTS, STAMP};
    use alpine_provider_api::{Redactor, Secret};
    use std::fs;

    fn texts(log: &std::path::Path) -> Vec<String> {
        fs::read_to_string(log)
            .unwrap()
            .lines()
            .map(|line| line[STAMP..].to_owned())
            .collect()
    }

    #[test]
    fn lines_bear_their_time_and_no_secret_even_when_it_is_split() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("agent.log");
        let secret = Secret::new("hunter2hunter2".to_owned());
        let mut log = Log::open(path.clone(), Redactor::new([&secret]));
        for chunk in ["one hunter", "2hunter2 two\nthr", "ee\n", "no end"] {
            log.push(chunk.as_bytes());
        }
        log.finish();
        assert_eq!(texts(&path), ["one [redacted] two", "three", "no end"]);
    }

    #[test]
    fn a_log_is_kept_in_four_parts() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("agent.log");
        let mut log = Log::open(path.clone(), Redactor::default());
        log.part_bytes = 10_000;
        for number in 0..2000 {
            log.push(format!("line {number}\n").as_bytes());
        }
        let sizes: Vec<u64> = fs::read_dir(directory.path())
            .unwrap()
            .map(|entry| entry.unwrap().metadata().unwrap().len())
            .collect();
        assert_eq!(sizes.len(), PARTS as usize);
        assert!(sizes.iter().all(|&size| size < 10_100));
        assert_eq!(texts(&path).last().unwrap(), "line 1999");
    }

    #[test]
    fn what_can_not_be_written_is_counted_and_said_later() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("logs/agent.log");
        let mut log = Log::open(path.clone(), Redactor::default());
        log.push(b"lost\n");
        fs::create_dir(directory.path().join("logs")).unwrap();
        log.push(b"kept\n");
        assert_eq!(texts(&path), ["[30 bytes were dropped]", "kept"]);
    }
}
