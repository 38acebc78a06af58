//! Every scene, and what happens in it where nothing strikes: a point is one of these commits or calls, and a blow.

use super::hosted::Fake;
use super::in_parallel;
use super::plan::{Blow, Call, Operation, Place, Point, Scene, Stand, Trouble};
use super::stage::Stage;
use alpine_e2e::commits::Strike;
use alpine_ledger::State;
use alpine_provider_api::ErrorKind;
use alpine_testkit::{Fault, KillPoint};
use std::ops::Range;

/// A scene, and what an undisturbed run of it does.
#[derive(Debug)]
pub(super) struct Traced {
    scene: Scene,
    commits: u64,
    calls: Vec<Call>,
    steps: Vec<String>,
    /// So many commits and calls come before what makes this scene another than one that is struck there.
    known: (u64, usize),
}

impl Traced {
    fn of(scene: &Scene) -> Self {
        let mut stage = Stage::new(scene);
        let before = stage.env.fake().calls().len();
        stage.arm(&scene.troubles, None);
        let output = stage.start(None).wait();
        let has_troubles = !scene.troubles.is_empty();
        let is_expected = match output.code() {
            Some(0) => has_troubles || !scene.fails(),
            Some(_) => has_troubles || scene.fails(),
            None => false,
        };
        assert!(is_expected, "{scene}: {output:#?}");
        stage.join();
        let made = stage.env.fake().calls().split_off(before);
        let is_wrong = |fault: &Fault| matches!(fault, Fault::Error(_) | Fault::Hang);
        let faults = made.iter().filter_map(|call| call.fault.as_ref());
        let troubled = faults.filter(|fault| is_wrong(fault)).count();
        let planned = scene.troubles.len() + usize::from(stage.hung.is_some());
        assert_eq!(troubled, planned, "{scene}: {made:#?}");
        let methods: Vec<String> = made.into_iter().map(|call| call.method).collect();
        let calls = numbered(&methods);
        let known = match (scene.troubles.split_last(), stage.hung) {
            (None, None) => (0, 0),
            // What cancels it calls the provider too.
            (None, Some(commits)) => (commits, calls.len()),
            (Some((last, others)), _) => {
                let at = calls.iter().position(|call| *call == last.call);
                (
                    commits_before(scene, others, &last.call),
                    at.expect("it") + 1,
                )
            }
        };
        Self {
            scene: scene.clone(),
            commits: stage.commits().parse().expect("a number"),
            calls,
            steps: stage.steps(),
            known,
        }
    }

    pub(super) fn steps(&self) -> impl Iterator<Item = &str> {
        self.steps.iter().map(String::as_str)
    }

    pub(super) fn methods(&self) -> impl Iterator<Item = &str> {
        self.calls.iter().map(|call| call.method.as_str())
    }

    /// Every blow at every commit and in every call; where only the provider dies, it dies in every call.
    pub(super) fn points(&self) -> Vec<Point> {
        let at = |place: &Place, blow: Blow| Point {
            scene: self.scene.clone(),
            place: place.clone(),
            blow,
        };
        let (commits, blows): (u64, &[Blow]) = match self.scene.fake {
            Fake::CompiledIn => (self.commits, &Blow::ALL),
            Fake::Hosted(_) => (0, &Blow::KILLS),
        };
        let mut points = Vec::new();
        for number in self.known.0 + 1..=commits {
            let place = Place::Commit(number);
            points.extend(Strike::ALL.map(|strike| at(&place, Blow::Commit(strike))));
        }
        for call in &self.calls[self.known.1..] {
            let place = Place::Call(call.clone());
            let blows = blows.iter().filter(|blow| blow.fault().is_some());
            points.extend(blows.map(|blow| at(&place, *blow)));
        }
        points
    }

    /// The same, where one more call fails: each that is not known from another scene.
    fn failing(&self) -> Vec<Scene> {
        let calls = self.calls[self.known.1..].iter();
        let troubles = calls.flat_map(|call| {
            kinds(call).iter().map(|kind| Trouble {
                call: call.clone(),
                kind: *kind,
            })
        });
        let with = |trouble| Scene {
            troubles: [self.scene.troubles.clone(), vec![trouble]].concat(),
            ..self.scene.clone()
        };
        troubles.map(with).collect()
    }
}

/// How a call may fail for good: a payload that is too large has an end of its own.
fn kinds(call: &Call) -> &'static [ErrorKind] {
    if call.method == "persist" {
        &[ErrorKind::Io, ErrorKind::TooLarge]
    } else {
        &[ErrorKind::Io]
    }
}

/// Each call with the number of those of its method before it.
fn numbered(methods: &[String]) -> Vec<Call> {
    let number = |(index, method): (usize, &String)| {
        let before = methods[..index].iter().filter(|other| *other == method);
        Call {
            method: method.clone(),
            before: u32::try_from(before.count()).expect("few"),
        }
    };
    methods.iter().enumerate().map(number).collect()
}

/// How often a run commits before it makes this call.
fn commits_before(scene: &Scene, troubles: &[Trouble], call: &Call) -> u64 {
    let mut stage = Stage::new(scene);
    let kill = Fault::KillCaller(KillPoint::Before);
    match scene.fake {
        Fake::CompiledIn => stage.arm(troubles, Some((call, kill))),
        // It is not the command that dies; and no commit is struck.
        Fake::Hosted(_) => return 0,
    }
    let output = stage.start(None).wait();
    assert_eq!(output.code(), None, "{scene}: {output:#?}");
    stage.join();
    stage.commits().parse().expect("a number")
}

