//! Hostile repositories: nothing of theirs is executed by alpine's own calls. What would be leaves a canary.

use crate::local::object::restore;
use crate::local::program::{Program, script};
use crate::support::text;
use alpine_testkit::TestRepo;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

/// A home with a canary that must not appear.
struct Trap {
    program: Program,
    canary: PathBuf,
}

impl Trap {
    fn new() -> Self {
        let program = Program::new();
        let canary = program.env.root().join("canary");
        Self { program, canary }
    }

    /// A command that leaves the canary.
    fn spring(&self) -> String {
        format!("touch {}", self.canary.display())
    }

    /// Sets everything in a repository's configuration and hooks that git would run.
    fn arm(&self, git_dir: &Path) {
        let spring = self.spring();
        let hook = format!("#!/bin/sh\n{spring}\ncat\n");
        for name in [
            "post-checkout",
            "post-index-change",
            "pre-commit",
            "reference-transaction",
            "post-update",
            "pre-receive",
            "fsmonitor-watchman",
            "post-merge",
            "pre-auto-gc",
            "sendemail-validate",
            "proc-receive",
            "update",
        ] {
            script(&git_dir.join("hooks").join(name), &hook);
        }
        script(&git_dir.join("evil"), &hook);
        let evil = git_dir.join("evil").display().to_string();
        let config = format!(
            "\n[core]\n\tfsmonitor = {evil}\n\thooksPath = {hooks}\n\tsshCommand = {evil}\n\tgitProxy = {evil}\n\taskPass = {evil}\n\tpager = {evil}\n\teditor = {evil}\n\talternateRefsCommand = {evil}\n\
             [filter \"evil\"]\n\tsmudge = {evil}\n\tclean = {evil}\n\tprocess = {evil}\n\trequired = true\n[diff \"evil\"]\n\tcommand = {evil}\n\ttextconv = {evil}\n[merge \"evil\"]\n\tdriver = {evil}\n\
             [diff]\n\texternal = {evil}\n[credential]\n\thelper = {evil}\n[uploadpack]\n\tpackObjectsHook = {evil}\n[gpg]\n\tprogram = {evil}\n[protocol \"ext\"]\n\tallow = always\n[protocol]\n\tallow = always\n\
             [remote \"origin\"]\n\tuploadpack = {evil}\n\tvcs = evil\n[submodule]\n\trecurse = true\n[trace2]\n\teventTarget = {evil}\n",
            hooks = git_dir.join("hooks").display()
        );
        let file = git_dir.join("config");
        let before = fs::read_to_string(&file).unwrap_or_default();
        fs::write(&file, format!("{before}{config}")).unwrap();
    }

    fn up(&self, repo: &TestRepo, branch: &str) -> serde_json::Value {
        let path = repo.path.to_str().unwrap();
        self.program.json(&[
            "up", path, "--branch", branch, "--agent", "none", "--name", "it",
        ])
    }

    #[track_caller]
    fn assert_untouched(&self) {
        assert!(
            !self.canary.exists(),
            "something of the repository was executed"
        );
    }
}

const ATTRIBUTES: &str =
    "* filter=evil diff=evil merge=evil ident text eol=crlf working-tree-encoding=UTF-16\n";

#[test]
fn a_repository_full_of_traps_comes_up_and_goes_down_and_springs_none() {
    let trap = Trap::new();
    let spring = trap.spring();
    let modules = format!(
        "[submodule \"a\"]\n\tpath = a\n\turl = ext::sh -c '{spring}'\n\tupdate = !{spring}\n[submodule \"b\"]\n\tpath = b\n\turl = --upload-pack={spring}\n"
    );
    let repo = trap.program.env.git_repo(&[
        ("file.txt", "$Id$ text\n"),
        (".gitmodules", &modules),
        (".gitconfig", "[core]\n\tfsmonitor = ./evil\n"),
        (".lfsconfig", "[lfs]\n\turl = http://127.0.0.1:9/\n"),
        ("evil", &format!("#!/bin/sh\n{spring}\n")),
        (".envrc", &spring),
    ]);
    // A filter would spoil the files themselves; what it is named by comes last.
    repo.commit("traps", &[(".gitattributes", "* filter=evil diff=evil\n")]);
    let sub = format!("160000,{},a", repo.head);
    repo.git(&["update-index", "--add", "--cacheinfo", &sub]);
    repo.git(&["commit", "-qm", "submodule"]);
    trap.arm(&repo.path.join(".git"));
    let _ = fs::remove_file(&trap.canary);

    let up = trap.up(&repo, "main");
    trap.assert_untouched();
    let workspace = PathBuf::from(text(&up, "workspace_path"));
    assert_eq!(
        fs::read_to_string(workspace.join("file.txt")).unwrap(),
        "$Id$ text\n"
    );
    let config = fs::read_to_string(workspace.join(".git/config")).unwrap();
    assert!(
        !config.contains("evil"),
        "nothing of the source's configuration came along: {config}"
    );

    // Now the agent sets the same traps in its own workspace.
    trap.arm(&workspace.join(".git"));
    fs::write(workspace.join(".gitattributes"), ATTRIBUTES).unwrap();
    for arguments in [
        &["status", "it"][..],
        &["--json", "status", "it"],
        &["list"],
        &["logs", "it"],
    ] {
        let _ = trap.program.run(arguments).success();
        trap.assert_untouched();
    }
    let down = trap.program.down("it");
    trap.assert_untouched();
    let object = restore(&trap.program, &down);
    trap.assert_untouched();
    assert!(
        object.restored.join("workspace/.git/evil").exists(),
        "and the traps are kept as they were"
    );
    trap.program.assert_nothing_left();
    // The traps are sharp: git itself, as a user would run it, springs them.
    let mut git = std::process::Command::new("git");
    let said = git.arg("status").current_dir(&repo.path).output().unwrap();
    assert!(trap.canary.exists(), "{said:?}");
}

