//! Each invariant can be broken, and the judge says which one was: a stage on which all is well is falsified behind the
//! program's back.

use super::hosted::Fake;
use super::invariants::{self, Answers, READ};
use super::plan::{Operation, Scene, Stand};
use super::reader::{Read, Readers};
use super::stage::{SECRETS, Stage, session_id};
use crate::support::{Running, wait_until};
use alpine_ledger::{Acquired, Action, ErrorRecord, Ledger, LedgerError, Options, State, Tx};
use rustix::process::Signal;
use std::fs;
use std::sync::Arc;
use std::time::Instant;

/// A session on which all is well, and what was said of it.
struct Well {
    stage: Stage,
    answers: Answers,
    reads: Vec<Read>,
}

impl Well {
    /// Brought up, or down again after that; the agent has worked, and somebody has looked.
    fn after(operation: Operation) -> Self {
        let stand = if operation == Operation::Up {
            Stand::Nothing
        } else {
            Stand::Ready
        };
        let mut stage = Stage::new(&Scene::new(&Fake::CompiledIn, operation, stand));
        let session = session_id();
        let looks = [vec!["list"], vec!["status", session.as_str()]];
        let first = stage.run(operation);
        stage.work();
        let readers = Readers::start(looks.map(|look| stage.command(&look)).into());
        let answers = Answers {
            struck: Some(first),
            retried: stage.run(operation),
            again: stage.run(operation),
        };
        let mut well = Self {
            stage,
            answers,
            reads: readers.end(),
        };
        assert_eq!(well.broken(), [""; 0]);
        well
    }

    /// The names of the invariants that do not hold.
    fn broken(&mut self) -> Vec<String> {
        let mut problems = invariants::broken(&mut self.stage, &self.answers, &self.reads);
        problems.extend(invariants::late(&self.reads));
        let names = problems
            .iter()
            .filter_map(|problem| problem.split_once(": "));
        names
            .map(|(name, _)| name.to_owned())
            .filter(|name| name.starts_with('I'))
            .collect()
    }

    /// The sandbox of the session, and the path of what its agent has written.
    fn work(&self) -> (String, String) {
        let work = self.stage.works.first().expect("a piece of work");
        (work.sandbox.clone(), work.path.clone())
    }

