//! The fake's state: files in one directory, changed by rename under one lock that all processes share.

use super::tree::{self, Tree};
use super::types::{Fault, Outcome, Violation};
use alpine_provider_api::{AgentSpec, CommitId, StagedSnapshot};
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

/// How far a sandbox has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Run {
    /// Provisioning broke off.
    Half,
    Running,
    /// The caller stopped it.
    Stopped,
    /// It ended by itself.
    Exited,
}

/// A sandbox's record.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Sandbox {
    pub(super) id: String,
    pub(super) ledger_id: String,
    pub(super) session_id: String,
    pub(super) allow_unsandboxed: bool,
    pub(super) fence: u64,
    pub(super) run: Run,
    /// The storage has gone.
    pub(super) lost: bool,
    /// A test has said that the work in it may go.
    pub(super) loss_allowed: bool,
    pub(super) read_only: bool,
    /// The commit that was brought in, whole.
    pub(super) synced: Option<CommitId>,
    /// The digest of the workspace as `sync_repo` or `restore` left it.
    pub(super) clean: Option<String>,
    pub(super) installed: bool,
    pub(super) agent: Option<Agent>,
    pub(super) links: u64,
    /// What was captured, by generation.
    pub(super) staged: BTreeMap<u64, StagedSnapshot>,
    /// What was answered to which request, as digests.
    pub(super) replies: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Agent {
    pub(super) spec: AgentSpec,
    pub(super) url: Option<String>,
    pub(super) ready: bool,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Object {
    pub(super) id: String,
    pub(super) sandbox_id: String,
    pub(super) session_id: String,
    pub(super) generation: u64,
    pub(super) payload: String,
    pub(super) payload_digest: String,
    pub(super) snapshot: Option<StagedSnapshot>,
    pub(super) read_back: bool,
}

/// A fault that waits for its call.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Planned {
    pub(super) method: String,
    pub(super) fault: Fault,
    /// How often it still strikes; none for ever.
    pub(super) left: Option<u32>,
}

/// A line of the calls' log.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum CallLine {
    Began {
        number: u64,
        method: String,
        sandbox_id: Option<String>,
        operation_id: String,
        fence: u64,
        attempt: u32,
        pid: u32,
        request: Value,
        fault: Option<Fault>,
    },
    Ended {
        number: u64,
        outcome: Outcome,
    },
}

/// The directory that holds everything.
#[derive(Clone, Debug)]
pub(super) struct Store {
    root: PathBuf,
}

/// The directory while its lock is held. It is never held over an await.
#[derive(Debug)]
pub(super) struct Locked {
    root: PathBuf,
    _lock: File,
}

impl Store {
    pub(super) fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// From now on, whoever opens it does real work.
    pub(super) fn make_real(&self) {
        write_bytes(&self.lock().path("real"), b"");
    }

    pub(super) fn lock(&self) -> Locked {
        let path = self.root.join("lock");
        let open = |make| OpenOptions::new().create(make).append(true).open(&path);
        // It is made last: where it is, all is.
        let lock = open(false).or_else(|_| {
            for part in [
                "sandboxes",
                "tombstones",
                "workspaces",
                "staged",
                "objects",
                "logs",
            ] {
                fs::create_dir_all(self.root.join(part))?;
            }
            open(true)
        });
        let lock = lock.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        loop {
            match flock(&lock, FlockOperation::LockExclusive) {
                Ok(()) => break,
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => panic!("lock {}: {error}", path.display()),
            }
        }
        Locked {
            root: self.root.clone(),
            _lock: lock,
        }
    }
}

impl Locked {
    pub(super) fn path(&self, part: &str) -> PathBuf {
        self.root.join(part)
    }

    pub(super) fn workspace(&self, id: &str) -> PathBuf {
        self.path("workspaces").join(id)
    }

    pub(super) fn log(&self, id: &str, name: &str) -> PathBuf {
        self.path("logs").join(format!("{id}.{name}"))
    }

    pub(super) fn staged(&self, staging_id: &str) -> PathBuf {
        self.path("staged").join(staging_id)
    }

    pub(super) fn object_snapshot(&self, id: &str) -> PathBuf {
        self.path("objects").join(format!("{id}.snapshot"))
    }

    pub(super) fn sandbox(&self, id: &str) -> Option<Sandbox> {
        read(&self.path("sandboxes").join(format!("{id}.json")))
    }

    pub(super) fn sandboxes(&self) -> Vec<Sandbox> {
        read_all(&self.path("sandboxes"))
    }

    pub(super) fn keep_sandbox(&self, sandbox: &Sandbox) {
        let path = self.path("sandboxes").join(format!("{}.json", sandbox.id));
        let bytes = serde_json::to_vec(sandbox).expect("plain data");
        // Most calls change nothing, and reading is much cheaper than a new file.
        if fs::read(&path).is_ok_and(|known| known == bytes) {
            return;
        }
        write_bytes(&path, &bytes);
    }

    pub(super) fn forget_sandbox(&self, id: &str) {
        remove(&self.path("sandboxes").join(format!("{id}.json")));
    }

    /// The fence that destroyed it.
    pub(super) fn tombstone(&self, id: &str) -> Option<u64> {
        read(&self.path("tombstones").join(id))
    }

    pub(super) fn keep_tombstone(&self, id: &str, fence: u64) {
        write(&self.path("tombstones").join(id), &fence);
    }

    fn object_record(&self, id: &str) -> Option<PathBuf> {
        let plain = id
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        plain.then(|| self.path("objects").join(format!("{id}.json")))
    }

    /// Whether there is an object of that id, readable or not.
    pub(super) fn has_object(&self, id: &str) -> bool {
        self.object_record(id).is_some_and(|path| path.exists())
    }

