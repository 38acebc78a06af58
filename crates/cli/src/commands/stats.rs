//! `stats`: how operations went, over a window that ends now.

use crate::args::StatsArgs;
use crate::parse::usage;
use crate::run::text_or_document;
use crate::view::{Outcomes, StatsDocument};
use crate::work::{Work, millis};
use alpine_ledger::{
    Action, LedgerError, ListQuery, OperationRecord, OperationState, SessionId, SessionRecord,
    Snapshot, State, Timestamp,
};
use alpine_lifecycle::{ErrorCode, Failure, Step};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// The window without `--since`.
const USUAL_WINDOW: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// What the engine calls a sandbox that no session owns, when it finds it.
const ORPHAN: &str = "quarantine";
/// How many events are looked through at once.
const PAGE: usize = 1000;

pub(crate) fn run(work: &Work, args: &StatsArgs) -> Result<u8, Failure> {
    let window = args.since.as_deref().map_or(Ok(USUAL_WINDOW), window)?;
    let config = work.config()?;
    let caller = config.caller()?;
    if args.all_owners && !caller.admin {
        return Err(
            Failure::new(ErrorCode::SessionForbidden, "`--all-owners` is for admins")
                .next("alpine stats"),
        );
    }
    let now = work.setup.env().clock.now();
    let since = Timestamp(now.0.saturating_sub(millis(window)));
    let owner = (!args.all_owners).then_some(caller.principal.as_str());
    let tally = work.ledger_to_read(&config)?.read(|snapshot| {
        let mut tally = Tally::default();
        tally.operations(snapshot, owner, since)?;
        tally.orphans(snapshot, owner, since)?;
        Ok(tally)
    })?;
    let document = StatsDocument::new(tally, since, now);
    if args.prometheus {
        text_or_document(&work.output, document.prometheus());
    } else if work.output.json {
        work.output.document(&document);
    } else {
        work.output.text(&document.told());
    }
    Ok(0)
}

/// `--since`: `7d`, `12h`; a bare number is seconds.
fn window(given: &str) -> Result<Duration, Failure> {
    let given = given.trim();
    let window = match given.parse::<u32>() {
        Ok(seconds) => Ok(Duration::from_secs(seconds.into())),
        Err(_) => humantime::parse_duration(given).map_err(|error| error.to_string()),
    };
    let why = match window {
        Ok(window) if !window.is_zero() => return Ok(window),
        Ok(_) => "it is zero".to_owned(),
        Err(why) => why,
    };
    Err(usage(
        format!("`--since` has to be a duration such as `12h` or `7d`: {why}"),
        "alpine stats --help",
    ))
}

/// What was counted.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// How those `up`s ended that did.
    pub(crate) ups: Outcomes,
    /// How many of them have not ended.
    pub(crate) unfinished: u64,
    /// How verifications of durable objects ended.
    pub(crate) verifications: Outcomes,
    /// How long each `up` took that ended well, in milliseconds.
    pub(crate) ready_ms: Vec<u64>,
    /// Tries of a step beyond the first.
    pub(crate) retries: u64,
    /// How often an operation was carried on by another process.
    pub(crate) takeovers: u64,
    /// Sandboxes that were found without a session.
    pub(crate) orphans: u64,
    /// How many operations ended, or were interrupted, with each code.
    pub(crate) errors: BTreeMap<String, u64>,
}

impl Tally {
    /// The operations that were admitted since then. Each of them wrote its session, so that older sessions have none.
    fn operations(
        &mut self,
        snapshot: &Snapshot<'_>,
        owner: Option<&str>,
        since: Timestamp,
    ) -> Result<(), LedgerError> {
        let page = snapshot.list(&ListQuery {
            owner: owner.map(str::to_owned),
            states: Vec::new(),
            ended_since: Some(since),
            limit: usize::MAX - 1,
        })?;
        for summary in page.sessions {
            if summary.updated_at < since {
                continue;
            }
            let Some(session) = snapshot.session(&summary.session_id)? else {
                continue;
            };
            for operation in snapshot.operations(&session.session_id)? {
                if operation.started_at >= since {
                    self.operation(&operation, &session);
                }
            }
        }
        Ok(())
    }

    fn operation(&mut self, operation: &OperationRecord, session: &SessionRecord) {
        if operation.action == Action::Up {
            match operation.state {
                OperationState::Succeeded => self.ups.succeeded += 1,
                OperationState::Failed => self.ups.failed += 1,
                OperationState::Running | OperationState::Interrupted => self.unfinished += 1,
            }
            if let (OperationState::Succeeded, Some(ready)) = (operation.state, session.ready_at) {
                self.ready_ms
                    .push(millis(ready.since(operation.started_at)));
            }
        }
        self.verified(operation);
        let retries = operation
            .steps
            .iter()
            .map(|step| u64::from(step.attempts.saturating_sub(1)));
        self.retries += retries.sum::<u64>();
        self.takeovers += operation.takeovers;
        if let Some(error) = &operation.error {
            *self.errors.entry(error.error_code.clone()).or_default() += 1;
        }
    }

    /// A step that read the object back has no error even where what it read was another: then the operation ended with it.
    fn verified(&mut self, operation: &OperationRecord) {
        let differed = operation.state == OperationState::Failed
            && matches!(
                operation.terminal_state,
                Some(State::StoppedUnpersisted | State::PersistFailed | State::CleanupFailed)
            );
        let last = operation.steps.len();
        for (at, step) in operation.steps.iter().enumerate() {
            if step.step != Step::Verify.as_str() {
                continue;
            }
            if step.error_code.is_some() || (differed && at + 1 == last) {
                self.verifications.failed += 1;
            } else {
                self.verifications.succeeded += 1;
            }
        }
    }

    /// An orphan is somebody's when it says that it was made for a session of theirs. It has an event when it is found, when
    /// it is saved and when it is destroyed.
    fn orphans(
        &mut self,
        snapshot: &Snapshot<'_>,
        owner: Option<&str>,
        since: Timestamp,
    ) -> Result<(), LedgerError> {
        let (mut cursor, mut found) = (0, BTreeSet::new());
        loop {
            let events = snapshot.events_after(cursor, PAGE)?;
            for event in &events {
                cursor = event.seq;
                if event.kind == ORPHAN
                    && event.at >= since
                    && is_of(snapshot, owner, event.reason.as_deref())?
                {
                    found.insert(event.reason.clone());
                }
            }
            if events.len() < PAGE {
                self.orphans = found.len() as u64;
                return Ok(());
            }
        }
    }
}

fn is_of(
    snapshot: &Snapshot<'_>,
    owner: Option<&str>,
    sandbox: Option<&str>,
) -> Result<bool, LedgerError> {
    let Some(owner) = owner else {
        return Ok(true);
    };
    let Some(found) = snapshot.quarantined(sandbox.unwrap_or_default())? else {
        return Ok(false);
    };
    let session = snapshot.session(&SessionId::from_recorded(found.session_id))?;
    Ok(session.is_some_and(|session| session.new.owner == owner))
}

#[cfg(test)]
mod tests {
    use super::window;
    use std::time::Duration;

    #[test]
    fn windows() {
        let of = |text| window(text).ok();
        assert_eq!(of("7d"), Some(Duration::from_secs(604_800)));
        assert_eq!(of(" 90 "), Some(Duration::from_secs(90)));
        assert_eq!(of("90d"), Some(Duration::from_secs(7_776_000)));
        assert_eq!(
            (of("0"), of("soon"), of("-1d"), of("")),
            (None, None, None, None)
        );
    }
}
