//! `list`: from the ledger's covering index alone.

use crate::args::ListArgs;
use crate::parse::usage;
use crate::time;
use crate::view::ListDocument;
use crate::work::Work;
use alpine_ledger::{LedgerError, ListQuery, SessionSummary, Snapshot, State, Timestamp};
use alpine_lifecycle::{ErrorCode, Failure, next_step};

/// How many sessions are listed without `--limit`.
const USUAL_LIMIT: u32 = 100;
/// How long ended sessions are listed.
const WINDOW_MS: u64 = 24 * 60 * 60 * 1000;

pub(crate) fn run(work: &Work, args: &ListArgs) -> Result<u8, Failure> {
    let states = args
        .state
        .iter()
        .map(|name| state(name))
        .collect::<Result<Vec<_>, _>>()?;
    let config = work.config()?;
    let caller = config.caller()?;
    if args.all_owners && !caller.admin {
        return Err(
            Failure::new(ErrorCode::SessionForbidden, "`--all-owners` is for admins")
                .next("alpine list"),
        );
    }
    let now = work.setup.env().clock.now();
    let query = ListQuery {
        owner: (!args.all_owners).then(|| caller.principal.clone()),
        states,
        ended_since: (!args.all).then(|| Timestamp(now.0.saturating_sub(WINDOW_MS))),
        limit: args.limit.unwrap_or(USUAL_LIMIT) as usize,
    };
    let (sessions, truncated) = work.ledger_to_read(&config)?.read(|snapshot| {
        let page = snapshot.list(&query)?;
        let sessions: Result<Vec<_>, _> = page
            .sessions
            .into_iter()
            .map(|session| with_next(snapshot, session))
            .collect();
        Ok((sessions?, page.truncated))
    })?;
    let document = ListDocument::new(&sessions, truncated, work.redactor());
    if work.output.json {
        work.output.document(&document);
    } else {
        show(work, args, &sessions, &document, now);
    }
    Ok(0)
}

fn state(name: &str) -> Result<State, Failure> {
    State::parse(name.trim()).ok_or_else(|| {
        let known = State::ALL.map(State::as_str).join(", ");
        usage(
            format!("there is no state `{name}`; states: {known}"),
            "alpine list --help",
        )
    })
}

type Listed = (SessionSummary, Option<String>);

/// A session with the command that takes it further.
fn with_next(snapshot: &Snapshot<'_>, session: SessionSummary) -> Result<Listed, LedgerError> {
    let next = next_step(snapshot, &session)?;
    Ok((session, next))
}

fn show(
    work: &Work,
    args: &ListArgs,
    sessions: &[Listed],
    document: &ListDocument,
    now: Timestamp,
) {
    if sessions.is_empty() {
        let chosen = !args.state.is_empty() || args.all_owners;
        let up = work
            .output
            .command("alpine up <git-repo> --branch <branch>");
        let text = if chosen {
            "no such sessions".to_owned()
        } else {
            format!("no sessions; start one with: {up}")
        };
        return work.output.note(&text);
    }
    let mut header = vec![
        "SESSION",
        "NAME",
        "STATE",
        "REPOSITORY",
        "BRANCH",
        "UPDATED",
        "NEXT",
    ];
    if args.all_owners {
        header.push("OWNER");
    }
    let rows = sessions
        .iter()
        .zip(&document.sessions)
        .map(|((record, _), session)| {
            let text = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
            let mut row = vec![
                session.session_id.clone(),
                text(&session.name),
                session.state.to_owned(),
                session.repo_url.clone(),
                session.branch.clone(),
                time::ago(record.updated_at, now),
                text(
                    &session
                        .next_step
                        .as_ref()
                        .map(|next| work.output.command(next)),
                ),
            ];
            if args.all_owners {
                row.push(session.owner_principal_id.clone());
            }
            row
        });
    work.output.table(&header, rows.collect());
    if document.truncated {
        let more = work.output.command(&more(args, sessions.len()));
        work.output.note(&format!("there are more: {more}"));
    }
}

/// The same list, longer.
fn more(args: &ListArgs, shown: usize) -> String {
    let mut words = vec!["alpine list".to_owned()];
    if args.all_owners {
        words.push("--all-owners".to_owned());
    }
    if !args.state.is_empty() {
        let states: Vec<_> = args.state.iter().map(|state| state.trim()).collect();
        words.push(format!("--state {}", states.join(",")));
    }
    if args.all {
        words.push("--all".to_owned());
    }
    words.push(format!("--limit {}", shown.saturating_mul(10)));
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::more;
    use crate::args::ListArgs;

    #[test]
    fn a_longer_list_is_of_the_same_sessions() {
        let args = |all_owners, all, states: &[&str]| ListArgs {
            all_owners,
            state: states.iter().map(|state| (*state).to_owned()).collect(),
            all,
            limit: Some(2),
        };
        assert_eq!(more(&args(false, false, &[]), 2), "alpine list --limit 20");
        assert_eq!(
            more(&args(true, true, &["ready", "failed"]), 2),
            "alpine list --all-owners --state ready,failed --all --limit 20"
        );
    }
}
