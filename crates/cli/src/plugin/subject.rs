//! A provider as the conformance kit sees it: opened anew at any time, and killed.

use super::{Adapt, Plugin, PluginSetup};
use alpine_conformance::{Kill, Reach, Subject, Wire};
use alpine_lifecycle::Failure;
use alpine_provider_api::{ProviderError, SandboxProvider, Secret};
use alpine_provider_local::{Process, marked_by};
use alpine_provider_store::{Isolation, Kind};
use async_trait::async_trait;
use rustix::process::Signal;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

/// The variable by which a process of this check is known.
const MARK: &str = "ALPINE_PROVIDER_CHECK";

/// A provider that is not compiled in: bare, or with what the adapter adds to it.
#[derive(Clone, Debug)]
pub(crate) struct Checkable {
    setup: PluginSetup,
    adapt: Adapt,
    reach: Reach,
    mark: String,
}

impl Checkable {
    /// A provider as it is, and a text that no other check has.
    ///
    /// # Errors
    /// When its file is refused.
    pub(crate) fn new(mut setup: PluginSetup, mark: String) -> Result<Self, Failure> {
        let file = setup.table.file.as_ref();
        let reach = match (file.map(|file| file.value.kind), setup.table.isolation()) {
            (Some(Kind::Exec), _) => Reach::Exec,
            (Some(Kind::Dylib) | None, Isolation::InProcess) => Reach::InProcess,
            (Some(Kind::Dylib) | None, Isolation::Process) => Reach::Hosted,
        };
        setup.env.insert(MARK.to_owned(), Secret::new(mark.clone()));
        Plugin::new(setup.clone()).check()?;
        let adapt = Adapt::No;
        Ok(Self {
            setup,
            adapt,
            reach,
            mark,
        })
    }

    fn plugin(&self) -> Plugin {
        Plugin::with(self.setup.clone(), self.adapt)
    }

    /// The processes that this one has started for it, and not those that they started.
    fn processes(&self) -> Vec<Process> {
        let all = marked_by(format!("{MARK}={}", self.mark).as_bytes());
        let own = Some(std::process::id());
        all.into_iter().filter(|it| it.parent() == own).collect()
    }
}

#[async_trait]
impl Subject for Checkable {
    fn reach(&self) -> Reach {
        self.reach
    }

    async fn open(&self) -> Result<Arc<dyn SandboxProvider>, ProviderError> {
        // It is started with its first call, which may be killed as any other may.
        Ok(Arc::new(self.plugin()))
    }

    fn aim(&self) -> Option<Kill> {
        let found = self.processes();
        let is_there = !found.is_empty();
        let kill = move || found.iter().for_each(|it| it.signal(Signal::KILL));
        is_there.then(|| Box::new(kill) as Kill)
    }

    async fn wire(&self) -> Option<Wire> {
        if self.adapt == Adapt::Yes {
            // It is the bare one's, and was checked as such.
            return None;
        }
        let file = &self.setup.table.file.as_ref()?.value.path;
        let (program, arguments) = match self.reach {
            Reach::CompiledIn | Reach::InProcess => return None,
            Reach::Exec => (file.clone(), Vec::new()),
            Reach::Hosted => {
                // The host knows its purpose by its name, and has the library as descriptor 4.
                let script = "exec -a alpine-provider \"$0\" 3 \"$2\" 4<\"$1\"".into();
                let (host, library) = (&self.setup.open.place.executable, file.into());
                let words = vec!["-c".into(), script, host.into(), library];
                let name = self.setup.name.clone().into();
                ("/bin/bash".into(), [words, vec![name]].concat())
            }
        };
        let env = self.setup.env.iter();
        let env = env.map(|(name, value)| (name.into(), value.expose().into()));
        let open = serde_json::to_vec(&self.setup.open).ok()?;
        Wire::start(&program, &arguments, &env.collect(), open).ok()
    }

    fn own_env(&self) -> BTreeMap<String, Secret<String>> {
        if self.reach == Reach::InProcess {
            // It has the environment of this process.
            return BTreeMap::new();
        }
        // What sandboxes start with is theirs, too.
        let theirs = &self.setup.open.place.env;
        let allowed = self.setup.table.env_allow.iter().map(String::as_str);
        let own = allowed
            .chain([MARK])
            .filter(|name| !theirs.contains_key(*name));
        own.filter_map(|name| Some((name.to_owned(), self.setup.env.get(name)?.clone())))
            .collect()
    }

    fn objects(&self) -> Option<PathBuf> {
        Some(self.setup.open.place.objects.clone())
    }

    async fn adapted(&self) -> Result<Option<Box<dyn Subject>>, ProviderError> {
        let adapt = Adapt::Yes;
        let adapted = Self {
            adapt,
            ..self.clone()
        };
        let (bare, whole) = (self.plugin(), adapted.plugin());
        // A provider that is whole by itself is left as it is.
        let is_same = bare.describe().await?.methods == whole.describe().await?.methods;
        Ok((!is_same).then(|| Box::new(adapted) as Box<dyn Subject>))
    }
}
