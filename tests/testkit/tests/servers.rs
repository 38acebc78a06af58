//! The git server and the proxy do what they say, and end at once.

use alpine_testkit::{FaultProxy, GitMode, GitServer, Output, ProxyMode, TestEnv};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

fn ls_remote(env: &TestEnv, url: &str) -> Output {
    let mut git = env.command(Path::new("git"));
    git.args(["ls-remote", url, "refs/heads/main"])
        .env("GIT_TERMINAL_PROMPT", "0");
    env.run(&mut git)
}

fn with_user(url: &str, user: &str) -> String {
    url.replace("http://", &format!("http://{user}@"))
}

#[test]
fn a_repository_is_cloned_and_pushed_to() {
    let env = TestEnv::new();
    let repo = env.git_repo(&[("a.txt", &"a line\n".repeat(100_000))]);
    let server = GitServer::start_for(&env.root().join("repos"), &[("me", "secret")]);
    let url = server.url("r0/.git");
    assert!(!ls_remote(&env, &url).status.success());
    assert!(
        !ls_remote(&env, &with_user(&url, "me:wrong"))
            .status
            .success()
    );
    let url = with_user(&url, "me:secret");
    assert!(
        ls_remote(&env, &url)
            .success()
            .stdout
            .starts_with(&repo.head)
    );
    let git = |arguments: &[&str]| {
        env.run(env.command(Path::new("git")).args(arguments))
            .success()
    };
    let _cloned = git(&["clone", "--quiet", &url, "clone"]);
    let clone = env.root().join("home/clone");
    assert_eq!(fs_len(&clone.join("a.txt")), 700_000);
    let _pushed = git(&[
        "-C",
        "clone",
        "push",
        "--quiet",
        "origin",
        "HEAD:refs/heads/next",
    ]);
    assert_eq!(repo.git(&["rev-parse", "next"]), repo.head);
    let requests = server.requests();
    assert!(
        requests[0].path.starts_with("/r0/.git/info/refs?"),
        "{requests:?}"
    );
    assert!(!requests[0].had_auth && requests.iter().any(|request| request.had_auth));
}

fn fs_len(path: &Path) -> u64 {
    std::fs::metadata(path).unwrap().len()
}

#[test]
fn each_mode_fails_in_its_own_way() {
    let env = TestEnv::new();
    let _repo = env.git_repo(&[("a.txt", "a\n")]);
    let server = GitServer::start(&env.root().join("repos"));
    let other = GitServer::start(&env.root().join("repos"));
    let url = server.url("r0/.git");
    for (mode, complaint) in [
        (GitMode::Unauthorized, "could not read Username"),
        (GitMode::Forbidden, "403"),
        (GitMode::NotFound, "not found"),
        (GitMode::ServerError, "500"),
        (GitMode::Drop, "Empty reply"),
    ] {
        server.set(mode.clone());
        let output = ls_remote(&env, &url);
        assert!(
            !output.status.success() && output.stderr.contains(complaint),
            "{mode:?} {output:?}"
        );
    }
    server.set(GitMode::Redirect(other.base_url()));
    let _redirected = ls_remote(&env, &url).success();
    assert!(other.requests().iter().all(|request| !request.had_auth));
    assert!(!other.requests().is_empty());
    server.set(GitMode::Delay(Duration::from_millis(50)));
    let before = Instant::now();
    let _late = ls_remote(&env, &url).success();
    assert!(before.elapsed() >= Duration::from_millis(50));
}

#[test]
fn a_server_that_waits_ends_at_once_when_it_is_dropped() {
    let env = TestEnv::new();
    let _repo = env.git_repo(&[("a.txt", "a\n")]);
    let server = GitServer::start(&env.root().join("repos"));
    server.set(GitMode::Delay(Duration::from_secs(600)));
    let url = server.url("r0/.git");
    let before = Instant::now();
    thread::scope(|scope| {
        let waiting = scope.spawn(|| ls_remote(&env, &url));
        while server.requests().is_empty() {
            assert!(before.elapsed() < Duration::from_secs(30));
            thread::yield_now();
        }
        drop(server);
        assert!(!waiting.join().unwrap().status.success());
    });
    assert!(before.elapsed() < Duration::from_secs(60));
}

/// Sends back what it gets.
fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || std::io::copy(&mut &stream, &mut &stream));
        }
    });
    address
}

fn connect(proxy: &FaultProxy) -> TcpStream {
    let stream = TcpStream::connect(proxy.address()).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    stream
}

fn say(mut stream: &TcpStream, text: &[u8]) -> std::io::Result<Vec<u8>> {
    stream.write_all(text)?;
    let mut answer = vec![0; text.len()];
    stream.read_exact(&mut answer)?;
    Ok(answer)
}

#[test]
fn the_proxy_passes_delays_cuts_and_swallows() {
    let proxy = FaultProxy::start(echo());
    let stream = connect(&proxy);
    assert_eq!(say(&stream, b"hello").unwrap(), b"hello");
    proxy.set(ProxyMode::Delay {
        to_server: Duration::from_millis(30),
        to_client: Duration::from_millis(20),
    });
    let before = Instant::now();
    assert_eq!(say(&stream, b"slowly").unwrap(), b"slowly");
    assert!(before.elapsed() >= Duration::from_millis(50));

    proxy.set(ProxyMode::BlackHole);
    let swallowed = connect(&proxy);
    swallowed
        .set_read_timeout(Some(Duration::from_millis(50)))
        .unwrap();
    assert!(say(&swallowed, b"lost").is_err());

    proxy.set(ProxyMode::CutAfter(6));
    let cut = connect(&proxy);
    let mut got = Vec::new();
    (&cut).write_all(b"abcd").unwrap();
    // What was cut may end as a reset, but it ends.
    let ended = (&cut).read_to_end(&mut got);
    assert!(!ended.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock));
    assert!(b"abcd".starts_with(&got) && got.len() <= 2, "{got:?}");
    assert_eq!(proxy.connections(), 3);
}

#[test]
fn the_proxy_refuses_and_takes_the_same_port_again() {
    let proxy = FaultProxy::start(echo());
    let open = connect(&proxy);
    assert_eq!(say(&open, b"a").unwrap(), b"a");
    proxy.set(ProxyMode::Refuse);
    assert!(say(&open, b"b").is_err());
    let refused = TcpStream::connect(proxy.address()).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    proxy.set(ProxyMode::Pass);
    assert_eq!(say(&connect(&proxy), b"c").unwrap(), b"c");
}
