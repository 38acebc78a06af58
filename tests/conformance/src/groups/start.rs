//! The agent's server, its address, and what a probe finds.

use crate::bench::Bench;
use crate::called::{Checking, broken, same, skip};
use crate::catalogue::{Check, check};
use crate::http;
use crate::sandbox::Sandbox;
use alpine_provider_api::*;
use std::collections::BTreeMap;

pub(crate) const CHECKS: &[Check] = &[
    check!(
        Start,
        "start.none",
        "an agent that serves nothing has no address, and no readiness",
        none,
        StartAgent | SyncRepo
    ),
    check!(Start, "start.serves", "when start_agent answers, the agent answers at its address, to who bears its credential", serves, StartAgent | OpenAgent | SyncRepo; ServeProcess),
    check!(Start, "start.twice", "start_agent again finds the server that runs; the address is the same", twice, StartAgent | SyncRepo; ServeProcess),
    check!(Start, "start.not_ready", "an agent that does not become ready is `agent_not_ready`, with the log's last lines", not_ready, StartAgent | SyncRepo; ServeProcess),
    check!(Start, "start.page", "the built-in page answers at the session's address", page, StartAgent | OpenAgent | SyncRepo; ServePage),
    check!(Start, "open.once", "each link to the agent is a fresh one that works once", once, StartAgent | OpenAgent | SyncRepo; ServePage),
    check!(
        Start,
        "start.unannounced",
        "a way of serving that is not announced answers `unsupported`",
        unannounced,
        StartAgent | SyncRepo
    ),
    check!(
        Start,
        "inspect.probe",
        "inspect with probe finds the head, that the workspace can be written, and that the agent answers",
        probe,
        SyncRepo
    ),
];

/// A server of a few lines that wants Basic, in a language that most sandboxes hold.
const SERVER: &str = r#"
import base64, http.server, os, sys
wanted = "Basic " + base64.b64encode(("kit:" + os.environ["KIT_PASSWORD"]).encode()).decode()
class Asked(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        known = self.headers.get("authorization") == wanted
        text = b"the kit's page" if known else b"who?"
        self.send_response(200 if known else 401)
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)
    def log_message(self, *_): pass
with open("started", "a") as started: started.write("once\n")
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Asked).serve_forever()
"#;

fn process(argv: &[&str]) -> AgentSpec {
    let server = Server {
        argv: argv.iter().map(|&word| word.to_owned()).collect(),
        port_env: None,
        env: BTreeMap::new(),
        auth: Some(BasicAuth {
            username: "kit".to_owned(),
            password_env: "KIT_PASSWORD".to_owned(),
        }),
        ready: Probe::default(),
        shutdown: Shutdown::default(),
        transcript: None,
    };
    AgentSpec {
        name: "kit".to_owned(),
        serve: Serve::Process(Box::new(server)),
    }
}

fn python() -> AgentSpec {
    process(&["python3", "-c", SERVER, "{port}"])
}

async fn filled<'a>(bench: &'a Bench<'_>) -> Checking<Sandbox<'a>> {
    bench.sandbox()?.filled(&bench.repository().pinned).await
}

async fn with_python<'a>(bench: &'a Bench<'_>) -> Checking<Sandbox<'a>> {
    let sandbox = filled(bench).await?;
    let told = sandbox
        .exec(&["python3", "-c", "import http.server"])
        .await?;
    match told.reply {
        Ok(ExecReply::Exited(0)) => Ok(sandbox),
        Ok(_) | Err(_) => skip("the sandbox has no `python3` to serve with"),
    }
}

const READY_MS: u64 = 20_000;

async fn none(bench: &Bench<'_>) -> Checking {
    let sandbox = filled(bench).await?;
    let told = sandbox.start(AgentSpec::none(), READY_MS).await?;
    let reply = told.ok("start_agent starts nothing")?;
    same("the address", &None, &reply.url)?;
    let probe = sandbox.inspect(true).await?.probe;
    same(
        "its readiness",
        &None,
        &probe.and_then(|probe| probe.agent_ready),
    )
}

/// The page at an address, asked with its credential.
async fn answered(sandbox: &Sandbox<'_>, url: &str) -> Checking<String> {
    let way = sandbox.open().await?.ok("open_agent makes a way in")?;
    same("the address that open_agent tells", &url, &way.url.as_str())?;
    let auth = Some((way.username.as_str(), &way.password));
    match http::get(url, auth).await {
        Ok((200..400, body)) => Ok(body),
        Ok((status, _)) => broken(
            "the address answers 200–399 to its credential",
            status.to_string(),
        ),
        Err(error) => broken("the address answers", error.to_string()),
    }
}

async fn serves(bench: &Bench<'_>) -> Checking {
    let sandbox = with_python(bench).await?;
    let reply = sandbox.start(python(), READY_MS).await?.ok("it starts")?;
    let Some(url) = reply.url else {
        return broken("an address", "none");
    };
    let body = answered(&sandbox, &url).await?;
    same("the page", &"the kit's page".to_owned(), &body)?;
    match http::get(&url, None).await {
        Ok((200..300, _)) => broken("the address asks for its credential", "it answers anybody"),
        Ok(_) | Err(_) => Ok(()),
    }
}

