//! What is checked, and how it is reached.

use crate::Wire;
use alpine_provider_api::{ProviderError, SandboxProvider, Secret};
use async_trait::async_trait;
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

/// How a provider is reached: some checks are of the way itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// A plain call.
    CompiledIn,
    /// A library in this process.
    InProcess,
    /// A library in a child process.
    Hosted,
    /// An executable.
    Exec,
}

impl Reach {
    /// The name in reports.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Reach::CompiledIn => "compiled in",
            Reach::InProcess => "in process",
            Reach::Hosted => "hosted",
            Reach::Exec => "executable",
        }
    }
}

/// Kills the processes that were aimed at.
pub type Kill = Box<dyn FnOnce() + Send>;

/// A provider that can be opened anew at any time, on the same state.
#[async_trait]
pub trait Subject: Send + Sync + fmt::Debug {
    /// How it is reached.
    fn reach(&self) -> Reach;

    /// Opens a fresh instance; where it has a process of its own, a fresh process.
    async fn open(&self) -> Result<Arc<dyn SandboxProvider>, ProviderError>;

    /// Takes aim at the process of every instance that was opened: what this gives kills them, by force and at once. None
    /// where there is none to kill.
    fn aim(&self) -> Option<Kill> {
        None
    }

    /// Starts a process of it and gives the raw end of its wire, before anything was said; none where there is no wire.
    async fn wire(&self) -> Option<Wire> {
        None
    }

    /// The directory in which it keeps durable objects, where that can be reached, so that one can be damaged.
    fn objects(&self) -> Option<PathBuf> {
        None
    }

    /// Variables of its process alone, with their values, which are secrets: commands must not get them. None where none is
    /// known.
    fn own_env(&self) -> BTreeMap<String, Secret<String>> {
        BTreeMap::new()
    }

    /// The same with what the host adds to it, where the host adds anything: this is checked, too.
    ///
    /// # Errors
    /// When the provider does not say what it has.
    async fn adapted(&self) -> Result<Option<Box<dyn Subject>>, ProviderError> {
        Ok(None)
    }
}

/// A provider that is compiled in.
pub struct CompiledIn {
    open: Box<dyn Fn() -> Arc<dyn SandboxProvider> + Send + Sync>,
    objects: Option<PathBuf>,
    own_env: BTreeMap<String, Secret<String>>,
}

impl CompiledIn {
    /// Opens an instance with this function each time.
    #[must_use]
    pub fn new(open: impl Fn() -> Arc<dyn SandboxProvider> + Send + Sync + 'static) -> Self {
        Self {
            open: Box::new(open),
            objects: None,
            own_env: BTreeMap::new(),
        }
    }

    /// The same, with the directory of its durable objects.
    #[must_use]
    pub fn with_objects(mut self, objects: impl Into<PathBuf>) -> Self {
        self.objects = Some(objects.into());
        self
    }

    /// The same, with variables of this process that commands must not get.
    #[must_use]
    pub fn with_own_env(mut self, env: BTreeMap<String, Secret<String>>) -> Self {
        self.own_env = env;
        self
    }
}

impl fmt::Debug for CompiledIn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CompiledIn")
            .field("objects", &self.objects)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl Subject for CompiledIn {
    fn reach(&self) -> Reach {
        Reach::CompiledIn
    }

    async fn open(&self) -> Result<Arc<dyn SandboxProvider>, ProviderError> {
        Ok((self.open)())
    }

    fn objects(&self) -> Option<PathBuf> {
        self.objects.clone()
    }

    fn own_env(&self) -> BTreeMap<String, Secret<String>> {
        self.own_env.clone()
    }
}
