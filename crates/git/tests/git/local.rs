//! Repositories on this machine: what is brought, what moves, what is hostile, what is damaged.

use crate::place::{Place, main_branch, names, plain_git, url};
use alpine_git::head;
use alpine_provider_api::{BranchName, CommitId, ErrorKind, ProviderError};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

fn missing_commit() -> CommitId {
    CommitId::new(&"ab".repeat(20)).unwrap()
}

#[tokio::test]
async fn a_workspace_is_a_repository_of_its_own() {
    let place = Place::new();
    let tip = place.tip().await.unwrap();
    assert_eq!(place.checkout(&tip).await.unwrap(), tip);
    assert_eq!(head(&place.workspace()).unwrap(), Some(tip.clone()));
    let told = |arguments: &[&str]| place.workspace_git(arguments);
    assert_eq!(told(&["status", "--porcelain", "--ignored"]), "");
    assert_eq!(told(&["rev-parse", "HEAD"]), tip.as_str());
    assert_eq!(told(&["symbolic-ref", "HEAD"]), "refs/heads/main");
    assert_eq!(
        told(&["rev-parse", "refs/remotes/origin/main"]),
        tip.as_str()
    );
    assert_eq!(
        told(&["rev-parse", "--abbrev-ref", "@{upstream}"]),
        "origin/main"
    );
    assert_eq!(
        told(&["remote", "get-url", "origin"]),
        place.repo().as_str()
    );
    assert_eq!(told(&["log", "--format=%s"]), "two\none");
    assert_eq!(told(&["fsck", "--full", "--strict"]), "");
    assert_eq!(
        told(&["for-each-ref", "--format=%(refname)"]),
        "refs/heads/main\nrefs/remotes/origin/main"
    );
    assert!(
        !place
            .workspace()
            .join(".git/objects/info/alternates")
            .exists()
    );
    let config = fs::read_to_string(place.workspace().join(".git/config")).unwrap();
    assert!(
        !config.contains("alpine") && !config.contains("credential"),
        "{config}"
    );
    told(&["fetch", "-q"]);
    told(&["commit", "-q", "--allow-empty", "-m", "three"]);
    told(&["push", "-q", "origin", "main:other"]);
    assert_eq!(place.names(), ["cache", "source", "workspace"]);
}

#[tokio::test]
async fn a_warm_mirror_asks_nobody() {
    let place = Place::new();
    let tip = place.tip().await.unwrap();
    place.checkout(&tip).await.unwrap();
    let away = place.root.path().join("away");
    fs::rename(place.source(), &away).unwrap();
    fs::remove_dir_all(place.workspace()).unwrap();
    place.checkout(&tip).await.unwrap();
    assert_eq!(place.workspace_git(&["status", "--porcelain"]), "");
    let error = place.tip().await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::InvalidArgument, "{error:?}");
    fs::create_dir(place.source()).unwrap();
    let error = place.tip().await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::InvalidArgument, "{error:?}");
}

#[tokio::test]
async fn a_workspace_is_replaced_and_leftovers_go() {
    let place = Place::new();
    let tip = place.tip().await.unwrap();
    place.checkout(&tip).await.unwrap();
    fs::write(place.workspace().join("one"), "changed").unwrap();
    fs::write(place.workspace().join("new"), "new").unwrap();
    let leftover = place.root.path().join(".workspace.checkout-999999999-0");
    fs::create_dir_all(leftover.join("x")).unwrap();
    place.checkout(&tip).await.unwrap();
    assert_eq!(place.workspace_git(&["status", "--porcelain"]), "");
    assert_eq!(place.names(), ["cache", "source", "workspace"]);
}

#[tokio::test]
async fn the_pinned_commit_is_had_after_the_branch_moved() {
    let place = Place::new();
    let pinned = place.tip().await.unwrap();
    let later = place.commit("three");
    place.checkout(&pinned).await.unwrap();
    assert_eq!(place.workspace_git(&["rev-parse", "HEAD"]), pinned.as_str());
    assert_eq!(place.tip().await.unwrap(), later);
    place.checkout(&later).await.unwrap();
    assert_eq!(
        place.workspace_git(&["log", "--format=%s"]),
        "three\ntwo\none"
    );
}