    /// Writes to the ledger what the program never would.
    fn write<T>(&self, change: impl Fn(&mut Tx<'_>) -> Result<T, LedgerError>) -> T {
        let options = Options {
            clock: Arc::new(self.stage.env.clock().clone()),
            ..Options::new()
        };
        let path = self.stage.env.alpine_home().join("ledger.redb");
        let ledger = Ledger::open(&path, options).expect("a ledger");
        ledger.write(change).expect("a write")
    }

    /// Takes the session's lease for a `down`, and goes on to a state.
    fn begin_down(&self, states: &'static [State]) -> Acquired {
        self.write(|tx| {
            let taken = tx.acquire(&session_id(), Action::Down, "tester", &nothing())?;
            if let Acquired::Run(grant) = &taken {
                for state in states {
                    tx.transition(&grant.token, *state, "falsified", |_| {})?;
                }
            }
            Ok(taken)
        })
    }
}

/// No operation is open that this would end.
fn nothing() -> ErrorRecord {
    ErrorRecord {
        error_code: String::new(),
        cause: String::new(),
        next_step: String::new(),
        retryable: false,
        operation_id: None,
        exit_code: 0,
    }
}

#[test]
fn a_transient_state_without_a_holder_breaks_the_first() {
    let mut well = Well::after(Operation::Up);
    // Whoever took the lease is gone.
    drop(well.begin_down(&[State::Stopping]));
    assert_eq!(well.broken(), ["I1"]);
}

#[test]
fn an_open_operation_in_a_state_that_may_last_breaks_the_first() {
    let mut well = Well::after(Operation::Up);
    drop(well.begin_down(&[State::Stopping, State::CloseFailed]));
    assert_eq!(well.broken(), ["I1"]);
}

#[test]
fn a_sandbox_too_many_breaks_the_second() {
    for operation in [Operation::Up, Operation::Down] {
        let mut well = Well::after(operation);
        well.stage.appear("sbx_extra", "ses_unknown");
        assert_eq!(well.broken(), ["I2"], "{operation:?}");
    }
}

#[test]
fn a_sandbox_too_few_breaks_the_second() {
    let mut well = Well::after(Operation::Up);
    let (sandbox, _) = well.work();
    well.stage.works.clear();
    well.stage.env.fake().lose_sandbox(&sandbox);
    assert_eq!(well.broken(), ["I2"]);
}

#[test]
fn a_byte_that_is_missing_in_a_workspace_breaks_the_third() {
    let mut well = Well::after(Operation::Up);
    let (sandbox, path) = well.work();
    let mut bytes = well.stage.works[0].bytes.clone();
    bytes.pop();
    let fake = well.stage.env.fake();
    fake.workspace_write(&sandbox, &path, &bytes);
    assert_eq!(well.broken(), ["I3"]);
}

#[test]
fn a_byte_that_is_another_in_an_object_breaks_the_third() {
    let mut well = Well::after(Operation::Down);
    let fake = well.stage.env.fake();
    fake.corrupt_object(&fake.objects()[0].id);
    assert_eq!(well.broken(), ["I3"]);
}

#[test]
fn another_outcome_in_the_ledger_breaks_the_fourth() {
    let mut well = Well::after(Operation::Up);
    well.write(|tx| {
        let version = tx.session(&session_id())?.expect("it").version;
        tx.compare_and_swap(&session_id(), version, |session| {
            session.opencode_url = Some("http://127.0.0.1:1/another".to_owned());
        })
    });
    well.answers.again = well.stage.run(Operation::Up);
    assert_eq!(well.broken(), ["I4"]);
}

#[test]
fn another_first_answer_breaks_the_fourth() {
    let mut well = Well::after(Operation::Down);
    let up = Well::after(Operation::Up);
    well.answers.struck = up.answers.struck;
    assert_eq!(well.broken(), ["I4"]);
}

#[test]
fn a_reader_that_is_late_breaks_the_fifth() {
    let mut well = Well::after(Operation::Up);
    let begun = Instant::now();
    let reader = Running::start(well.stage.command(&["list"]));
    reader.signal(Signal::STOP);
    wait_until("its time to pass", || begun.elapsed() > READ);
    reader.signal(Signal::CONT);
    let output = reader.wait();
    let took = begun.elapsed();
    well.reads.push(Read { output, took });
    assert_eq!(well.broken(), ["I5"]);
}

#[test]
fn an_answer_that_is_none_breaks_the_fifth() {
    let falsify: [fn(&mut String); 3] = [
        |text| text.truncate(text.len() / 2),
        |text| *text = text.replace("\"v1\"", "\"v0\""),
        |text| *text = "{\"schema_version\":\"v1\"}\n".to_owned(),
    ];
    for falsify in falsify {
        let mut well = Well::after(Operation::Up);
        falsify(&mut well.reads[0].output.stdout);
        assert_eq!(well.broken(), ["I5"]);
    }
}

#[test]
fn a_session_that_is_forgotten_breaks_the_fifth() {
    let mut well = Well::after(Operation::Up);
    let output = Running::start(well.stage.command(&["status", "ses_0000"])).wait();
    let took = well.reads[0].took;
    well.reads.push(Read { output, took });
    assert_eq!(well.broken(), ["I5"]);
}

#[test]
fn a_secret_in_a_log_breaks_the_sixth() {
    let mut well = Well::after(Operation::Up);
    let logs = well.stage.env.alpine_home().join("logs");
    fs::create_dir_all(&logs).expect("a directory");
    fs::write(logs.join("log"), format!("token={}\n", SECRETS[0])).expect("a log");
    assert_eq!(well.broken(), ["I6"]);
}

#[test]
fn a_secret_that_was_said_breaks_the_sixth() {
    let mut well = Well::after(Operation::Up);
    let said = well.stage.said.last_mut().expect("an answer");
    said.stderr.push_str(SECRETS[1]);
    assert_eq!(well.broken(), ["I6"]);
}