async fn twice(bench: &Bench<'_>) -> Checking {
    let sandbox = with_python(bench).await?;
    let first = sandbox.start(python(), READY_MS).await?.ok("it starts")?;
    for _ in 0..2 {
        bench.reopen().await;
        let again = "start_agent of one that runs answers";
        let second = sandbox.start(python(), READY_MS).await?.ok(again)?;
        same("the address", &first, &second)?;
    }
    let found = sandbox.sh("cat started").await?;
    same("how often it was started", &"once\n".to_owned(), &found)
}

async fn not_ready(bench: &Bench<'_>) -> Checking {
    let sandbox = filled(bench).await?;
    for script in [
        "echo the last words; exit 3",
        "echo the last words; sleep 600",
    ] {
        let told = sandbox.start(process(&["sh", "-c", script]), 700).await?;
        let error = told.refused(&[ErrorKind::AgentNotReady], script)?;
        let tail = &error.log_tail;
        if !tail.iter().any(|line| line.contains("the last words")) {
            return broken("the log's last lines", format!("{tail:?}"));
        }
    }
    Ok(())
}

fn page_spec() -> AgentSpec {
    AgentSpec {
        name: "page".to_owned(),
        serve: Serve::Page,
    }
}

async fn page(bench: &Bench<'_>) -> Checking {
    let sandbox = filled(bench).await?;
    let told = sandbox.start(page_spec(), READY_MS).await?;
    let Some(url) = told.ok("the page starts")?.url else {
        return broken("an address", "none");
    };
    answered(&sandbox, &url).await?;
    bench.reopen().await;
    answered(&sandbox, &url).await?;
    Ok(())
}

async fn once(bench: &Bench<'_>) -> Checking {
    let sandbox = filled(bench).await?;
    let told = sandbox.start(page_spec(), READY_MS).await?;
    told.ok("the page starts")?;
    let first = sandbox.open().await?.ok("open_agent makes a way in")?;
    let second = sandbox.open().await?.ok("open_agent makes another")?;
    if first.open_url == second.open_url {
        return broken("another link each time", "the same one");
    }
    for way in [first, second] {
        let statuses = [
            http::get(way.open_url.expose(), None).await,
            http::get(way.open_url.expose(), None).await,
        ];
        match statuses {
            [Ok((200..400, _)), Ok((400.., _))] => {}
            [one, two] => {
                let status = |answer: std::io::Result<(u16, String)>| match answer {
                    Ok((status, _)) => status.to_string(),
                    Err(error) => error.to_string(),
                };
                return broken(
                    "the link works the first time and not the second",
                    format!("{}, then {}", status(one), status(two)),
                );
            }
        }
    }
    Ok(())
}

async fn unannounced(bench: &Bench<'_>) -> Checking {
    let ways = [
        (Feature::ServeProcess, process(&["sh", "-c", "sleep 600"])),
        (Feature::ServePage, page_spec()),
    ];
    let absent = |(feature, _): &(Feature, AgentSpec)| !bench.shared.describe.announces(*feature);
    let absent: Vec<_> = ways.into_iter().filter(absent).collect();
    if absent.is_empty() {
        return skip("both ways are announced");
    }
    let sandbox = filled(bench).await?;
    for (feature, agent) in absent {
        let told = sandbox.start(agent, 700).await?;
        told.refused(&[ErrorKind::Unsupported], feature.as_str())?;
    }
    Ok(())
}

async fn probe(bench: &Bench<'_>) -> Checking {
    let sandbox = filled(bench).await?;
    for _ in 0..2 {
        let found = sandbox.inspect(true).await?;
        same("the state", &SandboxState::Running, &found.state)?;
        let Some(probe) = found.probe else {
            return broken("what a look inside found", "nothing");
        };
        let commit = &bench.repository().pinned.commit;
        same("the head", &Some(commit), &probe.head.as_ref())?;
        same(
            "whether the workspace can be written",
            &true,
            &probe.writable,
        )?;
        bench.reopen().await;
    }
    let found = sandbox.sh("ls -A | wc -l").await?;
    same(
        "how many entries there are after the probe",
        &"8",
        &found.trim(),
    )?;
    let found = sandbox.inspect(false).await?;
    same("the probe that was not asked for", &None, &found.probe)?;
    if bench.shared.describe.announces(Feature::ServePage)
        && bench.shared.describe.has(Method::StartAgent)
    {
        let told = sandbox.start(page_spec(), READY_MS).await?;
        told.ok("the page starts")?;
        let ready = sandbox
            .inspect(true)
            .await?
            .probe
            .and_then(|probe| probe.agent_ready);
        same("whether the agent answers", &Some(true), &ready)?;
    }
    Ok(())
}