#[tokio::test]
async fn the_pinned_commit_is_had_after_a_force_push_and_after_the_branch_went() {
    let place = Place::new();
    let pinned = place.tip().await.unwrap();
    place.source_git(&["reset", "-q", "--hard", "HEAD~1"]);
    let other = place.commit("else");
    place.checkout(&pinned).await.unwrap();
    assert_eq!(place.workspace_git(&["log", "--format=%s"]), "two\none");
    place.checkout(&other).await.unwrap();
    assert_eq!(place.workspace_git(&["log", "--format=%s"]), "else\none");

    let place = Place::new();
    let pinned = place.tip().await.unwrap();
    place.source_git(&["checkout", "-q", "-b", "kept"]);
    place.source_git(&["branch", "-q", "-D", "main"]);
    place.checkout(&pinned).await.unwrap();
    let error = place.tip().await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::BranchNotFound, "{error:?}");
}

#[tokio::test]
async fn a_commit_that_nobody_has_is_not_found() {
    let place = Place::new();
    for _ in 0..2 {
        let error = place.checkout(&missing_commit()).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::CommitNotFound, "{error:?}");
    }
    assert_eq!(place.names(), ["cache", "source"]);
    assert!(
        names(&place.cache().join("mirrors"))
            .iter()
            .all(|name| !name.contains("damaged"))
    );
}

#[tokio::test]
async fn a_repository_that_has_lost_an_object_is_called_damaged() {
    for object in ["HEAD", "HEAD:two"] {
        for is_emptied in [false, true] {
            let place = Place::new();
            let commit = place.tip().await.unwrap();
            let id = place.source_git(&["rev-parse", object]);
            let (directory, name) = id.trim().split_at(2);
            let path = place.source().join(".git/objects").join(directory);
            fs::remove_file(path.join(name)).unwrap();
            if is_emptied {
                fs::write(path.join(name), "").unwrap();
            }
            let error = place.checkout(&commit).await.unwrap_err();
            assert_eq!(error.kind, ErrorKind::InvalidArgument, "{error:?}");
            assert!(error.message.contains("is damaged"), "{error:?}");
            let fsck = format!("git -C '{}' fsck", place.source().display());
            assert_eq!(error.hint, Some(fsck));
        }
    }
}

#[tokio::test]
async fn empty_repositories_and_odd_branches() {
    let place = Place::empty();
    place.source_git(&["init", "-q", "-b", "main"]);
    let error = place.tip().await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::BranchNotFound, "{error:?}");
    place.commit("one");
    for name in ["a\"b", "feat/x#y;z", "ä"] {
        let branch = BranchName::new(name).unwrap();
        place.source_git(&["branch", name]);
        let git = place.git();
        let tip = git.tip(&place.repo(), &branch, None).await.unwrap();
        git.checkout(
            &place.repo(),
            &branch,
            &tip,
            None,
            &place.workspace(),
            &|_, _| {},
        )
        .await
        .unwrap();
        assert_eq!(place.workspace_git(&["status", "--porcelain"]), "");
        assert_eq!(
            place.workspace_git(&["symbolic-ref", "--short", "HEAD"]),
            name
        );
        let upstream = place.workspace_git(&["for-each-ref", "--format=%(upstream)", "refs/heads"]);
        assert_eq!(upstream, format!("refs/remotes/origin/{name}"));
        assert_eq!(head(&place.workspace()).unwrap(), Some(tip));
    }
}

#[tokio::test]
async fn a_directory_after_a_file_of_the_same_branch_name() {
    let place = Place::new();
    for name in ["a", "a/b"] {
        place.source_git(&["branch", name]);
        let (branch, git) = (BranchName::new(name).unwrap(), place.git());
        let tip = place.commit(&name.replace('/', "-"));
        place.source_git(&["branch", "-f", name, "main"]);
        git.checkout(
            &place.repo(),
            &branch,
            &tip,
            None,
            &place.workspace(),
            &|_, _| {},
        )
        .await
        .unwrap();
        place.source_git(&["branch", "-D", name]);
    }
}

