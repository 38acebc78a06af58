//! `status`: what the ledger knows of a session, and what its provider sees, if it says so at once.

use crate::args::StatusArgs;
use crate::commands::down::lost;
use crate::config::Config;
use crate::output::Output;
use crate::time;
use crate::view::{ObservedDocument, StatusDocument};
use crate::work::Work;
use alpine_ledger::{Liveness, SessionRecord, Timestamp};
use alpine_lifecycle::{Failure, lookup, next_step};
use alpine_provider_api::{Call, ExecReply, InspectRequest, Meta, SandboxId};
use std::sync::mpsc;
use std::time::Duration;

/// How long the provider is waited for.
const PATIENCE: Duration = Duration::from_millis(250);

pub(crate) fn run(work: Work, args: &StatusArgs) -> Result<u8, Failure> {
    let config = work.config()?;
    let caller = config.caller()?;
    let ledger = work.ledger_to_read(&config)?;
    let (session, lease, operation, next) = ledger.read(|snapshot| {
        let session = match lookup(snapshot, &caller, &args.session)? {
            Ok(session) => session,
            Err(failure) => return Ok(Err(failure)),
        };
        // One whose holder is dead is free, or is about to be.
        let lease = snapshot
            .lease(&session.session_id)?
            .filter(|lease| snapshot.holder_is_live(lease) == Liveness::Live);
        let operation = snapshot.operation(&session.operation_id)?;
        let next = next_step(snapshot, &session.summary())?;
        Ok(Ok((session, lease, operation, next)))
    })??;
    let observed = observe(&work, &config, &session);
    let document = StatusDocument::new(
        &session,
        lease.as_ref(),
        observed,
        next.as_deref(),
        work.redactor(),
    )
    .interrupted(operation.as_ref(), work.redactor());
    if work.output.json {
        work.output.document(&document);
    } else {
        let now = work.setup.env().clock.now();
        work.output
            .text(&told(&document, &session, now, &work.output));
    }
    Ok(0)
}

/// Asks the provider, on a thread of its own: one that blocks is left behind.
fn observe(work: &Work, config: &Config, session: &SessionRecord) -> Option<ObservedDocument> {
    let with = work.provider_setup(config).ok()?;
    let setup = work.setup.clone();
    let clock = work.setup.env().clock;
    let name = session.new.provider.clone();
    let meta = Meta {
        operation_id: session.operation_id.to_string(),
        fence: 0,
        attempt: 1,
        deadline_ms: u64::try_from(PATIENCE.as_millis()).unwrap_or(0),
        traceparent: None,
    };
    let request = InspectRequest {
        sandbox_id: SandboxId::new(&session.sandbox_id)?,
        probe: false,
    };
    let (answer, answered) = mpsc::channel();
    let thread = std::thread::Builder::new().name("observe".to_owned());
    let spawned = thread.spawn(move || {
        let provider = setup.provider(&name, &with).ok()??;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .ok()?;
        let found = runtime
            .block_on(provider.inspect(&Call::quiet(meta), request))
            .ok()?;
        let observed = ObservedDocument {
            state: found.state.as_str(),
            agent_ended: found.agent_ended.map(|ended| match ended {
                ExecReply::Exited(status) => format!("exited with status {status}"),
                ExecReply::Signalled(signal) => format!("was ended by signal {signal}"),
            }),
            at: clock.now().to_string(),
        };
        // Whoever asked may have gone on without the answer.
        answer.send(observed).ok()
    });
    spawned.ok()?;
    answered.recv_timeout(PATIENCE).ok()
}

/// The same for people.
fn told(
    document: &StatusDocument,
    session: &SessionRecord,
    now: Timestamp,
    output: &Output,
) -> String {
    let lease = document.lease.as_ref().map(|lease| {
        format!(
            "process {} on {}, until {}",
            lease.holder.pid, lease.holder.host, lease.expires_at
        )
    });
    let provider = match &session.provider_version {
        Some(version) => format!("{} {version}", document.provider),
        None => document.provider.clone(),
    };
    let isolation = document
        .isolation
        .as_ref()
        .and_then(|isolation| isolation["tier"].as_str());
    let error = document.last_error.as_ref().map(|error| {
        format!(
            "{}: {}",
            error.error_code,
            error.cause.replace('\n', "\n             ")
        )
    });
    let what = [
        ("session", Some(document.session_id.clone())),
        ("name", document.name.clone()),
        ("owner", Some(document.owner_principal_id.clone())),
        (
            "state",
            Some(format!(
                "{} ({})",
                document.state, document.last_transition.reason
            )),
        ),
        ("repository", Some(document.repo_url.clone())),
        ("branch", Some(document.branch.clone())),
        ("commit", document.target_commit_sha.clone()),
        ("provider", Some(provider)),
        ("isolation", isolation.map(str::to_owned)),
        ("agent", Some(document.agent.clone())),
        ("url", document.opencode_url.clone()),
        ("workspace", document.workspace_path.clone()),
    ];
    let rest = [
        ("held by", lease),
        ("sandbox", sandbox(document, output)),
        ("object", document.durable_object_id.clone()),
        (
            "snapshot",
            document.workspace_snapshot_reason.as_deref().map(lost),
        ),
        ("last error", error),
        (
            "next",
            document.next_step.as_ref().map(|next| output.command(next)),
        ),
    ];
    let rows = what
        .into_iter()
        .chain(times(session, now))
        .chain(rest)
        .filter_map(|(name, value)| Some(format!("{name:<12} {}", value?)));
    rows.collect::<Vec<_>>().join("\n")
}

/// When what happened; what was not verified was not persisted.
fn times(session: &SessionRecord, now: Timestamp) -> [(&'static str, Option<String>); 5] {
    let when = |at: Option<Timestamp>| at.map(|at| format!("{at} ({})", time::ago(at, now)));
    let persisted = session
        .persisted_at
        .filter(|_| session.persistence_verified);
    [
        ("started", when(Some(session.started_at))),
        ("ready", when(session.ready_at)),
        ("stopped", when(session.stopped_at)),
        ("persisted", when(persisted)),
        ("updated", when(Some(session.updated_at))),
    ]
}

/// What the provider sees.
fn sandbox(document: &StatusDocument, output: &Output) -> Option<String> {
    let observed = document.observed.as_ref()?;
    let Some(ended) = &observed.agent_ended else {
        return Some(observed.state.to_owned());
    };
    let logs = format!("alpine logs {} --step agent", document.session_id);
    let logs = output.command(&logs);
    Some(format!("{}, but its agent {ended}: {logs}", observed.state))
}
