//! Commands in the sandbox.

use crate::bench::Bench;
use crate::called::{Checking, answered, broken, said, same, shortened, skip};
use crate::catalogue::{Check, check};
use crate::sandbox::{Sandbox, no_input};
use alpine_provider_api::*;
use tokio::sync::mpsc;

pub(crate) const CHECKS: &[Check] = &[
    check!(
        Exec,
        "exec.codes",
        "exec answers with the command's exit status, or the signal that ended it",
        codes,
        Exec
    ),
    check!(
        Exec,
        "exec.separation",
        "output and error output are kept apart, each in order and whole, and come before the reply",
        separation,
        Exec
    ),
    check!(
        Exec,
        "exec.big",
        "64 MiB of output arrive byte for byte",
        big,
        Exec
    ),
    check!(
        Exec,
        "exec.slow_reader",
        "a command waits while its output's reader is slow, and nothing is lost",
        slow_reader,
        Exec
    ),
    check!(Exec, "exec.stdin", "the command reads what it is sent, byte for byte, and the end of it", stdin, Exec; ExecInput),
    check!(
        Exec,
        "exec.no_input",
        "a command that is sent nothing reads the end at once",
        nothing_to_read,
        Exec
    ),
    check!(Exec, "exec.signal", "a signal reaches the command", signal, Exec; ExecSignals),
    check!(
        Exec,
        "exec.unknown_program",
        "a program that is not there is `invalid_argument`",
        unknown_program,
        Exec
    ),
    check!(
        Exec,
        "exec.cancel",
        "a command whose call is dropped is ended, with all that it has started",
        cancel,
        Exec
    ),
    check!(
        Exec,
        "exec.environment",
        "a command gets nothing of the environment of its provider's own process, which may hold secrets",
        environment,
        Exec
    ),
    check!(
        Exec,
        "exec.at_once",
        "commands run at once, and each gets its own output and status",
        at_once,
        Exec
    ),
    check!(Exec, "logs.follow", "a log that is followed goes on as it grows", follow, Logs | Install | SyncRepo; FollowLogs),
];

/// Nothing adds to the file `beat` any more.
pub(crate) async fn stands_still(sandbox: &Sandbox<'_>, since: &str) -> Checking {
    let script = "a=$(wc -c < beat); sleep 0.2; b=$(wc -c < beat); echo $((b - a))";
    // What was being ended just then gets a moment.
    sandbox.sh("sleep 0.1").await?;
    let found = sandbox.sh(script).await?;
    match found.trim() {
        "0" => Ok(()),
        more => broken(
            format!("its processes have ended when {since}"),
            format!("one has written {more} bytes since"),
        ),
    }
}

async fn codes(bench: &Bench<'_>) -> Checking {
    let sandbox = bench.sandbox()?.made().await?;
    for (script, expected) in [
        ("exit 0", ExecReply::Exited(0)),
        ("exit 1", ExecReply::Exited(1)),
        ("echo x; exit 7", ExecReply::Exited(7)),
        ("exit 255", ExecReply::Exited(255)),
        ("kill -KILL $$", ExecReply::Signalled(9)),
        ("kill -TERM $$", ExecReply::Signalled(15)),
    ] {
        let told = sandbox.exec(&["sh", "-c", script]).await?;
        let reply = told.ok("exec runs `sh`")?;
        same(&format!("how `{script}` ends"), &expected, &reply)?;
    }
    Ok(())
}

async fn separation(bench: &Bench<'_>) -> Checking {
    let sandbox = bench.sandbox()?.made().await?;
    let script = "i=0; while [ $i -lt 200 ]; do echo out $i; echo err $i >&2; i=$((i + 1)); done; printf 'the last of it'";
    let told = sandbox.exec(&["sh", "-c", script]).await?;
    let lines = |word: &str| {
        (0..200)
            .map(|i| format!("{word} {i}\n"))
            .collect::<String>()
    };
    let out = String::from_utf8_lossy(&told.stdout).into_owned();
    let err = String::from_utf8_lossy(&told.stderr).into_owned();
    let reply = told.ok("exec runs `sh`")?;
    same("how it ends", &ExecReply::Exited(0), &reply)?;
    for (what, expected, found) in [
        ("output", lines("out") + "the last of it", out),
        ("error output", lines("err"), err),
    ] {
        if expected != found {
            return broken(
                format!("{} bytes of {what} in order", expected.len()),
                format!("{} bytes: {}", found.len(), shortened(&found)),
            );
        }
    }
    Ok(())
}

const LINE: &str = "0123456789abcde\n";

/// How far the text is what `yes` says, from a place on: its first line, and then ever the one before.
fn fits(place: usize, text: &[u8]) -> bool {
    let line = LINE.bytes().cycle().skip(place % LINE.len());
    let later = text.get(LINE.len()..).unwrap_or_default();
    text.starts_with(later) && line.zip(text).take(LINE.len()).all(|(a, b)| a == *b)
}

