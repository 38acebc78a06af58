//! Remotes that refuse, redirect, fail, or say nothing, and where a token goes.

use crate::place::{Place, Server, executable, main_branch, until, url};
use alpine_provider_api::{ErrorKind, GitCredential, ProviderError, Retry, Secret};
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

const TOKEN: &str = "tok_5up3rs3cr3tvalue";

fn token(host: &str) -> GitCredential {
    GitCredential::Token {
        host: host.to_owned(),
        token: Secret::new(TOKEN.to_owned()),
    }
}

async fn refusal(server: &Server, credential: Option<&GitCredential>) -> ProviderError {
    let place = Place::empty();
    let (git, repo) = (place.git(), server.repo());
    let error = git
        .tip(&repo, &main_branch(), credential)
        .await
        .unwrap_err();
    let commit = alpine_provider_api::CommitId::new(&"ab".repeat(20)).unwrap();
    let second = git
        .checkout(
            &repo,
            &main_branch(),
            &commit,
            credential,
            &place.workspace(),
            &|_, _| {},
        )
        .await
        .unwrap_err();
    assert_eq!(second.kind, error.kind, "{second:?}");
    assert!(!format!("{error:?}{second:?}").contains(TOKEN));
    assert!(!holds(place.root.path(), TOKEN.as_bytes()));
    error
}

/// Whether a file below the directory holds the text.
fn holds(directory: &Path, text: &[u8]) -> bool {
    fs::read_dir(directory).unwrap().any(|entry| {
        let entry = entry.unwrap();
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            holds(&entry.path(), text)
        } else {
            kind.is_file()
                && fs::read(entry.path())
                    .unwrap()
                    .windows(text.len())
                    .any(|part| part == text)
        }
    })
}

#[tokio::test]
async fn refusals_are_told_apart() {
    let basic = "401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"x\"";
    for (head, with_token, kind, hint) in [
        (basic, false, ErrorKind::AuthRejected, "token_hosts"),
        (basic, true, ErrorKind::AuthRejected, "expired"),
        (
            "403 Forbidden",
            true,
            ErrorKind::AuthRejected,
            "right to read",
        ),
        (
            "403 Forbidden",
            false,
            ErrorKind::AuthRejected,
            "none was sent",
        ),
        (
            "404 Not Found",
            false,
            ErrorKind::AuthRejected,
            "is not public, and none was sent",
        ),
        (
            "404 Not Found",
            true,
            ErrorKind::AuthRejected,
            "may not see it",
        ),
        (
            "302 Found\r\nLocation: http://127.0.0.1:1/",
            true,
            ErrorKind::InvalidArgument,
            "curl -sI",
        ),
    ] {
        let server = Server::answering(head);
        let credential = with_token.then(|| token(&server.address));
        let error = refusal(&server, credential.as_ref()).await;
        assert_eq!(
            (error.kind, error.retry),
            (kind, Retry::Never),
            "{head}: {error:?}"
        );
        let told = format!("{} {:?}", error.message, error.hint);
        assert!(told.contains(hint), "{head}: {error:?}");
        // What the message says already is not said again.
        let message = &error.message;
        let again = |line: &String| message.contains(line.trim_start_matches("fatal: "));
        assert!(!error.log_tail.iter().any(again), "{head}: {error:?}");
        assert_eq!(told.contains("none was sent"), !with_token, "{head}");
    }
}

#[tokio::test]
async fn failures_of_the_network_are_transient() {
    for head in [
        "500 Oops",
        "502 Bad Gateway",
        "503 Busy",
        "429 Too Many Requests",
    ] {
        let error = refusal(&Server::answering(head), None).await;
        assert_eq!(
            (error.kind, error.retry),
            (ErrorKind::Unreachable, Retry::Transient),
            "{head}: {error:?}"
        );
        assert!(!error.message.contains("unable to access"), "{error:?}");
        assert!(error.log_tail.is_empty(), "it is all said: {error:?}");
    }
    let place = Place::empty();
    for text in ["http://127.0.0.1:1/o/r.git", "https://name.invalid/o/r.git"] {
        let error = place
            .git()
            .tip(&url(text), &main_branch(), None)
            .await
            .unwrap_err();
        assert_eq!(
            (error.kind, error.retry),
            (ErrorKind::Unreachable, Retry::Transient),
            "{error:?}"
        );
    }
}

