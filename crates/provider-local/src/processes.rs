//! Processes as `/proc` shows them: which belong to a sandbox, and how they are signalled without hitting a stranger.

use crate::layout::{MARKER, Sandbox};
use alpine_provider_api::{ErrorKind, ProviderError};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, pidfd_open, pidfd_send_signal, waitid,
};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

/// A process, told from a later one of the same id by when it started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Process {
    /// Its id.
    pub pid: u32,
    /// When it started, in ticks since boot.
    pub(crate) start_time: u64,
}

impl Process {
    /// The process of that id that lives now.
    pub(crate) fn of(pid: u32) -> Option<Self> {
        stat(pid).map(|stat| Self {
            pid,
            start_time: stat.start_time,
        })
    }

    /// Whether it still lives; a zombie does not.
    pub(crate) fn lives(self) -> bool {
        stat(self.pid).is_some_and(|stat| stat.start_time == self.start_time)
    }

    /// The process that started it, or has inherited it; none where it has ended.
    #[must_use]
    pub fn parent(self) -> Option<u32> {
        stat(self.pid)
            .filter(|stat| stat.start_time == self.start_time)
            .map(|stat| stat.parent)
    }

    /// Signals this process and no other: the id is pinned first, and what it names is checked after that.
    pub fn signal(self, signal: Signal) {
        let Some(pid) = i32::try_from(self.pid).ok().and_then(Pid::from_raw) else {
            return;
        };
        if let Ok(pinned) = pidfd_open(pid, PidfdFlags::empty())
            && self.lives()
        {
            // It may end at any time; that is what is wanted.
            let _ = pidfd_send_signal(&pinned, signal);
        }
    }
}

struct Stat {
    parent: u32,
    start_time: u64,
    /// Where its code ends in its memory: 0 until the kernel has put a program and all that goes with it there.
    code_end: u64,
    /// Where its environment begins and ends there.
    environment: (u64, u64),
}

/// What `/proc/<pid>/stat` tells (proc_pid_stat(5)); none for a process that is gone or a zombie.
fn stat(pid: u32) -> Option<Stat> {
    let text = fs::read(format!("/proc/{pid}/stat")).ok()?;
    // The command's name may hold anything, spaces and parentheses too: the fields follow the last parenthesis.
    let end = text.iter().rposition(|&byte| byte == b')')?;
    let rest = std::str::from_utf8(&text[end + 1..]).ok()?;
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?;
    let parent = fields.next()?.parse().ok()?;
    let start_time = fields.nth(17)?.parse().ok()?;
    let code_end = fields.nth(4)?.parse().ok()?;
    let begin = fields.nth(22)?.parse().ok()?;
    let end = fields.next()?.parse().ok()?;
    (!matches!(state, "Z" | "X" | "x")).then_some(Stat {
        parent,
        start_time,
        code_end,
        environment: (begin, end),
    })
}