#[tokio::test]
async fn shallow_and_sha256_sources() {
    let place = Place::new();
    let shallow = place.root.path().join("shallow");
    let source = format!("file://{}", place.source().display());
    plain_git(
        place.root.path(),
        &["clone", "-q", "--depth", "1", &source, "shallow"],
    );
    let repo = url(shallow.to_str().unwrap());
    let git = place.git();
    let tip = git.tip(&repo, &main_branch(), None).await.unwrap();
    git.checkout(
        &repo,
        &main_branch(),
        &tip,
        None,
        &place.workspace(),
        &|_, _| {},
    )
    .await
    .unwrap();
    assert_eq!(place.workspace_git(&["log", "--format=%s"]), "two");
    assert_eq!(place.workspace_git(&["status", "--porcelain"]), "");

    let place = Place::empty();
    place.source_git(&["init", "-q", "-b", "main", "--object-format=sha256"]);
    let tip = place.commit("one");
    assert_eq!(place.tip().await.unwrap(), tip);
    place.checkout(&tip).await.unwrap();
    assert_eq!(place.workspace_git(&["rev-parse", "HEAD"]), tip.as_str());
    assert_eq!(place.workspace_git(&["status", "--porcelain"]), "");
    assert_eq!(head(&place.workspace()).unwrap(), Some(tip));
}

#[tokio::test]
async fn a_hostile_repository_runs_nothing() {
    let place = Place::new();
    let (trap, mark) = place.trap();
    let source = place.source();
    fs::write(
        source.join(".gitattributes"),
        "* filter=trap diff=trap merge=trap\n",
    )
    .unwrap();
    fs::write(
        source.join(".gitmodules"),
        format!("[submodule \"s\"]\n\tpath = s\n\turl = ext::{trap}\n"),
    )
    .unwrap();
    fs::write(
        source.join(".lfsconfig"),
        "[lfs]\n\turl = http://127.0.0.1:1/\n",
    )
    .unwrap();
    place.commit_all("hostile");
    let gitlink = format!("160000,{},s", "ab".repeat(20));
    place.source_git(&["update-index", "--add", "--cacheinfo", &gitlink]);
    place.source_git(&["commit", "-q", "-m", "submodule"]);
    for (key, value) in [
        ("core.fsmonitor", trap.as_str()),
        ("core.sshCommand", &trap),
        (
            "core.hooksPath",
            &format!("{}/.git/hooks", source.display()),
        ),
        ("core.pager", &trap),
        ("core.alternateRefsCommand", &trap),
        ("filter.trap.smudge", &trap),
        ("filter.trap.process", &trap),
        ("uploadpack.packObjectsHook", &trap),
        ("remote.origin.promisor", "true"),
        ("remote.origin.url", &format!("ext::{trap}")),
        ("extensions.partialClone", "origin"),
        ("credential.helper", &trap),
    ] {
        place.source_git(&["config", key, value]);
    }
    fs::create_dir_all(source.join(".git/hooks")).unwrap();
    for hook in [
        "post-checkout",
        "post-upload-pack",
        "reference-transaction",
        "post-index-change",
    ] {
        fs::copy(&trap, source.join(".git/hooks").join(hook)).unwrap();
    }
    let tip = place.tip().await.unwrap();
    place.checkout(&tip).await.unwrap();
    assert!(!mark.exists(), "{}", fs::read_to_string(&mark).unwrap());
    assert_eq!(
        fs::read_dir(place.workspace().join("s")).unwrap().count(),
        0
    );
    assert_eq!(
        fs::read_to_string(place.workspace().join("two")).unwrap(),
        "two"
    );
    assert_eq!(names(&place.workspace().join(".git/hooks")), [""; 0]);
    // The trap does snap for a git that obeys the source.
    place.source_git(&["status"]);
    assert!(mark.exists());
}

#[tokio::test]
async fn the_machines_configuration_is_not_read() {
    let mut place = Place::new();
    let (trap, mark) = place.trap();
    let home = place.root.path().join("home");
    fs::create_dir(&home).unwrap();
    let config = format!(
        "[filter \"trap\"]\n\tsmudge = {trap}\n\trequired = true\n[core]\n\tfsmonitor = {trap}\n\thooksPath = {}\n",
        home.display()
    );
    fs::write(home.join(".gitconfig"), config).unwrap();
    fs::copy(&trap, home.join("post-checkout")).unwrap();
    fs::copy(&trap, home.join("reference-transaction")).unwrap();
    for (name, value) in [
        ("HOME", home.to_str().unwrap()),
        ("GIT_DIR", "/nonexistent"),
        ("LC_ALL", "de_DE.UTF-8"),
    ] {
        place.extra_env.insert(name.into(), value.into());
    }
    fs::write(place.source().join(".gitattributes"), "* filter=trap\n").unwrap();
    let tip = place.commit_all("filter");
    place.checkout(&tip).await.unwrap();
    assert!(!mark.exists(), "{}", fs::read_to_string(&mark).unwrap());
}

