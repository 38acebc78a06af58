//! Real repositories, made by real git, the same each time.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A repository with a working tree.
#[derive(Clone, Debug)]
pub struct TestRepo {
    /// Where it is.
    pub path: PathBuf,
    /// The commit of its first files.
    pub head: String,
}

impl TestRepo {
    /// Makes a repository on branch `main` with one commit.
    pub(crate) fn make(path: &Path, files: &[(&str, &str)]) -> Self {
        fs::create_dir_all(path).expect("a repository's directory");
        let mut repo = Self {
            path: path.to_owned(),
            head: String::new(),
        };
        repo.git(&["init", "--quiet", "--initial-branch", "main"]);
        repo.head = repo.commit("first", files);
        repo
    }

    /// Writes files and commits everything; gives the commit.
    ///
    /// # Panics
    /// When git fails.
    pub fn commit(&self, message: &str, files: &[(&str, &str)]) -> String {
        for (name, content) in files {
            let file = self.path.join(name);
            fs::create_dir_all(file.parent().expect("a directory")).expect("a directory");
            fs::write(file, content).expect("a file");
        }
        self.git(&["add", "--all"]);
        self.git(&["commit", "--quiet", "--allow-empty", "--message", message]);
        self.git(&["rev-parse", "HEAD"])
    }

    /// Runs git in it; gives what it says, without the last line's end.
    ///
    /// # Panics
    /// When git fails.
    pub fn git(&self, arguments: &[&str]) -> String {
        let output = Command::new("git")
            .args(arguments)
            .current_dir(&self.path)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", &self.path)
            .env("LC_ALL", "C")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_AUTHOR_NAME", "Test")
            .env("GIT_AUTHOR_EMAIL", "test@example.com")
            .env("GIT_AUTHOR_DATE", "2030-01-01T00:00:00Z")
            .env("GIT_COMMITTER_NAME", "Test")
            .env("GIT_COMMITTER_EMAIL", "test@example.com")
            .env("GIT_COMMITTER_DATE", "2030-01-01T00:00:00Z")
            .output()
            .expect("git");
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "git {arguments:?}: {complaint}");
        String::from_utf8_lossy(&output.stdout)
            .trim_end()
            .to_owned()
    }
}
