//! The local provider is killed at any moment, so in its calls and not between them only: real processes, git, and an agent.
//!
//! `ALPINE_KILLS` is how many rounds are played; by default it is as many as a little time has room for.
//! `ALPINE_MATRIX_SEED` draws others.

use super::in_parallel;
use super::invariants::{self, Answers};
use super::local::Place;
use super::reader::Readers;
use super::stage::{SECRETS, ledger, session_id};
use crate::local::program::Program;
use crate::support::{Running, with_json};
use alpine_testkit::Output;
use rustix::process::{Pid, Signal, kill_process};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

/// An agent whose first act is a piece of work. Where somebody else on this machine has just taken its port, it waits.
const CONFIG: &str = "[agents.worker]\nargv = ['python3', '-c', '''
import http.server, sys, time
with open('work', 'w') as file:
    file.write('done')
while True:
    try:
        server = http.server.HTTPServer(('127.0.0.1', int(sys.argv[1])), http.server.SimpleHTTPRequestHandler)
        break
    except OSError:
        time.sleep(0.1)
server.serve_forever()
''', '{port}']
env_pass = ['AGENT_KEY']
";

/// How many rounds are begun at most by default, and for how long.
const ROUNDS: u64 = 36;
const TIME: Duration = Duration::from_secs(18);

/// What is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Struck {
    Up,
    Down,
}

/// A moment in a run: which command, when, and whether the sandbox's supervisor dies too.
#[derive(Clone, Copy, Debug)]
struct Moment {
    seed: u64,
    round: u64,
    struck: Struck,
    delay: Duration,
    supervisor: bool,
}

impl Moment {
    /// Drawn from as long as the command takes when nobody kills it, or a few times as long: others run at the same time.
    fn draw(seed: u64, round: u64, spans: [Duration; 2]) -> Self {
        let draw = |what: &str| {
            let mut hasher = DefaultHasher::new();
            (seed, round, what).hash(&mut hasher);
            u32::try_from(hasher.finish() % 1000).expect("a small number")
        };
        let (struck, span) = match round % 2 {
            0 => (Struck::Up, spans[0]),
            _ => (Struck::Down, spans[1]),
        };
        Self {
            seed,
            round,
            struck,
            delay: span * (1 + draw("load") % 4) * draw("delay") / 1000,
            supervisor: draw("supervisor") < 333,
        }
    }
}

/// Says which moment it was, should the test fail in it.
struct Said(Moment);

impl Drop for Said {
    fn drop(&mut self) {
        if thread::panicking() {
            let Moment { seed, round, .. } = self.0;
            eprintln!("ALPINE_MATRIX_SEED={seed}, round {round}: {:?}", self.0);
        }
    }
}

fn place() -> Place {
    let program = Program::new()
        .with("GITHUB_TOKEN", SECRETS[0])
        .with("AGENT_KEY", SECRETS[1]);
    Place::of(program, CONFIG)
}

fn command(place: &Place, struck: Struck) -> Command {
    let arguments = match struck {
        Struck::Up => place.up(),
        Struck::Down => vec!["down", "it"],
    };
    place.program.command(&with_json(&arguments))
}

fn run(place: &Place, struck: Struck) -> Output {
    place.program.run_it(&mut command(place, struck))
}

/// How long each command takes.
fn spans() -> [Duration; 2] {
    let place = place();
    let span = |struck| {
        let begun = Instant::now();
        let output = run(&place, struck);
        assert_eq!(output.code(), Some(0), "{output:#?}");
        begun.elapsed()
    };
    [span(Struck::Up), span(Struck::Down)]
}

/// Kills it, if it runs still at that moment. Says whether it did.
fn strike(place: &Place, moment: Moment) -> bool {
    let mut running = Running::start(command(place, moment.struck));
    thread::park_timeout(moment.delay);
    let is_struck = !running.has_ended();
    running.kill_if_it_runs();
    if is_struck && moment.supervisor {
        let processes = place.program.env.processes().into_iter();
        for process in processes.filter(|process| process.command.starts_with("alpine-shim")) {
            let pid = i32::try_from(process.pid).ok().and_then(Pid::from_raw);
            // One that ends by itself meanwhile can't be killed any more.
            let _gone = kill_process(pid.expect("a pid"), Signal::KILL);
        }
    }
    is_struck
}

/// Strikes, lets alpine recover, tries again, and looks. Says whether anything was struck.
fn play(moment: Moment) -> bool {
    let said = Said(moment);
    let place = place();
    if moment.struck == Struck::Down {
        let up = run(&place, Struck::Up);
        assert_eq!(up.code(), Some(0), "{up:#?}");
    }
    let looks = [vec!["list"], vec!["status", "it"]];
    let looks = looks.map(|look| place.program.command(&with_json(&look)));
    let readers = Readers::start(looks.into());
    let is_struck = strike(&place, moment);
    place.reconcile();
    let reads = readers.end();
    let retried = run(&place, moment.struck);
    assert_eq!(retried.code(), Some(0), "{retried:#?}");
    let answers = Answers {
        struck: None,
        again: run(&place, moment.struck),
        retried,
    };
    let env = &place.program.env;
    let session = ledger(env, |snapshot| snapshot.session(&session_id())).1;
    let said_by_all = place.program.said();
    let read = reads.iter().map(|read| read.output.stdout.as_str());
    let texts = said_by_all.iter().map(String::as_str).chain(read);
    let checks = [
        invariants::nothing_is_stuck(env, session.as_ref()),
        invariants::answers_are_one(&answers),
        invariants::reads_answer(&reads),
        invariants::no_secret_is_told(texts, env.root()),
    ];
    for check in checks {
        assert_eq!(check, Ok(()));
    }
    // No byte is lost, and nothing is left.
    place.is_down_with_its_work();
    drop(said);
    is_struck
}

#[test]
fn the_local_provider_is_killed_at_any_moment() {
    let seed = super::seed();
    let asked = std::env::var("ALPINE_KILLS").ok();
    let rounds = asked.as_ref().map(|text| text.parse().expect("a number"));
    let spans = spans();
    let moments: Vec<Moment> = (0..rounds.unwrap_or(ROUNDS))
        .map(|round| Moment::draw(seed, round, spans))
        .collect();
    let begun = Instant::now();
    let played = in_parallel(&moments, |moment| {
        let has_time = rounds.is_some() || begun.elapsed() < TIME;
        has_time.then(|| play(*moment))
    });
    let played: Vec<bool> = played.into_iter().flatten().collect();
    let struck = played.iter().filter(|struck| **struck).count();
    println!(
        "{struck} of {} commands were killed, seed {seed}, drawn from {spans:.0?}, in {:.0?}",
        played.len(),
        begun.elapsed()
    );
    assert!(struck > 0, "seed {seed}: none of {played:?}");
}
