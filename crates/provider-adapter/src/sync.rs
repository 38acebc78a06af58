//! Brings a repository into the workspace: checked out here, into a tree that nobody else writes, and streamed in.

use crate::pipe::{InputWriter, PIECE, PIECES};
use crate::provider::Adapted;
use crate::record::{Filled, Record};
use crate::run::{Sink, blocking};
use crate::sandboxes::Sandboxes;
use alpine_files::{self as file, random_u32};
use alpine_provider_api::*;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::mpsc;

/// Unpacks a tar stream into a new directory of the workspace.
const UNPACK: &str = r#"
mkdir "./$1" && exec tar -x -o -f - -C "./$1"
"#;

/// Puts what was unpacked in the place of everything else in the workspace.
///
/// The script of an earlier try may still run: where its provider was killed, nobody was left to end it. Everything is moved,
/// and what earlier tries have first: theirs then finds neither the place that it moves things to nor, above its own, the
/// workspace.
const PUT: &str = r#"
set -e
old="$1.old"
mkdir "./$old"
for name in .alpine-incoming-* ..?* .[!.]* *; do
    if [ "$name" != "$1" ] && [ "$name" != "$old" ] && { [ -e "./$name" ] || [ -L "./$name" ]; }; then
        # A directory's own `..` is another one then: only who may write to it may move it.
        if [ -d "./$name" ] && [ ! -L "./$name" ]; then chmod u+rwx "./$name" || :; fi
        mv "./$name" "./$old/$name"
    fi
done
cd "./$1"
for name in ..?* .[!.]* *; do
    if [ -L "./$name" ] || [ -e "./$name" ] && ! { [ -d "./$name" ] && [ ! -w "./$name" ]; }; then
        mv "./$name" ..
    elif [ -d "./$name" ]; then
        chmod u+w "./$name"; mv "./$name" ..; chmod u-w "../$name"
    fi
done
cd ..
rmdir "./$1"
chmod -R u+rwx "./$old" || :
rm -rf "./$old"
"#;

/// Reads what HEAD is without git: by then an agent may have told git what to run.
const HEAD: &str = r#"
head=$(head -c 4096 .git/HEAD) || exit 0
for depth in 1 2 3 4 5; do
    case $head in
        "ref: "*) name=${head#ref: } ;;
        *) printf %s "$head"; exit 0 ;;
    esac
    if [ -f ".git/$name" ]; then
        head=$(head -c 4096 ".git/$name")
    else
        while read -r id found; do
            if [ "$found" = "$name" ]; then printf %s "$id"; exit 0; fi
        done < .git/packed-refs
        exit 0
    fi
done
"#;

impl<S: Sandboxes> Adapted<S> {
    /// Checks the commit out on this machine and puts it in the workspace's place.
    pub(crate) async fn sync(
        &self,
        call: &Call,
        request: SyncRepoRequest,
    ) -> Result<SyncRepoReply, ProviderError> {
        let (id, fence) = (request.sandbox_id.clone(), call.meta.fence);
        let record = self.records.admit(&id, fence).await?;
        let _alone = record.alone("work").await?;
        if self.is_filled(&record, &Filled::Commit(request.commit.clone()))? {
            let head = self
                .head(call, &id)
                .await?
                .ok_or_else(|| in_use(&id, "its HEAD can't be read any more"))?;
            return Ok(SyncRepoReply { head });
        }
        let tree = incoming(&record).await?;
        let progress = |done, total| call.progress("fetching the repository", done, total);
        self.git
            .checkout(
                &request.repo,
                &request.branch,
                &request.commit,
                request.credential.as_ref(),
                &tree,
                &progress,
            )
            .await?;
        for warning in alpine_git::left_out(&tree) {
            call.warn(warning);
        }
        let from = tree.clone();
        let pack = move |to: InputWriter, told: &AtomicU64| pack(&from, to, told);
        self.fill(call, &id, Filled::Commit(request.commit.clone()), pack)
            .await?;
        blocking(move || remove(&tree)).await?;
        match self.head(call, &id).await? {
            Some(head) if head == request.commit => Ok(SyncRepoReply { head }),
            head => {
                let head = head.map_or("none".to_owned(), |head| head.to_string());
                let message = format!(
                    "HEAD in sandbox `{id}` is `{head}`, not `{}`, after it was brought there",
                    request.commit
                );
                Err(ProviderError::new(ErrorKind::Io, message))
            }
        }
    }

