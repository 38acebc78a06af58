//! `audit`: what admins did to others' sessions.

use crate::args::AuditArgs;
use crate::view::AuditDocument;
use crate::work::Work;
use alpine_lifecycle::{ErrorCode, Failure};

/// How many records are shown without `--limit`.
const USUAL_LIMIT: u32 = 100;

pub(crate) fn run(work: &Work, args: &AuditArgs) -> Result<u8, Failure> {
    let config = work.config()?;
    if !config.caller()?.admin {
        return Err(
            Failure::new(ErrorCode::SessionForbidden, "`alpine audit` is for admins")
                .next("alpine events"),
        );
    }
    let limit = args.limit.unwrap_or(USUAL_LIMIT) as usize;
    let mut records = work
        .ledger_to_read(&config)?
        .read(|snapshot| snapshot.audit())?;
    records.reverse();
    let truncated = records.len() > limit;
    records.truncate(limit);
    let document = AuditDocument::new(&records, truncated, work.redactor());
    if work.output.json {
        work.output.document(&document);
    } else if records.is_empty() {
        work.output.note("no admin has acted on another's session");
    } else {
        work.output.table(
            &["AT", "ACTOR", "ACTION", "SESSION", "REASON"],
            document.rows(),
        );
        if truncated {
            let more = format!("alpine audit --limit {}", limit.saturating_mul(10));
            work.output
                .note(&format!("there are more: {}", work.output.command(&more)));
        }
    }
    Ok(0)
}
