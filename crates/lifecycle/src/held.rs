//! A session's lease while this process holds it: renewed in the background, watched for cancellation and loss.

use crate::engine::Engine;
use crate::{ErrorCode, Failure, Progress};
use alpine_ledger::{
    Grant, LeaseToken, Ledger, LedgerError, OperationLock, OperationRecord, SessionRecord,
    Snapshot, State, StepRecord, Tx,
};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// How often the holder looks whether it is asked to give up.
const CANCEL_POLL: Duration = Duration::from_millis(100);

/// Why a holder has to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// `down --cancel`.
    Cancelled,
    /// The lease is another's now.
    Lost,
}

/// The lease, and what is known under it.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) session: SessionRecord,
    pub(crate) operation: OperationRecord,
    pub(crate) token: LeaseToken,
    /// Whether another process began this operation.
    pub(crate) resumed: bool,
    /// When the operation has to be over.
    pub(crate) deadline: Instant,
    /// Steps that were done since the last transaction; recorded with the next.
    pub(crate) steps: Vec<StepRecord>,
    /// What the provider warned of since then; recorded likewise.
    pub(crate) warnings: Vec<String>,
    stop: watch::Receiver<Option<Stop>>,
    keeper: JoinHandle<()>,
    _lock: OperationLock,
}

impl Held {
    pub(crate) fn new(engine: &Engine, grant: Grant, resumed: bool, limit: Duration) -> Self {
        let Grant {
            session,
            operation,
            token,
            lock,
        } = grant;
        engine.watch.tell(Progress::Admitted {
            session_id: session.session_id.as_str().to_owned(),
            operation_id: operation.operation_id.as_str().to_owned(),
        });
        let (sender, stop) = watch::channel(None);
        let keeper = tokio::spawn(keep(
            engine.ledger.clone(),
            token.clone(),
            engine.limits.lease / 3,
            sender,
        ));
        let deadline = Instant::now() + limit;
        Self {
            session,
            operation,
            token,
            resumed,
            deadline,
            steps: Vec::new(),
            warnings: Vec::new(),
            stop,
            keeper,
            _lock: lock,
        }
    }

    /// Waits until the holder has to stop.
    pub(crate) async fn stopped(&self) -> Failure {
        let mut stop = self.stop.clone();
        let why = stop
            .wait_for(Option::is_some)
            .await
            .ok()
            .and_then(|why| *why);
        match why {
            Some(Stop::Cancelled) => cancelled(),
            Some(Stop::Lost) => Failure::new(
                ErrorCode::OperationConflict,
                "another process has taken this operation over",
            ),
            None => std::future::pending().await,
        }
    }
}

/// What an operation that was cancelled answers, and each repeat of its request.
pub(crate) fn cancelled() -> Failure {
    Failure::new(
        ErrorCode::Interrupted,
        "cancelled by `alpine down --cancel`",
    )
    .must_change()
}

impl Drop for Held {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

impl Engine {
    /// One transaction under the lease: the steps done since the last one, and a change.
    pub(crate) async fn record<T: Send + 'static>(
        &self,
        held: &mut Held,
        change: impl FnOnce(&mut Tx<'_>, &LeaseToken) -> Result<T, LedgerError> + Send + 'static,
    ) -> Result<T, Failure> {
        let token = held.token.clone();
        let steps = held.steps.clone();
        let mut warnings = std::mem::take(&mut held.warnings);
        let (value, session) = self
            .write_until(held.deadline, move |tx| {
                for step in &steps {
                    tx.record_step(&token, step)?;
                }
                if !warnings.is_empty() {
                    tx.update(&token, |session| {
                        warnings.retain(|warning| !session.warnings.contains(warning));
                        session.warnings.append(&mut warnings);
                    })?;
                }
                let value = change(tx, &token)?;
                let session = tx.session(&token.session_id)?;
                Ok((value, session))
            })
            .await?;
        held.operation.steps.append(&mut held.steps);
        if let Some(session) = session {
            held.session = session;
        }
        Ok(value)
    }

