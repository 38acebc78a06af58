//! The only place that prints.

use crate::view::{FailureDocument, VERSION};
use crate::{clean, ended, table};
use alpine_lifecycle::Failure;
use alpine_provider_api::{Redactor, StreamRedactor};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, fcntl_dupfd_cloexec};
use rustix::stdio::dup2_stdout;
use serde::Serialize;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::sync::OnceLock;
use std::time::Duration;

/// Where results, news and failures go, and in which form.
#[derive(Clone, Debug)]
pub(crate) struct Output {
    /// Whether results are JSON.
    pub(crate) json: bool,
    /// Whether colours are wanted.
    colour: bool,
    /// Takes secrets out of free text.
    pub(crate) redactor: Redactor,
    /// How this program is called.
    pub(crate) program: String,
}

/// A stream of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stream {
    /// Results.
    Stdout,
    /// All else.
    Stderr,
}

impl Output {
    /// Colours are for terminals whose user did not say no.
    pub(crate) fn new(json: bool, no_colour: bool, redactor: Redactor) -> Self {
        Self {
            json,
            colour: !no_colour && !json,
            redactor,
            program: "alpine".to_owned(),
        }
    }

    /// A command for a person to paste: with the name under which this very program is found.
    pub(crate) fn command(&self, command: &str) -> String {
        match command.strip_prefix("alpine ") {
            Some(rest) => format!("{} {rest}", self.program),
            None => command.to_owned(),
        }
    }

    /// One JSON document.
    pub(crate) fn document<T: Serialize>(&self, document: &T) {
        // Structs of text, numbers and JSON values have no way to fail here.
        let text = serde_json::to_string(document).unwrap_or_default();
        write(Stream::Stdout, format!("{text}\n").as_bytes());
    }

    /// A result for people: its secrets are meant to be seen, and nothing in it acts on the terminal.
    pub(crate) fn text(&self, text: &str) {
        write(
            Stream::Stdout,
            format!("{}\n", clean::lines(text)).as_bytes(),
        );
    }

    /// A result byte for byte, for example a script.
    pub(crate) fn raw(&self, bytes: &[u8]) {
        write(Stream::Stdout, bytes);
    }

    /// A line of a stream: JSON, or its form for people. Whether somebody still reads it.
    pub(crate) fn line<T: Serialize>(&self, document: &T, told: impl FnOnce() -> String) -> bool {
        let line = if self.json {
            serde_json::to_string(document).unwrap_or_default()
        } else {
            told()
        };
        write(Stream::Stdout, format!("{line}\n").as_bytes())
    }

    /// News, for people.
    pub(crate) fn note(&self, text: &str) {
        write(
            Stream::Stderr,
            format!("{}\n", clean::lines(&self.redactor.redact(text))).as_bytes(),
        );
    }

    /// A step that has ended, for people: its mark may bear a colour.
    pub(crate) fn step(&self, mark: &str, text: &str) {
        write(
            Stream::Stderr,
            format!("{mark} {}\n", clean::line(text)).as_bytes(),
        );
    }

    /// A warning, for people.
    pub(crate) fn warning(&self, text: &str) {
        let word = self.painted(Stream::Stderr, "33", "warning:");
        let text = clean::lines(&self.redactor.redact(text)).replace('\n', "\n  ");
        write(Stream::Stderr, format!("{word} {text}\n").as_bytes());
    }

    /// A failure, on the stream that its reader looks at.
    pub(crate) fn failure(&self, failure: &Failure, stream: Stream) {
        if self.json {
            let document = FailureDocument::new(failure, &self.redactor);
            let text = serde_json::to_string(&document).unwrap_or_default();
            write(stream, format!("{text}\n").as_bytes());
            return;
        }
        let (error, hint) = (
            self.painted(Stream::Stderr, "1;31", "error:"),
            self.painted(Stream::Stderr, "1;36", "hint:"),
        );
        write(Stream::Stderr, self.told(failure, &error, &hint).as_bytes());
    }

    fn told(&self, failure: &Failure, error: &str, hint: &str) -> String {
        let cause = clean::lines(&self.redactor.redact(&failure.cause));
        let mut lines = cause.lines();
        let first = lines.next().unwrap_or_default();
        let code = clean::line(failure.code_name());
        let mut text = format!("{error} {first} ({code})\n");
        for line in lines {
            // Strings take every write.
            let _ = writeln!(text, "  {}", line.trim_start());
        }
        if let Some(operation) = &failure.operation_id {
            let _ = writeln!(text, "  operation: {operation}");
        }
        text.push_str(match (failure.retryable, failure.settled) {
            (true, false) => "  the same command may succeed when it is run again\n",
            (true, true) => "  it may succeed when it is tried anew\n",
            (false, _) => "",
        });
        if !failure.next_step.is_empty() {
            let next = clean::lines(&self.redactor.redact(&failure.next_step));
            let _ = writeln!(text, "{hint} {}", self.command(&next));
        }
        text
    }

