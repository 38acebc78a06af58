//! A podman that serves on a socket in a directory of the test's own.

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// The image that every engine has.
pub(crate) const IMAGE: &str = "localhost/alpine-test:1";

/// How the engine works here: limits that an ordinary process may set, no registry, no network, locks in files.
const SETTINGS: &str = r#"
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
netns = "none"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
exit_command_delay = 2
lock_type = "file"
runtime = "runc"
"#;

/// An engine that runs until it is dropped.
#[derive(Debug)]
pub(crate) struct Engine {
    service: Child,
    directory: TempDir,
}

impl Engine {
    pub(crate) fn start() -> Self {
        set_up();
        let directory = TempDir::with_prefix("alpine-podman-").unwrap();
        let at = directory.path();
        fs::write(at.join("containers.conf"), SETTINGS).unwrap();
        let storage = format!(
            "[storage]\ndriver = \"vfs\"\nrunroot = \"{0}/runroot\"\ngraphroot = \"{0}/root\"\n",
            at.display()
        );
        fs::write(at.join("storage.conf"), storage).unwrap();
        fs::create_dir(at.join("run")).unwrap();
        import(at);
        let service = podman(at)
            .args(["system", "service", "--time", "0"])
            .arg(format!("unix://{}", socket(at).display()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(at.join("service.log")).unwrap())
            .spawn()
            .expect("podman");
        let mut engine = Self { service, directory };
        engine.wait();
        engine
    }

    pub(crate) fn socket(&self) -> PathBuf {
        socket(self.directory.path())
    }

    /// Runs podman beside the provider, as a user would.
    pub(crate) fn podman(&self, arguments: &[&str]) -> String {
        self.try_podman(arguments).unwrap()
    }

    /// The same, which may be refused.
    pub(crate) fn try_podman(&self, arguments: &[&str]) -> Result<String, String> {
        output_of(podman(self.directory.path()).args(arguments))
    }

    /// Whether it can hold a container to limits and pause it. An ordinary user's podman can't under cgroups of version 1; the
    /// superuser's that can't proves too little.
    pub(crate) fn has_cgroups(&self) -> bool {
        let format = "{{len .Host.CgroupControllers}}";
        let has_some = self.podman(&["info", "--format", format]) != "0\n";
        let is_superuser = rustix::process::geteuid().is_root();
        assert!(has_some || !is_superuser, "podman has no cgroups here");
        has_some
    }

    fn wait(&mut self) {
        let limit = Instant::now() + Duration::from_secs(30);
        while UnixStream::connect(self.socket()).is_err() {
            let ended = self.service.try_wait().unwrap();
            let log = self.directory.path().join("service.log");
            let log = fs::read_to_string(log).unwrap();
            assert!(ended.is_none(), "podman's service ended, {ended:?}: {log}");
            assert!(Instant::now() < limit, "podman does not serve: {log}");
            std::thread::yield_now();
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let at = self.directory.path().to_owned();
        let left = podman(&at)
            .args(["rm", "--all", "--force", "--time", "0"])
            .output();
        self.service.kill().unwrap();
        self.service.wait().unwrap();
        // What looks after a command that has ended writes into the directory for a moment yet.
        let processes = wait_for_the_end_of_all(&at);
        // Files of other users of an unprivileged user's namespaces go with these.
        let _ = podman(&at).args(["system", "reset", "--force"]).output();
        let removed = fs::remove_dir_all(&at);
        if !std::thread::panicking() {
            let text = String::from_utf8_lossy(&left.unwrap().stdout).into_owned();
            assert_eq!(text, "", "a test left a container");
            assert!(processes.is_empty(), "processes are left: {processes:#?}");
            let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
            assert!(
                !mounts.contains(at.to_str().unwrap()),
                "mounts are left: {mounts}"
            );
            assert!(removed.is_ok(), "`{}` is left: {removed:?}", at.display());
        }
    }
}

/// Waits until no process has the directory in its arguments, and gives those that still do after ten seconds.
fn wait_for_the_end_of_all(directory: &Path) -> Vec<String> {
    let directory = directory.to_str().unwrap();
    let limit = Instant::now() + Duration::from_secs(10);
    loop {
        let all = fs::read_dir("/proc").unwrap().flatten();
        let left: Vec<_> = all
            .filter(|entry| entry.file_name().as_encoded_bytes()[0].is_ascii_digit())
            .filter_map(|entry| fs::read(entry.path().join("cmdline")).ok())
            .map(|line| String::from_utf8_lossy(&line).replace('\0', " "))
            .filter(|line| line.contains(directory))
            .collect();
        if left.is_empty() || Instant::now() > limit {
            return left;
        }
        std::thread::yield_now();
    }
}

fn socket(at: &Path) -> PathBuf {
    at.join("s.sock")
}

fn podman(at: &Path) -> Command {
    let mut command = Command::new("podman");
    command
        .arg("--root")
        .arg(at.join("root"))
        .arg("--runroot")
        .arg(at.join("runroot"))
        .arg("--tmpdir")
        .arg(at.join("tmp"))
        .args(["--runtime", "runc", "--storage-driver", "vfs"])
        .args(["--cgroup-manager", "cgroupfs"])
        .env("CONTAINERS_CONF", at.join("containers.conf"))
        .env("CONTAINERS_STORAGE_CONF", at.join("storage.conf"))
        .env("HOME", at)
        .env("XDG_RUNTIME_DIR", at.join("run"))
        .current_dir(at);
    command
}

fn run(command: &mut Command) -> String {
    output_of(command).unwrap()
}

/// What it says; or, if it fails, its complaint.
fn output_of(command: &mut Command) -> Result<String, String> {
    let output = command.output().map_err(|error| error.to_string());
    let output = output.map_err(|error| format!("{command:?}: {error}"))?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    match output.status.success() {
        true => Ok(String::from_utf8(output.stdout).unwrap()),
        false => Err(format!("{command:?}: {complaint}")),
    }
}

/// Has what is missing of Debian's podman installed, once; fails where that can't be.
fn set_up() {
    static DONE: OnceLock<()> = OnceLock::new();
    DONE.get_or_init(|| {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../setup");
        run(Command::new(script).arg("podman"));
    });
}

/// Makes an image of BusyBox alone.
fn import(at: &Path) {
    let root = at.join("image");
    for name in ["bin", "dev", "etc", "proc", "root", "sys", "tmp"] {
        fs::create_dir_all(root.join(name)).unwrap();
    }
    let busybox = ["/bin/busybox", "/usr/bin/busybox"].map(Path::new);
    let busybox = busybox.iter().find(|path| path.is_file());
    let busybox = busybox.expect("busybox");
    fs::copy(busybox, root.join("bin/busybox")).unwrap();
    for name in run(Command::new(busybox).arg("--list")).lines() {
        if name != "busybox" {
            symlink("busybox", root.join("bin").join(name)).unwrap();
        }
    }
    let archive = at.join("image.tar");
    run(Command::new("tar")
        .arg("-C")
        .arg(&root)
        // Whoever packs it, it is the superuser's in the container: no other user may be there.
        .args(["--owner=0", "--group=0", "-cf"])
        .arg(&archive)
        .arg("."));
    run(podman(at)
        .args(["import", "--quiet"])
        .arg(&archive)
        .arg(IMAGE));
    fs::remove_dir_all(&root).unwrap();
    fs::remove_file(&archive).unwrap();
}
