//! Runs one git process to its end. When the future is dropped, the process and all of its children end at once.

use crate::environment::Environment;
use crate::git::Progress;
use alpine_provider_api::{ErrorKind, ProviderError, Redactor};
use rustix::process::{Pid, Signal, kill_process_group};
use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};

const LONGEST_OUTPUT: usize = 1024 * 1024;
const LONGEST_LINE: usize = 4096;
const LINES_KEPT: usize = 40;
/// How long the pipes may stay open after git itself has ended.
const LINGER: Duration = Duration::from_secs(2);

/// What git is asked to do.
pub(crate) struct Invocation<'a> {
    environment: &'a Environment,
    arguments: Vec<OsString>,
}

/// How it ended.
#[derive(Debug)]
pub(crate) struct Ended {
    /// The exit code; none when a signal ended it.
    pub(crate) code: Option<i32>,
    /// Its output.
    pub(crate) stdout: Vec<u8>,
    /// The last lines of its error output, without secrets and without progress.
    pub(crate) stderr: Vec<String>,
}

impl<'a> Invocation<'a> {
    pub(crate) fn new(environment: &'a Environment) -> Self {
        Self {
            environment,
            arguments: Vec::new(),
        }
    }

    pub(crate) fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.arguments.push(argument.as_ref().to_owned());
        self
    }

    pub(crate) fn args<const N: usize>(mut self, arguments: [&str; N]) -> Self {
        self.arguments.extend(arguments.map(OsString::from));
        self
    }
}

/// Runs git and waits for its end.
pub(crate) async fn run(
    invocation: Invocation<'_>,
    progress: Option<Progress<'_>>,
) -> Result<Ended, ProviderError> {
    let environment = invocation.environment;
    let mut child = Command::new("git")
        .args(&invocation.arguments)
        .env_clear()
        .envs(
            environment
                .variables
                .iter()
                .map(|(name, value)| (name, value)),
        )
        .current_dir(&environment.directory)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| not_started(&error))?;
    let _group = Group::of(&child);
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let mut stdout = Vec::new();
    let mut lines = Lines::new(&environment.redactor, progress);
    let status = {
        let reading =
            async { tokio::try_join!(read_output(out, &mut stdout), read_lines(err, &mut lines)) };
        tokio::pin!(reading);
        let mut read = false;
        let status = loop {
            tokio::select! {
                done = &mut reading, if !read => {
                    done.map_err(|error| ProviderError::io("can't read what git says", &error))?;
                    read = true;
                }
                status = child.wait() => break status,
            }
        };
        if !read {
            // A process that git left behind may hold the pipes open: what it says is not waited for.
            let _ = tokio::time::timeout(LINGER, reading).await;
        }
        status.map_err(|error| ProviderError::io("can't wait for git", &error))?
    };
    Ok(Ended {
        code: status.code(),
        stdout,
        stderr: lines.finish(),
    })
}

fn not_started(error: &std::io::Error) -> ProviderError {
    let failed = ProviderError::io("can't run `git`", error);
    if error.kind() == std::io::ErrorKind::NotFound {
        failed.hint("sudo apt-get install git")
    } else {
        failed
    }
}

/// The process group of a child. It ends with this value.
struct Group(Option<Pid>);

impl Group {
    fn of(child: &Child) -> Self {
        Self(
            child
                .id()
                .and_then(|id| i32::try_from(id).ok())
                .and_then(Pid::from_raw),
        )
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(leader) = self.0 {
            // It has ended already, in all but the case of a future that was dropped.
            let _ = kill_process_group(leader, Signal::KILL);
        }
    }
}

async fn read_output(
    from: Option<impl AsyncRead + Unpin>,
    to: &mut Vec<u8>,
) -> std::io::Result<()> {
    let Some(from) = from else { return Ok(()) };
    from.take(LONGEST_OUTPUT as u64 + 1).read_to_end(to).await?;
    if to.len() > LONGEST_OUTPUT {
        return Err(std::io::Error::new(
            std::io::ErrorKind::InvalidData,
            "it says more than a megabyte",
        ));
    }
    Ok(())
}

async fn read_lines(
    from: Option<impl AsyncRead + Unpin>,
    lines: &mut Lines<'_>,
) -> std::io::Result<()> {
    let Some(mut from) = from else { return Ok(()) };
    let mut chunk = [0; 4096];
    loop {
        let read = from.read(&mut chunk).await?;
        if read == 0 {
            return Ok(());
        }
        lines.push(&chunk[..read]);
    }
}

/// Git's error output: lines that end by a line feed, and progress that ends by a carriage return.
struct Lines<'a> {
    redactor: &'a Redactor,
    progress: Option<Progress<'a>>,
    line: Vec<u8>,
    kept: VecDeque<String>,
}

impl<'a> Lines<'a> {
    fn new(redactor: &'a Redactor, progress: Option<Progress<'a>>) -> Self {
        Self {
            redactor,
            progress,
            line: Vec::new(),
            kept: VecDeque::new(),
        }
    }

    fn push(&mut self, chunk: &[u8]) {
        for &byte in chunk {
            match byte {
                b'\n' | b'\r' => self.end_line(),
                _ if self.line.len() < LONGEST_LINE => self.line.push(byte),
                _ => {}
            }
        }
    }

    fn end_line(&mut self) {
        let line = String::from_utf8_lossy(&self.line).trim_end().to_owned();
        self.line.clear();
        if line.is_empty() {
            return;
        }
        if let Some((done, total)) = counted(&line) {
            if let Some(progress) = self.progress {
                progress(done, Some(total));
            }
            return;
        }
        if self.kept.len() == LINES_KEPT {
            self.kept.pop_front();
        }
        let line: String = line.chars().filter(|c| !c.is_control()).collect();
        self.kept.push_back(self.redactor.redact(&line));
    }

    fn finish(mut self) -> Vec<String> {
        self.end_line();
        self.kept.into()
    }
}

/// `Receiving objects:  45% (123/456), 1.2 MiB` and its like.
fn counted(line: &str) -> Option<(u64, u64)> {
    let (_, rest) = line.split_once("% (")?;
    let (count, _) = rest.split_once(')')?;
    let (done, total) = count.split_once('/')?;
    Some((done.parse().ok()?, total.parse().ok()?))
}

/// An end that is git's own doing and not a caller's mistake: by a signal, most of all.
pub(crate) fn killed(ended: &Ended) -> Option<ProviderError> {
    ended
        .code
        .is_none()
        .then(|| ProviderError::transient(ErrorKind::Io, "git was ended by a signal"))
}

#[cfg(test)]
mod tests {
    use super::{Lines, counted};
    use alpine_provider_api::{Redactor, Secret};
    use std::sync::Mutex;

    #[test]
    fn progress_is_told_and_lines_are_kept() {
        let secret = Secret::new("hunter2hunter2".to_owned());
        let redactor = Redactor::new([&secret]);
        let seen = Mutex::new(Vec::new());
        let tell = |done, total| seen.lock().unwrap().push((done, total));
        let mut lines = Lines::new(&redactor, Some(&tell));
        for chunk in [
            &b"remote: Counting objects: 50% (1/2)\rrem"[..],
            b"ote: Counting objects: 100% (2/2), done.\nfatal: no \x1b[31m",
            b"hunter2hunter2",
        ] {
            lines.push(chunk);
        }
        assert_eq!(lines.finish(), ["fatal: no [31m[redacted]"]);
        assert_eq!(*seen.lock().unwrap(), [(1, Some(2)), (2, Some(2))]);
        assert_eq!(counted("100% (x/2)"), None);
    }
}
