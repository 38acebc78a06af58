//! How a supervisor ends its sandbox: it asks, waits, kills until nothing is left, writes down how it went, and ends.

use super::clients::ClientId;
use super::serve::{Role, Shim, kill_group};
use crate::clock;
use crate::file::{self, Flush};
use crate::processes::{self, Process};
use crate::protocol::Reply;
use crate::record::{self, ExitRecord};
use rustix::process::{Pid, Signal, getpgid};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// How long the agent's server is ahead of the others.
const AHEAD: Duration = Duration::from_secs(1);
/// How long the processes get when no caller says how long.
pub(super) const UNASKED_MS: u64 = 30_000;
/// How long killing may take before it counts as failed.
const KILLING: Duration = Duration::from_secs(10);
/// How often the callers are told that it goes on.
const NEWS: Duration = Duration::from_millis(500);

/// A sandbox that is being ended.
#[derive(Debug)]
pub(super) struct Ending {
    phase: Phase,
    begun: Instant,
    killing: Option<Instant>,
    grace: Duration,
    waiters: Vec<ClientId>,
    asked: bool,
    forced: bool,
    told: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The agent's server was asked.
    Agent,
    /// All were asked.
    All,
    /// All are killed.
    Kill,
}

impl Shim {
    /// Begins to end everything, or lets one more caller wait for it.
    pub(super) fn begin_ending(&mut self, caller: Option<ClientId>, grace_ms: u64) {
        if let Some(ending) = &mut self.ending {
            ending.waiters.extend(caller);
            ending.asked |= caller.is_some();
            return;
        }
        // Nobody new gets in.
        self.door = None;
        for (pid, role) in &self.children {
            match role {
                Role::Gateway => kill_group(*pid, Signal::KILL),
                Role::Agent => {
                    kill_group(*pid, Signal::TERM);
                    kill_group(*pid, Signal::CONT);
                }
                Role::Install | Role::Command(_) => {}
            }
        }
        let now = Instant::now();
        self.ending = Some(Ending {
            phase: Phase::Agent,
            begun: now,
            killing: None,
            grace: Duration::from_millis(grace_ms),
            waiters: caller.into_iter().collect(),
            asked: caller.is_some(),
            forced: false,
            told: now,
        });
    }

    /// Goes on with the end, if it was begun; true when nothing is left.
    pub(super) fn step_ending(&mut self) -> bool {
        let Some(mut ending) = self.ending.take() else {
            return false;
        };
        let agent_runs = self.children.iter().any(|child| child.1 == Role::Agent);
        if ending.phase == Phase::Agent {
            // The others keep most of the time that all of them share.
            if agent_runs && ending.begun.elapsed() < AHEAD.min(ending.grace / 4) {
                self.news(&mut ending, "waiting for the agent to end", 1);
                self.ending = Some(ending);
                return false;
            }
            ending.phase = Phase::All;
            self.ask_the_others(&ending);
        }
        let left = self.left(&ending);
        if left.is_empty() {
            self.write_exit(&ending);
            self.report(
                &ending,
                &Reply::Stopped {
                    forced: ending.forced,
                },
            );
            return true;
        }
        if ending.phase == Phase::All && ending.begun.elapsed() >= ending.grace {
            ending.phase = Phase::Kill;
        }
        if ending.phase == Phase::Kill {
            ending.forced = true;
            left.iter().for_each(|process| process.signal(Signal::KILL));
            let since = *ending.killing.get_or_insert_with(Instant::now);
            if since.elapsed() >= KILLING {
                self.report(&ending, &Reply::Refused(processes::leftovers(&left)));
                // It goes on serving: it never ends while a process of the sandbox lives.
                return false;
            }
        }
        self.news(
            &mut ending,
            "waiting for processes to end",
            left.len() as u64,
        );
        self.ending = Some(ending);
        false
    }

    /// Asks all that were not asked with the agent's server: to many programs a second request means to drop everything.
    fn ask_the_others(&self, ending: &Ending) {
        let mut agents = self.children.iter().filter(|child| child.1 == Role::Agent);
        let agent = agents.next().map(|child| child.0);
        for process in self.left(ending) {
            let group = Pid::from_raw(process.pid.cast_signed());
            let group = group.and_then(|pid| getpgid(Some(pid)).ok());
            if agent.is_none() || group != agent {
                process.signal(Signal::TERM);
            }
            process.signal(Signal::CONT);
        }
    }

    /// What still lives: all below this process, and, when it comes to killing, all that bear the sandbox's mark. What an
    /// earlier supervisor left was ended before this one began, and the caller looks for marks again.
    fn left(&self, ending: &Ending) -> BTreeSet<Process> {
        let mut left = processes::own_descendants();
        if ending.phase == Phase::Kill {
            left.extend(processes::marked(&self.sandbox));
        }
        left
    }

    fn news(&mut self, ending: &mut Ending, what: &str, left: u64) {
        if ending.told.elapsed() >= NEWS {
            ending.told = Instant::now();
            let what = what.to_owned();
            self.report(ending, &Reply::Stopping { what, left });
        }
    }

    fn report(&mut self, ending: &Ending, reply: &Reply) {
        for &id in &ending.waiters {
            self.tell(id, reply);
        }
    }

    fn write_exit(&self, ending: &Ending) {
        let exit = ExitRecord {
            version: record::VERSION,
            at: clock::now(),
            asked: ending.asked,
            forced: ending.forced,
            agent: self.agent.as_ref().and_then(|agent| agent.ended),
        };
        // On a full disk the free lock alone says that it has ended; the caller tries to write this again.
        let _ = file::write_json(&self.sandbox.exit(), &exit, Flush::Yes);
    }
}
