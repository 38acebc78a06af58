//! The repository is brought in, and its dependencies are installed.

use crate::bench::Bench;
use crate::called::{Checking, answered, broken, same};
use crate::catalogue::{Check, check};
use crate::groups::exec::stands_still;
use crate::repository::ODD_FILE;
use crate::sandbox::Sandbox;
use alpine_provider_api::*;
use std::time::Duration;

pub(crate) const CHECKS: &[Check] = &[
    check!(
        Repository,
        "sync.pinned",
        "sync_repo brings the repository in at exactly the commit, even if the branch has moved since",
        pinned,
        SyncRepo
    ),
    check!(
        Repository,
        "sync.whole",
        "the workspace holds every file of the commit with its mode and its links, on the branch, and nothing is changed",
        whole,
        SyncRepo
    ),
    check!(
        Repository,
        "sync.twice",
        "a workspace that is there at the commit is left as it is",
        twice,
        SyncRepo
    ),
    check!(
        Repository,
        "sync.given_up",
        "a partial checkout is made anew by a repeat",
        given_up,
        SyncRepo
    ),
    check!(
        Repository,
        "sync.missing_commit",
        "a commit that the remote does not have is `commit_not_found`",
        missing_commit,
        SyncRepo
    ),
    check!(
        Repository,
        "sync.token_nowhere",
        "the credential opens the remote, and is in no file, variable, argument, event, answer or error of the sandbox",
        token_nowhere,
        SyncRepo
    ),
    check!(
        Repository,
        "install.runs",
        "install runs the repository's command in the workspace, says what it ran, and keeps its output in the install log",
        runs,
        SyncRepo | Install | Logs
    ),
    check!(
        Repository,
        "install.twice",
        "an install that exited 0 is not run again",
        install_twice,
        SyncRepo | Install
    ),
    check!(
        Repository,
        "install.none",
        "a repository without an install step has none",
        none,
        SyncRepo | Install
    ),
    check!(
        Repository,
        "install.fails",
        "an install step that exits with another status is `install_failed`, with the log's last lines",
        fails,
        SyncRepo | Install
    ),
    check!(
        Repository,
        "install.given_up",
        "an install that is given up is ended, and a repeat starts it anew",
        install_given_up,
        SyncRepo | Install
    ),
];

async fn is_at(sandbox: &Sandbox<'_>, version: &str) -> Checking {
    let found = sandbox.sh("cat version").await?;
    same("the file `version`", &format!("{version}\n"), &found)
}

async fn pinned(bench: &Bench<'_>) -> Checking {
    let repository = bench.repository();
    for (from, version) in [(&repository.pinned, "1"), (&repository.tip, "2")] {
        let sandbox = bench.sandbox()?.made().await?;
        let reply = sandbox.sync(from).await?.ok("sync_repo brings it in")?;
        same("the head that it answers", &from.commit, &reply.head)?;
        is_at(&sandbox, version).await?;
        let probe = sandbox.inspect(true).await?.probe;
        let head = probe.and_then(|probe| probe.head);
        same(
            "the head that inspect finds",
            &Some(from.commit.clone()),
            &head,
        )?;
    }
    Ok(())
}

async fn whole(bench: &Bench<'_>) -> Checking {
    let from = &bench.repository().pinned;
    let sandbox = bench.sandbox()?.filled(from).await?;
    let script = "cat .git/HEAD; ./bin/run; readlink src/link; readlink dangling; cat src/link; wc -c < src/empty; ls -A | LC_ALL=C sort";
    let found = sandbox.sh(script).await?;
    let expected = format!(
        "ref: refs/heads/main\nran\n../README.md\nnowhere\nread me\n0\n.git\n.gitignore\nREADME.md\nbin\ndangling\n{ODD_FILE}\nsrc\nversion\n"
    );
    same("the workspace", &expected, &found)
}

async fn twice(bench: &Bench<'_>) -> Checking {
    let from = &bench.repository().pinned;
    let sandbox = bench.sandbox()?.filled(from).await?;
    sandbox.sh("echo mine > version; echo new > new").await?;
    for _ in 0..2 {
        let again = "sync_repo of a workspace that is at the commit leaves it";
        let reply = sandbox.sync(from).await?.ok(again)?;
        same("the head that it answers", &from.commit, &reply.head)?;
        bench.reopen().await;
    }
    let found = sandbox.sh("cat version new").await?;
    same(
        "what was changed in it since",
        &"mine\nnew\n".to_owned(),
        &found,
    )
}

async fn given_up(bench: &Bench<'_>) -> Checking {
    let from = &bench.repository().pinned;
    for _ in 0..4 {
        let sandbox = bench.sandbox()?.made().await?;
        let request = sandbox.sync_request(from);
        let after = Duration::from_micros(bench.random(60_000));
        let at = sandbox.begin(Method::SyncRepo, &request).await?;
        let call = at.provider.sync_repo(&at.call, request);
        drop(at.end_dropped(call, tokio::time::sleep(after)).await);
        let reply = sandbox.sync(from).await?.ok("the repeat brings it in")?;
        same("the head that it answers", &from.commit, &reply.head)?;
        is_at(&sandbox, "1").await?;
        let found = sandbox.sh("ls -A | wc -l").await?;
        same("how many entries there are", &"8", &found.trim())?;
    }
    Ok(())
}

async fn missing_commit(bench: &Bench<'_>) -> Checking {
    let sandbox = bench.sandbox()?.made().await?;
    let mut request = sandbox.sync_request(&bench.repository().pinned);
    let Some(commit) = CommitId::new(&"0123456789".repeat(4)) else {
        return broken("the kit's commit is one", "it is none");
    };
    request.commit = commit;
    let told = sandbox.sync_as(request).await?;
    told.refused(&[ErrorKind::CommitNotFound], "no such commit")?;
    Ok(())
}

