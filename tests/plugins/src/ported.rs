//! A provider behind the port, as a subject of the conformance kit.

use alpine_conformance::{Kill, Reach, Subject, Wire};
use alpine_provider_adapter::whole;
use alpine_provider_api::{
    ErrorKind, OpenRequest, Place, ProviderError, Redactor, SandboxProvider, Secret,
};
use alpine_provider_local::{Process, marked_by};
use alpine_provider_port::{PortConfig, PortProvider, Source, Timings};
use alpine_testkit::is_whole;
use async_trait::async_trait;
use rustix::process::{Pid, Signal};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// The variable by which the processes of one subject are found.
const MARK: &str = "ALPINE_TEST_SUBJECT";

/// How a provider is reached over the port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// A library in a child process.
    Hosted,
    /// A library in this process.
    InProcess,
    /// An executable.
    Exec,
}

/// A provider of `plugins/` behind the port.
#[derive(Clone, Debug)]
pub struct Ported {
    by: By,
    file: PathBuf,
    host: PathBuf,
    /// What it is opened with.
    pub open: OpenRequest,
    /// The environment of its process.
    pub env: BTreeMap<String, String>,
    /// How long things may take.
    pub timings: Timings,
    adapted: bool,
}

impl Ported {
    /// A provider whose file this is, with its state in `directory`; `host` is a program that is nothing but `hosted`.
    #[must_use]
    pub fn new(by: By, file: &Path, host: &Path, directory: &Path) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        // The system's own interpreters first: what stands before them may be slow to start.
        let path = format!("/usr/bin:{}", std::env::var("PATH").unwrap_or_default());
        let place = Place {
            name: "acme".to_owned(),
            state: directory.join("state"),
            objects: directory.join("objects"),
            cache: directory.join("cache"),
            run: directory.join("run"),
            executable: host.to_owned(),
            env: BTreeMap::from([("PATH".to_owned(), path.clone())]),
        };
        Self {
            by,
            file: file.to_owned(),
            host: host.to_owned(),
            open: OpenRequest {
                config: Value::Null,
                place,
            },
            env: BTreeMap::from([
                ("PATH".to_owned(), path),
                (MARK.to_owned(), format!("{}-{number}", std::process::id())),
            ]),
            timings: Timings::default(),
            adapted: false,
        }
    }

    /// The same, made whole by the adapter.
    #[must_use]
    pub fn adapted(mut self) -> Self {
        self.adapted = true;
        self
    }

    /// The checks to be made of it, as texts that their names hold; none are all. What is checked whole in a process of its own
    /// is checked in this one for what the way there can change.
    #[must_use]
    pub fn only(&self) -> &'static [&'static str] {
        match self.by {
            By::InProcess if !is_whole() => &[
                "boundary",
                "describe",
                "arguments",
                "provision",
                "exec",
                "stop",
                "crash",
            ],
            By::Hosted | By::InProcess | By::Exec => &[],
        }
    }

    /// The same, with a configuration.
    #[must_use]
    pub fn config(mut self, config: Value) -> Self {
        self.open.config = config;
        self
    }

    /// An instance; nothing is started before its first call.
    ///
    /// # Panics
    /// When its file can't be opened.
    #[must_use]
    pub fn port(&self) -> PortProvider {
        let library = || OwnedFd::from(File::open(&self.file).expect("a library"));
        let source = match self.by {
            By::Hosted => Source::Hosted {
                library: library(),
                program: self.host.clone(),
            },
            By::InProcess => Source::InProcess { library: library() },
            By::Exec => Source::Executable {
                program: self.file.clone(),
                args: Vec::new(),
            },
        };
        let env = self.env.iter();
        PortProvider::new(PortConfig {
            name: "acme".to_owned(),
            source,
            open: self.open.clone(),
            env: env
                .map(|(name, value)| (name.clone(), Secret::new(value.clone())))
                .collect(),
            traceparent: None,
            redactor: Redactor::new(&[]),
            timings: self.timings,
        })
    }

    /// The processes of every instance.
    #[must_use]
    pub fn processes(&self) -> Vec<Pid> {
        let pids = self.marked().into_iter().map(|it| it.pid.cast_signed());
        pids.filter_map(Pid::from_raw).collect()
    }

    fn marked(&self) -> BTreeSet<Process> {
        marked_by(format!("{MARK}={}", self.env[MARK]).as_bytes())
    }

    /// The program of its wire, and its arguments.
    fn program(&self) -> (PathBuf, Vec<OsString>) {
        match self.by {
            By::Exec | By::InProcess => (self.file.clone(), Vec::new()),
            By::Hosted => {
                // The host knows its purpose by its name, and has the library as descriptor 4.
                let script = "exec -a alpine-provider \"$0\" 3 acme 4<\"$1\"";
                let words = ["-c".into(), script.into(), self.host.clone().into()];
                let mut words: Vec<OsString> = words.to_vec();
                words.push(self.file.clone().into());
                ("/bin/bash".into(), words)
            }
        }
    }
}

#[async_trait]
impl Subject for Ported {
    fn reach(&self) -> Reach {
        match self.by {
            By::Hosted => Reach::Hosted,
            By::InProcess => Reach::InProcess,
            By::Exec => Reach::Exec,
        }
    }

    async fn open(&self) -> Result<Arc<dyn SandboxProvider>, ProviderError> {
        if !self.adapted {
            return Ok(Arc::new(self.port()));
        }
        // Asking what it has starts it, and it may be killed then as at any other moment.
        let mut tries = 5;
        loop {
            match whole(Arc::new(self.port()), &self.open.place).await {
                Err(error) if error.kind == ErrorKind::Crashed && tries > 0 => tries -= 1,
                opened => return opened,
            }
        }
    }

    fn aim(&self) -> Option<Kill> {
        let found = self.marked();
        let is_there = !found.is_empty();
        let kill = move || found.iter().for_each(|it| it.signal(Signal::KILL));
        is_there.then(|| Box::new(kill) as Kill)
    }

    async fn wire(&self) -> Option<Wire> {
        if self.by == By::InProcess || self.adapted {
            return None;
        }
        let (program, arguments) = self.program();
        let env = self.env.iter();
        let env = env
            .map(|(name, value)| (name.into(), value.into()))
            .collect();
        let open = serde_json::to_vec(&self.open).ok()?;
        Wire::start(&program, &arguments, &env, open).ok()
    }

    fn own_env(&self) -> BTreeMap<String, Secret<String>> {
        // A library in this process has this one's environment.
        let is_given = |(name, _): &(&String, &String)| *name == MARK && self.by != By::InProcess;
        let given = self.env.iter().filter(is_given);
        given
            .map(|(name, value)| (name.clone(), Secret::new(value.clone())))
            .collect()
    }

    fn objects(&self) -> Option<PathBuf> {
        Some(self.open.place.objects.clone())
    }
}
