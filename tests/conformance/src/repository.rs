//! The repository that is brought into sandboxes: made by git, in the run's own directory.

use crate::called::Checking;
use crate::serve::Server;
use alpine_provider_api::{BranchName, CommitId, RepoUrl};
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A commit of a branch.
#[derive(Clone, Debug)]
pub(crate) struct Pinned {
    pub(crate) repo: RepoUrl,
    pub(crate) branch: BranchName,
    pub(crate) commit: CommitId,
}

/// What the branches hold.
#[derive(Debug)]
pub(crate) struct Repository {
    path: PathBuf,
    /// `main` as it was before it moved on: `version` is `1`, and there are files of every kind.
    pub(crate) pinned: Pinned,
    /// `main` as it is: `version` is `2`.
    pub(crate) tip: Pinned,
    /// Its install step says something, adds a line to `installed`, and exits 0.
    pub(crate) installs: Pinned,
    /// Its install step says `the last words` and exits 3.
    pub(crate) fails: Pinned,
    /// Its install step adds a line to `beat` for ever.
    pub(crate) lasts: Pinned,
    /// Its install step says `first`, waits for a file `go`, and says `second`.
    pub(crate) talks: Pinned,
    /// A branch whose name is as odd as git permits.
    pub(crate) odd: Pinned,
}

/// A file whose name needs care everywhere.
pub(crate) const ODD_FILE: &str = "odd $(touch x) 'é' \"q\" ;&|";
/// A branch whose name needs care everywhere.
const ODD_BRANCH: &str = "odd/$(touch,x)';é\"&|";

impl Repository {
    pub(crate) fn make(directory: &Path) -> io::Result<Self> {
        let at = directory.join("repository with 'quotes'");
        fs::create_dir_all(at.join("empty directories are not kept"))?;
        let git = Git { at };
        git.run(["init", "--quiet", "--initial-branch", "main"])?;
        git.write("version", "1\n")?;
        git.write("README.md", "read me\n")?;
        git.write(".gitignore", "ignored/\n*.log\n")?;
        git.write(ODD_FILE, "odd\n")?;
        git.write("bin/run", "#!/bin/sh\necho ran\n")?;
        fs::set_permissions(git.at.join("bin/run"), fs::Permissions::from_mode(0o755))?;
        git.write("src/empty", "")?;
        symlink("../README.md", git.at.join("src/link"))?;
        symlink("nowhere", git.at.join("dangling"))?;
        let pinned = git.commit("main")?;
        let step = |branch: &str, command: &str| {
            git.run(["checkout", "--quiet", "-B", branch, pinned.commit.as_str()])?;
            git.write(".alpine.toml", &format!("[setup]\ninstall = '{command}'\n"))?;
            git.commit(branch)
        };
        let installs = step("installs", "echo first words; echo once >> installed")?;
        let fails = step("fails", "echo the last words; exit 3")?;
        let lasts = step("lasts", "while echo beat >> beat; do sleep 0.02; done")?;
        let talks = step(
            "talks",
            "echo first; touch began; until [ -e go ]; do sleep 0.01; done; echo second",
        )?;
        git.run([
            "checkout",
            "--quiet",
            "-B",
            ODD_BRANCH,
            pinned.commit.as_str(),
        ])?;
        let odd = git.commit(ODD_BRANCH)?;
        git.run(["checkout", "--quiet", "main"])?;
        git.write("version", "2\n")?;
        let tip = git.commit("main")?;
        Ok(Self {
            path: git.at,
            pinned,
            tip,
            installs,
            fails,
            lasts,
            talks,
            odd,
        })
    }
}

impl Repository {
    /// Serves it over HTTP to who bears the token.
    pub(crate) async fn serve(&self, token: &str) -> Checking<Server> {
        Server::start(&self.path, token).await
    }
}

struct Git {
    at: PathBuf,
}

impl Git {
    fn write(&self, name: &str, text: &str) -> io::Result<()> {
        let file = self.at.join(name);
        if let Some(directory) = file.parent() {
            fs::create_dir_all(directory)?;
        }
        fs::write(file, text)
    }

    fn commit(&self, branch: &str) -> io::Result<Pinned> {
        self.run(["add", "--all"])?;
        self.run(["commit", "--quiet", "--allow-empty", "--message", "one"])?;
        let head = self.run(["rev-parse", "HEAD"])?;
        let wrong = |what: &str| io::Error::other(format!("git: unusable {what}"));
        let path = self.at.to_str().ok_or_else(|| wrong("path"))?;
        Ok(Pinned {
            repo: RepoUrl::parse(path, Path::new("/")).map_err(io::Error::other)?,
            branch: BranchName::new(branch).ok_or_else(|| wrong("branch"))?,
            commit: CommitId::new(head.trim()).ok_or_else(|| wrong("commit"))?,
        })
    }

    /// Runs git without anybody's configuration; gives what it says.
    fn run<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> io::Result<String> {
        let output = Command::new("git")
            .args([
                "-c",
                "user.name=Conformance",
                "-c",
                "user.email=c@example.com",
            ])
            .args(arguments)
            .current_dir(&self.at)
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env_remove("GIT_DIR")
            .env_remove("GIT_WORK_TREE")
            .env_remove("GIT_INDEX_FILE")
            .output()?;
        if !output.status.success() {
            let complaint = String::from_utf8_lossy(&output.stderr);
            return Err(io::Error::other(format!("git: {complaint}")));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}