    /// The text in a colour, where the stream is a terminal that shows colours.
    pub(crate) fn painted(&self, stream: Stream, colour: &str, text: &str) -> String {
        if self.colour && is_terminal(stream) {
            format!("\u{1b}[{colour}m{text}\u{1b}[0m")
        } else {
            text.to_owned()
        }
    }

    /// A table for people.
    pub(crate) fn table(&self, header: &[&str], rows: Vec<Vec<String>>) {
        let clean = |cell: &String| clean::line(&self.redactor.redact(cell));
        let mut all = vec![header.iter().map(|name| (*name).to_owned()).collect()];
        all.extend(rows.iter().map(|row| row.iter().map(clean).collect()));
        write(Stream::Stdout, table::text(&all).as_bytes());
    }
}

/// Standard output, once descriptor 1 is for others; nothing where it could not be given away.
static OWN: OnceLock<Option<File>> = OnceLock::new();

fn own() -> Option<&'static File> {
    OWN.get().and_then(Option::as_ref)
}

/// From now on standard output is for results alone: what others in this process print goes to standard error.
pub(crate) fn keep_standard_output() {
    OWN.get_or_init(|| {
        let own = fcntl_dupfd_cloexec(io::stdout(), 0).ok()?;
        dup2_stdout(io::stderr()).ok()?;
        Some(File::from(own))
    });
}

/// Whether a stream is a terminal.
pub(crate) fn is_terminal(stream: Stream) -> bool {
    match stream {
        Stream::Stdout => own().map_or_else(|| io::stdout().is_terminal(), File::is_terminal),
        Stream::Stderr => io::stderr().is_terminal(),
    }
}

/// The exit status when a result could not be written.
const UNWRITTEN: u8 = 2;

/// Writes and flushes. Whether somebody still reads it.
///
/// A reader that has gone wants no more, and that is no failure. A result that can't be written for another reason (a full
/// disk) must not look like success: the program ends here, and says why.
pub(crate) fn write(stream: Stream, bytes: &[u8]) -> bool {
    let written = match stream {
        Stream::Stdout => match own() {
            Some(mut own) => own.write_all(bytes),
            None => {
                let mut out = io::stdout().lock();
                out.write_all(bytes).and_then(|()| out.flush())
            }
        },
        Stream::Stderr => io::stderr().lock().write_all(bytes),
    };
    match written {
        Ok(()) => true,
        Err(error) if stream == Stream::Stdout && error.kind() != io::ErrorKind::BrokenPipe => {
            write(
                Stream::Stderr,
                format!("error: standard output can't be written: {error}\n").as_bytes(),
            );
            ended::exit(UNWRITTEN)
        }
        Err(_) => false,
    }
}

/// Waits for a while, unless the reader of standard output has gone. Whether somebody still reads it.
pub(crate) fn wait_while_read(span: Duration) -> bool {
    let stdout = io::stdout();
    let read = own().map_or_else(|| stdout.as_fd(), File::as_fd);
    let mut watched = [PollFd::from_borrowed_fd(read, PollFlags::empty())];
    let until = Timespec {
        tv_sec: i64::try_from(span.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: span.subsec_nanos().into(),
    };
    match poll(&mut watched, Some(&until)) {
        Ok(gone) => gone == 0,
        Err(Errno::INTR) => true,
        Err(_) => {
            std::thread::sleep(span);
            true
        }
    }
}

/// In which form a log is written.
#[derive(Debug)]
enum LogForm {
    /// Byte for byte.
    Bytes,
    /// Lines in which nothing acts on the terminal.
    Clean,
    /// A JSON document for each line, as it comes.
    Lines,
    /// One JSON document of all lines, once the log has ended.
    Whole(Vec<String>),
}

/// Writes a log to standard output, in the form that its reader wants.
#[derive(Debug)]
pub(crate) struct LogWriter {
    redactor: StreamRedactor,
    form: LogForm,
    held: Vec<u8>,
}

/// A log.
#[derive(Serialize)]
struct LogDocument {
    schema_version: &'static str,
    lines: Vec<String>,
}

/// One line of a log that is followed.
#[derive(Serialize)]
struct LogLine<'a> {
    schema_version: &'static str,
    line: &'a str,
}

impl LogWriter {
    /// On a terminal nothing of the log acts on it; elsewhere its bytes stay as they are.
    pub(crate) fn new(output: &Output, follow: bool) -> Self {
        let form = match (output.json, follow) {
            (true, true) => LogForm::Lines,
            (true, false) => LogForm::Whole(Vec::new()),
            (false, _) if is_terminal(Stream::Stdout) => LogForm::Clean,
            (false, _) => LogForm::Bytes,
        };
        Self {
            redactor: StreamRedactor::new(output.redactor.clone()),
            form,
            held: Vec::new(),
        }
    }

