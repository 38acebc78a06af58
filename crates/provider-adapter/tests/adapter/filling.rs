//! How a workspace is filled: by a repository, its install step, or a durable object.

use crate::world::{call, dropped_after, exec_request, files, id, world};
use alpine_provider_api::*;
use alpine_testkit::GitServer;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use tokio::sync::mpsc;

#[tokio::test]
async fn a_repository_is_brought_once_and_what_was_done_since_stays() {
    let world = world(&[
        ("a.txt", "one\n"),
        ("dir/b.txt", "two\n"),
        ("-rf", "a name\n"),
    ]);
    world.provision("sbx_a").await;
    world.repo.commit("a later one", &[("a.txt", "later\n")]);
    let head = world.sync("sbx_a").await.unwrap().head;
    assert_eq!(head.as_str(), world.repo.head);
    let workspace = world.workspace("sbx_a");
    let read = |name: &str| fs::read_to_string(workspace.join(name)).unwrap();
    assert_eq!(
        (read("a.txt"), read("dir/b.txt"), read("-rf")),
        ("one\n".into(), "two\n".into(), "a name\n".into())
    );
    let (reply, said) = world
        .sh(
            "sbx_a",
            "git status --porcelain --branch && git fsck --no-dangling",
        )
        .await;
    assert_eq!(reply, ExecReply::Exited(0), "{said}");
    assert_eq!(said, "## main...origin/main\n");
    world.sh("sbx_a", "echo mine > a.txt").await;
    world.sync("sbx_a").await.unwrap();
    assert_eq!(read("a.txt"), "mine\n");
    let probe = world.inspect("sbx_a", true).await.probe.unwrap();
    assert_eq!(probe.head, Some(head));
    assert!(probe.writable);
    let other = world.repo.git(&["rev-parse", "main"]);
    let request = world.sync_request("sbx_a", &other);
    let refused = world.provider().sync_repo(&call(1), request).await;
    assert_eq!(refused.unwrap_err().kind, ErrorKind::Conflict);
    assert!(world.repo.head != other);
    world.destroy("sbx_a").await.unwrap();
}

#[tokio::test]
async fn a_sync_that_is_dropped_anywhere_is_done_again() {
    let world = world(&[("a.txt", "one\n"), ("large", &"text\n".repeat(100_000))]);
    for steps in (0..12).chain([20, 40, 80, 160]) {
        let name = format!("sbx_{steps}");
        world.provision(&name).await;
        let request = world.sync_request(&name, &world.repo.head);
        let provider = world.provider();
        let _ = dropped_after(steps, provider.sync_repo(&call(1), request)).await;
        let head = world.sync(&name).await.unwrap().head;
        assert_eq!(head.as_str(), world.repo.head);
        let mut names: Vec<_> = fs::read_dir(world.workspace(&name))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, [".git", "a.txt", "large"], "after {steps} steps");
        world.destroy(&name).await.unwrap();
    }
}

#[tokio::test]
async fn links_of_a_repository_lead_nowhere_and_nothing_of_it_is_run() {
    let world = world(&[("a.txt", "one\n")]);
    let canary = world.env.root().join("canary");
    fs::create_dir(&canary).unwrap();
    symlink(&canary, world.repo.path.join("out")).unwrap();
    let hooks = format!("#!/bin/sh\ntouch {}/ran\n", canary.display());
    let files: [(&str, &str); 3] = [
        (".gitattributes", "* filter=evil\n"),
        ("post-checkout", &hooks),
        (
            ".gitmodules",
            "[submodule \"x\"]\n\tpath = x\n\turl = ../../..\n",
        ),
    ];
    let head = world.repo.commit("hostile", &files);
    world.provision("sbx_a").await;
    let (events, mut received) = mpsc::channel(64);
    let loud = Call::new(call(1).meta, events);
    let request = world.sync_request("sbx_a", &head);
    world.provider().sync_repo(&loud, request).await.unwrap();
    drop(loud);
    let mut warned = 0;
    while let Some(event) = received.recv().await {
        warned +=
            usize::from(matches!(event, CallEvent::Warning(text) if text.contains("submodule")));
    }
    assert_eq!(warned, 1);
    assert_eq!(
        fs::read_link(world.workspace("sbx_a").join("out")).unwrap(),
        canary
    );
    assert_eq!(fs::read_dir(&canary).unwrap().count(), 0);
    world.destroy("sbx_a").await.unwrap();
    assert!(canary.is_dir());
}

