//! Writes the few files that make a directory a repository, so that no process is needed for it.

use crate::git::Progress;
use alpine_provider_api::{BranchName, CommitId, RepoUrl};
use rustix::fs::ioctl_ficlone;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

/// What a session's repository is told of where it comes from.
#[derive(Debug)]
pub(crate) struct Origin {
    pub(crate) repo: RepoUrl,
    pub(crate) branch: BranchName,
    pub(crate) commit: CommitId,
}

/// Whether the id is one of a repository of the newer kind.
pub(crate) fn is_sha256(commit: &CommitId) -> bool {
    commit.as_str().len() == 64
}

/// Makes an empty bare repository.
pub(crate) fn bare(path: &Path, commit: &CommitId) -> io::Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path.join("objects/pack"))?;
    fs::create_dir_all(path.join("refs"))?;
    fs::write(path.join("config"), core(commit, true))?;
    fs::write(path.join("HEAD"), "ref: refs/heads/none\n")
}

/// Makes a session's repository: on the branch, at the commit, with all that the mirror holds.
pub(crate) fn session(git_dir: &Path, mirror: &Path, origin: &Origin) -> io::Result<()> {
    for name in ["objects", "refs/heads", "refs/tags", "info", "hooks"] {
        fs::create_dir_all(git_dir.join(name))?;
    }
    let Origin {
        repo,
        branch,
        commit,
    } = origin;
    let (url, section) = (quoted(repo.as_str()), quoted(branch.as_str()));
    let merge = quoted(&format!("refs/heads/{branch}"));
    let config = format!(
        "{}[remote \"origin\"]\n\turl = {url}\n\tfetch = +refs/heads/*:refs/remotes/origin/*\n\
         [branch {section}]\n\tremote = origin\n\tmerge = {merge}\n",
        core(commit, false)
    );
    fs::write(git_dir.join("config"), config)?;
    let refs = format!(
        "# pack-refs with: peeled fully-peeled sorted \n{commit} refs/heads/{branch}\n{commit} refs/remotes/origin/{branch}\n"
    );
    fs::write(git_dir.join("packed-refs"), refs)?;
    fs::write(git_dir.join("HEAD"), format!("ref: refs/heads/{branch}\n"))?;
    match fs::copy(mirror.join("shallow"), git_dir.join("shallow")) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(_) | Err(_) => {}
    }
    share(
        &mirror.join("objects"),
        &git_dir.join("objects"),
        &mut Way::Clone,
    )
}

/// Nothing is known of how far it is: tells only that it goes on.
pub(crate) fn told(progress: Progress<'_>) {
    progress(0, None);
}

fn core(commit: &CommitId, bare: bool) -> String {
    let sha256 = is_sha256(commit);
    let version = u8::from(sha256);
    let logs = if bare {
        ""
    } else {
        "\tlogallrefupdates = true\n"
    };
    let format = if sha256 {
        "[extensions]\n\tobjectformat = sha256\n"
    } else {
        ""
    };
    format!(
        "[core]\n\trepositoryformatversion = {version}\n\tfilemode = true\n\tbare = {bare}\n{logs}{format}"
    )
}

/// A value or a subsection's name in a git configuration file.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// How a file of objects gets into a session, cheapest first.
#[derive(Clone, Copy)]
enum Way {
    Clone,
    Link,
    Copy,
}

fn share(from: &Path, to: &Path, way: &mut Way) -> io::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let name = entry.file_name();
        let kind = entry.file_type()?;
        let text = name.to_string_lossy();
        if text.starts_with("tmp_") || text == "alternates" {
            continue;
        }
        let target = to.join(&name);
        if kind.is_dir() {
            fs::create_dir_all(&target)?;
            share(&entry.path(), &target, way)?;
        } else if kind.is_file() {
            share_file(&entry.path(), &target, way)?;
        }
    }
    Ok(())
}

fn share_file(from: &Path, to: &Path, way: &mut Way) -> io::Result<()> {
    if let Way::Clone = way {
        if clone(from, to).is_ok() {
            return Ok(());
        }
        *way = Way::Link;
    }
    if let Way::Link = way {
        if fs::hard_link(from, to).is_ok() {
            return Ok(());
        }
        *way = Way::Copy;
    }
    fs::copy(from, to).map(|_| ())
}

fn clone(from: &Path, to: &Path) -> io::Result<()> {
    let source = File::open(from)?;
    let target = File::options().write(true).create_new(true).open(to)?;
    let cloned = ioctl_ficlone(&target, &source)
        .map_err(io::Error::from)
        .and_then(|()| target.set_permissions(source.metadata()?.permissions()));
    if cloned.is_err() {
        fs::remove_file(to)?;
    }
    cloned
}

#[cfg(test)]
mod tests {
    use super::quoted;

    #[test]
    fn values_are_quoted() {
        assert_eq!(quoted(r#"/a "b"\c;#d"#), r#""/a \"b\"\\c;#d""#);
    }
}