    /// The object, if its record is what was written.
    pub(super) fn object(&self, id: &str) -> Option<Object> {
        unsealed(&self.object_record(id)?)
    }

    pub(super) fn objects(&self) -> Vec<Object> {
        let paths = records(&self.path("objects"));
        paths.iter().filter_map(|path| unsealed(path)).collect()
    }

    pub(super) fn keep_object(&self, object: &Object) {
        let path = self.path("objects").join(format!("{}.json", object.id));
        let text = serde_json::to_string(object).expect("plain data");
        let seal = tree::digest(text.as_bytes());
        write_bytes(&path, format!("{seal}\n{text}").as_bytes());
    }

    /// Whether every byte of the object is what was written.
    pub(super) fn is_intact(&self, object: &Object) -> bool {
        let snapshot_fits = object.snapshot.as_ref().is_none_or(|snapshot| {
            fs::read(self.object_snapshot(&object.id))
                .is_ok_and(|bytes| tree::digest(&bytes) == snapshot.digest)
        });
        snapshot_fits && tree::digest(object.payload.as_bytes()) == object.payload_digest
    }

    pub(super) fn tree(&self, id: &str) -> Option<Tree> {
        tree::read(&self.workspace(id), self.is_real()).ok()
    }

    /// Whether sandboxes do real work: real git, real commands.
    pub(super) fn is_real(&self) -> bool {
        self.path("real").exists()
    }

    pub(super) fn head(&self, id: &str) -> Option<CommitId> {
        if self.is_real() {
            return alpine_git::head(&self.workspace(id)).ok().flatten();
        }
        let text = fs::read_to_string(self.workspace(id).join("HEAD")).ok()?;
        CommitId::new(text.trim())
    }

    pub(super) fn faults(&self) -> Vec<Planned> {
        read(&self.path("faults.json")).unwrap_or_default()
    }

    pub(super) fn keep_faults(&self, faults: &[Planned]) {
        write(&self.path("faults.json"), &faults);
    }

    /// The planted secrets. They are kept as numbers, so that no search of the directory finds them here.
    pub(super) fn secrets(&self) -> Vec<String> {
        let coded: Vec<Vec<u8>> = read(&self.path("planted.json")).unwrap_or_default();
        coded
            .into_iter()
            .filter_map(|bytes| String::from_utf8(bytes).ok())
            .collect()
    }

    pub(super) fn keep_secrets(&self, secrets: &[String]) {
        let coded: Vec<&[u8]> = secrets.iter().map(String::as_bytes).collect();
        write(&self.path("planted.json"), &coded);
    }

    pub(super) fn append_call(&self, line: &CallLine) {
        append(&self.path("calls.ndjson"), line);
    }

    pub(super) fn call_lines(&self) -> Vec<CallLine> {
        lines(&self.path("calls.ndjson"))
    }

    /// A number that no other call has.
    pub(super) fn next_number(&self) -> u64 {
        fs::metadata(self.path("calls.ndjson")).map_or(0, |file| file.len())
    }

    pub(super) fn append_violation(&self, violation: &Violation) {
        append(&self.path("violations.ndjson"), violation);
    }

    pub(super) fn violations(&self) -> Vec<Violation> {
        lines(&self.path("violations.ndjson"))
    }
}

/// Removes a file or a directory that may be gone already.
pub(super) fn remove(path: &Path) {
    let done = match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => alpine_files::remove_tree(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match done {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            panic!("remove {}: {error}", path.display())
        }
        Ok(()) | Err(_) => {}
    }
}

/// Writes bytes to a new file that takes the path's place in one step.
pub(super) fn write_bytes(path: &Path, bytes: &[u8]) {
    let fresh = path.with_extension("new");
    fs::write(&fresh, bytes)
        .and_then(|()| fs::rename(&fresh, path))
        .unwrap_or_else(|error| panic!("write {}: {error}", path.display()));
}

fn write(path: &Path, value: &impl Serialize) {
    write_bytes(path, &serde_json::to_vec(value).expect("plain data"));
}

fn read<T: DeserializeOwned>(path: &Path) -> Option<T> {
    match fs::read(path) {
        Ok(bytes) => Some(
            serde_json::from_slice(&bytes)
                .unwrap_or_else(|error| panic!("read {}: {error}", path.display())),
        ),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => panic!("read {}: {error}", path.display()),
    }
}

fn read_all<T: DeserializeOwned>(directory: &Path) -> Vec<T> {
    let paths = records(directory);
    paths.iter().filter_map(|path| read(path)).collect()
}

fn records(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory)
        .unwrap_or_else(|error| panic!("read {}: {error}", directory.display()));
    let mut paths: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|end| end == "json"))
        .collect();
    paths.sort();
    paths
}

/// A record that bears its own digest; none where that does not fit.
fn unsealed<T: DeserializeOwned>(path: &Path) -> Option<T> {
    let bytes = fs::read(path).ok()?;
    let (seal, text) = std::str::from_utf8(&bytes).ok()?.split_once('\n')?;
    let fits = tree::digest(text.as_bytes()) == seal;
    fits.then(|| serde_json::from_str(text).ok())?
}

fn append(path: &Path, value: &impl Serialize) {
    let mut line = serde_json::to_vec(value).expect("plain data");
    line.push(b'\n');
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .and_then(|mut file| file.write_all(&line))
        .unwrap_or_else(|error| panic!("append to {}: {error}", path.display()));
}

fn lines<T: DeserializeOwned>(path: &Path) -> Vec<T> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
        Err(error) => panic!("read {}: {error}", path.display()),
    };
    text.lines()
        .map(|line| serde_json::from_str(line).expect("a line that was written whole"))
        .collect()
}
