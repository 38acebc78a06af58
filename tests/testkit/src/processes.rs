//! The processes that a test has started, and those that these have started.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// The variable that marks every process of a test.
pub(crate) const MARK: &str = "ALPINE_TEST_MARK";

/// What a sandbox's supervisor calls itself. It has an environment and a directory that say nothing; what it holds open does.
const SUPERVISOR: &[u8] = b"alpine-shim\0";

const LONGEST_KILL: Duration = Duration::from_secs(10);

/// A process of a test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leftover {
    /// Its id.
    pub pid: u32,
    /// Its arguments.
    pub command: String,
}

/// The processes that bear the mark, or that have the test's own directory in their environment, in their arguments, or
/// as their working directory, and the supervisors that hold a file in it open: the directory's name is unique, so these are the test's, whatever they did to the mark.
pub(crate) fn belonging_to(mark: &str, root: &Path) -> Vec<Leftover> {
    let marked = format!("{MARK}={mark}");
    let entries = fs::read_dir("/proc").expect("/proc");
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|&pid| pid != std::process::id())
        .filter_map(|pid| {
            let place = Path::new("/proc").join(pid.to_string());
            // A process that ends meanwhile, or that is somebody else's, can't be read.
            let environment = fs::read(place.join("environ")).ok()?;
            let command = fs::read(place.join("cmdline")).ok()?;
            let is_ours = contains(&environment, marked.as_bytes())
                || contains(&environment, root.as_os_str().as_bytes())
                || contains(&command, root.as_os_str().as_bytes())
                || command.starts_with(SUPERVISOR) && has_open_below(&place, root)
                || fs::read_link(place.join("cwd")).is_ok_and(|cwd| cwd.starts_with(root));
            let is_alive = fs::read_to_string(place.join("stat")).is_ok_and(|stat| {
                !stat
                    .rsplit_once(") ")
                    .is_some_and(|(_, rest)| rest.starts_with(['Z', 'X']))
            });
            (is_ours && is_alive).then(|| Leftover {
                pid,
                command: String::from_utf8_lossy(&command)
                    .replace('\0', " ")
                    .trim()
                    .to_owned(),
            })
        })
        .collect()
}

/// Kills the processes of a test whose own directory this is until none is left; false when some can't be killed.
#[must_use]
pub fn end_all_of(root: &Path) -> bool {
    // No mark looks like a path.
    kill_all(&root.display().to_string(), root)
}

/// Kills them until none is left; false when some can't be killed.
pub(crate) fn kill_all(mark: &str, root: &Path) -> bool {
    let until = Instant::now() + LONGEST_KILL;
    loop {
        let left = belonging_to(mark, root);
        if left.is_empty() {
            return true;
        }
        if Instant::now() > until {
            return false;
        }
        for process in left {
            let pid = i32::try_from(process.pid)
                .ok()
                .and_then(rustix::process::Pid::from_raw);
            if let Some(pid) = pid {
                // One that has just ended can't be killed any more.
                let _killed = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn has_open_below(process: &Path, root: &Path) -> bool {
    let open = fs::read_dir(process.join("fd"));
    open.into_iter()
        .flatten()
        .flatten()
        .any(|entry| fs::read_link(entry.path()).is_ok_and(|file| file.starts_with(root)))
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}
