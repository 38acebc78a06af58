//! A hermetic home for one test, and the programs that run in it.

use crate::clock::{TEST_EPOCH_MS, TestClock};
use crate::fake::FakeControl;
use crate::processes::{self, Leftover};
use crate::repo::TestRepo;
use crate::run::{self, Output};
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// How long a program may run unless a test says otherwise.
pub const RUN_LIMIT: Duration = Duration::from_secs(180);

const FOLDERS: [&str; 9] = [
    "alpine", "home", "config", "data", "cache", "state", "run", "tmp", "repos",
];

/// A temporary directory with homes of all kinds in it, and a cleared environment that points there.
///
/// When it is dropped, the processes that bear its mark are killed, and the directory is removed.
#[derive(Debug)]
pub struct TestEnv {
    root: PathBuf,
    mark: String,
    clock: TestClock,
    repositories: AtomicU32,
}

impl TestEnv {
    /// A home of its own.
    ///
    /// # Panics
    /// When no temporary directory can be made.
    #[must_use]
    pub fn new() -> Self {
        Self::below(&std::env::temp_dir())
    }

    /// The same, in memory where there is room for files in it: for tests that make hundreds, and that no disk may hold up.
    ///
    /// # Panics
    /// When no temporary directory can be made.
    #[must_use]
    pub fn in_memory() -> Self {
        let memory = Path::new("/dev/shm");
        let asked = std::env::var_os("TMPDIR").is_some();
        if asked || !memory.is_dir() {
            return Self::new();
        }
        Self::below(memory)
    }

    fn below(directory: &Path) -> Self {
        // The name is short: the paths of sockets in it have to fit into 108 bytes.
        let made = tempfile::Builder::new()
            .prefix("alp-")
            .tempdir_in(directory);
        let root = made.expect("a temporary directory").keep();
        let root = root.canonicalize().expect("an absolute path");
        for folder in FOLDERS {
            let path = root.join(folder);
            fs::create_dir(&path).expect("a folder");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).expect("its mode");
        }
        let mark = uuid::Uuid::new_v4().simple().to_string();
        Self {
            clock: TestClock::in_file(&root.join("clock")),
            root,
            mark,
            repositories: AtomicU32::new(0),
        }
    }

    /// The directory that holds everything.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// `ALPINE_HOME`.
    #[must_use]
    pub fn alpine_home(&self) -> PathBuf {
        self.root.join("alpine")
    }

    /// Where the fake provider keeps its state.
    #[must_use]
    pub fn fake_directory(&self) -> PathBuf {
        self.root.join("fake")
    }

    /// The hand in the fake provider.
    #[must_use]
    pub fn fake(&self) -> FakeControl {
        FakeControl::new(self.fake_directory())
    }

    /// The clock that the programs see.
    #[must_use]
    pub fn clock(&self) -> &TestClock {
        &self.clock
    }

    /// Sets the clock that the programs see.
    pub fn set_clock(&self, now_ms: u64) {
        self.clock.set(now_ms);
    }

    /// The variables that every program gets, and no others.
    #[must_use]
    pub fn variables(&self) -> Vec<(String, OsString)> {
        let inside = |name: &str| self.root.join(name).into_os_string();
        let mut variables: Vec<(String, OsString)> = [
            ("ALPINE_HOME", "alpine"),
            ("HOME", "home"),
            ("XDG_CONFIG_HOME", "config"),
            ("XDG_DATA_HOME", "data"),
            ("XDG_CACHE_HOME", "cache"),
            ("XDG_STATE_HOME", "state"),
            ("XDG_RUNTIME_DIR", "run"),
            ("TMPDIR", "tmp"),
            ("ALPINE_TEST_FAKE_DIR", "fake"),
            ("ALPINE_TEST_CLOCK_MS", "clock"),
        ]
        .map(|(name, folder)| (name.to_owned(), inside(folder)))
        .into();
        let path = std::env::var_os("PATH").unwrap_or_default();
        variables.extend([
            ("PATH".to_owned(), path),
            ("LC_ALL".to_owned(), "C.UTF-8".into()),
            ("TZ".to_owned(), "UTC".into()),
            ("ALPINE_PRINCIPAL_ID".to_owned(), "tester".into()),
            (
                "ALPINE_TEST_SEED".to_owned(),
                TEST_EPOCH_MS.to_string().into(),
            ),
            (processes::MARK.to_owned(), self.mark.clone().into()),
        ]);
        // How the fake is reached, where whoever runs the tests says so.
        let by = "ALPINE_TEST_FAKE_BY";
        variables.extend(std::env::var_os(by).map(|way| (by.to_owned(), way)));
        variables
    }

    /// A program with this home's environment, started in its `home`.
    #[must_use]
    pub fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command
            .env_clear()
            .envs(self.variables())
            .current_dir(self.root.join("home"));
        command
    }

    /// Runs a program to its end.
    ///
    /// # Panics
    /// When it can't be started, or has not ended in [`RUN_LIMIT`]; it is killed then.
    #[track_caller]
    pub fn run(&self, command: &mut Command) -> Output {
        run::run(command, RUN_LIMIT)
    }

    /// Runs a program to its end, within `limit`.
    ///
    /// # Panics
    /// When it can't be started, or has not ended in time; it is killed then.
    #[track_caller]
    pub fn run_for(&self, command: &mut Command, limit: Duration) -> Output {
        run::run(command, limit)
    }

    /// A real repository on branch `main` with one commit of these files.
    #[must_use]
    pub fn git_repo(&self, files: &[(&str, &str)]) -> TestRepo {
        let number = self.repositories.fetch_add(1, Ordering::SeqCst);
        TestRepo::make(&self.root.join("repos").join(format!("r{number}")), files)
    }

    /// The processes that bear this home's mark, or whose environment, arguments or directory lie in it.
    #[must_use]
    pub fn processes(&self) -> Vec<Leftover> {
        processes::belonging_to(&self.mark, &self.root)
    }

    /// Waits until no process of this home is left.
    ///
    /// # Panics
    /// When some are left after `limit`; names them.
    #[track_caller]
    pub fn assert_no_processes(&self, limit: Duration) {
        let until = std::time::Instant::now() + limit;
        loop {
            let left = self.processes();
            if left.is_empty() {
                return;
            }
            assert!(
                std::time::Instant::now() < until,
                "processes are left: {left:#?}"
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Default for TestEnv {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for TestEnv {
    fn drop(&mut self) {
        let killed = processes::kill_all(&self.mark, &self.root);
        let removed = remove(&self.root);
        if !std::thread::panicking() {
            assert!(
                killed,
                "a process of {} can't be killed",
                self.root.display()
            );
            removed.unwrap_or_else(|error| panic!("remove {}: {error}", self.root.display()));
        }
    }
}

/// Removes a directory, parts that may not be entered or written included.
fn remove(root: &Path) -> std::io::Result<()> {
    let mut open = vec![root.to_owned()];
    while let Some(directory) = open.pop() {
        let mode = fs::Permissions::from_mode(0o700);
        fs::set_permissions(&directory, mode)?;
        for entry in fs::read_dir(&directory)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                open.push(entry.path());
            }
        }
    }
    fs::remove_dir_all(root)
}