    /// Takes a piece. Whether somebody still reads it.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> bool {
        let safe = self.redactor.push(bytes);
        write(Stream::Stdout, &self.shown(&safe, false))
    }

    /// The log has ended; one that was cut short is no document, since a failure will be.
    pub(crate) fn finish(mut self, whole: bool) {
        let safe = self.redactor.finish();
        write(Stream::Stdout, &self.shown(&safe, true));
        if whole {
            write(Stream::Stdout, &self.document());
        }
    }

    /// The document of a log that is one.
    fn document(self) -> Vec<u8> {
        let LogForm::Whole(lines) = self.form else {
            return Vec::new();
        };
        let document = LogDocument {
            schema_version: VERSION,
            lines,
        };
        format!("{}\n", serde_json::to_string(&document).unwrap_or_default()).into_bytes()
    }

    /// What is to be written of it now.
    fn shown(&mut self, bytes: &[u8], last: bool) -> Vec<u8> {
        if matches!(self.form, LogForm::Bytes) {
            return bytes.to_vec();
        }
        self.held.extend_from_slice(bytes);
        let end = match self.held.iter().rposition(|&byte| byte == b'\n') {
            _ if last => self.held.len(),
            Some(end) => end + 1,
            None => 0,
        };
        let whole: Vec<u8> = self.held.drain(..end).collect();
        let text = String::from_utf8_lossy(&whole);
        let shown: String = text.lines().map(|line| self.line(line)).collect();
        shown.into_bytes()
    }

    fn line(&mut self, line: &str) -> String {
        match &mut self.form {
            LogForm::Bytes => format!("{line}\n"),
            LogForm::Clean => format!("{}\n", clean::line(line)),
            LogForm::Lines => {
                let line = LogLine {
                    schema_version: VERSION,
                    line,
                };
                format!("{}\n", serde_json::to_string(&line).unwrap_or_default())
            }
            LogForm::Whole(lines) => {
                lines.push(line.to_owned());
                String::new()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{LogForm, LogWriter, Output};
    use alpine_lifecycle::{ErrorCode, Failure};
    use alpine_provider_api::{Redactor, Secret};
    use expect_test::expect;

    #[test]
    fn failures_for_people() {
        let secret = Secret::new("hunter2hunter2".to_owned());
        let output = Output::new(false, true, Redactor::new([&secret]));
        let failure = Failure {
            operation_id: Some("op_1".to_owned()),
            ..Failure::new(
                ErrorCode::RepoUnreachable,
                "resolve: no \u{1b}[31mroute with hunter2hunter2; the log:\n  one\n  two",
            )
            .next("alpine up x")
        };
        let settled = Failure::new(
            ErrorCode::PersistenceVerificationFailed,
            "read_object: not equal",
        )
        .next("alpine down x --retry-persist")
        .settled(true);
        expect![[r#"
            error: resolve: no route with [redacted]; the log: (ERR_REPO_UNREACHABLE)
              one
              two
              operation: op_1
              the same command may succeed when it is run again
            hint: alpine up x
        "#]]
        .assert_eq(&output.told(&failure, "error:", "hint:"));
        // The same command would answer the same.
        expect![[r#"
            error: read_object: not equal (ERR_PERSISTENCE_VERIFICATION_FAILED)
              it may succeed when it is tried anew
            hint: alpine down x --retry-persist
        "#]]
        .assert_eq(&output.told(&settled, "error:", "hint:"));
    }

    fn writer(form: LogForm) -> LogWriter {
        let secret = Secret::new("hunter2hunter2".to_owned());
        LogWriter {
            form,
            ..LogWriter::new(&Output::new(true, true, Redactor::new([&secret])), true)
        }
    }

    #[test]
    fn logs_lose_their_secrets_and_on_a_terminal_their_control_sequences() {
        let log = "one\u{1b}[2J hunter2hunter2\ntwo";
        let through = |mut writer: LogWriter| {
            let mut shown = Vec::new();
            for piece in log.as_bytes().chunks(5) {
                let safe = writer.redactor.push(piece);
                shown.extend(writer.shown(&safe, false));
            }
            let safe = writer.redactor.finish();
            shown.extend(writer.shown(&safe, true));
            shown.extend(writer.document());
            String::from_utf8(shown).unwrap()
        };
        assert_eq!(
            through(writer(LogForm::Bytes)),
            "one\u{1b}[2J [redacted]\ntwo"
        );
        assert_eq!(through(writer(LogForm::Clean)), "one [redacted]\ntwo\n");
        expect![[r#"
            {"schema_version":"v1","line":"one\u001b[2J [redacted]"}
            {"schema_version":"v1","line":"two"}
        "#]]
        .assert_eq(&through(writer(LogForm::Lines)));
        expect![[r#"
            {"schema_version":"v1","lines":["one\u001b[2J [redacted]","two"]}
        "#]]
        .assert_eq(&through(writer(LogForm::Whole(Vec::new()))));
    }
}
