//! Commands in a sandbox.

use crate::support::{PLANTED, lives, meta, signal, until, world};
use alpine_provider_api::*;
use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

#[tokio::test]
async fn streams_are_apart_and_the_status_is_the_commands() {
    let world = world();
    world.provision().await;
    let ran = world.sh("echo out; echo err >&2; pwd; exit 42").await;
    assert_eq!(ran.reply.unwrap(), ExecReply::Exited(42));
    let workspace = world.workspace();
    assert_eq!(
        ran.stdout,
        format!("out\n{}\n", workspace.display()).into_bytes()
    );
    assert_eq!(ran.stderr, b"err\n");
    let ran = world.sh("kill -9 $$").await;
    assert_eq!(ran.reply.unwrap(), ExecReply::Signalled(9));
}

#[tokio::test]
async fn the_environment_is_the_configured_one() {
    let world = world();
    world.provision().await;
    let mut request = world.exec_request("env");
    request.env = BTreeMap::from([("MORE".to_owned(), Secret::new("here".to_owned()))]);
    let (_, input) = mpsc::channel(1);
    let ran = world.exec(request, input).await;
    let text = String::from_utf8(ran.stdout).unwrap();
    let mut names: Vec<&str> = text
        .lines()
        .filter_map(|line| line.split('=').next())
        .collect();
    names.sort_unstable();
    let expected = [
        "ALPINE_COMMAND_KEY",
        "ALPINE_SANDBOX_ID",
        "ALPINE_SANDBOX_KEY",
        "HOME",
        "MORE",
        "PATH",
        "PWD",
    ];
    names.retain(|name| !matches!(*name, "_" | "SHLVL" | "OLDPWD"));
    assert_eq!(names, expected);
}

#[tokio::test]
async fn a_program_that_can_not_be_run_is_the_callers_fault() {
    let world = world();
    world.provision().await;
    fs::write(world.workspace().join("plain"), "x").unwrap();
    for program in ["alpine-no-such-program", "./plain", "/", "a\0b", ""] {
        let mut request = world.exec_request("");
        request.argv = vec![program.to_owned()];
        let (_, input) = mpsc::channel(1);
        let error = world.exec(request, input).await.reply.unwrap_err();
        assert_eq!(error.kind, ErrorKind::InvalidArgument, "{program}: {error}");
    }
}

#[tokio::test]
async fn input_arrives_whole_and_ends() {
    let world = world();
    world.provision().await;
    let (send, input) = mpsc::channel(4);
    let feeding = async {
        for _ in 0..64 {
            send.send(ExecInput::Data(vec![b'x'; 100_000]))
                .await
                .unwrap();
        }
        send.send(ExecInput::Eof).await.unwrap();
        send
    };
    let (ran, _open) = tokio::join!(
        world.exec(world.exec_request("wc -c; echo end"), input),
        feeding
    );
    assert_eq!(
        String::from_utf8_lossy(&ran.stdout).replace(' ', ""),
        "6400000\nend\n"
    );
    assert_eq!(ran.reply.unwrap(), ExecReply::Exited(0));
}

#[tokio::test]
async fn input_that_nobody_reads_keeps_nothing_waiting() {
    let world = world();
    world.provision().await;
    let (send, input) = mpsc::channel(4);
    let feeding = async {
        // It fails when the command has ended, and that is what is waited for.
        while send.send(ExecInput::Data(vec![b'x'; 65_536])).await.is_ok() {}
    };
    let script = "exec 0<&-; sleep 0.1; exit 5";
    let (ran, ()) = tokio::join!(world.exec(world.exec_request(script), input), feeding);
    assert_eq!(ran.reply.unwrap(), ExecReply::Exited(5));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn much_output_is_exact_even_when_it_is_read_slowly() {
    let world = world();
    world.provision().await;
    let ran = world
        .sh("head -c 67108864 /dev/zero | tr '\\0' y; echo z >&2")
        .await;
    assert_eq!(ran.reply.unwrap(), ExecReply::Exited(0));
    assert_eq!(ran.stdout.len(), 64 << 20);
    assert!(ran.stdout.iter().all(|&byte| byte == b'y'));
    assert_eq!(ran.stderr, b"z\n");
    let (events, mut received) = mpsc::channel(1);
    let call = Call::new(meta(1), events);
    let (_, input) = mpsc::channel(1);
    let request = world.exec_request("head -c 2000000 /dev/zero");
    let running = async {
        let reply = world.provider.exec(&call, request, input).await;
        drop(call);
        reply
    };
    let reading = async {
        let mut total = 0;
        while let Some(event) = received.recv().await {
            tokio::time::sleep(Duration::from_millis(3)).await;
            if let CallEvent::Stdout(text) = event {
                total += text.len();
            }
        }
        total
    };
    let (reply, total) = tokio::join!(running, reading);
    assert_eq!(reply.unwrap(), ExecReply::Exited(0));
    assert_eq!(total, 2_000_000);
}

#[tokio::test]
async fn a_process_left_in_the_background_does_not_hold_the_reply_up() {
    let world = world();
    world.provision().await;
    let ran = world.sh("sleep 1000 & echo begun").await;
    assert_eq!(ran.reply.unwrap(), ExecReply::Exited(0));
    assert_eq!(ran.stdout, b"begun\n");
}

#[test]
fn a_callers_ignored_signals_are_its_own_affair() {
    // A shell starts what is in the background with interrupts ignored, and `nohup` does so with hang-ups.
    let itself = std::env::current_exe().unwrap();
    let script = "trap '' INT HUP QUIT CHLD; exec \"$0\" --exact commands::signals_are_delivered";
    let run = std::process::Command::new("sh")
        .args(["-c", script])
        .arg(itself)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&run.stdout);
    assert!(run.status.success() && said.contains("1 passed"), "{said}");
}