    /// Whether the workspace was filled from this before; an error where it was filled from something else.
    pub(crate) fn is_filled(&self, record: &Record, from: &Filled) -> Result<bool, ProviderError> {
        let filled: Option<Filled> = file::read_json(&record.filled())?;
        match (filled, from) {
            (None, _) => Ok(false),
            (Some(Filled::Commit(one)), Filled::Commit(other)) if one == *other => Ok(true),
            (Some(Filled::Object { id: one, .. }), Filled::Object { id: other, .. })
                if one == *other =>
            {
                Ok(true)
            }
            (Some(Filled::Commit(from)), _) => Err(in_use(
                &record.id,
                &format!("it was filled from commit `{from}`"),
            )),
            (Some(Filled::Object { id, .. }), _) => Err(in_use(
                &record.id,
                &format!("it was filled from object `{id}`"),
            )),
        }
    }

    /// Streams a tar in beside what is there, and, if the caller was not overtaken, puts it in its place.
    pub(crate) async fn fill(
        &self,
        call: &Call,
        id: &SandboxId,
        filled: Filled,
        pack: impl FnOnce(InputWriter, &AtomicU64) -> Result<(), ProviderError> + Send + 'static,
    ) -> Result<(), ProviderError> {
        let incoming = format!(".alpine-incoming-{:08x}", random_u32());
        let (to, input) = mpsc::channel(PIECES);
        let told = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&told);
        let packing = blocking(move || pack(InputWriter(to), &counted));
        let mut sink = Sink::Kept(Vec::new());
        let arguments = [incoming.as_str()];
        let unpacking = async {
            let said = self
                .sh(call, id, UNPACK, &arguments, input, &mut sink)
                .await?;
            said.success(id)
        };
        let both = async {
            // Where `tar` ends early, that is why, and not that nobody reads what is packed.
            let (unpacked, packed) = tokio::join!(unpacking, packing);
            unpacked.and(packed)
        };
        call.watched("filling the workspace", &told, both).await?;
        let (record, _held) = self.records.held(id, call.meta.fence).await?;
        self.ask(call, id, PUT, &arguments).await?;
        file::remove(&record.installed())?;
        record.write(&record.filled(), &filled)
    }

    /// What HEAD of the workspace is; none where it can't be read as one.
    pub(crate) async fn head(
        &self,
        call: &Call,
        id: &SandboxId,
    ) -> Result<Option<CommitId>, ProviderError> {
        let said = self.ask(call, id, HEAD, &[]).await?;
        Ok(CommitId::new(String::from_utf8_lossy(&said).trim()))
    }
}

pub(crate) fn in_use(id: &SandboxId, why: &str) -> ProviderError {
    let message = format!("the workspace of sandbox `{id}` is in use: {why}");
    ProviderError::new(ErrorKind::Conflict, message)
}

/// Where the repository is checked out; what an earlier try left is removed.
async fn incoming(record: &Record) -> Result<PathBuf, ProviderError> {
    let tree = record.dir.join("incoming");
    let left = tree.clone();
    blocking(move || remove(&left)).await?;
    Ok(tree)
}

fn remove(tree: &Path) -> Result<(), ProviderError> {
    match std::fs::remove_dir_all(tree) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(file::io_error(tree, &source))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Writes a tree that was just checked out as a tar stream. It needs no name that is not its own and follows no link.
fn pack(tree: &Path, to: InputWriter, told: &AtomicU64) -> Result<(), ProviderError> {
    let counted = Counted { to, told };
    let mut tar = tar::Builder::new(BufWriter::with_capacity(PIECE, counted));
    tar.follow_symlinks(false);
    tar.sparse(false);
    tar.append_dir_all(".", tree)
        .and_then(|()| tar.into_inner()?.flush())
        .map_err(|source| file::io_error(tree, &source))
}

/// Counts what goes through.
pub(crate) struct Counted<'a> {
    pub(crate) to: InputWriter,
    pub(crate) told: &'a AtomicU64,
}

