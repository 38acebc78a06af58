//! Repositories of another owner: git reads them only if the user's own `safe.directory` names them.
//!
//! Git reads a repository on this machine through a second process that gets no settings but those of files. So the
//! exception is a file of ours that names this one repository; of the user's configuration nothing else is taken over.

use crate::child::{Invocation, run};
use crate::environment::{Environment, home};
use crate::git::GitConfig;
use alpine_provider_api::{ProviderError, RepoUrl};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Whether git did not read a repository since it belongs to another user.
pub(crate) fn is_refused(said: &[String]) -> bool {
    said.iter().any(|line| line.contains("dubious ownership"))
}

/// The file that makes git read this repository, if the user says that it is safe.
pub(crate) async fn exception(
    config: &GitConfig,
    repo: &RepoUrl,
) -> Result<Option<PathBuf>, ProviderError> {
    let (Some(path), Some(user_home)) = (repo.local_path(), &config.home) else {
        return Ok(None);
    };
    let names = names(path);
    let environment = Environment::users_own(config, user_home);
    let asked =
        Invocation::new(&environment).args(["config", "--null", "--get-all", "safe.directory"]);
    let ended = run(asked, None).await?;
    let listed = String::from_utf8_lossy(&ended.stdout).into_owned();
    if ended.code != Some(0) || !is_listed(listed.split_terminator('\0'), user_home, &names) {
        return Ok(None);
    }
    tracing::info!(%repo, "another user's repository is read, since `safe.directory` names it");
    write(config, &names).map(Some)
}

/// What git may call the repository: its directory or the `.git` in it, as it was given or without links.
fn names(path: &Path) -> Vec<String> {
    let real = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let mut names = Vec::new();
    for path in [path, &real] {
        for path in [path.to_owned(), path.join(".git")] {
            if let Some(name) = path.to_str().map(str::to_owned)
                && !names.contains(&name)
            {
                names.push(name);
            }
        }
    }
    names
}

/// The rules of git: an empty value forgets those before it, `*` is everything, `/*` at the end all that is below.
fn is_listed<'a>(listed: impl Iterator<Item = &'a str>, home: &Path, names: &[String]) -> bool {
    let mut found = false;
    for value in listed {
        let value = match value.strip_prefix("~/") {
            Some(rest) => home.join(rest).to_string_lossy().into_owned(),
            None => value.to_owned(),
        };
        if value.is_empty() {
            found = false;
        } else if value == "*" {
            found = true;
        } else if let Some(above) = value.strip_suffix('*').filter(|text| text.ends_with('/')) {
            found |= names.iter().any(|name| name.starts_with(above));
        } else {
            let value = value.strip_suffix('/').unwrap_or(&value);
            found |= names.iter().any(|name| name == value);
        }
    }
    found
}

/// Its name is that of what is in it, so that whoever writes it writes the same.
fn write(config: &GitConfig, names: &[String]) -> Result<PathBuf, ProviderError> {
    static TRIES: AtomicU64 = AtomicU64::new(0);
    let mut text = "[safe]\n".to_owned();
    for name in names {
        text += &format!("\tdirectory = {}\n", quoted(name));
    }
    let digest = blake3::hash(text.as_bytes()).to_hex();
    let path = home(&config.cache).join(format!("safe-{}", &digest[..32]));
    let count = TRIES.fetch_add(1, Ordering::Relaxed);
    let part = path.with_extension(format!("{}-{count}", std::process::id()));
    fs::write(&part, text)
        .and_then(|()| fs::rename(&part, &path))
        .map_err(|error| ProviderError::io(format!("can't write `{}`", path.display()), &error))?;
    Ok(path)
}

/// A value as git's configuration files have it.
fn quoted(text: &str) -> String {
    let escaped = text
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
        .replace('\t', "\\t");
    format!("\"{escaped}\"")
}

#[cfg(test)]
mod tests {
    use super::is_listed;
    use std::path::Path;

    #[test]
    fn the_list_is_read_as_git_reads_it() {
        let names = ["/r/x".to_owned(), "/r/x/.git".to_owned()];
        for (listed, found) in [
            (&["/r/x"][..], true),
            (&["/r/x/"], true),
            (&["/r/x/.git"], true),
            (&["*"], true),
            (&["/r/*"], true),
            (&["~/x"], true),
            (&["/r/x", ""], false),
            (&["", "/r/x"], true),
            (&["/r", "/r/xx", "/r/x*", "x", ".", "/r/x/y/*", "~/"], false),
            (&[], false),
        ] {
            let told = is_listed(listed.iter().copied(), Path::new("/r"), &names);
            assert_eq!(told, found, "{listed:?}");
        }
    }
}