#[tokio::test]
async fn a_token_is_in_no_file_of_the_sandbox_or_of_the_record() {
    let token = "ghp_planted0123456789planted";
    let world = world(&[("a.txt", "one\n")]);
    world.repo.git(&["update-server-info"]);
    let server = GitServer::start_for(
        world.repo.path.parent().unwrap(),
        &[("x-access-token", token)],
    );
    let name = world.repo.path.file_name().unwrap().to_str().unwrap();
    world.provision("sbx_a").await;
    let mut request = world.sync_request("sbx_a", &world.repo.head);
    request.repo = RepoUrl::parse(&server.url(name), Path::new("/")).unwrap();
    request.credential = Some(GitCredential::Token {
        host: format!("127.0.0.1:{}", server.port()),
        token: Secret::new(token.to_owned()),
    });
    world.provider().sync_repo(&call(1), request).await.unwrap();
    world.stop("sbx_a", 1).await.unwrap();
    let all = files(world.env.root());
    assert!(all.iter().any(|path| path.ends_with("workspace/a.txt")));
    for path in all {
        let text = fs::read(&path).unwrap();
        let found = text
            .windows(token.len())
            .any(|part| part == token.as_bytes());
        assert!(!found, "{}", path.display());
    }
    world.destroy("sbx_a").await.unwrap();
}

#[tokio::test]
async fn an_install_step_runs_once_however_often_and_at_once_it_is_asked_for() {
    let settings = "[setup]\ninstall = 'echo run >> runs; sleep 0.2; echo said'\n";
    let world = world(&[(".alpine.toml", settings), ("Cargo.lock", "")]);
    world.provision("sbx_a").await;
    world.sync("sbx_a").await.unwrap();
    let (one, other) = tokio::join!(world.install("sbx_a"), world.install("sbx_a"));
    let (one, other) = (one.unwrap(), other.unwrap());
    assert_eq!(one, other);
    assert_eq!(one.found_by.as_deref(), Some(".alpine.toml"));
    assert_eq!(world.install("sbx_a").await.unwrap(), one);
    let runs = fs::read_to_string(world.workspace("sbx_a").join("runs")).unwrap();
    assert_eq!(runs, "run\n");
    let (events, mut received) = mpsc::channel(4);
    let loud = Call::new(call(1).meta, events);
    let request = LogsRequest {
        sandbox_id: id("sbx_a"),
        log: LogName::Install,
        follow: false,
    };
    world.provider().logs(&loud, request).await.unwrap();
    let Some(CallEvent::Stdout(log)) = received.recv().await else {
        panic!("no log");
    };
    assert_eq!(log, b"said\n");
    world.destroy("sbx_a").await.unwrap();
}

#[tokio::test]
async fn an_install_step_that_fails_or_lacks_its_tool_says_why() {
    let world = world(&[(".alpine.toml", "setup.install = 'echo why >&2; exit 3'\n")]);
    world.provision("sbx_a").await;
    world.sync("sbx_a").await.unwrap();
    let error = world.install("sbx_a").await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::InstallFailed);
    assert!(error.message.contains("exited with status 3"), "{error}");
    assert_eq!(error.log_tail, ["why"]);
    for (script, kind, text) in [
        (
            "echo 'no toml' > .alpine.toml",
            ErrorKind::ConfigInvalid,
            "line 1",
        ),
        (
            "ln -sf /etc/passwd .alpine.toml",
            ErrorKind::ConfigInvalid,
            "no regular file",
        ),
        (
            "rm .alpine.toml; echo '{}' > composer.lock",
            ErrorKind::InstallFailed,
            "has no `composer`",
        ),
    ] {
        world.sh("sbx_a", script).await;
        let error = world.install("sbx_a").await.unwrap_err();
        assert_eq!(error.kind, kind, "{error}");
        assert!(error.message.contains(text), "{error}");
    }
    world.destroy("sbx_a").await.unwrap();
}