impl Write for Counted<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.to.write(bytes)?;
        self.told.fetch_add(written as u64, Ordering::Relaxed);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::PUT;
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt, chown, symlink};
    use std::os::unix::process::CommandExt;
    use std::path::Path;
    use std::process::Command;

    /// The user that owns nothing.
    const NOBODY: u32 = 65534;

    fn mode(path: &Path) -> u32 {
        fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn an_ordinary_user_puts_directories_in_their_place_that_nobody_may_write_to() {
        let directory = tempfile::tempdir().unwrap();
        let at = directory.path();
        let new = at.join("new");
        for name in ["closed", "open", ".hidden"] {
            fs::create_dir_all(new.join(name)).unwrap();
            fs::write(new.join(name).join("file"), name).unwrap();
        }
        symlink("closed", new.join("link")).unwrap();
        symlink("nowhere", new.join("dangling")).unwrap();
        fs::write(new.join("-x"), "a file").unwrap();
        fs::set_permissions(new.join("-x"), Permissions::from_mode(0o444)).unwrap();
        fs::create_dir(at.join("old")).unwrap();
        fs::set_permissions(new.join("closed"), Permissions::from_mode(0o2551)).unwrap();
        let mut shell = Command::new("sh");
        shell.args(["-c", PUT, "alpine", "new"]).current_dir(at);
        // The superuser may write to everything.
        if rustix::process::geteuid().is_root() {
            for path in [at, &new, &new.join("closed"), &new.join("open")] {
                chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
            }
            for name in [".hidden", "-x", "../old"] {
                chown(new.join(name), Some(NOBODY), Some(NOBODY)).unwrap();
            }
            fs::set_permissions(new.join("closed"), Permissions::from_mode(0o2551)).unwrap();
            shell.uid(NOBODY).gid(NOBODY);
        }
        let output = shell.output().unwrap();
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{complaint}");
        let mut names: Vec<_> = fs::read_dir(at)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(
            names,
            ["-x", ".hidden", "closed", "dangling", "link", "open"]
        );
        assert_eq!(mode(&at.join("closed")), 0o2551);
        assert_eq!(fs::read(at.join("closed/file")).unwrap(), b"closed");
        assert!(at.join("link").is_symlink());
    }

    /// One whose provider was killed, and whose script stands still before it moves the first thing, in or out.
    #[test]
    fn an_earlier_try_that_still_runs_changes_nothing_of_a_later_one() {
        for is_empty in [false, true] {
            let directory = tempfile::tempdir().unwrap();
            let (at, tools) = (directory.path().join("w"), directory.path().join("tools"));
            let incoming = |name: &str| {
                let place = at.join(format!(".alpine-incoming-{name}/src"));
                fs::create_dir_all(&place).unwrap();
                fs::write(place.join("file"), name).unwrap();
            };
            incoming("1");
            if !is_empty {
                fs::create_dir(at.join("src")).unwrap();
            }
            fs::create_dir(&tools).unwrap();
            let (begun, go) = (tools.join("begun"), tools.join("go"));
            rustix::fs::mkfifoat(rustix::fs::CWD, &go, rustix::fs::Mode::RWXU).unwrap();
            let slow = format!(
                "#!/bin/sh\n[ -e '{0}' ] || {{ : > '{0}'; read -r it < '{1}'; }}\nexec /bin/mv \"$@\"\n",
                begun.display(),
                go.display()
            );
            fs::write(tools.join("mv"), slow).unwrap();
            fs::set_permissions(tools.join("mv"), Permissions::from_mode(0o755)).unwrap();
            let put = |name: &str| {
                let mut shell = Command::new("/bin/sh");
                let incoming = format!(".alpine-incoming-{name}");
                shell.args(["-c", PUT, "alpine", &incoming]);
                shell.current_dir(&at);
                shell
            };
            let path = format!("{}:/usr/bin:/bin", tools.display());
            let mut late = put("1").env("PATH", path).spawn().unwrap();
            while !begun.exists() {
                std::thread::yield_now();
            }
            incoming("2");
            assert!(put("2").status().unwrap().success());
            fs::write(&go, "go\n").unwrap();
            assert!(!late.wait().unwrap().success());
            let names: Vec<_> = fs::read_dir(&at)
                .unwrap()
                .map(|entry| entry.unwrap().file_name())
                .collect();
            assert_eq!(names, ["src"], "{is_empty}");
            assert_eq!(fs::read(at.join("src/file")).unwrap(), b"2");
        }
    }
}
