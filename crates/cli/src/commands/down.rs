//! `down`: lets the engine do it, and says what came of it.

use crate::args::DownArgs;
use crate::clean;
use crate::commands::up::timeout;
use crate::config::Config;
use crate::output::Output;
use crate::parse::usage;
use crate::progress::Display;
use crate::setup::ProviderSetup;
use crate::signals;
use crate::time;
use crate::view::DownDocument;
use crate::work::{Work, drive, runtime};
use alpine_ledger::{Ledger, Liveness, Retention, SessionRecord};
use alpine_lifecycle::{
    DownFlags, DownPlan, DownRequest, Engine, ErrorCode, Failure, plan_down, quoted,
};
use serde_json::Value;
use std::path::Path;

pub(crate) fn run(work: &Work, args: DownArgs) -> Result<u8, Failure> {
    let limit = args
        .timeout
        .as_deref()
        .map(|text| timeout(text, "down"))
        .transpose()?;
    if args
        .reason
        .as_deref()
        .is_some_and(|reason| reason.len() > 1000)
    {
        return Err(usage(
            "`--reason` is longer than 1000 bytes",
            "alpine down --help",
        ));
    }
    let config = work.config()?;
    let request = DownRequest {
        caller: config.caller()?,
        session: args.session,
        retry_persist: args.retry_persist,
        cancel: args.cancel,
        discard: args.discard,
        reason: args.reason,
        timeout: limit,
    };
    // A session that is not there is told without making a ledger to look for it.
    let session = work.session(&config, &request.caller, &request.session)?;
    let with = work.provider_setup(&config)?;
    let is_over = session.state.is_terminal() && !session.destroy_pending;
    if let Some(plugin) = with.plugins.get(&session.new.provider).filter(|_| !is_over) {
        // A provider that is refused leaves the session as it is.
        plugin.check()?;
    }
    let providers = work.setup.providers(&with)?;
    let interrupt = signals::interrupt()?;
    let ledger = work.ledger(&config)?;
    let (watch, display) = Display::start(&work.output);
    let engine = work.engine(&config, ledger, providers, &with, watch, interrupt);
    let ended = drive(runtime()?, async {
        start(&engine, &with, &request, &session).await?;
        engine.down(request).await
    });
    if ended.is_ok() {
        retain(&engine.ledger);
    }
    // What is left of the engine on other threads may outlive this process's last moment.
    engine.ledger.close();
    drop(engine);
    if ended.is_ok() {
        compact(work, &config);
    }
    let told = display.finish();
    if work.output.json {
        told.iter().for_each(|warning| work.output.warning(warning));
    }
    let document = DownDocument::new(&ended?, work.redactor());
    if work.output.json {
        work.output.document(&document);
    } else {
        let mut text = shown(&document, is_over, &work.output);
        if let Some(unpack) = unpack(&document, &config.home.value) {
            text.push_str("\n\nget it back: ");
            text.push_str(&unpack);
        }
        work.output.text(&text);
    }
    Ok(0)
}

/// Starts the session's provider, where the session could be left worse by one that does not start.
async fn start(
    engine: &Engine,
    with: &ProviderSetup,
    request: &DownRequest,
    session: &SessionRecord,
) -> Result<(), Failure> {
    let flags = DownFlags {
        retry_persist: request.retry_persist,
        discard: request.discard.is_some(),
    };
    match plan_down(session.state, session.destroy_pending, flags) {
        DownPlan::Close | DownPlan::CarryOn | DownPlan::RetryPersist | DownPlan::CleanUp => {}
        // Whatever the provider does, these end as well as they can.
        DownPlan::Discard | DownPlan::Refuse | DownPlan::Destroy | DownPlan::Replay => {
            return Ok(());
        }
    }
    let id = &session.session_id;
    let is_held = engine.ledger.read(|snapshot| {
        let lease = snapshot.lease(id)?;
        Ok(lease.is_some_and(|lease| snapshot.holder_is_live(&lease) == Liveness::Live))
    })?;
    let Some(plugin) = with.plugins.get(&session.new.provider).filter(|_| !is_held) else {
        return Ok(());
    };
    let limit = request.timeout.unwrap_or(engine.limits.down);
    let again = format!("alpine down {id}");
    let started = plugin.start(limit, &engine.interrupt, &again).await;
    started.map_err(|mut failure| {
        if failure.code == ErrorCode::SandboxProvisionFailed {
            // It is an end that has failed, and no sandbox's making.
            failure.code = ErrorCode::CloseFailed;
        }
        failure
    })
}

/// How much is let go of at most, so that it takes no time that anybody notices.
const BATCH: usize = 100;