#[test]
fn the_callers_own_git_configuration_is_not_obeyed_either() {
    let trap = Trap::new();
    let repo = trap.program.env.git_repo(&[
        ("file.txt", "text\n"),
        (".gitattributes", "* filter=evil\n"),
    ]);
    trap.arm(&trap.program.env.root().join("home/evil.git"));
    let config = trap.program.env.root().join("home/evil.git/config");
    for place in ["home/.gitconfig", "config/git/config"] {
        let place = trap.program.env.root().join(place);
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        fs::copy(&config, place).unwrap();
    }
    trap.up(&repo, "main");
    trap.assert_untouched();
    trap.program.down("it");
    trap.assert_untouched();
}

#[test]
fn names_are_only_names() {
    let trap = Trap::new();
    let spring = trap.spring().replace('/', "${HOME%%[!/]*}");
    let names = [
        "a\nnewline".to_owned(),
        "-rf".to_owned(),
        "--upload-pack=x".to_owned(),
        format!("$({spring})"),
        format!("`{spring}`"),
        format!("; {spring} ;"),
        "\u{1b}[31mred\u{7}".to_owned(),
        "trailing space ".to_owned(),
        "'\"\\".to_owned(),
        "\u{202e}txt.exe".to_owned(),
        "deep/ /..../x".to_owned(),
    ];
    let files: Vec<_> = names
        .iter()
        .map(|name| (name.as_str(), "content"))
        .collect();
    let repo = trap.program.env.git_repo(&files);
    let branch = "x;touch${IFS}canary&`id`$(id)'\"%00<b>";
    repo.git(&["branch", branch]);
    let up = trap.up(&repo, branch);
    trap.assert_untouched();
    let workspace = PathBuf::from(text(&up, "workspace_path"));
    for name in &names {
        assert_eq!(
            fs::read_to_string(workspace.join(name)).unwrap(),
            "content",
            "{name:?}"
        );
    }
    let shown = trap.program.run(&["list"]).success().stdout;
    assert!(!shown.contains('\u{1b}'), "{shown:?}");
    let object = restore(&trap.program, &trap.program.down("it"));
    for name in &names {
        assert!(
            object.restored.join("workspace").join(name).is_file(),
            "{name:?}"
        );
    }
    trap.assert_untouched();
}

#[test]
fn a_directory_with_a_strange_name_is_a_repository_like_any_other() {
    let trap = Trap::new();
    let repo = trap.program.env.git_repo(&[("f", "x")]);
    for name in ["-x", "a b", "it's \"$(id)\" `id`;", "ü%20#?", "ext::sh"] {
        let place = trap.program.env.root().join("repos").join(name);
        fs::rename(&repo.path, &place).unwrap();
        let up = trap.program.json(&[
            "up",
            place.to_str().unwrap(),
            "--branch",
            "main",
            "--agent",
            "none",
        ]);
        trap.program.down(&text(&up, "session_id"));
        fs::rename(&place, &repo.path).unwrap();
    }
    trap.assert_untouched();
}