#[tokio::test]
async fn a_token_goes_to_its_host_alone() {
    let basic = "HTTP/1.1 401 No\r\nWWW-Authenticate: Basic realm=\"x\"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    // What git sends by Basic: `x-access-token:` and the token.
    let sent = "eC1hY2Nlc3MtdG9rZW46dG9rXzV1cDNyczNjcjN0dmFsdWU=";
    let own = Server::start(move |_| Some(basic.to_owned()));
    refusal(&own, Some(&token(&own.address))).await;
    assert!(own.seen().contains(sent), "{}", own.seen());
    let other = Server::start(move |_| Some(basic.to_owned()));
    let error = refusal(&other, Some(&token(&own.address))).await;
    assert!(!other.seen().contains("Authorization"), "{}", other.seen());
    assert!(error.message.contains("token_hosts"), "{error:?}");
    // A redirection is not followed with a token.
    let location = format!(
        "HTTP/1.1 302 Found\r\nLocation: http://{}/o/r.git/info/refs?service=git-upload-pack\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        other.address
    );
    let before = other.requests.lock().unwrap().len();
    let moved = Server::start(move |request| {
        Some(if request.contains("Authorization") {
            location.clone()
        } else {
            basic.to_owned()
        })
    });
    let error = refusal(&moved, Some(&token(&moved.address))).await;
    assert_eq!(error.kind, ErrorKind::InvalidArgument, "{error:?}");
    assert_eq!(other.requests.lock().unwrap().len(), before);
}

/// The processes that hold a text in their environment: only their own user may see it there.
fn processes_with(text: &str) -> Vec<(u32, Vec<u8>)> {
    let listing = fs::read_dir("/proc").unwrap().flatten();
    let ids = listing.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    ids.filter_map(|id| {
        let environment = fs::read(format!("/proc/{id}/environ")).ok()?;
        let found = environment
            .windows(text.len())
            .any(|part| part == text.as_bytes());
        found.then(|| {
            (
                id,
                fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default(),
            )
        })
    })
    .filter(|(id, _)| *id != std::process::id())
    .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_call_leaves_no_process_and_no_argument_held_the_token() {
    let secret = format!("tok_{}_{}", std::process::id(), "dropped");
    let basic = "HTTP/1.1 401 No\r\nWWW-Authenticate: Basic realm=\"x\"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    let server = Server::start(move |request| {
        (!request.contains("Authorization")).then(|| basic.to_owned())
    });
    let place = Arc::new(Place::empty());
    let credential = GitCredential::Token {
        host: server.address.clone(),
        token: Secret::new(secret.clone()),
    };
    let task = tokio::spawn({
        let (place, repo) = (place.clone(), server.repo());
        async move {
            place
                .git()
                .tip(&repo, &main_branch(), Some(&credential))
                .await
        }
    });
    until("git asks with the token", || {
        server.seen().contains("Authorization")
    });
    let running = processes_with(&secret);
    assert!(running.len() >= 2, "git and its transport run");
    for (_, arguments) in &running {
        let text = String::from_utf8_lossy(arguments);
        assert!(!text.contains(&secret), "{text}");
    }
    task.abort();
    assert!(task.await.unwrap_err().is_cancelled());
    until("no process is left", || processes_with(&secret).is_empty());
    assert!(!holds(place.root.path(), secret.as_bytes()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proxys_password_reaches_the_proxy_and_no_argument_or_file() {
    let secret = format!("pw_{}_proxied", std::process::id());
    let basic = "HTTP/1.1 407 No\r\nProxy-Authenticate: Basic realm=\"x\"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    let proxy = Server::start(move |request| {
        (!request.contains("Proxy-Authorization: Basic ")).then(|| basic.to_owned())
    });
    let mut place = Place::empty();
    let address = format!("http://somebody:{secret}@{}", proxy.address);
    place.extra_env.insert("http_proxy".to_owned(), address);
    let place = Arc::new(place);
    let task = tokio::spawn({
        let place = place.clone();
        let repo = url("http://127.0.0.1:1/o/r.git");
        async move { place.git().tip(&repo, &main_branch(), None).await }
    });
    until("the proxy is asked with the password", || {
        proxy.seen().contains("Proxy-Authorization: Basic ")
    });
    let running = processes_with(&secret);
    assert!(running.len() >= 2, "git and its transport run");
    for (_, arguments) in &running {
        let text = String::from_utf8_lossy(arguments);
        assert!(!text.contains(&secret), "{text}");
    }
    task.abort();
    assert!(task.await.unwrap_err().is_cancelled());
    assert!(!holds(place.root.path(), secret.as_bytes()));
    assert!(!format!("{:?}", place.git()).contains(&secret));
}