/// Lets go of some of what is kept no longer.
fn retain(ledger: &Ledger) {
    if let Err(error) = ledger.retain(&Retention::default(), BATCH) {
        // The session is down; what is kept for longer than it need be harms nobody.
        tracing::warn!("old records stay for now: {error}");
    }
}

/// Writes the ledger's file anew where most of a large one is empty.
fn compact(work: &Work, config: &Config) {
    let path = &config.ledger.value;
    if !alpine_ledger::is_large(path) {
        return;
    }
    if let Err(error) = alpine_ledger::compact(path, work.options(config), false) {
        tracing::warn!("the ledger's file stays as large as it is: {error}");
    }
}

/// The command that unpacks the object's snapshot, where that lies on this machine.
fn unpack(document: &DownDocument, home: &Path) -> Option<String> {
    let id = document.durable_object_id.as_ref()?;
    let archive = home.join("objects").join(id).join("workspace.tar.zst");
    let quoted = quoted(&archive.to_string_lossy());
    archive
        .is_file()
        .then(|| format!("mkdir restored && tar --zstd -xf {quoted} -C restored"))
}

/// Why there is no snapshot, for people.
pub(crate) fn lost(reason: &str) -> String {
    match reason {
        "workspace_lost" => "lost: the workspace was gone before it could be stored".to_owned(),
        other => format!("none: {other}"),
    }
}

/// What a snapshot has not, and why: the first of it. `--json` has more.
fn left_out(summary: &Value) -> String {
    const SHOWN: usize = 3;
    let count = summary["count"].as_u64().unwrap_or_default();
    if count == 0 {
        return String::new();
    }
    let first = summary["first"].as_array().map(Vec::as_slice);
    let told = first.unwrap_or_default().iter().take(SHOWN).map(|one| {
        let text = |key: &str| clean::line(one[key].as_str().unwrap_or_default());
        format!("`{}` ({})", text("path"), text("reason"))
    });
    let mut told: Vec<_> = told.collect();
    if usize::try_from(count).is_ok_and(|count| count > told.len()) {
        told.push("…".to_owned());
    }
    format!(", {count} left out: {}", told.join(", "))
}

/// The result, for people; `was_over` before there was anything to do.
fn shown(document: &DownDocument, was_over: bool, output: &Output) -> String {
    let verified = if document.persistence_verified {
        " (read back and verified)"
    } else {
        ""
    };
    let snapshot = document.workspace_snapshot.as_ref().map(|snapshot| {
        let number = |key: &str| snapshot[key].as_u64().unwrap_or_default();
        format!(
            "{}, {} files and directories{}",
            time::bytes(number("size")),
            number("entries"),
            left_out(&snapshot["left_out"])
        )
    });
    let lost = document.workspace_snapshot_reason.as_deref().map(lost);
    let shortened = document
        .history_truncated
        .then(|| "shortened to fit".to_owned());
    let rows = [
        (
            "session",
            Some(format!("{} ({})", document.session_id, document.state)),
        ),
        (
            "object",
            document
                .durable_object_id
                .as_ref()
                .map(|id| format!("{id}{verified}")),
        ),
        ("workspace", snapshot.or(lost)),
        ("history", shortened),
        (
            "sandbox",
            document
                .last_error
                .as_ref()
                .map(|error| format!("still to be destroyed: {}", error.cause))
                .map(|text| text.replace('\n', "\n            ")),
        ),
        (
            "next",
            document.next_step.as_ref().map(|next| output.command(next)),
        ),
    ];
    let rows = rows
        .into_iter()
        .filter_map(|(name, value)| Some(format!("{name:<11} {}", value?)));
    let mut text: String = rows.collect::<Vec<_>>().join("\n");
    if document.state == "failed" && document.next_step.is_none() {
        text.push_str(match was_over {
            true => "\nnothing is left to do",
            false => "\ncleaned up: nothing of it is left",
        });
    }
    text
}

#[cfg(test)]
mod tests {
    use super::left_out;
    use serde_json::json;

    #[test]
    fn what_is_left_out_is_named() {
        let one = |path: &str| json!({"path": path, "reason": "a socket"});
        assert_eq!(left_out(&json!({"count": 0, "first": []})), "");
        let told = left_out(&json!({"count": 1, "first": [one("workspace/s\u{1b}[31m")]}));
        assert_eq!(told, ", 1 left out: `workspace/s` (a socket)");
        let first: Vec<_> = ["a", "b", "c", "d"].map(one).into();
        let told = left_out(&json!({"count": 4, "first": first}));
        assert!(told.ends_with("`c` (a socket), …"), "{told}");
    }
}