/// Every operation, from everywhere it may have to begin; and those of which each call fails in turn, and then another one.
pub(super) fn traced(fake: &Fake) -> Vec<Traced> {
    let trace = |scenes: &[Scene]| in_parallel(scenes, Traced::of);
    let starts = Starts::of(fake);
    let mut all = trace(&starts.scenes());
    if let Fake::Hosted(_) = fake {
        // One that dies has the same ends as one that fails.
        return all;
    }
    let may_fail = all.iter().filter(|traced| starts.is_to_fail(&traced.scene));
    let once = trace(&may_fail.flat_map(Traced::failing).collect::<Vec<_>>());
    let ups = once.iter().filter(|traced| {
        let operation = traced.scene.operation;
        matches!(operation, Operation::Up | Operation::TakeOver)
    });
    let twice = trace(&ups.flat_map(Traced::failing).collect::<Vec<_>>());
    all.extend(once);
    all.extend(twice);
    all
}

/// Where operations may have to begin.
#[derive(Debug)]
struct Starts {
    fake: Fake,
    /// The calls of an `up` after whose death its session is known, in their order.
    ups: Vec<usize>,
    /// Those of them after which it is not ready.
    unready: Vec<usize>,
    /// That which starts the agent.
    agent: usize,
    /// The calls of a `down`.
    downs: usize,
    /// The calls of a clean-up, as those of an `up` that takes over and can't start the agent.
    clean_ups: Range<usize>,
}

impl Starts {
    fn of(fake: &Fake) -> Self {
        let scene = |operation, stand| Scene::new(fake, operation, stand);
        let up = Traced::of(&scene(Operation::Up, Stand::Nothing));
        let down = Traced::of(&scene(Operation::Down, Stand::Ready));
        let starts = |call: &Call| call.method == "start_agent";
        let agent = up.calls.iter().position(starts).expect("an agent");
        let taken_over = scene(Operation::TakeOver, Stand::UpDied(agent));
        let unstarted = Traced::of(&Scene {
            troubles: vec![Trouble {
                call: up.calls[agent].clone(),
                kind: ErrorKind::AgentNotReady,
            }],
            ..taken_over
        });
        // What is asked before anything is recorded leaves nothing: that is where `up` begins anyway.
        let died = |at: usize| {
            let session = Stage::new(&scene(Operation::TakeOver, Stand::UpDied(at))).session()?;
            Some((at, session.state))
        };
        let known: Vec<(usize, State)> = (0..up.calls.len()).filter_map(died).collect();
        let unready = known.iter().filter(|(_, state)| *state != State::Ready);
        Self {
            fake: fake.clone(),
            ups: known.iter().map(|(at, _)| *at).collect(),
            unready: unready.map(|(at, _)| *at).collect(),
            agent,
            downs: down.calls.len(),
            clean_ups: unstarted.known.1..unstarted.calls.len(),
        }
    }

    fn scenes(&self) -> Vec<Scene> {
        let clean_ups: Vec<Stand> = self.clean_ups.clone().map(Stand::CleanUpDied).collect();
        let stands = |calls: &[usize], stand: fn(usize) -> Stand| -> Vec<Stand> {
            calls.iter().copied().map(stand).collect()
        };
        let ups = stands(&self.ups, Stand::UpDied);
        let downs = (0..self.downs).map(Stand::DownDied).collect();
        let died = [ups.clone(), downs, clean_ups.clone()].concat();
        let own = [
            Stand::Ready,
            Stand::CloseFailed,
            Stand::CleanupFailed,
            Stand::RescueFailed,
        ];
        let found = [
            Stand::DestroyPending,
            Stand::Gone,
            Stand::Left,
            Stand::Restored,
        ];
        let strays = [Stand::Stray, Stand::SavedStray];
        let kept = [
            Stand::Unpersisted,
            Stand::PersistFailed,
            Stand::RescueFailed,
        ];
        let taken_over = [ups, clean_ups].concat();
        let brought_down = [&own[..], &found, &died].concat();
        let reconciled = [&found[..], &strays, &died].concat();
        let starts = [
            (Operation::Up, vec![Stand::Nothing]),
            (Operation::TakeOver, taken_over),
            (
                Operation::CancelledUp,
                stands(&self.unready, Stand::UpWillHang),
            ),
            (Operation::Down, brought_down),
            (Operation::RetryPersist, kept[..2].to_vec()),
            (Operation::Discard, kept.to_vec()),
            (Operation::Cancel, stands(&self.unready, Stand::UpHangs)),
            (Operation::Reconcile, reconciled),
        ];
        let scene = |operation, stand| Scene::new(&self.fake, operation, stand);
        let of = |(operation, stands): (Operation, Vec<Stand>)| {
            let stands = stands.into_iter();
            stands.map(move |stand| scene(operation, stand))
        };
        starts.into_iter().flat_map(of).collect()
    }

    /// Whether each call of the scene fails in a scene of its own: one of those that have the same ends.
    fn is_to_fail(&self, scene: &Scene) -> bool {
        let agent = self.agent;
        let stands: &[Stand] = match scene.operation {
            Operation::Up => &[Stand::Nothing],
            Operation::TakeOver => &[Stand::UpDied(agent)],
            Operation::CancelledUp => &[],
            Operation::Down => &[Stand::Ready, Stand::UpDied(agent), Stand::DestroyPending],
            Operation::RetryPersist => &[Stand::Unpersisted],
            Operation::Discard => &[Stand::Unpersisted, Stand::RescueFailed],
            Operation::Cancel => &[Stand::UpHangs(agent)],
            Operation::Reconcile => &[
                Stand::UpDied(agent),
                Stand::DownDied(0),
                Stand::Stray,
                Stand::SavedStray,
            ],
        };
        stands.contains(&scene.stand)
    }
}
