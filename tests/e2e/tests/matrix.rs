//! The crash matrix: every operation, from wherever a session may stand, struck at every commit to the ledger and in every
//! call of the provider. After each blow one `reconcile` and one retry; then six invariants hold.
//!
//! It is played with the fake compiled in, and with the fake as a library in a child process that is killed in every call
//! while the command goes on.
//!
//! Nothing here names a step or a method: an undisturbed run tells how often an operation commits and what it calls. A
//! fixed sample is played by default, and all of it with `ALPINE_MATRIX=all`; `ALPINE_MATRIX=2/8` is the second of eight
//! parts, anything else is a part of the names of the points that are played, and `ALPINE_MATRIX_SEED` draws another sample.

mod breaches;
mod hosted;
mod invariants;
mod local;
mod plan;
mod play;
mod random;
mod reader;
mod report;
mod scenes;
mod stage;
mod stand;

use alpine_lifecycle::Step;
use alpine_provider_api::Method;
use hosted::{Fake, Library};
use plan::Point;
use play::{Played, play};
use scenes::Traced;
use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::num::NonZero;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

/// How many points a matrix has.
#[derive(Clone, Copy, Debug)]
struct Size {
    /// Are played by default.
    sample: usize,
    /// The least that all of it may have.
    least: usize,
}

/// Which part of all points is played.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Sample(u64),
    All,
    /// One of so many parts.
    Of(usize, usize),
    /// Those whose name holds this text.
    Named(String),
}

impl Part {
    fn asked() -> Self {
        match std::env::var("ALPINE_MATRIX").ok().as_deref() {
            None => Part::Sample(seed()),
            Some("all") => Part::All,
            Some(text) => {
                let numbers = text.split_once('/').and_then(|(one, of)| {
                    let one = one.parse::<usize>().ok()?.checked_sub(1)?;
                    Some(Part::Of(one, of.parse().ok()?))
                });
                numbers.unwrap_or_else(|| Part::Named(text.to_owned()))
            }
        }
    }

    /// The points of this part, in an order that spreads the slow ones. A sample has one of each scene.
    fn of(self, mut points: Vec<Point>, sample: usize) -> Vec<Point> {
        let seed = match &self {
            Part::Sample(seed) => *seed,
            Part::All | Part::Of(..) | Part::Named(_) => 0,
        };
        points.sort_by_cached_key(|point| {
            let mut hasher = DefaultHasher::new();
            (seed, point.to_string()).hash(&mut hasher);
            hasher.finish()
        });
        match self {
            Part::Sample(_) => {
                let mut scenes = BTreeSet::new();
                points.sort_by_cached_key(|point| !scenes.insert(point.scene.to_string()));
                points.truncate(sample.max(scenes.len()));
            }
            Part::All => {}
            Part::Named(name) => points.retain(|point| point.to_string().contains(&name)),
            Part::Of(one, of) => {
                points = points.into_iter().skip(one).step_by(of).collect();
            }
        }
        points
    }
}

/// What samples are drawn by.
fn seed() -> u64 {
    let asked = std::env::var("ALPINE_MATRIX_SEED").ok();
    asked.map_or(1, |seed| seed.parse().expect("a seed"))
}

/// Whether tests of many processes are run at their full size.
pub(crate) fn is_whole() -> bool {
    Part::asked() == Part::All
}

/// Does each piece of work once, several at a time: they wait for the disk more than for a processor.
fn in_parallel<T: Sync, R: Send>(work: &[T], each: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let threads = 3 * thread::available_parallelism().map_or(1, NonZero::get);
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..threads.min(work.len()) {
            scope.spawn(|| {
                while let Some(one) = work.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let result = each(one);
                    done.lock().expect("no thread panics").push(result);
                }
            });
        }
    });
    done.into_inner().expect("no thread panics")
}

#[test]
fn crash_matrix() {
    let size = Size {
        sample: 200,
        least: 2_000,
    };
    play_all(&Fake::CompiledIn, size);
}

#[test]
fn crash_matrix_of_a_hosted_provider() {
    let size = Size {
        sample: 80,
        least: 600,
    };
    play_all(&Fake::Hosted(Arc::new(Library::new())), size);
}

fn play_all(fake: &Fake, size: Size) {
    let traced = scenes::traced(fake);
    assert_steps_and_methods_are_struck(&traced);
    let points: Vec<Point> = traced.iter().flat_map(Traced::points).collect();
    assert!(points.len() >= size.least, "only {} points", points.len());
    let part = Part::asked();
    let points = part.of(points, size.sample);
    println!("{} scenes, {} points", traced.len(), points.len());
    let begun = std::time::Instant::now();
    let mut played: Vec<Played> = in_parallel(&points, play);
    // Each limit has to be kept, but not beside all the others.
    let late = played.iter_mut().filter(|played| played.is_only_late());
    let again = late.map(|late| *late = play(&late.point)).count();
    println!("{again} points were late and played again, alone");
    report::tell(fake, &played, begun.elapsed());
    let broken: Vec<String> = played.iter().filter_map(Played::broken).collect();
    assert!(
        broken.is_empty(),
        "{} points:\n{}",
        broken.len(),
        broken.join("\n\n")
    );
}

/// Every step is done by a scene whose calls and commits are struck; every method is called by one, unless no operation does.
fn assert_steps_and_methods_are_struck(scenes: &[Traced]) {
    let steps: BTreeSet<&str> = scenes.iter().flat_map(Traced::steps).collect();
    for step in Step::ALL {
        assert!(
            steps.contains(step.as_str()),
            "no scene does the step `{step}`"
        );
    }
    let methods: BTreeSet<&str> = scenes.iter().flat_map(Traced::methods).collect();
    for method in Method::ALL {
        let name = method.to_string();
        assert!(
            methods.contains(name.as_str()) || is_of_no_operation(method),
            "no scene calls `{name}`"
        );
    }
}

/// A new method has to be named here; one that an operation calls is struck without more.
fn is_of_no_operation(method: Method) -> bool {
    match method {
        Method::Exec | Method::Logs | Method::Restore => true,
        Method::Describe
        | Method::Provision
        | Method::SyncRepo
        | Method::Install
        | Method::StartAgent
        | Method::OpenAgent
        | Method::Inspect
        | Method::List
        | Method::Stop
        | Method::Capture
        | Method::Persist
        | Method::ReadObject
        | Method::Destroy => false,
    }
}