#[tokio::test]
async fn signals_are_delivered() {
    let world = world();
    world.provision().await;
    let (send, input) = mpsc::channel(4);
    let script = "trap 'echo caught; exit 9' INT; echo $$ > ready
        for n in $(seq 1000); do sleep 0.01; done";
    let asking = async {
        while !world.workspace().join("ready").exists() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        send.send(ExecInput::Signal(2)).await.unwrap();
        send
    };
    let (ran, _open) = tokio::join!(world.exec(world.exec_request(script), input), asking);
    assert_eq!(ran.reply.unwrap(), ExecReply::Exited(9));
    assert_eq!(ran.stdout, b"caught\n");
}

#[tokio::test]
async fn a_call_that_is_dropped_ends_its_command() {
    let world = world();
    world.provision().await;
    let pid = world.workspace().join("pid");
    let begun = async {
        while fs::read_to_string(&pid).unwrap_or_default().is_empty() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::select! {
        _ = world.sh("trap '' TERM INT; echo $$ > pid; while :; do sleep 1000; done") => {
            panic!("it can't end")
        }
        () = begun => {}
    }
    let pid: u32 = fs::read_to_string(&pid).unwrap().trim().parse().unwrap();
    until("the command ends", || !lives(pid));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_commands_run_at_once() {
    let world = world();
    world.provision().await;
    let all = (0..40).map(|number| {
        let world = &world;
        async move {
            let ran = world.sh(&format!("echo {number}; exit {number}")).await;
            assert_eq!(ran.reply.unwrap(), ExecReply::Exited(number));
            assert_eq!(ran.stdout, format!("{number}\n").into_bytes());
        }
    });
    let mut all: Vec<_> = all.map(Box::pin).collect();
    std::future::poll_fn(|waker| {
        all.retain_mut(|one| one.as_mut().poll(waker).is_pending());
        match all.is_empty() {
            true => std::task::Poll::Ready(()),
            false => std::task::Poll::Pending,
        }
    })
    .await;
}

#[tokio::test]
async fn a_commands_secrets_are_in_its_environment_only() {
    let world = world();
    world.provision().await;
    let mut request = world.exec_request("echo $$ > pid; sleep 1000");
    let secret = "value-of-one-command";
    request.env = BTreeMap::from([("TOKEN".to_owned(), Secret::new(secret.to_owned()))]);
    let (_open, input) = mpsc::channel(1);
    let begun = async {
        while !world.workspace().join("pid").exists() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        (world.traces_of(secret), world.traces_of(PLANTED))
    };
    tokio::select! {
        _ = world.exec(request, input) => panic!("it can't end"),
        (command, host) = begun => {
            assert_eq!(command, Vec::<String>::new());
            assert_eq!(host, Vec::<String>::new());
        }
    }
}

#[tokio::test]
async fn a_signal_does_not_wait_behind_input() {
    let world = world();
    world.provision().await;
    let (send, input) = mpsc::channel(16);
    let asking = async {
        let (mut sent, mut moved) = (0, Instant::now());
        // A piece follows when the one before was taken, until none is taken for a while.
        while moved.elapsed() < Duration::from_millis(500) {
            if send.capacity() == send.max_capacity() {
                send.send(ExecInput::Data(vec![b'x'; 65_536]))
                    .await
                    .unwrap();
                (sent, moved) = (sent + 65_536, Instant::now());
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        until("the command runs", || {
            world.workspace().join("ready").exists()
        });
        send.send(ExecInput::Signal(2)).await.unwrap();
        (send, sent)
    };
    let script = "trap 'exit 9' INT; touch ready; while :; do sleep 0.01; done";
    let ran = async { tokio::join!(world.exec(world.exec_request(script), input), asking) };
    let (ran, (_open, sent)) = tokio::time::timeout(Duration::from_secs(20), ran)
        .await
        .unwrap();
    assert_eq!(ran.reply.unwrap(), ExecReply::Exited(9));
    assert!(sent < 2 << 20, "{sent} bytes were taken in advance");
}

#[tokio::test]
async fn a_supervisor_that_stands_still_keeps_no_command_waiting() {
    let world = world();
    world.provision().await;
    let pid = world.supervisor();
    signal(pid, "STOP");
    let limit = Duration::from_secs(10);
    let ran = tokio::time::timeout(limit, world.sh("true")).await;
    assert_eq!(ran.unwrap().reply.unwrap_err().kind, ErrorKind::Io);
    signal(pid, "CONT");
    assert_eq!(
        world.sh("exit 7").await.reply.unwrap(),
        ExecReply::Exited(7)
    );
}

#[tokio::test]
async fn a_signal_that_is_not_delivered_ends_the_call() {
    let world = world();
    world.provision().await;
    let (send, input) = mpsc::channel(4);
    let asking = async {
        while !world.workspace().join("ready").exists() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        signal(world.supervisor(), "STOP");
        send.send(ExecInput::Signal(2)).await.unwrap();
        send
    };
    let script = "touch ready; while :; do sleep 0.01; done";
    let ran = async { tokio::join!(world.exec(world.exec_request(script), input), asking) };
    let (ran, _open) = tokio::time::timeout(Duration::from_secs(20), ran)
        .await
        .unwrap();
    assert_eq!(ran.reply.unwrap_err().kind, ErrorKind::Io);
    signal(world.supervisor(), "CONT");
}