#[tokio::test]
async fn a_dropped_checkout_leaves_no_tree() {
    let place = Place::empty();
    let server = Server::start(|_| None);
    let commit = alpine_provider_api::CommitId::new(&"ab".repeat(20)).unwrap();
    let (git, repo, into) = (place.git(), server.repo(), place.workspace());
    let branch = main_branch();
    let nothing = |_, _| {};
    let checkout = git.checkout(&repo, &branch, &commit, None, &into, &nothing);
    let waited = tokio::time::timeout(Duration::from_millis(300), checkout).await;
    assert!(waited.is_err());
    until("no process is left", || {
        processes_with(place.cache().to_str().unwrap()).is_empty()
    });
    assert_eq!(place.names(), ["cache", "source"]);
    // Its lock is free again.
    let again = git
        .checkout(&place.repo(), &branch, &commit, None, &into, &nothing)
        .await;
    assert_eq!(again.unwrap_err().kind, ErrorKind::InvalidArgument);
}

/// Puts an `ssh` in the path that says something and fails.
fn with_ssh(said: &str) -> (Place, alpine_git::Git) {
    let place = Place::empty();
    let bin = place.root.path().join("bin");
    fs::create_dir(&bin).unwrap();
    let seen = place.root.path().join("seen");
    let script = format!(
        "#!/bin/sh\nenv > '{0}'\necho \"$@\" >> '{0}'\ncat >&2 <<'END'\n{said}\nEND\nexit 255\n",
        seen.display()
    );
    fs::write(bin.join("ssh"), script).unwrap();
    executable(&bin.join("ssh"));
    let mut path = bin.into_os_string();
    path.push(":");
    path.push(crate::place::path());
    let git = alpine_git::Git::new(alpine_git::GitConfig {
        cache: place.cache(),
        path,
        home: None,
        extra_env: Default::default(),
        redactor: Default::default(),
    });
    (place, git)
}

#[tokio::test]
async fn ssh_failures_are_told_apart_and_nothing_is_asked() {
    for (said, kind, retry) in [
        (
            "git@h: Permission denied (publickey).",
            ErrorKind::AuthRejected,
            Retry::Never,
        ),
        (
            "ERROR: Repository not found.",
            ErrorKind::AuthRejected,
            Retry::Never,
        ),
        (
            "Host key verification failed.",
            ErrorKind::Unreachable,
            Retry::Never,
        ),
        (
            "ssh: Could not resolve hostname h: Name or service not known",
            ErrorKind::Unreachable,
            Retry::Transient,
        ),
        (
            "ssh: connect to host h port 22: Connection refused",
            ErrorKind::Unreachable,
            Retry::Transient,
        ),
        (
            "kex_exchange_identification: Connection closed by remote host",
            ErrorKind::Unreachable,
            Retry::Transient,
        ),
    ] {
        let (place, git) = with_ssh(said);
        let agent = GitCredential::SshAgent {
            socket: "/run/agent".into(),
        };
        let repo = url("git@h.example:o/r.git");
        let error = git
            .tip(&repo, &main_branch(), Some(&agent))
            .await
            .unwrap_err();
        assert_eq!(
            (error.kind, error.retry),
            (kind, retry),
            "{said}: {error:?}"
        );
        if kind == ErrorKind::Unreachable && retry == Retry::Transient {
            // What SSH said is the cause, and it is said once.
            assert!(error.message.ends_with(said), "{error:?}");
            assert!(error.log_tail.is_empty(), "{error:?}");
        }
        let seen = fs::read_to_string(place.root.path().join("seen")).unwrap();
        for part in [
            "SSH_AUTH_SOCK=/run/agent\n",
            "BatchMode=yes",
            "GIT_TERMINAL_PROMPT=0",
        ] {
            assert!(seen.contains(part), "{part}: {seen}");
        }
        assert!(!seen.contains("StrictHostKeyChecking"));
    }
}

#[tokio::test]
async fn progress_is_told() {
    let place = Place::new();
    let tip = place.tip().await.unwrap();
    let told = Mutex::new(Vec::new());
    let tell = |done, total| told.lock().unwrap().push((done, total));
    place
        .git()
        .checkout(
            &place.repo(),
            &main_branch(),
            &tip,
            None,
            &place.workspace(),
            &tell,
        )
        .await
        .unwrap();
    let told = told.into_inner().unwrap();
    assert!(
        told.iter()
            .any(|(done, total)| *done > 0 && *total == Some(*done)),
        "{told:?}"
    );
}
