//! What a program that embeds the command line brings along: its providers, and where time comes from.

use crate::config::{Config, LOCAL, ProviderTable, Variables, for_git, for_sandboxes, home};
use crate::plugin::{Plugin, PluginSetup};
use alpine_git::{Git, GitConfig};
use alpine_ledger::{SystemClock, WrapFile};
use alpine_lifecycle::{Env, ErrorCode, Failure, Providers, Tips};
use alpine_provider_api::{
    BranchName, CommitId, GitCredential, OpenRequest, Place, ProviderError, Redactor, RepoUrl,
    SandboxProvider, Secret,
};
use alpine_provider_local::{LocalConfig, LocalProvider};
use alpine_provider_port::ENV_ALWAYS;
use async_trait::async_trait;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

/// Makes a provider. It is called once per command that needs the provider, and must not block.
pub type MakeProvider = fn(&ProviderSetup) -> Result<Arc<dyn SandboxProvider>, Failure>;

/// What a program that embeds the command line brings along. The provider `local` is always there.
#[derive(Clone, Debug, Default)]
pub struct Setup {
    /// Providers that are compiled in, by name.
    pub providers: Vec<(&'static str, MakeProvider)>,
    /// The program's name in the commands it prints; found out when none.
    pub program: Option<&'static str>,
    /// Time and chance; the machine's own when none.
    pub env: Option<Env>,
    /// Who knows the branches' tips; git when none.
    pub tips: Option<Arc<dyn Tips>>,
    /// What is laid around the ledger's file; nothing when none.
    pub wrap_ledger: Option<Arc<dyn WrapFile>>,
}

/// What a provider is made with.
#[derive(Clone, Debug)]
pub struct ProviderSetup {
    /// `ALPINE_HOME`. It may not be there yet.
    pub home: PathBuf,
    /// The directory of sockets. It may not be there yet.
    pub run_dir: PathBuf,
    /// The variables that sandboxes start with; none is secret.
    pub env: BTreeMap<String, String>,
    /// How git is run.
    pub git: GitConfig,
    /// The directory of durable objects.
    pub objects: PathBuf,
    /// Values that no log may hold.
    pub secrets: Vec<Secret<String>>,
    /// Takes those out of text.
    pub redactor: Redactor,
    /// The providers that are not compiled in.
    pub(crate) plugins: BTreeMap<String, Plugin>,
}

impl ProviderSetup {
    /// Works everything out; makes nothing.
    pub(crate) fn new(
        config: &Config,
        variables: &Variables,
        secrets: &[Secret<String>],
        redactor: &Redactor,
    ) -> Result<Self, Failure> {
        let home = config.home.value.clone();
        let env = for_sandboxes(variables, &config.pass.value)?;
        let git = GitConfig {
            cache: home.join("cache"),
            path: env.get("PATH").cloned().unwrap_or_default().into(),
            home: variables.lenient("HOME").map(PathBuf::from),
            extra_env: for_git(variables),
            redactor: redactor.clone(),
        };
        let mut with = Self {
            run_dir: home::run_dir(variables, &home)?,
            objects: home.join("objects"),
            home,
            env,
            git,
            secrets: secrets.to_vec(),
            redactor: redactor.clone(),
            plugins: BTreeMap::new(),
        };
        for (name, table) in config.providers.iter() {
            // Settings without a file are for a provider that is yet to be added.
            if table.file.is_some() {
                let setup = with.plugin_setup(name, table, variables)?;
                with.plugins.insert(name.to_owned(), Plugin::new(setup));
            }
        }
        Ok(with)
    }