    /// Moves the session on.
    pub(crate) async fn advance(
        &self,
        held: &mut Held,
        to: State,
        reason: &str,
        change: impl FnOnce(&mut SessionRecord) + Send + 'static,
    ) -> Result<(), Failure> {
        let reason = self.redactor.redact(reason);
        let said = reason.clone();
        self.record(held, move |tx, token| {
            tx.transition(token, to, &reason, change).map(|_| ())
        })
        .await?;
        // Only now: who reads this may rely on it.
        tracing::info!(session_id = %held.session.session_id, operation_id = %held.operation.operation_id, state = %to, reason = said, "transition");
        Ok(())
    }

    /// Records that the operation stops here and can be carried on, and lets go of the lease.
    pub(crate) async fn leave(&self, mut held: Held, failure: Failure) -> Failure {
        let failure = failure.in_operation(&held.operation.operation_id);
        let record = failure.to_record(&self.redactor);
        match self
            .record(&mut held, move |tx, token| tx.interrupt(token, &record))
            .await
        {
            Ok(()) => failure,
            // The lease is another's now: that is all there is to say, and it was said already.
            Err(unrecorded)
                if unrecorded.code == failure.code
                    && failure.code == ErrorCode::OperationConflict =>
            {
                failure
            }
            // It was the ledger that ended the operation: what is in its way is said once, with what mends it.
            Err(unrecorded)
                if unrecorded.code == failure.code
                    && failure.code == ErrorCode::LedgerUnavailable =>
            {
                Failure {
                    next_step: unrecorded.next_step,
                    ..failure
                }
            }
            // The lease expires by itself; what ended the operation is what the caller should hear.
            Err(unrecorded) => Failure {
                cause: format!(
                    "{}; and this could not be recorded: {unrecorded}",
                    failure.cause
                ),
                ..failure
            },
        }
    }
}

/// Renews the lease and looks for a cancellation, until it is aborted or the lease is lost.
async fn keep(
    ledger: Ledger,
    token: LeaseToken,
    renewal: Duration,
    stop: watch::Sender<Option<Stop>>,
) {
    let mut renewed = Instant::now();
    loop {
        tokio::time::sleep(CANCEL_POLL.min(renewal)).await;
        let renew = renewed.elapsed() >= renewal;
        let (ledger, asked) = (ledger.clone(), token.clone());
        let looked = tokio::task::spawn_blocking(move || {
            if renew {
                ledger.write(|tx| tx.renew(&asked))?;
            }
            ledger.read(|snapshot| look(snapshot, &asked))
        });
        match looked.await {
            Ok(Ok(None)) => {
                if renew {
                    renewed = Instant::now();
                }
            }
            Ok(Ok(Some(why))) => {
                // Nobody may be listening any more.
                let _ = stop.send(Some(why));
                return;
            }
            Ok(Err(LedgerError::Fenced { .. })) => {
                let _ = stop.send(Some(Stop::Lost));
                return;
            }
            // A ledger that can't be reached now is tried again; every write checks the fence itself.
            Ok(Err(error)) => tracing::warn!(%error, "the lease could not be renewed"),
            Err(_) => return,
        }
    }
}

/// Why the holder has to stop, as the ledger has it now.
fn look(snapshot: &Snapshot<'_>, token: &LeaseToken) -> Result<Option<Stop>, LedgerError> {
    let lease = snapshot.lease(&token.session_id)?;
    if lease.is_none_or(|lease| lease.fence != token.fence) {
        return Ok(Some(Stop::Lost));
    }
    let operation = snapshot.operation(&token.operation_id)?;
    let cancelled = operation.is_some_and(|operation| operation.cancel_requested);
    Ok(cancelled.then_some(Stop::Cancelled))
}