fn pids() -> impl Iterator<Item = u32> {
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// Every process below these, zombies left out.
fn descendants(of: impl IntoIterator<Item = u32>) -> BTreeSet<Process> {
    let mut children: BTreeMap<u32, Vec<Process>> = BTreeMap::new();
    for pid in pids() {
        if let Some(stat) = stat(pid) {
            let start_time = stat.start_time;
            let process = Process { pid, start_time };
            children.entry(stat.parent).or_default().push(process);
        }
    }
    let mut found = BTreeSet::new();
    let mut unseen: Vec<u32> = of.into_iter().collect();
    while let Some(parent) = unseen.pop() {
        for child in children.remove(&parent).unwrap_or_default() {
            unseen.push(child.pid);
            found.insert(child);
        }
    }
    found
}

/// Every process below this one. A process that inherits the orphans below it and has no child has nobody below it: then
/// nothing has to be looked through.
pub(crate) fn own_descendants() -> BTreeSet<Process> {
    let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    match waitid(WaitId::All, look) {
        Err(rustix::io::Errno::CHILD) => BTreeSet::new(),
        Ok(_) | Err(_) => descendants([std::process::id()]),
    }
}

/// Every process that carries the sandbox's mark, whoever its parent is by now.
pub(crate) fn marked(sandbox: &Sandbox) -> BTreeSet<Process> {
    marked_by(format!("{MARKER}={}", sandbox.key).as_bytes())
}

/// Every process that has this variable, `NAME=value`, in its environment. A process that forks and ends while it is looked
/// is found by its child, which may be where the look has been: that there is none is true when two looks say so.
#[must_use]
pub fn marked_by(variable: &[u8]) -> BTreeSet<Process> {
    twice(|| look(variable, None))
}

/// Every process of what runs as plain processes: those that have this variable in their environment, as [`marked_by`] finds
/// them; those below the directory that have cleared their environment; those that were `known` and live; and all that descend
/// from any of these.
///
/// A process that is below the directory, by where it works, its root or its program, and has a `HOME` is not taken: it may
/// be a shell of the user's that stands there.
#[must_use]
pub fn belonging(
    variable: &[u8],
    directory: Option<&Path>,
    known: &BTreeSet<Process>,
) -> BTreeSet<Process> {
    // As `/proc` has it, without links.
    let real = directory.map(|it| fs::canonicalize(it).unwrap_or_else(|_| it.to_owned()));
    twice(|| {
        let mut found = look(variable, real.as_deref());
        found.extend(known.iter().filter(|it| it.lives()));
        found.extend(descendants(found.iter().map(|it| it.pid)));
        found
    })
}

/// Kills every process that has this variable, and all that descend from one, until none is left or that has taken too long.
pub fn kill_marked(variable: &[u8]) {
    let limit = Instant::now() + Duration::from_secs(2);
    let mut left = belonging(variable, None, &BTreeSet::new());
    while !left.is_empty() && Instant::now() < limit {
        for process in &left {
            process.signal(Signal::KILL);
        }
        std::thread::sleep(Duration::from_millis(1));
        left = belonging(variable, None, &left);
    }
}

/// Looks once more where nothing was found.
fn twice(look: impl Fn() -> BTreeSet<Process>) -> BTreeSet<Process> {
    Some(look())
        .filter(|it| !it.is_empty())
        .unwrap_or_else(look)
}

fn look(variable: &[u8], directory: Option<&Path>) -> BTreeSet<Process> {
    let found = pids().filter_map(|pid| {
        let process = Process::of(pid)?;
        let environment = environment(pid)?;
        let mut variables = environment.split(|&byte| byte == 0);
        let is_marked = variables.clone().any(|one| one == variable);
        let is_cleared = !variables.any(|one| one.starts_with(b"HOME="));
        let is_below = |directory| is_cleared && is_below(pid, directory);
        (is_marked || directory.is_some_and(is_below)).then_some(process)
    });
    found.collect()
}

fn is_below(pid: u32, directory: &Path) -> bool {
    ["cwd", "root", "exe"].iter().any(|link| {
        let place = fs::read_link(format!("/proc/{pid}/{link}"));
        place.is_ok_and(|place| place.starts_with(directory))
    })
}

/// How long a process may be taken to execute a program.
const EXECUTES: Duration = Duration::from_secs(1);

/// A process's environment. It can't be read for a moment while a process executes a program, which is waited for.
fn environment(pid: u32) -> Option<Vec<u8>> {
    let begun = Instant::now();
    loop {
        let all = fs::read(format!("/proc/{pid}/environ")).ok()?;
        let executes = || {
            let stat = stat(pid)?;
            let (begin, end) = stat.environment;
            // The kernel's own processes have no program.
            fs::read_link(format!("/proc/{pid}/exe")).ok()?;
            Some(stat.code_end == 0 || begin != end)
        };
        if !all.is_empty() || executes() != Some(true) || begun.elapsed() > EXECUTES {
            return Some(all);
        }
        std::thread::sleep(Duration::from_micros(100));
    }
}

/// How often it is told how many are left.
const NEWS: Duration = Duration::from_millis(500);

/// Ends every marked process: asks, waits until `limit`, then kills until none is left or killing has taken too long.
/// Gives those that are left, and whether any was killed.
pub(crate) fn end_marked(
    sandbox: &Sandbox,
    limit: Instant,
    told: &dyn Fn(usize),
) -> (BTreeSet<Process>, bool) {
    let mut left = marked(sandbox);
    if left.is_empty() {
        return (left, false);
    }
    for process in &left {
        process.signal(Signal::TERM);
        process.signal(Signal::CONT);
    }
    let mut news = Instant::now();
    while !left.is_empty() && Instant::now() < limit {
        if news.elapsed() >= NEWS {
            news = Instant::now();
            told(left.len());
        }
        std::thread::sleep(Duration::from_millis(10));
        left = marked(sandbox);
    }
    let forced = !left.is_empty();
    let limit = Instant::now() + Duration::from_secs(10);
    while !left.is_empty() && Instant::now() < limit {
        for process in &left {
            process.signal(Signal::KILL);
        }
        std::thread::sleep(Duration::from_millis(5));
        left = marked(sandbox);
    }
    (left, forced)
}

/// Processes that can't be ended: never a success.
pub(crate) fn leftovers(left: &BTreeSet<Process>) -> ProviderError {
    let pids: Vec<String> = left.iter().take(10).map(|it| it.pid.to_string()).collect();
    let message = format!(
        "{} processes can't be ended: {}",
        left.len(),
        pids.join(", ")
    );
    ProviderError::new(ErrorKind::Io, message)
}

/// What tells this boot from every other.
pub(crate) fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map(|id| id.trim().to_owned())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::{Process, belonging, descendants, marked_by};
    use std::collections::BTreeSet;
    use std::io::{BufRead, BufReader};
    use std::path::Path;
    use std::process::{Command, Stdio};

    #[test]
    fn a_process_that_executes_one_program_after_the_other_is_always_found() {
        let mark = format!("ALPINE_MARK_FOR_TESTS={}", std::process::id());
        let (name, value) = mark.split_once('=').unwrap();
        let mut child = Command::new("sh")
            .args(["-c", r#"exec sh -c "$0" "$0""#, r#"exec sh -c "$0" "$0""#])
            .env(name, value)
            .spawn()
            .unwrap();
        let process = Process::of(child.id()).unwrap();
        let missed = (0..300).filter(|_| !marked_by(mark.as_bytes()).contains(&process));
        let missed = missed.count();
        process.signal(rustix::process::Signal::KILL);
        child.wait().unwrap();
        assert_eq!(missed, 0);
    }

    #[test]
    fn a_child_is_found_and_a_recycled_id_is_not_taken_for_it() {
        let mut child = Command::new("sleep")
            .arg("60")
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let process = Process::of(child.id()).unwrap();
        assert!(descendants([std::process::id()]).contains(&process));
        let stranger = Process {
            start_time: process.start_time + 1,
            ..process
        };
        assert!(!stranger.lives());
        stranger.signal(rustix::process::Signal::KILL);
        assert!(process.lives());
        process.signal(rustix::process::Signal::KILL);
        child.wait().unwrap();
        assert!(!process.lives());
    }

    /// Starts this; gives the id that it prints, of a process that goes on.
    fn started(
        script: &str,
        directory: &Path,
        home: Option<&str>,
    ) -> (std::process::Child, Process) {
        let mut command = Command::new("sh");
        command.args(["-c", script]).current_dir(directory);
        command.env("ALPINE_MARK_FOR_TESTS", directory);
        match home {
            Some(home) => command.env("HOME", home),
            None => command.env_remove("HOME"),
        };
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        output.read_line(&mut line).unwrap();
        let process = Process::of(line.trim().parse().unwrap()).unwrap();
        (child, process)
    }

    #[test]
    fn a_process_that_has_cleared_its_environment_is_found_by_its_place_or_its_parent() {
        let directory = tempfile::TempDir::new().unwrap();
        let directory = directory.path();
        let mark = format!("ALPINE_MARK_FOR_TESTS={}", directory.display());
        let find = |place| belonging(mark.as_bytes(), place, &BTreeSet::new());
        let cleared = "env -i sh -c 'echo $$; exec sleep 600 >/dev/null'";
        let orphan = started(&format!("{cleared} &"), directory, None);
        assert!(find(Some(directory)).contains(&orphan.1));
        let child = started(&format!("cd /; {cleared}; true"), directory, None);
        assert!(find(None).contains(&child.1));
        // Its parent has ended meanwhile.
        let known = BTreeSet::from([child.1]);
        let other = Path::new("/nowhere");
        assert!(belonging(b"NO_SUCH=mark", Some(other), &known).contains(&child.1));
        // Somebody who merely stands there.
        let shell = "unset ALPINE_MARK_FOR_TESTS; exec sh -c 'echo $$; exec sleep 600 >/dev/null'";
        let stranger = started(shell, directory, Some("/root"));
        assert!(!find(Some(directory)).contains(&stranger.1));
        for (mut shell, process) in [orphan, child, stranger] {
            process.signal(rustix::process::Signal::KILL);
            shell.wait().unwrap();
        }
        assert_eq!(find(Some(directory)), BTreeSet::new());
    }
}