fn much(size: usize) -> String {
    format!("yes {} | head -c {size}", LINE.trim_end())
}

async fn big(bench: &Bench<'_>) -> Checking {
    const SIZE: usize = 64 << 20;
    let sandbox = bench.sandbox()?.made().await?;
    let told = sandbox.exec(&["sh", "-c", &much(SIZE)]).await?;
    same("how many bytes arrive", &SIZE, &told.stdout.len())?;
    if !fits(0, &told.stdout) {
        return broken("the bytes that were written", "others");
    }
    let reply = told.ok("exec runs `sh`")?;
    same("how it ends", &ExecReply::Exited(0), &reply)
}

async fn slow_reader(bench: &Bench<'_>) -> Checking {
    const SIZE: usize = 16 << 20;
    let sandbox = bench.sandbox()?.made().await?;
    let script = format!("{}; echo done > done; printf end", much(SIZE));
    let request = sandbox.exec_request(&["sh", "-c", &script]);
    let at = sandbox.begin(Method::Exec, &request).await?;
    let running = at.end_unread(at.provider.exec(&at.call, request, no_input()));
    let reading = async {
        let mut events = at.events().await;
        // Nobody reads meanwhile: what the command has to say can't all be held, so it waits.
        let waits = sandbox
            .sh("for i in 1 2 3 4 5 6 7 8 9 10; do [ -e done ] || sleep 0.2; done; cat done 2>/dev/null || echo waits")
            .await?;
        let (mut place, mut tail) = (0, Vec::new());
        while place < SIZE + 3 {
            let Some(CallEvent::Stdout(text)) = events.recv().await else {
                continue;
            };
            let body = text.len().min(SIZE.saturating_sub(place));
            if !fits(place, &text[..body]) {
                return broken(
                    "the bytes that were written",
                    format!("others near {place}"),
                );
            }
            tail.extend_from_slice(&text[body..]);
            place += text.len();
        }
        same(
            "the last bytes",
            &"end",
            &String::from_utf8_lossy(&tail).as_ref(),
        )?;
        same(
            "the command that has 16 MiB to say to nobody",
            &"waits",
            &waits.trim(),
        )
    };
    let reading = tokio::time::timeout(bench.shared.options.call_limit, reading);
    let (reply, read) = tokio::join!(running, reading);
    match read {
        Ok(read) => read?,
        Err(_) => return broken("all of its output arrives", "it does not"),
    }
    let reply = reply?.or_else(|error| broken("exec answers", said(&error)))?;
    same("how it ends", &ExecReply::Exited(0), &reply)
}

async fn stdin(bench: &Bench<'_>) -> Checking {
    let sandbox = bench.sandbox()?.made().await?;
    let sent: Vec<u8> = (0..3_000_000_u32)
        .map(|i| i.wrapping_mul(2_654_435_761).to_be_bytes()[0])
        .collect();
    let (input, received) = mpsc::channel(4);
    let request = sandbox.exec_request(&["sh", "-c", "cat; printf end"]);
    let sending = async {
        for part in sent.chunks(64 * 1024) {
            // A command that reads no more has ended: its reply tells.
            if input.send(ExecInput::Data(part.to_vec())).await.is_err() {
                return;
            }
        }
        // The channel stays open: this alone is the end.
        let _ = input.send(ExecInput::Eof).await;
    };
    let (told, ()) = tokio::join!(sandbox.exec_as(request, received), sending);
    drop(input);
    let told = told?;
    same(
        "how many bytes come back",
        &(sent.len() + 3),
        &told.stdout.len(),
    )?;
    if told.stdout[..sent.len()] != sent || &told.stdout[sent.len()..] != b"end" {
        return broken("the bytes that were sent", "others");
    }
    let reply = told.ok("exec runs `cat`")?;
    same("how it ends", &ExecReply::Exited(0), &reply)
}

async fn nothing_to_read(bench: &Bench<'_>) -> Checking {
    let sandbox = bench.sandbox()?.made().await?;
    let found = sandbox.sh("wc -c").await?;
    same(
        "how much a command without input reads",
        &"0",
        &found.trim(),
    )
}

async fn signal(bench: &Bench<'_>) -> Checking {
    let sandbox = bench.sandbox()?.made().await?;
    // One that nobody who starts things in the background lets them inherit as ignored.
    let script =
        "trap 'echo caught; exit 5' TERM; echo ready > ready; while :; do sleep 0.05; done";
    let request = sandbox.exec_request(&["sh", "-c", script]);
    let (input, received) = mpsc::channel(4);
    let sending = async {
        let waited = sandbox.sh("until [ -e ready ]; do sleep 0.01; done").await;
        let _ = input.send(ExecInput::Signal(15)).await;
        waited
    };
    let (told, sent) = tokio::join!(sandbox.exec_as(request, received), sending);
    sent?;
    let told = told?;
    let out = String::from_utf8_lossy(&told.stdout).into_owned();
    let reply = told.ok("exec runs `sh`")?;
    same("what it says", &"caught\n".to_owned(), &out)?;
    same("how it ends", &ExecReply::Exited(5), &reply)
}

