//! The environment of a git process: everything that could make it run something else, ask, or wait is off.

use crate::git::GitConfig;
use alpine_provider_api::{GitCredential, ProviderError, Redactor, RepoUrl, Transport};
use std::ffi::OsString;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

const TOKEN_VARIABLE: &str = "ALPINE_GIT_TOKEN";
const HELPER: &str = r#"!f() { test "$1" = get && printf 'username=x-access-token\npassword=%s\n' "$ALPINE_GIT_TOKEN"; }; f"#;

/// The variables of one git process, and what takes its secrets out of its output. It has no `Debug`: one may be a token.
pub(crate) struct Environment {
    pub(crate) variables: Vec<(String, OsString)>,
    pub(crate) directory: PathBuf,
    pub(crate) redactor: Redactor,
}

impl Environment {
    /// For a process that talks to a remote.
    pub(crate) fn remote(
        config: &GitConfig,
        repo: &RepoUrl,
        credential: Option<&GitCredential>,
    ) -> Self {
        let mut environment = Self::base(config, repo.transport());
        let scheme = scheme(repo.transport());
        let mut settings = settings();
        match credential {
            Some(GitCredential::Token { host, token }) => {
                settings.push((
                    format!("credential.{scheme}://{host}.helper"),
                    HELPER.into(),
                ));
                settings.push(("http.followRedirects".into(), "false".into()));
                environment.set(TOKEN_VARIABLE, token.expose());
                environment.redactor.learn(token);
            }
            Some(GitCredential::SshAgent { socket }) => environment.set("SSH_AUTH_SOCK", socket),
            None => {}
        }
        environment.configure(&settings);
        environment
    }

    /// For a process that works on a mirror or a fresh workspace and needs no network.
    pub(crate) fn offline(config: &GitConfig) -> Self {
        let mut environment = Self::base(config, Transport::File);
        environment.set("GIT_ALLOW_PROTOCOL", "none");
        environment.configure(&settings());
        environment
    }

    /// For a process that only reads the user's own configuration.
    pub(crate) fn users_own(config: &GitConfig, user_home: &Path) -> Self {
        let mut environment = Self::base(config, Transport::File);
        environment.set("HOME", user_home);
        for name in ["GIT_CONFIG_GLOBAL", "XDG_CONFIG_HOME"] {
            environment.variables.retain(|(known, _)| known != name);
        }
        environment
    }

    /// The same, and git reads the repositories that this file names whoever their owner is.
    pub(crate) fn trust(&mut self, file: &Path) {
        self.set("GIT_CONFIG_GLOBAL", file);
    }

    /// The same, in a repository.
    pub(crate) fn in_repository(mut self, git_dir: &Path, work_tree: Option<&Path>) -> Self {
        self.set("GIT_DIR", git_dir);
        if let Some(work_tree) = work_tree {
            self.set("GIT_WORK_TREE", work_tree);
            self.directory = work_tree.to_owned();
        }
        self
    }

    fn base(config: &GitConfig, transport: Transport) -> Self {
        let home = home(&config.cache);
        let mut environment = Self {
            variables: Vec::new(),
            directory: home.clone(),
            redactor: config.redactor.clone(),
        };
        for (name, value) in &config.extra_env {
            environment.set(name, value);
        }
        environment.set("PATH", &config.path);
        environment.set("HOME", &home);
        environment.set("XDG_CONFIG_HOME", &home);
        // Without a repository of its own, git would look for one in the directories above and obey its configuration.
        environment.set("GIT_DIR", home.join("none"));
        for (name, value) in [
            ("LC_ALL", "C"),
            ("GIT_CONFIG_NOSYSTEM", "1"),
            ("GIT_CONFIG_SYSTEM", "/dev/null"),
            ("GIT_CONFIG_GLOBAL", "/dev/null"),
            ("GIT_ATTR_NOSYSTEM", "1"),
            ("GIT_TERMINAL_PROMPT", "0"),
            ("SSH_ASKPASS_REQUIRE", "never"),
            ("GIT_OPTIONAL_LOCKS", "0"),
            ("GIT_PROTOCOL_FROM_USER", "0"),
            ("GIT_LFS_SKIP_SMUDGE", "1"),
            ("GIT_NO_LAZY_FETCH", "1"),
        ] {
            environment.set(name, value);
        }
        environment.set("GIT_ALLOW_PROTOCOL", scheme(transport));
        environment
    }

    fn configure(&mut self, settings: &[(String, String)]) {
        self.set("GIT_CONFIG_COUNT", settings.len().to_string());
        for (index, (key, value)) in settings.iter().enumerate() {
            self.set(&format!("GIT_CONFIG_KEY_{index}"), key);
            self.set(&format!("GIT_CONFIG_VALUE_{index}"), value);
        }
    }

    fn set(&mut self, name: &str, value: impl Into<OsString>) {
        self.variables.retain(|(known, _)| known != name);
        self.variables.push((name.to_owned(), value.into()));
    }
}

/// Makes the empty directory that git takes for its home.
pub(crate) fn prepare_home(cache: &Path) -> Result<(), ProviderError> {
    let home = home(cache);
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&home)
        .map_err(|error| ProviderError::io(format!("can't make `{}`", home.display()), &error))
}

pub(crate) fn home(cache: &Path) -> PathBuf {
    cache.join("git-home")
}

fn scheme(transport: Transport) -> &'static str {
    match transport {
        Transport::Https => "https",
        Transport::Http => "http",
        Transport::Ssh => "ssh",
        Transport::File => "file",
    }
}

/// Settings that hold for every process; they come after all files, so that nothing overrides them.
fn settings() -> Vec<(String, String)> {
    [
        ("core.hooksPath", "/dev/null"),
        ("core.fsmonitor", "false"),
        ("core.sshCommand", "ssh -o BatchMode=yes"),
        ("core.askPass", ""),
        // An empty helper forgets those that were configured before.
        ("credential.helper", ""),
        ("http.followRedirects", "initial"),
        // A transfer that stands still for five minutes ends by itself, even if nobody is left to end it.
        ("http.lowSpeedLimit", "1"),
        ("http.lowSpeedTime", "300"),
        ("protocol.ext.allow", "never"),
        ("submodule.recurse", "false"),
        ("fetch.recurseSubmodules", "false"),
        ("gc.auto", "0"),
        ("maintenance.auto", "false"),
        ("fetch.unpackLimit", "1"),
        ("transfer.credentialsInUrl", "die"),
        ("advice.detachedHead", "false"),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .collect()
}
