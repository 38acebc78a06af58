//! `open`: a fresh one-time link to a session's agent, or the credential of its address.

use crate::args::OpenArgs;
use crate::browser;
use crate::config::Config;
use crate::view::{CredentialsDocument, OpenDocument, VERSION};
use crate::work::{Reached, Work, drive, millis, provider_failed, runtime};
use alpine_lifecycle::{ErrorCode, Failure};
use alpine_provider_api::{Call, InspectRequest, OpenAgentReply, OpenAgentRequest, Secret};
use std::time::Duration;

/// How long it is looked whether the agent answers.
const PATIENCE: Duration = Duration::from_secs(1);

pub(crate) fn run(work: &Work, args: &OpenArgs) -> Result<u8, Failure> {
    let config = work.config()?;
    let reached = work.reach(&config, &args.session, "open")?;
    reached.ready()?;
    let id = reached.session.session_id.to_string();
    if reached.session.opencode_url.is_none() {
        let cause = format!(
            "session `{id}` has no page: its agent is `{}`",
            reached.session.new.agent
        );
        return Err(Failure::conflict(cause).next(format!("alpine exec {id} -- sh")));
    }
    drive(runtime()?, async {
        let reply = link(&reached, &config).await?;
        if is_silent(&reached).await {
            let agent = &reached.session.new.agent;
            let why = work
                .output
                .command(&format!("alpine logs {id} --step agent"));
            let warning = format!("the agent `{agent}` does not answer; its last words: {why}");
            work.output.warning(&warning);
        }
        if args.credentials {
            credentials(work, id, reply);
            return Ok(0);
        }
        let quiet = args.print || args.no_browser || work.output.json;
        let opened = if quiet {
            false
        } else {
            browse(work, &config, &reached).await
        };
        let link = reply.open_url.expose().clone();
        if work.output.json {
            let document = OpenDocument {
                schema_version: VERSION,
                session_id: id,
                url: reply.url,
                open_url: link,
                browser_opened: opened,
            };
            work.output.document(&document);
        } else {
            work.output.text(&link);
        }
        Ok(0)
    })
}

/// Makes a one-time link.
pub(crate) async fn link(reached: &Reached, config: &Config) -> Result<OpenAgentReply, Failure> {
    let limit = config.limits.probe;
    let request = OpenAgentRequest {
        sandbox_id: reached.sandbox_id.clone(),
        link_ms: millis(config.limits.link),
    };
    let call = Call::quiet(reached.meta(Some(limit)));
    let provider = reached.provider.clone();
    // A task of its own: even a provider that blocks its thread can't keep us longer.
    let task = tokio::spawn(async move { provider.open_agent(&call, request).await });
    match tokio::time::timeout(limit, task).await {
        Ok(Ok(Ok(reply))) => Ok(reply),
        Ok(Ok(Err(error))) => Err(provider_failed("open", &error, reached)),
        Ok(Err(died)) => Err(reached.panicked(&died)),
        Err(_) => {
            let span = limit.as_secs_f32();
            Err(reached.failed(
                ErrorCode::Timeout,
                format!("open: the provider did not answer within {span} s"),
            ))
        }
    }
}

/// Whether the agent is known not to answer. What can't be told at once is left to the page.
async fn is_silent(reached: &Reached) -> bool {
    let request = InspectRequest {
        sandbox_id: reached.sandbox_id.clone(),
        probe: true,
    };
    let call = Call::quiet(reached.meta(Some(PATIENCE)));
    let provider = reached.provider.clone();
    let task = tokio::spawn(async move { provider.inspect(&call, request).await });
    match tokio::time::timeout(PATIENCE, task).await {
        Ok(Ok(Ok(reply))) => reply.probe.and_then(|probe| probe.agent_ready) == Some(false),
        Ok(_) | Err(_) => false,
    }
}

/// Opens a link without keeping the runtime from its work.
pub(crate) async fn offer(
    opener: &[String],
    link: Secret<String>,
    config: &Config,
) -> Result<(), String> {
    let (opener, limit) = (opener.to_vec(), config.limits.browser);
    let opened = tokio::task::spawn_blocking(move || browser::open(&opener, &link, limit)).await;
    opened.unwrap_or_else(|died| Err(format!("opening it died: {died}")))
}

/// Opens the browser with a link of its own, so that the one that is printed still works.
async fn browse(work: &Work, config: &Config, reached: &Reached) -> bool {
    let opened = match browser::opener(config, &work.variables) {
        Ok(opener) => match link(reached, config).await {
            Ok(own) => offer(&opener, own.open_url, config).await,
            Err(failure) => Err(failure.cause),
        },
        Err(why) => Err(why),
    };
    if let Err(why) = &opened {
        work.output
            .note(&format!("the browser was not opened: {why}"));
    }
    opened.is_ok()
}

fn credentials(work: &Work, id: String, reply: OpenAgentReply) {
    let (url, username, password) = (reply.url, reply.username, reply.password.expose().clone());
    if work.output.json {
        work.output.document(&CredentialsDocument {
            schema_version: VERSION,
            session_id: id,
            url,
            username,
            password,
        });
    } else {
        work.output.text(&format!(
            "url      {url}\nusername {username}\npassword {password}"
        ));
    }
}
