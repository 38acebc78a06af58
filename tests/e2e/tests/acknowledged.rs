//! The program is killed after each thing that it says it has recorded: all of it is in the ledger.

use crate::support::{World, text, with_json};
use alpine_ledger::{SessionId, State};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read};
use std::process::Stdio;

/// What a program acknowledged before it was killed.
#[derive(Debug)]
struct Told {
    /// The states that it said were entered, in order.
    states: Vec<State>,
    /// Its result, if it came to one.
    result: Option<Value>,
    /// Whether it had ended before it was killed.
    ended: bool,
}

/// Runs the program, and kills it once it has acknowledged so many states. The pipe it says so on is read to its end.
fn killed_after(world: &World, arguments: &[&str], count: usize) -> Told {
    let mut command = world.command(&with_json(arguments));
    command
        .env("ALPINE_LOG", "alpine_lifecycle=info")
        .env("ALPINE_LOG_FORMAT", "json")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().expect("the program");
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let stderr = BufReader::new(child.stderr.take().expect("its log"));
    let mut told = Told {
        states: Vec::new(),
        result: None,
        ended: false,
    };
    for line in stderr.lines() {
        let line = line.expect("a line of its log");
        // The last line may be cut where the kill struck; that acknowledges nothing.
        let Ok(event) = serde_json::from_str::<Value>(&line) else {
            continue;
        };
        let fields = &event["fields"];
        if fields["message"] != "transition" {
            continue;
        }
        let state = fields["state"].as_str().and_then(State::parse);
        told.states.push(state.expect("a state"));
        if told.states.len() == count {
            // It may have ended by itself.
            let _gone = kill_process(pid.expect("a process"), Signal::KILL);
        }
    }
    let mut stdout = String::new();
    let mut pipe = child.stdout.take().expect("its output");
    pipe.read_to_string(&mut stdout).expect("its output");
    told.ended = child.wait().expect("its end").success();
    told.result = stdout
        .ends_with('\n')
        .then(|| serde_json::from_str(&stdout).expect("one document"));
    told
}

/// Whether all that was acknowledged is recorded; a state that was not acknowledged any more may be, too.
#[track_caller]
fn assert_recorded(world: &World, session: &SessionId, before: usize, told: &Told) {
    let recorded: Vec<State> = world
        .ledger(|snapshot| snapshot.transitions(session))
        .iter()
        .skip(before)
        .map(|transition| transition.state)
        .collect();
    // The first one of a `down` goes with its admission, and is not told of by itself.
    let mut after = recorded.iter();
    for state in &told.states {
        let found = after.any(|recorded| recorded == state);
        assert!(found, "{state}: {told:?}, recorded: {recorded:?}");
    }
    if let Some(result) = &told.result {
        let state = world
            .ledger(|snapshot| snapshot.session(session))
            .expect("the session")
            .state;
        assert_eq!(text(result, "state"), state.as_str(), "{told:?}");
    }
    let seqs = world.ledger(|snapshot| snapshot.events_after(0, usize::MAX));
    assert!((1..).zip(&seqs).all(|(number, event)| event.seq == number));
}

#[test]
fn what_the_program_acknowledged_is_recorded_whenever_it_is_killed() {
    let world = World::new();
    let mut seen = BTreeSet::new();
    let mut killed = 0;
    for round in 0..24 {
        let id = format!("killed-{round}");
        let session = SessionId::derive("tester", &id);
        let told = killed_after(&world, &world.up(&id), round % 3 + 1);
        killed += u32::from(!told.ended);
        seen.insert(told.states.len());
        // A session begins in its first state, which is no transition that the engine tells of.
        assert_recorded(&world, &session, 1, &told);
        // The same request carries on, and a `down` is killed likewise until one gets through.
        let up = world.done(&world.up(&id));
        assert_eq!(up["state"], "ready", "{up:#}");
        let before = world
            .ledger(|snapshot| snapshot.transitions(&session))
            .len();
        let down = ["down", session.as_str()];
        let told = killed_after(&world, &down, round % 2 + 1);
        killed += u32::from(!told.ended);
        assert_recorded(&world, &session, before, &told);
        assert_eq!(world.done(&down)["state"], "stopped");
    }
    assert!(
        seen.len() >= 3,
        "it was killed in different places: {seen:?}"
    );
    assert!(killed >= 24, "{killed}");
    world.assert_nothing_left();
}
