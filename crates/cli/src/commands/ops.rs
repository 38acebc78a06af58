//! `ops`: what was done to a session, operation by operation and step by step.

use crate::args::OpsArgs;
use crate::time;
use crate::view::{OpsDocument, state_name};
use crate::work::Work;
use alpine_ledger::{OperationRecord, StepRecord};
use alpine_lifecycle::{Failure, lookup};
use std::time::Duration;

/// What a table shows where there is nothing.
const NONE: &str = "-";

pub(crate) fn run(work: &Work, args: &OpsArgs) -> Result<u8, Failure> {
    let config = work.config()?;
    let caller = config.caller()?;
    let ledger = work.ledger_to_read(&config)?;
    let (session, operations) = ledger.read(|snapshot| {
        let session = match lookup(snapshot, &caller, &args.session)? {
            Ok(session) => session,
            Err(failure) => return Ok(Err(failure)),
        };
        let operations = snapshot.operations(&session.session_id)?;
        Ok(Ok((session, operations)))
    })??;
    if work.output.json {
        let document = OpsDocument::new(&session.session_id, &operations, work.redactor());
        work.output.document(&document);
    } else {
        let header = ["OPERATION", "WHAT", "STATE", "AT", "TOOK", "TRIES", "ERROR"];
        work.output
            .table(&header, operations.iter().flat_map(rows).collect());
    }
    Ok(0)
}

/// An operation, and below it its steps in the order in which they ended.
fn rows(operation: &OperationRecord) -> Vec<Vec<String>> {
    let mut rows = vec![operation_row(operation)];
    rows.extend(operation.steps.iter().map(step_row));
    rows
}

fn operation_row(operation: &OperationRecord) -> Vec<String> {
    let took = operation
        .completed_at
        .map(|at| time::span(at.since(operation.started_at)));
    let state = match operation.terminal_state {
        Some(session) => format!("{} ({session})", state_name(operation.state)),
        None => state_name(operation.state).to_owned(),
    };
    let error = operation
        .error
        .as_ref()
        .map(|error| error.error_code.clone());
    vec![
        operation.operation_id.to_string(),
        operation.action.to_string(),
        state,
        operation.started_at.to_string(),
        took.unwrap_or_else(|| NONE.to_owned()),
        operation.takeovers.saturating_add(1).to_string(),
        error.unwrap_or_else(|| NONE.to_owned()),
    ]
}

fn step_row(step: &StepRecord) -> Vec<String> {
    let state = if step.error_code.is_none() {
        "done"
    } else {
        "failed"
    };
    vec![
        String::new(),
        format!("  {}", step.step),
        state.to_owned(),
        step.at.to_string(),
        time::span(Duration::from_millis(step.duration_ms)),
        step.attempts.to_string(),
        step.error_code.clone().unwrap_or_else(|| NONE.to_owned()),
    ]
}