#[tokio::test]
async fn no_file_is_written_through_a_link_of_the_tree() {
    let place = Place::new();
    let outside = place.root.path().join("outside");
    fs::create_dir(&outside).unwrap();
    let blob = place.source_git(&["hash-object", "-w", "one"]);
    let target = outside.to_str().unwrap();
    fs::write(place.root.path().join("target"), target).unwrap();
    let link = place.source_git(&[
        "hash-object",
        "-w",
        place.root.path().join("target").to_str().unwrap(),
    ]);
    let inner = format!("100644 blob {blob}\tcanary\n");
    let inner = mktree(&place, &inner);
    // A link and a directory of the same name: whoever wrote the file after the link would write outside.
    let tree = mktree(
        &place,
        &format!("120000 blob {link}\td\n040000 tree {inner}\td\n"),
    );
    let commit = place.source_git(&["commit-tree", &tree, "-m", "trick"]);
    place.source_git(&["update-ref", "refs/heads/main", &commit]);
    let outcome = place.checkout(&CommitId::new(&commit).unwrap()).await;
    assert_eq!(names(&outside), [""; 0], "{outcome:?}");
    for name in [".git", "..", ".GIT/hooks"] {
        let (top, rest) = name.split_once('/').unwrap_or((name, ""));
        let entry = if rest.is_empty() {
            format!("040000 tree {inner}\t{top}\n")
        } else {
            let below = mktree(&place, &format!("040000 tree {inner}\t{rest}\n"));
            format!("040000 tree {below}\t{top}\n")
        };
        let tree = mktree(&place, &entry);
        let commit = place.source_git(&["commit-tree", &tree, "-m", "trick"]);
        place.source_git(&["update-ref", "refs/heads/main", &commit]);
        let outcome = place.checkout(&CommitId::new(&commit).unwrap()).await;
        assert!(!place.root.path().join("canary").exists(), "{outcome:?}");
        assert!(
            !place.workspace().join(".git/canary").exists(),
            "{outcome:?}"
        );
    }
}

