//! Runs a program with a deadline.

use std::io::Read;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

const POLL: Duration = Duration::from_millis(2);

/// How a program ended and what it said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
    /// How it ended.
    pub status: ExitStatus,
}

impl Output {
    /// The exit status; none when a signal ended it.
    #[must_use]
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// The same, where 0 is expected.
    ///
    /// # Panics
    /// When the program failed; shows what it said.
    #[track_caller]
    #[must_use]
    pub fn success(self) -> Self {
        assert!(self.status.success(), "{self:#?}");
        self
    }
}

/// The one JSON document on standard output.
///
/// # Panics
/// When there is none, more than one, or anything else.
#[track_caller]
#[must_use]
pub fn json(output: &Output) -> serde_json::Value {
    let text = &output.stdout;
    let mut documents = serde_json::Deserializer::from_str(text).into_iter();
    match (documents.next(), documents.next()) {
        (Some(Ok(document)), None) => document,
        _ => panic!("standard output is not exactly one JSON document: {output:#?}"),
    }
}

/// Runs a program to its end; kills it when it has not ended in time.
#[track_caller]
pub(crate) fn run(command: &mut Command, limit: Duration) -> Output {
    let until = Instant::now() + limit;
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command
        .spawn()
        .unwrap_or_else(|error| panic!("{}: {error}", command.get_program().display()));
    let stdout = read(child.stdout.take().expect("a pipe"));
    let stderr = read(child.stderr.take().expect("a pipe"));
    let status = loop {
        match child.try_wait().expect("a child's status") {
            Some(status) => break status,
            None if Instant::now() < until => thread::sleep(POLL),
            None => {
                let _killed = child.kill();
                let _reaped = child.wait();
                let said = [stdout, stderr].map(|pipe| text(&pipe, POLL).unwrap_or_default());
                panic!("{command:?} has not ended in {limit:?}; it said {said:#?}");
            }
        }
    };
    let left = until
        .saturating_duration_since(Instant::now())
        .max(Duration::from_secs(1));
    let mut said = [stdout, stderr].map(|pipe| text(&pipe, left));
    match (said[0].take(), said[1].take()) {
        (Some(stdout), Some(stderr)) => Output {
            stdout,
            stderr,
            status,
        },
        _ => panic!("{command:?} has ended, but something that it started holds its output open"),
    }
}

fn read(mut pipe: impl Read + Send + 'static) -> mpsc::Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        // What came before an error is shown all the same; nobody may want it any more.
        let _read = pipe.read_to_end(&mut bytes);
        let _sent = sender.send(bytes);
    });
    receiver
}

fn text(pipe: &mpsc::Receiver<Vec<u8>>, limit: Duration) -> Option<String> {
    let bytes = pipe.recv_timeout(limit).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}
