//! Shows how an operation goes: a line per step on a terminal, plain lines elsewhere, nothing with `--json`.

use crate::clean;
use crate::output::{Output, Stream, is_terminal};
use crate::time;
use alpine_lifecycle::{Ending, Progress, Step, Watch};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::sync::mpsc as channel;
use std::time::Duration;
use tokio::sync::mpsc;

/// How long the last news may take to arrive.
const LAST_NEWS: Duration = Duration::from_millis(500);

/// The thread that shows progress.
#[derive(Debug)]
pub(crate) struct Display {
    warnings: channel::Receiver<Vec<String>>,
}

impl Display {
    /// Starts to show what is told to the watch.
    pub(crate) fn start(output: &Output) -> (Watch, Self) {
        let (sender, mut news) = mpsc::unbounded_channel();
        let (done, warnings) = channel::channel();
        let mut lines = Lines::new(output.clone());
        let thread = std::thread::Builder::new().name("progress".to_owned());
        let spawned = thread.spawn(move || {
            while let Some(progress) = news.blocking_recv() {
                lines.show(progress);
            }
            lines.end();
            // A command that did not wait wants no warnings.
            let _ = done.send(lines.warnings);
        });
        // Without a thread there is no progress to be seen, and no other harm.
        drop(spawned);
        (Watch::new(sender), Self { warnings })
    }

    /// Waits until all was shown, and gives the warnings that were.
    pub(crate) fn finish(self) -> Vec<String> {
        self.warnings.recv_timeout(LAST_NEWS).unwrap_or_default()
    }
}

struct Lines {
    output: Output,
    bar: Option<ProgressBar>,
    warnings: Vec<String>,
}

impl Lines {
    fn new(output: Output) -> Self {
        Self {
            output,
            bar: None,
            warnings: Vec::new(),
        }
    }

    fn show(&mut self, progress: Progress) {
        match progress {
            Progress::Admitted { session_id, .. } => self.say(&format!("session {session_id}")),
            Progress::Waiting { operation_id } => self.say(&format!(
                "waiting for operation {operation_id} of another process"
            )),
            Progress::Busy { cause } => self.say(&format!("trying again: {cause}")),
            Progress::Started(step) => self.begin(step),
            Progress::Moved {
                what, done, total, ..
            } => self.moved(&what, done, total),
            Progress::Retrying { step, cause } => {
                self.say(&format!("{step}: trying again: {cause}"))
            }
            Progress::Finished { step, took, ending } => self.finished(step, took, ending),
            Progress::Warning(text) => self.warn(text),
        }
    }

    fn say(&self, text: &str) {
        if self.output.json {
            return;
        }
        self.aside(|| self.output.note(text));
    }

    /// With `--json` the command itself says what to do with warnings.
    fn warn(&mut self, text: String) {
        if !self.output.json {
            self.aside(|| self.output.warning(&text));
        }
        self.warnings.push(text);
    }

    /// Prints without disturbing the spinner.
    fn aside(&self, print: impl FnOnce()) {
        match &self.bar {
            Some(bar) => bar.suspend(print),
            None => print(),
        }
    }

    fn begin(&mut self, step: Step) {
        if self.output.json || !is_terminal(Stream::Stderr) {
            return;
        }
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        if let Ok(style) = ProgressStyle::with_template("{spinner} {prefix:<12} {msg}") {
            bar.set_style(style);
        }
        bar.set_prefix(step.as_str());
        bar.enable_steady_tick(Duration::from_millis(100));
        self.bar = Some(bar);
    }

    fn moved(&self, what: &str, done: u64, total: Option<u64>) {
        let Some(bar) = &self.bar else { return };
        let amount = match total {
            Some(total) => format!("{} of {}", time::bytes(done), time::bytes(total)),
            None => time::bytes(done),
        };
        bar.set_message(format!("{} {amount}", clean::line(what)));
    }

    fn finished(&mut self, step: Step, took: Duration, ending: Ending) {
        self.end();
        if self.output.json {
            return;
        }
        let (mark, colour, word) = match ending {
            Ending::Done => ("✓", "32", "done in"),
            Ending::Failed => ("✗", "31", "failed in"),
            Ending::Interrupted => ("✗", "33", "interrupted after"),
            Ending::TimedOut => ("✗", "33", "timed out after"),
        };
        let took = time::span(took);
        if is_terminal(Stream::Stderr) {
            let took = match ending {
                Ending::Done => took,
                Ending::Failed | Ending::Interrupted | Ending::TimedOut => format!("{word} {took}"),
            };
            let text = format!("{:<12} {took}", step.as_str());
            self.output
                .step(&self.output.painted(Stream::Stderr, colour, mark), &text);
        } else {
            self.output.note(&format!("{step}: {word} {took}"));
        }
    }

    fn end(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}
