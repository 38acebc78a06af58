//! One process at a time deals with the sandboxes that should not be there.

use crate::Failure;
use crate::engine::Engine;
use alpine_ledger::OperationLock;
use std::time::Duration;
use tokio::time::Instant;

/// Between two looks whether another has ended.
const PAUSE: Duration = Duration::from_millis(50);

/// Whose turn it is to deal with strays.
#[derive(Debug)]
pub(crate) enum Turn {
    Mine {
        _lock: OperationLock,
    },
    /// They are only reported.
    Nobodys,
    /// Why it is not mine.
    Anothers(String),
}

impl Engine {
    /// Takes the lock under which stray sandboxes are dealt with; who has it gets a while to end.
    pub(crate) async fn turn_to_save(&self, dry_run: bool) -> Result<Turn, Failure> {
        if dry_run {
            return Ok(Turn::Nobodys);
        }
        let until = Instant::now() + self.limits.probe;
        let mut interrupt = self.interrupt.clone();
        loop {
            let ledger = self.ledger.clone();
            let taken = tokio::task::spawn_blocking(move || ledger.lock_strays()).await;
            return Ok(match taken {
                Ok(Ok(Some(_lock))) => Turn::Mine { _lock },
                Ok(Ok(None)) if Instant::now() < until => {
                    tokio::select! {
                        signal = interrupt.raised() => return Err(Failure::signalled(signal)),
                        () = tokio::time::sleep(PAUSE) => continue,
                    }
                }
                Ok(Ok(None)) => Turn::Anothers(
                    "another process deals with such sandboxes; once it has ended: alpine reconcile"
                        .to_owned(),
                ),
                // On a disk that is full, sessions can still be brought down, which frees space.
                Ok(Err(error)) => Turn::Anothers(self.told(&Failure::from(error))),
                Err(died) => Turn::Anothers(died.to_string()),
            });
        }
    }
}