async fn unknown_program(bench: &Bench<'_>) -> Checking {
    let sandbox = bench.sandbox()?.made().await?;
    for argv in [
        &["no-such-program-anywhere", "x"][..],
        &["/no/such/program"],
        &[""],
        &[],
    ] {
        let told = sandbox.exec(argv).await?;
        told.refused(&[ErrorKind::InvalidArgument], &format!("{argv:?}"))?;
    }
    Ok(())
}

async fn cancel(bench: &Bench<'_>) -> Checking {
    let sandbox = bench.sandbox()?.made().await?;
    // One that is in another session, where `setsid` is there, and has lost its parent; and one that is neither.
    let beats = "while echo beat >> beat; do sleep 0.02; done";
    let script = format!(
        "($(command -v setsid) sh -c 'echo > apart; {beats}' </dev/null >/dev/null 2>&1 &); {beats}"
    );
    let request = sandbox.exec_request(&["sh", "-c", &script]);
    let (_input, received) = mpsc::channel(1);
    let at = sandbox.begin(Method::Exec, &request).await?;
    let call = at.provider.exec(&at.call, request, received);
    let began = sandbox.sh("until [ -s beat ] && [ -e apart ]; do sleep 0.01; done");
    if let Some(ended) = at.end_dropped(call, began).await {
        return broken(
            "the command runs for ever",
            format!("it ended: {}", answered(&ended)),
        );
    }
    drop(at);
    stands_still(&sandbox, "the call was dropped").await
}

async fn environment(bench: &Bench<'_>) -> Checking {
    let own = bench.shared.subject.own_env();
    let is_name = |name: &&String| {
        name.bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    };
    let names: Vec<_> = own.keys().filter(is_name).collect();
    if names.is_empty() {
        return skip("no variable is known that is the provider's alone");
    }
    let sandbox = bench.sandbox()?.made().await?;
    for name in names {
        // The value itself is told nobody.
        let found = sandbox.sh(&format!("printf %s \"${{{name}-}}\"")).await?;
        if !found.is_empty() && own.get(name).is_some_and(|value| *value.expose() == found) {
            return broken(
                format!("no command has the provider's own `{name}`"),
                "one has it, with its value",
            );
        }
    }
    Ok(())
}

async fn at_once(bench: &Bench<'_>) -> Checking {
    let sandbox = bench.sandbox()?.made().await?;
    let one = |number: i32| {
        let sandbox = sandbox.clone();
        async move {
            let script = format!("sleep 0.0{number}; echo {number}; exit {number}");
            let told = sandbox.exec(&["sh", "-c", &script]).await?;
            let out = String::from_utf8_lossy(&told.stdout).into_owned();
            let reply = told.ok("exec runs `sh`")?;
            same("its own output", &format!("{number}\n"), &out)?;
            same("its own status", &ExecReply::Exited(number), &reply)
        }
    };
    let ended = tokio::join!(one(1), one(2), one(3), one(4), one(5));
    ended.0.and(ended.1).and(ended.2).and(ended.3).and(ended.4)
}

async fn follow(bench: &Bench<'_>) -> Checking {
    let sandbox = bench.sandbox()?.filled(&bench.repository().talks).await?;
    let request = InstallRequest {
        sandbox_id: sandbox.id.clone(),
    };
    let at = sandbox.begin(Method::Install, &request).await?;
    let installing = at.provider.install(&at.call, request);
    let following = async {
        sandbox
            .sh("until [ -e began ]; do sleep 0.01; done")
            .await?;
        let request = LogsRequest {
            sandbox_id: sandbox.id.clone(),
            log: LogName::Install,
            follow: true,
        };
        let log = sandbox.begin(Method::Logs, &request).await?;
        let reading = async {
            let mut events = log.events().await;
            let mut text = String::new();
            while !text.contains("second") {
                match events.recv().await {
                    Some(CallEvent::Stdout(part)) => text.push_str(&String::from_utf8_lossy(&part)),
                    Some(_) => {}
                    None => break,
                }
                // What comes after this was not there when the log was opened.
                if text.contains("first") && !text.contains("second") {
                    sandbox.sh("echo > go").await?;
                }
            }
            Checking::Ok(text)
        };
        tokio::select! {
            text = reading => text,
            ended = log.provider.logs(&log.call, request) => {
                broken("the log is followed while the sandbox runs", format!("it ended: {}", answered(&ended)))
            }
        }
    };
    let limit = bench.shared.options.call_limit;
    let both = async { tokio::join!(at.end(installing), following) };
    let Ok((installed, text)) = tokio::time::timeout(limit, both).await else {
        return broken("what is added to the log arrives", "it does not");
    };
    text?;
    installed?.ok("install ends").map(drop)
}
