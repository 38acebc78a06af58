//! A log as server-sent events: its last lines, then what is added, across rotation.

use crate::answer::Body;
use http_body_util::BodyExt;
use hyper::body::{Bytes, Frame};
use rustix::fs::{Mode, OFlags};
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

/// How much of a log's end is shown at first, and how much is read at once.
const CHUNK: u64 = 64 * 1024;

/// How often a log is looked at.
const PAUSE: Duration = Duration::from_millis(200);

/// How often something is sent though nothing happened, so that nothing in between gives the connection up.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// The events of a log, for as long as somebody reads them.
pub(crate) fn events(path: PathBuf) -> Body {
    let (sender, receiver) = mpsc::channel(4);
    tokio::spawn(async move {
        let closed = sender.clone();
        tokio::select! {
            () = closed.closed() => {}
            () = follow(&path, &sender) => {}
        }
    });
    Events(receiver).map_err(Into::into).boxed_unsync()
}

#[derive(Debug)]
struct Events(mpsc::Receiver<Bytes>);

impl hyper::body::Body for Events {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.0
            .poll_recv(cx)
            .map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes))))
    }
}

async fn follow(path: &Path, sender: &mpsc::Sender<Bytes>) {
    let mut tail = Tail::default();
    let mut said = Instant::now();
    if sender.send(Bytes::from_static(b": log\n\n")).await.is_err() {
        return;
    }
    loop {
        let news = tail.read(path).unwrap_or_default();
        let event = if !news.is_empty() {
            as_event(&news)
        } else if said.elapsed() >= HEARTBEAT {
            ":\n\n".to_owned()
        } else {
            sleep(PAUSE).await;
            continue;
        };
        said = Instant::now();
        if sender.send(event.into()).await.is_err() {
            return;
        }
    }
}

/// Lines as one event. A carriage return would end a field of it, so it counts as an end of line here.
fn as_event(lines: &[u8]) -> String {
    let text = String::from_utf8_lossy(lines);
    let mut event = String::with_capacity(text.len() + 64);
    for line in text.trim_end_matches('\n').split(['\n', '\r']) {
        event.push_str("data: ");
        event.push_str(line);
        event.push('\n');
    }
    event.push('\n');
    event
}

/// Where in a log the reading is.
#[derive(Debug, Default)]
struct Tail {
    file: Option<File>,
    started: bool,
    rest: Vec<u8>,
}

impl Tail {
    /// The whole lines that were added; nothing when there are none.
    fn read(&mut self, path: &Path) -> io::Result<Vec<u8>> {
        if self.file.is_none() {
            self.file = Some(open(path, !self.started)?);
        }
        self.started = true;
        let Some(file) = &mut self.file else {
            return Ok(Vec::new());
        };
        let read = file.take(CHUNK).read_to_end(&mut self.rest)?;
        if read == 0 && is_over(file, path) {
            // The log was rotated or cut: the next one is read from its start.
            self.file = None;
            return Ok(std::mem::take(&mut self.rest));
        }
        let whole = match self.rest.iter().rposition(|byte| *byte == b'\n') {
            Some(end) => end + 1,
            None if self.rest.len() as u64 >= CHUNK => self.rest.len(),
            None => 0,
        };
        let rest = self.rest.split_off(whole);
        Ok(std::mem::replace(&mut self.rest, rest))
    }
}

/// Opens a log that is a plain file and nothing that could make a reader wait.
fn open(path: &Path, at_end: bool) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let mut file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
    let found = file.metadata()?;
    if !found.is_file() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    if at_end && found.len() > CHUNK {
        file.seek(SeekFrom::Start(found.len() - CHUNK))?;
        skip_line(&mut file)?;
    }
    Ok(file)
}

/// Goes on to the start of the next line.
fn skip_line(file: &mut File) -> io::Result<()> {
    let start = file.stream_position()?;
    let mut chunk = Vec::new();
    file.by_ref().take(CHUNK).read_to_end(&mut chunk)?;
    let line = chunk
        .iter()
        .position(|byte| *byte == b'\n')
        .map_or(0, |end| end + 1);
    file.seek(SeekFrom::Start(start + line as u64))?;
    Ok(())
}

/// Whether another file has taken this one's place, or this one is shorter than what was read of it.
fn is_over(file: &mut File, path: &Path) -> bool {
    let (Ok(mine), Ok(position)) = (file.metadata(), file.stream_position()) else {
        return true;
    };
    let moved = fs::symlink_metadata(path)
        .is_ok_and(|now| (now.dev(), now.ino()) != (mine.dev(), mine.ino()));
    moved || mine.len() < position
}

#[cfg(test)]
mod tests {
    use super::{CHUNK, Tail, as_event};
    use expect_test::expect;
    use std::fs;
    use std::io::Write;

    #[test]
    fn events_keep_their_frame_whatever_a_log_holds() {
        let event = as_event(b"one\ntwo\rdata: three\r\n\nevent: x\xff\n");
        expect![[r#"
            data: one
            data: two
            data: data: three
            data: 
            data: 
            data: event: x�

        "#]]
        .assert_eq(&event);
    }

    #[test]
    fn a_tail_follows_whole_lines_across_rotation() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.log");
        let mut tail = Tail::default();
        assert!(tail.read(&path).is_err());
        fs::write(&path, "one\ntw").unwrap();
        assert_eq!(tail.read(&path).unwrap(), b"one\n");
        let mut log = fs::OpenOptions::new().append(true).open(&path).unwrap();
        log.write_all(b"o\nthree").unwrap();
        assert_eq!(tail.read(&path).unwrap(), b"two\n");
        fs::rename(&path, dir.path().join("agent.log.1")).unwrap();
        fs::write(&path, "four\n").unwrap();
        assert_eq!(tail.read(&path).unwrap(), b"three");
        assert_eq!(tail.read(&path).unwrap(), b"four\n");
        assert_eq!(tail.read(&path).unwrap(), b"");
    }

    #[test]
    fn only_the_end_of_a_long_log_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.log");
        fs::write(&path, "0123456789abcde\n".repeat(CHUNK as usize / 8)).unwrap();
        let read = Tail::default().read(&path).unwrap();
        assert_eq!(read.len() as u64, CHUNK - 16);
        assert!(read.starts_with(b"0123"));
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(Tail::default().read(&link).is_err());
    }
}
