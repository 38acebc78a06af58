//! Finds out how a repository's dependencies are installed.

use crate::setup;
use alpine_provider_api::ProviderError;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// An install step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// What is run.
    pub argv: Vec<String>,
    /// The same as people write it.
    pub command: String,
    /// The file that it was found by.
    pub found_by: String,
}

/// Lock files in the order in which they are looked for, and what each of them asks for.
pub const LOCK_FILES: [(&str, &str); 13] = [
    ("pnpm-lock.yaml", "pnpm install --frozen-lockfile"),
    ("bun.lock", "bun install --frozen-lockfile"),
    ("bun.lockb", "bun install --frozen-lockfile"),
    ("yarn.lock", "yarn install --immutable"),
    ("package-lock.json", "npm ci"),
    ("npm-shrinkwrap.json", "npm ci"),
    ("uv.lock", "uv sync --frozen"),
    ("poetry.lock", "poetry install --no-interaction"),
    ("requirements.txt", PIP),
    ("Cargo.lock", "cargo fetch --locked"),
    ("go.sum", "go mod download"),
    ("Gemfile.lock", "bundle install"),
    ("composer.lock", "composer install --no-interaction"),
];
const PIP: &str = "python3 -m venv .venv && .venv/bin/pip install -r requirements.txt";
const YARN_1: &str = "yarn install --frozen-lockfile";

/// The install step of a workspace: what `.alpine.toml` says, else what the first lock file asks for.
///
/// # Errors
/// `ConfigInvalid` when `.alpine.toml` is not what it may be.
pub fn detect(workspace: &Path) -> Result<Option<Plan>, ProviderError> {
    if let Some(plan) = setup::read(workspace)? {
        return Ok(Some(plan));
    }
    let there = |name: &str| {
        let meta = workspace.join(name).symlink_metadata();
        meta.is_ok_and(|meta| meta.is_file())
    };
    let found = LOCK_FILES.into_iter().find(|(name, _)| there(name));
    Ok(found.map(|(name, command)| {
        let command = match name {
            "yarn.lock" if is_yarn_1(&workspace.join(name)) => YARN_1,
            _ => command,
        };
        let argv = match command {
            PIP => ["sh", "-c", command].map(str::to_owned).to_vec(),
            _ => command.split(' ').map(str::to_owned).collect(),
        };
        Plan {
            argv,
            command: command.to_owned(),
            found_by: name.to_owned(),
        }
    }))
}

/// So much of a `yarn.lock` tells its version.
pub const YARN_HEAD: u64 = 256;

/// Yarn 1 says so in its lock file's first lines.
fn is_yarn_1(lock: &Path) -> bool {
    use std::io::Read;
    let mut head = Vec::new();
    let read =
        std::fs::File::open(lock).and_then(|file| file.take(YARN_HEAD).read_to_end(&mut head));
    read.is_ok() && String::from_utf8_lossy(&head).contains("# yarn lockfile v1")
}

impl Plan {
    /// The tool that it needs.
    #[must_use]
    pub fn tool(&self) -> &str {
        match self.command.split_once(' ') {
            Some((tool, _)) if self.command == PIP => tool,
            Some(_) | None => self.argv.first().map_or("", String::as_str),
        }
    }

    /// Whether its tool is in the search path; a path of the workspace is left to be found out.
    #[must_use]
    pub fn has_tool(&self, path: &str) -> bool {
        let tool = self.tool();
        tool.contains('/')
            || std::env::split_paths(path).any(|directory| {
                let meta = directory.join(tool).metadata();
                meta.is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
            })
    }
}

#[cfg(test)]
mod tests {
    use super::{LOCK_FILES, detect};

    #[test]
    fn every_lock_file_is_found_and_an_earlier_one_wins() {
        let workspace = tempfile::tempdir().unwrap();
        assert_eq!(detect(workspace.path()).unwrap(), None);
        for (name, command) in LOCK_FILES.into_iter().rev() {
            std::fs::write(workspace.path().join(name), "x").unwrap();
            let plan = detect(workspace.path()).unwrap().unwrap();
            assert_eq!(
                (plan.found_by.as_str(), plan.command.as_str()),
                (name, command)
            );
        }
        std::fs::write(
            workspace.path().join(".alpine.toml"),
            "setup.install = 'true'",
        )
        .unwrap();
        let plan = detect(workspace.path()).unwrap().unwrap();
        assert_eq!(
            (plan.found_by.as_str(), plan.tool()),
            (".alpine.toml", "sh")
        );
    }

    #[test]
    fn yarn_1_has_its_own_flag_and_pip_needs_python() {
        let workspace = tempfile::tempdir().unwrap();
        std::fs::write(workspace.path().join("requirements.txt"), "").unwrap();
        let plan = detect(workspace.path()).unwrap().unwrap();
        assert_eq!((plan.tool(), plan.argv[0].as_str()), ("python3", "sh"));
        assert!(!plan.has_tool("/nowhere:/"));
        std::fs::write(workspace.path().join("yarn.lock"), "# yarn lockfile v1\n").unwrap();
        let plan = detect(workspace.path()).unwrap().unwrap();
        assert_eq!(plan.argv, ["yarn", "install", "--frozen-lockfile"]);
        std::fs::remove_file(workspace.path().join("yarn.lock")).unwrap();
        // A link could lead anywhere.
        std::os::unix::fs::symlink("/etc/passwd", workspace.path().join("go.sum")).unwrap();
        std::os::unix::fs::symlink("/dev/zero", workspace.path().join(".alpine.toml")).unwrap();
        let error = detect(workspace.path()).unwrap_err();
        assert!(error.message.contains("is a symbolic link"), "{error:?}");
    }
}
