//! A session without an agent, from the repository to the durable object and back.

use crate::local::object::{restore, tree};
use crate::local::program::Program;
use crate::support::text;
use alpine_testkit::TestRepo;
use expect_test::expect;
use std::fs;
use std::path::PathBuf;

pub(crate) fn repository(program: &Program) -> TestRepo {
    program.env.git_repo(&[
        ("README.md", "a repository\n"),
        (".gitignore", "*.log\nbuilt/\n"),
        ("src/lib.rs", "pub fn one() -> u8 { 1 }\n"),
    ])
}

/// What an agent does: a tracked change, a staged one, a new file, an ignored one, a commit, a link, an empty directory,
/// and a process that would stay.
const WORK: &str = "
set -e
git config user.name agent && git config user.email agent@example.com
echo committed > committed.txt && git add committed.txt && git commit -qm work
echo changed >> README.md
echo staged >> src/lib.rs && git add src/lib.rs
echo untracked > 'new file'
mkdir -p built/deep empty && echo ignored > built/deep/x && echo log > run.log
ln -s ../nowhere dangling && chmod 755 'new file' && mkfifo pipe
setsid sh -c 'trap \"\" TERM HUP; exec sleep 1000' > /dev/null 2>&1 < /dev/null &
";

#[test]
fn what_was_done_in_a_session_is_in_its_object() {
    let program = Program::new();
    let repo = repository(&program);
    let up = program.up(&repo, &["--agent", "none", "--client-request-id", "one"]);
    expect![[r#"
        {
          "agent": "none",
          "browser_opened": false,
          "client_request_id": "one",
          "isolation": {
            "layers": [],
            "limits": {
              "cpu": "none",
              "memory": "none",
              "pids": "none"
            },
            "missing": [
              {
                "fix": "run alpine inside a container or a virtual machine that you can spare",
                "what": "files",
                "why": "processes can read and write whatever the user can"
              },
              {
                "fix": "run alpine inside a container or a virtual machine that you can spare",
                "what": "network",
                "why": "processes can reach whatever the user's machine can"
              },
              {
                "fix": "run alpine inside a container or a virtual machine that you can spare",
                "what": "processes",
                "why": "processes can see and signal the user's other processes"
              }
            ],
            "tier": "process"
          },
          "open_url": null,
          "opencode_url": null,
          "operation_id": "op_08b1173f009d56b0a927fc77a111d414",
          "provider": "local",
          "ready_at": "[time]",
          "reused": false,
          "schema_version": "v1",
          "session_id": "ses_ea56b74a55f45b638e2ee623fa247c63",
          "state": "ready",
          "step_ms": {
            "install": "[number]",
            "probe": "[number]",
            "provision": "[number]",
            "resolve": "[number]",
            "start_agent": "[number]",
            "sync_repo": "[number]"
          },
          "target_commit_sha": "05e7fa8388568f2ed78b33657f549c35d6ec677d",
          "warnings": [
            "isolation is `process`: the install step and the agent run as you, with your files and your network",
            "the browser was not opened: `--no-browser` was given"
          ],
          "workspace_path": "[root]/alpine/sandboxes/sbx_ea56b74a55f45b638e2ee623fa247c63/workspace"
        }"#]].assert_eq(&program.plain(&up));
    assert_eq!(up["target_commit_sha"], repo.head.as_str());
    let session = text(&up, "session_id");
    let workspace = PathBuf::from(text(&up, "workspace_path"));
    assert_eq!(
        fs::read_to_string(workspace.join("README.md")).unwrap(),
        "a repository\n"
    );

    let git = |arguments: &[&str]| {
        let output = program.run(&[&["exec", &session, "--", "git"], arguments].concat());
        output.success().stdout
    };
    assert_eq!(git(&["rev-parse", "HEAD"]).trim_end(), repo.head);
    assert_eq!(git(&["branch", "--show-current"]), "main\n");
    assert_eq!(git(&["status", "--porcelain", "--ignored"]), "");
    assert_eq!(git(&["rev-parse", "main@{upstream}"]).trim_end(), repo.head);

    let _done = program
        .run(&["exec", &session, "--", "sh", "-c", WORK])
        .success();
    let status = git(&["status", "--porcelain", "--ignored"]);
    let before = tree(&workspace);

    let down = program.down(&session);
    expect![[r#"
        {
          "durable_object_id": "[object]",
          "history_truncated": false,
          "last_error": null,
          "next_step": null,
          "operation_id": "op_662e59629bef5077b551dd917dc9fb33",
          "persisted_at": "[time]",
          "persistence_verified": true,
          "schema_version": "v1",
          "session_id": "ses_ea56b74a55f45b638e2ee623fa247c63",
          "state": "stopped",
          "workspace_snapshot": {
            "digest": "[digest]",
            "entries": "[number]",
            "left_out": {
              "count": "[number]",
              "first": []
            },
            "size": "[number]"
          },
          "workspace_snapshot_reason": null
        }"#]]
    .assert_eq(&program.plain(&down));
    program.assert_nothing_left();
    let object = restore(&program, &down);
    let restored = object.restored.join("workspace");
    assert!(tree(&restored) == before, "the restored workspace differs");
    let found = TestRepo {
        path: restored,
        head: String::new(),
    };
    assert_eq!(
        found.git(&["status", "--porcelain", "--ignored"]),
        status.trim_end()
    );
    assert_eq!(found.git(&["log", "--format=%s"]), "work\nfirst");
    assert_eq!(found.git(&["fsck", "--no-dangling"]), "");

    expect![[r#"
        {
          "branch": "main",
          "history_truncated": false,
          "last_error": null,
          "operation_history": [
            {
              "action": "up",
              "completed_at": "[time]",
              "error_code": null,
              "operation_id": "op_08b1173f009d56b0a927fc77a111d414",
              "started_at": "[time]",
              "terminal_state": "ready"
            },
            {
              "action": "down",
              "completed_at": null,
              "error_code": null,
              "operation_id": "op_662e59629bef5077b551dd917dc9fb33",
              "started_at": "[time]",
              "terminal_state": null
            }
          ],
          "persisted_at": "[time]",
          "principal_id": "tester",
          "ready_at": "[time]",
          "repo_url": "[root]/repos/r0",
          "schema_version": "v1",
          "session_id": "ses_ea56b74a55f45b638e2ee623fa247c63",
          "started_at": "[time]",
          "state": "stopped",
          "state_transitions": [
            {
              "actor": "tester",
              "operation_id": "op_08b1173f009d56b0a927fc77a111d414",
              "reason": "admitted",
              "state": "requested",
              "timestamp": "[time]"
            },
            {
              "actor": "tester",
              "operation_id": "op_08b1173f009d56b0a927fc77a111d414",
              "reason": "the branch's tip is known",
              "state": "provisioning",
              "timestamp": "[time]"
            },
            {
              "actor": "tester",
              "operation_id": "op_08b1173f009d56b0a927fc77a111d414",
              "reason": "the sandbox is there",
              "state": "repo_syncing",
              "timestamp": "[time]"
            },
            {
              "actor": "tester",
              "operation_id": "op_08b1173f009d56b0a927fc77a111d414",
              "reason": "the repository is at the pinned commit",
              "state": "installing",
              "timestamp": "[time]"
            },
            {
              "actor": "tester",
              "operation_id": "op_08b1173f009d56b0a927fc77a111d414",
              "reason": "all checks passed",
              "state": "ready",
              "timestamp": "[time]"
            },
            {
              "actor": "tester",
              "operation_id": "op_662e59629bef5077b551dd917dc9fb33",
              "reason": "down",
              "state": "stopping",
              "timestamp": "[time]"
            },
            {
              "actor": "tester",
              "operation_id": "op_662e59629bef5077b551dd917dc9fb33",
              "reason": "every process has ended",
              "state": "persisting",
              "timestamp": "[time]"
            }
          ],
          "stopped_at": "[time]",
          "target_commit_sha": "05e7fa8388568f2ed78b33657f549c35d6ec677d",
          "workspace_snapshot": {
            "digest": "[digest]",
            "entries": "[number]",
            "left_out": {
              "count": "[number]",
              "first": []
            },
            "size": "[number]"
          }
        }"#]]
    .assert_eq(&program.plain(&object.payload));
    assert_eq!(object.payload["persisted_at"], down["persisted_at"]);
    assert_eq!(
        object.payload["workspace_snapshot"]["digest"],
        down["workspace_snapshot"]["digest"]
    );
    assert_eq!(
        program.json(&["status", &session])["persisted_at"],
        down["persisted_at"]
    );
    assert_eq!(
        program.json(&["down", &session]),
        down,
        "the first answer again"
    );
}

#[test]
fn the_same_request_again_is_answered_again() {
    let program = Program::new();
    let repo = repository(&program);
    let arguments = ["--agent", "page", "--client-request-id", "one"];
    let first = program.up(&repo, &arguments);
    fs::write(
        PathBuf::from(text(&first, "workspace_path")).join("kept"),
        "work",
    )
    .unwrap();
    // The branch has moved: the session stays at its commit.
    repo.commit("second", &[("README.md", "another\n")]);
    let second = program.up(&repo, &arguments);
    assert_eq!(
        (&first["reused"], &second["reused"]),
        (&false.into(), &true.into())
    );
    assert_ne!(
        first["open_url"], second["open_url"],
        "a link is never given twice"
    );
    for field in [
        "session_id",
        "operation_id",
        "opencode_url",
        "ready_at",
        "target_commit_sha",
        "workspace_path",
        "step_ms",
    ] {
        assert_eq!(first[field], second[field], "{field}");
    }
    assert_eq!(program.sandbox_dirs().len(), 1);
    let down = program.down(&text(&first, "session_id"));
    let kept = restore(&program, &down).restored.join("workspace/kept");
    assert_eq!(fs::read_to_string(kept).unwrap(), "work");
    program.assert_nothing_left();
}

#[test]
fn a_mirror_serves_many_sessions_and_their_work_stays_apart() {
    let program = Program::new();
    let repo = repository(&program);
    repo.git(&["branch", "fix/one"]);
    let path = repo.path.to_str().unwrap();
    let main = program.up(&repo, &["--agent", "none"]);
    let fix = program.json(&[
        "up", path, "--branch", "fix/one", "--agent", "none", "--name", "fix",
    ]);
    let place = |up: &serde_json::Value| PathBuf::from(text(up, "workspace_path"));
    fs::write(place(&main).join("README.md"), "mine").unwrap();
    assert_eq!(
        fs::read_to_string(place(&fix).join("README.md")).unwrap(),
        "a repository\n"
    );
    let branch = program.run(&["exec", "fix", "--", "git", "branch", "--show-current"]);
    assert_eq!(branch.success().stdout, "fix/one\n");
    // A session's id may be shortened, and its name taken for it.
    let short = &text(&main, "session_id")[..12];
    program.down(short);
    program.down("fix");
    program.assert_nothing_left();
    let source = TestRepo {
        path: repo.path.clone(),
        head: String::new(),
    };
    assert_eq!(
        source.git(&["status", "--porcelain"]),
        "",
        "the repository itself was left alone"
    );
}

#[test]
fn people_see_what_came_of_it() {
    let program = Program::new();
    let repo = repository(&program);
    let path = repo.path.to_str().unwrap();
    let up = program
        .run(&[
            "up",
            path,
            "--branch",
            "main",
            "--agent",
            "none",
            "--no-browser",
            "--client-request-id",
            "one",
        ])
        .success();
    let root = program.env.root().to_str().unwrap().to_owned();
    expect![[r#"
        session     ses_ea56b74a55f45b638e2ee623fa247c63 (ready)
        workspace   [root]/alpine/sandboxes/sbx_ea56b74a55f45b638e2ee623fa247c63/workspace
        commit      05e7fa8388568f2ed78b33657f549c35d6ec677d
        agent       none
        provider    local (isolation: process)
        request id  one

        run a command: alpine exec ses_ea56b74a55f45b638e2ee623fa247c63 -- git status
        bring it down: alpine down ses_ea56b74a55f45b638e2ee623fa247c63
    "#]]
    .assert_eq(&up.stdout.replace(&root, "[root]"));
    expect![[r#"
        session ses_ea56b74a55f45b638e2ee623fa247c63
        resolve: done in [time]
        provision: done in [time]
        warning: isolation is `process`: the install step and the agent run as you, with your files and your network
        sync_repo: done in [time]
        install: done in [time]
        start_agent: done in [time]
        probe: done in [time]
        warning: the browser was not opened: `--no-browser` was given
    "#]].assert_eq(&without_spans(&up.stderr));
    let down = program.run(&["down", "ses_"]);
    assert_eq!(down.code(), Some(1), "four characters at least: {down:#?}");
    let session = text(&program.json(&["list"])["sessions"][0], "session_id");
    let down = program.run(&["down", &session]).success();
    assert!(
        down.stdout.contains("(read back and verified)"),
        "{down:#?}"
    );
    program.assert_nothing_left();
}

/// The text without the numbers that say how long something took.
fn without_spans(text: &str) -> String {
    let words = |line: &str| {
        let words = line.split(' ').map(|word| match word {
            "ms" | "s" => "",
            number
                if !number.is_empty()
                    && number
                        .bytes()
                        .all(|byte| byte.is_ascii_digit() || byte == b'.') =>
            {
                "[time]"
            }
            other => other,
        });
        words.collect::<Vec<_>>().join(" ").trim_end().to_owned()
    };
    text.lines().map(|line| words(line) + "\n").collect()
}

#[test]
fn what_a_checkout_leaves_out_is_said_and_recorded() {
    let program = Program::new();
    let repo = program.env.git_repo(&[
        (
            ".gitmodules",
            "[submodule \"s\"]\n\tpath = s\n\turl = ../s\n",
        ),
        (
            ".gitattributes",
            "*.bin filter=lfs diff=lfs merge=lfs -text\n",
        ),
    ]);
    let up = program.up(&repo, &["--agent", "none", "--name", "it"]);
    let status = program.json(&["status", "it"]);
    for document in [&up, &status] {
        let warnings = document["warnings"].to_string();
        assert!(warnings.contains("git submodule update"), "{warnings}");
        assert!(warnings.contains("git lfs pull"), "{warnings}");
    }
    program.down("it");
    program.assert_nothing_left();
}