#[test]
fn links_lead_nowhere() {
    let trap = Trap::new();
    let outside = trap.program.env.root().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(
        outside.join("alpine.toml"),
        format!("[setup]\ninstall = '{}'\n", trap.spring()),
    )
    .unwrap();
    fs::write(outside.join("private"), "the user's own file").unwrap();

    // A link in the place of `.alpine.toml` is refused, wherever it leads.
    let repo = trap.program.env.git_repo(&[("f", "x")]);
    symlink(outside.join("alpine.toml"), repo.path.join(".alpine.toml")).unwrap();
    repo.commit("a link", &[]);
    let path = repo.path.to_str().unwrap();
    trap.program.fails(
        &["up", path, "--branch", "main", "--agent", "none"],
        "ERR_CONFIG_INVALID",
        1,
    );
    trap.assert_untouched();
    trap.program.assert_nothing_left();

    // Links to outside are kept as links: what they lead to is neither read nor written nor deleted.
    let repo = trap.program.env.git_repo(&[("f", "x")]);
    symlink(&outside, repo.path.join("outside")).unwrap();
    symlink(outside.join("private"), repo.path.join("package-lock.json")).unwrap();
    symlink("loop", repo.path.join("loop")).unwrap();
    repo.commit("links", &[]);
    trap.up(&repo, "main");
    let object = restore(&trap.program, &trap.program.down("it"));
    let restored = object.restored.join("workspace");
    assert_eq!(fs::read_link(restored.join("outside")).unwrap(), outside);
    assert_eq!(
        fs::read_link(restored.join("loop")).unwrap(),
        Path::new("loop")
    );
    assert_eq!(
        fs::read_to_string(outside.join("private")).unwrap(),
        "the user's own file"
    );
    trap.assert_untouched();
    trap.program.assert_nothing_left();
}

#[test]
fn a_tree_that_git_would_not_make_does_not_get_out_of_the_workspace() {
    for name in [".git", ".GIT", "..", ".", ".git ", "git~1"] {
        let trap = Trap::new();
        let repo = trap.program.env.git_repo(&[("f", "x")]);
        let hook = repo.path.join("hook");
        script(&hook, &format!("#!/bin/sh\n{}\n", trap.spring()));
        let blob = repo.git(&["hash-object", "-w", "hook"]);
        let id: Vec<u8> = (0..20)
            .map(|at| u8::from_str_radix(&blob[2 * at..2 * at + 2], 16).unwrap())
            .collect();
        let write = |kind: &str, mode: &str, name: &str, id: &[u8]| {
            let bytes = [format!("{mode} {name}\0").as_bytes(), id].concat();
            fs::write(repo.path.join("raw"), bytes).unwrap();
            repo.git(&["hash-object", "-w", "-t", kind, "--literally", "raw"])
        };
        let raw = |text: &str| -> Vec<u8> {
            (0..20)
                .map(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).unwrap())
                .collect()
        };
        let hooks = write("tree", "100755", "post-checkout", &id);
        let inner = write("tree", "40000", "hooks", &raw(&hooks));
        let tree = write("tree", "40000", name, &raw(&inner));
        let commit = repo.git(&["commit-tree", &tree, "-m", "hostile"]);
        repo.git(&["update-ref", "refs/heads/evil", &commit]);
        let path = repo.path.to_str().unwrap();
        let output = trap.program.run(&[
            "--json", "up", path, "--branch", "evil", "--agent", "none", "--name", "it",
        ]);
        trap.assert_untouched();
        if output.code() == Some(0) {
            trap.program.down("it");
        } else {
            crate::support::failed(&output, "ERR_REPO_SYNC_FAILED", 2);
        }
        trap.assert_untouched();
        let root = trap.program.sandboxes();
        assert!(
            !root.join("hooks").exists() && !trap.program.env.alpine_home().join("hooks").exists()
        );
        trap.program.assert_nothing_left();
    }
}

#[test]
fn addresses_that_are_commands_or_options_are_refused_before_anything_is_made() {
    let trap = Trap::new();
    let spring = trap.spring();
    for address in [
        format!("ext::sh -c '{spring}'"),
        format!("--upload-pack={spring}"),
        format!("-c core.sshCommand={spring}"),
        format!("ssh://-oProxyCommand={spring}/x"),
        format!("ssh://host/-oProxyCommand={spring}\n"),
        format!("-oProxyCommand={spring}@host:x"),
        format!("git@-oProxyCommand={spring}:x"),
        "fd::17/foo".to_owned(),
        "transport::file:///x".to_owned(),
        "git://example.org/x".to_owned(),
        "http://example.org/x".to_owned(),
        "file://-x".to_owned(),
        "https://".to_owned(),
        "\u{1b}]0;x\u{7}".to_owned(),
    ] {
        let arguments = [
            "up", "--branch", "main", "--public", "--agent", "none", "--", &address,
        ];
        trap.program.fails(&arguments, "ERR_INVALID_REPO_URL", 1);
        trap.assert_untouched();
    }
    let made = fs::read_dir(trap.program.env.alpine_home())
        .unwrap()
        .count();
    assert_eq!(made, 0, "nothing was made");
}