    /// What a provider that is not compiled in is started with.
    pub(crate) fn plugin_setup(
        &self,
        name: &str,
        table: &ProviderTable,
        variables: &Variables,
    ) -> Result<PluginSetup, Failure> {
        let place = Place {
            name: name.to_owned(),
            state: self.home.join("providers").join(name),
            objects: self.objects.clone(),
            cache: self.git.cache.clone(),
            run: self.run_dir.clone(),
            executable: executable()?,
            env: self.env.clone(),
        };
        let allowed = table.env_allow.iter().map(String::as_str);
        let env = ENV_ALWAYS
            .into_iter()
            .chain(allowed)
            .filter_map(|name| Some((name.to_owned(), variables.lenient(name)?)))
            .map(|(name, value)| (name, Secret::new(value.to_owned())));
        Ok(PluginSetup {
            name: name.to_owned(),
            table: table.clone(),
            open: OpenRequest {
                config: table.config.clone().unwrap_or_default(),
                place,
            },
            env: env.collect(),
            traceparent: variables.traceparent().map(str::to_owned),
            redactor: self.redactor.clone(),
            file: self.home.join("config.toml"),
        })
    }
}

impl Setup {
    /// The names of the providers that are compiled in.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        let others = self.providers.iter().map(|(name, _)| *name);
        std::iter::once(LOCAL).chain(others.filter(|name| *name != LOCAL))
    }

    /// Every provider, by name.
    pub(crate) fn providers(&self, with: &ProviderSetup) -> Result<Providers, Failure> {
        let mut providers = Providers::default().with(LOCAL, local(with)?);
        for (name, make) in &self.providers {
            providers = providers.with(name, make(with)?);
        }
        for (name, plugin) in &with.plugins {
            let configuration = plugin.configuration();
            providers = providers
                .with(name, Arc::new(plugin.clone()))
                .configured(name, configuration);
        }
        Ok(providers)
    }

    /// One provider, if there is one of that name.
    pub(crate) fn provider(
        &self,
        name: &str,
        with: &ProviderSetup,
    ) -> Result<Option<Arc<dyn SandboxProvider>>, Failure> {
        let compiled_in = self
            .providers
            .iter()
            .rev()
            .find(|(known, _)| *known == name);
        match compiled_in {
            Some((_, make)) => make(with).map(Some),
            None if name == LOCAL => local(with).map(Some),
            None => {
                let plugin = with.plugins.get(name).cloned();
                Ok(plugin.map(|plugin| Arc::new(plugin) as Arc<dyn SandboxProvider>))
            }
        }
    }

    /// Who knows the branches' tips.
    pub(crate) fn tips(&self, git: &GitConfig) -> Arc<dyn Tips> {
        self.tips
            .clone()
            .unwrap_or_else(|| Arc::new(GitTips(Git::new(git.clone()))))
    }

    /// Time and chance.
    pub(crate) fn env(&self) -> Env {
        self.env.clone().unwrap_or_else(|| Env {
            clock: Arc::new(SystemClock),
            random: Arc::new(random),
        })
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "this is the `Env` that ids come in through"
)]
fn random() -> u128 {
    // Version and variant of the UUID are fixed bits; mixing two of them leaves none.
    let (first, second) = (
        uuid::Uuid::new_v4().as_u128(),
        uuid::Uuid::new_v4().as_u128(),
    );
    first ^ second.rotate_left(64)
}

/// This very program.
fn executable() -> Result<PathBuf, Failure> {
    std::env::current_exe().map_err(|error| {
        Failure::new(
            ErrorCode::Internal,
            format!("this program's own file can't be found: {error}"),
        )
    })
}

fn local(with: &ProviderSetup) -> Result<Arc<dyn SandboxProvider>, Failure> {
    Ok(Arc::new(LocalProvider::new(LocalConfig {
        home: with.home.clone(),
        run_dir: with.run_dir.clone(),
        executable: executable()?,
        env: with.env.clone(),
        git: with.git.clone(),
        objects: with.objects.clone(),
        secrets: with.secrets.clone(),
    })))
}

/// Asks git.
#[derive(Debug)]
struct GitTips(Git);

#[async_trait]
impl Tips for GitTips {
    async fn tip(
        &self,
        repo: &RepoUrl,
        branch: &BranchName,
        credential: Option<&GitCredential>,
    ) -> Result<CommitId, ProviderError> {
        self.0.tip(repo, branch, credential).await
    }
}