#[tokio::test]
async fn an_install_step_ends_with_its_caller() {
    let world = world(&[(
        ".alpine.toml",
        "setup.install = 'echo $$ > pid; sleep 600; true'\n",
    )]);
    world.provision("sbx_a").await;
    world.sync("sbx_a").await.unwrap();
    let pid = world.workspace("sbx_a").join("pid");
    let begun = async {
        while fs::read_to_string(&pid).is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        done = world.install("sbx_a") => panic!("{done:?}"),
        () = begun => {}
    }
    world
        .env
        .assert_no_processes(std::time::Duration::from_secs(5));
    world.destroy("sbx_a").await.unwrap();
}

#[tokio::test]
async fn a_durable_object_comes_back_as_it_was_and_a_dropped_restore_is_done_again() {
    let world = world(&[("a.txt", "one\n")]);
    world.provision("sbx_a").await;
    world.sync("sbx_a").await.unwrap();
    let script = "mkdir -p deep/er && echo 2 > deep/er/file && chmod 750 deep/er/file && ln -s ../.. deep/up \
        && ln a.txt again && mkfifo fifo && touch -d '2001-02-03 04:05:06 UTC' a.txt";
    assert_eq!(world.sh("sbx_a", script).await.0, ExecReply::Exited(0));
    let list = "find . -printf '%p %y %m %n %l %TY-%Tm-%Td\\n' | grep -v '^[.] ' | sort";
    let before = world.sh("sbx_a", list).await.1;
    world.stop("sbx_a", 1).await.unwrap();
    let staged = world.capture("sbx_a", 1).await.unwrap();
    let entries = staged.entries;
    let object = world.persist("sbx_a", staged).await;
    for steps in (0..8).chain([16, 32, 64]) {
        let name = format!("sbx_{steps}");
        world.provision(&name).await;
        let _ = dropped_after(steps, world.restore(&name, &object)).await;
        for _ in 0..2 {
            assert_eq!(
                world.restore(&name, &object).await.unwrap().entries,
                entries
            );
        }
        assert_eq!(world.sh(&name, list).await.1, before, "after {steps} steps");
        world.destroy(&name).await.unwrap();
    }
    world.destroy("sbx_a").await.unwrap();
}

#[tokio::test]
async fn exec_passes_streams_and_statuses_and_ends_with_its_caller() {
    let world = world(&[]);
    world.provision("sbx_a").await;
    let (reply, said) = world.sh("sbx_a", "echo out; exit 7").await;
    assert_eq!((reply, said.as_str()), (ExecReply::Exited(7), "out\n"));
    assert_eq!(
        world.sh("sbx_a", "kill -KILL $$").await.0,
        ExecReply::Signalled(9)
    );
    let mut request = exec_request("sbx_a", "");
    request.argv = vec!["/no/such/program".to_owned()];
    let (_, input) = mpsc::channel(1);
    let error = world
        .provider()
        .exec(&call(1), request, input)
        .await
        .unwrap_err();
    assert_eq!(error.kind, ErrorKind::InvalidArgument);
    let provider = world.provider();
    let pid = world.workspace("sbx_a").join("pid");
    let (_open, input) = mpsc::channel(1);
    let request = exec_request("sbx_a", "echo > pid; sleep 600 | cat");
    let begun = async {
        while !pid.exists() {
            tokio::task::yield_now().await;
        }
    };
    let quiet = call(1);
    tokio::select! {
        done = provider.exec(&quiet, request, input) => panic!("{done:?}"),
        () = begun => {}
    }
    world
        .env
        .assert_no_processes(std::time::Duration::from_secs(5));
    world.destroy("sbx_a").await.unwrap();
}