fn mktree(place: &Place, entries: &str) -> String {
    use std::io::Write;
    use std::process::{Command, Stdio};
    let mut child = Command::new("git")
        .args(["hash-object", "-t", "tree", "--literally", "-w", "--stdin"])
        .current_dir(place.source())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    for line in entries.lines() {
        let (head, name) = line.split_once('\t').unwrap();
        let mut words = head.split(' ');
        let (mode, id) = (
            words.next().unwrap().trim_start_matches('0'),
            words.next_back().unwrap(),
        );
        write!(stdin, "{mode} {name}\0").unwrap();
        let bytes: Vec<u8> = (0..20)
            .map(|at| u8::from_str_radix(&id[at * 2..at * 2 + 2], 16).unwrap())
            .collect();
        stdin.write_all(&bytes).unwrap();
    }
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_checkouts_at_once() {
    let place = std::sync::Arc::new(Place::new());
    let tip = place.tip().await.unwrap();
    let later = place.commit("three");
    let tasks: Vec<_> = (0..12)
        .map(|number| {
            let (place, commit) = (
                place.clone(),
                if number % 2 == 0 {
                    tip.clone()
                } else {
                    later.clone()
                },
            );
            tokio::spawn(async move {
                let into = place.root.path().join(format!("w{number}"));
                let git = place.git();
                git.checkout(
                    &place.repo(),
                    &main_branch(),
                    &commit,
                    None,
                    &into,
                    &|_, _| {},
                )
                .await?;
                assert_eq!(plain_git(&into, &["status", "--porcelain"]), "");
                assert_eq!(head(&into)?, Some(commit));
                Ok::<_, ProviderError>(())
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_damaged_mirror_is_made_anew() {
    let place = Place::new();
    let tip = place.tip().await.unwrap();
    for damage in [
        flip_packs,
        cut_indexes,
        drop_packs,
        break_config,
        break_head,
    ] {
        place.checkout(&tip).await.unwrap();
        damage(&place.mirror());
        fs::remove_dir_all(place.workspace()).unwrap();
        place.checkout(&tip).await.unwrap();
        assert_eq!(place.workspace_git(&["status", "--porcelain"]), "");
        assert_eq!(place.workspace_git(&["fsck", "--full"]), "");
    }
    let later = place.commit("three");
    break_config(&place.mirror());
    place.checkout(&later).await.unwrap();
    fs::remove_file(place.mirror().join("HEAD")).unwrap();
    place.checkout(&later).await.unwrap();
    assert_eq!(names(&place.cache().join("mirrors")).len(), 3);
}

/// Changes the files of an ending without touching other names of them.
fn change(mirror: &std::path::Path, ending: &str, work: impl Fn(Vec<u8>) -> Vec<u8>) {
    let packs = mirror.join("objects/pack");
    for name in names(&packs).iter().filter(|name| name.ends_with(ending)) {
        let path = packs.join(name);
        let bytes = work(fs::read(&path).unwrap());
        fs::remove_file(&path).unwrap();
        fs::write(&path, bytes).unwrap();
    }
}

fn flip_packs(mirror: &std::path::Path) {
    change(mirror, ".pack", |mut bytes| {
        let length = bytes.len();
        bytes[12..length - 20]
            .iter_mut()
            .for_each(|byte| *byte ^= 0x55);
        bytes
    });
}

fn cut_indexes(mirror: &std::path::Path) {
    change(mirror, ".idx", |bytes| bytes[..bytes.len() / 2].to_vec());
}

fn drop_packs(mirror: &std::path::Path) {
    fs::remove_dir_all(mirror.join("objects/pack")).unwrap();
}

fn break_config(mirror: &std::path::Path) {
    fs::write(mirror.join("config"), "[core\n").unwrap();
}

fn break_head(mirror: &std::path::Path) {
    fs::write(mirror.join("HEAD"), "nonsense\n").unwrap();
}

/// A place whose source belongs to another user, as far as git knows, and whose own user has a home.
fn foreign() -> Place {
    let mut place = Place::new();
    let home = place.root.path().join("home");
    fs::create_dir(&home).unwrap();
    place.home = Some(home);
    place
        .extra_env
        .insert("GIT_TEST_ASSUME_DIFFERENT_OWNER".into(), "1".into());
    place
}

#[tokio::test]
async fn another_users_repository_is_refused_with_a_hint_that_helps() {
    let place = foreign();
    let error = place.tip().await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::InvalidArgument, "{error:?}");
    let hint = error.hint.unwrap();
    let source = place.source();
    let command = format!(
        "git config --global --add safe.directory '{}'",
        source.display()
    );
    assert_eq!(hint, command);
    let done = std::process::Command::new("sh")
        .args(["-c", &command])
        .env_clear()
        .env("PATH", crate::place::path())
        .env("HOME", place.home.as_ref().unwrap())
        .status()
        .unwrap();
    assert!(done.success());
    let tip = place.tip().await.unwrap();
    assert_eq!(tip.to_string(), place.source_git(&["rev-parse", "HEAD"]));
}

#[tokio::test]
async fn of_the_users_configuration_only_the_safe_directories_count() {
    let place = foreign();
    let (trap, mark) = place.trap();
    let (home, source) = (place.home.clone().unwrap(), place.source());
    let config = |safe: &str| {
        let text = format!(
            "[safe]\n\tdirectory = {safe}\n[core]\n\tfsmonitor = {trap}\n\thooksPath = {}\n[uploadpack]\n\tpackObjectsHook = {trap}\n",
            home.display()
        );
        fs::write(home.join(".gitconfig"), text).unwrap();
    };
    fs::copy(&trap, home.join("reference-transaction")).unwrap();
    config("/somewhere/else");
    let error = place.tip().await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::InvalidArgument, "{error:?}");
    config(source.to_str().unwrap());
    let tip = place.tip().await.unwrap();
    // The workspace is this user's own: only the source is to be another's.
    assert!(!mark.exists(), "{}", fs::read_to_string(&mark).unwrap());
    for (name, text) in [
        ("links", "/elsewhere/*"),
        ("forgotten", "/x\n\tdirectory ="),
    ] {
        config(text);
        assert!(place.tip().await.is_err(), "{name}");
    }
    // What was allowed for this repository is not allowed for another.
    config(source.to_str().unwrap());
    let other = place.root.path().join("other");
    let made = std::process::Command::new("cp")
        .arg("-r")
        .args([&source, &other])
        .status()
        .unwrap();
    assert!(made.success());
    let asked = place
        .git()
        .tip(
            &crate::place::url(other.to_str().unwrap()),
            &main_branch(),
            None,
        )
        .await;
    assert!(asked.is_err());
    assert_eq!(place.tip().await.unwrap(), tip);
}

#[tokio::test]
async fn a_safe_repository_of_another_user_is_checked_out() {
    // Only a superuser can give a repository away; a user's own takes the same way through git.
    let mut place = Place::new();
    let home = place.root.path().join("home");
    fs::create_dir(&home).unwrap();
    let source = place.source();
    fs::write(
        home.join(".gitconfig"),
        format!("[safe]\n\tdirectory = {}/\n", source.display()),
    )
    .unwrap();
    place.home = Some(home);
    let tip = CommitId::new(&place.source_git(&["rev-parse", "HEAD"])).unwrap();
    if rustix::process::geteuid().is_root() {
        for path in [source.clone(), source.join(".git")] {
            std::os::unix::fs::chown(path, Some(65_534), Some(65_534)).unwrap();
        }
    }
    assert_eq!(place.tip().await.unwrap(), tip);
    place.checkout(&tip).await.unwrap();
    assert_eq!(place.workspace_git(&["status", "--porcelain"]), "");
}

#[tokio::test]
async fn a_missing_git_and_an_unusable_cache_are_named() {
    let place = Place::new();
    let git = alpine_git::Git::new(alpine_git::GitConfig {
        cache: place.cache(),
        path: "/nonexistent".into(),
        home: None,
        extra_env: Default::default(),
        redactor: Default::default(),
    });
    let error = git
        .tip(&place.repo(), &main_branch(), None)
        .await
        .unwrap_err();
    assert_eq!(error.hint.unwrap(), "sudo apt-get install git");
    fs::remove_dir_all(place.cache()).unwrap();
    fs::write(place.cache(), "a file").unwrap();
    let error = place.tip().await.unwrap_err();
    assert!(
        error.message.contains(place.cache().to_str().unwrap()),
        "{error}"
    );
}

#[test]
fn head_is_read_from_plain_files_only() {
    let place = Place::new();
    let (source, git) = (place.source(), place.source().join(".git"));
    let tip = CommitId::new(&place.source_git(&["rev-parse", "HEAD"])).unwrap();
    assert_eq!(head(&source).unwrap(), Some(tip.clone()));
    place.source_git(&["pack-refs", "--all"]);
    assert_eq!(head(&source).unwrap(), Some(tip.clone()));
    place.source_git(&["checkout", "-q", "--detach"]);
    assert_eq!(head(&source).unwrap(), Some(tip.clone()));
    place.source_git(&["checkout", "-q", "--orphan", "unborn"]);
    assert_eq!(head(&source).unwrap(), None);
    assert_eq!(head(place.root.path()).unwrap(), None);
    assert_eq!(head(&place.root.path().join("missing")).unwrap(), None);

    let outside = place.root.path().join("outside");
    fs::write(&outside, format!("{tip}\n")).unwrap();
    for text in [
        "ref: ../../outside\n",
        "ref: /etc/passwd\n",
        "ref: HEAD\n",
        "nonsense\n",
        "\u{0}",
        "",
    ] {
        fs::write(git.join("HEAD"), text).unwrap();
        assert!(head(&source).is_err(), "{text:?}");
    }
    fs::write(git.join("HEAD"), "x".repeat(1 << 20)).unwrap();
    assert!(head(&source).is_err());
    for name in ["HEAD", "packed-refs", "refs/heads/l"] {
        fs::write(git.join("HEAD"), "ref: refs/heads/l\n").unwrap();
        drop(fs::remove_file(git.join(name)));
        symlink(&outside, git.join(name)).unwrap();
        assert!(head(&source).is_err(), "{name} is a link");
        fs::remove_file(git.join(name)).unwrap();
    }
    fs::remove_file(git.join("HEAD")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        git.join("HEAD"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RWXU,
        0,
    )
    .unwrap();
    assert!(head(&source).is_err(), "a fifo is not waited for");
    fs::rename(&git, place.root.path().join("real")).unwrap();
    symlink(place.root.path().join("real"), &git).unwrap();
    assert!(head(&source).is_err(), ".git is a link");
}

#[tokio::test]
async fn what_was_there_is_kept_until_the_new_one_is_whole() {
    let place = Place::new();
    fs::create_dir(place.workspace()).unwrap();
    fs::write(place.workspace().join("precious"), "1").unwrap();
    place.checkout(&missing_commit()).await.unwrap_err();
    assert_eq!(
        fs::read_to_string(place.workspace().join("precious")).unwrap(),
        "1"
    );
    assert_eq!(place.names(), ["cache", "source", "workspace"]);
    let mode = fs::metadata(place.cache()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
}
