//! Where everything of a sandbox is.

use crate::file;
use alpine_provider_api::{LogName, ProviderError, SandboxId, Server};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// The directory of all sandboxes.
#[derive(Clone, Debug)]
pub(crate) struct Home {
    root: PathBuf,
    run_dir: PathBuf,
}

impl Home {
    /// Takes `ALPINE_HOME` and the directory of sockets; makes nothing.
    pub(crate) fn new(home: &Path, run_dir: &Path) -> Self {
        Self {
            root: home.join("sandboxes"),
            run_dir: run_dir.to_owned(),
        }
    }

    /// Makes the directories that hold sandboxes.
    pub(crate) fn make(&self) -> Result<(), ProviderError> {
        for path in [
            self.root.clone(),
            self.locks(),
            self.tombstones(),
            self.notes(),
            self.doomed(),
            self.run_dir.clone(),
        ] {
            file::private_dir(&path)?;
        }
        Ok(())
    }

    /// `ALPINE_HOME/sandboxes`.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Where the locks of ids are: those of sandboxes that are there and of those that are not.
    pub(crate) fn locks(&self) -> PathBuf {
        self.root.join(".locks")
    }

    /// Where destroyed ids are remembered.
    pub(crate) fn tombstones(&self) -> PathBuf {
        self.root.join(".destroyed")
    }

    /// Where it is noted which sandboxes were made in this home.
    pub(crate) fn notes(&self) -> PathBuf {
        self.root.join(".made")
    }

    /// Where a sandbox is while it is being made.
    pub(crate) fn unborn(&self, id: &SandboxId) -> PathBuf {
        self.root.join(format!(".new-{id}"))
    }

    /// What tells this home from every other.
    pub(crate) fn identity(&self) -> PathBuf {
        self.root.join(".home")
    }

    /// Where a sandbox goes while it is being removed.
    pub(crate) fn doomed(&self) -> PathBuf {
        self.root.join(".removing")
    }

    /// A sandbox, whether it is there or not.
    pub(crate) fn sandbox(&self, id: &SandboxId) -> Sandbox {
        let dir = self.root.join(id.as_str());
        let full = std::path::absolute(&dir).unwrap_or_else(|_| dir.clone());
        let key = blake3::hash(full.as_os_str().as_bytes()).to_hex()[..20].to_owned();
        Sandbox {
            id: id.clone(),
            socket: self.run_dir.join(format!("{key}.sock")),
            dir,
            key,
        }
    }
}

/// The paths of one sandbox.
#[derive(Clone, Debug)]
pub(crate) struct Sandbox {
    /// Its id.
    pub(crate) id: SandboxId,
    /// Its directory.
    pub(crate) dir: PathBuf,
    /// Its supervisor's socket.
    pub(crate) socket: PathBuf,
    /// What tells it from every other sandbox of this machine, in its processes' environment.
    pub(crate) key: String,
}

/// The variable that every process of a sandbox carries, so that it is found when its supervisor is dead.
pub(crate) const MARKER: &str = "ALPINE_SANDBOX_KEY";
/// The variable that tells a process which sandbox it is in.
pub(crate) const ID_VARIABLE: &str = "ALPINE_SANDBOX_ID";

impl Sandbox {
    /// The variable that every process of a caller's command carries, and its value for this one.
    pub(crate) fn command_mark(&self, number: u64) -> (&'static str, String) {
        ("ALPINE_COMMAND_KEY", format!("{}-{number}", self.key))
    }

    /// What was asked for when it was made.
    pub(crate) fn intent(&self) -> PathBuf {
        self.dir.join("intent.json")
    }

    /// The highest fence that was seen.
    pub(crate) fn fence(&self) -> PathBuf {
        self.dir.join("fence")
    }

    /// What its supervisor holds for life.
    pub(crate) fn lock(&self) -> PathBuf {
        self.dir.join("shim.lock")
    }

    /// What its supervisor tells of itself.
    pub(crate) fn state(&self) -> PathBuf {
        self.dir.join("state.json")
    }

    /// How it ended.
    pub(crate) fn exit(&self) -> PathBuf {
        self.dir.join("exit.json")
    }

    /// What was installed.
    pub(crate) fn installed(&self) -> PathBuf {
        self.dir.join("installed.json")
    }

    /// Which commit, or which object, the workspace was filled from.
    pub(crate) fn filled(&self) -> PathBuf {
        self.dir.join("filled.json")
    }

    /// The user's files.
    pub(crate) fn workspace(&self) -> PathBuf {
        self.dir.join("workspace")
    }

    /// The agent's own directories.
    pub(crate) fn agent_home(&self) -> PathBuf {
        self.dir.join("agent-home")
    }

    /// The agent's temporary files.
    pub(crate) fn tmp(&self) -> PathBuf {
        self.dir.join("tmp")
    }

    /// What the agent keeps for itself, its conversations among it.
    pub(crate) fn agent_data(&self) -> PathBuf {
        self.agent_home().join("data")
    }

    /// Is there from the start of an agent that has transcripts until all of them are exported.
    pub(crate) fn unexported(&self) -> PathBuf {
        self.dir.join("unexported")
    }

    /// Exported transcripts.
    pub(crate) fn transcript(&self) -> PathBuf {
        self.dir.join("transcript")
    }

    /// Captured snapshots.
    pub(crate) fn staged(&self) -> PathBuf {
        self.dir.join("staged")
    }

    /// The directory of logs.
    pub(crate) fn logs(&self) -> PathBuf {
        self.dir.join("logs")
    }

    /// A log: the newest part of it.
    pub(crate) fn log(&self, log: LogName) -> PathBuf {
        self.logs().join(match log {
            LogName::Install => "install.log",
            LogName::Agent => "agent.log",
        })
    }

    /// Every part of a log, the oldest first, there or not.
    pub(crate) fn log_parts(&self, log: LogName) -> Vec<PathBuf> {
        let newest = self.log(log);
        let older = (1..crate::shim::LOG_PARTS)
            .rev()
            .map(|part| numbered(&newest, part));
        older.chain([newest.clone()]).collect()
    }

    /// The directories that a new sandbox has.
    pub(crate) fn directories(&self) -> Vec<PathBuf> {
        let agent = self.agent_home();
        let of_agent = Server::DIRECTORIES.map(|(_, name)| agent.join(name));
        let mut all = vec![
            self.workspace(),
            agent,
            self.tmp(),
            self.transcript(),
            self.staged(),
            self.logs(),
        ];
        all.extend(of_agent);
        all
    }
}

/// A rotated part of a log.
pub(crate) fn numbered(log: &Path, part: u32) -> PathBuf {
    let mut name = log.as_os_str().to_owned();
    name.push(format!(".{part}"));
    PathBuf::from(name)
}
