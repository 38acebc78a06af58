//! Waits for another process's operation, without a lease and without touching anything.

use crate::engine::Engine;
use crate::{ErrorCode, Failure, Progress};
use alpine_ledger::{Liveness, OperationId, OperationRecord, OperationState, SessionId};
use std::time::Duration;
use tokio::time::Instant;

const POLL: Duration = Duration::from_millis(50);

impl Engine {
    /// Waits until the operation has ended, and gives its record; none when its holder let go or died before.
    pub(crate) async fn wait_for(
        &self,
        session: &SessionId,
        operation: &OperationId,
        deadline: Instant,
    ) -> Result<Option<OperationRecord>, Failure> {
        self.watch.tell(Progress::Waiting {
            operation_id: operation.to_string(),
        });
        tracing::info!(session_id = %session, operation_id = %operation, "waiting for another process");
        let mut interrupt = self.interrupt.clone();
        loop {
            let (asked_session, asked) = (session.clone(), operation.clone());
            let (record, live) = self
                .read(move |snapshot| {
                    let lease = snapshot
                        .lease(&asked_session)?
                        .filter(|lease| lease.operation_id == asked);
                    let live = lease
                        .is_some_and(|lease| snapshot.holder_is_live(&lease) == Liveness::Live);
                    Ok((snapshot.operation(&asked)?, live))
                })
                .await?;
            match record {
                Some(record)
                    if matches!(
                        record.state,
                        OperationState::Succeeded | OperationState::Failed
                    ) =>
                {
                    return Ok(Some(record));
                }
                Some(_) if live => {}
                Some(_) | None => return Ok(None),
            }
            tokio::select! {
                signal = interrupt.raised() => {
                    return Err(Failure::new(ErrorCode::Interrupted, "interrupted while it waited for another process")
                        .next(format!("alpine status {session}"))
                        .in_operation(operation)
                        .exit(signal.exit_code()));
                }
                () = tokio::time::sleep_until(deadline) => {
                    return Err(Failure::new(ErrorCode::OperationConflict, format!("operation `{operation}` of another process still has session `{session}`"))
                        .next(format!("alpine status {session}"))
                        .in_operation(operation));
                }
                () = tokio::time::sleep(POLL) => {}
            }
        }
    }
}