async fn token_nowhere(bench: &Bench<'_>) -> Checking {
    // Joined here, so that the search does not find itself.
    let (one, other) = ("kit-token", bench.shared.run.as_str());
    let token = format!("{one}-{other}");
    let server = bench.repository().serve(&token).await?;
    let sandbox = bench.sandbox()?.made().await?;
    let mut request = sandbox.sync_request(&bench.repository().pinned);
    request.repo = server.repo.clone();
    let told = sandbox.sync_as(request.clone()).await?;
    told.refused(&[ErrorKind::AuthRejected], "without the credential")?;
    request.credential = Some(GitCredential::Token {
        host: server.host.clone(),
        token: Secret::new("another-token-that-is-wrong".to_owned()),
    });
    let told = sandbox.sync_as(request.clone()).await?;
    let error = told.refused(&[ErrorKind::AuthRejected], "with a wrong credential")?;
    if error.message.contains("another-token") {
        return broken("an error without the credential", "it holds it");
    }
    request.credential = Some(GitCredential::Token {
        host: server.host.clone(),
        token: Secret::new(token.clone()),
    });
    let told = sandbox.sync_as(request).await?;
    told.ok("the credential opens the remote")?;
    is_at(&sandbox, "1").await?;
    if bench.trace.lines().iter().any(|line| line.contains(&token)) {
        return broken("no answer holds the credential", "one does");
    }
    let script = format!(
        "t={one}; t=$t-{other}; grep -rlF \"$t\" .
        all=$(env; cat /proc/*/environ /proc/*/cmdline 2>/dev/null | tr '\\000' '\\n')
        case \"$all\" in *\"$t\"*) echo found in a process;; esac
        printf @; cat .git/config"
    );
    let found = sandbox.sh(&script).await?;
    let Some(config) = found.strip_prefix('@') else {
        return broken("the credential is nowhere in the sandbox", found);
    };
    let urls = config
        .lines()
        .filter_map(|line| line.trim().strip_prefix("url = "));
    let urls: Vec<_> = urls.map(|url| url.trim_matches('"')).collect();
    same(
        "`origin`, without credentials",
        &vec![server.repo.as_str()],
        &urls,
    )
}

async fn runs(bench: &Bench<'_>) -> Checking {
    let sandbox = bench
        .sandbox()?
        .filled(&bench.repository().installs)
        .await?;
    let reply = sandbox.install().await?.ok("install runs the command")?;
    let Some(command) = reply.command else {
        return broken("install says which command it ran", "none");
    };
    if !command.contains("echo first words") {
        return broken("the command of `.alpine.toml`", command);
    }
    same(
        "what it was found by",
        &Some(".alpine.toml".to_owned()),
        &reply.found_by,
    )?;
    let found = sandbox.sh("cat installed").await?;
    same("what it did in the workspace", &"once\n".to_owned(), &found)?;
    for _ in 0..2 {
        let told = sandbox.log(LogName::Install).await?;
        let text = String::from_utf8_lossy(&told.stdout).into_owned();
        told.ok("logs sends the install log")?;
        if !text.contains("first words") {
            return broken("the install log holds the command's output", text);
        }
        bench.reopen().await;
    }
    Ok(())
}

async fn install_twice(bench: &Bench<'_>) -> Checking {
    let sandbox = bench
        .sandbox()?
        .filled(&bench.repository().installs)
        .await?;
    let first = sandbox.install().await?.ok("install runs the command")?;
    for _ in 0..2 {
        let again = sandbox.install().await?.ok("install again answers")?;
        same("the same reply", &first, &again)?;
        bench.reopen().await;
    }
    let found = sandbox.sh("cat installed").await?;
    same("how often it ran", &"once\n".to_owned(), &found)
}

async fn none(bench: &Bench<'_>) -> Checking {
    let sandbox = bench.sandbox()?.filled(&bench.repository().pinned).await?;
    let reply = sandbox
        .install()
        .await?
        .ok("install without a step answers")?;
    let expected = InstallReply {
        command: None,
        found_by: None,
    };
    same("the reply", &expected, &reply)
}

async fn fails(bench: &Bench<'_>) -> Checking {
    let sandbox = bench.sandbox()?.filled(&bench.repository().fails).await?;
    for _ in 0..2 {
        let told = sandbox.install().await?;
        let error = told.refused(&[ErrorKind::InstallFailed], "a step that exits 3")?;
        let tail = &error.log_tail;
        if !tail.iter().any(|line| line.contains("the last words")) {
            return broken("the log's last lines", format!("{tail:?}"));
        }
    }
    Ok(())
}

async fn install_given_up(bench: &Bench<'_>) -> Checking {
    let sandbox = bench.sandbox()?.filled(&bench.repository().lasts).await?;
    let request = InstallRequest {
        sandbox_id: sandbox.id.clone(),
    };
    for round in 1..=2 {
        let at = sandbox.begin(Method::Install, &request).await?;
        let call = at.provider.install(&at.call, request.clone());
        let began = sandbox.sh("until [ -s beat ]; do sleep 0.01; done");
        let ended = at.end_dropped(call, began).await;
        if let Some(ended) = ended {
            return broken(
                "the step runs for ever",
                format!("it ended: {}", answered(&ended)),
            );
        }
        stands_still(&sandbox, &format!("install was given up (round {round})")).await?;
        sandbox.sh("rm beat").await?;
    }
    Ok(())
}
